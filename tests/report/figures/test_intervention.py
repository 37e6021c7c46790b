"""The figure of the intervention says what its table says."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.core.tables import Table
from interp.report.figures.levels_of_evidence import foremost
from interp.report.figures.training import GAPS
from interp.report.loaded import read_result
from interp.report.page_model import PageModel, page_model
from interp.report.sections import filled_sections
from interp.report.summary import summary
from interp.verdicts.levels.l4_intervention import TARGET, intervene
from tests.report.conftest import figure_of
from tests.verdicts.levels.test_l4_intervention import SPEC, planted


def read(folder: Path, **change: Any) -> PageModel:
    for name, frame in intervene(planted(**change), SPEC.intervention).items():
        Table(name, frame).save(folder / "tables")
    facts = {"mode": "study", "measured": "accuracy", "specification": {"natural": "real"}}
    (folder / "facts.json").write_text(json.dumps(facts))
    return page_model(read_result(folder))


def test_lines_are_the_rows_of_the_table(tmp_path: Path) -> None:
    result = read(tmp_path)
    figure = figure_of(result, "intervention")
    assert figure is not None
    go.Figure(list(figure.data), figure.layout)
    rows = result.frame("intervention")
    rows = rows[rows["measure"] == TARGET.name]
    first = [trace for trace in figure.data if trace["yaxis"] == "y"]
    for trace, arms in zip(
        first, (["none", "aligned"], ["none", "shuffled"], ["aligned − shuffled"]), strict=True
    ):
        own = rows[rows["arm"].isin(arms) & rows["weight"].notna()].sort_values("weight")
        assert trace["y"] == pytest.approx(own["value"].tolist())
        assert trace["x"] == pytest.approx(own["weight"].tolist(), abs=0.02)
        ends = [y + up for y, up in zip(trace["y"], trace["error_y"]["array"], strict=True)]
        assert ends == pytest.approx(own["high"].tolist())
    assert [trace["meta"] for trace in first] == [[1], [1], [0]]
    assert figure.choices[0].options[0] == GAPS and len(figure.data) == 3 * 6


@pytest.mark.parametrize(
    ("change", "words"),
    [({}, "goes together: held-out classes are recognised better"),
     ({"moved": 0.0}, "unknown (the term did not change sharing")],
)  # fmt: skip
def test_the_caption_carries_the_verdict(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    result = read(tmp_path, **change)
    (section,) = [each for each in filled_sections(result) if each.spec.anchor == "intervention"]
    assert words in section.figures[0].caption
    assert ("because" in section.figures[0].caption) == (not change)
    (sentence,) = [each for each in summary(result) if "wrong partners" in each]
    row = result.frame("levels").query("weight == 1").iloc[0]
    said = [f"{100 * row[each]:+.1f}".replace("-", "−") for each in ("value", "low", "high")]
    assert all(number in sentence for number in said) and ("because" in sentence) == (not change)


def test_the_forest_has_the_verdict_and_no_number_among_correlations(tmp_path: Path) -> None:
    result = read(tmp_path)
    assert result.frame("levels")["value"].notna().all()
    figure = figure_of(result, "levels")
    assert figure is not None
    (trace,) = [each for each in figure.data if each["name"] == "r"]
    assert trace["text"] == ["goes together"] and "error_x" not in trace
    assert trace["x"] == [0.0] and trace["marker"]["size"] == [0]


def test_what_is_decided_stands_for_the_intervention() -> None:
    rows = pd.DataFrame(
        {
            "level": "L4",
            "weight": [0.3, 1.0, None],
            "verdict": ["goes together", "unknown", "unknown"],
        }
    )
    assert foremost(rows)["weight"].tolist() == [0.3]
    assert foremost(rows.assign(verdict="unknown"))["weight"].tolist() == [1.0]
    assert foremost(rows[:0]).empty


def test_a_study_without_arms_has_no_such_section(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"mode": "study", "measured": "accuracy"}))
    result = page_model(read_result(tmp_path))
    assert figure_of(result, "intervention") is None
    assert "intervention" not in [each.spec.anchor for each in filled_sections(result)]


def test_one_block_is_drawn_without_intervals(tmp_path: Path) -> None:
    figure = figure_of(read(tmp_path, blocks=1), "intervention")
    assert figure is not None
    shared = [trace for trace in figure.data if trace["yaxis"] == "y6"]
    assert all(each.endswith("-open") for trace in shared for each in trace["marker"]["symbol"])

"""The page of a judged method: what stands first, where it failed, and what a method may be."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.core.tables import Table
from interp.report.judged_page import area_figure, build_judged_page, headline, kinds_figure
from interp.validation import blueprints, judge_method, planted_answers, standing
from tests.report.unpacked import with_figures

CONDITIONS = ["all shared", "all separate"]
LEVELS = {"shared": 0.9, "partly shared": 0.5, "not shared": 0.1}


def made(tmp_path: Path, method: Any, ask: str = "sharing") -> tuple[Table, Table, Table, str]:
    models = blueprints(range(4), conditions=CONDITIONS, tiers=["easy"])
    turn = iter(models)
    judged = judge_method(lambda puzzle: method(puzzle, next(turn, None)), models, ask=ask)
    tables = judged, standing(judged), standing(judged, by=["condition", "tier"])
    page = build_judged_page(
        *tables, out=tmp_path / "judged.html", command="interp-report judge m:f"
    )
    return *tables, page.read_text(encoding="utf-8")


def truth(puzzle: Any, model: Any) -> Any:
    said = planted_answers(model)
    return {rung: {"verdict": word, "index": LEVELS[word]} for rung, word in said.items()}


@pytest.mark.slow
def test_the_numbers_on_the_page_are_those_of_the_tables(tmp_path: Path) -> None:
    _, overall, by_kind, page = made(tmp_path, truth)
    assert "Wiring (R6), 8 models: right in 100.0 %" in page
    assert "AUROC 1.00 (1.00 to 1.00)" in page and "https:" not in page.split("plotly")[0]
    figure = area_figure(overall.frame)
    assert figure is not None
    assert figure.data[0]["x"] == overall.frame["auroc"].dropna().tolist()
    assert "n = 8" in figure.caption and "interval" in figure.caption
    kinds = kinds_figure(by_kind.frame)
    assert kinds is not None and len(kinds.choices[0].options) == len(kinds.data)
    rows = by_kind.frame[by_kind.frame["rung"] == "R6"]
    place = kinds.choices[0].options.index("wiring (R6)")
    assert kinds.data[place]["x"] == rows["right"].tolist() == [1.0, 1.0]
    # each bar has its number beside it, so that 0 % is told from no answer
    assert kinds.data[place]["text"] == ["100.0 %"] * 2
    assert kinds.data[place]["textposition"] == "outside"
    assert "Where it failed" not in page


@pytest.mark.slow
def test_failures_are_told_with_their_reasons(tmp_path: Path) -> None:
    def moody(puzzle: Any, model: Any) -> Any:
        if model.condition == "all shared":
            raise RuntimeError("no <b>shared</b> models")
        return "not shared"

    *_, page = made(tmp_path, moody)
    assert "Where it failed" in page and "failed in 4" in page
    assert "no &lt;b&gt;shared&lt;/b&gt; models" in page and "no <b>shared" not in page


@pytest.mark.slow
def test_a_method_that_always_fails_has_a_page(tmp_path: Path) -> None:
    _, overall, by_kind, page = made(tmp_path, lambda puzzle, model: None)
    assert "It failed in all 8 models." in page
    assert area_figure(overall.frame) is None and kinds_figure(by_kind.frame) is None


@pytest.mark.slow
def test_circuits_have_a_page_too(tmp_path: Path) -> None:
    judged, overall, _, page = made(
        tmp_path, lambda puzzle, model: range(len(puzzle.parts)), "nodes"
    )
    assert headline(judged, overall.frame)[0].startswith("Nodes, 8 models: AUROC")
    assert "mean AUROC" in with_figures(page)


@pytest.mark.slow
def test_verdicts_without_numbers_have_bars_alone(tmp_path: Path) -> None:
    judged, overall, by_kind, page = made(tmp_path, lambda puzzle, model: "shared")
    assert area_figure(overall.frame) is None
    kinds = kinds_figure(by_kind.frame)
    assert kinds is not None
    place = kinds.choices[0].options.index("wiring (R6)")
    colours = kinds.data[place]["marker"]["color"]
    assert kinds.data[place]["x"] == [1.0, 0.0] and colours[0] != colours[1]
    assert isinstance(judged.frame, pd.DataFrame) and "Too much" in page


@pytest.mark.parametrize("columns", [["rung"], []])
def test_a_standing_of_another_table_is_refused(columns: list[str]) -> None:
    from interp.core.errors import SpecificationError

    with pytest.raises(SpecificationError):
        standing(Table("circuits", pd.DataFrame({"score": [1.0], **dict.fromkeys(columns, "R2")})))

"""The verdict's figures and sentences say what its tables say, in the words of its level."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.core.tables import Table
from interp.report.naming import SETTINGS, setting_looks
from interp.report.page_model import PageModel
from interp.report.sections import filled_sections
from interp.report.summary import level_chips
from interp.report.verdict_tables import levels_table
from tests.report.conftest import figure_of, read
from tests.report.planted_levels import level_tables

Build = Callable[..., Path]


@pytest.fixture
def result(build: Build) -> PageModel:
    return read(build(replaced=level_tables()))


def test_cells_stand_where_the_table_says(result: PageModel) -> None:
    figure = figure_of(result, "together")
    assert figure is not None
    go.Figure(data=list(figure.data), layout=figure.layout)
    first = [trace for trace in figure.data if trace["meta"] == [0]]
    table = result.frame("together")
    own = table[(table["rung"] == "R2") & (table["setting"] == "cg-high")]
    (trace,) = [trace for trace in first if trace["name"] == "CG high diversity"]
    assert trace["x"] == own["index"].tolist() and trace["y"] == own["accuracy"].tolist()
    assert trace["error_y"]["array"] == pytest.approx([0.1, 0.1])
    assert trace["error_x"]["arrayminus"] == pytest.approx([0.05, 0.05])
    assert trace["marker"]["symbol"] == ["circle", "square"]
    assert "circles sketch" in figure.caption.lower() and "n = 3" in figure.caption
    assert figure.choices[0].options == ["R2 debiased CKA", "R3 cosine of mean differences"]
    assert not any("<b>other" in trace["name"] for trace in figure.data)
    colours = [trace["marker"]["color"] for trace in first]
    assert len(set(colours)) == len(colours) == 5


def test_mixtures_beyond_the_known_ones_have_other_colours() -> None:
    looks = setting_looks(["cg-high", *[f"cg-high, {n}" for n in range(6)]])
    known = {look[1:] for look in SETTINGS.values()}
    others = {look for name, look in looks.items() if name != "cg-high"}
    assert len(set(looks.values())) == 7 and not others & known
    assert not {colour for colour, _ in others} & {colour for colour, _ in known}


def test_the_forest_has_every_level_with_its_verdict(result: PageModel) -> None:
    figure = figure_of(result, "levels")
    assert figure is not None
    go.Figure(data=list(figure.data), layout=figure.layout)
    names = figure.layout["yaxis"]["ticktext"]
    said: dict[str, str] = {}
    for trace in (trace for trace in figure.data if trace["meta"] == [1]):
        said |= {names[int(at)]: word for at, word in zip(trace["y"], trace["text"], strict=True)}
    assert said["<b>L1</b> across mixtures"] == "goes together"
    assert said["<b>L3</b> among classes"] == "does not go together"
    assert said["L1 adjusted"] == "unknown"
    assert said["<b>L4</b> by intervention"] == "not measured"
    low = next(t["error_x"] for t in figure.data if t["meta"] == [1] and t["mode"] != "text")
    assert low["arrayminus"][0] == pytest.approx(0.81 - 0.52)
    assert figure.choices[0].selected == 1  # by R3 there is an answer at L3 as well


def test_chips_count_the_verdicts_of_each_level(result: PageModel) -> None:
    chips = level_chips(result.frame("levels"))
    told = {(chip.about[:2], chip.word): chip.counted for chip in chips}
    assert told == {
        ("L1", "goes together"): "2 of 2", ("L2", "unknown"): "2 of 2",
        ("L3", "does not go together"): "1 of 1",
    }  # fmt: skip
    assert level_chips(result.empty) == []


def test_the_section_stands_before_the_ladder_and_names_what_would_decide(
    result: PageModel,
) -> None:
    found = {section.spec.anchor: place for place, section in enumerate(filled_sections(result))}
    assert found["levels"] < found["ladder"]
    (grid,) = levels_table(result)
    rows = {row[0]: row for row in grid.rows}
    told = rows["L2 R2 debiased CKA"]
    assert told[1] == "? unknown" and told[-1] == "16 blocks" and "holds both" in told[-2]
    assert rows["L1 R2 debiased CKA"][1] == "● goes together"
    assert rows["L1 R2 debiased CKA"][4] == "none"


@pytest.mark.slow
def test_a_result_without_levels_has_neither(build: Build) -> None:
    bare = read(build())
    assert (
        figure_of(bare, "together") is figure_of(bare, "levels") is None
        and levels_table(bare) == []
    )
    assert "levels" not in {section.spec.anchor for section in filled_sections(bare)}


def test_what_has_no_number_and_fails_alike_stands_in_one_row(build: Build) -> None:
    tables = level_tables()
    nothing = {"value": np.nan, "low": np.nan, "high": np.nan, "p_adjusted": np.nan}
    two = tables["levels"]["level"] == "L2"
    for name, value in {**nothing, "gain": 0.0, "verdict": "unknown", "reason": "1 block",
                        "needed": "6 blocks"}.items():  # fmt: skip
        tables["levels"].loc[two, name] = value
    (grid,) = levels_table(read(build(replaced=tables)))
    [row] = [row for row in grid.rows if row[0].startswith("L2")]
    assert row[0].endswith(f"and {int(two.sum()) - 1} more rows") and row[-2:] == [
        "1 block", "6 blocks",
    ]  # fmt: skip


def test_intervals_of_few_blocks_do_not_stretch_the_axes(build: Build) -> None:
    tables = level_tables()
    wide = tables["together"].assign(accuracy_high=3.0, accuracy_low=-2.0, index_high=9.0)
    figure = figure_of(read(build(replaced={**tables, "together": wide})), "together")
    assert figure is not None
    (left, right), (low, high) = (figure.layout[f"{each}axis"]["range"] for each in "xy")
    assert low == pytest.approx(-0.04) and high == pytest.approx(1.04)
    assert left < wide["index_low"].min() and right == pytest.approx(1.5, abs=0.1)
    usual = figure_of(read(build(replaced=tables, name="usual")), "together")
    assert usual is not None
    assert "range" not in usual.layout["xaxis"]  # plotly fits it to the rung that is chosen


def test_a_long_legend_has_room_above_the_plot(build: Build) -> None:
    tables = level_tables()
    few = Table("together", tables["together"]).plot()
    rows = [tables["together"].assign(setting=f"cg-high, mixture {n}") for n in range(15)]
    many = Table("together", pd.concat(rows, ignore_index=True)).plot()
    assert many.layout.margin.t > few.layout.margin.t + 60
    assert many.layout.height - many.layout.margin.t == few.layout.height - few.layout.margin.t

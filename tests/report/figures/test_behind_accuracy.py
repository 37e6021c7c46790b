"""Figures of what lies behind accuracy: each says what its table says, from primary rows alone."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.report.grammar.pieces import Figure, Trace
from interp.report.page_model import PageModel
from tests.report.conftest import figure_of, page_of, read
from tests.report.planted import classifier_rows

Build = Callable[..., Path]
ACCURACY = {"natural-only": 0.08, "leave-out-domain": 0.31, "cg-low": 0.22, "cg-high": 0.46}


@pytest.fixture
def result(loaded: Callable[..., PageModel]) -> PageModel:
    return loaded(accuracy=ACCURACY)


@pytest.fixture
def newer(build: Build, study_frames: Callable[[], dict[str, pd.DataFrame]]) -> PageModel:
    """A run whose accuracy table has other measures and classifiers before the primary rows."""
    older = study_frames()["accuracy"].assign(measure="balanced top-1", classifier="text")
    own = (older["class_set"] == "held-out") & (older["prompts"] == "neutral")
    own &= (older["candidates"] == "all") & (older["domain"] == "sketch") & (older["control"] == "")
    added = classifier_rows(ACCURACY)
    frame = pd.concat([added.sort_values("measure", ascending=False), older[~own]])
    return read(build(replaced={"accuracy": frame}, name="newer"))


def named(figure: Figure | None, name: str, *meta: int) -> Trace:
    assert figure is not None
    (found,) = [
        trace for trace in figure.data
        if trace.get("name") == name and (not meta or trace["meta"] == list(meta))
    ]  # fmt: skip
    return found


def test_other_measures_and_classifiers_do_not_stand_for_accuracy(newer: PageModel) -> None:
    rows = newer.reached[newer.reached["control"] == ""].set_index("setting")
    assert rows["value"].to_dict() == pytest.approx(ACCURACY)
    shown = named(figure_of(newer, "accuracy"), "trained", 0, 0, 0)
    assert shown["x"] == pytest.approx(list(ACCURACY.values()))


def test_rows_over_several_runs_stand_before_those_of_one(newer: PageModel) -> None:
    frame = newer.frame("accuracy")
    over_blocks = frame[frame["measure"] == "balanced top-1"].assign(n_runs=3.0, value=0.5)
    more = page_of({"accuracy": pd.concat([frame, over_blocks])}, "sketch")
    assert (more.reached[more.reached["control"] == ""]["value"] == 0.5).all()


def test_classifiers_stand_beside_one_another(newer: PageModel, result: PageModel) -> None:
    figure = figure_of(newer, "classifiers")
    for place, name in enumerate(
        ("text head", "class means of natural pictures", "linear probe of the own domain")
    ):
        values = [value + 0.1 * place for value in ACCURACY.values()]
        assert named(figure, name, 0)["x"] == pytest.approx(values)
        assert named(figure, name, 0)["error_x"]["array"] == pytest.approx([0.05] * 4)
    assert figure is not None and "n = 60 classes" in figure.caption
    go.Figure(data=list(figure.data), layout=figure.layout)
    assert figure_of(result, "classifiers") is None  # an older run knew the text head alone


def test_trade_off_lines_are_the_table_and_areas_are_said(newer: PageModel) -> None:
    figure = figure_of(newer, "tradeoff")
    rows = newer.frame("tradeoff").query("setting == 'cg-high' and seed == 0")
    line = named(figure, "CG high diversity", 0)
    assert line["x"] == pytest.approx(rows["accuracy_seen"].tolist())
    assert line["y"] == pytest.approx(rows["accuracy_held_out"].tolist())
    second = named(figure, "CG high diversity, seed 1", 0)
    assert second["showlegend"] is False and second["opacity"] < 1
    assert figure is not None and "CG high diversity 0.23 (0.18 to 0.28)" in figure.caption


def test_the_model_as_it_is_is_marked(result: PageModel) -> None:
    mark = named(figure_of(result, "tradeoff"), "CG high diversity, no bias", 0)
    assert mark["y"] == [ACCURACY["cg-high"]]
    assert mark["x"] == pytest.approx([ACCURACY["cg-high"] + 0.15])


def test_exposure_points_are_classes(result: PageModel) -> None:
    figure = figure_of(result, "exposure")
    rows = result.frame("exposure_classes")
    for where, place in (("all domains", 0), ("natural", 1)):
        for kind, words in (("held-out", "held-out classes"), ("seen", "seen classes")):
            own = rows[(rows["setting"] == "cg-high") & (rows["exposed_in"] == where)]
            own = own[own["class_set"] == kind]
            trace = named(figure, words, 0, 3, place)
            assert trace["x"] == own["exposure"].tolist() and trace["y"] == own["value"].tolist()
    assert figure is not None
    assert "CG high diversity, all domains: 0.46 (0.26 to 0.66)" in figure.caption
    assert re.search(r"none for \d+, where every class was trained on equally", figure.caption)


def test_robustness_is_on_logit_axes(result: PageModel) -> None:
    figure = figure_of(result, "robustness")
    rows = result.frame("robustness")
    own = rows[rows["setting"] == "cg-high"]
    points = named(figure, "CG high diversity", 0)
    back = 1 / (1 + np.exp(-np.asarray(points["y"])))
    assert back == pytest.approx(own["accuracy_out"].to_numpy())
    line = named(figure, "line of the reference models", 0)
    inside = rows.sort_values("accuracy_in")["accuracy_in"].to_numpy()
    assert 1 / (1 + np.exp(-np.asarray(line["x"]))) == pytest.approx(inside)
    hollow = named(figure, "natural only", 0)["marker"]["symbol"]
    assert all(symbol.endswith("-open") for symbol in hollow)
    assert not any(symbol.endswith("-open") for symbol in points["marker"]["symbol"])
    assert figure is not None
    ticks = figure.layout["xaxis"]["tickvals"]
    assert len(ticks) >= 2 and min(ticks) >= figure.layout["xaxis"]["range"][0]


def test_a_narrow_logit_axis_has_numbers_closer_together(result: PageModel) -> None:
    rows = result.frame("robustness")
    narrow = rows.assign(accuracy_in=np.linspace(0.58, 0.76, len(rows)))
    figure = figure_of(page_of({"robustness": narrow}, "sketch"), "robustness")
    assert figure is not None
    assert figure.layout["xaxis"]["ticktext"] == ["60%", "65%", "70%", "75%"]


def test_epochs_are_lines_of_top_1(result: PageModel) -> None:
    figure = figure_of(result, "epochs")
    line = named(figure, "CG low diversity", 0, 0)
    assert line["x"] == [0, 4, 8]
    assert line["y"] == pytest.approx([0.03, 0.14, 0.25]) and "error_y" in line
    assert named(figure, "CG low diversity", 0, 1)["y"] == pytest.approx([0.13, 0.24, 0.35])
    second = named(figure, "CG low diversity, seed 1", 0, 0)
    assert second["y"] == pytest.approx([0.04, 0.15, 0.26]) and "error_y" not in second

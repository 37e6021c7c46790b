"""Specification curves on the page: every column is a combination, and the counts are said."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.errors import SpecificationError
from interp.core.statistics.index_of_sharing import verdict_of_interval
from interp.core.tables import Table
from interp.report import draw_multiverse
from interp.report.grammar.pieces import Figure
from interp.report.page_model import PageModel
from tests.report.conftest import EVIDENCE, figure_of, page_of

OPTIONS = {
    "method": ("integrated gradients", "learned masks"),
    "metric": ("margin", "mean_margin", "probability"),
    "corruption": ("another class", "blur", "gaussian_noise"),
    "steps": (5, 1, 20),
}


def rows(rung: str, level: float, *, refused: str = "", **place: object) -> pd.DataFrame:
    """Rows of a rung around an index; those of the option `refused` have none."""
    generator = np.random.default_rng(round(100 * level))
    frame = pd.DataFrame(product(*OPTIONS.values()), columns=list(OPTIONS))
    frame = frame.merge(pd.DataFrame({"size": ["over sizes", "5 %", "20 %"]}), how="cross")
    frame["overlap"] = PRIMARY_OVERLAP if rung == "R5" else ""
    usual = [options[0] for options in OPTIONS.values()]
    frame["default"] = (frame[list(OPTIONS)] == usual).all(axis=1) & (frame["size"] == "over sizes")
    frame["index"] = np.where(frame["default"], level, generator.normal(level, 0.2, len(frame)))
    frame.loc[frame["corruption"] == refused, "index"] = np.nan
    half = np.where(frame["default"], 0.05, generator.uniform(0.05, 0.3, len(frame)))
    frame["index_low"], frame["index_high"] = frame["index"] - half, frame["index"] + half
    ends = zip(frame["index_low"], frame["index_high"], strict=True)
    frame["verdict"] = [verdict_of_interval(*each) for each in ends]
    told = {"p": 0.01, "value": frame["index"], "n_possible": 2.0 * len(frame)}
    return frame.assign(rung=rung, **{**EVIDENCE, **told, **place})


@pytest.fixture(scope="module")
def result() -> PageModel:
    """Two settings in two blocks: one shares in both, one in neither."""
    frames = [
        rows(rung, level + block / 50, refused="blur", setting=setting, seed=block,
             test_domain="sketch")
        for rung in ("R5", "R6")
        for setting, level in (("natural-only", 0.05), ("cg-high", 0.9))
        for block in (0, 1)
    ]  # fmt: skip
    return page_of({"multiverse": pd.concat(frames, ignore_index=True)}, "sketch")


@pytest.fixture(scope="module")
def figure(result: PageModel) -> Figure:
    drawn = figure_of(result, "choices-r6")
    assert drawn is not None
    return drawn


def test_every_model_can_be_chosen(figure: Figure) -> None:
    assert [choice.options for choice in figure.choices] == [
        ["sketch"], ["natural only", "CG high diversity"], ["seed 0", "seed 1"],
    ]  # fmt: skip
    assert {tuple(trace["meta"]) for trace in figure.data} == set(product([0], [0, 1], [0, 1]))


def test_points_are_sorted_and_refusals_stand_at_the_end(figure: Figure, result: PageModel) -> None:
    frame = result.tables["multiverse"]
    own = frame[(frame["rung"] == "R6") & (frame["setting"] == "cg-high") & (frame["seed"] == 0)]
    shown = [trace for trace in figure.data if trace["meta"] == [0, 1, 0]]
    drawn = [trace for trace in shown if "error_y" in trace]
    points = sorted((x, y) for trace in drawn for x, y in zip(trace["x"], trace["y"], strict=True))
    known = own["index"].dropna()
    assert [y for _, y in points] == sorted(known) and [x for x, _ in points][-1] == len(known)
    [matrix] = [trace for trace in shown if trace["type"] == "heatmap"]
    names = figure.layout["yaxis2"]["ticktext"]
    blurred = matrix["z"][names.index("blur")]
    assert [cell is not None for cell in blurred] == [x > len(known) for x in matrix["x"]]
    assert len(matrix["x"]) == len(own)


def test_every_column_has_one_option_of_each_choice(figure: Figure) -> None:
    names = figure.layout["yaxis2"]["ticktext"]
    heads = [place for place, name in enumerate(names) if name.startswith("<b>")]
    assert [names[place] for place in heads] == [
        f"<b>{name}</b>" for name in ("method", "metric", "corruption", "steps", "size")
    ]
    for trace in (trace for trace in figure.data if trace["type"] == "heatmap"):
        filled = np.array([[cell is not None for cell in line] for line in trace["z"]])
        for first, last in zip(heads, [*heads[1:], len(names)], strict=True):
            assert (filled[first:last].sum(axis=0) == 1).all() and not filled[first].any()


def test_numbers_of_an_axis_rise(figure: Figure) -> None:
    names = figure.layout["yaxis2"]["ticktext"]
    assert names[names.index("<b>steps</b>") + 1 :] == [
        "1", "5", "20", "<b>size</b>", "over sizes", "5 %", "20 %",
    ]  # fmt: skip


def test_the_caption_counts(figure: Figure) -> None:
    assert "n = 45 classes" in figure.caption
    assert "162 of 324 combinations were run, at most 54 without an index" in figure.caption
    assert re.search(
        r"with an index [\d.]+ % to [\d.]+ % give the verdict.* opposite", figure.caption
    )


def test_one_rung_is_drawn_of_a_table(result: PageModel) -> None:
    frame = result.tables["multiverse"]
    one = Table("multiverse", frame[(frame["setting"] == "cg-high") & (frame["seed"] == 0)])
    assert one.plot().layout.title.text.startswith("Same wiring?")
    parts = draw_multiverse(one, rung="R5", title="Mine")
    assert (
        parts.layout.title.text.startswith("Mine<br>") and "45 classes" in parts.layout.title.text
    )
    with pytest.raises(SpecificationError, match="R6"):
        draw_multiverse(Table("multiverse", one.frame[one.frame["rung"] == "R5"]), rung="R6")
    with pytest.raises(SpecificationError, match="without an index"):
        draw_multiverse(Table("multiverse", one.frame.assign(index=np.nan)))


def test_a_model_without_any_index_has_no_curve(result: PageModel) -> None:
    frame = result.tables["multiverse"].assign(index=np.nan)
    assert figure_of(page_of({"multiverse": frame}, "sketch"), "choices-r6") is None

"""Several models at one point of a figure: their mean, and every figure that draws one."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from interp.core.statistics.replication import mean_of_intervals
from interp.declared.figures import INDEX, RAW
from interp.report.grammar.mean_of_models import N_MODELS, OF_MODELS, mean_of_models, mean_sentence
from interp.report.grammar.pieces import Trace
from interp.report.loaded import whole
from interp.report.page_model import PageModel
from tests.report.conftest import figure_of, page_of

ADDED = 0.1


def rows_of(**columns: list[object]) -> pd.DataFrame:
    return whole(pd.DataFrame(columns))


def shifted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of another block, in which every number and its interval is larger."""
    numbers = ["value", "low", "high", "index", "index_low", "index_high", "loss"]
    moved = {name: rows[name] + ADDED for name in numbers if name in rows}
    return rows.assign(seed=1, **moved)


def with_tables(result: PageModel, **frames: pd.DataFrame) -> PageModel:
    return page_of({**result.tables, **frames}, *result.tests)


@pytest.fixture
def one_and_two(loaded: Callable[..., PageModel]) -> tuple[PageModel, PageModel]:
    """A study of one block, and the same with a second block that is `ADDED` above it."""
    one = loaded(rung4={"natural-only": 0.05, "cg-high": 0.8})
    names = ("similarity", "steering", "faithfulness", "feature_sharing", "losses")
    rows = {name: one.frame(name).assign(seed=0) for name in (*names, "circuit_stability")}
    both = {name: pd.concat([frame, shifted(frame)]) for name, frame in rows.items()}
    return one, with_tables(one, **both)


def test_a_place_has_the_mean_of_its_models() -> None:
    rows = rows_of(
        site=["a", "a", "b", "b"], seed=[0, 1, 0, 1], index=[0.2, 0.4, np.nan, 0.8],
        index_low=[0.1, 0.3, np.nan, 0.7], index_high=[0.4, 0.5, np.nan, 0.9],
        verdict=["shared", "partly shared", "unknown", "shared"],
    )  # fmt: skip
    found = mean_of_models(rows, ["site"], [INDEX]).set_index("site")
    asked = mean_of_intervals([0.2, 0.4], [0.1, 0.3], [0.4, 0.5])
    told = found.loc["a", ["index", "index_low", "index_high"]].tolist()
    assert told == pytest.approx([asked.value, asked.low, asked.high])
    assert found.loc["a", OF_MODELS] == "mean of 2 models, 0.20 to 0.40"
    assert found.loc["a", "verdict"] == "partly shared"
    told = found.loc["b", ["index", "index_low", "index_high"]].tolist()
    assert told == pytest.approx([0.8, 0.7, 0.9])
    assert found.loc["b", OF_MODELS] == "1 of 2 models"
    assert found.loc["b", "verdict"] == "shared"
    assert "Of 2 models the mean" in mean_sentence([found])
    blocks = mean_of_models(rows, ["site"], [INDEX], counted="blocks")
    assert blocks[OF_MODELS].iloc[0] == "mean of 2 blocks, 0.20 to 0.40"
    assert mean_sentence([blocks]).startswith("Of 2 blocks the mean is drawn; its interval adds")


def test_one_model_and_several_rows_of_one_are_left_alone() -> None:
    alone = rows_of(site=["a", "b"], seed=[0, 0], value=[0.2, 0.4])
    assert mean_of_models(alone, ["site"], [RAW]) is alone and mean_sentence([alone]) == ""
    doubled = rows_of(site=["a", "a", "b", "b"], seed=[0, 0, 0, 1], value=[0.2, 0.4, 0.6, 0.8])
    found = mean_of_models(doubled, ["site"], [RAW])
    assert found["value"].tolist() == pytest.approx([0.2, 0.4, 0.7])
    assert found[N_MODELS].tolist() == [1, 1, 2]


def own(trace: Trace) -> bool:
    """Whether a trace draws numbers of trained models with their intervals."""
    group = trace.get("legendgroup")
    return trace["type"] == "scatter" and "markers" in trace["mode"] and group != "floors"


@pytest.mark.parametrize(
    ("name", "axis"),
    [("similarity", "y"), ("steering", "y"), ("faithfulness", "y"), ("steady", "y"),
     ("feature-sharing", "x"), ("losses", "y")],
)  # fmt: skip
def test_a_figure_of_two_blocks_draws_their_mean(
    one_and_two: tuple[PageModel, PageModel], name: str, axis: str
) -> None:
    """As many points as of one block, each halfway to the other block."""
    first, both = (figure_of(result, name) for result in one_and_two)
    assert first is not None and both is not None
    assert "Of 2 models the mean is drawn" in both.caption and "Of 2 models" not in first.caption
    assert ("its interval adds" in both.caption) == (name != "losses")
    before = [trace for trace in first.data if own(trace)]
    after = [trace for trace in both.data if own(trace) and trace.get("opacity") != 0.25]
    assert [trace["name"] for trace in after] == [trace["name"] for trace in before]
    n = 0
    for one, two in zip(before, after, strict=True):
        places = "x" if axis == "y" else "y"
        assert two[places] == one[places]
        pairs = [(a, b) for a, b in zip(one[axis], two[axis], strict=True) if a is not None]
        assert [b for _, b in pairs] == pytest.approx([a + ADDED / 2 for a, _ in pairs])
        n += len(pairs)
    assert n


def test_single_models_stand_faint_beside_the_mean_line(
    one_and_two: tuple[PageModel, PageModel],
) -> None:
    figure = figure_of(one_and_two[1], "losses")
    assert figure is not None
    faint = [trace for trace in figure.data if trace.get("opacity") == 0.25]
    lines = [trace for trace in figure.data if trace.get("opacity") == 1.0]
    assert len(faint) == 2 * len(lines)
    assert {trace["name"][-6:] for trace in faint} == {"seed 0", "seed 1"}
    for place, line in enumerate(lines):
        low, high = faint[2 * place], faint[2 * place + 1]
        assert line["y"] == pytest.approx(np.mean([low["y"], high["y"]], axis=0).tolist())


def test_a_map_of_two_blocks_holds_means(one_and_two: tuple[PageModel, PageModel]) -> None:
    first, both = (figure_of(result, "domain-map") for result in one_and_two)
    assert first is not None and both is not None
    before, after = (np.array(figure.data[0]["z"], float) for figure in (first, both))
    assert np.isfinite(before).any()
    assert after[np.isfinite(before)] == pytest.approx(before[np.isfinite(before)] + ADDED / 2)


@pytest.mark.slow
def test_a_map_of_positions_holds_means_and_says_so(
    one_and_two: tuple[PageModel, PageModel],
) -> None:
    cells = one_and_two[0].frame("patching").assign(seed=0)
    row = cells[cells["index"].notna()].iloc[:1]
    places = pd.concat([row.assign(pos=float(place), index=0.1 * place) for place in (1, 2)])
    both = with_tables(one_and_two[0], patching=pd.concat([places, shifted(places)]))
    figure = figure_of(both, "patching")
    assert figure is not None and "Of 2 models the mean is drawn" in figure.caption
    drawn = np.array(figure.data[0]["z"], float)
    assert drawn[np.isfinite(drawn)] == pytest.approx([0.1 + ADDED / 2, 0.2 + ADDED / 2])


def test_an_axis_holds_the_intervals_of_means(one_and_two: tuple[PageModel, PageModel]) -> None:
    """Of two blocks that lie apart a mean reaches further than either of them."""
    cells = one_and_two[0].frame("patching").assign(seed=0)
    apart = cells.assign(seed=1, index=cells["index"] + 1, index_low=cells["index_low"] + 1,
                         index_high=cells["index_high"] + 1)  # fmt: skip
    figure = figure_of(with_tables(one_and_two[0], patching=pd.concat([cells, apart])), "patching")
    assert figure is not None
    low, high = figure.layout["yaxis"]["range"]
    n = 0
    for trace in figure.data:
        bars = trace.get("error_y")
        if bars and "array" in bars:
            ends = np.array(trace["y"], float), np.array(bars["array"], float)
            assert (ends[0] + ends[1] < high).all()
            assert (ends[0] - np.array(bars["arrayminus"], float) > low).all()
            n += len(ends[0])
    assert n and high > 3


def test_the_axis_of_a_curve_holds_the_intervals_of_means_up_to_its_limit(
    one_and_two: tuple[PageModel, PageModel],
) -> None:
    first, both = (figure_of(result, "faithfulness") for result in one_and_two)
    assert first is not None and both is not None
    reached = [
        y + bar
        for trace in both.data
        if trace.get("error_y", {}).get("array")
        for y, bar in zip(trace["y"], trace["error_y"]["array"], strict=True)
        if y is not None and bar is not None
    ]
    before, high = (figure.layout["yaxis"]["range"][1] for figure in (first, both))
    assert high == pytest.approx(min(1.6, max(reached))) and high > before + ADDED


def test_single_pairs_are_held_against_their_own_models_ends(
    one_and_two: tuple[PageModel, PageModel],
) -> None:
    """Pairs of a model whose null and ceiling lie elsewhere have the same share of its gap."""
    one, _ = one_and_two
    cells, pairs = (one.frame(name).assign(seed=0) for name in ("patching", "patching_examples"))
    one = with_tables(one, patching=cells, patching_examples=pairs)
    ends = {name: cells[name] + 0.3 for name in ("null", "ceiling")}
    both = with_tables(
        one,
        patching=pd.concat([cells, cells.assign(seed=1, **ends)]),
        patching_examples=pd.concat([pairs, pairs.assign(seed=1, value=pairs["value"] + 0.3)]),
    )
    first, second = (figure_of(result, "patching") for result in (one, both))
    assert first is not None and second is not None
    for before, after in zip(first.data, second.data, strict=True):
        assert before["name"] == after["name"]
        assert set(np.round(after["y"], 6)) <= set(np.round(before["y"], 6)) and after["y"]

"""Circuits as graphs: nodes that do not overlap, the strongest first, two domains told apart."""

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import SampleError
from interp.core.tables import Table
from interp.declared.figures import BLUE, GREEN, GREY, LAID_OVER, ORANGE
from interp.report import draw_circuit
from interp.report.figures.circuit_graphs import SHARED, Graph, _columns, laid_over
from interp.report.naming import faded


def edges(*rows: tuple[str, str, str, float], setting: str = "a") -> pd.DataFrame:
    """Edges of a domain: from a node of a layer, such as 'x0:3', to one of another."""
    frame = pd.DataFrame(list(rows), columns=["domain", "node", "node_b", "score"])
    frame["edge"] = frame["node"] + "->" + frame["node_b"]
    for end in ("", "_b"):
        frame[f"layer{end}"] = frame[f"node{end}"].str[1].astype(int)
    return frame.assign(setting=setting, test_domain="sketch")


TWO = edges(
    ("sketch", "x0:1", "x1:1", 1.0),
    ("sketch", "x0:1", "x1:2", -3.0),
    ("real", "x0:1", "x1:1", 2.0),
    ("real", "x0:2", "x1:3", 0.5),
)


def test_what_both_circuits_have_is_told_from_what_one_has() -> None:
    rows = laid_over(TWO).set_index("edge")
    assert rows["found_in"].to_dict() == {
        "x0:1->x1:2": "sketch", "x0:1->x1:1": SHARED, "x0:2->x1:3": "real",
    }  # fmt: skip
    assert rows["score"].to_dict() == {"x0:1->x1:2": -3.0, "x0:1->x1:1": 1.5, "x0:2->x1:3": 0.5}
    assert set(rows["domain"]) == {LAID_OVER}
    # models are kept apart, and one with a single circuit has nothing to lay over
    single = edges(("real", "x0:1", "x1:1", 1.0), setting="b")
    assert set(laid_over(pd.concat([TWO, single]))["setting"]) == {"a"}
    assert laid_over(single).empty


def test_colours_say_whose_a_part_is() -> None:
    rows = laid_over(TWO)
    *lines, middles, nodes = Graph.of(rows, _columns(rows)).traces([])
    by_width = [line["line"]["color"] for line in lines]  # the weakest first
    # the first domain that the rows name is blue
    assert by_width == [faded(ORANGE, 0.5), faded(GREEN, 0.5), faded(BLUE, 0.5)]
    tint = dict(zip(nodes["hovertext"], nodes["marker"]["color"], strict=True))
    assert tint == {
        "x0:1": GREEN, "x1:1": GREEN, "x1:2": BLUE, "x0:2": ORANGE, "x1:3": ORANGE,
    }  # fmt: skip
    assert "x0:2-&gt;x1:3: 0.500<br>in real" in middles["text"]


def test_edges_of_one_look_are_one_trace_with_gaps() -> None:
    rows = edges(
        ("real", "x0:1", "x1:1", 0.5),
        ("real", "x0:2", "x1:2", 0.5),
        ("real", "x0:1", "x1:2", -0.5),
        ("real", "x0:2", "x1:1", 2.0),
    ).assign(found_in="", side="")
    *lines, _, nodes = Graph.of(rows, _columns(rows)).traces([])
    at = dict(zip(nodes["hovertext"], zip(nodes["x"], nodes["y"], strict=True), strict=True))
    equal, lowering, strong = lines  # the weakest first, in their own colours
    assert equal["x"].count(None) == equal["y"].count(None) == 1
    gap = equal["x"].index(None)
    drawn = [(part["x"][place], part["y"][place]) for part, place in (
        (equal, 0), (equal, gap - 1), (equal, gap + 1), (equal, -1), (lowering, 0), (strong, -1)
    )]  # fmt: skip
    ends = ("x0:1", "x1:1", "x0:2", "x1:2", "x0:1", "x1:1")
    assert drawn == [at[name] for name in ends]


def test_nodes_stand_apart_in_columns_and_the_strongest_on_top() -> None:
    generator = np.random.default_rng(0)
    rows = edges(
        *(
            ("real", f"x{layer}:{a}", f"x{layer + 1}:{b}", float(generator.normal()))
            for layer in range(3)
            for a in range(6)
            for b in range(9)
        )
    ).assign(found_in="", side="")
    graph = Graph.of(rows, _columns(rows))
    assert len(set(graph.places.values())) == len(graph.places) == 6 + 9 + 9 + 9
    assert graph.tallest == 9
    for layer in range(4):
        column = {n: place for n, place in graph.places.items() if n.startswith(f"x{layer}")}
        assert {x for x, _ in column.values()} == {layer}
        order = sorted(column, key=lambda name: -column[name][1])
        assert order == sorted(column, key=lambda name: -graph.strength[name])


def test_a_column_that_a_circuit_lacks_stays_empty() -> None:
    whole = edges(("real", "x0:1", "x1:1", 1.0), ("real", "x1:1", "x2:1", 1.0))
    columns = _columns(whole)
    assert list(columns.values()) == ["x0", "x1", "x2"]
    late = whole[whole["layer"] == 1].assign(found_in="", side="")
    assert Graph.of(late, columns).places == {"x1:1": (1.0, 0.0), "x2:1": (2.0, 0.0)}


def test_a_circuit_of_ones_own_is_drawn_by_sign() -> None:
    frame = TWO[TWO["domain"] == "sketch"].drop(columns=["setting", "test_domain", "domain"])
    own = {name: name for name in frame.columns}
    figure = draw_circuit(Table("circuit", frame.assign(kept=[True, False]), own=own), title="mine")
    assert "mine" in figure.layout.title.text and "1 edges" in figure.layout.title.text
    assert figure.data[0].line.color == faded(BLUE, 0.5)
    assert set(figure.data[-1].marker.color) == {GREY}


def test_models_of_two_seeds_are_not_mixed() -> None:
    two = pd.concat([TWO.assign(seed=0), TWO.assign(seed=1, score=TWO["score"] * 2)])
    rows = laid_over(two)
    assert rows.groupby("seed")["score"].sum().to_dict() == {0: -1.0, 1: -2.0}
    keys = {
        Graph.of(own, _columns(own)).traces([])[-1]["customdata"][0]
        for _, own in rows.groupby("seed")
    }
    assert keys == {"a|sketch|0|x0:1", "a|sketch|1|x0:1"}


def test_a_circuit_of_nothing_is_said_and_scores_of_nothing_are_drawn() -> None:
    frame = TWO.drop(columns=["setting", "test_domain", "domain"])
    own = {name: name for name in frame.columns}
    with pytest.raises(SampleError, match="no edge"):
        draw_circuit(Table("circuit", frame.assign(kept=False), own=own))
    figure = draw_circuit(Table("circuit", frame.assign(score=0.0), own=own))
    assert {trace.line.width for trace in figure.data[:-2]} == {0.6}


@pytest.mark.parametrize("width", [0.6, 9])
def test_the_weakest_edge_can_still_be_seen(width: float) -> None:
    rows = edges(("real", "x0:1", "x1:1", 1e-6), ("real", "x0:1", "x1:2", 1.0))
    lines = Graph.of(rows.assign(found_in="", side=""), _columns(rows)).traces([])[:2]
    assert width in [line["line"]["width"] for line in lines]

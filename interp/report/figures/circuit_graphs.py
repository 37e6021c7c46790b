"""Circuits as graphs: columns of nodes, the strongest first, and their strongest edges."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from interp.core.errors import SampleError
from interp.core.tables import Table
from interp.declared.figures import BLUE, GREEN, GREY, LAID_OVER, ORANGE
from interp.declared.writing import number, plain
from interp.report.embedding import KEYED, node_key
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import Figure, Meta, Trace, bare, layout
from interp.report.loaded import Frame
from interp.report.naming import faded

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHARED = "both"
"""Where an edge stands that the circuits of both domains have."""

TINTS = {SHARED: GREEN, "first": BLUE, "second": ORANGE}
"""Colours of what both circuits have, the first domain's alone, and the second's."""

MODEL_COLUMNS = ["setting", "test_domain", "architecture", "seed", "epoch", "control"]
DRAWN = ("node", "node_b", "edge", "score", "found_in", "side", *KEYED)
"""What a graph needs of an edge."""

WIDEST, LINE, HEAD = 9, 21, 46
"""Pixels of the widest edge, of a node with its name, and above the first."""

STEPS = np.linspace(0, 1, 8)


def circuit_figure(data: FigureRows) -> Figure | None:
    """The strongest edges between nodes: of both domains, laid over one another, and of each."""
    shown = [view for view in data.views if len(view.rows)]
    if not shown:
        return None
    columns = _columns(data.rows)
    graphs = [Graph.of(view.rows, columns) for view in shown]
    traces = [
        trace
        for view, graph in zip(shown, graphs, strict=True)
        for trace in graph.traces(view.meta)
    ]
    most = max(len(view.rows) for view in shown)
    return data.figure(traces, _shape(graphs, columns), most=most)


def with_both(rows: Frame) -> Frame:
    """The edges of each domain's circuit, after those of both, laid over one another."""
    rows = rows[rows["score"] != 0]
    rows = rows.assign(seed=rows["seed"].fillna(0))
    return pd.concat([laid_over(rows), rows.assign(found_in="", side="")], ignore_index=True)


def laid_over(rows: Frame) -> Frame:
    """The edges that both domains' circuits of a model have, and those that one alone has.

    `score` is the mean over the circuits that have an edge, `found_in` says which do: a domain, or
    "both", and `side` whether that is the first domain. A model with one circuit has no rows here.

    >>> rows = pd.DataFrame({"edge": ["a->b", "a->b", "a->c"], "domain": ["x", "y", "y"],
    ...                      "node": "a", "node_b": ["b", "b", "c"], "score": [1.0, 3.0, 1.0]})
    >>> laid_over(rows)[["edge", "domain", "found_in", "score"]].values.tolist()[0]
    ['a->b', 'both domains, laid over one another', 'both', 2.0]
    """
    made = []
    keys = [name for name in MODEL_COLUMNS if name in rows]
    for _, own in rows.groupby(keys, dropna=False, sort=False) if keys else [((), rows)]:
        domains = list(own["domain"].unique())
        if len(domains) != 2:
            continue
        sides = {SHARED: SHARED, domains[0]: "first", domains[1]: "second"}
        per_edge = own.groupby("edge", sort=False)
        where = per_edge["domain"].agg(lambda each: SHARED if len(each) > 1 else each.iloc[0])
        first = own.drop_duplicates("edge").set_index("edge")
        made.append(
            first.assign(score=per_edge["score"].mean(), found_in=where, domain=LAID_OVER)
            .assign(side=where.map(sides))
            .reset_index()
            .sort_values("score", key=abs, ascending=False)
        )
    return pd.concat(made, ignore_index=True) if made else rows[:0].assign(found_in="", side="")


def draw_circuit(table: Table, *, title: str = "") -> "go.Figure":
    """Draw the kept edges of a circuit between columns of nodes.

    Args:
        table: The circuit, from `Circuit.to_table()`.
        title: The figure's title.

    Returns:
        A plotly figure. Width is |score|; blue edges raise the metric.

    Raises:
        SampleError: For a circuit without an edge.

    >>> import torch
    >>> from interp.circuits import Chain, attribute, discover
    >>> tower, ones = Chain([torch.nn.Identity()]), torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    >>> draw_circuit(discover(scores, n=3).to_table()).data[-1].text
    ('input', 'm0', 'logits')
    """
    import plotly.graph_objects as go

    frame = table.frame
    rows = frame[frame["kept"]] if "kept" in frame else frame
    if rows.empty:
        raise SampleError("draw a circuit", "no edge", "one or more", "keep more of them")
    columns = _columns(rows)
    graph = Graph.of(rows.assign(found_in="", side=""), columns)
    said = f"{title}<br><sup>{len(rows)} edges; width is |score|, blue raises the metric</sup>"
    shape = _shape([graph], columns)
    extra = {"title": said, "template": "plotly_white", "height": shape["height"] + 60}
    return go.Figure(
        data=list(map(bare, graph.traces([]))), layout={**shape, **extra, "margin": {"t": 90}}
    )


@dataclass(frozen=True)
class Graph:
    """Edges, and where their nodes stand: a column a layer, the strongest node on top."""

    edges: Frame
    places: Mapping[str, tuple[float, float]]
    strength: pd.Series

    @classmethod
    def of(cls, rows: Frame, columns: Mapping[float, str]) -> "Graph":
        """The graph of edges with `node`, `node_b`, their layers, `score`, `found_in`, `side`.

        `columns` are the layers that have a column, with its name.
        """
        ends = _ends(rows)
        strength = ends["score"].abs().groupby(ends["node"]).sum()
        layer = ends.drop_duplicates("node").set_index("node")["layer"]
        order = pd.DataFrame({"layer": layer, "strength": strength}).sort_values(
            ["layer", "strength"], ascending=[True, False], kind="stable"
        )
        places: dict[str, tuple[float, float]] = {}
        for layer, own in order.groupby("layer", sort=True):
            x = float(list(columns).index(layer))
            places |= {str(name): (x, float(-y)) for y, name in enumerate(own.index)}
        return cls(rows[[name for name in DRAWN if name in rows]], places, strength)

    @property
    def tallest(self) -> int:
        """How many nodes the fullest column has."""
        return round(max(-y for _, y in self.places.values())) + 1

    def traces(self, meta: Meta) -> list[Trace]:
        """Lines for the edges, the weakest first, and the nodes above them."""
        found: list[Trace] = []
        weakest_first = self.edges.sort_values("score", key=abs)
        top = float(weakest_first["score"].abs().max()) or 1.0
        for edge in weakest_first.itertuples(index=False):
            line = self._line(edge, top, list(meta))
            if found and found[-1]["line"] == line["line"]:  # of one look: one trace, with gaps
                for axis in ("x", "y"):
                    found[-1][axis] += [None, *line[axis]]
            else:
                found.append(line)
        return [*found, self._middles(list(meta)), self._nodes(list(meta))]

    def _curve(self, edge: Any, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (x, y), (x_b, y_b) = self.places[edge.node], self.places[edge.node_b]
        return x + (x_b - x) * at, y + (y_b - y) * (3 * at**2 - 2 * at**3)

    def _line(self, edge: Any, top: float, meta: list[int | None]) -> Trace:
        x, y = (along.round(2).tolist() for along in self._curve(edge, STEPS))
        width = round(max(0.6, WIDEST * abs(edge.score) / top), 1)
        line = {"width": width, "color": faded(self._colour(edge), 0.5)}
        return self._dots(x, y, meta) | {"mode": "lines", "line": line, "hoverinfo": "skip"}

    def _colour(self, edge: Any) -> str:
        if edge.side:
            return TINTS[edge.side]
        return BLUE if edge.score > 0 else ORANGE

    def _middles(self, meta: list[int | None]) -> Trace:
        """What an edge says when its middle is pointed at."""
        middles = [self._curve(edge, np.array([0.5])) for edge in self.edges.itertuples()]
        said = [
            f"{plain(edge.edge, 80)}: {number(edge.score, 3)}"
            + (f"<br>in {plain(edge.found_in)}" if edge.found_in else "")
            for edge in self.edges.itertuples()
        ]
        x, y = ([float(at[axis][0]) for at in middles] for axis in (0, 1))
        look = {"marker": {"size": 14, "opacity": 0}, "text": said}
        return self._dots(x, y, meta) | look | {"hovertemplate": "%{text}<extra></extra>"}

    def _nodes(self, meta: list[int | None]) -> Trace:
        names, colours = list(self.places), self._node_colours()
        size = 8 + 8 * (self.strength / (self.strength.max() or 1.0)) ** 0.5
        x, y = ([self.places[name][axis] for name in names] for axis in (0, 1))
        marker = {
            "size": [round(float(size[name]), 1) for name in names],
            "symbol": "square",
            "color": [colours[name] for name in names],
            "opacity": 1,
        }
        words = {
            "text": [_short(name) for name in names],
            "textposition": "middle right",
            "textfont": {"size": 11, "shadow": "auto"},
            "cliponaxis": False,
            "customdata": self._pictured(names),
            "hovertext": [plain(name, 60) for name in names],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        return self._dots(x, y, meta) | {"mode": "markers+text", "marker": marker, **words}

    @staticmethod
    def _dots(x: list[float], y: list[float], meta: list[int | None]) -> Trace:
        at = {"x": x, "y": y, "meta": meta}
        return {"type": "scatter", "mode": "markers", "showlegend": False, **at}

    def _node_colours(self) -> dict[str, str]:
        """A node's colour: that of the one side its edges are of, or of both."""
        sides: dict[str, set[str]] = {name: set() for name in self.places}
        for node, node_b, side in self.edges[["node", "node_b", "side"]].itertuples(index=False):
            sides[node].add(side)
            sides[node_b].add(side)
        told = {name: own - {""} for name, own in sides.items()}
        return {
            name: TINTS[own.pop() if len(own) == 1 else SHARED] if own else GREY
            for name, own in told.items()
        }

    def _pictured(self, names: Sequence[str]) -> list[str]:
        """By what the page finds the pictures that a node responds to: its model, and its name."""
        first = self.edges.iloc[0]
        model = node_key({name: first.get(name, "") for name in KEYED})
        return [f"{model}|{name}" for name in names]


def _ends(rows: Frame) -> Frame:
    """Both ends of every edge: node, layer and score."""
    return pd.concat(
        [
            pd.DataFrame({"node": rows[node], "layer": rows[layer], "score": rows["score"]})
            for node, layer in (("node", "layer"), ("node_b", "layer_b"))
        ]
    )


def _columns(rows: Frame) -> dict[float, str]:
    """The layers of a circuit's nodes in order, with what each one's nodes have in common."""
    ends = _ends(rows).drop_duplicates("node")
    return {
        float(layer): _in_common(list(own["node"]))
        for layer, own in ends.groupby("layer", sort=True)
    }


def _in_common(names: Sequence[str]) -> str:
    """What nodes have in common: a site, or a block.

    >>> _in_common(["layer1.0.hook_resid_post:27"]), _in_common(["a3.h5", "m3"])
    ('layer1.0', 'block 3')
    >>> _in_common(["text block 0:a0.h2", "text block 0:m0"])
    'text block 0'
    >>> _in_common(["match"])
    'match'
    """
    stems = {name.rpartition(":")[0] or name.partition(".")[0] for name in names}
    stems = {re.sub(r"^[am](\d+)$", r"block \1", stem) for stem in stems}
    [stem] = stems if len(stems) == 1 else [""]
    return stem.replace(".hook_resid_post", "")


def _short(name: str) -> str:
    """A node's name below its column's: a channel's number alone."""
    return plain(name.rpartition(":")[2], 18)


def _shape(graphs: Sequence[Graph], columns: Mapping[float, str]) -> Trace:
    """Room for the tallest of the graphs, and the columns' names above."""
    tallest, wide = max(graph.tallest for graph in graphs), len(columns)
    hidden: Trace = {"showgrid": False, "zeroline": False, "fixedrange": True}
    return layout(
        HEAD + LINE * (tallest + 1),
        showlegend=False,
        hovermode="closest",
        xaxis=hidden
        | {
            "range": [-0.15, wide - 0.65],
            "side": "top",
            "tickvals": list(range(wide)),
            "ticktext": [plain(each, 24) for each in columns.values()],
            "showline": False,
            "ticks": "",
        },
        yaxis=hidden | {"range": [-tallest + 0.3, 0.7], "visible": False},
        margin={"l": 12, "r": 12, "t": HEAD, "b": 8},
    )

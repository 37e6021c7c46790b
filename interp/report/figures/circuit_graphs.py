"""Circuits as graphs: their strongest edges as streams between nodes."""

from collections.abc import Sequence
from typing import Any

from interp.core.declarations.figures import BLUE, GREY, ORANGE, FigureSpec
from interp.core.declarations.writing import number, plain
from interp.core.tables import Table
from interp.report.figures.grammar import finished, read_rows, views
from interp.report.figures.pieces import Figure, Trace, layout, numbers
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import faded


def circuit_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """The strongest edges as streams between nodes, which can be pointed at and dragged."""
    rows = read_rows(result, spec)
    rows = rows[rows["score"] != 0]  # a band without width is no band
    if rows.empty:
        return None
    found, choices = views(result, spec, rows)
    shown = [view for view in found if len(view.rows)]
    if not shown:
        return None
    traces = [_streams(view.rows, view.meta) for view in shown]
    most = max(len(view.rows) for view in shown)
    return finished(spec, result, rows, traces, layout(460), choices, most=most)


def draw_circuit(table: Table, *, title: str = "") -> Any:
    """Draw the kept edges of a circuit as streams between nodes.

    Args:
        table: The circuit, from `Circuit.to_table()`.
        title: The figure's title.

    Returns:
        A plotly figure, whose nodes can be dragged. Width is |score|; blue edges raise the metric.

    >>> import torch
    >>> from interp.circuits import Chain, attribute, discover
    >>> tower, ones = Chain([torch.nn.Identity()]), torch.ones(1, 2, 1)
    >>> scores = attribute(tower, clean=ones, corrupt=0 * ones, metric=lambda x: x[:, 0])
    >>> draw_circuit(discover(scores, n=3).to_table()).data[0].type
    'sankey'
    """
    import plotly.graph_objects as go

    frame = table.frame
    rows = frame[frame["kept"]] if "kept" in frame else frame
    trace = {key: value for key, value in _streams(rows, [None]).items() if key != "meta"}
    said = f"{title}<br><sup>{len(rows)} edges; width is |score|, blue raises the metric</sup>"
    return go.Figure(data=[trace], layout={"title": said, "height": 460})


def _streams(rows: Frame, meta: Sequence[int | None]) -> Trace:
    """A flow diagram; plotly lets its nodes be dragged."""
    layers = dict(zip(rows["node"], rows["layer"], strict=True))
    layers |= dict(zip(rows["node_b"], rows["layer_b"], strict=True))
    nodes = sorted(layers, key=lambda name: (layers[name], name))
    place = {name: number for number, name in enumerate(nodes)}
    last = max(layers.values()) or 1
    colours = [faded(BLUE if score > 0 else ORANGE, 0.45) for score in rows["score"]]
    node: dict[str, Any] = {
        "label": [plain(name.replace(".hook_resid_post", ""), 24) for name in nodes],
        "x": [0.02 + 0.94 * (layers[name] + 1) / (last + 1) for name in nodes],
        "y": _heights(nodes, layers),
        "color": GREY,
        "pad": 6,
        "thickness": 12,
        "line": {"width": 0},
        "hovertemplate": "%{label}<extra></extra>",
    }
    return {
        "type": "sankey",
        "arrangement": "freeform",
        "node": node,
        "link": {
            "source": [place[name] for name in rows["node"]],
            "target": [place[name] for name in rows["node_b"]],
            "value": numbers(rows["score"].abs()),
            "color": colours,
            "customdata": [
                f"{plain(edge, 80)}: {number(score, 3)}"
                for edge, score in zip(rows["edge"], rows["score"], strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        "meta": list(meta),
    }


def _heights(nodes: Sequence[str], layers: dict[str, float]) -> list[float]:
    """Nodes of a layer spread from top to bottom."""
    heights = []
    for name in nodes:
        beside = [other for other in nodes if layers[other] == layers[name]]
        heights.append(0.05 + 0.9 * (beside.index(name) + 0.5) / len(beside))
    return heights

"""Figures of circuits: how faithful one of each size is, and what the strongest is made of."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from interp.core.tables import Table
from interp.report.figures.pieces import (
    GREY,
    Choice,
    Figure,
    Trace,
    axis,
    counts,
    error_bars,
    kinds,
    layout,
    numbers,
    reference_line,
    span,
)
from interp.report.figures.subjects import ComparedPair, compared_pairs
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import faded, number, plain

ALONE, WITHOUT = "circuit alone", "model without the circuit"
COLOURS = {ALONE: "#0072B2", WITHOUT: "#D55E00"}
TICKS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
POSITIVE, NEGATIVE = "#0072B2", "#D55E00"


def faithful(result: LoadedResult) -> Figure | None:
    """The share of the model's work that circuits do alone, and that is left without them."""
    rows = result.frame("faithfulness")
    curve = rows[rows["measure"].isin([ALONE, WITHOUT]) & rows["value"].notna()]
    if curve.empty:
        return None
    places = _Places(result, curve)
    traces: list[Trace] = []
    for meta, chosen in places.chosen:
        for measure in (ALONE, WITHOUT):
            traces.append(_line(chosen[chosen["measure"] == measure], measure, meta))
        traces.append(_random(chosen[chosen["measure"] == ALONE], meta))
    sizes = sorted(curve["share"].unique())
    ends = [float(curve["low"].min()), float(curve["high"].max())]
    low, high = max(-0.5, min(-0.05, *ends)), min(1.6, max(1.1, *ends))
    return Figure(
        "faithfulness",
        "How much of the model a circuit is",
        f"{counts(curve)}; bars are 95 % intervals, a class left out at a time. Circuits were "
        "chosen on other pictures. 1 is the whole model, 0 the model that sees a picture of "
        f"another class. {kinds(curve)} Areas under the curve (CPR) are in the table.",
        f"Lines over {len(sizes)} sizes of circuit, alone, absent, and at random",
        traces,
        layout(
            430,
            shapes=[reference_line("y", at, "")[0] for at in (0, 1)],
            xaxis=axis(
                "size, as a share of all edges (or channels)",
                type="log",
                tickvals=TICKS,
                ticktext=[f"{100 * size:g} %" for size in TICKS],
                range=[np.log10(min(sizes)) - 0.1, 0.05],
            ),
            yaxis=axis("share of the metric that remains", range=[low, high]),
        ),
        places.choices,
    )


def circuit_graph(result: LoadedResult) -> Figure | None:
    """The strongest edges as streams between nodes, which can be pointed at and dragged."""
    rows = result.frame("circuits")
    rows = rows[rows["score"].notna() & (rows["score"] != 0)]  # a band without width is no band
    if rows.empty:
        return None
    places = _Places(result, rows)
    if not places.chosen:
        return None
    traces = [_streams(chosen, meta) for meta, chosen in places.chosen]
    most = int(max(len(chosen) for _, chosen in places.chosen))
    return Figure(
        "circuit",
        "What the strongest circuit is made of",
        f"n = {span(rows['n_pictures'])} pictures. The strongest edges of one model and domain, "
        f"{most} at most; each band is an edge, as "
        "wide as its |score|: blue where the sender raises what is scored (the metric; of a "
        "ResNet's edge, the change of the receiving channel), orange where it lowers it. Nodes "
        "can be dragged. Scores are estimates without an interval; whether such a circuit does "
        "the work is for the figure above to say.",
        f"Flow diagram of up to {most} edges from the input to the output",
        traces,
        layout(460),
        places.choices,
    )


def draw_circuit(table: Table, *, title: str = "") -> Any:
    """A plotly figure of a circuit's kept edges, from `Circuit.to_table()`: hover, drag.

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


class _Places:
    """Rows by what may be chosen: test domain, subject, domain of the pictures."""

    def __init__(self, result: LoadedResult, rows: Frame) -> None:
        tests = [name for name in result.test_domains if name in set(rows["test_domain"])] or [""]
        models = {test: _models(result, test, rows) for test in tests}
        names = list(dict.fromkeys(one.name for each in models.values() for one in each))
        domains = list(dict.fromkeys(rows["domain"]))
        self.choices: Sequence[Choice] = (
            Choice("Test domain", tests),
            Choice("Model", [plain(name) for name in names]),
            Choice("Pictures", domains),
        )
        self.chosen: list[tuple[list[int | None], Frame]] = []
        for (t, test), (d, domain) in product(enumerate(tests), enumerate(domains)):
            for one in models[test]:
                here = one.of(rows)
                here = here[here["domain"] == domain]
                if len(here):
                    self.chosen.append(([t, names.index(one.name), d], here))


def _models(result: LoadedResult, test: str, rows: Frame) -> list[ComparedPair]:
    """Subjects with rows; one where a single checkpoint was measured, whatever its pairs."""
    found = [one for one in compared_pairs(result, test) if len(one.of(rows))]
    return found[:1] if result.one_model else found


def _line(rows: Frame, measure: str, meta: Sequence[int | None]) -> Trace:
    rows = rows.sort_values("share")
    colour = COLOURS[measure]
    said = [
        f"{n:,.0f} of them: {number(value, 3)} ({number(low)} to {number(high)})"
        + (f"<br>index {number(index)}" if np.isfinite(index) else "")
        for n, value, low, high, index in rows[
            ["n_edges", "value", "low", "high", "index"]
        ].itertuples(index=False)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": measure,
        "x": numbers(rows["share"]),
        "y": numbers(rows["value"]),
        "error_y": error_bars(rows, "value", "low", "high"),
        "line": {"color": colour, "dash": "solid" if measure == ALONE else "dash"},
        "marker": {"color": colour, "size": 8, "symbol": "circle" if measure == ALONE else "x"},
        "text": said,
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def _random(rows: Frame, meta: Sequence[int | None]) -> Trace:
    rows = rows.sort_values("share")
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "random circuits of the same size",
        "x": numbers(rows["share"]),
        "y": numbers(rows["null"]),
        "line": {"color": GREY, "dash": "dot"},
        "hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def _streams(rows: Frame, meta: Sequence[int | None]) -> Trace:
    """A flow diagram; plotly lets its nodes be dragged."""
    layers = dict(zip(rows["node"], rows["layer"], strict=True))
    layers |= dict(zip(rows["node_b"], rows["layer_b"], strict=True))
    nodes = sorted(layers, key=lambda name: (layers[name], name))
    place = {name: number for number, name in enumerate(nodes)}
    last = max(layers.values()) or 1
    colours = [faded(POSITIVE if score > 0 else NEGATIVE, 0.45) for score in rows["score"]]
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


def steady(result: LoadedResult) -> Figure | None:
    """The share of a circuit's parts that is found again when pictures are drawn again."""
    rows = result.frame("circuit_stability")
    rows = rows[(rows["site"] != "") & rows["value"].notna()]
    if rows.empty:
        return None
    places = _Places(result, rows)
    traces: list[Trace] = []
    for meta, chosen in places.chosen:
        at = {"x": [site.split(".hook")[0] for site in chosen["site"]], "meta": list(meta)}
        sure = [f"{n:.0f} of {kept:.0f}" for n, kept in chosen[["n_sure", "n_edges"]].to_numpy()]
        traces += [
            {
                "type": "scatter", "mode": "lines+markers", "name": "found again", **at,
                "y": numbers(chosen["value"]),
                "error_y": error_bars(chosen, "value", "low", "high"),
                "line": {"color": POSITIVE, "width": 2.5}, "marker": {"size": 8},
                "customdata": sure,
                "hovertemplate": "%{x}: %{y:.2f}; %{customdata} parts in 95 % of draws or more"
                "<extra>found again</extra>",
            },
            {
                "type": "scatter", "mode": "lines", "name": "parts by chance", **at,
                "y": numbers(chosen["null"]), "line": {"color": GREY, "dash": "dash", "width": 2},
                "hovertemplate": "%{x}: %{y:.2f}<extra>by chance</extra>",
            },
        ]  # fmt: skip
    return Figure(
        "steady",
        "How steady circuits are",
        f"n = {span(rows['n_units'])} draws of {span(rows['n_pictures'])} pairs of pictures. A "
        "circuit is the best tenth of each layer's parts over all classes; bars are intervals that "
        "hold 95 % of the draws. 1: the same parts every time.",
        "A line over layers of the share of parts found again, beside chance",
        traces,
        layout(
            380,
            xaxis=axis("layer", type="category"),
            yaxis=axis("share of parts found again", range=[0, 1.05]),
        ),
        places.choices,
    )

"""The sections on circuits: faithfulness, parts and edges, and transfer to other domains."""

from collections.abc import Sequence
from typing import Any

from interp.core.declarations.figures import (
    PAIR,
    SETTING,
    TEST_DOMAIN,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    LineSpec,
    Row,
    Scale,
    SectionSpec,
    SeriesSpec,
)
from interp.core.declarations.figures import RAW as VALUE
from interp.core.tables import Table
from interp.report.figures.grammar import finished, read_rows, views
from interp.report.figures.pieces import GREY, Figure, Trace, layout, numbers
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import faded, number, plain

POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
MODEL = ChoiceSpec("Model", "model")
PICTURES = ChoiceSpec("Pictures", "domain")
ALONE = {"measure": "circuit alone"}
SIZES = {
    size: f"{100 * size:g} %" for size in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
}


def _sized(row: Row) -> str:
    ends = f" ({number(row['low'])} to {number(row['high'])})"
    index = f"<br>index {number(row['index'])}" if row["index"] == row["index"] else ""
    return f"{row['n_edges']:,.0f} of them: {number(row['value'], 3)}{ends}{index}"


FAITHFUL = FigureSpec(
    "faithfulness",
    "How much of the model a circuit is",
    "curve",
    ("faithfulness",),
    method="The best-scored parts run alone, and the model runs without them, at every size.",
    null="Random circuits as large.",
    caption="{n}; bars are 95 % intervals, a class left out at a time. Circuits were chosen on "
    "other pictures. 1 is the whole model, 0 the model that sees a picture of another class. "
    "{kinds} Areas under the curve (CPR) are in the table.",
    alt="Lines over {points} sizes of circuit, alone, absent, and at random",
    where={"measure": ["circuit alone", "model without the circuit"]},
    needs=("value",),
    choices=(TEST_DOMAIN, MODEL, PICTURES),
    across="share",
    series=(
        SeriesSpec("circuit alone", VALUE, POSITIVE, ALONE),
        SeriesSpec("model without the circuit", VALUE, NEGATIVE,
                   {"measure": "model without the circuit"}, "dash", "x"),
        SeriesSpec("random circuits of the same size", Scale("null"), GREY, ALONE, "dot",
                   mode="lines"),
    ),
    hover=_sized,
    x=AxisSpec("size, as a share of all edges (or channels)", percent=True, log=True, ticks=SIZES),
    y=AxisSpec("share of the metric that remains", within=(-0.5, 1.6)),
    lines=(LineSpec(0), LineSpec(1)),
)  # fmt: skip
STRONGEST = FigureSpec(
    "circuit",
    "What the strongest circuit is made of",
    "circuit",
    ("circuits",),
    method="Every edge is scored by the gradient along the way from one picture to another.",
    null="None: whether such a circuit does the work is tested in the figure of faithfulness.",
    caption="n = {pictures} pictures. The strongest edges of one model and domain, {most} at most; "
    "each band is an edge, as wide as its |score|: blue where the sender raises what is scored "
    "(the metric; of a ResNet's edge, the change of the receiving channel), orange where it lowers "
    "it. Nodes can be dragged. Scores are estimates without an interval; whether such a circuit "
    "does the work is for the figure above to say.",
    alt="Flow diagram of up to {most} edges from the input to the output",
    needs=("score",),
    choices=(TEST_DOMAIN, MODEL, PICTURES),
)
CIRCUITS = SectionSpec(
    "circuits",
    "Which parts make the class: circuits",
    "Edges of a transformer are scored by EAP-IG (Hanna et al. 2024), channels of a ResNet by "
    "integrated gradients. A circuit alone runs with all else as in a picture of another "
    "class; share = (m(circuit) − m(nothing)) / (m(model) − m(nothing)), where m is the logit "
    "of the picture's class less that of the other one.",
    (FAITHFUL, STRONGEST),
    note="A circuit is faithful where it does what the model does, and complete where nothing "
    "is left without it. Whether two domains have the same one is another question.",
    optional=("faithfulness", "circuits"),
)

UNITS = {"channel": "channels", "d_mlp": "neurons", "edge": "edges"}


def _way(row: Row) -> str:
    by = UNITS.get(row["level"], row["level"])
    return f"{plain(row['domain_a'])} → {plain(row['domain_b'])}, by {by}"


ABROAD = FigureSpec(
    "circuits-abroad",
    "Circuits of one domain at work in another",
    "curve",
    ("circuit_transfer",),
    method="A circuit found in A runs on pictures of B, all else as in another class's picture.",
    null="Circuits of other classes, as large; random parts are drawn beside them.",
    caption="{n}; bars are 95 % intervals of the share. Everything outside a circuit runs as in a "
    "picture of another class. {kinds}",
    alt="Lines of faithfulness by size for four kinds of circuit, {options} ways to choose from",
    where={"measure": "circuit transfer", "band": ""},
    needs=("share", "value"),
    choices=(
        TEST_DOMAIN,
        SETTING,
        ChoiceSpec("From A to B", (*PAIR, "level"), named=_way),
    ),
    across="share",
    series=(
        SeriesSpec("the class in B itself, other artists", Scale("ceiling"), "#009E73"),
        SeriesSpec("the class in A", VALUE, POSITIVE, symbol="diamond"),
        SeriesSpec("another class in A", Scale("null"), NEGATIVE, dash="dash", symbol="x"),
        SeriesSpec("random parts", Scale("random"), GREY, dash="dot", symbol="square"),
    ),
    x=AxisSpec(
        "size, as a share of each layer's parts",
        percent=True,
        log=True,
        ticks={size: words for size, words in SIZES.items() if 0.02 <= size <= 0.5},
    ),
    y=AxisSpec("share of the class's work in B"),
)
FOUND_AGAIN = "{n_sure:.0f} of {n_edges:.0f} parts in 95 % of draws or more"
STEADY = FigureSpec(
    "steady",
    "How steady circuits are",
    "curve",
    ("circuit_stability",),
    method="Pictures of every class are drawn again, with replacement, and the circuit anew.",
    null="As many parts of each layer, drawn by chance.",
    caption="n = {draws} draws of {pictures} pairs of pictures. A circuit is the best tenth of "
    "each layer's parts over all classes; bars are intervals that hold 95 % of the draws. 1: the "
    "same parts every time.",
    alt="A line over layers of the share of parts found again, beside chance",
    keep=("a site",),
    needs=("value",),
    choices=(TEST_DOMAIN, MODEL, PICTURES),
    across="site",
    labels=lambda row: row["site"].split(".hook")[0],
    series=(
        SeriesSpec("found again", VALUE, POSITIVE),
        SeriesSpec("parts by chance", Scale("null"), GREY, dash="dash", mode="lines"),
    ),
    hover=lambda row: (
        f"{row['site'].split('.hook')[0]}: {number(row['value'])}, by chance "
        f"{number(row['null'])}; {FOUND_AGAIN.format(**row)}"
    ),
    x=AxisSpec("layer"),
    y=AxisSpec("share of parts found again", limits=(0, 1.05)),
    height=380,
)
CROSSING = SectionSpec(
    "crossing",
    "Same parts and wiring? (R5, R6)",
    "Parts are scored for every class in each domain, in halves of artists. Overlap compares "
    "the parts of a class in A and B with those of another class (null) and of other artists "
    "(ceiling). Then A's circuit of a class runs on pictures of B, all else as in a picture of "
    "another class.",
    (ABROAD, STEADY),
    words=(("verdicts", "R6"),),
    note="Where circuits of other classes do the work as well, the parts are too coarse to tell "
    "classes apart, and nothing is concluded.",
    optional=("circuit_transfer", "overlap", "circuit_stability"),
)


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

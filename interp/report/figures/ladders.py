"""The section on the ladder: what is shared, by rung and band of layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from interp.core.sites import BANDS
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.tables import Table
from interp.declared.figures import SETTING, TEST_DOMAIN, FigureSpec, SectionSpec
from interp.declared.writing import number, plain
from interp.report.figures.sharing_profiles import PROFILE, ordered_pairs
from interp.report.grammar.figure_rows import FigureRows
from interp.report.grammar.pieces import MAP, Figure, Meta, Trace, bare, cells, layout, span
from interp.report.loaded import Frame, whole
from interp.report.naming import SIGNS, setting_name
from interp.verdicts.rungs import AMOUNT_RULE, RUNGS, SQUARES
from interp.verdicts.votes import agreement

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEADS = {name: f"{name} {rung.label}".replace(" ", "<br>", 1) for name, rung in RUNGS.items()}
"""What stands above a rung's column."""

LEVELS = {NOT_SHARED: 0.0, UNKNOWN: 1.0, PARTLY: 2.0, SHARED: 3.0}
COLOURS = ("#E69F00", "#BFBFBF", "#B5DCF4", "#56B4E9")
"""Orange, grey, pale and light blue: apart for every eye, and dark text reads on each."""
SCALE = [
    [end / len(COLOURS), colour]
    for place, colour in enumerate(COLOURS)
    for end in (place, place + 1)
]

WHOLE = "whole tower"
ORDER = (*BANDS, WHOLE)

LOOK = {"colorscale": SCALE, "zmin": 0, "zmax": 3, "showscale": False}
"""How plotly is told of a heat map of verdicts."""


def _fullest(rows: Frame, options: Sequence[str]) -> int:
    """The setting on which most was measured, the first of several."""
    counted = rows["setting"].map(setting_name).value_counts()
    return max(range(len(options)), key=lambda at: (counted.get(options[at], 0), -at))


LADDER_MAP = FigureSpec(
    "ladder",
    "What is shared, rung by rung",
    "ladder",
    ("ladder", "rungs"),
    method="Every measure between two domains is turned into an index, and a band of layers gets "
    "the answer on which all its sites agree, or that of their mean.",
    null="Each rung's own null, at index 0.",
    caption=f"n = {{classes}} classes per verdict. ● blue: shared ({AMOUNT_RULE[SHARED]}); ◐ "
    f"pale blue: partly shared ({AMOUNT_RULE[PARTLY]}); ○ orange: not shared "
    f"({AMOUNT_RULE[NOT_SHARED]}); "
    "? grey: unknown, or sites differ; empty: not measured. "
    f"R1: ● {RUNGS['R1'].rule[SHARED]}; ○ {RUNGS['R1'].rule[NOT_SHARED]}. {SQUARES} "
    "Point at a cell for its index, interval and reasons. Only R4 and R6 speak of mechanisms.",
    alt="Map of verdicts: {pairs} pairs and bands by six rungs",
    where={"control": "", "rung": list(RUNGS)},
    choices=(TEST_DOMAIN, replace(SETTING, first=_fullest)),
)
LADDER = SectionSpec(
    "ladder",
    "What is shared: the ladder",
    "Six rungs, from weak claims to strong: the class can be read in both domains (R1), same "
    "geometry (R2), same directions (R3), same causal directions (R4), same parts (R5), same "
    "wiring (R6). Each has an index, 0 at its null and 1 at its ceiling; a band of layers has "
    "the answer of all its sites, or of their mean where some are unknown.",
    (PROFILE, LADDER_MAP),
    words=(("answers",),),
    note="Lower rungs do not license the words of higher ones: geometry may be shared without "
    "directions, and directions without anything that reads them.",
    optional=("ladder", "rungs"),
    part="ladder",
)


def ladder_figure(data: FigureRows) -> Figure | None:
    """Every pair of domains and band of layers, rung by rung: its verdict."""
    rows = data.rows
    if rows.empty:
        return None
    names = _pairs(rows)
    traces = [_verdicts(view.rows, names, view.meta) for view in data.views]
    shape = layout(
        120 + 24 * len(names),
        xaxis={**MAP, "side": "top", "tickfont": {"size": 11}},
        yaxis={**MAP, "autorange": "reversed", "tickfont": {"size": 11}},
    )
    return data.figure(traces, shape, classes=span(rows["n_units"].dropna()), pairs=len(names))


def _pairs(rows: Frame) -> list[tuple[str, str, str]]:
    """Pairs of domains with the bands that each has."""
    bands: dict[tuple[str, str], set[str]] = {}
    for a, b, band in rows[["domain_a", "domain_b", "band"]].itertuples(index=False):
        bands.setdefault((min(a, b), max(a, b)), set()).add(band)
    pairs = ordered_pairs(rows)
    return [(*pair, band) for pair in pairs for band in ORDER if band in bands[pair]]


def _verdicts(rows: Frame, names: Sequence[tuple[str, str, str]], meta: Meta) -> Trace:
    """A heat map of verdicts; seeds of one model vote together."""
    known = dict(iter(rows.groupby(["domain_a", "domain_b", "band", "rung"], sort=False)))
    grid = [[known.get((*name, rung), rows.iloc[:0]) for rung in RUNGS] for name in names]
    verdicts = [[_agreed(cell) for cell in row] for row in grid]
    return cells(
        [[LEVELS.get(verdict) for verdict in row] for row in verdicts],
        list(HEADS.values()),
        [f"{plain(a, 14)} × {plain(b, 14)}, {band}" for a, b, band in names],
        text=[[SIGNS.get(verdict, "") for verdict in row] for row in verdicts],
        texttemplate="%{text}",
        textfont={"color": "#1a1a1a", "size": 14},
        hovertext=[[_cell(*cell) for cell in zip(row, RUNGS, strict=True)] for row in grid],
        hovertemplate="%{y}<br>%{hovertext}<extra></extra>",
        **LOOK,
        meta=list(meta),
    )


def _agreed(cell: Frame) -> str:
    return agreement(cell["verdict"]) if len(cell) else ""


def _cell(cell: Frame, rung: str) -> str:
    """What a cell says of one model, or of several: their mean, and how many say what."""
    if cell.empty:
        return f"{rung}: not measured"
    row, several = cell.iloc[0], len(cell) > 1
    means = cell[["index", "index_low", "index_high"]].mean()
    ends = f" ({number(means['index_low'])} to {number(means['index_high'])})"
    index = f"index {number(means['index'])}{ends}" if pd.notna(means["index"]) else "no index"
    votes = row["votes"]
    if several:
        counted = cell["verdict"].value_counts()
        votes = ", ".join(f"{n} of {len(cell)} models {word}" for word, n in counted.items())
    why = f"<br>{plain(row['reason'], 90)}" if row["reason"] else ""
    why += f"<br>would decide: {row['needed']}" if row["needed"] and not several else ""
    return f"{rung} {plain(row['claim'], 60)}: {_agreed(cell)}<br>{index}; {votes}{why}"


def draw_ladder(table: Table, *, title: str = "What is shared, rung by rung") -> "go.Figure":
    """Draw the verdicts of a ladder: pairs of domains and bands of layers by rungs.

    Args:
        table: `interp.ladder(...).table`.
        title: The figure's title.

    Returns:
        A plotly figure.

    >>> rows = pd.DataFrame({"rung": ["R2"], "domain_a": "real", "domain_b": "sketch",
    ...     "band": "middle", "claim": "same geometry", "verdict": "shared", "index": 0.9,
    ...     "index_low": 0.8, "index_high": 1.0, "votes": "2 of 2 shared", "n_judged": 2,
    ...     "n_units": 8, "reason": ""})
    >>> draw_ladder(Table("ladder", rows)).data[0].type
    'heatmap'
    """
    import plotly.graph_objects as go

    rows = whole(table.frame)
    names = _pairs(rows)
    counted = span(rows["n_units"].dropna())
    signs = "● shared, ◐ partly, ○ not shared, ? unknown"
    said = f"{title}<br><sup>{signs}; n = {counted} classes</sup>"
    return go.Figure(
        data=[bare(_verdicts(rows, names, [None]))],
        layout={
            "title": said,
            "height": 190 + 26 * len(names),
            "margin": {"t": 130},
            "xaxis": {"side": "top", "type": "category"},
            "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        },
    )

"""What a figure is on the page, and the pieces that several figures are drawn from.

A figure is plotly's own JSON without any theme: page.js adds light or dark. Where a figure has
choices (which layer, which setting), each trace's `meta` holds the number of the option it belongs
to, one per choice, or None where it is always shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.report.figures.subjects import EPOCH_0, ComparedPair
from interp.report.loaded import Frame
from interp.report.naming import faded, number, plain, site_label

Trace = dict[str, Any]

GREY = "#8c8c8c"
THRESHOLDS = (0.2, 0.5)
"""An index is "not shared" below the first, "shared" above the second."""

PLURALS = {
    "class x block": "classes in every block",
    "class within block": "classes, each in its own block",
}
"""Units of replication whose plural is not made with an s."""

LEGEND = {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom", "xanchor": "left"}


@dataclass(frozen=True)
class Choice:
    """One selection above a figure."""

    label: str
    options: Sequence[str]
    selected: int = 0


@dataclass(frozen=True)
class Figure:
    """A titled figure: plotly data and layout, a caption with n and interval, and words for it."""

    name: str
    title: str
    caption: str
    alt: str
    data: Sequence[Trace]
    layout: dict[str, Any]
    choices: Sequence[Choice] = ()


def error_bars(rows: Frame, value: str, low: str, high: str) -> dict[str, Any]:
    """Error bars from the ends of intervals; none where an end is missing."""
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(rows[high] - rows[value]),
        "arrayminus": numbers(rows[value] - rows[low]),
        "thickness": 1.6,
        "width": 4,
    }


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if pd.isna(value) else float(value) for value in values]


def hover(rows: Frame, value: str, low: str, high: str) -> list[str]:
    """What a point says when pointed at: site, number, interval, verdict."""
    said = []
    for _, row in rows.iterrows():
        parts = [plain(site_label(row["site"]), 40)] if row["site"] else []
        ends = f" ({number(row[low])} to {number(row[high])})" if pd.notna(row[low]) else ""
        parts += [f"{number(row[value], 3)}{ends}"]
        parts += [row["verdict"]] if row["verdict"] else []
        said.append("<br>".join(parts))
    return said


def reference_line(axis: str, at: float, text: str, dash: str = "dot") -> tuple[Trace, Trace]:
    """A line across a figure at a value, and its label; to go to `shapes` and `annotations`."""
    other = "y" if axis == "x" else "x"
    line: Trace = {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1}
    line |= {f"{other}ref": "paper", "layer": "above"}
    line["line"] = {"color": GREY, "width": 1.5, "dash": dash}
    note: Trace = {axis: at, other: 1, f"{other}ref": "paper", "text": text, "showarrow": False}
    note |= {"font": {"size": 11, "color": GREY}}
    note |= {"xanchor": "right" if axis == "y" else "center", "yanchor": "bottom"}
    return line, note


def shade(low: float, high: float) -> Trace:
    """A band of depth behind everything."""
    return {
        "type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper",
        "layer": "below", "line": {"width": 0}, "fillcolor": faded(GREY, 0.12),
    }  # fmt: skip


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title, in plotly's words."""
    named = {"title": {"text": title}} if title else {}
    return {**named, "automargin": True, **more}


def rows_axis(n: int) -> dict[str, Any]:
    """An axis of n names from top to bottom, with room above the first and below the last."""
    return {"automargin": True, "type": "category", "range": [n - 0.5, -0.5]}


def layout(height: int, **more: Any) -> dict[str, Any]:
    """Height, and a legend above the plot, where it wraps on a phone."""
    return {"height": height, "legend": LEGEND, "hovermode": "closest", **more}


MAP = {"automargin": True, "type": "category", "showgrid": False, "zeroline": False}
"""An axis of a heat map."""


def heat(
    z: Sequence[Sequence[float]],
    x: Sequence[str],
    y: Sequence[str],
    *,
    title: str,
    limits: tuple[float, float] = (0, 1),
    text: Sequence[Sequence[str]] | None = None,
    meta: Sequence[int | None] | None = None,
) -> Trace:
    """A heat map whose cells carry their number; a cell without one shows "?"."""
    rows = [numbers(row) for row in z]
    shown = text or [["?" if value is None else number(value) for value in row] for row in rows]
    return {
        "type": "heatmap", "z": rows, "x": [plain(name, 18) for name in x],
        "y": [plain(name, 26) for name in y], "text": shown, "texttemplate": "%{text}",
        "hovertemplate": "%{y}, %{x}: %{z:.3f}<extra></extra>", "colorscale": "Cividis",
        "zmin": limits[0], "zmax": limits[1], "xgap": 2, "ygap": 2, "hoverongaps": False,
        "meta": list(meta) if meta is not None else None,
        "colorbar": {"title": {"text": title, "side": "right"}, "thickness": 12, "len": 0.9},
    }  # fmt: skip


def counts(rows: Frame) -> str:
    """How much stands behind rows: units, pictures, drawings, models.

    >>> counts(pd.DataFrame({"unit": ["class"], "n_units": [15], "n_pictures": [240.0],
    ...                      "n_drawings": [60], "n_runs": [1]}))
    'n = 15 classes, 240 pictures, 60 drawings, 1 trained model per row'
    """
    unit = next((name for name in rows["unit"] if name), "unit") if len(rows) else "unit"
    plural = PLURALS.get(unit, f"{unit}{'es' if unit.endswith('s') else 's'}")
    nouns = (
        ("n_units", unit, plural),
        ("n_pictures", "picture", "pictures"),
        ("n_drawings", "drawing", "drawings"),
        ("n_runs", "trained model per row", "trained models per row"),
    )
    parts = []
    for column, one, many in nouns:
        known = rows[column].dropna()
        if len(known):
            parts.append(f"{span(known)} {one if known.max() == 1 else many}")
    return f"n = {', '.join(parts)}" if parts else "n is not recorded"


def resampled(rows: Frame) -> str:
    """What intervals are over, in words: classes, and blocks where there are several.

    >>> resampled(pd.DataFrame({"unit": ["class", "class x block"]}))
    'classes and blocks'
    """
    return "classes and blocks" if any("block" in unit for unit in rows["unit"]) else "classes"


def span(counted: Frame) -> str:
    """Least to most of some counts.

    >>> span(pd.Series([3, 3])), span(pd.Series([3, 1200]))
    ('3', '3 to 1,200')
    """
    least, most = f"{counted.min():,.0f}", f"{counted.max():,.0f}"
    return least if least == most else f"{least} to {most}"


def kinds(rows: Frame) -> str:
    """The null and the ceiling of rows, in the words of their table."""
    parts = []
    for column, what in (("null_kind", "Null"), ("ceiling_kind", "Ceiling")):
        given = [kind for kind in dict.fromkeys(rows[column]) if kind]
        if given:
            parts.append(f"{what}: {given[0]}.")
    return " ".join(parts)


Scale = tuple[str, str, str]
"""The columns drawn: a number, and the ends of its interval."""

INDEX: Scale = ("index", "index_low", "index_high")
RAW: Scale = ("value", "low", "high")

DEPTH = "depth in the tower (0 picture, 1 embedding)"


def depth_lines(
    rows: Frame, one: ComparedPair, meta: Sequence[int | None], scale: Scale = INDEX
) -> list[Trace]:
    """A subject's line with its interval, its untrained self, and the pixels' level."""
    rows = rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])]
    rows = rows.sort_values("depth", kind="stable")
    own, untrained = rows[rows["control"] == ""], rows[rows["control"] == EPOCH_0]
    group = {"legendgroup": plain(one.name), "meta": list(meta)}
    traces: list[Trace] = []
    if len(own):
        traces += [_interval(part, one, group, scale) for part in _stretches(own, scale)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(one.name),
                "x": numbers(own["depth"]),
                "y": numbers(own[scale[0]]),
                "line": {"color": one.colour, "width": 2.5},
                "marker": {"symbol": one.symbol, "size": 8},
                "hovertext": hover(own, *scale),
                "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
                **group,
            }
        )
    for floor, dash, colour in ((untrained, "dash", one.colour), (_pixels(rows), "dot", GREY)):
        if floor[scale[0]].notna().any():
            traces.append(_floor(floor, dash, colour, group, scale[0]))
    return traces


def _floor(rows: Frame, dash: str, colour: str, group: Trace, column: str) -> Trace:
    """An extra floor: the untrained model by depth, or raw pixels right across."""
    pixels = rows["control"].iloc[0] == "pixels"
    level = numbers(rows[column])
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "raw pixels" if pixels else "untrained (epoch 0)",
        "x": [0.0, 1.0] if pixels else numbers(rows["depth"]),
        "y": level[:1] * 2 if pixels else level,
        "line": {"color": colour, "width": 1.5, "dash": dash},
        "opacity": 0.75,
        "hovertemplate": "%{fullData.name}: %{y:.2f}<extra></extra>",
        **group,
        "legendgroup": "floors",
        "legendrank": 2000,
    }


def _pixels(rows: Frame) -> Frame:
    return rows[rows["control"] == "pixels"].head(1)


def _stretches(rows: Frame, scale: Scale) -> list[Frame]:
    """Runs of layers that have an interval: a band must not bridge a layer without one."""
    has = rows[scale[1]].notna() & rows[scale[2]].notna()
    run = (~has).cumsum()
    return [part for _, part in rows[has].groupby(run[has])]


def _interval(rows: Frame, one: ComparedPair, group: Trace, scale: Scale) -> Trace:
    depth = numbers(rows["depth"])
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "x": [*depth, *reversed(depth)],
        "y": [*numbers(rows[scale[2]]), *reversed(numbers(rows[scale[1]]))],
        "fillcolor": faded(one.colour, 0.12),
        "line": {"width": 0, "color": one.colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "name": f"{plain(one.name)}, 95 % interval",
        **group,
    }


def named(traces: Sequence[Trace]) -> list[Trace]:
    once = {trace["name"]: trace for trace in traces if trace.get("showlegend") is not False}
    return list(once.values())


def without_twins(traces: Sequence[Trace]) -> list[Trace]:
    """Pixels and untrained models are often the same for all settings: draw and name each once."""
    kept: list[Trace] = []
    seen: set[str] = set()
    for trace in traces:
        floor = trace.get("legendgroup") == "floors"
        key = f"{trace['meta']} {trace['name']} {trace['x']} {trace['y']}"
        if floor and key in seen:
            continue
        named = f"{trace['meta']} {trace['name']}"
        if floor and named in seen:
            trace = {**trace, "showlegend": False}
        seen |= {key, named}
        kept.append(trace)
    return kept


SPREAD = 0.6
"""How much of a row's height its subjects take."""


def marks(
    rows: Frame,
    names: Sequence[str],
    one: ComparedPair,
    place: tuple[int, int],
    meta: Sequence[int | None],
    scale: tuple[str, str, str],
) -> Trace:
    """A subject's marks: `rows` have a column `row` that is one of `names`; place is n-th of how
    many subjects.

    A number whose interval is missing is drawn open.
    """
    value, low, high = scale
    nth, n = place
    offset = SPREAD * ((nth + 0.5) / n - 0.5)
    known = rows[rows[value].notna()]
    at = [names.index(row) + offset for row in known["row"]]
    said = [
        f"{plain(row, 60)}: {number(float(each), 3)}" + (f"<br>{verdict}" if verdict else "")
        for row, each, verdict in zip(known["row"], known[value], known["verdict"], strict=True)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(one.name),
        "x": numbers(known[value]),
        "y": at,
        "error_x": {**error_bars(known, value, low, high), "color": one.colour},
        "marker": {
            "color": one.colour,
            "size": 9,
            "symbol": [one.symbol + ("-open" if bare else "") for bare in known[low].isna()],
        },
        "text": said,
        "hovertemplate": "%{text}<extra>%{fullData.name}</extra>",
        "meta": list(meta),
    }


def rows_by_name(names: Sequence[str], *, room: float = 0.0) -> dict[str, Any]:
    """The axis that carries the rows' names, from top to bottom, with `room` rows below them."""
    return {
        "automargin": True,
        "tickvals": list(range(len(names))),
        "ticktext": [_broken(name) for name in names],
        "range": [len(names) - 0.5 + room, -0.5],
        "zeroline": False,
    }


def _broken(name: str) -> str:
    """A name on two lines where it has a comma."""
    first, comma, rest = plain(name, 80).partition(", ")
    return f"{first},<br>{rest}" if comma else first


def height(names: Sequence[str], subjects: int) -> int:
    """Enough for every row and subject, in pixels."""
    return 130 + len(names) * max(34, 13 * subjects)

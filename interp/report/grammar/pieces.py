"""Figures as the page holds them, and the pieces that several figures are drawn from.

A figure is plotly's own JSON without any theme: page.js adds light or dark. Where a figure has
choices (which layer, which setting), each trace's `meta` holds the number of the option it belongs
to, one per choice, or None where it is always shown.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from interp.declared.figures import INDEX, RAW, Scale
from interp.declared.writing import number, plain, plural
from interp.report.grammar.several_models import OF_MODELS
from interp.report.grammar.subjects import EPOCH_0
from interp.report.loaded import Frame
from interp.report.naming import faded, site_label

Trace = dict[str, Any]

GREY = "#8c8c8c"
LEGEND = {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom", "xanchor": "left"}


@dataclass(frozen=True)
class Choice:
    """One selection above a figure."""

    label: str
    options: Sequence[str]
    selected: int = 0
    slider: bool = False


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
    method: str = ""
    null: str = ""
    tables: Sequence[str] = ()


@dataclass(frozen=True)
class DrawnSubject:
    """What is drawn as one line or one set of marks: its name, its looks, its rows.

    The name is safe text (`naming.plain`); colour and symbol may be lists, one for each row.
    `singles` are rows of single models, drawn faint beside their mean.
    """

    name: str
    colour: Any
    symbol: Any
    rows: Frame = field(default_factory=pd.DataFrame)
    key: str = ""
    singles: Sequence[Frame] = ()


def points(
    one: DrawnSubject,
    x: Iterable[float | str | None],
    y: Iterable[float],
    said: Sequence[str],
    meta: Sequence[int | None],
    *,
    size: int | Sequence[int] = 9,
    **more: Any,
) -> Trace:
    """A subject's points, which say `said` when pointed at; `more` is in plotly's words."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": one.name,
        "x": [None if pd.isna(value) else value for value in x],
        "y": numbers(y),
        "marker": {"color": one.colour, "symbol": one.symbol, "size": size},
        "text": list(said),
        "hovertemplate": f"%{{text}}<extra>{'%{fullData.name}' if one.name else ''}</extra>",
        "meta": list(meta),
        **more,
    }


def level_line(
    name: str,
    x: Sequence[Any],
    y: Sequence[Any],
    meta: Sequence[int | None],
    *,
    share: bool = False,
    **line: Any,
) -> Trace:
    """A thin line that others are held against: chance, an untrained model, raw pixels."""
    letter, digits = "x" if len(set(x)) == 1 < len(x) else "y", ".1%" if share else ".3f"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": GREY, "width": 1, **line},
        "hovertemplate": f"%{{fullData.name}}: %{{{letter}:{digits}}}<extra></extra>",
        "meta": list(meta),
    }


def opened_option(symbol: str | Sequence[str], bare: Iterable[bool]) -> list[str]:
    """Symbols of points, open where a number has no interval (or is marked otherwise)."""
    bare = list(bare)
    symbols = [symbol] * len(bare) if isinstance(symbol, str) else symbol
    return [shape + ("-open" if each else "") for shape, each in zip(symbols, bare, strict=True)]


def error_bars(rows: Frame, scale: Scale = RAW) -> dict[str, Any]:
    """Error bars from the ends of intervals; none where an end is missing."""
    value, low, high = (scale.times * rows[name] for name in (scale.value, scale.low, scale.high))
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(high - value),
        "arrayminus": numbers(value - low),
        "thickness": 1.6,
        "width": 4,
    }


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if pd.isna(value) else float(value) for value in values]


def hover(rows: Frame, scale: Scale) -> list[str]:
    """What a point says when pointed at: site, number, interval, models, verdict."""
    said = []
    for _, row in rows.iterrows():
        parts = [plain(site_label(row["site"]), 40)] if row["site"] else []
        low, high = row[scale.low], row[scale.high]
        ends = f" ({number(low)} to {number(high)})" if pd.notna(low) else ""
        parts += [f"{number(row[scale.value], 3)}{ends}"]
        parts += [told for told in (row.get(OF_MODELS, ""), row["verdict"]) if told]
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
    """A band of an axis across, behind everything."""
    return {
        "type": "rect",
        "x0": low,
        "x1": high,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": faded(GREY, 0.12),
    }


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
        "type": "heatmap",
        "z": rows,
        "x": [in_lines(name, 22) for name in x],
        "y": [in_lines(name, 26) for name in y],
        "text": shown,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y}, %{x}: %{z:.3f}<extra></extra>",
        "colorscale": "Cividis",
        "zmin": limits[0],
        "zmax": limits[1],
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "meta": list(meta) if meta is not None else None,
        "colorbar": {"title": {"text": title, "side": "right"}, "thickness": 12, "len": 0.9},
    }


def in_lines(name: str, width: int) -> str:
    """A long name on several lines, first at commas, so that it is neither cut nor another's.

    >>> in_lines("CG high diversity, 25 % of the seen cells", 18)
    'CG high diversity,<br>25 % of the seen<br>cells'
    """
    parts = name.replace(", ", ",\n").split("\n")
    return "<br>".join(plain(line) for part in parts for line in textwrap.wrap(part, width))


def counts(rows: Frame) -> str:
    """How much stands behind rows: units, pictures, drawings, models.

    >>> counts(pd.DataFrame({"unit": ["class"], "n_units": [15], "n_pictures": [240.0],
    ...                      "n_drawings": [60], "n_runs": [1]}))
    'n = 15 classes, 240 pictures, 60 drawings, 1 trained model per row'
    """
    units = [name for name in dict.fromkeys(rows["unit"]) if name] or ["unit"]
    nouns = (
        ("n_units", *(" or ".join(plural(unit, n) for unit in units) for n in (1, 2))),
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


def span(counted: pd.Series) -> str:
    """Least to most of some counts.

    >>> span(pd.Series([3, 3])), span(pd.Series([3, 1200]))
    ('3', '3 to 1,200')
    """
    least, most = f"{counted.min():,.0f}", f"{counted.max():,.0f}"
    return least if least == most else f"{least} to {most}"


def trace_kinds(rows: Frame) -> str:
    """The null and the ceiling of rows, in the words of their table."""
    parts = []
    for column, what in (("null_kind", "Null"), ("ceiling_kind", "Ceiling")):
        given = [kind for kind in dict.fromkeys(rows[column]) if kind]
        if given:
            parts.append(f"{what}: {given[0]}.")
    return " ".join(parts)


DEPTH = "depth in the tower (0 picture, 1 embedding)"


def depth_lines(one: DrawnSubject, meta: Sequence[int | None], scale: Scale = INDEX) -> list[Trace]:
    """A subject's line with its interval, its untrained self, and the pixels' level."""
    rows = one.rows[(one.rows["site_b"] == "") | (one.rows["site_b"] == one.rows["site"])]
    rows = rows.sort_values("depth", kind="stable")
    own, untrained = rows[rows["control"] == ""], rows[rows["control"] == EPOCH_0]
    group = {"legendgroup": one.name, "meta": list(meta)}
    traces: list[Trace] = []
    if len(own):
        for part in _stretches(own, scale):
            x, low, high = (numbers(part[name]) for name in ("depth", scale.low, scale.high))
            name = f"{one.name}, 95 % interval"
            traces.append(ribbon(name, x, low, high, one.colour, **group))
        said, line = hover(own, scale), {"color": one.colour, "width": 2.5}
        own_line = points(one, own["depth"], own[scale.value], said, meta, size=8)
        traces.append(own_line | {"mode": "lines+markers", "line": line, **group})
    for floor, dash, colour in ((untrained, "dash", one.colour), (_pixels(rows), "dot", GREY)):
        if floor[scale.value].notna().any():
            traces.append(_floor(floor, dash, colour, group, scale.value))
    return traces


def _floor(rows: Frame, dash: str, colour: str, group: Trace, column: str) -> Trace:
    """An extra floor: the untrained model by depth, or raw pixels right across."""
    pixels = rows["control"].iloc[0] == "pixels"
    level = numbers(rows[column])
    x = [0.0, 1.0] if pixels else numbers(rows["depth"])
    name = "raw pixels" if pixels else "untrained (epoch 0)"
    y = level[:1] * 2 if pixels else level
    line = level_line(name, x, y, group["meta"], color=colour, width=1.5, dash=dash)
    return line | {"opacity": 0.75, "legendgroup": "floors", "legendrank": 2000}


def _pixels(rows: Frame) -> Frame:
    return rows[rows["control"] == "pixels"].head(1)


def _stretches(rows: Frame, scale: Scale) -> list[Frame]:
    """Runs of layers that have an interval: a band must not bridge a layer without one."""
    has = rows[scale.low].notna() & rows[scale.high].notna()
    run = (~has).cumsum()
    return [part for _, part in rows[has].groupby(run[has])]


def no_number(meta: Sequence[int | None]) -> Trace:
    """Words in the middle of an empty view."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [0.5],
        "y": [0.35],
        "hoverinfo": "skip",
        "text": ["no number here: the table has the reasons"],
        "name": "no number",
        "textfont": {"color": GREY, "size": 12},
        "showlegend": False,
        "meta": list(meta),
    }


def ribbon(
    name: str, x: Sequence[Any], low: Sequence[Any], high: Sequence[Any], colour: str, **more: Any
) -> Trace:
    """The band between the ends of intervals along a line."""
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fillcolor": faded(colour, 0.12),
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "name": name,
        **more,
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


def rows_by_name(names: Sequence[str], *, room: float = 0.0, limit: int = 80) -> dict[str, Any]:
    """The axis that carries the rows' names, from top to bottom, with `room` rows below them.

    Names longer than `limit` are cut.
    """
    return {
        "automargin": True,
        "tickvals": list(range(len(names))),
        "ticktext": [_broken(name, limit) for name in names],
        "range": [len(names) - 0.5 + room, -0.5],
        "zeroline": False,
    }


def _broken(name: str, limit: int) -> str:
    """A name on two lines where it has a comma, or subtracts one from another."""
    text = "<br>− ".join(plain(part, 48) for part in name.split(" − ")) if " − " in name else ""
    first, comma, rest = (text or plain(name, limit)).partition(", ")
    return f"{first},<br>{rest}" if comma else first


def height(names: Sequence[str], subjects: int) -> int:
    """Enough for every row, with its subjects and the lines of its name, in pixels."""
    lines = max((_broken(name, 80).count("<br>") + 1 for name in names), default=1)
    return 130 + len(names) * max(34, 13 * subjects, 16 * lines + 4)

"""Figures as the page holds them, and the pieces that several figures are drawn from.

A figure is plotly's own JSON without any theme: page.js adds light or dark. Where a figure has
choices (which layer, which setting), each trace's `meta` holds the number of the option it belongs
to, one per choice, or None where it is always shown.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from interp.declared.figures import RAW, AxisSpec, LineSpec, Scale
from interp.declared.writing import number, plain, plural
from interp.report.loaded import Frame
from interp.report.naming import faded

Trace: TypeAlias = dict[str, Any]
"""A trace, an axis or a layout, in plotly's words."""

Marker: TypeAlias = tuple[str | Sequence[str], str | Sequence[str]]
"""Colour and symbol of points, or one of each for every point."""

Meta = Sequence[int | None]
"""The option of each choice under which a trace is shown."""

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
    layout: Trace
    choices: Sequence[Choice] = ()
    method: str = ""
    null: str = ""
    tables: Sequence[str] = ()


def points(
    name: str,
    look: Marker,
    x: Iterable[float | str | None],
    y: Iterable[float],
    said: Sequence[str],
    meta: Meta,
    *,
    size: int | Sequence[int] = 9,
    **more: object,
) -> Trace:
    """Points of one look, which say `said` when pointed at; `more` is in plotly's words.

    Colour and symbol may be lists, one for each point.
    """
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [None if pd.isna(value) else value for value in x],
        "y": numbers(y),
        "marker": {"color": look[0], "symbol": look[1], "size": size},
        "text": list(said),
        "hovertemplate": f"%{{text}}<extra>{'%{fullData.name}' if name else ''}</extra>",
        "meta": list(meta),
        **more,
    }


def level_line(
    name: str,
    x: Sequence[object],
    y: Sequence[object],
    meta: Meta,
    *,
    share: bool = False,
    **line: object,
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


def bars(
    name: str, colour: str, x: Iterable[float], y: Sequence[str], said: str, meta: Meta
) -> Trace:
    """Bars across, which say their row and then `said`, in plotly's words."""
    hover = f"%{{y}}: {said}<extra>%{{fullData.name}}</extra>"
    at = {"type": "bar", "orientation": "h", "name": name, "x": numbers(x), "y": list(y)}
    return at | {"marker": {"color": colour}, "hovertemplate": hover, "meta": list(meta)}


def words_at(x: Sequence[object], y: Sequence[object], words: Sequence[str], meta: Meta) -> Trace:
    """Words in grey where there is no number."""
    at = {"type": "scatter", "mode": "text", "name": words[0], "x": list(x), "y": list(y)}
    look = {"text": list(words), "textfont": {"color": GREY, "size": 12}}
    return {**at, **look, "hoverinfo": "skip", "showlegend": False, "meta": list(meta)}


def opened_option(symbol: str | Sequence[str], bare: Iterable[bool]) -> list[str]:
    """Symbols of points, open where a number has no interval (or is marked otherwise)."""
    bare = list(bare)
    symbols = [symbol] * len(bare) if isinstance(symbol, str) else symbol
    return [shape + ("-open" if each else "") for shape, each in zip(symbols, bare, strict=True)]


def error_bars(rows: Frame, scale: Scale = RAW, **more: object) -> Trace:
    """Error bars from the ends of intervals; none where an end is missing."""
    value, low, high = (scale.times * rows[name] for name in (scale.value, scale.low, scale.high))
    ends = {"array": numbers(high - value), "arrayminus": numbers(value - low)}
    return {"type": "data", "symmetric": False, **ends, "thickness": 1.6, "width": 4, **more}


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if pd.isna(value) else float(value) for value in values]


def ribbon(
    name: str,
    x: Sequence[object],
    low: Sequence[object],
    high: Sequence[object],
    colour: str,
    **more: object,
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


def reference_line(letter: str, at: float, text: str, dash: str = "dot") -> tuple[Trace, Trace]:
    """A line across a figure at a value, and its label; to go to `shapes` and `annotations`."""
    other = "y" if letter == "x" else "x"
    line: Trace = {"type": "line", f"{letter}0": at, f"{letter}1": at, f"{other}0": 0}
    line |= {f"{other}1": 1, f"{other}ref": "paper", "layer": "above"}
    line["line"] = {"color": GREY, "width": 1.5, "dash": dash}
    note: Trace = {letter: at, other: 1, f"{other}ref": "paper", "text": text, "showarrow": False}
    note |= {"font": {"size": 11, "color": GREY}}
    note |= {"xanchor": "right" if letter == "y" else "center", "yanchor": "bottom"}
    return line, note


def note(text: str, x: float, y: float, **more: object) -> Trace:
    """Words above a place of the whole figure, from their left."""
    at = {"text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "showarrow": False}
    return {**at, "xanchor": "left", "yanchor": "bottom", "font": {"size": 12}, **more}


def across_lines(lines: Sequence[LineSpec], letter: str) -> tuple[list[Trace], list[Trace]]:
    """Lines across a number axis, and their labels; on an axis across, below and on two lines."""
    drawn, notes = [], []
    for each in lines:
        words = each.text.split()
        half = len(words) // 2
        parted = [" ".join(words[:half]), " ".join(words[half:])]
        text = each.text if letter == "y" else "<br>".join(part for part in parted if part)
        line, note = reference_line(letter, each.at, text, each.dash)
        drawn.append(line)
        if each.text:
            notes.append(note if letter == "y" else note | {"y": 0, "yanchor": "bottom"})
    return drawn, notes


def shade(low: float, high: float) -> Trace:
    """A band of an axis across, behind everything."""
    ends = {"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper"}
    return ends | {"layer": "below", "line": {"width": 0}, "fillcolor": faded(GREY, 0.12)}


def axis(title: str, **more: object) -> Trace:
    """An axis with its title, in plotly's words."""
    named = {"title": {"text": title}} if title else {}
    return {**named, "automargin": True, **more}


def axis_of(spec: AxisSpec, shown: np.ndarray | None = None) -> Trace:
    """A specified axis, in plotly's words; the numbers shown say how far it goes."""
    words: Trace = {}
    if spec.percent:
        words["tickformat"] = ".0%"
    if spec.from_zero:
        words["rangemode"] = "tozero"
    if spec.log:
        words["type"] = "log"
    if spec.limits:
        words["range"] = list(spec.limits)
    if spec.within and shown is not None:
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        words["range"] = [max(spec.within[0], min(-0.05, low)), min(spec.within[1], max(1.1, high))]
    if spec.ticks:
        words |= {"tickvals": list(spec.ticks), "ticktext": list(spec.ticks.values())}
    return axis(spec.title, **words)


def layout(height: int, **more: object) -> Trace:
    """Height, and a legend above the plot, where it wraps on a phone."""
    return {"height": height, "legend": LEGEND, "hovermode": "closest", **more}


MAP = {"automargin": True, "type": "category", "showgrid": False, "zeroline": False}
"""An axis of a heat map."""


def cells(
    z: Sequence[Sequence[float | None]], x: Sequence[object], y: Sequence[object], **more: object
) -> Trace:
    """The cells of a map, apart from one another; `more` is in plotly's words."""
    apart = {"xgap": 2, "ygap": 2, "hoverongaps": False}
    return {"type": "heatmap", "z": z, "x": x, "y": y, **apart, **more}


def bare(trace: Trace) -> Trace:
    """A trace as plotly takes it, without the options of the page."""
    return {key: value for key, value in trace.items() if key != "meta" and value is not None}


def heat(
    z: Sequence[Sequence[float]],
    x: Sequence[str],
    y: Sequence[str],
    *,
    title: str,
    limits: tuple[float, float] = (0, 1),
    meta: Meta | None = None,
) -> Trace:
    """A heat map whose cells carry their number; a cell without one shows "?"."""
    rows = [numbers(row) for row in z]
    return cells(
        rows,
        [in_lines(name, 22) for name in x],
        [in_lines(name, 26) for name in y],
        text=[["?" if value is None else number(value) for value in row] for row in rows],
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        colorscale="Cividis",
        zmin=limits[0],
        zmax=limits[1],
        meta=list(meta) if meta is not None else None,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 12, "len": 0.9},
    )


def in_lines(name: str, width: int) -> str:
    """A long name on several lines, first at commas, so that it is neither cut nor another's.

    >>> in_lines("CG high diversity, 25 % of the seen cells", 18)
    'CG high diversity,<br>25 % of the seen<br>cells'
    """
    parts = name.replace(", ", ",\n").split("\n")
    return "<br>".join(plain(line) for part in parts for line in textwrap.wrap(part, width))


def rows_by_name(names: Sequence[str], *, room: float = 0.0, limit: int = 80) -> Trace:
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


def span(counted: pd.Series) -> str:
    """Least to most of some counts.

    >>> span(pd.Series([3, 3])), span(pd.Series([3, 1200]))
    ('3', '3 to 1,200')
    """
    if counted.empty:
        return "?"
    least, most = f"{counted.min():,.0f}", f"{counted.max():,.0f}"
    return least if least == most else f"{least} to {most}"

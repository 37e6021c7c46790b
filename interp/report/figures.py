"""What a figure is on the page, and the pieces that several figures are drawn from.

A figure is plotly's own JSON without any theme: page.js adds light or dark. Where a figure has
choices (which layer, which setting), each trace's `meta` holds the number of the option it belongs
to, one per choice, or None where it is always shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.report.naming import faded, number, plain, site_label
from interp.report.reading import Frame

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


def errors(rows: Frame, value: str, low: str, high: str) -> dict[str, Any]:
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


def reference(axis: str, at: float, text: str, dash: str = "dot") -> tuple[Trace, Trace]:
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

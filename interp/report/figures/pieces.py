"""What a figure is on the page, and the pieces that several figures are drawn from.

A figure is plotly's own JSON without any theme: page.js adds light or dark. Where a figure has
choices (which layer, which setting), each trace's `meta` holds the number of the option it belongs
to, one per choice, or None where it is always shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.core.declarations.figures import INDEX, RAW, Scale
from interp.report.figures.subjects import EPOCH_0
from interp.report.loaded import Frame
from interp.report.naming import faded, number, percent, plain, site_label

Trace = dict[str, Any]

GREY = "#8c8c8c"
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
    method: str = ""
    null: str = ""
    tables: Sequence[str] = ()


@dataclass(frozen=True)
class Subject:
    """What is drawn as one line or one set of marks: its name, its looks, its rows.

    The name is safe text (`naming.plain`); colour and symbol may be lists, one for each row.
    """

    name: str
    colour: Any
    symbol: Any
    rows: Frame
    key: str = ""


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
    """What a point says when pointed at: site, number, interval, verdict."""
    said = []
    for _, row in rows.iterrows():
        parts = [plain(site_label(row["site"]), 40)] if row["site"] else []
        low, high = row[scale.low], row[scale.high]
        ends = f" ({number(low)} to {number(high)})" if pd.notna(low) else ""
        parts += [f"{number(row[scale.value], 3)}{ends}"]
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


DEPTH = "depth in the tower (0 picture, 1 embedding)"


def depth_lines(one: Subject, meta: Sequence[int | None], scale: Scale = INDEX) -> list[Trace]:
    """A subject's line with its interval, its untrained self, and the pixels' level."""
    rows = one.rows[(one.rows["site_b"] == "") | (one.rows["site_b"] == one.rows["site"])]
    rows = rows.sort_values("depth", kind="stable")
    own, untrained = rows[rows["control"] == ""], rows[rows["control"] == EPOCH_0]
    group = {"legendgroup": one.name, "meta": list(meta)}
    traces: list[Trace] = []
    if len(own):
        traces += [_interval(part, one, group, scale) for part in _stretches(own, scale)]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": one.name,
                "x": numbers(own["depth"]),
                "y": numbers(own[scale.value]),
                "line": {"color": one.colour, "width": 2.5},
                "marker": {"symbol": one.symbol, "size": 8},
                "hovertext": hover(own, scale),
                "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
                **group,
            }
        )
    for floor, dash, colour in ((untrained, "dash", one.colour), (_pixels(rows), "dot", GREY)):
        if floor[scale.value].notna().any():
            traces.append(_floor(floor, dash, colour, group, scale.value))
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
    has = rows[scale.low].notna() & rows[scale.high].notna()
    run = (~has).cumsum()
    return [part for _, part in rows[has].groupby(run[has])]


def _interval(rows: Frame, one: Subject, group: Trace, scale: Scale) -> Trace:
    depth = numbers(rows["depth"])
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "x": [*depth, *reversed(depth)],
        "y": [*numbers(rows[scale.high]), *reversed(numbers(rows[scale.low]))],
        "fillcolor": faded(one.colour, 0.12),
        "line": {"width": 0, "color": one.colour},
        "hoverinfo": "skip",
        "showlegend": False,
        "name": f"{one.name}, 95 % interval",
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
    one: Subject,
    names: Sequence[str],
    place: tuple[int, int],
    meta: Sequence[int | None],
    scale: Scale,
    *,
    upright: bool = False,
    share: bool = False,
) -> Trace:
    """A subject's marks, each with its interval; a number whose interval is missing is drawn open.

    Args:
        one: The subject; its rows have a column `row` that is one of `names`.
        names: The names of the rows, in order.
        place: Which of how many subjects it is.
        meta: The options under which it is shown.
        scale: The columns drawn.
        upright: Whether the rows stand side by side, not one below the other.
        share: Whether numbers are said as percentages.
    """
    nth, n = place
    offset = SPREAD * ((nth + 0.5) / n - 0.5)
    digits = 3 if scale.times == 1 else 1
    has = one.rows[scale.value].notna()
    known = one.rows[has]
    at = [names.index(row) + offset for row in known["row"]]
    said = [
        f"{plain(row, 60)}: {percent(each) if share else number(float(each), digits)}"
        + (f"<br>{verdict}" if verdict else "")
        for row, each, verdict in zip(
            known["row"], scale.times * known[scale.value], known["verdict"], strict=True
        )
    ]
    colour, symbols = (
        [each for each, there in zip(look, has, strict=True) if there]
        if isinstance(look, list)
        else look
        for look in (one.colour, one.symbol)
    )
    shapes = symbols if isinstance(symbols, list) else [symbols] * len(known)
    bare = known[scale.low].isna()
    values, bars = numbers(scale.times * known[scale.value]), error_bars(known, scale)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": one.name,
        "x": at if upright else values,
        "y": values if upright else at,
        "error_y" if upright else "error_x": bars
        | {"color": GREY if isinstance(colour, list) else colour},
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": [
                shape + ("-open" if without else "")
                for shape, without in zip(shapes, bare, strict=True)
            ],
        },
        "text": said,
        "hovertemplate": f"%{{text}}<extra>{'%{fullData.name}' if one.name else ''}</extra>",
        "meta": list(meta),
    }


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
    """Enough for every row and subject, in pixels."""
    return 130 + len(names) * max(34, 13 * subjects)

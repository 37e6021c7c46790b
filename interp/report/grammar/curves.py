"""Curves: lines along a column, each the mean of its models, which stand faint beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from interp.declared.figures import FigureSpec, Row, Scale, SeriesSpec
from interp.declared.writing import number, percent
from interp.report.grammar.filled_figures import (
    View,
    finished,
    kept,
    label_rows,
    read_rows,
    row_records,
    views,
)
from interp.report.grammar.kinds import across_lines, axis_of
from interp.report.grammar.pieces import (
    DrawnSubject,
    Figure,
    Trace,
    error_bars,
    layout,
    numbers,
    points,
)
from interp.report.grammar.several_models import N_MODELS, OF_MODELS, mean_of_models
from interp.report.loaded import Frame, LoadedResult


def curve_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Lines along a column: the given series, or one per subject."""
    rows = read_rows(result, spec)
    if rows.empty:
        return None
    found, choices = views(result, spec, rows)
    found = curves_over_models(spec, found)
    traces = curve_traces(spec, found)
    if not traces:
        return None
    lines, notes = across_lines(spec.lines, "y")
    drawn = [one.rows for view in found for one in view.subjects]
    words = rows_are_words(rows, str(spec.across))
    scales = [spec.scale, *(each.scale for each in spec.series)]
    ends = {name for each in scales for name in (each.value, each.low, each.high) if name}
    single = rows[[*{each.value for each in scales}]]  # models stand beside their mean, bare
    lines_drawn = pd.concat([*drawn, single])[[*ends]].to_numpy(float)
    shape = layout(
        spec.height or 430,
        shapes=lines,
        annotations=notes,
        xaxis=axis_of(spec.x) | ({"type": "category"} if words else {}),
        yaxis=axis_of(spec.y, lines_drawn if spec.y.within else None),
    )
    said = {"options": len(choices[-1].options), "points": rows[spec.across].nunique()}
    return finished(spec, result, rows, traces, shape, choices, drawn, **said)


def curves_over_models(spec: FigureSpec, found: Sequence[View]) -> list[View]:
    """Views whose subjects are the lines of a curve: the given series, or the subjects' own.

    A line is the mean of its models, which stand beside it, one for each block. Where they have no
    places in common, the first one is the line; points alone are not parted by model.
    """
    return [
        replace(view, subjects=[*_series(spec, view), *(_line(spec, view, one) for one in own)])
        for view in found
        for own in [view.subjects if not spec.series else ()]
    ]


def _series(spec: FigureSpec, view: View) -> Iterator[DrawnSubject]:
    for each in spec.series:
        rows = _over_models(spec, kept(view.rows, each.where), each.scale)
        yield DrawnSubject(each.name, each.colour, each.symbol, rows)


def _line(spec: FigureSpec, view: View, one: DrawnSubject) -> DrawnSubject:
    if "lines" not in spec.mode or one.rows["seed"].nunique() < 2:
        return one
    models = [rows for _, rows in one.rows.groupby("seed", sort=True)]
    mean = one.rows if spec.along else _over_models(spec, one.rows, view.scale)
    if N_MODELS in mean:
        return replace(one, rows=mean, singles=models)
    return replace(one, rows=models[0], singles=models[1:])


def _over_models(spec: FigureSpec, rows: Frame, scale: Scale) -> Frame:
    return mean_of_models(rows, [str(spec.across)], [scale], share=spec.y.percent)


def curve_traces(spec: FigureSpec, found: Sequence[View]) -> list[Trace]:
    """The lines of all views that have points, with their single models."""
    return [
        trace
        for view in found
        if len(view.rows)
        for place, one in enumerate(view.subjects)
        for trace in (
            _series_traces(spec, spec.series[place], one, view)
            if spec.series
            else _line_traces(spec, one, view)
        )
    ]


def _series_traces(
    spec: FigureSpec, each: SeriesSpec, one: DrawnSubject, view: View
) -> Iterator[Trace]:
    line = {"color": each.colour, "width": 2.5, "dash": each.dash}
    yield _curve(spec, one, each.scale, view.meta) | {"mode": each.mode, "line": line}


def _line_traces(spec: FigureSpec, one: DrawnSubject, view: View) -> Iterator[Trace]:
    """A line with its bars, and its single models, faint, without bars and out of the legend."""
    if len(one.rows):
        first = {"legendgroup": one.key, "showlegend": True, "opacity": 1.0}
        yield _curve(spec, one, view.scale, view.meta) | first
    bare = replace(view.scale, low="", high="")
    for rows in one.singles:
        name = f"{one.name}, seed {rows['seed'].iloc[0]:g}"
        single = replace(one, name=name, rows=rows)
        faint = {"legendgroup": one.key, "showlegend": False, "opacity": 0.25}
        yield _curve(spec, single, bare, view.meta) | faint


def _curve(spec: FigureSpec, one: DrawnSubject, scale: Scale, meta: Sequence[int | None]) -> Trace:
    """A subject's points along a column, with their intervals."""
    column = str(spec.across)
    words = rows_are_words(one.rows, column)
    ordered = "lines" in spec.mode and not words
    rows = one.rows.sort_values(spec.along or column, kind="stable") if ordered else one.rows
    places = label_rows(rows, spec.labels or column) if words else numbers(rows[column])
    told = zip(row_records(rows), places, strict=True)
    said = [_point(spec, row, at, scale) for row, at in told]
    line = {"color": one.colour, "width": 2}
    trace = points(one, places, rows[scale.value], said, meta, size=8, mode=spec.mode, line=line)
    if "lines" not in spec.mode:
        trace["marker"]["opacity"] = 0.75  # points lie upon one another
    return trace | ({"error_y": error_bars(rows, scale)} if scale.low else {})


def rows_are_words(rows: Frame, column: str) -> bool:
    """Whether a column holds names and not numbers."""
    return not pd.api.types.is_numeric_dtype(rows[column])


def _point(spec: FigureSpec, row: Row, at: object, scale: Scale) -> str:
    """What a point of a curve says: where it is, its number, its interval, its models."""
    several = f"<br>{row[OF_MODELS]}" if row.get(OF_MODELS) else ""
    if spec.hover and scale.value == spec.scale.value:
        return spec.hover(row) + several
    told = percent if spec.y.percent else lambda value: number(value, 3)
    where = str(at)
    if isinstance(at, float):
        where = f"{100 * at:g} %" if spec.x.percent else f"{spec.x.title} {at:g}"
    ends = scale.low and np.isfinite(row[scale.low])
    interval = f" ({told(row[scale.low])} to {told(row[scale.high])})" if ends else ""
    return f"{where}: {told(row[scale.value])}{interval}{several}"

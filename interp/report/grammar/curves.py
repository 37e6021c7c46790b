"""Curves: lines along a column, each the mean of its models, which stand faint beside it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from interp.declared.figures import FigureSpec, Row, Scale, SeriesSpec
from interp.declared.writing import number, percent
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows, View
from interp.report.grammar.mean_of_models import N_MODELS, OF_MODELS, mean_of_models
from interp.report.grammar.pieces import Figure, Meta, Trace
from interp.report.loaded import Frame
from interp.report.rows import label_rows, matches, row_records


def curve_figure(data: FigureRows) -> Figure | None:
    """Lines along a column: the given series, or one per subject."""
    spec, rows = data.spec, data.rows
    lines = [(line, view.meta) for view in data.views for line in curve_lines(spec, view)]
    traces = [trace for line, meta in lines for trace in curve_traces(spec, *line, meta)]
    if not traces:
        return None
    drawn = [own for (_, own, _), _ in lines]
    scales = [spec.scale, *(each.scale for each in spec.series)]
    ends = {name for each in scales for name in (each.value, each.low, each.high) if name}
    single = rows[[*{each.value for each in scales}]]  # models stand beside their mean, bare
    reach = pd.concat([*drawn, single])[[*ends]].to_numpy(float) if spec.y.within else None
    across, notes = pieces.across_lines(spec.lines, "y")
    words = {"type": "category"} if _are_words(rows, str(spec.across)) else {}
    shape = pieces.layout(
        spec.height or 430,
        shapes=across,
        annotations=notes,
        xaxis=pieces.axis_of(spec.x) | words,
        yaxis=pieces.axis_of(spec.y, reach),
    )
    return data.figure(traces, shape, averaged=drawn, points=rows[spec.across].nunique())


def curve_lines(spec: FigureSpec, view: View) -> Iterator[tuple[SeriesSpec, Frame, list[Frame]]]:
    """The lines of a view that have points: what each is, its rows, those of its single models.

    A line is the mean of its models, which stand beside it, one for each block. Where they have no
    places in common, the first one is the line; points alone are not parted by model.
    """
    for each in spec.series:
        rows = view.rows[matches(view.rows, each.where)]
        if len(rows):
            yield each, _of_models(spec, rows, each.scale), []
    for line in view.lines.itertuples() if not spec.series else ():
        rows = view.rows[view.rows["key"] == line.key]
        where = {"key": line.key}
        each = SeriesSpec(
            str(line.subject), view.scale, str(line.colour), where, symbol=str(line.symbol)
        )
        if len(rows):
            yield each, *_mean_and_models(spec, rows, view.scale)


def _mean_and_models(spec: FigureSpec, rows: Frame, scale: Scale) -> tuple[Frame, list[Frame]]:
    if "lines" not in spec.mode or rows["seed"].nunique() < 2:
        return rows, []
    models = [own for _, own in rows.groupby("seed", sort=True)]
    mean = rows if spec.along else _of_models(spec, rows, scale)
    return (mean, models) if N_MODELS in mean else (models[0], models[1:])


def _of_models(spec: FigureSpec, rows: Frame, scale: Scale) -> Frame:
    return mean_of_models(rows, [str(spec.across)], [scale], share=spec.y.percent)


def curve_traces(
    spec: FigureSpec, each: SeriesSpec, rows: Frame, singles: list[Frame], meta: Meta
) -> Iterator[Trace]:
    """A line with its bars, and its single models, faint, without bars and out of the legend."""
    if spec.series:
        line = {"color": each.colour, "width": 2.5, "dash": each.dash}
        yield _curve(spec, each, rows, meta) | {"mode": each.mode, "line": line}
        return
    group = {"legendgroup": each.where["key"]}
    yield _curve(spec, each, rows, meta) | group | {"showlegend": True, "opacity": 1.0}
    bare = replace(each.scale, low="", high="")
    for own in singles:
        name = f"{each.name}, seed {own['seed'].iloc[0]:g}"
        faint = {"showlegend": False, "opacity": 0.25}
        yield _curve(spec, replace(each, name=name, scale=bare), own, meta) | group | faint


def _curve(spec: FigureSpec, each: SeriesSpec, rows: Frame, meta: Meta) -> Trace:
    """Points along a column, with their intervals."""
    column, scale = str(spec.across), each.scale
    words = _are_words(rows, column)
    if "lines" in spec.mode and not words:
        rows = rows.sort_values(spec.along or column, kind="stable")
    places = label_rows(rows, spec.labels or column) if words else pieces.numbers(rows[column])
    records = zip(row_records(rows), places, strict=True)
    said = [_point(spec, row, at, scale) for row, at in records]
    more = {"mode": spec.mode, "line": {"color": each.colour, "width": 2}}
    look = each.colour, each.symbol
    trace = pieces.points(each.name, look, places, rows[scale.value], said, meta, size=8, **more)
    if "lines" not in spec.mode:
        trace["marker"]["opacity"] = 0.75  # points lie upon one another
    return trace | ({"error_y": pieces.error_bars(rows, scale)} if scale.low else {})


def _are_words(rows: Frame, column: str) -> bool:
    """Whether a column holds names and not numbers."""
    return not pd.api.types.is_numeric_dtype(rows[column])


def _point(spec: FigureSpec, row: Row, at: object, scale: Scale) -> str:
    """What a point of a curve says: where it is, its number, its interval, its models."""
    several = f"<br>{row[OF_MODELS]}" if row.get(OF_MODELS) else ""
    if spec.hover and scale.value == spec.scale.value:
        return spec.hover(row) + several
    shown = percent if spec.y.percent else lambda value: number(value, 3)
    where = str(at)
    if isinstance(at, float):
        where = f"{100 * at:g} %" if spec.x.percent else f"{spec.x.title} {at:g}"
    ends = scale.low and np.isfinite(row[scale.low])
    interval = f" ({shown(row[scale.low])} to {shown(row[scale.high])})" if ends else ""
    return f"{where}: {shown(row[scale.value])}{interval}{several}"

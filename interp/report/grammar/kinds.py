"""Kinds of figure that a specification may name: depth, forest and map; curves are in `curves`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.core.sites import BAND
from interp.declared.figures import AxisSpec, FigureSpec, LineSpec, Scale
from interp.declared.writing import number, percent, plain
from interp.report.grammar.filled_figures import (
    View,
    finished,
    in_order,
    label_rows,
    read_rows,
    views,
)
from interp.report.grammar.pieces import (
    DEPTH,
    GREY,
    MAP,
    DrawnSubject,
    Figure,
    Trace,
    axis,
    depth_lines,
    error_bars,
    heat,
    height,
    layout,
    level_line,
    named,
    no_number,
    numbers,
    opened_option,
    points,
    reference_line,
    rows_by_name,
    shade,
    without_twins,
)
from interp.report.grammar.several_models import OF_MODELS, mean_of_models
from interp.report.grammar.subjects import EPOCH_0, looks_of
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import Looks


def depth_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Lines over depth: one per subject with its interval, floors dashed, middle layers grey."""
    found, choices = views(result, spec, read_rows(result, spec))
    found = [_subjects_over_models(view, ("control", "site", "site_b"), spec.y) for view in found]
    shown = pd.concat([one.rows for view in found for one in view.subjects] or [pd.DataFrame()])
    columns = {view.scale.value for view in found}
    if shown.empty or not shown[list(columns)].notna().any(axis=None):
        return None
    traces = [
        trace
        for view in found
        for one in view.subjects
        for trace in depth_lines(one, view.meta, view.scale)
    ]
    traces += [no_number(view.meta) for view in found if not _has_number(view)]
    lines, notes = across_lines(spec.lines, "y")
    shape = layout(
        spec.height or 430,
        shapes=[shade(*BAND), *lines],
        annotations=notes,
        xaxis=axis(DEPTH, range=[-0.03, 1.03]),
        yaxis=axis_of(spec.y),
    )
    names = sequence([trace["name"] for trace in named(traces)])
    drawn = [one.rows for view in found for one in view.subjects]
    return finished(spec, result, shown, without_twins(traces), shape, choices, drawn, names=names)


def _has_number(view: View) -> bool:
    return any(one.rows[view.scale.value].notna().any() for one in view.subjects)


def _subjects_over_models(view: View, place: Sequence[str], told: AxisSpec) -> View:
    """A view whose subjects have one row in each place, the mean of their models."""
    subjects = [
        replace(one, rows=mean_of_models(one.rows, place, [view.scale], share=told.percent))
        for one in view.subjects
    ]
    return replace(view, subjects=subjects)


def forest_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Marks with intervals: a row for each label that has a number, subjects side by side in it."""
    rows = read_rows(result, spec)
    if rows.empty or not rows[spec.scale.value].notna().any():
        return None
    rows = rows.assign(natural=result.natural)
    rows["row"] = label_rows(rows, spec.labels)
    found, choices = views(result, spec, rows)
    found = [_rows_over_models(spec, view) for view in found]
    known = rows[[*{view.scale.value for view in found}]].notna().any(axis=1)
    names = in_order(result, rows[known], spec.labels)
    most = max(max(len(view.subjects) for view in found), 1)
    if spec.subjects and most < spec.least:
        return None
    looks = looks_of(result, rows["setting"]) if spec.labels == "setting" else {}
    traces = [trace for view in found for trace in _marks(spec, view, names, looks)]
    lines, notes = across_lines(spec.lines, "y" if spec.upright else "x")
    words = any(line.text for line in spec.lines)
    sides = [
        axis_of(spec.x),
        rows_by_name(names, room=0.6 * words, limit=28 if spec.upright else 80),
    ]
    tall = spec.height or height(names, most) + 30 * words
    if spec.upright:
        sides[1] = {**sides[1], "range": sides[1]["range"][::-1]}
        sides.reverse()
    shape = layout(
        tall,
        shapes=lines,
        annotations=notes,
        xaxis=sides[0],
        yaxis=sides[1],
        meta={"rows": "x" if spec.upright else "y"},
        **({} if spec.subjects or spec.floors else {"showlegend": False}),
    )
    said = {
        "rows": len(names),
        "labels": sequence(names),
        "subjects": most,
        "names": sequence([one.name for one in found[0].subjects]),
        "numbers": _numbers(spec, found[0]),
    }
    drawn = [rows for view in found for rows in (view.rows, *(one.rows for one in view.subjects))]
    return finished(spec, result, rows, traces, shape, choices, drawn, **said)


def _rows_over_models(spec: FigureSpec, view: View) -> View:
    """A view of a forest with one mark in each row for every subject, the mean of its models."""
    place, scales = ("control", "row", "setting"), [view.scale, *[Scale("null")] * spec.floors]
    rows = view.rows
    if not spec.subjects:
        rows = mean_of_models(rows, place, scales, share=spec.x.percent)
    return _subjects_over_models(replace(view, rows=rows), place, spec.x)


def _marks(spec: FigureSpec, view: View, names: Sequence[str], looks: Looks) -> Iterator[Trace]:
    """The marks of a view, and the floors beside them."""
    own = view.rows[view.rows["control"] == ""]
    of_all = DrawnSubject("trained" * spec.floors, *_looks_of(spec, own, looks), own)
    subjects = view.subjects or [of_all]
    scale = view.scale
    for nth, one in enumerate(subjects):
        where = (nth, len(subjects))
        yield marks(one, names, where, view.meta, scale, upright=spec.upright, share=spec.x.percent)
    if not spec.floors:
        return
    untrained = view.rows[view.rows["control"] == EPOCH_0].drop_duplicates("setting")
    floor = DrawnSubject("untrained (epoch 0)", GREY, "circle", untrained.assign(low=np.nan))
    floors = marks(
        floor, names, (0, 1), view.meta, Scale(scale.value, "low", "low"), share=spec.x.percent
    )
    yield {**floors, "cliponaxis": False}
    line = pd.concat([own, untrained]).dropna(subset=["null"]).drop_duplicates("row")
    line = line[line["row"].isin(names)]
    if len(line):
        at = [names.index(row) for row in line["row"]]
        yield level_line(
            "chance", numbers(line["null"]), at, view.meta, share=spec.x.percent, dash="dash"
        )


SPREAD = 0.6
"""How much of a row's height its subjects take."""


def marks(
    one: DrawnSubject,
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
    models = known[OF_MODELS] if OF_MODELS in known else [""] * len(known)
    said = [
        "<br>".join(
            part
            for part in (
                f"{plain(row, 60)}: {percent(each) if share else number(float(each), digits)}",
                several,
                verdict,
            )
            if part
        )
        for row, each, several, verdict in zip(
            known["row"], scale.times * known[scale.value], models, known["verdict"], strict=True
        )
    ]
    colour, symbols = (
        [each for each, there in zip(look, has, strict=True) if there]
        if isinstance(look, list)
        else look
        for look in (one.colour, one.symbol)
    )
    at = [names.index(row) + offset for row in known["row"]]
    values = scale.times * known[scale.value]
    drawn = replace(one, colour=colour, symbol=opened_option(symbols, known[scale.low].isna()))
    bars = error_bars(known, scale) | {"color": GREY if isinstance(colour, list) else colour}
    if upright:
        return points(drawn, at, values, said, meta, error_y=bars)
    return points(drawn, values, at, said, meta, error_x=bars)


def _numbers(spec: FigureSpec, view: View) -> str:
    """The trained models' numbers of a view, in words."""
    own = view.rows[view.rows["control"] == ""]
    values = view.scale.times * own[view.scale.value]
    said = [percent(each) if spec.x.percent else number(each, 1) for each in values]
    return "; ".join(f"{row}: {each}" for row, each in zip(own["row"], said, strict=True))


def _looks_of(spec: FigureSpec, rows: Frame, known: Looks) -> tuple[Any, Any]:
    """Colours and symbols of rows that are settings; else one for all."""
    if spec.labels != "setting":
        return "#0072B2", "circle"
    looks = [known[name] for name in rows["setting"]]
    return [colour for colour, _ in looks], [symbol for _, symbol in looks]


def map_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """A heat map of one column of domains against another, with choices."""
    down, over = spec.across if isinstance(spec.across, tuple) else (spec.across, spec.across)
    rows = read_rows(result, spec)
    if rows.empty or rows[down].eq("").all():
        return None
    given = dict.fromkeys([*rows[down], *rows[over]])
    domains = sorted(given, key=(*result.domains, *given).index)
    found, choices = views(result, spec, rows)
    ends = list(dict.fromkeys((down, over)))
    found = [
        replace(view, rows=mean_of_models(view.rows, ends, [Scale(view.scale.value)]))
        for view in found
    ]
    traces = [_cells(spec, view, (down, over), domains) for view in found]
    shape = layout(80 + 50 * len(domains), xaxis=MAP, yaxis={**MAP, "autorange": "reversed"})
    said = {"rows": len(domains), "options": len(choices[-1].options)}
    drawn = [view.rows for view in found]
    return finished(spec, result, rows, traces, shape, choices, drawn, **said)


def _cells(spec: FigureSpec, view: View, ends: tuple[str, str], domains: Sequence[str]) -> Trace:
    """The cells of a view; a domain with itself was never in question in a symmetric map."""
    cells = view.rows[[*ends, view.scale.value]].itertuples(index=False)
    found = {(a, b): float(value) for a, b, value in cells}
    if spec.symmetric:
        found |= {(b, a): value for (a, b), value in found.items()}
    grid = [[found.get((a, b), float("nan")) for b in domains] for a in domains]
    trace = heat(grid, domains, domains, title=spec.y.title, meta=view.meta)
    if spec.symmetric:
        for place, row in enumerate(trace["text"]):
            row[place] = ""
    return trace


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


def axis_of(spec: AxisSpec, numbers_shown: Any = None) -> dict[str, Any]:
    """An axis in plotly's words."""
    words: dict[str, Any] = {}
    if spec.percent:
        words["tickformat"] = ".0%"
    if spec.from_zero:
        words["rangemode"] = "tozero"
    if spec.log:
        words["type"] = "log"
    if spec.limits:
        words["range"] = list(spec.limits)
    if spec.within and numbers_shown is not None:
        low, high = float(np.nanmin(numbers_shown)), float(np.nanmax(numbers_shown))
        words["range"] = [max(spec.within[0], min(-0.05, low)), min(spec.within[1], max(1.1, high))]
    if spec.ticks:
        words |= {"tickvals": list(spec.ticks), "ticktext": list(spec.ticks.values())}
    return axis(spec.title, **words)

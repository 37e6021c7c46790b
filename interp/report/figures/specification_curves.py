"""Specification curves: a verdict under every choice, sorted, above the options of each column."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.declared.figures import INDEX, FigureSpec
from interp.declared.writing import between, number, percent, plain, short
from interp.report.figures.ladders import COLOURS, LEVELS, LOOK
from interp.report.grammar import pieces
from interp.report.grammar.figure_rows import FigureRows, View
from interp.report.grammar.pieces import Figure, Meta, Trace
from interp.report.loaded import Frame
from interp.report.rows import row_records
from interp.verdicts.votes import agreement_with_usual

MARKS = {SHARED: "circle", PARTLY: "diamond", NOT_SHARED: "circle-open", UNKNOWN: "x"}
"""Symbols of points: filled where something is shared, open where not."""

USUAL = "#CC79A7"
"""The colour of what the ladder does, that no verdict has."""

TOP, ROW = 300, 19
"""Pixels of the curve, and of a row of options below it."""


class OptionLine(NamedTuple):
    """A line of the matrix: an option of a choice, or the choice as a heading without one."""

    choice: str
    option: str | None


def choices_figure(data: FigureRows) -> Figure | None:
    """Every combination's index with its interval, sorted; below, which options it has."""
    spec, rows = data.spec, data.rows
    if rows.empty or not rows["index"].notna().any():
        return None
    lines = _lines(rows, spec.labels)
    views = [view for view in data.views if len(view.rows)]
    traces = [trace for view in views for trace in _drawn(view, lines)]
    ends = rows[["index", "index_low", "index_high"]].to_numpy(float)
    shape = _shape(spec, lines, pieces.axis_of(spec.y, ends))
    columns = max(len(view.rows) for view in views)
    return data.figure(traces, shape, counted=_agreeing(views), columns=columns)


def _lines(rows: Frame, labels: Any) -> list[OptionLine]:
    """The options of every choice that has several, each choice under its heading."""
    lines = []
    for choice in labels:
        options = dict.fromkeys(filter(None, _options(rows, choice)))
        if len(options) > 1:
            ordered = sorted(options, key=_size)  # numbers rise, and words stay as they came
            lines += [OptionLine(choice, None), *(OptionLine(choice, option) for option in ordered)]
    return lines


def _options(rows: Frame, choice: str) -> list[str]:
    """What each row has chosen, as text; empty where nothing was to be chosen."""
    if pd.api.types.is_numeric_dtype(rows[choice]):
        return ["" if pd.isna(one) else f"{one:g}" for one in rows[choice]]
    return [str(one).replace("_", " ") for one in rows[choice]]


def _size(option: str) -> float:
    """The number that an option begins with; of words a number below all."""
    first = option.split()[0]
    return float(first) if first.replace(".", "").isdigit() else -1.0


def _drawn(view: View, lines: Sequence[OptionLine]) -> list[Trace]:
    """A model's curve and matrix; combinations without an index stand at the right end."""
    rows = view.rows.sort_values("index", kind="stable").reset_index(drop=True)
    rows = rows.assign(at=range(1, len(rows) + 1))
    return [_matrix(rows, lines, view.meta), *_curve(rows, view), *_usual(rows, lines, view.meta)]


def _curve(rows: Frame, view: View) -> list[Trace]:
    """The indices, a trace for each verdict."""
    drawn = []
    for verdict, symbol in MARKS.items():
        own = rows[(rows["verdict"] == verdict) & rows["index"].notna()]
        colour = COLOURS[int(LEVELS[verdict])]
        if own.empty:
            continue
        at = own["at"], own["index"], _hover(own)
        trace = pieces.points(verdict, (colour, symbol), *at, view.meta, size=7)
        trace["marker"]["line"] = {
            "width": 1.6 if symbol.endswith("open") else 0.8,
            "color": colour if symbol.endswith("open") else pieces.GREY,
        }
        bars = pieces.error_bars(own, INDEX, color=colour) | {"thickness": 1.2, "width": 0}
        drawn.append(trace | {"error_y": bars, "legendgroup": verdict})
    return drawn


def _hover(rows: Frame) -> list[str]:
    """What a point says: its index, verdict, and the options."""
    said = []
    for row in row_records(rows):
        ends = between(row["index_low"], row["index_high"])
        steps = "" if pd.isna(row["steps"]) else f"{row['steps']:g} steps"
        chosen = (row["method"], steps, row["metric"], row["corruption"], row["size"])
        options = ", ".join(plain(str(one), 30) for one in (*chosen, row["overlap"]) if one)
        said.append(f"{number(row['index'])} ({ends}), {row['verdict']}<br>{options}")
    return said


def _matrix(rows: Frame, lines: Sequence[OptionLine], meta: Meta) -> Trace:
    """A cell for every option that a combination has, in the colour of its verdict."""
    level = [LEVELS.get(verdict) for verdict in rows["verdict"]]
    options = {choice: _options(rows, choice) for choice in {line.choice for line in lines}}
    z = [
        [
            at if one == line.option else None
            for at, one in zip(level, options[line.choice], strict=True)
        ]
        for line in lines
    ]
    gaps = {"ygap": 4, "xgap": 1 if len(rows) < 70 else 0}
    more = {"yaxis": "y2", "hoverinfo": "skip", "meta": list(meta)}
    return pieces.cells(z, rows["at"].tolist(), list(range(len(lines))), **LOOK, **gaps, **more)


def _usual(rows: Frame, lines: Sequence[OptionLine], meta: Meta) -> list[Trace]:
    """What the ladder does: a line through the matrix, and a ring around its point."""
    own = rows[rows["default"]]
    if own.empty:
        return []
    at, look = float(own["at"].iloc[0]), {"color": USUAL, "width": 2}
    name, ends = "the ladder's choice", (USUAL, "circle-open")
    through = pieces.level_line(name, [at, at], [-0.5, len(lines) - 0.5], meta, **look)
    through |= {"yaxis": "y2", "hoverinfo": "skip", "showlegend": False}
    ring = pieces.points(name, ends, [at], own["index"], _hover(own), meta, size=16)
    ring["marker"]["line"] = look
    return [through, ring]


def _shape(spec: FigureSpec, lines: Sequence[OptionLine], index: Trace) -> Trace:
    """The curve above, the matrix of options below, on one axis across."""
    tall = ROW * len(lines)
    split, gap = tall / (TOP + tall), 12 / (TOP + tall)
    names = [
        f"<b>{line.choice}</b>" if line.option is None else short(plain(line.option), 22)
        for line in lines
    ]
    across, notes = pieces.across_lines(spec.lines, "y")
    for shape, note, line in zip(across, notes, spec.lines, strict=True):
        shape |= {"xref": "x domain", "layer": "below"}
        note |= {"xref": "x domain", "text": line.text, "bgcolor": "rgba(0,0,0,0)"}
    return pieces.layout(
        TOP + tall + 90,
        shapes=across,
        annotations=notes,
        xaxis={"anchor": "y2", "showticklabels": False, "showgrid": False, "zeroline": False,
               "ticks": "", "automargin": True,
               "title": {"text": "combinations, sorted by index", "standoff": 22}},
        yaxis={**index, "domain": [split + gap, 1]},
        yaxis2={"domain": [0, split], "range": [len(lines) - 0.5, -0.5], "zeroline": False,
                "tickvals": list(range(len(lines))), "ticktext": names, "showgrid": False,
                "automargin": True, "ticks": ""},
    )  # fmt: skip


def _agreeing(views: Sequence[View]) -> str:
    """How many combinations were run of how many, and how many agree; of several models a range."""
    told = [(agreement_with_usual(view.rows), view.rows) for view in views]
    run = max(len(rows) for _, rows in told)
    possible = max(rows["n_possible"].max() for _, rows in told)
    shares = [one.share for one, _ in told if one.share == one.share]
    refused = max(one.refused for one, _ in told)
    ran = f"{run:,} of {possible:,.0f} combinations were run"
    ran += (
        f", {'' if len(told) == 1 else 'at most '}{refused} without an index." if refused else "."
    )
    if not shares:
        return f"{ran} The ladder's choice has no index that others could agree with."
    low, high = percent(min(shares)), percent(max(shares))
    of = low if low == high else f"{low} to {high}"
    against = max(one.against for one, _ in told)
    opposite = f"{'' if len(told) == 1 else 'at most '}{against}" if against else "none"
    return (
        f"{ran} Of the others with an index {of} give the verdict of the ladder's choice, and "
        f"{opposite} the opposite one."
    )


def in_short(rows: Frame) -> str:
    """The counts of one model's rows, for the title of a figure that stands alone."""
    told, n = agreement_with_usual(rows), rows["n_units"].dropna()
    of = f"{len(rows):,} of {rows['n_possible'].max():,.0f} combinations"
    agree = "the ladder's own has no index"
    if told.usual:
        agree = f"{percent(told.share)} give the ladder's verdict, {told.against} the opposite"
    return f"n = {pieces.span(n)} classes; {of}, {told.refused} without index; {agree}"

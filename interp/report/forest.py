"""Forests: rows of numbers with their intervals, one mark per subject beside the others."""

from collections.abc import Sequence
from typing import Any

from interp.report.figures import Trace, errors, numbers
from interp.report.naming import number, plain
from interp.report.reading import Frame
from interp.report.subjects import Subject

SPREAD = 0.6
"""How much of a row's height its subjects take."""


def marks(
    rows: Frame,
    names: Sequence[str],
    one: Subject,
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
        "error_x": {**errors(known, value, low, high), "color": one.colour},
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

"""The index of sharing, between null and ceiling, and the verdict on its interval."""

from dataclasses import asdict, astuple, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from interp.core.statistics.resampling import jackknife, student

SHARED, PARTLY, NOT_SHARED = "shared", "partly shared", "not shared"
UNKNOWN = "unknown"
VERDICTS = (SHARED, PARTLY, NOT_SHARED, UNKNOWN)


@dataclass(frozen=True)
class AnswerBars:
    """Where an index's whole interval lies for each answer (`verdict_of_interval`)."""

    not_below: float = 0.2
    partly_above: float = 0.1
    partly_below: float = 0.9
    shared_above: float = 0.5

    @property
    def squared(self) -> "AnswerBars":
        """The bars of an index that grows with the square of what is shared, as that of CKA does.

        >>> AnswerBars().squared.shared_above
        0.25
        """
        return AnswerBars(*(round(bar**2, 4) for bar in astuple(self)))


AMOUNT = AnswerBars()
"""The bars of an index that says how much is shared."""

GEOMETRY = AMOUNT.squared
"""The bars of CKA. Where the class codes of two domains have a cosine of c, the inner products of
one hold c² of the other's, and so much is their CKA."""

BARS = {"index": asdict(AMOUNT), "CKA": asdict(GEOMETRY)}
"""The same by name, as results keep them."""

READER = "the reader explains it"
"""How a reason begins where what is read anywhere leaves no room for sharing."""

LEAST_ROOM = 0.2
"""Of the room above another class, what such a null must leave: the bar of "not shared"."""

LEVEL = 0.05
"""Below this p, a measure has found something beyond its null."""


@dataclass(frozen=True)
class Index:
    """A sharing index with its interval and verdict; `reason` says why there is none."""

    value: float
    low: float
    high: float
    verdict: str
    reason: str


def sharing_index(
    value: float,
    null: float,
    ceiling: float,
    *,
    left_out: ArrayLike,
    errors: tuple[float, float] | None = None,
    bars: AnswerBars = AMOUNT,
) -> Index:
    """index = (value - null) / (ceiling - null), with a jackknife interval of the whole index.

    `left_out` holds one row (value, null, ceiling) per unit left out; `errors` are the standard
    errors of ceiling - null and of the index, where they are known better than by leaving out.
    Refused, as "unknown", where ceiling - null is less than three of its standard errors. The
    verdict is by equivalence, at these `bars` (`verdict_of_interval`).

    >>> rows = np.array([[0.8, 0.0, 0.9], [0.82, 0.0, 0.91], [0.81, 0.0, 0.9], [0.8, 0.0, 0.9]])
    >>> sharing_index(0.81, 0.0, 0.9, left_out=rows).verdict
    'shared'
    """
    rows = np.asarray(left_out, dtype=float).reshape(-1, 3)
    names = ("value", "null", "ceiling")
    missing = [
        name
        for name, one in zip(names, (value, null, ceiling), strict=True)
        if not np.isfinite(one)
    ]
    if missing:
        reason = f"no {' and no '.join(missing)} could be measured"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    there = np.isfinite(rows)
    if not there.all():
        what = " and ".join(names[place] for place in range(3) if not there[:, place].all())
        without = len(rows) - int(there.all(axis=1).sum())
        reason = f"no {what} without {without} of {len(rows)} units, so no interval"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    if len(rows) < 4:
        return Index(np.nan, np.nan, np.nan, UNKNOWN, f"{len(rows)} units, at least 4 are needed")
    room = jackknife(ceiling - null, rows[:, 2] - rows[:, 1])
    if errors is not None:
        room = student(room.value, errors[0], n=len(rows))
    if room.value < 3 * room.error or room.value <= 0:
        return Index(
            np.nan,
            np.nan,
            np.nan,
            UNKNOWN,
            f"ceiling - null = {room.value:.2g} is below 3 standard errors ({3 * room.error:.2g})"
            if np.isfinite(room.error)
            else f"ceiling - null = {room.value:.2g}: there is no room for an index",
        )
    rooms = rows[:, 2] - rows[:, 1]
    if (rooms <= 0).any():
        reason = f"ceiling - null is not above 0 without one of the {len(rows)} units"
        return Index(np.nan, np.nan, np.nan, UNKNOWN, reason)
    spread = jackknife((value - null) / (ceiling - null), (rows[:, 0] - rows[:, 1]) / rooms)
    if errors is not None:
        spread = student(spread.value, errors[1], n=len(rows))
    verdict = verdict_of_interval(spread.low, spread.high, bars)
    return Index(spread.value, spread.low, spread.high, verdict, "")


def verdict_of_interval(low: float, high: float, bars: AnswerBars = AMOUNT) -> str:
    """Decide by equivalence on an index's interval.

        not shared     high < .2
        partly shared  low > .1 and high < .9
        shared         low > .5
        unknown        all else

    Args:
        low: The lower end.
        high: The upper end.
        bars: Other numbers than these.

    Returns:
        The first of the four that holds.

    >>> verdict_of_interval(0.6, 1.1), verdict_of_interval(0.3, 0.7), verdict_of_interval(-0.1, 0.1)
    ('shared', 'partly shared', 'not shared')
    >>> verdict_of_interval(0.05, 0.6)
    'unknown'
    >>> verdict_of_interval(0.05, 0.6, GEOMETRY)
    'partly shared'
    """
    if high < bars.not_below:
        return NOT_SHARED
    if low > bars.partly_above and high < bars.partly_below:
        return PARTLY
    return SHARED if low > bars.shared_above else UNKNOWN


def units_to_decide(
    value: float, low: float, high: float, n: float, bars: AnswerBars = AMOUNT
) -> float:
    """About how many units an index would take to be decided, if it stays what it is.

    The interval of n units shrinks with their square root until it fits one of the answers.

    Args:
        value: The index.
        low: The lower end of its interval.
        high: The upper end.
        n: The units behind it.
        bars: Those of the answers.

    Returns:
        The number; NaN where nothing is known, or the index lies on a bar.

    >>> units_to_decide(0.5, 0.0, 1.0, 10)
    16.0
    """
    half = (high - low) / 2
    room = max(
        bars.not_below - value,
        min(value - bars.partly_above, bars.partly_below - value),
        value - bars.shared_above,
    )
    if not (np.isfinite([half, room, n]).all() and half > 0 and room > 0.01):
        return np.nan
    return float(np.ceil(round(n * (half / room) ** 2, 6)))


def found_beyond_null(
    index: Index, p: float, *, value: float, null: float, ceiling: float, bars: AnswerBars = AMOUNT
) -> Index:
    """An index without "not shared", where its own p finds more than the null has.

    A small amount may be certain: the interval lies below the bar of "not shared", and p below
    `LEVEL`. Then "not shared" would deny what was found. "Partly shared" stands where the interval
    allows it, else "unknown".

    >>> small = Index(0.1, 0.05, 0.15, NOT_SHARED, "")
    >>> found_beyond_null(small, 0.001, value=0.3, null=0.2, ceiling=1.2).verdict
    'unknown'
    """
    towards_ceiling = (value - null) * (ceiling - null) > 0
    if index.verdict != NOT_SHARED or not (p < LEVEL and towards_ceiling):
        return index
    if index.low > bars.partly_above:
        return replace(index, verdict=PARTLY)
    reason = f"little is shared, but more than nothing (p = {p:.2g})"
    return replace(index, verdict=UNKNOWN, reason=reason)

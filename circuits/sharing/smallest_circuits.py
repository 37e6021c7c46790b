"""The smallest circuits that are faithful: how few parts do a given share of a class's work."""

from collections.abc import Sequence

import numpy as np

from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval, jackknife

SMALLEST = {0.5: "parts that do 50 % of the work", 0.8: "parts that do 80 % of the work"}
"""What a circuit must do to count as faithful, and what the share of parts it takes is called."""


def size_reached(shares: Sequence[float], work: np.ndarray, bar: float) -> np.ndarray:
    """The smallest size at which circuits do enough, between two sizes on a scale of logarithms.

    Args:
        shares: Sizes of circuits, in rising order.
        work: What they do of the whole, `[... size]`.
        bar: What is enough.

    Returns:
        The size, `[...]`; NaN where none does enough.

    >>> size_reached([0.01, 0.1], np.array([[0.0, 1.0], [0.0, 0.4]]), 0.5).round(3).tolist()
    [0.032, nan]
    """
    sizes, work = np.log(np.asarray(shares)), np.asarray(work, dtype=float)
    enough = work >= bar
    first = enough.argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    high, low = (np.take_along_axis(work, at[..., None], -1)[..., 0] for at in (first, before))
    part = np.where(first > 0, (bar - low) / np.where(high > low, high - low, 1.0), 1.0)
    size = np.exp(sizes[before] + part * (sizes[first] - sizes[before]))
    return np.where(enough.any(axis=-1), size, np.nan)


def smallest_rows(
    shares: Sequence[float], own: np.ndarray, random: np.ndarray, *, about: Evidence
) -> list[dict[str, object]]:
    """A row for each bar of `SMALLEST`, with what random parts would take as null.

    Args:
        shares: Sizes of circuits, in rising order.
        own: What a domain's circuits do at home, of all classes and then without each,
            `[1 + class, size]`.
        random: The same of random parts, as many.
        about: What the rows have in common.
    """
    rows = []
    for bar, name in SMALLEST.items():
        sizes, by_chance = (size_reached(shares, work, bar) for work in (own, random))
        largest = f"{own[0, -1]:.0%} at {shares[-1]:.0%} of the parts"
        reason = "" if np.isfinite(sizes[0]) else f"no circuit does as much: {largest}"
        if sizes[0] == shares[0]:
            reason = "as few parts at most: no smaller circuits were run"
        row = about.row(_spread(sizes), null=float(by_chance[0]), reason=reason)
        rows.append({"measure": name, **row})
    return rows


def _spread(sizes: np.ndarray) -> Interval:
    """The interval of a size, on the scale of logarithms: that of all classes stands first."""
    found = jackknife(float(np.log(sizes[0])), np.log(sizes[1:]))
    return Interval(float(sizes[0]), found.error, *np.exp([found.low, found.high]).tolist())

"""What goes into a table with a number: interval, null, ceiling, index and counts, as columns."""

import numpy as np

from interp.core.statistics import Index, Interval

NO_VERDICT = Index(np.nan, np.nan, np.nan, "", "")
"""The index of what has no ceiling, or is no question of sharing."""


def evidence(
    found: Interval,
    *,
    null: float,
    null_kind: str,
    unit: str,
    n_units: int,
    n_pictures: int,
    estimand: str,
    seed: int,
    n_drawings: float = np.nan,
    n_runs: int = 1,
    ceiling: float = np.nan,
    ceiling_kind: str = "",
    index: Index | float = NO_VERDICT,
    p: float = np.nan,
    reason: str = "",
) -> dict[str, object]:
    """A number's columns of evidence, as `interp.core.tables` declares them.

    An `Index` brings its interval and verdict along, and its reason where `reason` is empty; a
    number alone is an index without them.

    >>> row = evidence(Interval(0.5, 0.1, 0.3, 0.7), null=0.25, null_kind="chance", unit="class",
    ...                n_units=4, n_pictures=40, estimand="this model", seed=0)
    >>> row["low"], row["null"], row["n_units"]
    (0.3, 0.25, 4)
    """
    row: dict[str, object] = {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "null": null,
        "null_kind": null_kind,
        "ceiling": ceiling,
        "ceiling_kind": ceiling_kind,
    }
    if isinstance(index, Index):
        reason = reason or index.reason
        row |= {"index": index.value, "index_low": index.low, "index_high": index.high}
        row |= {"verdict": index.verdict}
    else:
        row["index"] = index
    return row | {
        "p": p,
        "unit": unit,
        "n_units": n_units,
        "n_pictures": n_pictures,
        "n_drawings": n_drawings,
        "n_runs": n_runs,
        "estimand": estimand,
        "seed": seed,
        "reason": reason,
    }

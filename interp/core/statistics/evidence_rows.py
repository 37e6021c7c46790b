"""Rows of evidence: what all rows of a measure have in common, and a row made of its numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from interp.core.artists import n_drawings
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    UNKNOWN,
    AnswerBars,
    Index,
    found_beyond_null,
    sharing_index,
)
from interp.core.statistics.resampling import Interval, jackknife, student

NO_VERDICT = Index(np.nan, np.nan, np.nan, "", "")
"""The index of what has no ceiling, or is no question of sharing."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What all rows of one measure have in common; `row` and `judged` make a row of its numbers.

    The fields are columns of the table, as `interp.core.tables.COLUMNS` declares them, and `bars`,
    at which its indices are judged.

    >>> about = Evidence(estimand="this model", null_kind="chance", seed=0, n_units=4, n_pictures=9)
    >>> row = about.row(Interval(0.5, 0.1, 0.3, 0.7), null=0.25)
    >>> row["low"], row["null"], row["unit"], row["n_units"]
    (0.3, 0.25, 'class', 4)
    """

    estimand: str
    null_kind: str
    seed: int
    n_units: int
    n_pictures: int
    n_drawings: float = np.nan
    n_runs: int = 1
    unit: str = "class"
    ceiling_kind: str = ""
    bars: AnswerBars = AMOUNT

    def row(
        self,
        found: Interval,
        *,
        null: float,
        ceiling: float = np.nan,
        index: Index | float = NO_VERDICT,
        p: float = np.nan,
        reason: str = "",
    ) -> dict[str, object]:
        """The columns of evidence of one number.

        Args:
            found: The value with its 95 % interval.
            null: What the value would be without sharing or effect.
            ceiling: What it would be with full sharing; NaN for none.
            index: An `Index` brings its interval and verdict along, and its reason where `reason`
                is empty; a number alone is an index without them.
            p: Probability of such a value under the null; NaN for none. Where it finds more than
                the null, the verdict is not "not shared".
            reason: Why a number is missing or a verdict withheld.

        Returns:
            The row, by column.
        """
        judged: dict[str, object] = {"index": index}
        if isinstance(index, Index):
            index = found_beyond_null(
                index, p, value=found.value, null=null, ceiling=ceiling, bars=self.bars
            )
            reason = reason or index.reason
            judged = {"index": index.value, "index_low": index.low, "index_high": index.high}
            judged["verdict"] = index.verdict
        return {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "null": null,
            "null_kind": self.null_kind,
            "ceiling": ceiling,
            "ceiling_kind": self.ceiling_kind,
            **judged,
            "p": p,
            "unit": self.unit,
            "n_units": self.n_units,
            "n_pictures": self.n_pictures,
            "n_drawings": self.n_drawings,
            "n_runs": self.n_runs,
            "estimand": self.estimand,
            "seed": self.seed,
            "reason": reason,
        }

    def with_verdict(
        self,
        terms: ArrayLike,
        *,
        index: Index | None = None,
        errors: tuple[float, float, float] | None = None,
        p: float = np.nan,
        refused: str = "",
        notes: Iterable[str] = (),
    ) -> dict[str, object]:
        """The row of a value, null and ceiling, judged by leaving out one unit at a time.

        Args:
            terms: `[1 + unit, 3]`, value, null and ceiling: of all units, then with each left out.
            index: The index, where it is not the `sharing_index` of these terms.
            errors: Standard errors of value, ceiling - null and index, where they are known better
                than by leaving out.
            p: Probability of such a value under the null; NaN for none.
            refused: Why there is no index; empty where there may be one.
            notes: What `reason` says beside why there is no index; empty ones are dropped.

        Returns:
            The row, by column, with the jackknife interval of the value and of the index.

        >>> about = Evidence(estimand="", null_kind="", seed=0, n_units=4, n_pictures=4)
        >>> row = about.with_verdict(leaving_out([[0.8, 0.0, 0.9], [0.9, 0.0, 1.0]] * 2))
        >>> round(row["value"], 2), row["verdict"]
        (0.85, 'shared')
        """
        (value, null, ceiling), *left = np.asarray(terms, dtype=float).tolist()
        if refused:
            index = Index(np.nan, np.nan, np.nan, UNKNOWN, refused)
        known = errors[1:] if errors else None
        index = index or sharing_index(
            value, null, ceiling, left_out=left, errors=known, bars=self.bars
        )
        spread = jackknife(value, [each[0] for each in left])
        if errors and np.isfinite(value):
            spread = student(value, errors[0], n=len(left))
        reason = "; ".join(dict.fromkeys(filter(None, [index.reason, *notes])))
        return self.row(spread, null=null, ceiling=ceiling, index=index, p=p, reason=reason)


class Counts(TypedDict):
    """The counts of an `Evidence`."""

    n_units: int
    n_pictures: int
    n_drawings: NotRequired[float]


def counts_of(pictures: pd.DataFrame, n_units: int) -> Counts:
    """The counts of an `Evidence`: units, pictures, and the drawings that these show.

    >>> counts_of(pd.DataFrame({"drawing": ["a", "a", "b"]}), 1)
    {'n_units': 1, 'n_pictures': 3, 'n_drawings': 2}
    """
    return {"n_units": n_units, "n_pictures": len(pictures), "n_drawings": n_drawings(pictures)}


def leaving_out(per_unit: ArrayLike) -> np.ndarray:
    """The mean over units, then the mean with each of them left out.

    Args:
        per_unit: `[unit, ...]`, numbers of each unit.

    Returns:
        `[1 + unit, ...]`; NaN where there are no units.

    >>> leaving_out([1.0, 2.0, 6.0]).tolist()
    [3.0, 4.0, 3.5, 1.5]
    """
    numbers = np.asarray(per_unit, dtype=float)
    if not len(numbers):
        return np.full((1, *numbers.shape[1:]), np.nan)
    left = (numbers.sum(axis=0) - numbers) / max(len(numbers) - 1, 1)
    return np.concatenate([numbers.mean(axis=0, keepdims=True), left])


def evidence(
    found: Interval,
    *,
    null: float,
    ceiling: float = np.nan,
    index: Index | float = NO_VERDICT,
    p: float = np.nan,
    reason: str = "",
    **common: Any,
) -> dict[str, object]:
    """One row of `Evidence`, for a measure with a single one; `common` are that type's fields.

    >>> row = evidence(Interval(0.5, 0.1, 0.3, 0.7), null=0.25, null_kind="chance", unit="class",
    ...                n_units=4, n_pictures=40, estimand="this model", seed=0)
    >>> row["low"], row["null"], row["n_units"]
    (0.3, 0.25, 4)
    """
    about = Evidence(**common)
    return about.row(found, null=null, ceiling=ceiling, index=index, p=p, reason=reason)

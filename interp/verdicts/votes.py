"""Votes: several rows summed up as one verdict if they agree, with who said what."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    LEVEL,
    NOT_SHARED,
    PARTLY,
    SHARED,
    UNKNOWN,
    AnswerBars,
    verdict_of_interval,
)


@dataclass(frozen=True)
class Votes:
    """The verdict of several rows, with their mean index, its interval, and why.

    The ends of the interval are the means of the rows' ends: right if the rows err together, and
    otherwise too wide, never too narrow. The verdict is the one on which all rows agree
    (`agreement`), else that of the mean's interval where no row contradicts another.
    """

    index: float
    low: float
    high: float
    verdict: str
    verdicts: str
    reasons: tuple[str, ...]
    n: int


def count_votes(rows: pd.DataFrame, *, by_mean: bool = True, bars: AnswerBars = AMOUNT) -> Votes:
    """Sum up rows with the columns `index, index_low, index_high, verdict, reason`, and p if known.

    Without `by_mean` (an index that is no amount) only agreement counts. The mean decides where at
    least half of the rows have an index, none of them a reason against its verdict, and none says
    "shared" where another says "not shared"; it is judged at `bars`, as the rows were.

    >>> rows = pd.DataFrame({"index": [0.8, 0.6], "index_low": [0.7, 0.4], "index_high": [1, 0.9],
    ...                      "verdict": ["shared", "unknown"], "reason": ["", ""]})
    >>> votes = count_votes(rows)
    >>> votes.verdict, votes.verdicts, round(votes.index, 1)
    ('shared', '1 of 2 shared, 1 of 2 unknown', 0.7)
    """
    said, reasons = [str(word) or UNKNOWN for word in rows["verdict"]], list(rows["reason"])
    counted = Counter(said)
    verdict = agreement(counted)
    ends = rows[["index", "index_low", "index_high"]].to_numpy(dtype=float)
    known = ~np.isnan(ends).any(axis=1)
    index, low, high = ends[known].mean(axis=0) if known.any() else [np.nan] * 3
    if by_mean and verdict == UNKNOWN and not {SHARED, NOT_SHARED} <= set(counted):
        guarded = any(
            there and word == UNKNOWN and reason
            for there, word, reason in zip(known, said, reasons, strict=True)
        )
        if 2 * known.sum() >= len(rows) and not guarded:
            verdict = verdict_of_interval(low, high, bars)
            if verdict == NOT_SHARED and "p" in rows and (rows["p"][known] < LEVEL).any():
                verdict = UNKNOWN
    return Votes(
        float(index),
        float(low),
        float(high),
        verdict,
        ", ".join(f"{count} of {len(rows)} {word}" for word, count in counted.most_common()),
        tuple(dict.fromkeys(reason for reason in reasons if reason)),
        len(rows),
    )


def agreement(verdicts: Iterable[str]) -> str:
    """On what several verdicts agree: one of them, or "partly" between that and its neighbours.

    >>> agreement(["shared", "shared"]), agreement(["shared", "partly shared"])
    ('shared', 'partly shared')
    >>> agreement(["shared", "not shared"]), agreement(["shared", "unknown"])
    ('unknown', 'unknown')
    """
    said = set(verdicts)
    if len(said) == 1:
        return next(iter(said))
    return PARTLY if said in ({SHARED, PARTLY}, {PARTLY, NOT_SHARED}) else UNKNOWN


def of_both(first: str, second: str) -> str:
    """The verdict of two things that must both hold: one that denies is enough, the weaker counts.

    >>> of_both("shared", "partly shared"), of_both("unknown", "not shared")
    ('partly shared', 'not shared')
    >>> of_both("shared", "unknown")
    'unknown'
    """
    order = (NOT_SHARED, UNKNOWN, PARTLY, SHARED)
    return min(first, second, key=order.index)


def of_cuts(verdicts: Iterable[str]) -> str:
    """The verdict of several cuts through a tower: one that denies is enough.

    Wiring is the same only if every cut that can tell says so; a cut that cannot tell classes apart
    leaves it to the others; one that finds a part outweighs one that finds all.

    >>> of_cuts(["shared", "unknown"]), of_cuts(["shared", "not shared"]), of_cuts([])
    ('shared', 'not shared', 'unknown')
    """
    said = set(verdicts)
    return next((one for one in (NOT_SHARED, PARTLY, SHARED) if one in said), UNKNOWN)


@dataclass(frozen=True)
class Agreement:
    """How many of several ways to ask a question get the answer of the usual one.

    The usual way itself is not counted. `n` others were taken: `refused` of them have no index,
    `same` of the rest give the usual verdict, and `against` the opposite one. A usual way without
    an index has no answer to agree with.
    """

    n: int
    refused: int
    same: int
    against: int
    usual: str

    @property
    def share(self) -> float:
        """The share that agrees of those that could be judged; NaN where none could."""
        judged = self.n - self.refused
        return self.same / judged if judged and self.usual else np.nan


def agreement_with_usual(rows: pd.DataFrame) -> Agreement:
    """Hold verdicts against that of the usual way, by the columns `default, index, verdict`.

    >>> rows = pd.DataFrame({"default": [True, False, False, False], "index": [0.9, 0.8, 0, None],
    ...                      "verdict": ["shared", "shared", "not shared", "unknown"]})
    >>> told = agreement_with_usual(rows)
    >>> told.share, told.refused, told.against
    (0.5, 1, 1)
    """
    default, known = rows["default"].astype(bool), rows["index"].notna()
    said = rows[default & known]["verdict"]
    usual = str(said.iloc[0]) if len(said) else ""
    others = rows[~default & known]["verdict"]
    opposite = {SHARED: NOT_SHARED, NOT_SHARED: SHARED}.get(usual, "")
    return Agreement(
        int((~default).sum()),
        int((~default & ~known).sum()),
        int((others == usual).sum()),
        int((others == opposite).sum()),
        usual,
    )

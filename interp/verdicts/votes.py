"""Votes: several rows summed up as one verdict if they agree, with who said what."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import CANNOT_TELL, NOT_SHARED, SHARED


@dataclass(frozen=True)
class Votes:
    """The verdict of several rows, with their mean index, its interval, and why.

    The ends of the interval are the means of the rows' ends: right if the rows err together, and
    otherwise too wide, never too narrow. The verdict is that of all rows, or "cannot tell".
    """

    index: float
    low: float
    high: float
    verdict: str
    verdicts: str
    reasons: tuple[str, ...]
    n: int


def count_votes(rows: Any) -> Votes:
    """Sum up rows with the columns `index, index_low, index_high, verdict, reason`.

    >>> rows = pd.DataFrame({"index": [0.8, 0.6], "index_low": [0.7, 0.3], "index_high": [0.9, 0.9],
    ...                      "verdict": ["shared", "cannot tell"], "reason": ["", ""]})
    >>> votes = count_votes(rows)
    >>> votes.verdict, votes.verdicts, round(votes.index, 1)
    ('cannot tell', '1 of 2 shared, 1 of 2 cannot tell', 0.7)
    """
    counted = Counter(rows["verdict"].replace("", CANNOT_TELL))
    verdict = next(iter(counted)) if len(counted) == 1 else CANNOT_TELL
    finite = rows[["index", "index_low", "index_high"]].dropna()
    ends: Any = finite.mean() if len(finite) else pd.Series(math.nan, index=finite.columns)
    return Votes(
        float(ends["index"]),
        float(ends["index_low"]),
        float(ends["index_high"]),
        verdict,
        ", ".join(f"{count} of {len(rows)} {word}" for word, count in counted.most_common()),
        tuple(dict.fromkeys(reason for reason in rows["reason"] if reason)),
        len(rows),
    )


def of_cuts(verdicts: Iterable[str]) -> str:
    """The verdict of several cuts through a tower: one that denies is enough.

    Wiring is the same only if every cut that can tell says so; a cut that cannot tell classes apart
    leaves it to the others.

    >>> of_cuts(["shared", "cannot tell"]), of_cuts(["shared", "not shared"]), of_cuts([])
    ('shared', 'not shared', 'cannot tell')
    """
    said = set(verdicts)
    return next((one for one in (NOT_SHARED, SHARED) if one in said), CANNOT_TELL)

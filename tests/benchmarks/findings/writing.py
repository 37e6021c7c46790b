"""Numbers as docs/findings.md and README have them: differences, correlations, contrasts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import sequence
from interp.report.naming import setting_name
from tests.benchmarks.findings.claims import OPEN, WITHHELD
from tests.benchmarks.findings.tables import asked_blocks, finished_blocks


def points(row: Mapping[str, Any]) -> str:
    """A difference of accuracy in points, with its interval.

    >>> points({"value": 0.214, "low": 0.1272, "high": 0.302})
    '+21.4 [12.7, 30.2]'
    >>> points({"value": -0.0001, "low": -0.01, "high": 0.01})
    '+0.0 [-1.0, 1.0]'
    """
    # 0.0 for what rounds to -0.0
    value, low, high = (round(100 * row[name], 1) + 0.0 for name in ("value", "low", "high"))
    if not np.isfinite(low) or row.get("n_blocks") == 1:  # an interval of these models alone
        return f"{value:+.1f} (one block)"
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def correlation(row: Mapping[str, Any] | pd.Series) -> str:
    """A correlation with its interval.

    >>> correlation({"value": -0.0667, "low": -0.769, "high": 0.7})
    '-.07 [-.77, .70]'
    """
    if not np.isfinite(row["value"]):
        return "–"
    value, low, high = (short(row[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if np.isfinite(row["low"]) else f"{value} [no interval]"


def short(value: float) -> str:
    """A number between -1 and 1 in two digits.

    >>> short(-0.0667), short(1.0)
    ('-.07', '1.00')
    """
    return f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)


def blocks_of(name: str, n: int) -> str:
    """So many blocks, of those that the study was to have."""
    asked = asked_blocks(name)
    return f"{n}" if n == asked else f"{n} of {asked}"


def so_far(words: str, *, of: str = "") -> str:
    """A study's name, or words of another, "so far" while blocks of it are outstanding."""
    whole = finished_blocks(of or words) == asked_blocks(of or words)
    return words if whole else f"{words} so far"


def bold(decision: str) -> str:
    """A decision in bold, or "open".

    >>> bold("holds"), bold("open")
    ('**holds**', 'open')
    """
    return decision if decision in ("", *UNDECIDED) else f"**{decision}**"


UNRELIABLE = "not measurable"
"""What becomes of a correlation whose measure is too unreliable for any."""

UNDECIDED = OPEN, UNRELIABLE, WITHHELD


def in_studies(decisions: Iterable[str]) -> str:
    """Decisions and in how many studies each was come to, the decided ones first.

    >>> in_studies(["open", "holds", "open"]), in_studies(["open", "open"]), in_studies([])
    ('**holds** in 1 of 3, open in 2', 'open in 2 of 2', 'not asked')
    """
    every = list(decisions)
    told = sorted(dict.fromkeys(every), key=UNDECIDED.__contains__)
    parts = [f"{bold(word)} in {every.count(word)}" for word in told]
    return ", ".join([f"{parts[0]} of {len(every)}", *parts[1:]]) if parts else NOT_ASKED


NOT_ASKED = "not asked"
NO_BLOCK = "No block of it is finished."


def spoken(contrast: str) -> str:
    """A mixture or a contrast of two as the page names them, but for "diversity".

    >>> spoken("cg-high − cg-low"), spoken("upper-bound-high")
    ('CG high − CG low', 'upper bound, high')
    """
    names = (setting_name(name).replace(" diversity", "") for name in contrast.split(" − "))
    return " − ".join(names)


def counted(n: int, noun: str) -> str:
    """So many of something.

    >>> counted(1, "block"), counted(2, "class")
    ('1 block', '2 classes')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{'es' if noun.endswith('s') else 's'}"


def units_and_runs(row: Mapping[str, Any] | pd.Series, runs: str = "run") -> str:
    """What a row is over: so many blocks, mixtures or classes, and so many runs.

    >>> units_and_runs({"n_units": 5, "unit": "block", "n_runs": 45}, "model")
    '5 blocks, 45 models'
    """
    return f"{counted(int(row['n_units']), row['unit'])}, {counted(int(row['n_runs']), runs)}"


def claims_in_words(numbers: Sequence[int]) -> str:
    """Claims by their numbers.

    >>> claims_in_words([1, 5]), claims_in_words([1])
    ('claims 1 and 5', 'claim 1')
    """
    said = sequence([str(each) for each in numbers])
    return f"{'claim' if len(numbers) == 1 else 'claims'} {said}"

"""How rows become one verdict: by agreement, or by their mean where none contradicts another."""

import pandas as pd
import pytest

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.verdicts.votes import agreement, count_votes, of_cuts


def rows(*given: tuple[float, float, str, str], p: float = 0.5) -> pd.DataFrame:
    """Rows of an interval's ends, a verdict and a reason."""
    frame = pd.DataFrame(given, columns=["index_low", "index_high", "verdict", "reason"])
    return frame.assign(index=(frame["index_low"] + frame["index_high"]) / 2, p=p)


NARROW, WIDE = (0.3, 0.7, PARTLY, ""), (0.0, 0.8, UNKNOWN, "")
REFUSED = (float("nan"), float("nan"), UNKNOWN, "no room")


def test_the_mean_decides_where_rows_differ_by_width_alone() -> None:
    assert count_votes(rows(NARROW, WIDE)).verdict == PARTLY
    assert count_votes(rows(WIDE, WIDE)).verdict == UNKNOWN
    assert count_votes(rows(NARROW, WIDE), by_mean=False).verdict == UNKNOWN
    high = (0.6, 1.2, SHARED, "")
    assert count_votes(rows(high, (0.45, 1.0, UNKNOWN, ""))).verdict == SHARED


def test_refusals_and_reasons_are_not_outvoted() -> None:
    assert count_votes(rows(NARROW, WIDE, REFUSED)).verdict == PARTLY
    assert count_votes(rows(NARROW, REFUSED, REFUSED)).verdict == UNKNOWN
    held = (0.6, 1.2, UNKNOWN, "one reader may take two codes")
    assert count_votes(rows((0.6, 1.2, SHARED, ""), held)).verdict == UNKNOWN


def test_rows_that_contradict_each_other_have_no_mean() -> None:
    apart, shared = (-0.1, 0.1, NOT_SHARED, ""), (0.7, 1.1, SHARED, "")
    assert count_votes(rows(apart, shared)).verdict == UNKNOWN
    assert count_votes(rows(apart, shared, NARROW)).verdict == UNKNOWN


def test_the_mean_denies_nothing_that_a_row_has_found() -> None:
    given = (-0.1, 0.1, NOT_SHARED, ""), (-0.1, 0.25, UNKNOWN, "")
    assert count_votes(rows(*given)).verdict == NOT_SHARED
    assert count_votes(rows(*given, p=0.01)).verdict == UNKNOWN


@pytest.mark.parametrize(
    ("said", "together", "cuts"),
    [
        ([SHARED, PARTLY], PARTLY, PARTLY),
        ([PARTLY, NOT_SHARED], PARTLY, NOT_SHARED),
        ([SHARED, PARTLY, NOT_SHARED], UNKNOWN, NOT_SHARED),
        ([SHARED, UNKNOWN], UNKNOWN, SHARED),
        ([PARTLY, UNKNOWN], UNKNOWN, PARTLY),
        ([], UNKNOWN, UNKNOWN),
    ],
)
def test_agreement_of_rows_and_of_cuts(said: list[str], together: str, cuts: str) -> None:
    assert (agreement(said), of_cuts(said)) == (together, cuts)

"""The index: its verdict by equivalence, and what it is refused for."""

import numpy as np
import pytest

from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    GEOMETRY,
    Index,
    found_beyond_null,
    sharing_index,
    units_to_decide,
    verdict_of_interval,
)


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.92, "shared"), (0.6, "partly shared"), (0.35, "partly shared"), (0.05, "not shared")],
)
def test_verdict_follows_the_index(value: float, word: str) -> None:
    left_out = [(value + step, 0.0, 1.0) for step in (-0.01, 0.01, -0.005, 0.005)]
    assert sharing_index(value, 0.0, 1.0, left_out=left_out).verdict == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.51, 0.89, "partly shared"),
        (0.51, 0.9, "shared"),
        (0.5, 0.9, "unknown"),
        (0.1, 0.5, "unknown"),
        (0.11, 0.2, "partly shared"),
        (0.11, 0.19, "not shared"),
        (-2.0, 0.19, "not shared"),
        (float("nan"), float("nan"), "unknown"),
    ],
)
def test_four_answers_by_where_the_interval_lies(low: float, high: float, word: str) -> None:
    assert verdict_of_interval(low, high) == word


@pytest.mark.parametrize(
    "ends", [(0.51, 0.89), (0.51, 0.95), (0.15, 0.7), (0.05, 0.19), (0.05, 0.3)]
)
def test_what_grows_with_the_square_has_the_same_answer_at_the_squares(
    ends: tuple[float, float],
) -> None:
    low, high = ends
    assert verdict_of_interval(low**2, high**2, GEOMETRY) == verdict_of_interval(low, high)
    units = [units_to_decide(0.45, 0.0, 0.95, 10, bars) for bars in (AMOUNT, GEOMETRY)]
    assert units[1] < units[0]


@pytest.mark.parametrize(
    ("low", "p", "word"),
    [(0.12, 0.01, "partly shared"), (0.05, 0.01, "unknown"), (0.12, 0.2, "not shared")],
)
def test_what_p_finds_is_not_denied(low: float, p: float, word: str) -> None:
    index = Index(0.15, low, 0.18, "not shared", "")
    assert found_beyond_null(index, p, value=0.35, null=0.2, ceiling=1.2).verdict == word


@pytest.mark.parametrize(
    "ends", [[(0, 0), (0, 0.3), (0, 0.05), (0, 0.25)], [(0.1, 0.15), (-0.1, 0.15)] * 2]
)
def test_index_is_refused_without_room_between_null_and_ceiling(
    ends: list[tuple[float, float]],
) -> None:
    found = sharing_index(0.1, 0.0, 0.15, left_out=[(0.1, *each) for each in ends])
    assert found.verdict == "unknown" and "3 standard errors" in found.reason
    assert np.isnan(found.value)


def test_index_is_refused_with_three_units_or_a_nan() -> None:
    assert "at least 4" in sharing_index(0.5, 0, 1, left_out=[(0.5, 0, 1)] * 3).reason
    bad = [(0.5, 0.0, 1.0)] * 4 + [(0.5, 0.0, np.nan)]
    reason = sharing_index(0.5, 0, 1, left_out=bad).reason
    assert reason == "no ceiling without 1 of 5 units, so no interval"
    reason = sharing_index(np.nan, 0, np.nan, left_out=bad).reason
    assert reason == "no value and no ceiling could be measured"


def test_index_is_refused_where_one_unit_left_out_leaves_no_room() -> None:
    """A share of nothing has no size; the mean room of forty units hides one of them."""
    left_out = [(0.5, 0.0, 1.0)] * 39 + [(0.5, 0.0, 0.0)]
    found = sharing_index(0.5, 0.0, 6.0, left_out=left_out)
    assert found.verdict == "unknown" and "without one of the 40 units" in found.reason

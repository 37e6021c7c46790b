"""The index: its verdict by equivalence, and what it is refused for."""

import numpy as np
import pytest

from interp.core.statistics.index_of_sharing import sharing_index


@pytest.mark.parametrize(
    ("value", "word"), [(0.9, "shared"), (0.05, "not shared"), (0.35, "cannot tell")]
)
def test_verdict_follows_the_index(value: float, word: str) -> None:
    left_out = [(value + step, 0.0, 1.0) for step in (-0.01, 0.01, -0.005, 0.005)]
    assert sharing_index(value, 0.0, 1.0, left_out=left_out).verdict == word


def test_index_is_refused_without_room_between_null_and_ceiling() -> None:
    left_out = [(0.1, 0.0, ceiling) for ceiling in (0.0, 0.3, 0.05, 0.25)]
    found = sharing_index(0.1, 0.0, 0.15, left_out=left_out)
    assert found.verdict == "cannot tell" and "3 standard errors" in found.reason
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
    assert found.verdict == "cannot tell" and "without one of the 40 units" in found.reason

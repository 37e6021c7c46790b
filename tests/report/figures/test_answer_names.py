"""The first figure's points carry their names where these do not cover one another."""

import pandas as pd
import pytest

from interp.report.figures.answer import MOST_NAMED, _names_before, _traces


def test_two_names_of_one_height_stand_on_both_sides() -> None:
    row = {"low": 0.0, "high": 1.0, "index": 0.9, "index_low": 0.85, "index_high": 0.95}
    names = [("upper bound, high diversity", 0.8), ("CG high diversity", 0.75), ("low", 0.4)]
    rows = pd.DataFrame([row | {"name": name, "value": value} for name, value in names])
    assert list(_names_before(rows).values()) == [True, False, True]


def test_the_tip_of_an_interval_is_covered_rather_than_a_name() -> None:
    """Of the strong study, with five blocks: left of its interval one name would cover another."""
    named = {
        "upper bound, high diversity": (0.7525, 0.6499, 0.8551, 0.8929, 0.8091, 0.9767),
        "CG high diversity, aligned captions": (0.6175, 0.5172, 0.7178, 0.9095, 0.8379, 0.9812),
        "CG high diversity": (0.515, 0.3734, 0.6566, 0.8917, 0.8094, 0.974),
        "leave-out-domain": (0.4875, 0.3572, 0.6178, 0.8352, 0.7147, 0.9558),
        "CG low diversity": (0.09, 0.0129, 0.1671, 0.8788, 0.8011, 0.9565),
    }
    columns = ["value", "low", "high", "index", "index_low", "index_high"]
    rows = pd.DataFrame(named.values(), columns=columns).assign(name=list(named))
    assert list(_names_before(rows).values()) == [True, False, True, False, True]


@pytest.mark.parametrize("n", [MOST_NAMED, MOST_NAMED + 1])
def test_names_stand_beside_a_few_points_and_not_beside_many(n: int) -> None:
    rows = pd.DataFrame(
        {"name": f"mixture {k}", "colour": "#000", "symbol": "circle", "test_domain": "sketch",
         "index": 0.5, "index_low": 0.4, "index_high": 0.6, "value": k / 10, "low": 0.0,
         "high": 1.0}
        for k in range(n)
    )  # fmt: skip
    traces = _traces(rows, 0)
    named = [trace["text"] for trace in traces if trace["mode"] == "text"]
    assert len(named) == (n if n <= MOST_NAMED else 0)
    assert sum(trace["mode"] == "markers" for trace in traces) == n

"""The first figure's points carry their names where these do not cover one another."""

import pandas as pd
import pytest

from interp.report.figures.answer import MOST_NAMED, _names_before, _traces


def test_two_names_of_one_height_stand_on_both_sides() -> None:
    row = {"low": 0.0, "high": 1.0, "index": 0.9, "index_low": 0.85, "index_high": 0.95}
    names = [("upper bound, high diversity", 0.8), ("CG high diversity", 0.75), ("low", 0.4)]
    rows = pd.DataFrame([row | {"name": name, "value": value} for name, value in names])
    assert list(_names_before(rows).values()) == [True, False, True]


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

"""What runs took, beside what was foretold."""

import json

import pytest

from interp.study.forecasting import PICTURES_PER_SECOND
from tests.benchmarks.findings import tables as findings_tables
from tests.benchmarks.findings.costs import costs_table, forecast_minutes, minutes


def test_costs_are_minutes_of_runs_beside_a_forecast_of_as_many() -> None:
    folder = findings_tables.LARGE / "weak"
    noted = [json.loads(path.read_text()) for path in folder.glob("*/run.json")]
    took = [about["minutes"] for about in noted if "minutes" in about]
    assert len(took) >= 24
    assert len(took) == len(minutes("weak"))
    assert sum(minutes("weak")) == pytest.approx(sum(took))
    # 23 runs of a block, natural pictures alone once for both domains, make 24 folders
    shown = 23 * 1000 * 128 / PICTURES_PER_SECOND / 60
    assert forecast_minutes("weak") == pytest.approx(shown / 24, rel=0.4)
    [row] = [line for line in costs_table().splitlines() if line.startswith("| weak |")]
    assert f"{sum(took) / len(took) / forecast_minutes('weak'):.2f}" in row

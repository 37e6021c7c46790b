"""Which comes first over training: the lines that are there, their bars, and the answer before."""

import pandas as pd
import pytest

from interp.report.figures.over_training import OVER_TRAINING
from interp.report.gists import gist
from interp.report.loaded import read_result
from interp.verdicts.levels.over_training import HELD_OUT, SEEN
from tests.report.conftest import Build, figure_of

LEADS = {"R2": (0.4, 0.1, 0.7), "R3": (-0.3, -0.5, -0.1), "R4": (0.1, -0.2, 0.4)}


def course() -> pd.DataFrame:
    """Three rungs and both accuracies, at a third of training and at its end."""
    rows = []
    for name, (lead, low, high) in (*LEADS.items(), (HELD_OUT, (0, 0, 0)), (SEEN, (0.2, 0, 0.4))):
        rung = name if name in LEADS else ""
        measure = "debiased CKA" if rung else name
        for trained in (1 / 3, 1.0):
            value = 0.4 + lead if trained < 1 else 1.0
            ahead = {"lead": lead, "lead_low": low, "lead_high": high} if trained < 1 else {}
            rows.append(
                {"rung": rung, "measure": measure, "trained": trained, "value": value}
                | {"low": value - 0.1, "high": value + 0.1, "ceiling": 1.0, "null": 0.0, **ahead}
                | {"unit": "block", "n_units": 4, "n_runs": 40, "reason": ""}
            )
    return pd.DataFrame(rows)


def test_each_rung_has_a_line_and_the_answer_names_who_leads(build: Build) -> None:
    result = read_result(build(replaced={"lead_and_lag": course()}))
    progress, ahead = figure_of(result, "over-training"), figure_of(result, "lead-and-lag")
    assert progress is not None and ahead is not None
    drawn = {trace["name"]: trace for trace in progress.data if len(trace["x"])}
    assert len(drawn) == 5 and {HELD_OUT, SEEN} < set(drawn)
    assert list(drawn[HELD_OUT]["y"]) == [0.4, 1.0]
    leads = {trace["name"][:2]: trace for trace in ahead.data if len(trace["x"])}
    assert set(leads) == set(LEADS)
    for name, (lead, _, high) in LEADS.items():
        assert list(leads[name]["y"]) == [lead]
        assert leads[name]["error_y"]["array"] == pytest.approx([high - lead])
    assert "40" in progress.caption and "block" in progress.caption
    said = gist(result, OVER_TRAINING)
    assert said == (
        "After 33 % of training, against accuracy on held-out classes: R2 ahead; R3 behind; "
        "R4 open."
    )


def test_without_earlier_epochs_there_is_no_section(build: Build) -> None:
    result = read_result(build())
    assert figure_of(result, "over-training") is None and gist(result, OVER_TRAINING) == ""

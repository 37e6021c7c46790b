"""What the runs of the large study took, beside what was forecast."""

import json

from interp.study.forecasting import cost_of_study
from interp.study.specification import Specification
from tests.benchmarks.findings.tables import (
    INTERVENED,
    LARGE,
    STUDIES,
    finished_blocks,
    runs,
    runs_of_a_block,
)
from tests.benchmarks.recovering import markdown


def costs_table() -> str:
    """Minutes of the runs that were made in one go, study by study, beside the forecast of as many.

    The forecast is that of a block before anything is trained, without a rehearsal, in shares of a
    run. Of runs of finished blocks; those of before minutes were noted, and those that were broken
    off and went on, have none.
    """
    rows = []
    for name in STUDIES:
        known = minutes(name)
        if known:
            forecast = len(known) * forecast_minutes(name)
            rows.append(
                [
                    name,
                    f"{len(known)} of {len(finished_runs(name))}",
                    f"{sum(known):.0f}",
                    f"{forecast:.0f}",
                    f"{sum(known) / forecast:.2f}",
                ]
            )
    return markdown(["study", "runs counted", "minutes", "forecast", "ratio"], rows)


def finished_runs(name: str) -> list[str]:
    """The folders of the runs of a study's finished blocks."""
    done = finished_blocks(name)
    return [run for run, block in runs(name).items() if block < done]


def minutes(name: str) -> list[float]:
    """What each finished run took on two cores, training and measuring, where it is known."""
    noted = (
        json.loads((LARGE / STUDIES[name] / run / "run.json").read_text(encoding="utf-8"))
        for run in finished_runs(name)
    )
    return [about["minutes"] for about in noted if "minutes" in about]


def forecast_minutes(name: str) -> float:
    """What a run of a study was forecast to take on two cores."""
    spec = Specification.from_toml(LARGE / f"{name}.toml")
    cost = cost_of_study(spec, blocks=[0], measuring=name not in INTERVENED)
    assert cost.minutes is not None
    n = runs_of_a_block(name) * len(spec.architectures)
    return cost.minutes / n

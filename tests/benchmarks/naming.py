"""How often heads and MLPs of planted models are named right: every condition, three ways to read.

Counts are kept in `names.csv`, so that the tables can be made again. Blueprints 0 to 19 served to
develop; the tables are of those after.
"""

import os
from pathlib import Path

import pandas as pd

from interp.circuits.planted.conditions import CONDITIONS
from interp.circuits.planted.vit import Blueprint
from interp.core.progress import track
from tests.benchmarks.head_names import READINGS, score_names, tally
from tests.benchmarks.recovering import markdown

TALLIES = Path(__file__).with_name("names.csv")
FIRST, DOSE = 20, 0.5
"""The first blueprint that nothing was developed on, and the dose of conditions that have one."""


def head_names(n: int | None = None) -> str:
    """Two tables: by reading, and by condition as planted.

    With `n` (`BLUEPRINTS`) so many blueprints of every condition are named first.
    """
    asked = n if n is not None else int(os.environ.get("BLUEPRINTS", "0"))
    if asked:
        made = [
            Blueprint(condition, seed=seed, dose=DOSE if lanes.dosed else None)
            for condition, lanes in CONDITIONS.items()
            for seed in range(FIRST, FIRST + asked)
        ]
        found = [score_names(each, how) for each in track(made, "name heads") for how in READINGS]
        tally(pd.concat(found)).to_csv(TALLIES, index=False)
    counts = pd.read_csv(TALLIES)
    planted = counts[counts["reading"] == READINGS[0]]
    return f"{table(counts, 'reading')}\n\n{table(planted, 'condition')}"


def table(counts: pd.DataFrame, by: str) -> str:
    """A row for each reading or condition: the names of who writes classes, and of who does not."""
    rows = []
    for name, own in counts.groupby(by, sort=False):
        n, in_any = own.sum(numeric_only=True), int((own["false"] > 0).sum())
        rows.append([
            name, _share(n["right"], n["writing"]), _share(n["wrong"], n["writing"]),
            _share(n["false"], n["others"]), _share(in_any, len(own)),
        ])  # fmt: skip
    head = [by, "writers named right", "named wrong", "others named"]
    return markdown([*head, "domains of models with such a name"], rows)


def _share(part: float, whole: float) -> str:
    return f"{part:.0f} of {whole:.0f} ({part / whole:.1%})"

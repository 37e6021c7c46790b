"""What is open among the findings of the large study, and what would decide it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from tests.benchmarks.findings import WORTH, accuracy_findings
from tests.benchmarks.findings_written import counted, points


def still_open(
    answers: Mapping[str, pd.DataFrame], studies: Mapping[str, Mapping[str, pd.DataFrame]]
) -> str:
    """What is open, and what would decide it."""
    said = []
    for name, own in answers.items():
        family = accuracy_findings(own)
        for row in family[family["decision"] == "open"].to_dict("records"):
            what = f"- *{row['says']}* ({name}, {counted(row['n_blocks'], 'block')})"
            if not np.isfinite(row["degrees"]):
                said.append(f"{what}: a second block, for a spread over blocks.")
                continue
            reach = (row["high"] - row["low"]) / 2
            n = blocks_for(row["value"], reach, row["n_blocks"], row["degrees"], len(family))
            wanted = f"about {n} blocks" if n else f"more than {MOST} blocks"
            said.append(f"{what}: {points(row)}; {wanted}.")
        levels = studies[name].get("levels", pd.DataFrame(columns=["level", "adjusted", "verdict"]))
        for row in levels.query("adjusted == '' and verdict == 'cannot tell'").to_dict("records"):
            needed = f"; needed: {row['needed']}" if row["needed"] else ""
            what = f"{row['level']}, {row['rung']} {row['measure']}"
            said.append(f"- *{what}* ({name}): {row['reason']}{needed}.")
    return "\n".join(said)


MOST = 100
"""Blocks beyond which nobody would go."""


def blocks_for(value: float, reach: float, n: int, degrees: float, claims: int) -> int:
    """How many blocks decide a claim: it is told from 0, or its interval from what is worth having.

    Runs are taken to spread as they did, and the value to be right. From 0 it is told at 5 % over
    the number of claims, as Holm does the first of them. 0 where no number suffices.

    >>> blocks_for(0.2, 0.2, 2, 8, 1), blocks_for(0.2, 0.2, 2, 8, 6)
    (3, 4)
    >>> blocks_for(0.0, 0.1, 4, 24, 6), blocks_for(0.045, 0.14, 2, 8, 6)
    (15, 26)
    """
    error = reach / float(stats.t.ppf(0.975, degrees)) * np.sqrt(n)
    for more in range(n + 1, MOST + 1):
        then, spread = degrees / (n - 1) * (more - 1), error / np.sqrt(more)
        told = abs(value) > spread * stats.t.ppf(1 - 0.025 / claims, then)
        if told or value + spread * stats.t.ppf(0.975, then) < WORTH:
            return more
    return 0

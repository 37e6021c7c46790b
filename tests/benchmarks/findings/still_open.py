"""What is open among the findings of the large study, and what would decide it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.statistics.index_of_sharing import CANNOT_TELL
from tests.benchmarks.findings.accuracy import at_floor
from tests.benchmarks.findings.claims import (
    DENIED,
    OPEN,
    OPPOSITE,
    WORTH,
    WORTH_CAUSED,
    planned,
    the_claim,
)
from tests.benchmarks.findings.writing import NOT_ASKED, UNDECIDED, blocks_of, so_far
from tests.benchmarks.recovering import markdown


def open_claims(found: Mapping[str, pd.DataFrame], answers: Mapping[str, pd.DataFrame]) -> str:
    """Blocks that would decide every claim that is open, study by study, and what is at chance."""
    said = []
    for name, family in planned(found).items():
        tests = len(family) - int(family["decision"].isin(OUT_OF_FAMILY).sum())
        still = family[family["decision"] == OPEN].to_dict("records")
        needed = [
            f"claim {row['number']} {_blocks(row, tests)}{at_floor(answers[name], row['number'])}"
            for row in still
        ]
        if needed:
            has = blocks_of(name, family["n_blocks"].max())
            said.append(f"- *{name}*, which has {has}: {'; '.join(needed)}.")
    return "\n".join(said) or "No claim is open."


OUT_OF_FAMILY = "holds", OPPOSITE
"""Decisions that a claim leaves Holm's family by: the others are tested as if it were not there."""


def _blocks(row: Mapping[str, Any], tests: int) -> str:
    if not np.isfinite(row["degrees"]):
        return "a second, for a spread"
    reach = (row["high"] - row["low"]) / 2
    n, told = blocks_for(row["value"], reach, row["n_blocks"], row["degrees"], tests)
    return f"about {n} (then {told})" if n else f"more than {MOST}"


def open_links(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """What would decide every link of sharing to accuracy: a row per level and rung."""
    asked = {
        name: own["levels"].query("adjusted == ''")
        for name, own in studies.items()
        if "levels" in own
    }
    cells: dict[str, dict[str, str]] = {}
    for level in ("L1", "L2", "L3"):
        for name, levels in asked.items():
            for row in levels[levels["level"] == level].to_dict("records"):
                told = so_far(DECIDED, of=name) if row["verdict"] != CANNOT_TELL else row["needed"]
                what = f"{level}, {row['rung']} {row['measure']}"
                cells.setdefault(what, {})[name] = told
    return _side_by_side("what would decide", asked, asked, cells)


def open_cause(studies: Mapping[str, pd.DataFrame]) -> str:
    """Why "because" is open, what would decide it, and how wide intervals are, study by study."""
    said = []
    for name, rows in studies.items():
        row = the_claim(rows)
        if row["decision"] not in UNDECIDED:
            continue
        blocks, reach = row["n_runs"] // 2, (row["high"] - row["low"]) / 2  # a run of each arm
        needed = int(np.ceil(blocks * (reach / WORTH_CAUSED) ** 2))
        more = f", where {WORTH_CAUSED * 100:.0f} points take at least {needed} blocks"
        said.append(
            f"- *{name}*: {row['reason']}. It takes {row['needed']}. The interval of held-out "
            f"classes reaches {100 * reach:.1f} points to either side with {blocks} blocks"
            f"{more if needed > blocks else ''}."
        )
    return "\n".join(["*Does sharing cause it?*", "", *said]) if said else ""


def _side_by_side(
    corner: str,
    heads: Iterable[str],
    studies: Iterable[str],
    cells: Mapping[str, Mapping[str, str]],
) -> str:
    names = list(studies)
    rows = [[what, *(own.get(name, NOT_ASKED) for name in names)] for what, own in cells.items()]
    return markdown([corner, *heads], rows)


DECIDED = "decided"

MOST = 100
"""Blocks beyond which nobody would go."""


def blocks_for(value: float, reach: float, n: int, degrees: float, tests: int) -> tuple[int, str]:
    """After how many blocks a claim is decided with even odds, and how, if its value is right.

    It is told from 0, or its interval from what is worth having. Runs are taken to spread as they
    did. From 0 it is told at 5 % over the number of claims that are not told yet, as Holm does the
    first of them. 0 where no number suffices.

    >>> blocks_for(0.2, 0.2, 2, 8, 1), blocks_for(0.2, 0.2, 2, 8, 6)
    ((3, 'holds'), (4, 'holds'))
    >>> blocks_for(0.0, 0.1, 4, 24, 6), blocks_for(0.045, 0.14, 2, 8, 6)
    ((15, 'does not hold'), (26, 'holds'))
    """
    error = reach / float(stats.t.ppf(0.975, degrees)) * np.sqrt(n)
    for more in range(n + 1, MOST + 1):
        then, spread = degrees / (n - 1) * (more - 1), error / np.sqrt(more)
        if abs(value) > spread * stats.t.ppf(1 - 0.025 / tests, then):
            return more, "holds" if value > 0 else OPPOSITE
        if value + spread * stats.t.ppf(0.975, then) < WORTH:
            return more, DENIED
    return 0, ""

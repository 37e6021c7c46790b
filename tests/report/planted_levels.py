"""Planted tables of the verdict across checkpoints: what is decided, what is not, and its cells."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.verdicts.wording import licence

SAID: dict[str, tuple[str, float, float, float]] = {
    "L1": ("goes together", 0.81, 0.52, 0.93),
    "L2": ("unknown", 0.2, -0.3, 0.6),
    "L3": ("does not go together", 0.02, -0.1, 0.14),
}
MIXTURES = ("natural-only", "cg-low", "cg-high", "cg-high, 2 domains", "<b>other</b>")
RUNGS = (("R2", "debiased CKA"), ("R3", "cosine of mean differences"))


def level_tables(
    said: Mapping[str, tuple[str, float, float, float]] = SAID,
) -> dict[str, pd.DataFrame]:
    """The tables `levels` and `together` of a study with these verdicts by every rung."""
    return {"levels": _levels(said), "together": _together()}


def _levels(said: Mapping[str, tuple[str, float, float, float]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for level, (verdict, value, low, high) in said.items():
        for rung, measure in RUNGS if level != "L3" else (("R3", "cosine of a class"),):
            for adjusted in ("", "accuracy of seen classes") if level in ("L1", "L2") else ("",):
                told = "unknown" if adjusted else verdict
                open_ = told == "unknown"
                rows.append(
                    {"level": level, "rung": rung, "measure": measure, "adjusted": adjusted}
                    | {"value": value, "low": low, "high": high, "p": 0.01, "p_adjusted": 0.02}
                    | {"unit": "mixture", "n_units": 12, "n_runs": 72, "verdict": told}
                    | {"licence": licence(level, told), "gain": -0.1, "null": 0.0}
                    | {"reason": "the interval holds both 0 and |r| = 0.3" if open_ else ""}
                    | {"needed": "16 blocks" if open_ else "", "reliability": 0.9}
                )
    return pd.DataFrame(rows)


def _together() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"setting": setting, "test_domain": domain, "rung": rung, "measure": measure}
            | {"index": index, "index_low": index - 0.05, "index_high": index + 0.05}
            | {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "unit": "block", "n_runs": 3}
            | {"accuracy_high": accuracy + 0.1, "reason": ""}
            for rung, measure in RUNGS
            for n, setting in enumerate(MIXTURES)
            for m, domain in enumerate(("sketch", "quickdraw"))
            for index, accuracy in [(0.2 + 0.12 * n + 0.03 * m, 0.1 + 0.15 * n - 0.02 * m)]
        ]
    )

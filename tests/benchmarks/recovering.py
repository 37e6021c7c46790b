"""Tables of how well circuits of planted models are found: for README, from `recover`'s cells."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from interp.circuits.planted.conditions import WAYS
from interp.core.seeds import rng

MODEL = ["condition", "tier", "dose", "seed"]


def by_condition(cells: pd.DataFrame) -> str:
    """A row for each condition and tier: the mean AUROC of each method, and the lowest."""
    methods = [name for name in WAYS if name in set(cells["method"])]
    lines = []
    for (condition, tier), rows in cells.groupby(["condition", "tier"], sort=False):
        n = len(rows.drop_duplicates(MODEL))
        texts = [_mean_and_lowest(rows[rows["method"] == name]["auroc"]) for name in methods]
        lines.append([condition, tier, n, *texts])
    return markdown(["condition", "tier", "n", *methods], lines)


def _mean_and_lowest(auroc: pd.Series) -> str:
    return f"{auroc.mean():.2f} ({auroc.min():.2f})" if len(auroc) else "–"


def overall(cells: pd.DataFrame) -> str:
    """A row for each method: the mean AUROC with its interval, and how many circuits reach the bar.

    The interval holds 95 % of 1,000 draws of planted models, both domains of each.
    """
    lines = []
    for method in WAYS:
        for unit, own in cells[cells["method"] == method].groupby("unit"):
            low, high = _interval(own)
            asked = own.dropna(subset=["least"])
            reached = (asked["auroc"] >= asked["least"]).sum()
            bar = f"{asked['least'].iloc[0]:g}" if len(asked) else "–"
            lines.append([
                *(method, f"{unit}s", f"{own['auroc'].mean():.3f} [{low:.3f}, {high:.3f}]"),
                *(str(len(own)), bar, f"{reached} of {len(asked)}" if len(asked) else "–"),
                *(f"{own['auroc'].min():.2f}", str(len(own) - len(asked)) if len(asked) else "all"),
            ])  # fmt: skip
    head = ["method", "of", "AUROC", "circuits", "bar", "reached", "lowest", "declared blind"]
    return markdown(head, lines)


def _interval(own: pd.DataFrame) -> tuple[float, float]:
    means = own.groupby(MODEL, dropna=False)["auroc"].mean().to_numpy()
    generator = rng("recovery of circuits", 0)
    drawn = means[generator.integers(len(means), size=(1000, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])

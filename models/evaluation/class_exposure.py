"""Correlation of a class's accuracy with how often the class was trained on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.core.errors import DataError, listed
from interp.core.statistics.association import spearman
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.resampling import Interval
from interp.core.tables import rows_by
from interp.models.evaluation.predictions import ALL, HELD_OUT, SEEN

EVERYWHERE, NATURAL = "all domains", "natural"
SAME = "every class was trained on equally often"


def exposures(
    by_class: pd.DataFrame, trained_on: pd.DataFrame, *, natural: str = "real"
) -> pd.DataFrame:
    """Each class's accuracy in each domain beside the number of training pictures of that class.

    Args:
        by_class: `accuracy_by_class` of one model.
        trained_on: Columns `label, domain, n_pictures`, a row per cell of the model's mixture; a
            cell that is absent was not trained on.
        natural: The natural domain.

    Returns:
        The rows of `by_class` twice, with `exposure` counted in all domains and in the natural one
        alone, as `exposed_in` says.

    Raises:
        DataError: If `trained_on` lacks a column.
    """
    missing = [c for c in ("label", "domain", "n_pictures") if c not in trained_on]
    if missing:
        raise DataError(
            "count what a class was trained on",
            f"a table without {listed(missing)}",
            "the columns label, domain, n_pictures",
            "pass the counts of the mixture's manifest",
        )
    parts = []
    for name, cells in (
        (EVERYWHERE, trained_on),
        (NATURAL, trained_on[trained_on["domain"] == natural]),
    ):
        seen = cells.groupby("label")["n_pictures"].sum()
        times = by_class["label"].map(seen).fillna(0).astype(int)
        parts.append(by_class.assign(exposure=times, exposed_in=name))
    return pd.concat(parts, ignore_index=True)


def exposure(classes: pd.DataFrame, *, keys: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Spearman correlation over classes of accuracy with exposure, for each class set.

    Args:
        classes: What `exposures` returns, for one model or several.
        keys: Columns that tell models apart, such as setting, test_domain, seed.
        seed: Seed of the permutations.

    Returns:
        A row per model, domain, question, `exposed_in` and class set. The interval is a class
        jackknife; p permutes exposures over whole classes; the null is 0.

    Notes:
        Held-out classes differ from seen ones in more than their number, so each kind is also
        looked at alone. The result is a correlation: exposure was not assigned at random.
    """
    cell = [*keys, "domain", "prompts", "classifier", "candidates", "exposed_in"]
    rows = []
    value, times, n_pictures, kinds = (
        classes[name].to_numpy() for name in ("value", "exposure", "n_pictures", "class_set")
    )
    for values, rows_of in rows_by(classes, cell, dropna=False):
        for class_set in (ALL, HELD_OUT, SEEN):
            own = rows_of if class_set == ALL else rows_of[kinds[rows_of] == class_set]
            if len(own) and not (class_set != ALL and len(own) == len(rows_of)):
                correlation = spearman(value[own], times[own], seed=seed)
                reason = SAME if np.ptp(times[own]) == 0 else correlation.reason
                rows.append(
                    {
                        **dict(zip(cell, values, strict=True)),
                        "class_set": class_set,
                        "measure": "Spearman of accuracy and exposure",
                        **evidence(
                            Interval(correlation.value, np.nan, correlation.low, correlation.high),
                            null=0.0,
                            null_kind="exposures permuted over classes",
                            ceiling=1.0,
                            ceiling_kind="the same order",
                            index=correlation.value,
                            p=correlation.p,
                            unit="class",
                            n_units=correlation.n,
                            n_pictures=int(n_pictures[own].sum()),
                            estimand="this model, over classes like these",
                            seed=seed,
                            reason=reason,
                        ),
                    }
                )
    return pd.DataFrame(rows)

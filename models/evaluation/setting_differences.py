"""Differences in accuracy between training distributions, on the same classes and blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from interp.core.errors import SpecificationError
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.replication import ONE_BLOCK, mean_t, replicated
from interp.core.statistics.resampling import holm, sign_flip_p
from interp.models.evaluation.accuracies import TOP_1

CELL = ["test_domain", "domain", "prompts", "classifier", "candidates"]
"""What two settings must have in common to be compared."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of settings whose weights add up to 0.

    Args:
        name: Its name in tables.
        weights: The weight of each setting.

    >>> Contrast.between("cg-high", "cg-low").name
    'cg-high − cg-low'
    >>> Contrast("gain", {"cg-high": 1.0, "cg-low": -0.5, "natural-only": -0.5}).name
    'gain'
    """

    name: str
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        total = sum(self.weights.values())
        if abs(total) > 1e-9 or not any(self.weights.values()):
            raise SpecificationError(
                f"compare settings by {self.name!r}",
                f"weights that add up to {total:g}",
                "weights that add up to 0, not all of them 0",
                "mend the weights",
            )

    @classmethod
    def between(cls, better: str, worse: str) -> "Contrast":
        """One setting minus another."""
        return cls(f"{better} − {worse}", {better: 1.0, worse: -1.0})


def differences(
    by_class: pd.DataFrame,
    contrasts: Sequence[tuple[str, str] | Contrast],
    *,
    family: str = "contrasts of settings",
    seed: int = 0,
) -> pd.DataFrame:
    """Paired contrasts of balanced top-1 between settings, over the same classes and blocks.

    Args:
        by_class: `accuracy_by_class` with the columns `setting`, `test_domain` and `seed` (the
            block), and only the classes and domain in question.
        contrasts: Contrasts, or pairs of a setting and the one subtracted.
        family: Name of the family over which p is adjusted.
        seed: Seed of intervals and sign flips.

    Returns:
        A row per contrast and question. The value is the mean over blocks and classes of each
        class's contrast. `p_adjusted` is Holm's over the family.

    Notes:
        Intervals count classes and blocks as samples (`interp.core.statistics.replication`):
        crossed, or nested where blocks held out their own classes. p flips the signs of whole
        classes and leaves blocks as they are. The family is all contrasts and test domains with the
        same prompts, classifier and candidates. With one block, the result is about these models
        alone.
    """
    asked = _plain(by_class)
    known = [one if isinstance(one, Contrast) else Contrast.between(*one) for one in contrasts]
    rows = [
        {
            "setting": contrast.name,
            **dict(zip(CELL, cell, strict=True)),
            **_row(gaps, contrast, seed),
        }
        for contrast in known
        for cell, gaps in _gaps(asked, contrast).groupby(CELL, sort=True)
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    question = frame.groupby(["prompts", "classifier", "candidates"], sort=False)["p"]
    size = question.transform("count").astype(int)
    return frame.assign(
        p_adjusted=question.transform(lambda p: holm(p.to_numpy())),
        family=[f"{family}: {n} test{'' if n == 1 else 's'}" for n in size],
    )


def _plain(by_class: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained models; tables without a `classifier` column are of the text head."""
    frame = by_class if "classifier" in by_class else by_class.assign(classifier="text")
    if "control" in frame:
        frame = frame[frame["control"] == ""]
    return frame.fillna({"prompts": "", "classifier": "text"})


def _gaps(by_class: pd.DataFrame, contrast: Contrast) -> pd.DataFrame:
    """The contrast for every class and block in which all of its settings answered."""
    keys = [*CELL, "label", "seed"]
    parts = by_class[by_class["setting"].isin([*contrast.weights])]
    wide = parts.pivot(index=keys, columns="setting", values="value")
    pictures = parts.groupby(keys)["n_pictures"].max()
    if set(contrast.weights) - set(wide.columns):
        return pd.DataFrame(columns=[*keys, "gap", "n_pictures"])
    weighted = sum(wide[name] * weight for name, weight in contrast.weights.items() if weight)
    return wide.assign(gap=weighted, n_pictures=pictures).dropna(subset=["gap"]).reset_index()


def _row(gaps: pd.DataFrame, contrast: Contrast, seed: int) -> dict[str, object]:
    estimate = replicated({int(block): part.set_index("label")["gap"]  # type: ignore[call-overload]
                        for block, part in gaps.groupby("seed")})  # fmt: skip
    settings = sum(1 for weight in contrast.weights.values() if weight)
    one = estimate.n_blocks == 1
    models = "these models" if settings != 2 else "these two models"
    return {"measure": f"difference of {TOP_1}"} | evidence(
        estimate.interval,
        null=0.0,
        null_kind="signs flipped over whole classes",
        ceiling_kind="none: a difference of accuracies has no ceiling",
        index=np.nan,
        p=sign_flip_p(gaps["gap"], gaps["label"], seed=seed),
        unit=estimate.unit,
        n_units=estimate.n_units,
        n_pictures=int(gaps["n_pictures"].sum()),
        n_runs=settings * estimate.n_blocks,
        seed=seed,
        reason=estimate.reason if estimate.n_units > 1 else "one class: no interval",
        estimand=f"{models}, over classes like these"
        if one
        else "models of these settings, over classes and blocks like these",
    )


def over_blocks(by_class: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Balanced top-1 of every setting over all its blocks, in the form of `accuracy` tables.

    Args:
        by_class: `accuracy_by_class` of all models, with `setting`, `test_domain`, `seed` and
            `class_set`, which matters where held-out classes differ between blocks.
        seed: Seed of the bootstrap.

    Returns:
        A row per setting, question and class set.
    """
    keys = ["setting", *CELL, "class_set"]
    rows = []
    for cell, part in _plain(by_class).groupby(keys, sort=False):
        estimate = replicated({int(block): one.set_index("label")["value"]  # type: ignore[call-overload]
                            for block, one in part.groupby("seed")})  # fmt: skip
        null = float(part["null"].mean()) if "null" in part else np.nan
        spread = estimate.interval
        within = replace(spread, low=max(spread.low, 0.0), high=min(spread.high, 1.0))
        row = evidence(
            within,
            null=null,
            null_kind="chance among the candidates",
            ceiling=1.0,
            ceiling_kind="every picture",
            index=(spread.value - null) / (1 - null),
            unit=estimate.unit,
            n_units=estimate.n_units,
            n_pictures=int(part["n_pictures"].sum()),
            n_runs=estimate.n_blocks,
            seed=seed,
            reason=estimate.reason if estimate.n_units > 1 else "one class: no interval",
            estimand="this model, over classes like these"
            if estimate.unit == ONE_BLOCK
            else "models of this setting, over classes and blocks like these",
        )
        rows.append({**dict(zip(keys, cell, strict=True)), "measure": TOP_1, **row, "control": ""})
    return pd.DataFrame(rows)


def run_means(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The mean over blocks of every measure but top-1, with Student's t over the blocks.

    Args:
        accuracy: The accuracy table of all models.

    Returns:
        Rows in the form of `over_blocks`, of unit "block".

    Notes:
        This is for measures that are no mean over classes, such as macro-F1 and the area of the
        trade-off: the block is the sample.
    """
    keys = ["setting", *CELL, "class_set", "measure"]
    rows = []
    trained = accuracy[(accuracy["measure"] != TOP_1) & (accuracy["control"] == "")]
    for cell, part in trained.groupby(keys, sort=False):
        by_block = part.groupby("seed")[["value", "null", "n_pictures"]].mean()
        spread = mean_t(by_block["value"].to_numpy())
        null, ceiling = float(by_block["null"].mean()), float(part["ceiling"].iloc[0])
        row = evidence(
            spread,
            null=null,
            null_kind=part["null_kind"].iloc[0],
            ceiling=ceiling,
            ceiling_kind=part["ceiling_kind"].iloc[0],
            index=(spread.value - null) / (ceiling - null),
            unit="block",
            n_units=len(by_block),
            n_pictures=int(part["n_pictures"].sum()),
            n_runs=len(by_block),
            seed=int(part["seed"].min()),
            reason="" if len(by_block) > 1 else "one block: no interval",
            estimand="models of this setting, over blocks like these",
        )
        rows.append({**dict(zip(keys, cell, strict=True)), **row, "control": ""})
    return pd.DataFrame(rows)

"""Differences in accuracy between training distributions, on the same classes and blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from interp.core.errors import SpecificationError, sequence
from interp.core.faces.doors import door
from interp.core.statistics.crossed_model import CELL as ANSWERS
from interp.core.statistics.crossed_model import contrast_of_settings, whole_blocks
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.replication import ONE_BLOCK, mean_t, replicated_rows
from interp.core.statistics.resampling import group_means, holm
from interp.core.tables import rows_by
from interp.models.evaluation.accuracy import TOP_1

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
            asked = f"compare settings by {self.name!r}"
            given = f"weights that add up to {total:g}"
            right = "weights that add up to 0, not all of them 0"
            raise SpecificationError(asked, given, right, "mend the weights")

    @classmethod
    def between(cls, better: str, worse: str) -> "Contrast":
        """One setting minus another."""
        return cls(f"{better} − {worse}", {better: 1.0, worse: -1.0})


@door
def differences(
    by_class: pd.DataFrame,
    contrasts: Sequence[tuple[str, str] | Contrast],
    *,
    family: str = "contrasts of settings",
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Contrasts of balanced top-1 between settings, by one crossed model of all their runs.

    Args:
        by_class: `accuracy_by_class` with the columns `setting`, `test_domain` and `seed` (the
            block), and only the classes and domain in question. All its settings lend their spread,
            those of no contrast too. A column `run`, where there is one, names the trained model:
            one that answers for several test domains counts once.
        contrasts: Contrasts, or pairs of a setting and the one subtracted.
        family: Name of the family over which p is adjusted.
        kinds: The kind of a setting by name, "" for others, such as upper bounds, whose held-out
            classes were trained on. Only settings of one kind share a spread over blocks.
        seed: Written into the rows; nothing is drawn.

    Returns:
        A row per contrast and question: of all test domains, averaged, and then of each. The value
        is the mean over blocks, test domains and classes of each class's contrast. `p_adjusted` is
        Holm's over the family. `paired_low`, `paired_high` and `paired_p` are the plain t of the
        contrast's own blocks, beside it.

    Raises:
        SampleError: If the settings of a contrast have no class of a block in common.

    Notes:
        `interp.core.statistics.crossed_model` has the model: setting fixed; block, setting x block
        and class within block random. p and interval are one t. With one block there is no p, and
        the interval is over the classes of these models alone.

    >>> rows = [{"setting": name, "test_domain": "sketch", "domain": "sketch", "label": label,
    ...          "prompts": "", "candidates": "all", "seed": block, "n_pictures": 9,
    ...          "value": 0.1 * block + 0.3 * (name == "cg-high") * (1 + block)}
    ...         for name in ("cg-high", "cg-low") for block in range(3) for label in "ab"]
    >>> found = differences(pd.DataFrame(rows), [("cg-high", "cg-low")])
    >>> found[["value", "degrees", "n_runs"]].round(2).to_numpy().tolist()
    [[0.6, 2.0, 6.0]]
    """
    asked = _plain(by_class)
    known = [one if isinstance(one, Contrast) else Contrast.between(*one) for one in contrasts]
    rows = [
        {
            "setting": contrast.name,
            **dict(zip(CELL, cell, strict=True)),
            **_row(part, contrast, kinds or {}, seed),
        }
        for scope in _scopes(asked)
        for contrast in known
        for cell, part in scope.groupby(CELL, sort=True)
        if _answered(part, contrast)
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    # several test domains, one by one, are a family beside that of their average
    alone = frame["test_domain"].isin(asked["test_domain"])
    question = frame.groupby(["prompts", "classifier", "candidates", alone], sort=False)["p"]
    size = question.transform("count").astype(int)
    apart = alone & (asked["test_domain"].nunique() > 1)
    return frame.assign(
        p_adjusted=question.transform(lambda p: holm(p.to_numpy())),
        family=[
            f"{family}{', domain by domain' * one}: {n} test{'' if n == 1 else 's'}"
            for one, n in zip(apart, size, strict=True)
        ],
    )


def _plain(by_class: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained models; tables without a `classifier` column are of the text head."""
    frame = by_class if "classifier" in by_class else by_class.assign(classifier="text")
    if "control" in frame:
        frame = frame[frame["control"] == ""]
    return frame.fillna({"prompts": "", "classifier": "text"})


def _scopes(asked: pd.DataFrame) -> list[pd.DataFrame]:
    """What contrasts are taken over: all test domains under one name, then each by itself.

    `asked_in` keeps the test domain of every row.
    """
    own = asked.assign(asked_in=asked["test_domain"])
    domains = list(dict.fromkeys(asked["test_domain"]))
    if len(domains) < 2:
        return [own]
    here = own[own["domain"] == own["test_domain"]]
    both = sequence([str(domain) for domain in domains])
    return [here.assign(test_domain=both, domain=both), own]


def _answered(part: pd.DataFrame, contrast: Contrast) -> bool:
    """Whether all settings of a contrast have answered something in common, in every domain."""
    named = [name for name, weight in contrast.weights.items() if weight]
    if not set(named) <= set(part["setting"]):
        return False
    common = _answers(part).dropna(subset=named).index
    asked = common.get_level_values("test_domain").nunique()
    return asked == part["asked_in"].nunique()


def _answers(part: pd.DataFrame) -> pd.DataFrame:
    """A column per setting, a row per test domain, block and class."""
    keys = ["asked_in", "seed", "label"]
    return part.pivot(index=keys, columns="setting", values="value").rename_axis(index=ANSWERS)


def _row(
    part: pd.DataFrame, contrast: Contrast, kinds: Mapping[str, str], seed: int
) -> dict[str, object]:
    answers = _answers(part)
    found = contrast_of_settings(answers, contrast.weights, kinds=kinds)
    named = [name for name, weight in contrast.weights.items() if weight]
    own = part[part["setting"].isin(named)].set_index(["asked_in", "seed", "label"])
    own = own.loc[whole_blocks(answers[named])[0].index]
    pictures = own.groupby(level=[0, 1, 2])["n_pictures"].max()
    runs = ["run"] if "run" in own else ["setting", "asked_in", "seed"]
    models = "models" if len(named) != 2 else "two models"
    return (
        {"measure": f"difference of {TOP_1}"}
        | evidence(
            found.interval,
            null=0.0,
            null_kind="no difference" if found.n_blocks > 1 else "none: one run of each setting",
            ceiling_kind="none: a difference of accuracies has no ceiling",
            index=np.nan,
            p=found.p,
            unit=found.unit,
            n_units=found.n_units,
            n_pictures=int(pictures.sum()),
            n_runs=len(own.reset_index()[runs].drop_duplicates()),
            seed=seed,
            reason=found.reason,
            estimand=f"these {models}, over classes like these: this run, these classes"
            if found.n_blocks == 1
            else "models of these settings, over classes and blocks like these",
        )
        | found.columns
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
    frame, rows = _plain(by_class), []
    label, block = (pd.factorize(frame[name], sort=True)[0] for name in ("label", "seed"))
    value, n_pictures = (frame[name].to_numpy() for name in ("value", "n_pictures"))
    nulls = frame["null"].to_numpy() if "null" in frame else np.full(len(frame), np.nan)
    for cell, own in rows_by(frame, keys):
        estimate = replicated_rows(value[own], label[own], block[own])
        null = float(nulls[own].mean())
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
            n_pictures=int(n_pictures[own].sum()),
            n_runs=estimate.n_blocks,
            seed=seed,
            reason=estimate.reason,
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
    trained = accuracy[(accuracy["measure"] != TOP_1) & (accuracy["control"] == "")]
    if trained.empty:
        return pd.DataFrame()
    asked = ("seed", "value", "null", "ceiling", "n_pictures", "null_kind", "ceiling_kind")
    columns, rows = [trained[name].to_numpy() for name in asked], []
    for cell, own in rows_by(trained, keys):
        seeds, value, nulls, ceiling, n_pictures, null_kind, ceiling_kind = (
            column[own] for column in columns
        )
        by_block = group_means(value, seeds)
        spread = mean_t(by_block)
        null, ceiling = float(group_means(nulls, seeds).mean()), float(ceiling[0])
        row = evidence(
            spread,
            null=null,
            null_kind=null_kind[0],
            ceiling=ceiling,
            ceiling_kind=ceiling_kind[0],
            index=(spread.value - null) / (ceiling - null),
            unit="block",
            n_units=len(by_block),
            n_pictures=int(n_pictures.sum()),
            n_runs=len(by_block),
            seed=int(seeds.min()),
            reason="" if len(by_block) > 1 else "one block: no interval",
            estimand="models of this setting, over blocks like these",
        )
        rows.append({**dict(zip(keys, cell, strict=True)), **row, "control": ""})
    return pd.DataFrame(rows)

"""Whether a model learned at all: nothing is judged for one that did not."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.faces.doors import door

MODEL = ("setting", "test_domain", "architecture", "seed")
"""Columns that tell trained models apart, where a table has several."""

PRIMARY = (("candidates", "all"), ("prompts", "neutral"), ("classifier", "text"))
TOP_1 = "balanced top-1"
"""Spelled out here: a page asks which models learned without the libraries that answer."""

NUMBERS = (int, float, np.integer)


def asked_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the primary question: among all classes, by text, with neutral prompts.

    Args:
        frame: A table of accuracies.

    Returns:
        Its rows of balanced top-1 of trained models. Columns that are absent or empty ask nothing.

    >>> frame = pd.DataFrame({"prompts": ["neutral", "paper"], "value": [0.5, 0.6]})
    >>> asked_rows(frame)["value"].tolist()
    [0.5]
    """
    rows = frame
    if "control" in rows:
        rows = rows[rows["control"].isin(["", np.nan])]
    for name, wanted in (*PRIMARY, ("measure", TOP_1)):
        if name in rows:
            rows = rows[rows[name].isin([wanted, ""])]
    return rows


def trained_models(runs: pd.DataFrame) -> pd.Series:
    """The trained model of every run: of natural pictures alone one for all test domains.

    Args:
        runs: Rows with `setting`, `test_domain` and `seed`.

    Returns:
        A name for each row.

    >>> runs = pd.DataFrame({"setting": ["natural-only"] * 2 + ["cg-low"] * 2, "seed": 0})
    >>> trained_models(runs.assign(test_domain=["sketch", "quickdraw"] * 2)).nunique()
    3
    """
    settings = runs["setting"].astype(str)
    domains = runs["test_domain"].where(~settings.str.startswith("natural-only"), "")
    return settings + " " + domains + " " + runs["seed"].astype(str)


@door
def learning(
    accuracy: pd.DataFrame, mixtures: pd.DataFrame | None = None, *, natural: str = "real"
) -> pd.DataFrame:
    """Tell the models that learned from those that did not.

        learned  iff  low > null,    null = 1 / number of seen classes

    with low the lower end of Wilson's 95 % interval of balanced accuracy on seen classes, the mean
    over the domains that the model trained on, for as many answers as there are drawings. null is
    what always answering one class gets, and never less than chance among all classes.

    Args:
        accuracy: The table `accuracy`.
        mixtures: The table `mixtures`, which names the domains that models trained on. None, and a
            model without rows in it: it is asked in the natural domain, which every setting trains
            on.
        natural: The natural domain; "real" unless another is named.

    Returns:
        A row per model that was asked: `value, low, high, null, learned, reason`.

    Notes:
        Classes are not resampled: the question is about these. Several renderings of a drawing are
        no further answers, so `n_drawings` counts where it is known. Balanced accuracy has at most
        the variance of as many independent answers, so the interval is never too narrow.

    >>> rows = {"setting": ["a", "b"], "domain": "real", "class_set": "seen", "n_units": 10,
    ...         "n_drawings": 60, "value": [0.5, 0.12]}
    >>> learning(pd.DataFrame(rows))["learned"].tolist()
    [True, False]
    """
    rows = _of_seen_classes(accuracy)
    keys = [name for name in MODEL if name in rows]
    found = []
    for place, own in rows.groupby(keys, dropna=False, sort=False) if keys else [((), rows)]:
        row: dict[str, object] = dict(zip(keys, place, strict=True))
        own = own[own["domain"].isin(_trained_on(row, own, mixtures, natural))]
        own = own.dropna(subset=["value", "n_units"])
        if own.empty:
            continue
        value, null = float(own["value"].mean()), float((1 / own["n_units"]).mean())
        low, high = wilson(value, _answers(own))
        learned = low > null
        reason = "" if learned else _why(value, low, high, null)
        found.append(
            row
            | {"value": value, "low": low, "high": high, "null": null}
            | {"learned": learned, "reason": reason}
        )
    return pd.DataFrame(found, columns=[*keys, *LEARNED]).astype({"learned": bool})


LEARNED = ("value", "low", "high", "null", "learned", "reason")


def wilson(share: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of n independent answers.

    Args:
        share: The share, 0 to 1.
        n: Number of answers.
        confidence: Of the interval.

    Returns:
        Both ends.

    >>> [round(end, 3) for end in wilson(0.1, 100)]
    [0.055, 0.174]
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return float(centre - reach), float(centre + reach)


@door
def that_learned(rows: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """Rows without those of models that did not learn.

    Args:
        rows: Rows with the columns that tell models apart.
        told: What `learning` returns.

    Returns:
        The rows that are left, of trained models that learned and of untrained ones.

    >>> told = pd.DataFrame({"setting": ["a"], "learned": [False], "reason": ["nothing learned"]})
    >>> that_learned(pd.DataFrame({"setting": ["a", "b"]}), told)["setting"].tolist()
    ['b']
    """
    return rows[why_not(rows, told).isna()]


def why_not(rows: pd.DataFrame, told: pd.DataFrame) -> pd.Series:
    """For each row, why its model did not learn; None where it did, or is not trained at all."""
    bad = told[~told["learned"]]
    keys = [name for name in MODEL if name in rows and name in told]
    why = dict(zip(_places(bad, keys), bad["reason"], strict=True))
    found = pd.Series([why.get(place) for place in _places(rows, keys)], rows.index, dtype=object)
    if "control" in rows:
        found = found.where(rows["control"].isin(["", np.nan]), None)
    return found


def _places(rows: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """What tells each row's model apart, as text: numbers may have been read as either kind."""
    columns = [
        [f"{float(one):.17g}" if isinstance(one, NUMBERS) else str(one) for one in rows[name]]
        for name in keys
    ]
    return list(zip(*columns, strict=True)) if keys else [()] * len(rows)


def _of_seen_classes(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Single models at their last epoch, on the classes that nothing was held out of."""
    rows = asked_rows(accuracy)
    if "n_runs" in rows:
        rows = rows[rows["n_runs"].fillna(1) == 1]
    if "epoch" in rows and rows["epoch"].notna().any():
        keys = [name for name in MODEL if name in rows]
        last = rows.groupby(keys, dropna=False)["epoch"].transform("max")
        rows = rows[(rows["epoch"] == last) | last.isna()]
    if not {"class_set", "domain", "value", "n_units"} <= set(rows):
        return rows[:0].reindex(columns=[*rows.columns, "domain", "value", "n_units"])
    seen = rows[rows["class_set"] == "seen"]
    return seen if len(seen) else rows[rows["class_set"] == "all"]


def _trained_on(
    row: Mapping[str, object], own: pd.DataFrame, mixtures: pd.DataFrame | None, natural: str
) -> list[str]:
    """The domains that a model trained on; without a mixture the natural one, or else all."""
    if mixtures is not None and {"domain", "n_pictures"} <= set(mixtures):
        same = pd.Series(True, mixtures.index)
        for name in row:
            if name in mixtures:
                same &= mixtures[name] == row[name]
        known = mixtures[same & (mixtures["n_pictures"] > 0)]["domain"]
        if own["domain"].isin(known).any():
            return known.tolist()
    domains = own["domain"].unique().tolist()
    return [natural] if natural in domains else domains


def _answers(own: pd.DataFrame) -> float:
    """Independent answers in any one domain: drawings, or pictures where drawings are not known."""
    for name in ("n_drawings", "n_pictures"):
        if name in own and own[name].notna().any():
            return float(own[name].max())
    return float(own["n_units"].max())


def _why(value: float, low: float, high: float, null: float) -> str:
    shown, least, most, floor = (f"{100 * each:.1f}" for each in (value, low, high, null))
    return (
        f"not shown to have learned: of seen classes in its own training domains {shown} % are "
        f"right ({least} to {most}), and always answering one class gets {floor} %"
    )

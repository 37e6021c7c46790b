"""Lead and lag over training: what domains share against accuracy on held-out classes.

progress(e) = (sum over runs of x(e) - x(0)) / (sum over runs of x(last epoch) - x(0))
lead(e)     = progress of sharing - progress of accuracy on held-out classes

x(0) is the untrained model's index, or 0 where that has none; accuracy is counted from chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table
from interp.data.mixtures.settings import is_upper_bound
from interp.models.evaluation.learning import asked_rows, trained_models
from interp.verdicts.levels.panels import RUN, UNTRAINED, in_middle, of_pair

HELD_OUT, SEEN = "accuracy of held-out classes", "accuracy of seen classes"

LEAST = 2
"""Blocks from which on they are what is resampled; of one block, its runs are."""


def lead_and_lag(frames: Mapping[str, pd.DataFrame], *, natural: str = "real") -> Table:
    """How far sharing and accuracy have come at each kept epoch, and which of them leads.

    Args:
        frames: A study's tables: `rungs`, `rungs_by_epoch` (what earlier epochs share) and `epochs`
            (accuracy after every kept epoch).
        natural: The natural domain.

    Returns:
        The table `lead_and_lag`, a row per quantity (a rung's measure, or accuracy above chance on
        held-out or seen classes in the test domain) and share of training (`trained`). `value` is
        the share of the way from the untrained model to the last epoch that is covered, of sums
        over runs (`reason` says where no untrained index is known, and 0 stands for it); `lead` is
        that less the share that accuracy on held-out classes has covered in the same runs, below 0
        where sharing comes later, and none after the last epoch. Both with jackknife intervals over
        blocks, or over the models of a single block (`unit`). Upper bounds are left out, and so are
        runs without an index at some epoch.

    >>> runs = [{"setting": f"mixture {m}", "test_domain": "sketch", "seed": b, "epoch": e,
    ...          "control": "", "rung": "R2", "measure": "debiased CKA", "domain_a": "real",
    ...          "domain_b": "sketch", "band": "middle", "site": "layer", "depth": 0.5,
    ...          "index": e / 4} for m in range(3) for b in range(2) for e in (2, 4)]
    >>> rungs = pd.DataFrame(runs)
    >>> asked = {"domain": "sketch", "class_set": "held-out", "candidates": "all",
    ...          "prompts": "neutral", "classifier": "text", "measure": "balanced top-1"}
    >>> accuracy = pd.DataFrame([{**run, **asked, "index": 0.1 + (run["epoch"] == 4)}
    ...                          for run in runs])
    >>> frames = {"rungs": rungs[rungs["epoch"] == 4], "rungs_by_epoch": rungs[rungs["epoch"] == 2],
    ...           "epochs": accuracy}
    >>> found = lead_and_lag(frames).frame
    >>> found[found["rung"] == "R2"][["trained", "value", "lead"]].round(2).values.tolist()
    [[0.5, 0.5, 0.41], [1.0, 1.0, nan]]
    """
    known = [name for name in ("rungs", "rungs_by_epoch", "epochs") if len(frames.get(name, ()))]
    if len(known) < 3:
        return Table("lead_and_lag", pd.DataFrame())
    accuracies = _accuracies(frames["epochs"])
    shared = pd.concat([_sharing(frames[name], natural) for name in known[:2]], ignore_index=True)
    shared = shared.merge(_untrained(frames["rungs"], natural), on=FLOOR, how="left")
    held_out = _over_training(accuracies[accuracies["measure"] == HELD_OUT])
    rows = []
    for (rung, measure), own in pd.concat([shared, accuracies]).groupby(KIND, sort=False):
        known_runs = _over_training(own)
        common = known_runs.index.intersection(held_out.index)
        found = _progress(known_runs.loc[common], held_out.loc[common])
        why = UNCOUNTED if own["floor"].isna().any() else ""
        rows += [{"rung": rung, "measure": measure, "reason": why} | row for row in found]
    return Table("lead_and_lag", pd.DataFrame(rows))


KIND = ["rung", "measure"]
UNCOUNTED = "the untrained model has no index: counted from 0"
FLOOR = ["test_domain", "seed", *KIND]


def _sharing(rungs: pd.DataFrame, natural: str) -> pd.DataFrame:
    """The index of every run after every epoch, the mean over its middle layers."""
    rows = of_pair(in_middle(rungs), natural)
    rows = rows[rows["control"].fillna("") == ""]
    return rows.groupby([*RUN, "epoch", *KIND], as_index=False, sort=False)["index"].mean()


def _untrained(rungs: pd.DataFrame, natural: str) -> pd.DataFrame:
    """The index of every block's untrained model, the mean over its middle layers."""
    rows = of_pair(in_middle(rungs), natural)
    rows = rows[rows["control"] == UNTRAINED]
    found = rows.groupby(FLOOR, as_index=False, sort=False)["index"].mean()
    return found.rename(columns={"index": "floor"})


def _accuracies(epochs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in the test domain above chance, as a share of what there is above chance."""
    rows = asked_rows(epochs)
    rows = rows[(rows["domain"] == rows["test_domain"]) & (rows["control"].fillna("") == "")]
    names = {"held-out": HELD_OUT, "seen": SEEN}
    rows = rows[rows["class_set"].isin(names)]
    rows = rows.assign(measure=rows["class_set"].map(names), rung="")
    return rows[[*RUN, "epoch", *KIND, "index"]].assign(floor=0.0)


def _over_training(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per run that holds classes out: its `trained` shares of training, and its gain then.

    Runs of fewer kept epochs than others are left out: their progress cannot be added up.
    """
    rows = rows[~rows["setting"].map(is_upper_bound).astype(bool) & (rows["epoch"] > 0)]
    rows = rows.sort_values("epoch", kind="stable")
    trained = rows["epoch"] / rows.groupby(RUN)["epoch"].transform("max")
    places = rows.groupby(RUN).cumcount()
    gain = rows["index"] - rows["floor"].fillna(0.0)
    found = rows.assign(trained=trained, place=places, gain=gain)
    return found.pivot(index=RUN, columns="place", values=["trained", "gain"]).dropna()


def _progress(own: pd.DataFrame, accuracy: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A row per kept epoch of a quantity, beside accuracy on held-out classes in the same runs."""
    blocks = own.index.get_level_values("seed")
    unit = "block" if blocks.nunique() >= LEAST else "model"
    models = list(trained_models(own.index.to_frame()))
    units = list(blocks) if unit == "block" else models
    values = [each["gain"].to_numpy(float) for each in (own, accuracy)]
    for place in range(values[0].shape[1]) if len(own) else ():
        reached, then = (_share(each, place, units) for each in values)
        ahead = (reached[0] - then[0], reached[1] - then[1])
        at_the_end = place == values[0].shape[1] - 1  # where both have reached everything
        lead = jackknife(np.nan if at_the_end else ahead[0], ahead[1])
        value = jackknife(reached[0], reached[1])
        row: dict[str, object] = {
            "trained": own["trained"][place].mean(),
            "value": value.value,
            "low": value.low,
            "high": value.high,
            "ceiling": 1.0,
            "lead": lead.value,
            "lead_low": lead.low,
            "lead_high": lead.high,
            "null": 0.0,
            "unit": unit,
            "n_units": len(set(units)),
            "n_runs": len(set(models)),
        }
        yield row if np.isfinite(value.low) else row | {"reason": ONE_UNIT}


ONE_UNIT = "one unit, or nothing at the end"


def _share(values: np.ndarray, place: int, units: Sequence[Any]) -> tuple[float, np.ndarray]:
    """The share of the last epoch's sum that an epoch has, and the same without each unit."""

    def share(rows: np.ndarray) -> float:
        last = rows[:, -1].sum()
        return float(rows[:, place].sum() / last) if last > 0 else float("nan")

    names = np.asarray(units)
    return share(values), np.array([share(values[names != name]) for name in np.unique(names)])

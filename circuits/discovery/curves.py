"""Curves of faithfulness: shares of the model's work under masks, with their evidence and areas.

One value is the metric with some of the tower kept, as a share of the difference between the clean
run (everything kept) and the corrupt one (nothing kept).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from interp.circuits.patching.localise import (
    ROUNDING,
    by_class,
    class_mean,
    index_of,
    leave_out,
    max_t_p,
    no_gap,
    numbers_of,
    rounded,
)
from interp.circuits.tasks.metrics import name_of
from interp.circuits.tasks.pairs import PairTask
from interp.core.artists import artist_column, artists_of, n_drawings
from interp.core.images import Pairs
from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table

ALONE, WITHOUT = "circuit alone", "model without the circuit"
WHOLE, NOTHING = "the whole model", "nothing left: the corrupt run"

MEAN_PARTNER = (
    "all pictures have one partner, as in mean ablation: a circuit may add a bias for the class "
    "and seem faithful; take pictures of another class"
)
"""What is said where the rest of the model is held at one picture (masks learned so reached 1.16 of
the metric, and .01 with pictures of another class)."""


def curve_table(
    values: np.ndarray,
    ends: np.ndarray,
    sizes: np.ndarray,
    task: PairTask,
    *,
    total: int,
    n_random: int,
    null_kind: str,
    seed: int,
    facts: Mapping[str, object],
) -> Table:
    """The table of `faithfulness`, from the metric under masks.

    `values` `[mask example]` are n circuits alone, the model without each, and `n_random` random
    circuits for each, alone and without; `ends` the clean and the corrupt run `[2 example]`;
    `sizes` `[n]` what each circuit holds, of `total`.
    """
    n = len(sizes)
    alone, without, *drawn = np.split(values - ends[1], [n, 2 * n, n * (2 + n_random)])
    nulls = [part.reshape(n, n_random, -1).mean(axis=1) for part in drawn]
    gap = ends[0] - ends[1]
    stacked = np.concatenate([alone, without]), np.concatenate(nulls)
    triples = np.stack([*stacked, np.broadcast_to(gap, stacked[0].shape)], axis=-1)
    triples = triples.swapaxes(0, 1)
    labels, roles = units_of(task.pairs, len(gap))
    largest = float(np.abs(ends).max())
    goals = np.repeat([1.0, 0.0], n)  # alone all is to remain, without it nothing
    frame = share_rows(triples, labels, roles, goals=goals, seed=seed, rounding=ROUNDING * largest)
    frame.insert(0, "measure", np.repeat([ALONE, WITHOUT], n))
    frame.insert(1, "ceiling_kind", np.repeat([WHOLE, NOTHING], n))
    frame["n_edges"] = np.tile(sizes, 2)
    frame["share"] = frame["n_edges"] / total
    if n > 1:
        areas = _areas(triples[:, :n], frame[:n], labels, roles)
        frame = pd.concat([frame, areas], ignore_index=True)
    corrupt = task.corrupt
    if len(corrupt) > 1 and bool((corrupt == corrupt[:1]).all()):
        frame["reason"] = [
            "; ".join(filter(None, [why, MEAN_PARTNER])) for why in frame["reason"].fillna("")
        ]
    frame = frame.assign(
        metric=name_of(task.metric),
        null_kind=null_kind,
        estimand="share of the metric's difference between clean and corrupt runs that remains",
        seed=seed,
        **counted(task.pairs, len(gap)),
    )
    return Table.with_evidence("faithfulness", frame, facts)


def units_of(pairs: Pairs | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """What is resampled, `[example]`, and the roles in which it stands, `[example role]`.

    Classes, as long as the clean pictures show several; else who drew them, or each pair.
    """
    if pairs is None:
        labels = np.arange(n)
        return labels, labels[:, None]
    known = pairs.images.frame["label"].to_numpy()
    if _unit(pairs) != "class":
        known = artists_of(pairs.images.frame)
    roles = np.stack([known[pairs.clean_rows], known[pairs.corrupt_rows]], axis=1)
    return roles[:, 0], roles


def _unit(pairs: Pairs | None) -> str:
    if pairs is None:
        return "pair"
    one = pairs.clean.label.nunique() == 1
    return artist_column(pairs.images.frame) if one else "class"


def counted(pairs: Pairs | None, n: int) -> dict[str, str | int]:
    """What stands behind every row: the unit of replication, and how many of each."""
    return {
        "unit": _unit(pairs),
        "n_units": len(np.unique(units_of(pairs, n)[0])),
        "n_pictures": n,
        "n_drawings": n if pairs is None else n_drawings(pairs.clean.frame),
        "n_runs": 1,
    }


def share_rows(
    triples: np.ndarray,
    labels: np.ndarray,
    roles: np.ndarray,
    *,
    goals: np.ndarray,
    seed: int,
    rounding: float,
) -> pd.DataFrame:
    """A row per mask from effect, null and gap `[example mask 3]`, as shares of the gap.

    `goals` `[mask]` are the shares that full success would give: the ceilings.
    """
    left = leave_out(triples, labels, roles)
    ends = np.stack([np.ones_like(goals), np.ones_like(goals), goals], axis=-1)
    rows = []
    for number, means in enumerate(class_mean(triples, labels)):
        small = no_gap(means[2], left[:, number, 2], rounding=rounding)
        index = small or index_of(
            means * ends[number], left[:, number] * ends[number], rounding=rounding
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.full(3, np.nan) if small else means / means[2]
            spread = jackknife(share[0], left[:, number, 0] / left[:, number, 2])
        rows.append(numbers_of(share[0], share[1], goals[number], index, spread))
    shift = rounded(triples[..., 0] - triples[..., 1], rounding)
    return pd.DataFrame(rows).assign(p=max_t_p(by_class(shift, labels), seed=seed))


def _areas(
    triples: np.ndarray, curve: pd.DataFrame, labels: np.ndarray, roles: np.ndarray
) -> pd.DataFrame:
    """CPR and CMD of a curve, from effect, null and gap `[example size 3]`, with intervals.

    Withheld, as the curve's own values are, where one of them is.
    """
    withheld = curve["reason"][curve["value"].isna()]
    left = leave_out(triples, labels, roles)
    means = class_mean(triples, labels)
    # no edge at all has faithfulness 0
    at = np.concatenate([[0.0], curve["share"].to_numpy()])

    def area(effects: np.ndarray, gaps: np.ndarray, gap_only: bool) -> float:
        curve = np.concatenate([[0.0], effects / gaps])
        return float(np.trapezoid(np.abs(1 - curve) if gap_only else curve, at))

    rows = []
    for name, gap_only in (("CPR", False), ("CMD", True)):
        with np.errstate(divide="ignore", invalid="ignore"):
            value, null = (area(means[:, k], means[:, 2], gap_only) for k in (0, 1))
            spread = jackknife(value, [area(part[:, 0], part[:, 2], gap_only) for part in left])
        if len(withheld):
            value, null, spread = np.nan, np.nan, jackknife(np.nan, np.full(len(left), np.nan))
        rows.append(
            {
                "measure": name,
                "ceiling_kind": WHOLE,
                "value": value,
                "low": spread.low,
                "high": spread.high,
                "null": null,
                "ceiling": 0.0 if gap_only else 1.0,
                "reason": withheld.iloc[0]
                if len(withheld)
                else "an area under a curve has no index of its own",
            }
        )
    return pd.DataFrame(rows).assign(index=np.nan, p=np.nan)

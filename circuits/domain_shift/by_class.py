"""What a domain shift does to each class's logit, held against what that class had lost."""

from collections.abc import Callable, Iterator, Mapping
from typing import Unpack

import numpy as np
import pandas as pd
from scipy import stats

from interp.circuits.domain_shift.shift import (
    HELD_OUT,
    SEEN,
    ShiftAsked,
    ShiftKeywords,
    ShiftRun,
    ZeroShotTower,
)
from interp.circuits.domain_shift.vectors import Move, both
from interp.core.arguments import filled
from interp.core.edits.edits import AS_IT_IS
from interp.core.errors import check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import Interval, jackknife, mean_interval, permutation_p
from interp.core.tables import Table

RISE = "rise of the class's logit"
AUROC, CORRELATION = "AUROC of held-out classes", "correlation with the class's loss"
N_PERMUTATIONS = 999


@door
def shift_by_class(
    clip: ZeroShotTower, images: ImageTable, *, site: str, **how: Unpack[ShiftKeywords]
) -> Table:
    """Measure what the mean shift does to each class's logit, and what that class had lost.

    Args:
        clip: A `Clip`, or anything with `visual`, `preprocess` and `zero_shot`.
        images: Test pictures of both domains, of seen and held-out classes.
        site: Where pictures are moved.
        **how: `source`, `target`, `held_out` and the others, as of `shift_domain`.

    Returns:
        A row for each class: `value` is how much its logit rises, against the mean of all classes,
        over pictures of other classes that are not held out; `before` its accuracy in the source
        domain less that in the target domain. Two rows sum up: how well the rise tells held-out
        classes from seen ones (AUROC, chance .5), and its correlation with the loss.

    Raises:
        DataError: For an unknown domain or class.
        SampleError: As of `shift_domain`.
        SiteError: For an unknown site.

    >>> from interp.circuits.toy import toy_shift
    >>> clip, images = toy_shift()
    >>> found = shift_by_class(clip, images, source="sketch", target="real",
    ...                        site="hook_embedding", held_out=["c", "d"])
    >>> found.frame.query("measure == 'AUROC of held-out classes'")["value"].tolist()
    [1.0]
    """
    run = ShiftRun.of(clip, images, filled(shift_by_class, ShiftAsked, how))
    check_known("shift a domain", "site", [site], run.clip.visual.sites)
    shift = run.fit(site, 1).cells.shift(*run.pair)
    moves = {"shift": Move("shift", vectors=both(shift))}
    logits = run.answers(run.asked, site, moves, run.side).logits
    return Table.with_evidence("shift_by_class", pd.DataFrame([*_by_class(run, logits, site)]))


def _by_class(
    run: ShiftRun, logits: Mapping[str, np.ndarray], site: str
) -> Iterator[dict[str, object]]:
    """A row per class that both domains show, and two that sum up."""
    before, names = logits[AS_IT_IS], list(run.classifier.class_names)
    truth = np.array([names.index(name) for name in run.asked.label])
    change = logits["shift"].astype(float) - before
    change -= change.mean(axis=1, keepdims=True)
    right, here = before.argmax(axis=1) == truth, run.side == 0
    codes = sorted({*truth[here]} & {*truth[~here]})
    others = here & ~run.withheld[truth]
    place = {"site": site, "domain": run.pair[0], "toward": run.pair[1]}
    frame = run.asked.frame
    rises, losses = np.full((2, len(codes)), np.nan)
    for number, code in enumerate(codes):
        own = others & (truth != code)
        shares = [float(right[each & (truth == code)].mean()) for each in (here, ~here)]
        rise = mean_interval(change[own, code], truth[own], seed=run.how.seed)
        rises[number], losses[number] = rise.value, shares[0] - shares[1]
        about = _about(frame[own], len({*truth[own]}), "no rise", run.how.seed)
        kind = HELD_OUT if run.withheld[code] else SEEN
        where = {"measure": RISE, "label": names[code], "class_set": kind}
        yield {**where, **place, "before": losses[number], **about.row(rise, null=0.0)}
    about = _about(frame[others], len(codes), "rises dealt to classes at random", run.how.seed)
    for measure, score, against in (
        (AUROC, _auroc, run.withheld[codes]),
        (CORRELATION, _correlation, losses),
    ):
        yield {"measure": measure, **place, **_summed(rises, against, score, about, run.how.seed)}


def _auroc(rises: np.ndarray, held: np.ndarray) -> np.ndarray:
    """How often a held-out class rises more than a seen one; rows of `rises` are draws."""
    n, m = int(held.sum()), int((~held).sum())
    ranks = stats.rankdata(rises, axis=-1)[..., held].sum(axis=-1)
    return np.asarray((ranks - n * (n + 1) / 2) / (n * m))


def _correlation(rises: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Pearson's r of the classes' rises and losses; rows of `rises` are draws."""
    x, y = rises - rises.mean(axis=-1, keepdims=True), losses - losses.mean()
    return np.asarray((x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum()))


def _about(pictures: pd.DataFrame, n_classes: int, null: str, seed: int) -> Evidence:
    return Evidence(
        estimand="this model", null_kind=null, seed=seed, **counts_of(pictures, n_classes)
    )


def _summed(
    rises: np.ndarray,
    against: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    about: Evidence,
    seed: int,
) -> dict[str, object]:
    """A score of all classes, with its jackknife over classes and its permutations."""
    if len(np.unique(against)) < 2 or len(against) < 4:
        missing = Interval(*[np.nan] * 4)
        return about.row(missing, null=np.nan, reason="classes are too few or alike")
    value, generator = float(score(rises, against)), rng("permuted classes", seed)
    drawn = score(np.stack([generator.permutation(rises) for _ in range(N_PERMUTATIONS)]), against)
    each = range(len(rises))
    left = [float(score(np.delete(rises, k), np.delete(against, k))) for k in each]
    middle = float(drawn.mean())
    p = permutation_p(abs(value - middle) - 1e-12, abs(drawn - middle))
    return about.row(jackknife(value, left), null=middle, p=p)

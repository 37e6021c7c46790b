"""Two domains compared at pairs of sites: value, null, halves, and each class left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.artists import artist_halves, halved_classes, meeting_halves, n_drawings
from interp.core.statistics.resampling import max_t
from interp.probes.features.matrices import Features
from interp.probes.representational_similarity.arrangements import (
    CROSS_VALIDATED,
    MOST_PAIRS,
    builder,
)
from interp.probes.representational_similarity.design import ComparisonDesign, Dealt, Measured
from interp.probes.representational_similarity.grams import (
    across,
    class_grams,
    expected,
    permuted,
    within,
)
from interp.probes.representational_similarity.measures import MEASURES
from interp.probes.representational_similarity.reordered import by_reordering

LEAST_CLASSES = 5
"""Four for the unbiased estimator, and one to leave out."""


@dataclass(frozen=True)
class Comparison:
    """Two domains compared, with counts of what was compared.

    p: "2 site site", adjusted over all pairs of sites and over sites with themselves.
    """

    a: str
    b: str
    classes: list[str]
    n_pictures: int
    n_drawings: int
    left_out: int
    found: Measured
    p: np.ndarray


def compare(
    features: Features, other: Features, a: str, b: str, design: ComparisonDesign
) -> Comparison:
    """Compare sites of A with sites of B, A seen by one model and B by the other."""
    dealt = _dealt(features, other, a, b, design)
    classes, labels = dealt.classes, dealt.frame["label"]
    used = np.any([deal >= 0 for deal in dealt.deals], axis=0) & labels.isin(classes).to_numpy()
    counts = {
        "n_pictures": int(used.sum()),
        "n_drawings": n_drawings(dealt.frame[used]),
        "left_out": len(set(labels)) - len(classes),
    }
    why = _too_few(len(classes), dealt.size, design)
    if why:
        found = Measured.nothing(len(features.sites), len(other.sites), len(classes), 0, why)
        blank = np.full((2, *found.value.shape), np.nan)
        return Comparison(a, b, classes, **counts, found=found, p=blank)
    found = _by_matrix(dealt, design) if design.by_matrix else by_reordering(dealt, design)
    return Comparison(a, b, classes, **counts, found=found, p=_adjusted(found))


def _dealt(features: Features, other: Features, a: str, b: str, design: ComparisonDesign) -> Dealt:
    rows = np.flatnonzero(features.frame["domain"].isin([a, b]).to_numpy())
    frame = features.frame.iloc[rows].reset_index(drop=True)
    both = list(dict.fromkeys([a, b]))
    deals = [
        artist_halves(frame, both, seed=design.seed, split=split)
        for split in range(design.n_splits)
    ]
    classes = halved_classes(frame, deals, (a, b))
    paired = design.rows == "picture pair" and len(classes) > 0
    size = _pairs(frame, deals, (a, b), classes) if paired else 1
    sides = ((features, a), (other, b))
    return Dealt(sides, rows, frame, deals, classes, meeting_halves(frame, a, b), size)


def _too_few(n_classes: int, size: int, design: ComparisonDesign) -> str:
    """Why so few classes cannot be compared, one being left out at a time; or nothing."""
    if n_classes < LEAST_CLASSES:
        return (
            f"{n_classes} classes with pictures by two artists in both domains, "
            f"at least {LEAST_CLASSES} are needed"
        )
    if design.measure == CROSS_VALIDATED:
        return ""
    found = MEASURES[design.measure]
    needed = -(-found.least // size) + 1
    if design.rows == "class structure" or n_classes >= needed:
        return ""
    return f"{n_classes} classes; {found.title} needs {needed}, with one to leave out"


def _by_matrix(dealt: Dealt, design: ComparisonDesign) -> Measured:
    """A measure that is an inner product of matrices, all pairs of sites at once."""
    classes, meetings = dealt.classes, dealt.meetings
    build = builder(design.measure, design.rows, dealt.size)

    def stacks(kept: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [class_grams(dealt, side, kept, build) for side in (0, 1)]

    (first, failed_a), (second, failed_b) = stacks(classes)
    value, value_left = across(first, second, meetings)
    ends = [within(grams) for grams in (first, second)]
    null = expected(first, second, meetings, len(classes))
    null_left = np.zeros_like(value_left)
    if not design.exact:
        found = [_left_out(stacks([*classes[:c], *classes[c + 1 :]]), meetings, len(classes) - 1)
                 for c in range(len(classes))]  # fmt: skip
        value_left, null_left, left_a, left_b = (
            np.stack(each) for each in zip(*found, strict=True)
        )
        ends = [(ends[0][0], left_a), (ends[1][0], left_b)]
    if design.zero:  # what rounding left of it would pass for a ceiling above the null
        null, null_left = np.zeros_like(null), np.zeros_like(null_left)
    return Measured(
        failed=(failed_a, failed_b), refused=np.full(value.shape, "", dtype=object),
        value=value, value_left=value_left, null=null, null_left=null_left,
        within=(ends[0][0], ends[1][0]), within_left=(ends[0][1], ends[1][1]),
        drawn=permuted(first, second, meetings, design.n_permutations, design.seed, len(classes)),
    )  # fmt: skip


def _left_out(
    stacks: list[tuple[np.ndarray, np.ndarray]], meetings: list[tuple[int, int]], n_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value, null and both domains' halves from the matrices of all classes but one."""
    (first, _), (second, _) = stacks
    n = len(first) * len(meetings)
    value = sum(
        np.einsum("aij,bij->ab", first[split, i], second[split, j], optimize=True)
        for split in range(len(first))
        for i, j in meetings
    )
    halves = [(grams[:, 0] * grams[:, 1]).sum(axis=(-1, -2)).mean(axis=0) for grams, _ in stacks]
    return np.asarray(value) / n, expected(first, second, meetings, n_classes), halves[0], halves[1]


def _pairs(
    frame: pd.DataFrame, deals: Sequence[np.ndarray], domains: tuple[str, str], classes: list[str]
) -> int:
    """How many pictures every class has in every half of both domains, at most `MOST_PAIRS`."""
    fewest = MOST_PAIRS
    for deal in deals:
        kept = frame[(deal >= 0) & frame["label"].isin(classes) & frame["domain"].isin(domains)]
        cells = kept.groupby([kept["label"], kept["domain"], deal[kept.index]]).size()
        fewest = min(fewest, int(cells.min()))
    return fewest


def _adjusted(found: Measured) -> np.ndarray:
    """Adjusted p, "2 site site": max-T over all pairs of sites, then over sites with themselves."""
    value, drawn = found.value, found.drawn
    good = (found.refused == "") & (found.failed[0][:, None] == "") & (found.failed[1] == "")
    good &= np.isfinite(value)
    p, p_same = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    p[good] = max_t(value[good], drawn[:, good])
    same = good & np.eye(*value.shape, dtype=bool)
    p_same[same] = max_t(value[same], drawn[:, same])
    return np.stack([p, p_same])

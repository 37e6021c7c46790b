"""Two domains compared at every pair of sites: value, null, halves, and each class left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.probes.arrangements import CROSS_VALIDATED, MOST_PAIRS, builder
from interp.probes.features import Features
from interp.probes.grams import across, class_grams, expected, permuted, within
from interp.probes.halves import artist_halves, halved_classes, meeting_halves, n_drawings
from interp.probes.measures import MEASURES
from interp.probes.permutations import max_t

LEAST_CLASSES = 5
"""Four for the unbiased estimator, and one to leave out."""


@dataclass(frozen=True)
class Design:
    """What is asked of every pair of domains."""

    measure: str
    rows: str
    n_splits: int
    n_permutations: int
    seed: int

    @property
    def exact(self) -> bool:
        """Whether leaving a class out has a closed form: for linear CKA of class means."""
        return self.rows == "class mean" and self.measure == "cka"

    @property
    def zero(self) -> bool:
        """Whether the mean over permutations of classes is 0 by construction."""
        debiased = self.measure == CROSS_VALIDATED or MEASURES[self.measure].zero
        return self.rows != "picture pair" and debiased


@dataclass(frozen=True)
class Comparison:
    """Two domains compared at every pair of sites.

    value, null: "site site"; with a class left out: "class site site"; within (a domain's halves):
    "site", within_left: "class site"; p: "2 site site", adjusted over all cells and over the
    diagonal; failed: why a site cannot be measured, in each domain.
    """

    a: str
    b: str
    classes: list[str]
    n_pictures: int
    n_drawings: int
    left_out: int
    failed: tuple[np.ndarray, np.ndarray]
    value: np.ndarray
    value_left: np.ndarray
    null: np.ndarray
    null_left: np.ndarray
    within: tuple[np.ndarray, np.ndarray]
    within_left: tuple[np.ndarray, np.ndarray]
    p: np.ndarray


def compare(features: Features, other: Features, a: str, b: str, design: Design) -> Comparison:
    """Compare every site of A with every site of B, A seen by one model and B by the other."""
    rows = np.flatnonzero(features.frame["domain"].isin([a, b]).to_numpy())
    frame = features.frame.iloc[rows].reset_index(drop=True)
    both = list(dict.fromkeys([a, b]))
    deals = [
        artist_halves(frame, both, seed=design.seed, split=split)
        for split in range(design.n_splits)
    ]
    classes = halved_classes(frame, deals, (a, b))
    used = np.any([deal >= 0 for deal in deals], axis=0) & frame["label"].isin(classes).to_numpy()
    counts = {
        "n_pictures": int(used.sum()),
        "n_drawings": n_drawings(frame[used]),
        "left_out": len(set(frame["label"])) - len(classes),
    }
    if len(classes) < LEAST_CLASSES:
        return _nothing(features, other, a, b, classes, counts)
    build = builder(design.measure, design.rows, _pairs(frame, deals, (a, b), classes))
    meetings = meeting_halves(frame, a, b)

    def stacks(kept: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        sides = ((features, a), (other, b))
        return [class_grams(each, rows, frame, deals, d, kept, build) for each, d in sides]

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
    drawn = permuted(first, second, meetings, design.n_permutations, design.seed, len(classes))
    return Comparison(
        a, b, classes, **counts,
        failed=(failed_a, failed_b),
        value=value, value_left=value_left, null=null, null_left=null_left,
        within=(ends[0][0], ends[1][0]), within_left=(ends[0][1], ends[1][1]),
        p=_adjusted(value, drawn, failed_a != "", failed_b != ""),
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


def _adjusted(
    value: np.ndarray, drawn: np.ndarray, failed_a: np.ndarray, failed_b: np.ndarray
) -> np.ndarray:
    """Adjusted p, "2 site site": max-T over all pairs of sites, then over sites with themselves."""
    good = ~(failed_a[:, None] | failed_b[None, :])
    p, p_same = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    p[good] = max_t(value[good], drawn[:, good])
    same = good & np.eye(*value.shape, dtype=bool)
    p_same[same] = max_t(value[same], drawn[:, same])
    return np.stack([p, p_same])


def _nothing(
    features: Features, other: Features, a: str, b: str, classes: list[str], counts: dict[str, int]
) -> Comparison:
    n, m, k = len(features.sites), len(other.sites), len(classes)
    blank, left = np.full((n, m), np.nan), np.full((k, n, m), np.nan)
    edges = np.full(n, np.nan), np.full(m, np.nan)
    return Comparison(
        a, b, classes, **counts,
        failed=(np.full(n, "", dtype=object), np.full(m, "", dtype=object)),
        value=blank, value_left=left, null=blank, null_left=left,
        within=edges, within_left=(np.full((k, n), np.nan), np.full((k, m), np.nan)),
        p=np.stack([blank, blank]),
    )  # fmt: skip

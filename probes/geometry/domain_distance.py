"""Separation of domains at each site: a classifier that tells them apart, and a distance."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from interp.core.artists import artist_column
from interp.core.errors import listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import Interval, jackknife, max_t
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.linear.solver import ridge, ridge_without
from interp.probes.representational_similarity.halved_pairs import (
    DomainPair,
    domain_pair,
    left_out,
    refuse_few_classes,
    too_few,
)

LEAST_CLASSES = 4
"""Two to train on and two to test on."""

Statistic = tuple[float, np.ndarray, np.ndarray]
"""A statistic, its values with one class left out, and its values under relabelling."""


@door
def domain_test(
    features: Features,
    sites: str | Iterable[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Test whether a linear classifier tells domains apart in classes and by artists new to it.

        value = accuracy, averaged over pictures of a class, then over classes
        null  = its mean when everything is trained and tested again under permuted domains
        index = (value - null) / (1 - null)

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains to compare, pair by pair; None takes all.
        n_permutations: Permutations of domains for null and p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site and pair of domains. Accuracy is 0 to 1.

    Raises:
        SampleError: Where no pair of domains has four classes by two artists in each.
        DataError: For an unknown domain.
        SiteError: For a site that the features do not have.

    References:
        Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests".

    Notes:
        - Classes and artists are each dealt into halves. Trained on one half of both, the
          classifier is tested on the other half of both, in all four ways, so every picture is
          tested once.
        - The classifier is ridge regression of the domain (1, -1) on standardised features. Its
          penalty is one mean eigenvalue of their Gram matrix, which needs no choosing by labels, so
          all permutations are refitted by one matrix product.
        - Permutations move whole class x artist groups (`domain_pair`). p is adjusted by max-T over
          the sites of a pair.
        - Intervals leave out one class at a time, in training and in testing; features are
          standardised as with all classes. Where there is nothing to tell apart they are too wide:
          with eight classes, 200 of 200 held the truth.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> offset = 3.0 * (frame["domain"] == "real").to_numpy()[:, None]
    >>> points = generator.normal(size=(64, 8)) + offset
    >>> table = domain_test(Features({"hook_embedding": points}, frame), n_permutations=99)
    >>> table.frame.query("value > 0.9 and p == 0.01")["domain_b"].tolist()
    ['sketch']
    """
    measure = _Separation(
        "domain classifier",
        partial(_told_apart, seed=seed),
        ceiling=1.0,
        ceiling_kind="every picture",
        estimand="domains told apart linearly by classes and artists not trained on",
    )
    return measure.table(features.only(sites), domains, n_permutations, seed, control)


@door
def domain_distance(
    features: Features,
    sites: str | Iterable[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Squared distance between the means of two domains, in units of the variance within a class.

        value = <difference in half 1, difference in half 2> / s^2

    where the difference of a half is the mean over classes of the difference between the class's
    means in the two domains, and s^2 is the variance within class and domain, summed over features.

    Args:
        features: Features "picture feature" of pictures with labels and domains.
        sites: Names or patterns of sites; None takes all.
        domains: Domains to compare, pair by pair; None takes all.
        n_permutations: Permutations of domains for null and p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per site and pair of domains. A distance has no ceiling and no index.

    Raises:
        SampleError: Where no pair of domains has four classes by two artists in each.
        DataError: For an unknown domain.
        SiteError: For a site that the features do not have.

    References:
        The cross-validated distance, here without whitening: Walther et al. 2016, "Reliability of
        dissimilarity measures for multi-voxel pattern analysis".

    Notes:
        Artists are dealt into halves. The noise of the two halves is independent, so the estimate
        is unbiased: 0 on average where domains have one mean, and then as often negative as
        positive. Without halves, noise alone would read as a distance. p counts permutations of
        whole class x artist groups (`domain_pair`), with max-T over the sites of a pair. Intervals
        leave one class out at a time.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> offset = 3.0 * (frame["domain"] == "real").to_numpy()[:, None]
    >>> points = generator.normal(size=(64, 8)) + offset
    >>> table = domain_distance(Features({"hook_embedding": points}, frame), n_permutations=99)
    >>> bool(8.0 < table.frame["value"].iloc[0] < 10.0)  # each feature: variance 1, offset 3
    True
    """
    measure = _Separation(
        "squared distance of domain means",
        _distance,
        ceiling=np.nan,
        ceiling_kind="",
        estimand="squared distance of domain means in variances within class and domain",
    )
    return measure.table(features.only(sites), domains, n_permutations, seed, control)


@dataclass(frozen=True)
class _Separation:
    """A measure of how far domains lie apart: its name, its statistic, and what they mean."""

    measure: str
    statistic: Callable[[np.ndarray, DomainPair], Statistic]
    ceiling: float
    ceiling_kind: str
    estimand: str

    def table(
        self,
        features: Features,
        domains: Sequence[str] | None,
        n_permutations: int,
        seed: int,
        control: str,
    ) -> Table:
        """The statistic of every site and pair of domains, with its evidence."""
        asked, frame = f"measure the {self.measure}", features.frame
        names = check_domains(features, domains, asked)
        pairs = [
            domain_pair(frame, a, b, n_permutations=n_permutations, seed=seed)
            for a, b in combinations(names, 2)
        ]
        refuse_few_classes(
            [len(pair.classes) for pair in pairs], LEAST_CLASSES, f"{asked} between {listed(names)}"
        )
        rows: list[dict[str, object]] = []
        for pair in track(pairs, self.measure):
            about = Evidence(
                estimand=f"{self.estimand}; halves by {artist_column(frame)}",
                null_kind=f"domains permuted over whole class x artist groups, {n_permutations} "
                "times; p by max-T over sites",
                ceiling_kind=self.ceiling_kind,
                seed=seed,
                **counts_of(frame.iloc[pair.rows], len(pair.classes)),
            )
            statistics = [self.at(features.values[site], pair) for site in features.sites]
            p = _adjusted(statistics)
            for site, (statistic, reason), each in zip(features.sites, statistics, p, strict=True):
                place = {"measure": self.measure, **features.place(site, control)}
                place |= {"domain_a": pair.a, "domain_b": pair.b}
                reason = reason or left_out(pair.left_out)
                rows.append(place | self.row(about, statistic, float(each), reason))
        facts = {**features.facts, "n_permutations": n_permutations}
        return Table.with_evidence("separation", pd.DataFrame(rows), facts)

    def at(self, values: np.ndarray, pair: DomainPair) -> tuple[Statistic, str]:
        """The statistic of a site, or nothing and the reason why."""
        k, nothing = len(pair.classes), (np.nan, np.empty(0), np.empty(0))
        if k < LEAST_CLASSES:
            return nothing, too_few(k, LEAST_CLASSES)
        x = np.asarray(values[pair.rows], dtype=np.float64)
        if np.ptp(x, axis=0).max(initial=0.0) <= 1e-10 * np.abs(x).max(initial=0.0):
            return nothing, "constant features"
        return self.statistic(x, pair), ""

    def row(
        self, about: Evidence, statistic: Statistic, p: float, reason: str
    ) -> dict[str, object]:
        """The evidence columns of one site."""
        value, left, drawn = statistic
        null = float(drawn.mean()) if drawn.size else np.nan
        return about.row(
            Interval(*[np.nan] * 4) if np.isnan(value) else jackknife(value, left),
            null=null,
            ceiling=self.ceiling,
            p=p,
            reason=reason,
            index=(value - null) / (self.ceiling - null),
        )


def _adjusted(statistics: Sequence[tuple[Statistic, str]]) -> np.ndarray:
    """p of every site, by max-T over those that could be measured."""
    p = np.full(len(statistics), np.nan)
    measured = {n: each for n, (each, reason) in enumerate(statistics) if not reason}
    if measured:
        values = np.array([value for value, _, _ in measured.values()])
        p[list(measured)] = max_t(values, np.stack([d for _, _, d in measured.values()], axis=1))
    return p


def _told_apart(x: np.ndarray, pair: DomainPair, seed: int) -> Statistic:
    """Accuracy over classes, the same without each class, and under every relabelling."""
    k = len(pair.classes)
    second = np.zeros(k, dtype=bool)
    second[rng("class halves", seed).permutation(k)[: k // 2]] = True
    side = second[pair.code].astype(int)
    labels = np.vstack([pair.sign, pair.drawn]).astype(np.float64).T
    right, without = np.zeros((labels.shape[1], k)), np.zeros((k, k))
    for classes in (0, 1):
        for artists in (0, 1):
            train = (side == classes) & (pair.half == artists)
            test = (side != classes) & (pair.half != artists)
            scores = ridge(x[train], x[test], labels[train])
            right += _class_sums(_hits(scores, labels[test]), pair.code[test], k)
            left = ridge_without(x[train], x[test], labels[train, 0], pair.code[train])
            trained = np.unique(pair.code[train])
            hits = _hits(left, labels[test][:, :1])
            without[trained] += _class_sums(hits, pair.code[test], k)
    counts = np.bincount(pair.code, minlength=k)
    by_class, refitted = right / counts, without / counts
    # without a class, those of its own side are told by probes that had not seen it anyway
    alike = second[:, None] == second[None]
    each = np.where(alike, by_class[0], refitted)
    np.fill_diagonal(each, 0.0)
    whole = by_class.mean(axis=1)
    return float(whole[0]), each.sum(axis=1) / (k - 1), whole[1:]


def _hits(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where a score has its label's sign, 1/2 where it has none."""
    return (scores * labels > 0) + 0.5 * (scores == 0)


def _class_sums(hits: np.ndarray, code: np.ndarray, k: int) -> np.ndarray:
    """Sums over pictures of a class, "labelling class"."""
    member = np.zeros((len(code), k))
    member[np.arange(len(code)), code] = 1.0
    return hits.T @ member


def _distance(x: np.ndarray, pair: DomainPair) -> Statistic:
    """The standardised distance, without each class, and under every relabelling."""
    k = len(pair.classes)
    labels = np.vstack([pair.sign, pair.drawn])
    differences, by_class = [], []
    for half in (0, 1):
        rows = np.flatnonzero(pair.half == half)
        weights = _difference_weights(labels[:, rows], pair.code[rows], k)
        differences.append(weights @ x[rows] / k)
        member = pair.code[rows][None] == np.arange(k)[:, None]
        by_class.append((member * weights[0]) @ x[rows])
    spread = _within(x, pair.code * 2 + (pair.sign > 0))
    everything = (differences[0] * differences[1]).sum(axis=1) / spread
    without = [(each.sum(axis=0) - each) / (k - 1) for each in by_class]
    left = (without[0] * without[1]).sum(axis=1) / spread
    return float(everything[0]), left, everything[1:]


def _difference_weights(labels: np.ndarray, code: np.ndarray, k: int) -> np.ndarray:
    """Weights "labelling picture" whose sums are each class's mean in a less its mean in b."""
    member = np.zeros((len(code), k))
    member[np.arange(len(code)), code] = 1.0
    first = labels > 0
    counts = np.stack([first @ member, ~first @ member])  # side labelling class
    return np.where(first, 1 / counts[0][:, code], -1 / counts[1][:, code])


def _within(x: np.ndarray, cell: np.ndarray) -> float:
    """Variance within cells, summed over features."""
    _, place, counts = np.unique(cell, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(x[order], starts, axis=0) / counts[:, None]
    return float(((x - means[place]) ** 2).sum() / (len(x) - len(counts)))

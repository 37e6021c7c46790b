"""How much each class uses each feature in two domains, on halves that share no artist."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from interp.core.artists import artist_halves, halved_classes, meeting_halves, n_drawings
from interp.core.errors import NumericsError, ShapeError, SiteError, check_known
from interp.probes.features.matrices import Features


@dataclass(frozen=True)
class UsageDesign:
    """Which pictures of domains A and B meet which, the same for every code.

    rows[domain, split, half] are row numbers, and code the class of each row (-1: not compared).
    `meetings` are the halves of A and B that share no artist.
    """

    a: str
    b: str
    classes: list[str]
    code: np.ndarray
    rows: dict[tuple[str, int, int], np.ndarray]
    meetings: list[tuple[int, int]]
    n_splits: int
    n_pictures: int
    n_drawings: int
    left_out: int

    @classmethod
    def of(cls, frame: pd.DataFrame, a: str, b: str, *, n_splits: int, seed: int) -> "UsageDesign":
        """Deal the artists of both domains' common classes into halves, `n_splits` times."""
        places = np.flatnonzero(frame["domain"].isin([a, b]).to_numpy())
        part = frame.iloc[places].reset_index(drop=True)
        deals = [artist_halves(part, [a, b], seed=seed, split=split) for split in range(n_splits)]
        label, domain = part["label"].to_numpy(object), part["domain"].to_numpy(object)
        classes = halved_classes(part, deals, (a, b))
        kept = np.isin(label, classes)
        rows = {
            (name, split, half): places[kept & (deal == half) & (domain == name)]
            for (split, deal), half, name in product(enumerate(deals), (0, 1), (a, b))
        }
        used = kept & np.any([deal >= 0 for deal in deals], axis=0)
        return cls(
            a, b, classes,
            pd.Index(classes).get_indexer(frame["label"].to_numpy(object)),
            rows,
            meeting_halves(part, a, b),
            n_splits, int(used.sum()), n_drawings(part[used]), len(set(label)) - len(classes),
        )  # fmt: skip

    def usage(self, activity: np.ndarray, domain: str, split: int, half: int) -> np.ndarray:
        """Mean activity "class feature" over the pictures of a half."""
        return self.means(activity, self.rows[domain, split, half])

    def means(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean of some rows per class, "class feature"."""
        code = self.code[rows]
        share = np.zeros((len(self.classes), len(rows)))
        share[code, np.arange(len(rows))] = 1
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
        return share @ values[rows]

    def everyone(self, domain: str) -> np.ndarray:
        """All pictures of a domain that some half holds."""
        return np.unique(
            np.concatenate([rows for (name, _, _), rows in self.rows.items() if name == domain])
        )


def only_site(features: Features, site: str) -> str:
    """A site's name, or the error that suggests others: a code belongs to one site, no pattern."""
    check_known("use a site's activations", "site", [site], features.sites, SiteError)
    return site


def checked_activity(made: object, n: int, name: str) -> np.ndarray:
    """A code's features in float64, or the error that says why they are none."""
    activity = np.asarray(made, dtype=np.float64)
    asked = f"use {name} as features"
    if activity.ndim != 2 or len(activity) != n or not activity.shape[1]:
        raise ShapeError(
            asked, f"shape {activity.shape}", f"({n}, features), a row per picture",
            "give a code that takes activations to such a matrix",
        )  # fmt: skip
    if not np.isfinite(activity).all() or activity.min() < 0:
        raise NumericsError(
            asked, "a NaN, an infinity or a negative number", "numbers of at least 0",
            "split signed coordinates into two, as `units` does",
        )  # fmt: skip
    return activity


def activity_of(design: UsageDesign, activity: np.ndarray, domain: str) -> np.ndarray:
    """What classes are matched on in a domain: active features and mass a picture, "class 2"."""
    told = np.column_stack([(activity > 0).sum(axis=1), activity.sum(axis=1)])
    return design.means(told, design.everyone(domain))


def nearest_classes(told: np.ndarray, n: int) -> np.ndarray:
    """For each class the n others most like it in firing rate and mass, nearest first, "class n".

    Both are measured in standard deviations over classes.

    >>> nearest_classes(np.array([[1.0, 1.0], [1.1, 1.0], [5.0, 9.0]]), 1).ravel().tolist()
    [1, 0, 1]
    """
    spread = told.std(axis=0)
    z = told / np.where(spread > 0, spread, 1.0)
    apart = ((z[:, None] - z[None, :]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :n]


TOP = (5, 10, 15, 20)
"""How many of the most used features are compared, as in the paper."""

Reading = tuple[np.ndarray, np.ndarray]
"""The features "picture feature" by which A and B are read: one matrix twice, or those of two
dictionaries with partners in the same place."""


@dataclass(frozen=True)
class Overlaps:
    """How far classes use the same features, averaged over readings, deals and meetings.

    across: a class in A with a class in B, "class class". within: each class with itself, between
    the halves of A and of B, "domain class". orders: for A and B, the other classes from the most
    to the least like a class in activity, "domain class class".
    """

    across: np.ndarray
    within: np.ndarray
    orders: np.ndarray

    def nulls(self, n: int, without: int = -1) -> np.ndarray:
        """Per class, the mean overlap with the n classes most like it in B, and in A.

        The class `without` is no match.
        """
        near = []
        for order in self.orders:
            first = order[:, : n + 1]
            last = np.argsort(first == without, axis=1, kind="stable")
            near.append(np.take_along_axis(first, last, axis=1)[:, :n])
        own = np.arange(len(self.across))[:, None]
        in_b, in_a = self.across[own, near[1]], self.across[near[0], own]
        return (in_b.mean(axis=1) + in_a.mean(axis=1)) / 2

    def terms(self, n_matched: int, without: int = -1) -> tuple[float, float, float]:
        """value, null and ceiling, with a class left out as itself and as a match of others."""
        n = len(self.across)
        kept = np.arange(n) != without
        null = self.nulls(min(n_matched, n - 1 - (without >= 0)), without)
        ends = self.within[:, kept].mean(axis=1)
        value = np.diag(self.across)[kept].mean()
        return float(value), float(null[kept].mean()), float(np.sqrt(ends[0] * ends[1]))


def overlaps(
    design: UsageDesign, readings: Sequence[Reading], measure: str, *, centred: bool
) -> Overlaps:
    """Measure every class against every other, and against itself within each domain."""
    overlap, n, domains = MEASURES[measure], len(design.classes), (design.a, design.b)
    keys: list[tuple[str, int]] = list(product(domains, (0, 1)))
    across, within, told = np.zeros((n, n)), np.zeros((2, n)), np.zeros((2, n, 2))
    for first, second in readings:
        told += [activity_of(design, first, design.a), activity_of(design, second, design.b)]
        for split in range(design.n_splits):
            one, other = (
                {key: _own(design.usage(activity, key[0], split, key[1]), centred)
                 for key in keys}
                for activity in (first, second)
            )  # fmt: skip
            for i, j in design.meetings:
                across += overlap(one[design.a, i], other[design.b, j]) / len(design.meetings)
            within += [np.diag(overlap(one[name, 0], other[name, 1])) for name in domains]
    times = design.n_splits * len(readings)
    orders = np.stack([nearest_classes(each, n - 1) for each in told])
    return Overlaps(across / times, within / times, orders)


def _own(usage: np.ndarray, centred: bool) -> np.ndarray:
    return np.maximum(usage - usage.mean(axis=0), 0) if centred else usage


def _shared_mass(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of what classes of A and B use, the part that is the same, "class class"."""
    p, q = (u / np.where((total := u.sum(axis=1, keepdims=True)) > 0, total, 1) for u in (a, b))
    both = (p.sum(axis=1)[:, None] + q.sum(axis=1)[None] - cdist(p, q, "cityblock")) / 2
    return both.round(12)  # equal but for rounding: a tie when classes are permuted


def _shared_top(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the most used features, the part that both have, "class class"."""
    sizes = [k for k in TOP if 2 * k <= a.shape[1]] or [max(1, a.shape[1] // 2)]
    return np.mean([most_used(a, k) @ most_used(b, k).T / k for k in sizes], axis=0)


MEASURES = {"shared mass": _shared_mass, "shared top features": _shared_top}


def most_used(usage: np.ndarray, k: int) -> np.ndarray:
    """1 for the k most used features of each row, 0 for others and for those not used at all.

    Of equally used features those that stand first are taken.

    >>> most_used(np.array([[0.0, 3.0, 1.0, 1.0], [0.0, 2.0, 0.0, 0.0]]), 2).tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    top = np.argsort(-usage, axis=1, kind="stable")[:, :k]
    found = np.zeros(usage.shape)
    np.put_along_axis(found, top, 1.0, axis=1)
    return found * (usage > 0)

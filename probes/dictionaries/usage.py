"""Usage of features: how much each class uses each one in two domains, on halves of artists.

From that follow their roles: features tell classes apart in both domains, or in one of them only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from interp.core.errors import NumericsError, SampleError, ShapeError, SiteError, check_known
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.probes.features.features import Features, check_domains
from interp.probes.representational_similarity.halved_pairs import HalvedPair

LEAST_CLASSES = 5


def only_site(features: Features, site: str) -> str:
    """A site's name, or the error that suggests others: a code belongs to one site, no pattern."""
    check_known("use a site's activations", "site", [site], features.sites, SiteError)
    return site


def checked_activity(made: object, n: int, name: str) -> np.ndarray:
    """A code's features in float64, or the error that says why they are none."""
    activity = np.asarray(made, dtype=np.float64)
    asked = f"use {name} as features"
    if activity.ndim != 2 or len(activity) != n or not activity.shape[1]:
        given = f"shape {activity.shape}"
        right = f"({n}, features), a row per picture"
        raise ShapeError(asked, given, right, "give a code that takes activations to such a matrix")
    if not np.isfinite(activity).all() or activity.min() < 0:
        given = "a NaN, an infinity or a negative number"
        do = "split signed coordinates into two, as `units` does"
        raise NumericsError(asked, given, "numbers of at least 0", do)
    return activity


def class_usage(
    pair: HalvedPair, activity: np.ndarray, domain: str, split: int, half: int
) -> np.ndarray:
    """Mean activity "class feature" over the pictures of a half."""
    return pair.means(activity, pair.rows(domain, split, half))


def activity_of(pair: HalvedPair, activity: np.ndarray, domain: str) -> np.ndarray:
    """What classes are matched on in a domain: active features and mass a picture, "class 2"."""
    told = np.column_stack([(activity > 0).sum(axis=1), activity.sum(axis=1)])
    return pair.means(told, pair.everyone(domain))


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

    def drawn(self, n_matched: int, n: int, seed: int) -> np.ndarray:
        """The value with a class like it in place of each class, in A or in B, n times: "draw"."""
        size, generator = len(self.across), rng("matched classes", seed)
        own = np.arange(size)
        near = self.orders[:, :, : min(n_matched, size - 1)]
        found = np.empty(n)
        for place in range(n):
            chosen = near[:, own, generator.integers(near.shape[2], size=size)]
            in_b = generator.random(size) < 0.5
            pairs = np.where(in_b, own, chosen[0]), np.where(in_b, chosen[1], own)
            found[place] = self.across[pairs].mean()
        return found

    def terms(self, n_matched: int, without: int = -1) -> tuple[float, float, float]:
        """value, null and ceiling, with a class left out as itself and as a match of others."""
        n = len(self.across)
        kept = np.arange(n) != without
        null = self.nulls(min(n_matched, n - 1 - (without >= 0)), without)
        ends = self.within[:, kept].mean(axis=1)
        value = np.diag(self.across)[kept].mean()
        return float(value), float(null[kept].mean()), float(np.sqrt(ends[0] * ends[1]))


def overlaps(
    pair: HalvedPair, readings: Sequence[Reading], measure: str, *, centred: bool
) -> Overlaps:
    """Measure every class against every other, and against itself within each domain."""
    overlap, n, domains = MEASURES[measure], len(pair.classes), (pair.a, pair.b)
    across, within, told = np.zeros((n, n)), np.zeros((2, n)), np.zeros((2, n, 2))
    for first, second in readings:
        told += [activity_of(pair, first, pair.a), activity_of(pair, second, pair.b)]
        for split in range(len(pair.deals)):
            one, other = (
                {
                    (name, half): _own(class_usage(pair, activity, name, split, half), centred)
                    for name, half in product(domains, (0, 1))
                }
                for activity in (first, second)
            )
            for i, j in pair.meetings:
                across += overlap(one[pair.a, i], other[pair.b, j]) / len(pair.meetings)
            within += [np.diag(overlap(one[name, 0], other[name, 1])) for name in domains]
    times = len(pair.deals) * len(readings)
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


SHARED_FROM, PRIVATE_TO = 0.5, 0.2
"""Agreement from which a feature is shared; what of its class means may recur if it is private."""

IN_USE = 0.95
"""Features are in use that together carry this part of a domain's class variance."""


@dataclass(frozen=True)
class Roles:
    """Per feature: share of the class variance in A and in B, agreement, and what follows."""

    used_a: np.ndarray
    used_b: np.ndarray
    agreement: np.ndarray
    shared: np.ndarray
    private_a: np.ndarray
    private_b: np.ndarray


@door
def feature_roles(
    features: Features,
    site: str,
    code: Callable[[np.ndarray], np.ndarray],
    *,
    domain_a: str,
    domain_b: str,
    n_splits: int = 5,
    seed: int = 0,
) -> Table:
    """List for each feature the class variance it carries in either domain, and its role.

        used_a    = cov(m_A1, m_A2), positive part, divided by its sum over features; used_b alike
        agreement = cov(m_A, m_B) / sqrt(cov(m_A1, m_A2) cov(m_B1, m_B2))

    with m the means of a feature over classes, and 1 and 2 halves of the pictures by other artists.
    Covariances are averaged over deals, and over halves of A and B that share no artist.

    Args:
        features: Features "picture d_in" of pictures with labels and domains.
        site: The site.
        code: From "picture d_in" to "picture feature", all at least 0.
        domain_a: Domain A.
        domain_b: Domain B.
        n_splits: Deals of artists that are averaged.
        seed: Seed of the deals.

    Returns:
        A table with a row per feature. `role` is "shared", "private to" a domain, or empty.

    Raises:
        SampleError: For fewer than five classes by two artists in both domains.
        SiteError: For a site that the features do not have.
        DataError: For an unknown domain.
        NumericsError: For features that are negative or not finite.
        ShapeError: For features that are not "picture feature".

    Notes:
        - A feature is in use in a domain where it is among the fewest that carry 95 % of the class
          variance. It is shared if it is in use in both domains with an agreement of at least .5.
          It is private to A if it is in use in A, not in B, and cov(m_A, m_B) is at most .2
          cov(m_A1, m_A2).
        - Roles serve to choose features, as for `ablate_shared`. How much two domains share is
          measured by `feature_sharing`.

    >>> frame = pd.DataFrame([(c, d, a) for c in "abcde" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcde")}).to_numpy()
    >>> features = Features({"site": np.eye(5)[place] * [1, 1, 1, 1, 0]}, frame)
    >>> table = feature_roles(features, "site", lambda x: x, domain_a="real", domain_b="sketch")
    >>> table.frame["role"].tolist()
    ['shared', 'shared', 'shared', 'shared', '']
    """
    name = only_site(features, site)
    check_domains(features, [domain_a, domain_b], "find roles")
    activity = checked_activity(code(features.values[name]), len(features), "the code")
    pair = HalvedPair.of(features.frame, domain_a, domain_b, n_splits=n_splits, seed=seed)
    found = roles(pair, activity)
    role = np.select(
        [found.shared, found.private_a, found.private_b],
        ["shared", f"private to {domain_a}", f"private to {domain_b}"],
        "",
    )
    frame = pd.DataFrame({
        "site": name, "layer": features.layer(name), "feature": np.arange(activity.shape[1]),
        "domain_a": domain_a, "domain_b": domain_b, "used_a": found.used_a,
        "used_b": found.used_b, "agreement": found.agreement, "role": role,
        "n_units": len(pair.classes), "n_pictures": pair.counts["n_pictures"], "seed": seed,
        "reason": np.where(np.isnan(found.agreement), "does not tell classes apart in both", ""),
    })  # fmt: skip
    return Table("feature roles", frame, dict(features.facts))


def roles(pair: HalvedPair, activity: np.ndarray) -> Roles:
    """The roles of features "picture feature"."""
    if len(pair.classes) < LEAST_CLASSES:
        given = f"{len(pair.classes)} classes by two artists in both domains"
        do = "give more classes, or pictures by more artists"
        raise SampleError("find the roles of features", given, f"at least {LEAST_CLASSES}", do)
    in_a, in_b, both = np.zeros((3, activity.shape[1]))
    a, b = pair.a, pair.b
    for split in range(len(pair.deals)):
        own = {
            (name, half): class_usage(pair, activity, name, split, half)
            for name in (a, b)
            for half in (0, 1)
        }
        in_a += _covariance(own[a, 0], own[a, 1])
        in_b += _covariance(own[b, 0], own[b, 1])
        for i, j in pair.meetings:
            both += _covariance(own[a, i], own[b, j]) / len(pair.meetings)
    known = (in_a > 0) & (in_b > 0)
    agreement = np.where(known, both / np.sqrt(np.where(known, in_a * in_b, 1)), np.nan)
    used_a, used_b = _share(in_a), _share(in_b)
    on_a, on_b = _in_use(used_a), _in_use(used_b)
    return Roles(
        used_a,
        used_b,
        agreement,
        on_a & on_b & (np.nan_to_num(agreement) >= SHARED_FROM),
        on_a & ~on_b & (both <= PRIVATE_TO * in_a),
        on_b & ~on_a & (both <= PRIVATE_TO * in_b),
    )


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over classes, of each feature."""
    return ((a - a.mean(axis=0)) * (b - b.mean(axis=0))).sum(axis=0) / (len(a) - 1)


def _share(variance: np.ndarray) -> np.ndarray:
    kept = np.maximum(variance, 0)
    return kept / kept.sum() if kept.sum() > 0 else kept


def _in_use(share: np.ndarray) -> np.ndarray:
    """The fewest features that carry `IN_USE` of the whole."""
    order = np.argsort(-share, kind="stable")
    before = np.cumsum(share[order]) - share[order]
    used = np.zeros(len(share), dtype=bool)
    used[order] = (before < IN_USE) & (share[order] > 0)
    return used

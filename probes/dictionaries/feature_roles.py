"""Roles of features: which tell classes apart in two domains, and which in one of them only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.errors import SampleError
from interp.core.faces.doors import door
from interp.core.tables import Table
from interp.probes.dictionaries.feature_sharing import LEAST_CLASSES
from interp.probes.dictionaries.usage import checked_activity, class_usage, only_site
from interp.probes.features.features import Features, check_domains
from interp.probes.representational_similarity.halved_pairs import HalvedPair

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
    in_a, in_b, both = (np.zeros(activity.shape[1]) for _ in range(3))
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
    least = in_a * in_b
    known = (in_a > 0) & (in_b > 0)
    agreement = np.where(known, both / np.sqrt(np.where(known, least, 1)), np.nan)
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

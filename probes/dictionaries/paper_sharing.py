"""Feature sharing as Kempf et al. 2025 measured it: the features that top a class's histogram."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from interp.core.errors import SampleError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.statistics.evidence_rows import Evidence, counts_of
from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table
from interp.probes.dictionaries.usage import TOP, checked_activity, most_used, only_site
from interp.probes.features.matrices import Features, check_domains

STRONGEST = 20


@door
def paper_feature_sharing(
    features: Features,
    code: Callable[[np.ndarray], np.ndarray],
    site: str = "hook_embedding",
    *,
    domains: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> Table:
    """Measure the paper's overlap of features, for every pair of domains and for every domain.

        share(a, b) = mean over classes and k in {5, 10, 15, 20} of
                      |top k of H[c, a] and of H[c, b]| / k

    H[c, d] counts, for each feature, the pictures of class c in domain d that have it among their
    20 strongest active features.

    Args:
        features: Features "picture d_in" of pictures with labels and domains.
        code: From activations "picture d_in" to features "picture feature", all at least 0.
        site: The site; the default is the paper's.
        domains: Domains to compare, at least two; None takes all.
        labels: Classes that are averaged (the paper's are the held-out ones); None takes all that
            both domains have.

    Returns:
        A table with a row per pair of domains, and one per `test_domain`: its mean share with the
        other domains.

    Raises:
        SpecificationError: For fewer than 20 features or two domains.
        SampleError: Where two domains have no class in common.
        SiteError: For a site that the features do not have.
        DataError: For an unknown domain or class.
        NumericsError: For features that are negative or not finite.
        ShapeError: For features that are not "picture feature".

    References:
        Kempf et al. 2025, arXiv 2502.09507.

    Notes:
        - Of features that are counted equally often the stronger is taken; taking the first would
          make domains alike where pictures are few. A feature that is never counted is never taken.
        - Intervals leave one class out at a time.
        - The null is the paper's, random sets of features. A feature that is on for everything
          exceeds it; `feature_sharing` has a better null.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"] * 2, "domain": ["real"] * 2 + ["sketch"] * 2})
    >>> own = np.kron(np.eye(2), np.ones(20))
    >>> features = Features({"hook_embedding": np.vstack([own, own[::-1]])}, frame)
    >>> paper_feature_sharing(features, lambda x: x).frame["value"].tolist()
    [0.0, 0.0, 0.0]
    """
    asked = "measure the paper's feature sharing"
    name = only_site(features, site)
    names = check_domains(features, domains, asked)
    wanted = sorted(set(features.frame["label"])) if labels is None else sorted(set(labels))
    check_known(asked, "class", wanted, set(features.frame["label"]))
    activity = checked_activity(code(features.values[name]), len(features), "the code")
    if activity.shape[1] < STRONGEST or len(names) < 2:
        raise SpecificationError(
            asked,
            f"{activity.shape[1]} features and the domains {listed(names)}",
            f"at least {STRONGEST} features and two domains",
            "give a wider code or more domains",
        )
    counted = _counted(activity)
    shares = {
        (a, b): _shares(counted, features.frame, a, b, wanted) for a, b in combinations(names, 2)
    }
    groups = {(a, b, ""): share.to_frame() for (a, b), share in shares.items()}
    for test in names:
        own = [share for pair, share in shares.items() if test in pair]
        groups["", "", test] = pd.concat(own, axis=1)
    width = activity.shape[1]
    rows = [_row(features, key, group, wanted, width) for key, group in groups.items()]
    frame = pd.DataFrame(rows).assign(
        measure="paper's shared features", site=name, layer=features.layer(name), width=width
    )
    return Table.with_evidence("paper feature sharing", frame, dict(features.facts))


def _counted(activity: np.ndarray) -> np.ndarray:
    """1 and a little for each picture's strongest features: summed, counts with ties broken.

    What is added comes to less than 1 over all pictures.
    """
    strongest = most_used(activity, STRONGEST)
    small = 1 / (2 * len(activity) * max(float(activity.max()), 1e-300))
    return strongest * (1 + small * activity)


def _shares(
    counted: np.ndarray, frame: pd.DataFrame, a: str, b: str, wanted: Sequence[str]
) -> pd.Series:
    """The share of each wanted class that both domains have."""
    cells = {
        (label, domain): counted[rows].sum(axis=0)
        for (label, domain), rows in frame.groupby(["label", "domain"]).indices.items()
    }
    labels = [label for label in wanted if (label, a) in cells and (label, b) in cells]
    if not labels:
        raise SampleError(
            "measure the paper's feature sharing",
            f"no class that {a} and {b} both have",
            "at least one",
            "choose other domains or classes",
        )
    first, second = (np.stack([cells[label, name] for label in labels]) for name in (a, b))
    each = [(most_used(first, k) * most_used(second, k)).sum(axis=1) / k for k in TOP]
    return pd.Series(np.mean(each, axis=0), index=labels, name=f"{a}, {b}")


def _row(
    features: Features,
    key: tuple[str, str, str],
    group: pd.DataFrame,
    wanted: Sequence[str],
    width: int,
) -> dict[str, object]:
    """A pair of domains, or a test domain with a column for each other one."""
    value = group.mean(axis=0).mean()
    left = [group.drop(index=label).mean(axis=0).mean() for label in group.index]
    a, b, test = key
    domains = set(features.frame["domain"]) if test else {a, b}
    part = features.frame[
        features.frame["label"].isin(group.index) & features.frame["domain"].isin(domains)
    ]
    fewer = len(wanted) - len(group.dropna())
    notes = ["no ceiling and no index: the paper has none"]
    notes += [f"{fewer} classes are missing in some domain"] if fewer else []
    about = Evidence(
        estimand="features that top a class's histogram in both domains",
        seed=0,
        null_kind="random sets of features of the same sizes",
        **counts_of(part, len(group)),
    )
    spread = jackknife(float(value), left if len(left) > 1 else [])
    return {"domain_a": a, "domain_b": b, "test_domain": test} | about.row(
        spread, null=float(np.mean(TOP)) / width, reason="; ".join(notes)
    )

"""Sharing of features: how far a class uses the same ones in two domains, with null and ceiling.

A code (a dictionary, raw units, principal components) gives every picture some features. What a
class uses is their mean over its pictures; what two domains share is how far these means agree.
Features that are on for everything agree too, so another class sets the null.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd

from interp.core.artists import artist_column
from interp.core.errors import SampleError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.statistics.evidence_rows import Counts, Evidence, counts_of
from interp.core.statistics.resampling import Interval, jackknife, permutation_p
from interp.core.tables import Table
from interp.probes.dictionaries.dictionary import Dictionary
from interp.probes.dictionaries.dictionary_quality import match_features
from interp.probes.dictionaries.usage import (
    LEAST_CLASSES,
    MEASURES,
    TOP,
    Overlaps,
    Reading,
    checked_activity,
    most_used,
    only_site,
    overlaps,
)
from interp.probes.features.features import PIXELS, Features, check_domains
from interp.probes.representational_similarity.halved_pairs import HalvedPair, refuse_few_classes

AnyCode = Callable[[np.ndarray], np.ndarray] | Sequence[Dictionary]
"""What takes "picture d_in" to "picture feature", all at least 0, or one dictionary per seed."""

READ_ALIKE, READ_APART = "one code", "dictionaries of two seeds"
ESTIMAND = "features that a class uses in both domains, less what any class would (rung R5)"


@door
def feature_sharing(
    features: Features,
    site: str,
    codes: Mapping[str, AnyCode],
    *,
    domains: Sequence[str] | None = None,
    n_matched: int = 5,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
) -> Table:
    """Measure how far classes use the same features in two domains, for each code.

        shared mass          = sum over features of min(p, q), p and q being u divided by its sum
        shared top features  = mean over k of |k most used of both| / k,  k = 5, 10, 15, 20 (those
                               up to half of the features)

        value   = mean over classes of overlap(c in A, c in B)
        null    = the same with c' instead of c in one of the domains
        ceiling = geometric mean over the domains of overlap(c, c) between halves of one domain
        index   = (value - null) / (ceiling - null)

    u[c, d] is the mean activity of each feature over the pictures of class c in domain d and, where
    `centred`, what of it exceeds the domain's mean over classes.

    Args:
        features: Features "picture d_in" of pictures with labels and domains.
        site: The site.
        codes: Codes by name: each takes "picture d_in" to "picture feature", all at least 0, or is
            a list of dictionaries of one width, one per seed.
        domains: Domains to compare, pair by pair; None takes all.
        n_matched: Other classes c' that make the null of a class: those most like it in the domain
            in firing rate (active features a picture) and mass (summed activity).
        n_splits: Deals of artists that are averaged.
        n_permutations: Draws of like classes for p.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.

    Returns:
        A table with a row per code, pair of domains, measure, `centred` and `reading`.

    Raises:
        SampleError: Where no pair of domains has five classes by two artists in both.
        SiteError: For a site that the features do not have.
        DataError: For an unknown domain.
        NumericsError: For features that are negative or not finite.
        ShapeError: For features that are not "picture feature".
        SpecificationError: For `n_matched` or `n_splits` below 1, or dictionaries of several widths
            under one name.

    Notes:
        - Artists are dealt into halves as in `similarity`, and halves of A and B that share an
          artist do not meet.
        - Intervals leave out one class at a time, as itself and as a match. p puts one
          of the matched classes, in A or in B, in place of every class, `n_permutations` times.
        - Dictionaries of several seeds are measured one by one and averaged. They also get rows
          with the `reading` "dictionaries of two seeds": value, null and ceiling again, with one of
          the two halves always read by another seed's dictionary, whose features are matched by
          `match_features`. The ceiling of these rows is what can agree, given that seeds differ.
        - Features of a domain that are loud lower the raw overlap, but not the centred one.

    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = np.eye(8)[place] + 0.1 * generator.random((64, 8))
    >>> table = feature_sharing(Features({"site": points}, frame), "site", {"as is": lambda x: x})
    >>> table.frame.query("centred and measure == 'shared mass'")["verdict"].tolist()
    ['shared']
    """
    if n_matched < 1 or n_splits < 1:
        given = f"n_matched={n_matched}, n_splits={n_splits}"
        right = "at least 1 of each"
        raise SpecificationError("measure feature sharing", given, right, "ask for more")
    name, pairs = _pairs(features, site, domains, n_splits, seed)
    rows = []
    for label, code in track(list(codes.items()), "feature sharing"):
        for read, readings in _readings(features.values[name], label, code).items():
            for pair, measure, centred in product(pairs, MEASURES, (True, False)):
                found = overlaps(pair, readings, measure, centred=centred)
                rows.append(
                    {"measure": measure, "code": label, "width": readings[0][0].shape[1]}
                    | {"reading": read, "domain_a": pair.a, "domain_b": pair.b}
                    | {"centred": centred}
                    | _evidence(pair, found, n_matched, n_permutations, seed)
                )
    place = {"site": name, "layer": features.layer(name), "depth": features.depth(name)}
    frame = pd.DataFrame(rows).assign(**place)
    frame["control"] = "pixels" if name == PIXELS else control
    facts = {**features.facts, "n_matched": n_matched, "n_splits": n_splits}
    return Table.with_evidence("feature sharing", frame, facts)


@door
def class_sharing(
    features: Features,
    site: str,
    code: AnyCode,
    *,
    domains: Sequence[str] | None = None,
    n_matched: int = 5,
    n_splits: int = 5,
    seed: int = 0,
) -> Table:
    """Measure the centred shared mass of `feature_sharing` for each class by itself.

    Args:
        features: Features "picture d_in" of pictures with labels and domains.
        site: The site.
        code: From "picture d_in" to "picture feature", all at least 0, or a list of dictionaries of
            one width, one per seed.
        domains: Domains to compare, pair by pair; None takes all.
        n_matched: Other classes that make the null of a class.
        n_splits: Deals of artists that are averaged.
        seed: Seed of the deals.

    Returns:
        A table with a row per class and pair of domains. Value, null and ceiling are the class's
        own terms of the means in `feature_sharing`.

    Raises:
        SampleError: Where no pair of domains has five classes by two artists in both.
        SiteError: For a site that the features do not have.
        DataError: For an unknown domain.
        NumericsError: For features that are negative or not finite.
        ShapeError: For features that are not "picture feature".
        SpecificationError: For dictionaries of several widths.

    Notes:
        One class has no interval; `feature_sharing` has the interval over classes.

    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> features = Features({"site": np.eye(8)[place]}, frame)
    >>> class_sharing(features, "site", lambda x: x).frame["index"].tolist()[:2]
    [1.0, 1.0]
    """
    name, pairs = _pairs(features, site, domains, n_splits, seed)
    readings = _readings(features.values[name], "the code", code)[READ_ALIKE]
    rows = []
    for pair in pairs:
        found = overlaps(pair, readings, "shared mass", centred=True)
        null = found.nulls(min(n_matched, len(pair.classes) - 1))
        ceiling, value = np.sqrt(found.within.prod(axis=0)), np.diag(found.across)
        rows_of = np.concatenate([pair.everyone(each) for each in (pair.a, pair.b)])
        n_pictures = np.bincount(pair.code[rows_of], minlength=len(value))
        for place, label in enumerate(pair.classes):
            room = float(ceiling[place] - null[place])
            index = float(value[place] - null[place]) / room if room > 0 else np.nan
            why = "" if room > 0 else ", no index: its halves agree no more than other classes do"
            counts: Counts = {"n_units": 1, "n_pictures": int(n_pictures[place])}
            rows.append(
                {"measure": "shared mass", "label": label, "centred": True}
                | {"domain_a": pair.a, "domain_b": pair.b}
                | _about(pair.frame, n_matched, seed, counts).row(
                    Interval(float(value[place]), np.nan, np.nan, np.nan),
                    null=float(null[place]),
                    ceiling=float(ceiling[place]),
                    index=index,
                    reason=f"one class: no interval{why}",
                )
            )
    frame = pd.DataFrame(rows).assign(site=name, layer=features.layer(name))
    return Table.with_evidence("class sharing", frame, dict(features.facts))


def _pairs(
    features: Features, site: str, domains: Sequence[str] | None, n_splits: int, seed: int
) -> tuple[str, list[HalvedPair]]:
    """The site's name, and who is compared in each pair of domains."""
    asked = "measure feature sharing"
    name, frame = only_site(features, site), features.frame
    both = combinations(check_domains(features, domains, asked), 2)
    pairs = [HalvedPair.of(frame, a, b, n_splits=n_splits, seed=seed) for a, b in both]
    refuse_few_classes([len(pair.classes) for pair in pairs], LEAST_CLASSES, asked)
    return name, pairs


def _readings(values: np.ndarray, label: str, code: AnyCode) -> dict[str, list[Reading]]:
    """Both domains read by one code; and by dictionaries of two seeds, if there are several."""
    if callable(code):
        activity = checked_activity(code(values), len(values), label)
        return {READ_ALIKE: [(activity, activity)]}
    several = list(code)
    widths = {each.width for each in several}
    if len(widths) != 1:
        given = f"dictionaries of {listed(each.width for each in several)} features"
        right = "one dictionary per seed, all of one width"
        do = "give dictionaries of other widths apart"
        raise SpecificationError(f"use {label} as features", given, right, do)
    made = [checked_activity(each(values), len(values), label) for each in several]
    readings = {READ_ALIKE: [(activity, activity) for activity in made]}
    if len(made) > 1:
        readings[READ_APART] = [
            (made[i], made[j][:, match_features(several[i], several[j])[0]])
            for i, j in permutations(range(len(made)), 2)
        ]
    return readings


def _evidence(
    pair: HalvedPair, found: Overlaps, n_matched: int, n_permutations: int, seed: int
) -> dict[str, object]:
    """Value, null, ceiling, index and p of one measure, or the reason for none."""
    n, few, p = len(pair.classes), pair.too_few(LEAST_CLASSES), np.nan
    terms = np.full((1, 3), np.nan)
    if not few:
        terms = np.array([found.terms(n_matched, one) for one in range(-1, n)])
        p = permutation_p(terms[0, 0], found.drawn(n_matched, n_permutations, seed))
    about = _about(pair.frame, n_matched, seed, pair.counts)
    return about.with_verdict(terms, p=p, refused=few, notes=[pair.fewer])


def _about(frame: pd.DataFrame, n_matched: int, seed: int, counts: Counts) -> Evidence:
    """What all rows have in common."""
    return Evidence(
        estimand=ESTIMAND,
        seed=seed,
        **counts,
        null_kind=f"the {n_matched} other classes nearest in firing rate and mass; p puts one of "
        "them in place of each class",
        ceiling_kind=f"halves of a domain by {artist_column(frame)}, "
        "geometric mean of both domains",
    )


STRONGEST = 20
PAPER = "measure the paper's feature sharing"


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
    name = only_site(features, site)
    names = check_domains(features, domains, PAPER)
    wanted = sorted(set(features.frame["label"])) if labels is None else sorted(set(labels))
    check_known(PAPER, "class", wanted, set(features.frame["label"]))
    activity = checked_activity(code(features.values[name]), len(features), "the code")
    if activity.shape[1] < STRONGEST or len(names) < 2:
        given = f"{activity.shape[1]} features and the domains {listed(names)}"
        right = f"at least {STRONGEST} features and two domains"
        raise SpecificationError(PAPER, given, right, "give a wider code or more domains")
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

    >>> _counted(np.array([[2.0, 0.0], [2.0, 0.0]])).sum(axis=0).tolist()
    [2.5, 0.0]
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
        given = f"no class that {a} and {b} both have"
        do = "choose other domains or classes"
        raise SampleError("measure the paper's feature sharing", given, "at least one", do)
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

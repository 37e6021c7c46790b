"""Do two domains arrange the classes alike, layer by layer? Any measure, with null and ceiling."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.artists import artist_column, meeting_halves
from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say, track
from interp.core.statistics.resampling import CANNOT_TELL, Index, jackknife, sharing_index
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.features.collecting import as_features
from interp.probes.features.matrices import PIXELS, Features, check_domains
from interp.probes.representational_similarity.arrangements import (
    CROSS_VALIDATED,
    MOST_PAIRS,
    check_arrangement,
    title,
)
from interp.probes.representational_similarity.between_layers import same_pictures
from interp.probes.representational_similarity.comparison import LEAST_CLASSES, Comparison, compare
from interp.probes.representational_similarity.design import ComparisonDesign
from interp.probes.representational_similarity.measures import MEASURES
from interp.probes.representational_similarity.reordered import NULL_DRAWS, foretell_reordering

ESTIMANDS = {
    "class mean": "similarity between two domains of the arrangement of class means (rung R2)",
    "class structure": "similarity between two domains of class means and within-class covariances",
    "picture pair": "similarity between two domains of pictures paired by class",
}
NULL_KIND = (
    "whole classes of domain_b permuted, {mean}; p adjusted by max-T over the layers of a domain "
    "pair"
)


def comparison_rows(
    features: Features,
    other: Features,
    comparison: Comparison,
    design: ComparisonDesign,
    control: str,
) -> list[dict[str, object]]:
    """Table rows of one domain pair, a dict of columns for each pair of sites."""
    hand = artist_column(features.frame)
    sites, others = range(len(features.sites)), range(len(other.sites))
    cells = [(s, s) for s in sites] if design.layers == "same" else list(product(sites, others))
    name = title(design.measure)
    ceiling_kind, null_kind = _kinds(design)
    rows = []
    for s, t in cells:
        site, site_b = features.sites[s], other.sites[t]
        place: dict[str, object] = {"measure": name, "site": site}
        place |= {"layer": features.layer(site), "depth": features.depth(site)}
        if design.layers == "all":
            place |= {"site_b": site_b, "layer_b": other.layer(site_b)}
            place |= {"depth_b": other.depth(site_b)}
        p = float(comparison.p[0 if design.layers == "all" else 1, s, t])
        rows.append(
            place
            | {"domain_a": comparison.a, "domain_b": comparison.b}
            | _evidence(comparison, design, s, t)
            | {
                "p": p,
                "null_kind": null_kind,
                "ceiling_kind": f"{ceiling_kind}; halves by {hand}, equal n",
                "unit": "class",
                "n_units": len(comparison.classes),
                "n_pictures": comparison.n_pictures,
                "n_drawings": comparison.n_drawings,
                "estimand": ESTIMANDS[design.rows],
                "control": "pixels" if PIXELS in (site, site_b) else control,
            }
        )
    return rows


def _kinds(design: ComparisonDesign) -> tuple[str, str]:
    """What ceiling and null are, in words."""
    name = title(design.measure)
    ceiling = f"geometric mean of {name}(A1,A2), {name}(B1,B2)"
    if design.measure == CROSS_VALIDATED:
        ceiling = "1 by construction: scaled by HSIC(A1,A2), HSIC(B1,B2)"
    elif design.measure == "cka":
        ceiling = "geometric mean of CKA(A1,A2), CKA(B1,B2)"
    elif not MEASURES[design.measure].symmetric:
        ceiling += ", over both directions"
    mean = "the exact expectation"
    if not design.by_matrix:
        few = min(NULL_DRAWS, design.n_permutations)
        mean = (
            f"the mean of {design.n_permutations} drawn, with a class left out moved by the mean "
            f"change of {few} of them"
        )
    return ceiling, NULL_KIND.format(mean=mean)


def _evidence(
    comparison: Comparison, design: ComparisonDesign, s: int, t: int
) -> dict[str, object]:
    """Value, ceiling, index, intervals and verdict of a site pair, or the reason for none."""
    reason = _reason(comparison, s, t)
    missing, found = np.nan if reason else 0.0, comparison.found
    value = np.r_[found.value[s, t], found.value_left[:, s, t]] + missing
    null = np.r_[found.null[s, t], found.null_left[:, s, t]] + missing
    ends = [
        np.r_[found.within[side][place], found.within_left[side][:, place]]
        for side, place in ((0, s), (1, t))
    ]
    ceiling = _root(*ends) + missing
    scaled, full = value, ceiling
    if design.measure == CROSS_VALIDATED:
        scaled = np.divide(value, ceiling, out=np.full_like(value, np.nan), where=ceiling > 0)
        full = np.where(ceiling > 0, 1.0, np.nan) + missing
    # an R^2 without relation is below 0, so that a ceiling of 0 would pass for one above the null
    unlike = not reason and not ceiling[0] > 0
    if unlike and (design.measure == CROSS_VALIDATED or null[0] < 0):
        reason = "halves of a domain do not agree"
    spread = jackknife(float(scaled[0]), scaled[1:])
    if reason:
        index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, reason)
    else:
        triples = np.column_stack([value, null, ceiling])
        index = sharing_index(*map(float, triples[0]), left_out=triples[1:])
    fewer = f"{comparison.left_out} classes left out: not by two artists in both domains"
    notes = [index.reason, fewer if comparison.left_out and not reason else ""]
    return {
        "value": spread.value,
        "low": spread.low,
        "high": spread.high,
        "null": float(null[0]),
        "ceiling": float(full[0]),
        "index": index.value,
        "index_low": index.low,
        "index_high": index.high,
        "verdict": index.verdict,
        "reason": "; ".join(note for note in notes if note),
    }


def _root(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Geometric mean; 0 where a half says nothing about the other, which refuses the index."""
    return np.asarray(np.sqrt(np.maximum(a, 0) * np.maximum(b, 0)))


def _reason(comparison: Comparison, s: int, t: int) -> str:
    found = comparison.found
    if found.refused[s, t]:
        return str(found.refused[s, t])
    sides = ((comparison.a, found.failed[0][s]), (comparison.b, found.failed[1][t]))
    failed = {name: why for name, why in sides if why}
    return "; ".join(
        f"{why} in {listed(name for name in failed if failed[name] == why)}"
        for why in dict.fromkeys(failed.values())
    )


def null_deviation(n_classes: int) -> float:
    """Standard deviation of debiased CKA between unrelated class means: sqrt(2 / (n (n - 3))).

    Two U-centred matrices of length 1 have n (n - 3) / 2 free entries, and the inner product of
    unrelated ones has the deviation of a mean of so many. The width of the features does not
    matter, nor their spectrum to first order: it cancels between HSIC and its scale.

    >>> round(null_deviation(15), 3)
    0.105
    """
    if n_classes < 4:
        raise SpecificationError(
            "foretell the deviation of CKA",
            f"{n_classes} classes",
            "at least 4",
            "give more classes",
        )
    return math.sqrt(2 / (n_classes * (n_classes - 3)))


def classes_needed(width: float, *, ceiling: float = 1.0) -> int:
    """Fewest classes at which the index of unrelated domains has a 95 % interval of some width.

    A jackknife interval of the index is 2 t sqrt(2) null_deviation(n) / ceiling wide (t the 97.5 %
    quantile of Student's t with n - 1 degrees). The index is withheld unless the ceiling, the CKA
    that two halves of one domain reach, is three deviations above 0. For a verdict "not shared"
    the interval must end below .2, so that a width of .4 is the most that can decide.

    >>> classes_needed(0.4), classes_needed(0.4, ceiling=0.5)
    (23, 42)
    """
    if not (width > 0 and 0 < ceiling <= 1):
        raise SpecificationError(
            "foretell the classes needed",
            f"width={width}, ceiling={ceiling}",
            "a width above 0 and a ceiling above 0, at most 1",
            "say width=0.4",
        )
    n = 5
    while interval_width(n, ceiling=ceiling) > width or ceiling < 3 * null_deviation(n):
        n += 1
    return n


def interval_width(n_classes: int, *, ceiling: float = 1.0) -> float:
    """Width of the 95 % interval of an index of unrelated domains, foretold.

    The jackknife doubles the variance of a sum over pairs of unrelated classes, hence the root.

    >>> round(interval_width(45), 2)
    0.19
    """
    reach = float(stats.t.ppf(0.975, n_classes - 1))
    return 2 * reach * math.sqrt(2) * null_deviation(n_classes) / ceiling


def similarity(
    source: Tower | Features,
    images: ImageTable | None = None,
    sites: str | Iterable[str] | None = None,
    *,
    measure: str = "cka",
    rows: str = "class mean",
    other: Features | None = None,
    other_name: str = "other",
    preprocess: Preprocess | None = None,
    pool: str = "mean",
    layers: str = "same",
    domains: Sequence[str] | None = None,
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
    control: str = "",
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Table:
    """Similarity between domains of class means, per site and pair of domains, with its evidence.

    Rows of the compared matrices are classes that both domains have. Each class's artists are dealt
    into halves 1 and 2 (the same deal in both domains, equally many pictures in each), so that

        value   = mean of the m(A_i, B_j) that share no artist
        ceiling = sqrt(m(A_1, A_2) m(B_1, B_2))
        null    = mean of the value over permutations of B's classes
        index   = (value - null) / (ceiling - null)

    averaged over `n_splits` deals (the two under the root before the root is taken), m debiased
    CKA, or the `measure` of a name in `MEASURES`. Intervals leave one class out at a time, of value
    and of the whole index. p counts permutations of whole classes whose largest studentised value
    over the layers of the domain pair reaches this one's. Where artists drew in both domains, A_1
    and B_1 share their drawings while the ceiling's A_1 and A_2 do not; counting them, domains that
    share nothing but marks of the drawing reach an index of .3, and domains that share all reach 2.
    So A_1 meets B_2 and A_2 meets B_1 only; with different artists in the two domains all four
    meet. An index is not clipped.

    The null of a measure that is an inner product of matrices of rows (CKA linear and RBF, biased
    too, RSA, mutual k-NN) is its exact mean over permutations of classes, 0 for debiased CKA. The
    others (Procrustes, SVCCA, PWCCA, linear predictivity, minibatch CKA) are taken anew in each
    order of the classes; how often and for how long is said beforehand. Their null is the mean over
    the `n_permutations`, and with a class left out that null moved by how 20 of the permutations
    change. PWCCA and predictivity, which differ by direction, are averaged over both directions,
    in value, null and ceiling alike; predictivity deals whole classes into folds. SVCCA and PWCCA
    are refused where two halves together keep as many dimensions as there are classes, since they
    are then 1 whatever the data; linear predictivity finds nothing in halves of a domain where the
    classes of the training folds do not span the others, and then has no index.

    "cross_validated_cka" is HSIC(A_i, B_j) / sqrt(HSIC(A_1, A_2) HSIC(B_1, B_2)), means over
    deals, with ceiling 1 and not clipped. `rows`:

        "class mean"       a row per class
        "picture pair"     up to 8 pictures of A, each with one of B of its class, no artist common
                           to both; classes move as blocks in the null, which is above 0
        "class structure"  no pairs of pictures: kernels between classes of means <m_c, m_d> and of
                           within-class covariances tr(C_c C_d), in units of the variance; CKA alone

    `other` takes domain B from another model's features of the same pictures: then domains meet
    themselves too, and A_1 its B_2. `layers="same"` compares a site with itself, `"all"` every
    site of A with every site of B (columns `site` and `site_b`). `control` names a floor, such as
    "epoch 0"; pixels name themselves. A pair that cannot be measured is a row with a `reason`. The
    deviation of CKA without sharing at this number of classes is said beforehand
    (`classes_needed`).

    Shapes: features "picture d"; CKA of 45 classes, 17 sites, 15 pairs takes seconds on one core.
    Raises `SampleError` when no pair has five classes with pictures by two artists in both domains.

    >>> import numpy as np
    >>> generator = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = generator.normal(size=(8, 16))[place] + 0.1 * generator.normal(size=(64, 16))
    >>> table = similarity(Features({"hook_embedding": points.astype(np.float32)}, frame))
    >>> table.frame["verdict"].tolist()
    ['shared']
    """
    check_arrangement(measure, rows, layers)
    features = as_features(
        source, images, sites, preprocess=preprocess, pool=pool, batch_size=batch_size,
        device=device,
    )  # fmt: skip
    if other is not None:
        other = _fitting(features, other, layers)
    names = check_domains(features, domains, "measure similarity")
    pairs = list(combinations(names, 2) if other is None else product(names, names))
    _foretell(features, names)
    design = ComparisonDesign(measure, rows, layers, n_splits, n_permutations, seed)
    if not design.by_matrix:
        _foretell_reordering(features, other or features, pairs, design)
    # a slow measure says itself how far it is, pair by pair
    steps = track(pairs, "similarity") if design.by_matrix else pairs
    compared = [compare(features, other or features, a, b, design) for a, b in steps]
    _refuse_nothing(compared, names)
    found = [
        row
        for comparison in compared
        for row in comparison_rows(features, other or features, comparison, design, control)
    ]
    frame = pd.DataFrame(found).assign(n_runs=1, seed=seed)
    if other is not None:
        frame["model_b"] = other_name
    facts = {**features.facts, "n_splits": n_splits, "n_permutations": n_permutations}
    return Table.with_evidence("similarity", frame, {**facts, "rows": rows})


def _fitting(features: Features, other: Features, layers: str) -> Features:
    """Another model's features of the same pictures, of the same sites where those are paired."""
    same_pictures(features, other)
    if layers == "same":
        if set(features.sites) - set(other.sites):
            raise SpecificationError(
                "compare two models layer by layer",
                f"the sites {listed(features.sites)} and {listed(other.sites)}",
                "the same sites in both",
                "pass layers='all'",
            )
        other = replace(other, values={site: other.values[site] for site in features.sites})
    return other


def _foretell(features: Features, names: Sequence[str]) -> None:
    """Say what this number of classes can show."""
    n = features.frame["label"][features.frame["domain"].isin(names)].nunique()
    if n >= LEAST_CLASSES:
        say(
            f"similarity over at most {n} classes: without sharing, debiased CKA deviates by "
            f"{null_deviation(n):.2f} and its interval is {interval_width(n):.2f} wide; a width of "
            f".4 needs {classes_needed(0.4)} classes where halves agree fully"
        )


def _foretell_reordering(
    features: Features, other: Features, pairs: Sequence[tuple[str, str]], design: ComparisonDesign
) -> None:
    """Say what a measure costs that is taken anew for every order of the classes."""
    frame = features.frame
    in_pairs = frame["domain"].isin({name for pair in pairs for name in pair})
    n_classes = frame["label"][in_pairs].nunique()
    cells = len(features.sites) * (len(other.sites) if design.layers == "all" else 1)
    meetings = sum(len(meeting_halves(frame, a, b)) for a, b in pairs)
    width = max(matrix.shape[1] for matrix in features.values.values())
    size = MOST_PAIRS if design.rows == "picture pair" else 1
    if n_classes >= LEAST_CLASSES:
        foretell_reordering(design, n_classes, size, width, cells * len(pairs), cells * meetings)


def _refuse_nothing(compared: Sequence[Comparison], names: Sequence[str]) -> None:
    if any(len(comparison.classes) >= LEAST_CLASSES for comparison in compared):
        return
    most = max((len(comparison.classes) for comparison in compared), default=0)
    raise SampleError(
        f"measure similarity between {listed(names)}",
        f"at most {most} classes with pictures by two artists in both of two domains",
        f"at least {LEAST_CLASSES}: four for the unbiased estimator, one to leave out",
        "give more classes, or two pictures of each class and domain",
    )

"""Do two domains arrange the classes alike, layer by layer? Debiased CKA with null and ceiling."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, SpecificationError, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.model import Tower
from interp.core.progress import say, track
from interp.core.statistics import CANNOT_TELL, Index, jackknife, sharing_index
from interp.core.tables import Table
from interp.probes.arrangements import (
    CROSS_VALIDATED,
    check_arrangement,
    title,
)
from interp.probes.collecting import as_features
from interp.probes.comparison import LEAST_CLASSES, Comparison, Design, compare
from interp.probes.features import PIXELS, Features, check_domains
from interp.probes.halves import hand_column
from interp.probes.layers import same_pictures
from interp.probes.planning import classes_needed, interval_width, null_deviation

ESTIMANDS = {
    "class mean": "similarity between two domains of the arrangement of class means (rung R2)",
    "class structure": "similarity between two domains of class means and within-class covariances",
    "picture pair": "similarity between two domains of pictures paired by class",
}
NULL_KIND = (
    "whole classes of domain_b permuted, the exact expectation; p adjusted by max-T over the "
    "layers of a domain pair"
)


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
    """Debiased CKA between domains of class means, per site and pair of domains, with its evidence.

    Rows of the compared matrices are classes that both domains have. Each class's artists are dealt
    into halves 1 and 2 (the same deal in both domains, equally many pictures in each), so that

        value   = mean of the CKA(A_i, B_j) that share no artist
        ceiling = sqrt(CKA(A_1, A_2) CKA(B_1, B_2))
        null    = the exact mean over permutations of B's classes; 0 for debiased CKA
        index   = (value - null) / (ceiling - null)

    averaged over `n_splits` deals (the two CKAs under the root before the root is taken).
    Intervals leave one class out at a time, of value and of the whole index. p counts
    permutations of whole classes whose largest studentised CKA over the layers of the domain pair
    reaches this one's. Where artists drew in both domains, A_1 and B_1 share their drawings while
    the ceiling's A_1 and A_2 do not; counting them, domains that share nothing but marks of the
    drawing reach an index of .3, and domains that share all reach 2. So A_1 meets B_2 and A_2
    meets B_1 only; with different artists in the two domains all four meet. An index is not
    clipped.

    `measure` is a name in `MEASURES` that is an inner product of matrices of rows (CKA linear and
    RBF, biased too, RSA, mutual k-NN); its null is its exact mean over permutations of classes.
    "cross_validated_cka" is HSIC(A_i, B_j) / sqrt(HSIC(A_1, A_2) HSIC(B_1, B_2)), means over
    deals, with ceiling 1 and not clipped. `rows`:

        "class mean"       a row per class
        "picture pair"     up to 8 pictures of A, each with one of B of its class, no artist common
                           to both; classes move as blocks in the null, which is above 0
        "class structure"  no pairs of pictures: kernels between classes of means <m_c, m_d> and of
                           within-class covariances tr(C_c C_d), in units of the variance

    `other` takes domain B from another model's features of the same pictures: then domains meet
    themselves too, and A_1 its B_2. `layers="same"` compares a site with itself, `"all"` every
    site of A with every site of B (columns `site` and `site_b`). `control` names a floor, such as
    "epoch 0"; pixels name themselves. A pair that cannot be measured is a row with a `reason`. The
    deviation of CKA without sharing at this number of classes is said beforehand
    (`classes_needed`).

    Shapes: features "picture d"; 45 classes, 17 sites, 15 pairs take seconds on one core. Raises
    `SampleError` when no pair has five classes with pictures by two artists in both domains.

    >>> stream = np.random.default_rng(0)
    >>> frame = pd.DataFrame([(c, d, a) for c in "abcdefgh" for d in ("real", "sketch")
    ...                       for a in "wxyz"], columns=["label", "domain", "artist"])
    >>> place = frame["label"].map({c: n for n, c in enumerate("abcdefgh")}).to_numpy()
    >>> points = stream.normal(size=(8, 16))[place] + 0.1 * stream.normal(size=(64, 16))
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
    design = Design(measure, rows, n_splits, n_permutations, seed)
    compared = [
        compare(features, other or features, a, b, design) for a, b in track(pairs, "similarity")
    ]
    _refuse_nothing(compared, names)
    found = [
        row
        for comparison in compared
        for row in _rows(features, other or features, comparison, design, layers, control)
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


def _rows(
    features: Features,
    other: Features,
    comparison: Comparison,
    design: Design,
    layers: str,
    control: str,
) -> list[dict[str, object]]:
    """Table rows of one domain pair."""
    hand = hand_column(features.frame)
    sites, others = range(len(features.sites)), range(len(other.sites))
    cells = [(s, s) for s in sites] if layers == "same" else list(product(sites, others))
    name = title(design.measure)
    ceiling_kind = f"geometric mean of {name}(A1,A2), {name}(B1,B2)"
    if design.measure == CROSS_VALIDATED:
        ceiling_kind = "1 by construction: scaled by HSIC(A1,A2), HSIC(B1,B2)"
    elif design.measure == "cka":
        ceiling_kind = "geometric mean of CKA(A1,A2), CKA(B1,B2)"
    rows = []
    for s, t in cells:
        site, site_b = features.sites[s], other.sites[t]
        place: dict[str, object] = {"measure": name, "site": site}
        place |= {"layer": features.layer(site), "depth": features.depth(site)}
        if layers == "all":
            place |= {"site_b": site_b, "layer_b": other.layer(site_b)}
            place |= {"depth_b": other.depth(site_b)}
        p = float(comparison.p[0 if layers == "all" else 1, s, t])
        rows.append(
            place
            | {"domain_a": comparison.a, "domain_b": comparison.b}
            | _evidence(comparison, design, s, t)
            | {
                "p": p,
                "null_kind": NULL_KIND,
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


def _evidence(comparison: Comparison, design: Design, s: int, t: int) -> dict[str, object]:
    """Value, ceiling, index, intervals and verdict of a site pair, or the reason for none."""
    reason = _reason(comparison, s, t)
    missing = np.nan if reason else 0.0
    value = np.r_[comparison.value[s, t], comparison.value_left[:, s, t]] + missing
    null = np.r_[comparison.null[s, t], comparison.null_left[:, s, t]] + missing
    ends = [
        np.r_[comparison.within[side][place], comparison.within_left[side][:, place]]
        for side, place in ((0, s), (1, t))
    ]
    ceiling = _root(*ends) + missing
    scaled, full = value, ceiling
    if design.measure == CROSS_VALIDATED:
        scaled = np.divide(value, ceiling, out=np.full_like(value, np.nan), where=ceiling > 0)
        full = np.where(ceiling > 0, 1.0, np.nan) + missing
        if not reason and not ceiling[0] > 0:
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
    if len(comparison.classes) < LEAST_CLASSES:
        return (
            f"{len(comparison.classes)} classes with pictures by two artists in both domains, "
            f"at least {LEAST_CLASSES} are needed"
        )
    sides = ((comparison.a, comparison.failed[0][s]), (comparison.b, comparison.failed[1][t]))
    failed = {name: why for name, why in sides if why}
    return "; ".join(
        f"{why} in {listed(name for name in failed if failed[name] == why)}"
        for why in dict.fromkeys(failed.values())
    )

"""Similarity between domains of how they arrange the classes, layer by layer, with its evidence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Unpack

import numpy as np
import pandas as pd
import torch

from interp.core.arguments import Resampling, ResamplingKeywords, filled
from interp.core.artists import artist_column
from interp.core.errors import SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import AMOUNT, GEOMETRY
from interp.core.statistics.resampling import jackknife, max_t
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.features.collect import collect
from interp.probes.features.features import PIXELS, Features, check_domains
from interp.probes.representational_similarity.arranging import (
    CROSS_VALIDATED,
    ComparisonDesign,
    Side,
)
from interp.probes.representational_similarity.classes_needed import LEAST_CLASSES, foretell
from interp.probes.representational_similarity.halved_pairs import HalvedPair, refuse_few_classes
from interp.probes.representational_similarity.layer_similarity import same_pictures
from interp.probes.representational_similarity.permuting import (
    NULL_DRAWS,
    Measured,
    by_matrix,
    by_reordering,
)

ESTIMANDS = {
    "class mean": "similarity between two domains of the arrangement of class means (rung R2)",
    "class structure": "similarity between two domains of class means and within-class covariances",
    "picture pair": "similarity between two domains of pictures paired by class",
}
NULL_KIND = (
    "whole classes of domain_b permuted, {mean}; p adjusted by max-T over the layers of a domain "
    "pair"
)


class ComparisonKeywords(ResamplingKeywords, total=False):
    """How features are collected, what they are called, and how often evidence is drawn anew."""

    other_name: str
    control: str
    preprocess: Preprocess | None
    pool: str
    batch_size: int
    device: str | torch.device | None


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(Resampling):
    """How features are collected, what they are called, and how often evidence is drawn anew.

    Args:
        other_name: What the other model is called.
        control: The floor that the features are, such as "epoch 0".
        preprocess: From a picture to what the tower takes; features need none.
        pool: How the positions of a site become one row, a name in `POOLS`.
        batch_size: Pictures in a forward.
        device: Where the tower runs; None leaves it where it is.
    """

    other_name: str = "other"
    control: str = ""
    preprocess: Preprocess | None = None
    pool: str = "mean"
    batch_size: int = 256
    device: str | torch.device | None = None


@door
def similarity(
    source: Tower | Features,
    images: ImageTable | None = None,
    sites: str | Iterable[str] | None = None,
    *,
    measure: str = "cka",
    rows: str = "class mean",
    layers: str = "same",
    other: Features | None = None,
    domains: Sequence[str] | None = None,
    **options: Unpack[ComparisonKeywords],
) -> Table:
    """Measure how similarly two domains arrange the classes, per site and pair of domains.

        value   = mean of m(A_i, B_j) over the halves that share no artist
        ceiling = sqrt(m(A_1, A_2) m(B_1, B_2))
        null    = mean of the value over permutations of B's classes
        index   = (value - null) / (ceiling - null)

    m is debiased CKA or another `measure`. The rows of the compared matrices are the classes that
    both domains have. Artists are dealt into halves 1 and 2, the same deal in both domains, with
    equally many pictures of each class in both halves. Terms are averaged over `n_splits` deals,
    the two under the root before the root is taken.

    Args:
        source: Features, or a tower that `images` are run through.
        images: The pictures, for a tower; None with features.
        sites: Names or patterns of sites; None takes all sites of the features.
        measure: A name in `MEASURES`, or `cross_validated_cka`.
        rows: The rows that are compared, from the table below.
        other: Another model's features of the same pictures, from which domain B is taken: then
            domains are compared with themselves too. None compares domains within one model.
        other_name: Name of the other model, for the column `model_b`.
        preprocess: From a picture to the tower's input "channel row column"; for a tower only.
        pool: How tokens become one vector, one of `POOLS`; for a tower only.
        layers: `same` compares each site with itself, `all` every site of A with every site of B
            (columns `site` and `site_b`).
        domains: Domains to compare; None takes all.
        n_splits: Deals of artists that are averaged.
        n_permutations: Permutations of whole classes for p, and for a null that is not exact.
        seed: Seed of deals and permutations.
        control: Name of the floor that these features stand for, such as "epoch 0", for the column
            `control`; empty for none. The site "pixels" names itself.
        batch_size: Pictures per forward; for a tower only.
        device: Where the tower runs; None takes the device of its parameters.

    Returns:
        A table with a row per site (or pair of sites) and pair of domains. A pair that cannot be
        measured is a row with a `reason`.

    Raises:
        SampleError: Where no pair of domains has five classes with pictures by two artists in both.
        SpecificationError: For rows that the measure cannot take, or a tower without images, sites
            or preprocess.
        DataError: For an unknown measure or domain.
        SiteError: For a site that the features or the tower do not have.
        ShapeError: For another model's features of other pictures.

    Notes:
        | `rows` | what is compared |
        |---|---|
        | `class mean` | a row per class |
        | `picture pair` | up to 8 pictures per class in A, each with one in B by another artist |
        | `class structure` | kernels between classes, of their means and covariances; CKA only |

        - With `picture pair`, classes move as blocks in the null, which is above 0. `class
          structure` pairs no pictures: its kernel adds <m_c, m_d> of the class means and tr(C_c
          C_d) of the within-class covariances, in units of the variance.
        - Intervals are over classes, of the value and of the whole index, which is not clipped. For
          debiased CKA of class means they come from the influence of each pair of classes;
          simulated, they cover 90 to 97 % at 15 to 60 classes. Others leave one class out at a
          time, which is too wide by a third to a half where domains are unrelated. p counts the
          permutations of whole classes whose largest studentised value over the layers of the
          domain pair reaches this one's (max-T).
        - Where artists drew in both domains, A_1 meets only B_2, and A_2 only B_1: A_1 and B_1
          share their drawings while the ceiling's A_1 and A_2 do not. Counted, they gave domains
          that share nothing but marks of the drawing an index of .3, and domains that share all an
          index of 2. With different artists in the two domains all four pairs of halves count. With
          `other`, a domain's A_1 likewise meets its own B_2.
        - The null is exact (0 for debiased CKA) for measures that are inner products of matrices of
          rows: linear and RBF CKA, biased CKA, RSA, mutual k-NN. The others (Procrustes, SVCCA,
          PWCCA, linear predictivity, minibatch CKA) are computed again for each order of the
          classes; how often and for how long is printed beforehand. Their null is the mean over
          `n_permutations`, and with a class left out that null moved by the mean change of 20 of
          the permutations.
        - PWCCA and predictivity differ by direction. Value, null and ceiling are averaged over both
          directions.
        - SVCCA and PWCCA are refused where two halves together keep as many dimensions as there are
          classes, since they are then 1 whatever the data. Predictivity deals whole classes into
          folds. It has no index where the classes of the training folds do not span the others, so
          that one half of a domain predicts nothing of the other.
        - `cross_validated_cka` is HSIC(A_i, B_j) / sqrt(HSIC(A_1, A_2) HSIC(B_1, B_2)), means over
          deals. Its ceiling is 1, and it is not clipped.
        - The deviation of CKA without sharing at this number of classes is printed beforehand
          (`classes_needed`). CKA of 45 classes at 17 sites for 15 pairs of domains takes seconds on
          one core.

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
    how = filled(similarity, ComparisonOptions, options)
    drawn = {"n_splits": how.n_splits, "n_permutations": how.n_permutations}
    design = ComparisonDesign(measure, rows, layers, **drawn, seed=how.seed)
    features = _features(source, images, sites, how)
    beside = features if other is None else _fitting(features, other, layers)
    names = check_domains(features, domains, "measure similarity")
    pairs = list(combinations(names, 2) if other is None else product(names, names))
    foretell(features, beside, pairs, design)
    # a slow measure says itself how far it is, pair by pair
    steps = pairs if design.method.matrix is None else track(pairs, "similarity")
    compared = [compare(features, beside, a, b, design) for a, b in steps]
    refuse_few_classes(
        [len(each.pair.classes) for each in compared],
        LEAST_CLASSES,
        f"measure similarity between {listed(names)}",
        ": four for the unbiased estimator, one to leave out",
    )
    frame = pd.DataFrame([row for each in compared for row in each.rows(how.control)])
    if other is not None:
        frame["model_b"] = how.other_name
        frame["estimand"] = frame["estimand"].str.replace("two domains", "two models")
    return Table.with_evidence("similarity", frame, {**features.facts, **drawn, "rows": rows})


def _features(
    source: Tower | Features,
    images: ImageTable | None,
    sites: str | Iterable[str] | None,
    how: ComparisonOptions,
) -> Features:
    """Features as they are (some of their sites), or collected from a tower in one pass."""
    if isinstance(source, Features):
        if images is not None:
            raise SpecificationError(
                "compare features", "features and images", "one of them", "leave the images out"
            )
        return source.only(sites)
    if images is None or sites is None or how.preprocess is None:
        raise SpecificationError(
            "compare layers of a tower", "no images, sites or preprocess", "all three", "pass them"
        )
    reading = {"pool": how.pool, "batch_size": how.batch_size, "device": how.device}
    return collect(source, images, sites, preprocess=how.preprocess, **reading)


def _fitting(features: Features, other: Features, layers: str) -> Features:
    """Another model's features of the same pictures, of the same sites where those are paired."""
    same_pictures(features, other)
    if layers == "same":
        if set(features.sites) - set(other.sites):
            given = f"the sites {listed(features.sites)} and {listed(other.sites)}"
            right = "the same sites in both"
            do = "pass layers='all'"
            raise SpecificationError("compare two models layer by layer", given, right, do)
        other = replace(other, values={site: other.values[site] for site in features.sites})
    return other


def compare(
    features: Features, other: Features, a: str, b: str, design: ComparisonDesign
) -> "Comparison":
    """Compare sites of A with sites of B, A seen by one model and B by the other."""
    pair = HalvedPair.of(features.frame, a, b, n_splits=design.n_splits, seed=design.seed)
    sides = Side.of(features, a, pair, design), Side.of(other, b, pair, design)
    n, sites = len(pair.classes), (len(features.sites), len(other.sites))
    why = _too_few(n, sides[0].size, design)
    if why:
        found = Measured.nothing(sites, n, why=why)
        return Comparison(design, sides, found, np.full((2, *sites), np.nan))
    measure = by_reordering if design.method.matrix is None else by_matrix
    found = measure(sides, design)
    return Comparison(design, sides, found, _adjusted(found))


def _too_few(n_classes: int, size: int, design: ComparisonDesign) -> str:
    """Why so few classes cannot be compared, one being left out at a time; or nothing."""
    if n_classes < LEAST_CLASSES:
        return (
            f"{n_classes} classes with pictures by two artists in both domains, "
            f"at least {LEAST_CLASSES} are needed"
        )
    needed = -(-design.method.least // size) + 1
    if design.rows == "class structure" or n_classes >= needed:
        return ""
    return f"{n_classes} classes; {design.method.title} needs {needed}, with one to leave out"


def _adjusted(found: Measured) -> np.ndarray:
    """Adjusted p, "2 site site": max-T over all pairs of sites, then over sites with themselves."""
    value = found.value[0]
    good = (found.refused == "") & (found.failed[0][:, None] == "") & (found.failed[1] == "")
    good &= np.isfinite(value)
    p = np.full((2, *value.shape), np.nan)
    for adjusted, asked in zip(p, (good, good & np.eye(*value.shape, dtype=bool)), strict=True):
        adjusted[asked] = max_t(value[asked], found.drawn[:, asked])
    return p


@dataclass(frozen=True)
class Comparison:
    """Two domains compared, and the rows of evidence that this makes.

    p: "2 site site", adjusted over all pairs of sites and over sites with themselves.
    """

    design: ComparisonDesign
    sides: tuple[Side, Side]
    found: Measured
    p: np.ndarray

    @property
    def pair(self) -> HalvedPair:
        """Who was compared."""
        return self.sides[0].pair

    def rows(self, control: str) -> list[dict[str, object]]:
        """Table rows, a dict of columns for each pair of sites."""
        design, pair = self.design, self.pair
        features, other = (side.features for side in self.sides)
        about = _about(design, pair)
        rows = []
        for s, t in design.cells(len(features.sites), len(other.sites)):
            site, site_b = features.sites[s], other.sites[t]
            place: dict[str, object] = {"measure": design.method.title, "site": site}
            place |= {"layer": features.layer(site), "depth": features.depth(site)}
            if design.layers == "all":
                place |= {"site_b": site_b, "layer_b": other.layer(site_b)}
                place |= {"depth_b": other.depth(site_b)}
            place |= {"domain_a": pair.a, "domain_b": pair.b}
            place["control"] = "pixels" if PIXELS in (site, site_b) else control
            rows.append(place | self._evidence(about, s, t))
        return rows

    def _evidence(self, about: Evidence, s: int, t: int) -> dict[str, object]:
        """Value, ceiling, index, intervals and verdict of a site pair, or the reason for none."""
        found, reason = self.found, self._reason(s, t)
        p = float(self.p[0 if self.design.layers == "all" else 1, s, t])
        ends = np.maximum(found.within[0][:, s], 0) * np.maximum(found.within[1][:, t], 0)
        # 0 where a half says nothing about the other, which refuses the index
        terms = np.stack([found.value[:, s, t], found.null[:, s, t], np.sqrt(ends)], axis=1)
        terms += np.nan if reason else 0.0
        cross_validated = self.design.measure == CROSS_VALIDATED
        # an R^2 without relation is below 0, so that a ceiling of 0 would pass for one above the
        # null
        unlike = not reason and not terms[0, 2] > 0
        if unlike and (cross_validated or terms[0, 1] < 0):
            reason = "halves of a domain do not agree"
        fewer = "" if reason else self.pair.fewer
        errors = None if found.errors is None else tuple(found.errors[:, s, t].tolist())
        row = about.with_verdict(terms, errors=errors, p=p, refused=reason, notes=[fewer])
        if cross_validated:
            value, _, ceiling = terms.T
            scaled = np.divide(value, ceiling, out=np.full_like(value, np.nan), where=ceiling > 0)
            spread = jackknife(float(scaled[0]), scaled[1:])
            row |= {"value": spread.value, "low": spread.low, "high": spread.high}
            row["ceiling"] = 1.0 if ceiling[0] > 0 else np.nan
        elif found.halves is not None:
            apart = found.halves[:, s, t] - terms[0, 1]  # NaN where there is a reason
            row |= dict(zip(("half_1", "half_2"), apart.tolist(), strict=True))
        return row

    def _reason(self, s: int, t: int) -> str:
        """Why a pair of sites cannot be measured; or nothing."""
        if self.found.refused[s, t]:
            return str(self.found.refused[s, t])
        whys = self.found.failed[0][s], self.found.failed[1][t]
        failed = {side.domain: why for side, why in zip(self.sides, whys, strict=True) if why}
        return "; ".join(
            f"{why} in {listed(name for name in failed if failed[name] == why)}"
            for why in dict.fromkeys(failed.values())
        )


def _about(design: ComparisonDesign, pair: HalvedPair) -> Evidence:
    """What all rows of two domains have in common: ceiling and null in words, and the counts."""
    name, mean = design.method.title, "the exact expectation"
    ceiling = f"geometric mean of {name}(A1,A2), {name}(B1,B2)"
    if design.measure == CROSS_VALIDATED:
        ceiling = "1 by construction: scaled by HSIC(A1,A2), HSIC(B1,B2)"
    elif design.measure == "cka":
        ceiling = "geometric mean of CKA(A1,A2), CKA(B1,B2)"
    elif not design.method.symmetric:
        ceiling += ", over both directions"
    if design.method.matrix is None:
        mean = (
            f"the mean of {design.n_permutations} drawn, with a class left out moved by the mean "
            f"change of {min(NULL_DRAWS, design.n_permutations)} of them"
        )
    return Evidence(
        estimand=ESTIMANDS[design.rows],
        null_kind=NULL_KIND.format(mean=mean),
        ceiling_kind=f"{ceiling}; halves by {artist_column(pair.frame)}, equal n",
        seed=design.seed,
        bars=GEOMETRY if design.method.squared else AMOUNT,
        **pair.counts,
    )

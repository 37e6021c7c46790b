"""What the rows of a comparison between domains are: class means, class moments, or pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from interp.core.errors import (
    InterpError,
    NumericsError,
    SampleError,
    SpecificationError,
    check_known,
)
from interp.probes.features.features import Features, narrowed, varies
from interp.probes.representational_similarity.cka import cross_validated_cka, u_centred
from interp.probes.representational_similarity.halved_pairs import HalvedPair
from interp.probes.representational_similarity.measures import (
    MEASURES,
    SimilarityMeasure,
    find_measure,
    refuse_incomplete,
)

ROWS = ("class mean", "class structure", "picture pair")
CROSS_VALIDATED = "cross_validated_cka"
MOST_PAIRS = 8
"""Pictures of a class that "picture pair" takes at most: the matrices are (classes x 8)^2."""

# its matrices keep their lengths: products of halves give the scale
_CROSS_VALIDATED = SimilarityMeasure(
    *("cross-validated CKA", cross_validated_cka, 0, lambda x: u_centred(x @ x.T)),
    zero=True,
    squared=True,
)

Build = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From pictures sorted by class, each class's first place and its count, to a matrix whose inner
product with another domain's is the measure, or to its rows; several rows of a class stand side by
side."""


@dataclass(frozen=True)
class ComparisonDesign:
    """What is asked of every pair of domains.

    Raises `SpecificationError` for rows that the measure cannot take, saying what can.
    """

    measure: str
    rows: str
    layers: str
    n_splits: int
    n_permutations: int
    seed: int

    def __post_init__(self) -> None:
        asked = "measure similarity"
        if self.layers not in ("same", "all"):
            raise SpecificationError(
                asked, f"layers={self.layers!r}", "'same' or 'all'", "choose one of them"
            )
        check_known(asked, "rows", [self.rows], ROWS, SpecificationError)
        fits = self.rows == "class mean"
        if self.measure != CROSS_VALIDATED:
            refuse_incomplete(find_measure(self.measure, asked))
            fits = self.rows != "class structure" or self.measure == "cka"
        if not fits:
            given = f"measure={self.measure!r} with rows={self.rows!r}"
            right = "class structure by cka alone, cross-validated CKA of class means alone"
            do = "say rows='class mean', which every measure takes"
            raise SpecificationError(asked, given, right, do)

    @property
    def method(self) -> SimilarityMeasure:
        """The measure itself."""
        return _CROSS_VALIDATED if self.measure == CROSS_VALIDATED else MEASURES[self.measure]

    @property
    def exact(self) -> bool:
        """Whether leaving a class out has a closed form: for linear CKA of class means."""
        return self.rows == "class mean" and self.measure == "cka"

    @property
    def zero(self) -> bool:
        """Whether the mean over permutations of classes is 0 by construction."""
        return self.rows != "picture pair" and self.method.zero

    def cells(self, n_sites: int, n_others: int) -> list[tuple[int, int]]:
        """The pairs of sites that are compared, by place."""
        if self.layers == "same":
            return [(site, site) for site in range(n_sites)]
        return list(product(range(n_sites), range(n_others)))


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a domain as one model sees it, and how its rows are made.

    Each class has `size` rows.
    """

    features: Features
    domain: str
    pair: HalvedPair
    size: int
    build: Build

    @classmethod
    def of(
        cls, features: Features, domain: str, pair: HalvedPair, design: ComparisonDesign
    ) -> "Side":
        """A domain's pictures, to be arranged as the design says."""
        size = _pairs(pair) if design.rows == "picture pair" and pair.classes else 1
        return cls(features, domain, pair, size, _builder(design, size))

    def arranged(
        self, *, without: int = -1
    ) -> tuple[dict[tuple[int, int, int], np.ndarray], np.ndarray]:
        """What `build` makes of each deal, half and site, with a class left out if one is named.

        Also why a site cannot be measured: empty where it can.
        """
        sites = self.features.sites
        made, reasons = {}, np.full(len(sites), "", dtype=object)
        for split, half in product(range(len(self.pair.deals)), (0, 1)):
            rows = self.pair.rows(self.domain, split, half)
            rows = rows[self.pair.code[rows] != without]
            code = self.pair.code[rows]
            counts = np.unique(code, return_counts=True)[1]
            rows = rows[np.argsort(code, kind="stable")]
            for place, site in enumerate(sites):
                x = self.features.values[site][rows].astype(np.float64)
                try:
                    made[split, half, place] = self.build(x, np.cumsum(counts) - counts, counts)
                except InterpError as error:
                    reasons[place] = error.given
        return made, reasons


def _pairs(pair: HalvedPair) -> int:
    """How many pictures every class has in every half of both domains, at most `MOST_PAIRS`."""
    every = product((pair.a, pair.b), range(len(pair.deals)), (0, 1))
    return min(MOST_PAIRS, *(int(np.bincount(pair.code[pair.rows(*one)]).min()) for one in every))


def _builder(design: ComparisonDesign, size: int) -> Build:
    """How one half of one domain at one site becomes a matrix, or rows where there is none.

    Where rotations leave a measure as it is, its rows stand in no more columns than rows: a measure
    that is taken thousands of times then costs the same at any width of the features.
    """
    if design.rows == "class structure":
        return _structure
    method, places = design.method, np.arange(size)

    def build(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        means = design.rows == "class mean"
        rows = _means(x, starts, counts) if means else x[(starts[:, None] + places).ravel()]
        if method.matrix is None:
            return narrowed(_centred(rows)) if method.rotation else _centred(rows)
        if len(rows) < method.least:
            raise SampleError(
                f"measure {method.title}", f"{len(rows)} rows", f"at least {method.least}", "more"
            )
        return method.matrix(_centred(rows))

    return build


def _means(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(x, starts, axis=0) / counts[:, None]


def _centred(x: np.ndarray) -> np.ndarray:
    magnitude = float(np.abs(x).max(initial=0.0))
    centred = x - x.mean(axis=0)
    if not varies(centred, magnitude):
        raise NumericsError("compare domains", "constant features", "others", "leave the site out")
    return centred


def _structure(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Class means and within-class covariances as one kernel between classes, U-centred, length 1.

    K_cd = <mean_c, mean_d> / v + tr(C_c C_d) / v^2, with C_c the unbiased covariance of class c and
    v the pictures' mean squared distance from their mean: the linear and the squared part of a
    kernel between the classes' distributions. No pictures are paired between domains, and noise
    leaves no bias, since only c != d enters. (Scaling both parts to length 1 was tried: where
    covariances do not differ between classes, half of the kernel is then noise.)
    """
    if counts.min() < 2:
        given = "one picture of a class in a half, which has no covariance"
        right = "at least two in each half"
        raise SampleError("compare class structure", given, right, "give more pictures")
    centred = _centred(x)
    means = _means(centred, starts, counts)
    off = centred - np.repeat(means, counts, axis=0)
    squares = np.add.reduceat(np.add.reduceat((off @ off.T) ** 2, starts, axis=0), starts, axis=1)
    v = (centred**2).sum(axis=1).mean()
    kernel = means @ means.T / v + squares / np.outer(counts - 1, counts - 1) / v**2
    gram = u_centred(kernel)
    length = np.linalg.norm(gram)
    if not length > 0:
        raise NumericsError("compare domains", "constant features", "others", "leave the site out")
    return gram / length

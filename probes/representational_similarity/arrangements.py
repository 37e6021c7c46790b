"""What the rows of a comparison between domains are: class means, class moments, or pictures."""

from collections.abc import Callable

import numpy as np

from interp.core.errors import NumericsError, SampleError, SpecificationError, check_known
from interp.probes.representational_similarity.kernel_alignment import u_centred
from interp.probes.representational_similarity.measures import SimilarityMeasure, find_measure
from interp.probes.representational_similarity.rows import narrowed, varies

ROWS = ("class mean", "class structure", "picture pair")
CROSS_VALIDATED = "cross_validated_cka"
MOST_PAIRS = 8
"""Pictures of a class that "picture pair" takes at most: the matrices are (classes x 8)^2."""

Build = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From pictures sorted by class, each class's first place and its count, to a matrix whose inner
product with another domain's is the measure, or to its rows; several rows of a class stand side by
side."""


def title(measure: str) -> str:
    """What tables call a measure.

    >>> title("cross_validated_cka")
    'cross-validated CKA'
    """
    if measure == CROSS_VALIDATED:
        return "cross-validated CKA"
    return find_measure(measure, "measure similarity").title


def check_arrangement(measure: str, rows: str, layers: str) -> None:
    """Refuse rows that a measure cannot take, saying what can."""
    asked = "measure similarity"
    if layers not in ("same", "all"):
        raise SpecificationError(
            asked, f"layers={layers!r}", "'same' or 'all'", "choose one of them"
        )
    check_known(asked, "rows", [rows], ROWS, SpecificationError)
    if measure == CROSS_VALIDATED:
        fits = rows == "class mean"
    else:
        find_measure(measure, asked)
        fits = rows != "class structure" or measure == "cka"
    if not fits:
        raise SpecificationError(
            asked,
            f"measure={measure!r} with rows={rows!r}",
            "class structure by cka alone, cross-validated CKA of class means alone",
            "say rows='class mean', which every measure takes",
        )


def builder(measure: str, rows: str, n_pairs: int) -> Build:
    """The matrix of one half of one domain at one site."""
    if rows == "class structure":
        return _structure
    if measure == CROSS_VALIDATED:
        return lambda x, starts, counts: _hsic(_means(x, starts, counts))
    matrix = _matrix(find_measure(measure, "measure similarity"))
    if rows == "class mean":
        return lambda x, starts, counts: matrix(_means(x, starts, counts))
    places = np.arange(n_pairs)
    return lambda x, starts, counts: matrix(x[(starts[:, None] + places).ravel()])


def _matrix(measure: SimilarityMeasure) -> Callable[[np.ndarray], np.ndarray]:
    make = measure.matrix
    assert make is not None

    def build(x: np.ndarray) -> np.ndarray:
        if len(x) < measure.least:
            raise SampleError(
                f"measure {measure.title}", f"{len(x)} rows", f"at least {measure.least}", "more"
            )
        return make(_centred(x))

    return build


def row_builder(measure: SimilarityMeasure, rows: str, n_pairs: int) -> Build:
    """The centred rows themselves, for measures that have no matrix.

    Where rotations leave the measure as it is, they stand in no more columns than rows: a measure
    that is taken thousands of times then costs the same at any width of the features.
    """
    places = np.arange(n_pairs)

    def build(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        means = rows == "class mean"
        chosen = _means(x, starts, counts) if means else x[(starts[:, None] + places).ravel()]
        return narrowed(_centred(chosen)) if measure.rotation else _centred(chosen)

    return build


def _means(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(x, starts, axis=0) / counts[:, None]


def _centred(x: np.ndarray) -> np.ndarray:
    magnitude = float(np.abs(x).max(initial=0.0))
    centred = x - x.mean(axis=0)
    if not varies(centred, magnitude):
        raise NumericsError("compare domains", "constant features", "others", "leave the site out")
    return centred


def _hsic(x: np.ndarray) -> np.ndarray:
    """Not scaled to length 1: products of halves give the scale."""
    centred = _centred(x)
    return u_centred(centred @ centred.T)


def _structure(x: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Class means and within-class covariances as one kernel between classes, U-centred, length 1.

    K_cd = <mean_c, mean_d> / v + tr(C_c C_d) / v^2, with C_c the unbiased covariance of class c and
    v the pictures' mean squared distance from their mean: the linear and the squared part of a
    kernel between the classes' distributions. No pictures are paired between domains, and noise
    leaves no bias, since only c != d enters. (Scaling both parts to length 1 was tried: where
    covariances do not differ between classes, half of the kernel is then noise.)
    """
    if counts.min() < 2:
        raise SampleError(
            "compare class structure",
            "one picture of a class in a half, which has no covariance",
            "at least two in each half",
            "give more pictures",
        )
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

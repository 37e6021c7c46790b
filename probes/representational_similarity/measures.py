"""The similarity measures by name, with their properties: one list for tables and for tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from interp.core.errors import NumericsError, SampleError, SpecificationError, check_known
from interp.probes.features.features import narrowed, paired_rows
from interp.probes.representational_similarity.cka import (
    biased_cka,
    cka,
    dealt_batches,
    gaussian_kernel,
    minibatch_cka,
    minibatch_in_orders,
    rbf_cka,
    u_centred,
)
from interp.probes.representational_similarity.linear_agreement import (
    dealt_folds,
    predictivity,
    predictivity_in_orders,
    pwcca,
    pwcca_dimensions,
    pwcca_in_orders,
    svcca,
    svcca_dimensions,
    svcca_in_orders,
)


def procrustes(x: ArrayLike, y: ArrayLike) -> float:
    """Orthogonal Procrustes similarity: how well the best rotation maps one set onto the other.

        similarity = 1 - d^2 / 2 = |X'Y|_*   with d^2 = min over rotations Q of |X - Y Q|^2

    for X and Y centred and of Frobenius norm 1; |.|_* is the nuclear norm.

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order; sets of different width are padded
            with zeros.

    Returns:
        The similarity, unitless, 0 to 1.

    Raises:
        SampleError: For fewer than two rows.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or features that are the same in every row.

    References:
        The solution: Schoenemann 1966. As a similarity of representations: Williams et al. 2021,
        "Generalized shape metrics on neural representations"; Ding et al. 2021, "Grounding
        representation similarity with statistical testing".

    Notes:
        It is not 0 without relation. Noise fits noise the better, the fewer the rows: .99 at 15
        rows of 1024 features.

    >>> generator = np.random.default_rng(0)
    >>> x, turn = generator.normal(size=(20, 5)), np.linalg.qr(generator.normal(size=(5, 5)))[0]
    >>> round(procrustes(x, 3 * x @ turn - 1), 6)
    1.0
    """
    a, b = paired_rows(x, y, "Procrustes similarity", at_least=2)
    return float(procrustes_in_orders(a, b, np.arange(len(a))[None], np.zeros(len(a)))[0])


def procrustes_in_orders(
    x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """Procrustes similarity of centred features, with the rows of `y` in every order: "order".

    Shapes: `x` "row d_x", `y` "row d_y", `orders` "order row"; no `deal` of the rows is needed.

    >>> orders = np.array([[0, 1, 2], [1, 0, 2]])
    >>> x = np.diag([1.0, 2.0, 3.0])
    >>> procrustes_in_orders(x, x, orders, np.zeros(3)).round(3).tolist()
    [1.0, 0.929]
    """
    a, b = (narrowed(side) / np.linalg.norm(side) for side in (x, y))
    return np.linalg.svd(a.T @ b[orders], compute_uv=False).sum(axis=-1)


def mutual_knn(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Mean share of a row's k nearest neighbours that two sets of features have in common.

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.
        k: Number of neighbours.

    Returns:
        The share, unitless, 0 to 1.

    Raises:
        SampleError: For fewer than k + 2 rows, or k below 1.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, for constant features, or for a row that is the mean
            of all rows and so has no direction.

    References:
        Huh et al. 2024, "The Platonic representation hypothesis".

    Notes:
        Neighbours are those with the largest cosine of centred rows. Without relation the share is
        k / (rows - 1) on average, exactly so over permutations of the rows. The measure is local:
        it does not see how far apart groups of rows lie. Memory grows with the square of the number
        of rows.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> mutual_knn(x, 3 * x + 1, k=3)
    1.0
    """
    if k < 1:
        raise SampleError("measure mutual k-NN", f"k={k}", "at least 1", "say k=10")
    a, b = paired_rows(x, y, "mutual k-NN", at_least=k + 2)
    return float((neighbours(a, k) & neighbours(b, k)).sum() / (k * len(a)))


def neighbours(centred: np.ndarray, k: int) -> np.ndarray:
    """Which rows are among the k nearest of which, by cosine: "row row", k true in each.

    >>> neighbours(np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]]), 1).argmax(axis=1)
    array([1, 0, 3, 2])
    """
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    if not (lengths > 1e-10 * lengths.max()).all():
        given = f"row {int(lengths.argmin())}, which is the mean of all rows and has no direction"
        right = "rows that differ from their mean"
        raise NumericsError("find neighbours", given, right, "leave the row out")
    cosine = (centred / lengths) @ (centred / lengths).T
    np.fill_diagonal(cosine, -np.inf)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    found = np.zeros(cosine.shape, dtype=bool)
    np.put_along_axis(found, near, True, axis=1)
    return found


DISTANCES = ("correlation", "cosine", "euclidean")


def rsa(x: ArrayLike, y: ArrayLike, *, distance: str = "correlation") -> float:
    """Representational similarity analysis: Spearman's correlation of two sets of dissimilarities.

        "correlation"   1 - r, with r over the features
        "cosine"        1 - cos
        "euclidean"     |x_i - x_j|

    The dissimilarities of all pairs of rows are ranked and correlated.

    Args:
        x: Features "row d_x", one row per picture or class; centred first.
        y: Features "row d_y" of the same rows in the same order; centred first.
        distance: Dissimilarity of two rows: `correlation`, `cosine` or `euclidean`.

    Returns:
        The correlation, unitless, -1 to 1; 0 on average without relation.

    Raises:
        SampleError: For fewer than four rows.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, for constant features, or where dissimilarities are
            undefined or all the same.
        DataError: For an unknown distance.

    References:
        Kriegeskorte et al. 2008, "Representational similarity analysis - connecting the branches of
        systems neuroscience".

    Notes:
        Rotations do not change the cosine and euclidean versions. The correlation version subtracts
        each row's mean over the features and so depends on the axes. Memory grows with the square
        of the number of rows.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> noise = np.random.default_rng(1).normal(size=(20, 5))
    >>> round(rsa(x, 3 * x + 1e4), 6), abs(rsa(x, noise)) < 0.3
    (1.0, True)
    """
    check_known("measure RSA", "distance", [distance], DISTANCES)
    a, b = paired_rows(x, y, "RSA", at_least=4)
    overlap = (ranked_distances(a, distance) * ranked_distances(b, distance)).sum()
    return float(np.clip(overlap, -1, 1))


def ranked_distances(centred: np.ndarray, distance: str) -> np.ndarray:
    """Ranks of the dissimilarities, "row row", so scaled that inner products are correlations.

    Symmetric, 0 on the diagonal, sum 0, sum of squares 1.

    >>> ranked_distances(np.array([[0.0], [1.0], [3.0]]), "euclidean").round(2).tolist()
    [[0.0, -0.5, 0.5], [-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    if distance != "euclidean":
        _refuse_without_direction(centred, distance)
    apart = pdist(centred, distance)  # type: ignore[call-overload]
    # equal distances must tie, whatever rounding did to them
    ranks = rankdata(np.round(apart / apart.max(), 12)) if apart.max() > 0 else apart
    ranks = ranks - ranks.mean()
    length = np.sqrt(2 * (ranks**2).sum())
    if not length > 0:
        given = "rows whose dissimilarities are all the same"
        right = "rows with some geometry"
        raise NumericsError("measure RSA", given, right, "give more rows or another distance")
    return squareform(ranks / length)


def _refuse_without_direction(centred: np.ndarray, distance: str) -> None:
    """A row without length (or without variance over the features) has no angle to the others."""
    spread = centred - centred.mean(axis=1, keepdims=True) if distance == "correlation" else centred
    flat = np.flatnonzero(np.abs(spread).max(axis=1) <= 1e-10 * np.abs(centred).max())
    if len(flat):
        given = f"row {flat[0]}, which is the same in every feature"
        right = "rows that vary over at least two features"
        do = "leave the row out or take distance='euclidean'"
        raise NumericsError(f"measure {distance} dissimilarities", given, right, do)


K = 10
"""Neighbours of mutual k-NN, as in Huh et al. 2024."""


@dataclass(frozen=True)
class SimilarityMeasure:
    """A similarity measure: its title in tables, its function and its properties.

    Args:
        title: Name of the measure in tables.
        estimate: The function: two sets of features "row feature" in, a float out.
        least: Fewest rows that it takes.
        matrix: From centred rows "row feature" to a matrix "row row" of length 1, such that the
            measure of two sets is the inner product of their matrices; None where there is no such
            matrix.
        zero: Whether it is 0 on average without relation.
        rotation: Whether rotating either set does not change it.
        symmetric: Whether exchanging the two sets does not change it.
        any_order: Whether the order of the rows does not change it; batches and folds are dealt by
            place.
        in_orders: For a measure without `matrix`: from centred x, centred y, orders "order row" and
            the `deal` of the rows to its values "order", with the rows of y in every order.
        deal: From the groups (classes) of the rows to the fold or batch of each row; None where the
            measure has none.
        squared: Whether it grows with the square of what is shared: .25 where class codes have a
            cosine of .5.
        dimensions: From a centred set to the number of dimensions that are kept of it, for a
            measure that needs more rows than both sets keep together; None for the others.

    >>> MEASURES["cka"].title, MEASURES["pwcca"].symmetric
    ('debiased CKA', False)
    """

    title: str
    estimate: Callable[..., float]
    least: int
    matrix: Callable[[np.ndarray], np.ndarray] | None = None
    zero: bool = False
    rotation: bool = True
    symmetric: bool = True
    any_order: bool = True
    in_orders: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    deal: Callable[[np.ndarray], np.ndarray] | None = None
    dimensions: Callable[[np.ndarray], int] | None = None
    squared: bool = False


def _unit(matrix: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(matrix)
    if not length > 0:
        given = "rows that are all equally far apart"
        right = "rows with some geometry"
        raise NumericsError("compare rows", given, right, "give more rows or another site")
    return matrix / length


def _rsa(title: str, distance: str, *, rotation: bool) -> SimilarityMeasure:
    matrix = partial(ranked_distances, distance=distance)
    estimate = partial(rsa, distance=distance)
    return SimilarityMeasure(title, estimate, 4, matrix, zero=True, rotation=rotation)


MEASURES: dict[str, SimilarityMeasure] = {
    "cka": SimilarityMeasure(
        "debiased CKA", cka, 4, lambda x: _unit(u_centred(x @ x.T)), zero=True, squared=True
    ),
    "biased_cka": SimilarityMeasure(
        "biased CKA", biased_cka, 2, lambda x: _unit(x @ x.T), squared=True
    ),
    "rbf_cka": SimilarityMeasure(
        "debiased RBF CKA", rbf_cka, 4, lambda x: _unit(u_centred(gaussian_kernel(x))), zero=True
    ),
    "minibatch_cka": SimilarityMeasure(
        "minibatch CKA",
        minibatch_cka,
        4,
        zero=True,
        any_order=False,
        squared=True,
        in_orders=minibatch_in_orders,
        deal=lambda groups: dealt_batches(len(groups)),
    ),
    "rsa": _rsa("RSA (correlation)", "correlation", rotation=False),
    "rsa_cosine": _rsa("RSA (cosine)", "cosine", rotation=True),
    "rsa_euclidean": _rsa("RSA (euclidean)", "euclidean", rotation=True),
    "procrustes": SimilarityMeasure(
        "Procrustes similarity", procrustes, 2, in_orders=procrustes_in_orders
    ),
    "svcca": SimilarityMeasure(
        "SVCCA", svcca, 4, in_orders=svcca_in_orders, dimensions=svcca_dimensions
    ),
    "pwcca": SimilarityMeasure(
        "PWCCA",
        pwcca,
        4,
        rotation=False,
        symmetric=False,
        in_orders=pwcca_in_orders,
        dimensions=pwcca_dimensions,
    ),
    "mutual_knn": SimilarityMeasure(
        f"mutual {K}-NN", mutual_knn, K + 2, lambda x: _unit(neighbours(x, K).astype(float))
    ),
    "predictivity": SimilarityMeasure(
        "linear predictivity",
        predictivity,
        10,
        zero=True,
        symmetric=False,
        any_order=False,
        in_orders=predictivity_in_orders,
        deal=dealt_folds,
    ),
}


def find_measure(name: str, asked: str) -> SimilarityMeasure:
    """The measure of a name, or an error that suggests the nearest.

    >>> find_measure("rsa_cosine", "compare layers").title
    'RSA (cosine)'
    """
    check_known(asked, "measure", [name], MEASURES)
    return MEASURES[name]


def refuse_incomplete(measure: SimilarityMeasure) -> None:
    """Refuse to compare domains by a measure whose null nobody could compute.

    Raises:
        SpecificationError: For a measure with neither `matrix` nor `in_orders`.
    """
    if measure.matrix is None and measure.in_orders is None:
        given = "an entry of MEASURES that has `estimate` alone"
        right = "`matrix`, or `in_orders` for a measure without one, from which the null comes"
        do = "add either, or compare layers, which takes any measure (layer_similarity)"
        raise SpecificationError(f"compare domains by {measure.title}", given, right, do)

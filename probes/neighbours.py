"""How often the nearest neighbours of a row are the same in two sets of features."""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import NumericsError, SampleError
from interp.probes.rows import paired_rows


def mutual_knn(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Mean share of a row's k nearest neighbours that two sets of features have in common.

    Neighbours by the cosine of centred rows (Huh et al. 2024). Without relation it is k / (rows -
    1) on average, exactly so over permutations of the rows; a local measure, blind to how far
    apart groups of rows lie.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, 0 to 1. Memory row^2.

    Raises like `cka`, and `SampleError` unless there are at least k + 2 rows.

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
        raise NumericsError(
            "find neighbours",
            f"row {int(lengths.argmin())}, which is the mean of all rows and has no direction",
            "rows that differ from their mean",
            "leave the row out",
        )
    cosine = (centred / lengths) @ (centred / lengths).T
    np.fill_diagonal(cosine, -np.inf)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    found = np.zeros(cosine.shape, dtype=bool)
    np.put_along_axis(found, near, True, axis=1)
    return found

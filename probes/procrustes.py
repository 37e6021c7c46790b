"""How closely a rotation lays one set of features over another."""

import numpy as np
from numpy.typing import ArrayLike

from interp.probes.rows import paired_rows


def procrustes(x: ArrayLike, y: ArrayLike) -> float:
    """Orthogonal Procrustes similarity: how well the best rotation maps one set onto the other.

    With X and Y centred and of Frobenius norm 1, d^2 = min over rotations Q of |X - Y Q|^2 =
    2 - 2 |X'Y|_* (the nuclear norm: Schoenemann 1966), and the similarity is 1 - d^2 / 2 = |X'Y|_*
    (Williams et al. 2021; Ding et al. 2021). Sets of different width are padded with zeros. It is
    not 0 without relation: noise fits noise the better, the fewer the rows (.99 at 15 rows of
    1024).

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, 0 to 1. Raises like `cka`, from two rows on.

    >>> stream = np.random.default_rng(0)
    >>> x, turn = stream.normal(size=(20, 5)), np.linalg.qr(stream.normal(size=(5, 5)))[0]
    >>> round(procrustes(x, 3 * x @ turn - 1), 6)
    1.0
    """
    a, b = paired_rows(x, y, "Procrustes similarity", at_least=2)
    return nuclear_overlap(unit_rows(a), unit_rows(b))


def unit_rows(centred: np.ndarray) -> np.ndarray:
    """Features of Frobenius norm 1, in no more columns than rows; the geometry is unchanged.

    >>> unit_rows(np.eye(2, 7) * 3).shape
    (2, 2)
    """
    narrow = centred
    if centred.shape[1] > len(centred):
        narrow = np.asarray(np.linalg.qr(centred.T, mode="r")).T
    return narrow / np.linalg.norm(narrow)


def nuclear_overlap(x: np.ndarray, y: np.ndarray) -> float:
    """|X'Y|_*, the sum of singular values.

    >>> round(nuclear_overlap(unit_rows(np.eye(3)), unit_rows(np.eye(3))), 6)
    1.0
    """
    return float(np.linalg.svd(x.T @ y, compute_uv=False).sum())

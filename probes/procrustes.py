"""How closely a rotation lays one set of features over another."""

import numpy as np
from numpy.typing import ArrayLike

from interp.probes.rows import narrowed, paired_rows


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

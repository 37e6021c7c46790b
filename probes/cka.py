"""How alike two sets of features are in their geometry: centred kernel alignment, as one number.

The estimators here return a float. A float is not evidence: `similarity` adds null and ceiling.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from interp.core.errors import NumericsError, SampleError, ShapeError


def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased linear CKA of two sets of features whose rows belong together.

    CKA = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), all three by the unbiased estimator of Song et
    al. 2012 (Kornblith et al. 2019 give CKA). It is 0 on average without relation, whatever the
    width, and may be negative; rotating, scaling or shifting the features leaves it as it is.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, -1 to 1. Computed in float64, after centring,
    from Gram matrices or from features, whichever is smaller.

    Raises `SampleError` for fewer than four rows, `ShapeError` for unequal numbers of rows,
    `NumericsError` for a NaN or for features that are the same in every row.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(cka(x, 3 * x + 1e4), 6)
    1.0
    """
    a, b = _checked(x, y, "debiased CKA", at_least=4)
    scale = _unbiased(a, a) * _unbiased(b, b)
    return _ratio(_unbiased(a, b), scale)


def biased_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear CKA as Kornblith et al. 2019 defined it, for comparison with older results.

    CKA = |X'Y|^2 / (|X'X| |Y'Y|) of centred features. It is far above 0 without any relation when
    rows are few and features many: .986 on noise with 15 rows of 1024. Use `cka`.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, 0 to 1. Raises like `cka`, from two rows on.

    >>> noise = np.random.default_rng(0).normal(size=(2, 15, 1024))
    >>> biased_cka(*noise) > 0.97, abs(cka(*noise)) < 0.4
    (True, True)
    """
    a, b = _checked(x, y, "CKA", at_least=2)
    scale = _overlap(a, a) * _overlap(b, b)
    return _ratio(_overlap(a, b), scale)


def rbf_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased CKA with a Gaussian kernel, which also sees relations that are not linear.

    k(x_i, x_j) = exp(-|x_i - x_j|^2 / (2 sigma^2)), sigma^2 the median squared distance between
    different rows of each set; HSIC by the unbiased estimator of Song et al. 2012.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, -1 to 1. Raises like `cka`; memory row^2.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(rbf_cka(x, 3 * x), 6)
    1.0
    """
    a, b = _checked(x, y, "RBF CKA", at_least=4)
    k, m = u_centred(_gaussian(a)), u_centred(_gaussian(b))
    return _ratio(float((k * m).sum()), float((k * k).sum() * (m * m).sum()))


def u_centred(grams: np.ndarray) -> np.ndarray:
    """U-centre Gram matrices, so that unbiased HSIC is their inner product over n (n - 3).

    K_ij - (r_i + r_j) / (n - 2) + s / ((n - 1)(n - 2)) off the diagonal and 0 on it, with r the row
    sums and s the sum of K without its diagonal (Szekely and Rizzo 2014). All rows sum to 0.

    Shape: "... row row", at least 3 rows.

    >>> bool(np.allclose(u_centred(np.arange(16.0).reshape(4, 4)).sum(axis=1), 0))
    True
    """
    n = grams.shape[-1]
    off = grams * (1 - np.eye(n))
    rows = off.sum(axis=-1)
    total = rows.sum(axis=-1)[..., None, None] / ((n - 1) * (n - 2))
    return (off - (rows[..., :, None] + rows[..., None, :]) / (n - 2) + total) * (1 - np.eye(n))


def varies(centred: np.ndarray, magnitude: float) -> bool:
    """Whether centred features differ between rows by more than rounding."""
    return bool(np.abs(centred).max(initial=0.0) > 1e-10 * magnitude)


def _unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """n (n - 3) times unbiased HSIC of centred features.

    tr(KL) + sK sL / ((n-1)(n-2)) - 2 / (n-2) 1'KL1 with the diagonals of K and L taken out; centred
    rows sum to zero, so K1 is minus the squared lengths and everything reduces to |X'Y|^2.
    """
    n = len(x)
    p, q = (x * x).sum(axis=1), (y * y).sum(axis=1)
    return float(_overlap(x, y) - n / (n - 2) * (p @ q) + p.sum() * q.sum() / ((n - 1) * (n - 2)))


def _overlap(x: np.ndarray, y: np.ndarray) -> float:
    """|X'Y|^2 = <XX', YY'>, by the smaller of the two products."""
    if x.shape[1] * y.shape[1] <= len(x) * len(x):
        return float(((x.T @ y) ** 2).sum())
    return float(((x @ x.T) * (y @ y.T)).sum())


def _gaussian(x: np.ndarray) -> np.ndarray:
    squared = pdist(x, "sqeuclidean")
    middle = np.median(squared)
    # With most rows alike the median is 0: the mean of the others is the next best scale.
    sigma2 = middle if middle > 0 else squared.mean()
    return squareform(np.exp(-squared / (2 * sigma2)))


def _ratio(above: float, below: float) -> float:
    if not below > 0:
        raise NumericsError(
            "measure CKA",
            "features whose rows are all equally far apart",
            "rows with some geometry",
            "give more rows or another site",
        )
    return float(above / np.sqrt(below))


def _checked(
    x: ArrayLike, y: ArrayLike, what: str, *, at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float64, centred, at a common scale, or the error that says why not."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (x, y))
    asked = f"measure {what}"
    for side in (a, b):
        if side.ndim != 2:
            raise ShapeError(asked, f"shape {side.shape}", '"row feature"', "flatten to two axes")
    if len(a) != len(b):
        raise ShapeError(
            asked, f"{len(a)} and {len(b)} rows", "equally many, row by row", "pair the rows first"
        )
    if len(a) < at_least:
        raise SampleError(
            asked, f"{len(a)} rows", f"at least {at_least}", "give more classes or pictures"
        )
    return _centred(a, asked), _centred(b, asked)


def _centred(x: np.ndarray, asked: str) -> np.ndarray:
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise NumericsError(
            asked, f"a NaN or infinity in row {row}", "finite features", "look at that row"
        )
    magnitude = float(np.abs(x).max(initial=0.0))
    centred = x - x.mean(axis=0)
    centred -= centred.mean(axis=0)  # a second pass takes out what rounding left of a large mean
    if not varies(centred, magnitude):
        raise NumericsError(
            asked,
            "constant features: every row is the same",
            "features that vary",
            "leave this site out",
        )
    return centred / np.abs(centred).max()

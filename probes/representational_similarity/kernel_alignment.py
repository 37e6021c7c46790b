"""How alike two sets of features are in their geometry: centred kernel alignment, as one number.

The estimators here return a float. A float is not evidence: `similarity` adds null and ceiling.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.core.seeds import rng
from interp.probes.representational_similarity.rows import paired_rows


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
    a, b = paired_rows(x, y, "debiased CKA", at_least=4)
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
    a, b = paired_rows(x, y, "CKA", at_least=2)
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
    a, b = paired_rows(x, y, "RBF CKA", at_least=4)
    k, m = u_centred(gaussian_kernel(a)), u_centred(gaussian_kernel(b))
    return _ratio(float((k * m).sum()), float((k * k).sum() * (m * m).sum()))


def minibatch_cka(x: ArrayLike, y: ArrayLike, *, batch_size: int = 256, seed: int = 0) -> float:
    """Debiased linear CKA from minibatches, for more rows than a Gram matrix can hold.

    Unbiased HSIC is averaged over batches of rows, each of the three terms on its own, and the
    ratio is taken at the end (Nguyen et al. 2021). Each average is unbiased for the HSIC that all
    rows estimate, whatever the batch size, so no bias of the batch size remains; the ratio of
    averages is off by O(1 / rows), as that of `cka` is. The price is variance: pairs of rows in
    different batches are never compared. (Averaging the batches' CKAs instead keeps a bias of
    O(1 / batch size).) Rows are dealt into batches of nearly equal size at random, since sorted
    rows would compare classes only with themselves.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless; about -1 to 1. Raises like `cka`, and
    `SampleError` for batches of fewer than four rows.

    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(minibatch_cka(x, 3 * x, batch_size=20), 6)
    1.0
    """
    if batch_size < 4:
        raise SampleError(
            "measure minibatch CKA",
            f"batches of {batch_size} rows",
            "at least 4",
            "raise batch_size",
        )
    a, b = paired_rows(x, y, "minibatch CKA", at_least=4)
    return _from_batches(a, b, dealt_batches(len(a), batch_size=batch_size, seed=seed))


def dealt_batches(n: int, *, batch_size: int = 256, seed: int = 0) -> np.ndarray:
    """The batch of each of n rows, dealt at random; at most as many as have four rows each.

    >>> np.bincount(dealt_batches(10, batch_size=4)).tolist()
    [5, 5]
    """
    n_batches = min(-(-n // batch_size), n // 4)
    batch = np.empty(n, dtype=int)
    for place, rows in enumerate(
        np.array_split(rng("minibatches", seed).permutation(n), n_batches)
    ):
        batch[rows] = place
    return batch


def minibatch_in_orders(
    x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """Minibatch CKA of centred features, with the rows of `y` in every order: "order".

    Shapes: `x` "row d_x", `y` "row d_y", `orders` "order row", `deal` "row" the batch of each row.

    >>> x = np.random.default_rng(0).normal(size=(12, 3))
    >>> minibatch_in_orders(x, x, np.arange(12)[None], dealt_batches(12)).round(6).tolist()
    [1.0]
    """
    return np.array([_from_batches(x, y[order], deal) for order in orders])


def _from_batches(a: np.ndarray, b: np.ndarray, batch: np.ndarray) -> float:
    terms = np.zeros(3)
    for each in range(batch.max() + 1):
        rows = np.flatnonzero(batch == each)
        p, q = (side[rows] - side[rows].mean(axis=0) for side in (a, b))
        n = len(rows)
        # an average in which every row weighs the same
        terms += np.array([_unbiased(p, q), _unbiased(p, p), _unbiased(q, q)]) / (n - 3)
    return _ratio(terms[0], terms[1] * terms[2])


def cross_validated_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased linear CKA with each side's length taken from two halves that share no pictures.

    HSIC(x_1, y_1) / sqrt(HSIC(x_1, x_2) HSIC(y_1, y_2)), unbiased HSICs. Noise lengthens a side
    in `cka` and so pulls it towards 0; products of two halves hold no noise, so that the ratio
    estimates what noiseless features would give. It may exceed 1, and is not clipped.

    Shapes: `x` "half row d_x", `y` "half row d_y", two halves of the same rows (classes). Raises
    like `cka`, and `NumericsError` where a side's halves do not agree at all.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(20, 5)) + 0.3 * generator.normal(size=(2, 20, 5))
    >>> cka(*x) < 0.95 and abs(cross_validated_cka(x, x[::-1]) - 1) < 0.1
    True
    """
    sides = []
    for side in (x, y):
        halves = list(side)  # type: ignore[arg-type]
        if len(halves) != 2:
            raise ShapeError(
                "measure cross-validated CKA",
                f"{len(halves)} halves",
                '"half row feature" with two halves',
                "deal the pictures into two halves, by artist_halves say",
            )
        # one scale for both halves, or it would not cancel
        largest = float(np.abs(np.asarray(halves[0], dtype=np.float64)).max(initial=0.0)) or 1.0
        sides.append([np.asarray(half, dtype=np.float64) / largest for half in halves])
    (a, b), (c, d) = sides
    pairs = {"xy": (a, c), "xx": (a, b), "yy": (c, d)}
    hsic = {}
    for name, (first, second) in pairs.items():
        paired_rows(first, second, "cross-validated CKA", at_least=4)
        hsic[name] = _unbiased(first - first.mean(axis=0), second - second.mean(axis=0))
    if not (hsic["xx"] > 0 and hsic["yy"] > 0):
        raise NumericsError(
            "measure cross-validated CKA",
            "two halves that do not agree",
            "halves with a common geometry",
            "give more pictures to each row",
        )
    return float(hsic["xy"] / np.sqrt(hsic["xx"] * hsic["yy"]))


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


def gaussian_kernel(x: np.ndarray) -> np.ndarray:
    """The kernel of `rbf_cka`, "row row", 0 in place of its diagonal of ones.

    >>> gaussian_kernel(np.array([[0.0], [1.0]])).round(3).tolist()
    [[0.0, 0.607], [0.607, 0.0]]
    """
    squared = pdist(x, "sqeuclidean")
    middle = np.median(squared)
    # With most rows alike the median is 0: the mean of the others is the next best scale.
    sigma2 = middle if middle > 0 else squared.mean()
    return squareform(np.exp(-squared / (2 * sigma2)))


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


def _ratio(above: float, below: float) -> float:
    if not below > 0:
        raise NumericsError(
            "measure CKA",
            "features whose rows are all equally far apart",
            "rows with some geometry",
            "give more rows or another site",
        )
    return float(above / np.sqrt(below))

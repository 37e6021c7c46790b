"""Centred kernel alignment (CKA): how similar two sets of features are in their geometry.

The estimators here return a float without evidence; `similarity` adds null, ceiling and interval.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform

from interp.core.errors import NumericsError, SampleError, ShapeError
from interp.core.seeds import rng
from interp.probes.features.features import paired_rows


def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased linear CKA of two sets of features whose rows belong together.

        CKA = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.

    Returns:
        The CKA, unitless, -1 to 1; 1 for the same geometry.

    Raises:
        SampleError: For fewer than four rows.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or rows that are all the same or all equally far
            apart.

    References:
        - CKA: Kornblith et al. 2019, "Similarity of neural network representations revisited".
        - The unbiased estimator of HSIC: Song et al. 2012, "Feature selection via dependence
          maximization".

    Notes:
        Without relation the estimate is 0 on average, whatever the width of the features, and may
        be negative. Rotating, scaling or shifting the features does not change it. It is computed
        in float64, after centring, from Gram matrices or from products of features, whichever are
        smaller.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(cka(x, 3 * x + 1e4), 6)
    1.0
    """
    a, b = paired_rows(x, y, "debiased CKA", at_least=4)
    scale = _unbiased(a, a) * _unbiased(b, b)
    return _ratio(_unbiased(a, b), scale)


def biased_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear CKA by its original, biased estimator, for comparison with older results.

        CKA = |X'Y|^2 / (|X'X| |Y'Y|)   of centred features X and Y

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.

    Returns:
        The CKA, unitless, 0 to 1.

    Raises:
        SampleError: For fewer than two rows.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or features that are the same in every row.

    References:
        Kornblith et al. 2019, "Similarity of neural network representations revisited".

    Notes:
        With few rows and many features it is far above 0 without any relation: .986 on noise with
        15 rows of 1024 features. `cka` has no such bias.

    >>> noise = np.random.default_rng(0).normal(size=(2, 15, 1024))
    >>> biased_cka(*noise) > 0.97, abs(cka(*noise)) < 0.4
    (True, True)
    """
    a, b = paired_rows(x, y, "CKA", at_least=2)
    return _ratio(_overlap(a, b), _overlap(a, a) * _overlap(b, b))


def rbf_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased CKA with a Gaussian kernel, which also sees relations that are not linear.

        k(x_i, x_j) = exp(-|x_i - x_j|^2 / (2 sigma^2))

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.

    Returns:
        The CKA, unitless, -1 to 1.

    Raises:
        SampleError: For fewer than four rows.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or rows that are all the same or all equally far
            apart.

    References:
        - CKA: Kornblith et al. 2019, "Similarity of neural network representations revisited".
        - The unbiased estimator of HSIC: Song et al. 2012, "Feature selection via dependence
          maximization".

    Notes:
        sigma^2 is the median squared distance between different rows, of each set by itself; where
        that is 0, the mean. Memory grows with the square of the number of rows.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(rbf_cka(x, 3 * x), 6)
    1.0
    """
    a, b = paired_rows(x, y, "RBF CKA", at_least=4)
    k, m = u_centred(gaussian_kernel(a)), u_centred(gaussian_kernel(b))
    return _ratio(float((k * m).sum()), float((k * k).sum() * (m * m).sum()))


def minibatch_cka(x: ArrayLike, y: ArrayLike, *, batch_size: int = 256, seed: int = 0) -> float:
    """Debiased linear CKA from minibatches, for more rows than a Gram matrix can hold.

        CKA = mean HSIC(x, y) / sqrt(mean HSIC(x, x) mean HSIC(y, y))   means over batches of rows

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.
        batch_size: Rows per batch, at least 4; a few more where a batch would else hold fewer than
            four.
        seed: Seed of the random deal of rows into batches.

    Returns:
        The CKA, unitless, about -1 to 1.

    Raises:
        SampleError: For fewer than four rows, or a `batch_size` below four.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or rows that are all the same or all equally far
            apart.

    References:
        Nguyen et al. 2021, "Do wide and deep networks learn the same things?".

    Notes:
        - Each of the three averages is unbiased for the HSIC that all rows estimate, so the batch
          size causes no bias; the ratio of averages is off by O(1 / rows), as in `cka`. Averaging
          the CKAs of the batches instead keeps a bias of O(1 / batch size).
        - The price is variance: pairs of rows in different batches are never compared.
        - Rows are dealt at random into batches of nearly equal size. In the order of sorted rows, a
          batch would compare classes only with themselves.

    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(minibatch_cka(x, 3 * x, batch_size=20), 6)
    1.0
    """
    if batch_size < 4:
        given = f"batches of {batch_size} rows"
        raise SampleError("measure minibatch CKA", given, "at least 4", "raise batch_size")
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


CROSS_VALIDATED = "measure cross-validated CKA"


def cross_validated_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Debiased linear CKA, scaled by products of two halves of the pictures so that noise cancels.

        CKA = HSIC(x_1, y_1) / sqrt(HSIC(x_1, x_2) HSIC(y_1, y_2))   unbiased HSICs

    Args:
        x: Features "half row d_x": the same rows (classes) from two halves of the pictures.
        y: Features "half row d_y" of the same rows in the same order.

    Returns:
        The CKA, unitless; it may exceed 1 and is not clipped.

    Raises:
        ShapeError: For other than two halves, or unequal numbers of rows.
        SampleError: For fewer than four rows.
        NumericsError: For a NaN or infinity, for constant features, or where the halves of one side
            do not agree at all.

    Notes:
        In `cka`, noise makes HSIC(x, x) larger and so pulls the ratio towards 0. The product of two
        halves that share no picture holds no noise, so this ratio estimates what features without
        noise would give.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(20, 5)) + 0.3 * generator.normal(size=(2, 20, 5))
    >>> cka(*x) < 0.95 and abs(cross_validated_cka(x, x[::-1]) - 1) < 0.1
    True
    """
    sides = []
    for side in (x, y):
        halves = list(side)  # type: ignore[arg-type]
        if len(halves) != 2:
            right = '"half row feature" with two halves'
            do = "deal the pictures into two halves, by artist_halves say"
            raise ShapeError("measure cross-validated CKA", f"{len(halves)} halves", right, do)
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
        given = "two halves that do not agree"
        right = "halves with a common geometry"
        do = "give more pictures to each row"
        raise NumericsError("measure cross-validated CKA", given, right, do)
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
        given = "features whose rows are all equally far apart"
        right = "rows with some geometry"
        raise NumericsError("measure CKA", given, right, "give more rows or another site")
    return float(above / np.sqrt(below))

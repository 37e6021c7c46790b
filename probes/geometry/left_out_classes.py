"""Sums over a table of classes by classes, of all classes and without each of them in turn.

A loop that cuts every class out of the table costs the cube of the number of classes. What a class
adds is a row, a column and their crossing, so all sums follow from those of the whole table at the
cost of one pass.
"""

import numpy as np


def without_each(table: np.ndarray) -> np.ndarray:
    """Sums of a table "class class ...", "left ...": of all classes, then without each.

    >>> without_each(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [10.0, 4.0, 1.0]
    """
    own = np.einsum("cc...->c...", table)
    total = table.sum(axis=(0, 1))
    left = total - table.sum(axis=0) - table.sum(axis=1) + own
    return np.concatenate([total[None], left])


def without_each_own(table: np.ndarray) -> np.ndarray:
    """Sums of the diagonal of a table "class class ...", "left ...".

    >>> without_each_own(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [5.0, 4.0, 1.0]
    """
    own = np.einsum("cc...->c...", table)
    total = own.sum(axis=0)
    return np.concatenate([total[None], total - own])


def u_squares(table: np.ndarray) -> np.ndarray:
    """Inner products of a U-centred table "class class" with that of its transpose, "left".

        sum_{i != j} K_ij K_ji - (|r|^2 + |c|^2) / (n - 2) + s^2 / ((n - 1)(n - 2))

    with r and c the sums of rows and columns and s the sum of all, without the diagonal.

    >>> round(float(u_squares(np.ones((5, 5)))[0]), 12)
    0.0
    """
    off = table - np.diag(np.diagonal(table))
    rows, columns, total = off.sum(axis=1), off.sum(axis=0), off.sum()
    crossed = (off * off.T).sum(axis=1)
    k = len(off)
    n = k - np.r_[0, np.ones(k)]
    # without a class, a row loses its product with that class, and the class its own row
    by_row = (rows**2).sum() - rows**2 - 2 * off.T @ rows + (off**2).sum(axis=0)
    by_column = (columns**2).sum() - columns**2 - 2 * off @ columns + (off**2).sum(axis=1)
    squares = np.r_[(rows**2).sum() + (columns**2).sum(), by_row + by_column]
    sums = np.r_[total, total - rows - columns]
    products = np.r_[crossed.sum(), crossed.sum() - 2 * crossed]
    return products - squares / (n - 2) + sums**2 / ((n - 1) * (n - 2))


def without_each_meeting(gram: np.ndarray) -> np.ndarray:
    """Class effects of each half along the other's domain effects, multiplied and summed, "left".

    `gram` is "class domain class domain", the first two of one half.
    """
    n, n_domains = gram.shape[:2]
    first = gram.sum(axis=1)  # class class domain: effects of classes along domains
    second = gram.sum(axis=3).transpose(2, 0, 1)
    ends = [_without_one(each) / n_domains for each in (first, second)]
    kept = np.vstack([np.ones(n), 1 - np.eye(n)])[:, :, None]
    met = kept
    for each in ends:
        mean = each / kept.sum(axis=1)[:, None]
        rows = mean.mean(axis=2, keepdims=True)
        columns = (mean * kept).sum(axis=1, keepdims=True) / kept.sum(axis=1)[:, None]
        middle = columns.mean(axis=2, keepdims=True)
        met = met * (mean - rows - columns + middle)
    return met.sum(axis=(1, 2))


def _without_one(table: np.ndarray) -> np.ndarray:
    """Sums over the second axis of "class class domain", "left class domain"."""
    total = table.sum(axis=1)
    return np.concatenate([total[None], total[None] - table.swapaxes(0, 1)])

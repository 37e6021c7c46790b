"""Matrices of rows to compare, in stacks: their inner products, left out and permuted.

A CKA of debiased Gram matrices is their inner product once each has length 1, so that whole stacks
(deals of artists x halves x sites) are compared by matrix products.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from interp.core.errors import InterpError
from interp.core.statistics.resampling import class_permutations
from interp.probes.representational_similarity.arrangements import Build
from interp.probes.representational_similarity.design import Dealt


def pictured(
    dealt: Dealt, side: int, classes: list[str]
) -> Iterator[tuple[tuple[int, int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """One side's pictures by deal, half and site: sorted by class, with what `Build` needs."""
    features, domain = dealt.sides[side]
    code = pd.Index(classes).get_indexer(dealt.frame["label"].to_numpy(object))
    here = (dealt.frame["domain"] == domain).to_numpy() & (code >= 0)
    for split, deal in enumerate(dealt.deals):
        for half in (0, 1):
            chosen = np.flatnonzero(here & (deal == half))
            chosen = chosen[np.argsort(code[chosen], kind="stable")]
            counts = np.bincount(code[chosen], minlength=len(classes))
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            for place, site in enumerate(features.sites):
                picked = features.values[site][dealt.rows[chosen]].astype(np.float64)
                yield (split, half, place), picked, starts, counts


def class_grams(
    dealt: Dealt, side: int, classes: list[str], build: Build
) -> tuple[np.ndarray, np.ndarray]:
    """The matrices to compare: "split half site row row", as `build` makes them of pictures.

    Also why there are none, per site: empty where there are. Their matrices are 0.
    """
    n_sites = len(dealt.sides[side][0].sites)
    reasons = np.full(n_sites, "", dtype=object)
    grams: np.ndarray | None = None
    for at, picked, starts, counts in pictured(dealt, side, classes):
        try:
            gram = build(picked, starts, counts)
        except InterpError as error:
            reasons[at[2]] = error.given
            continue
        if grams is None:
            grams = np.zeros((len(dealt.deals), 2, n_sites, *gram.shape))
        grams[at] = gram
    if grams is None:
        n = len(classes)
        grams = np.zeros((len(dealt.deals), 2, n_sites, n, n))
    grams[:, :, reasons != ""] = 0
    return grams, reasons


def expected(
    first: np.ndarray, second: np.ndarray, meetings: Sequence[tuple[int, int]], n_classes: int
) -> np.ndarray:
    """Mean of the value over all permutations of B's classes, exactly: "site site".

    Rows of a class move together. The mean of <A, P B P'> over permutations P pairs the sum of A's
    blocks on the diagonal with that of B's, and the sum of the others with that of B's others.
    """
    size = first.shape[-1] // n_classes
    sums = []
    for grams in (first, second):
        blocks = grams.reshape(*grams.shape[:3], n_classes, size, n_classes, size)
        own = np.einsum("shacici->sha" if size == 1 else "shacicj->shaij", blocks)
        own = own.reshape(*grams.shape[:3], size * size)
        every = blocks.sum(axis=(3, 5)).reshape(*grams.shape[:3], size * size)
        sums.append((own, every - own))
    (own_a, off_a), (own_b, off_b) = sums
    total = np.zeros((first.shape[2], second.shape[2]))
    for split in range(len(first)):
        for i, j in meetings:
            total += own_a[split, i] @ own_b[split, j].T / n_classes
            total += off_a[split, i] @ off_b[split, j].T / (n_classes * (n_classes - 1))
    return total / (len(first) * len(meetings))


def _left(product: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products of U-centred matrices with one class left out, without building them.

    U-centred rows sum to 0, so with h_c = sum_j K_cj L_cj the product without class c is
    <K, L> - 2 h_c (n - 2) / (n - 3). `rows` holds h_c, class first.
    """
    n = len(rows)
    return product - 2 * rows * (n - 2) / (n - 3)


def _lengths_left(grams: np.ndarray) -> np.ndarray:
    """Lengths of the matrices with one class left out: "class split half site"."""
    rows = np.moveaxis((grams**2).sum(axis=-1), -1, 0)
    return np.sqrt(np.maximum(_left(rows.sum(axis=0), rows), 0))


def across(
    first: np.ndarray, second: np.ndarray, meetings: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of CKA(A_i, B_j) over meetings and splits: "site site", and per class left out."""
    n_splits = len(first)
    lengths_a, lengths_b = _lengths_left(first), _lengths_left(second)
    n_classes = first.shape[-1]
    value = np.zeros((first.shape[2], second.shape[2]))
    left = np.zeros((n_classes, *value.shape))
    for split in range(n_splits):
        for i, j in meetings:
            a = first[split, i].transpose(1, 0, 2)  # class site class
            b = second[split, j].transpose(1, 2, 0)  # class class site
            rows = a @ b
            product = rows.sum(axis=0)
            scale = lengths_a[:, split, i, :, None] * lengths_b[:, split, j, None, :]
            value += product
            left += _over(_left(product, rows), scale)
    n = n_splits * len(meetings)
    return value / n, left / n


def within(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CKA(A_1, A_2) over splits: "site", and per class left out."""
    rows = np.moveaxis((grams[:, 0] * grams[:, 1]).sum(axis=-1), -1, 0)  # class split site
    lengths = _lengths_left(grams)
    left = _over(_left(rows.sum(axis=0), rows), lengths[:, :, 0] * lengths[:, :, 1])
    return rows.sum(axis=0).mean(axis=0), left.mean(axis=1)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A ratio that is 0 where features are constant; those sites get a reason instead."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def permuted(
    first: np.ndarray,
    second: np.ndarray,
    meetings: Sequence[tuple[int, int]],
    n_permutations: int,
    seed: int,
    n_classes: int,
) -> np.ndarray:
    """The value under permutations of B's classes: "permutation site site".

    Permuting classes leaves lengths alone, so a measure is an inner product of matrices of length
    1, and the mean over meetings and splits is one product of the stacked matrices. Of symmetric
    ones the entries above the diagonal, counted twice, and those on it say all.
    """
    n_sites, n = first.shape[2], first.shape[-1]
    row, column, weight = _entries(first, second)
    a = np.stack([first[:, i] for i, _ in meetings], axis=1)[..., row, column] * weight
    b = np.stack([second[:, j] for _, j in meetings], axis=1)[..., row, column]
    a = a.transpose(0, 1, 3, 2).reshape(-1, n_sites)
    b = b.transpose(0, 1, 3, 2).reshape(-1, len(row), second.shape[2])
    place = np.zeros((n, n), dtype=int)
    place[column, row] = np.arange(len(row))
    place[row, column] = np.arange(len(row))
    a = np.ascontiguousarray(a.T) / (len(first) * len(meetings))
    size = n // n_classes
    orders = class_permutations(n_classes, n_permutations, seed)
    return np.stack(
        [
            a @ np.take(b, place[order[row], order[column]], axis=1).reshape(-1, b.shape[2])
            for order in ((each[:, None] * size + np.arange(size)).ravel() for each in orders)
        ]
    )


def _entries(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which entries of the matrices an inner product needs, and how often each counts."""
    n = first.shape[-1]
    both = (first, second)
    if not all(np.array_equal(grams, grams.swapaxes(-1, -2)) for grams in both):
        row, column = (axis.ravel() for axis in np.indices((n, n)))
        return row, column, np.ones(n * n)
    # U-centred matrices are 0 on the diagonal
    bare = all(not grams.diagonal(axis1=-2, axis2=-1).any() for grams in both)
    row, column = np.triu_indices(n, k=int(bare))
    return row, column, np.where(row == column, 1.0, 2.0)

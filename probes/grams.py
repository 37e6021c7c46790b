"""Gram matrices of class means in stacks: their CKAs, with each class left out, and permuted.

A CKA of debiased Gram matrices is their inner product once each has length 1, so that whole stacks
(deals of artists x halves x sites) are compared by matrix products.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.probes.cka import u_centred
from interp.probes.features import Features
from interp.probes.permutations import class_permutations
from interp.probes.rows import varies


def class_grams(
    features: Features,
    rows: np.ndarray,
    frame: pd.DataFrame,
    deals: Sequence[np.ndarray],
    domain: str,
    classes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """U-centred Gram matrices of class means at length 1: "split half site class class".

    Also which sites do not vary between classes; their matrices are 0.
    """
    code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
    here = (frame["domain"] == domain).to_numpy() & (code >= 0)
    shape = (len(deals), 2, len(features.sites), len(classes), len(classes))
    grams, constant = np.zeros(shape), np.zeros(len(features.sites), dtype=bool)
    for split, deal in enumerate(deals):
        for half in (0, 1):
            chosen = np.flatnonzero(here & (deal == half))
            chosen = chosen[np.argsort(code[chosen], kind="stable")]
            counts = np.bincount(code[chosen], minlength=len(classes))
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            for place, site in enumerate(features.sites):
                picked = features.values[site][rows[chosen]].astype(np.float64)
                means = np.add.reduceat(picked, starts, axis=0) / counts[:, None]
                centred = means - means.mean(axis=0)
                gram = u_centred(centred @ centred.T)
                length = np.linalg.norm(gram)
                if length > 0 and varies(centred, float(np.abs(picked).max())):
                    grams[split, half, place] = gram / length
                else:
                    constant[place] = True
    return grams, constant


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
) -> np.ndarray:
    """The value under permutations of B's classes: "permutation site site".

    Permuting classes leaves lengths alone, so a CKA is an inner product of matrices of length 1,
    and the mean over meetings and splits is one product of the stacked upper triangles.
    """
    n_sites, n = first.shape[2], first.shape[-1]
    row, column = np.triu_indices(n, k=1)
    a = np.stack([first[:, i] for i, _ in meetings], axis=1)[..., row, column]
    b = np.stack([second[:, j] for _, j in meetings], axis=1)[..., row, column]
    a = a.transpose(0, 1, 3, 2).reshape(-1, n_sites)
    b = b.transpose(0, 1, 3, 2).reshape(-1, len(row), second.shape[2])
    place = np.zeros((n, n), dtype=int)
    place[row, column] = place[column, row] = np.arange(len(row))
    a = np.ascontiguousarray(a.T) * (2 / (len(first) * len(meetings)))
    return np.stack(
        [
            a @ np.take(b, place[order[row], order[column]], axis=1).reshape(-1, b.shape[2])
            for order in class_permutations(n, n_permutations, seed)
        ]
    )

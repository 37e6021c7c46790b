"""CKA of all pairs of layers from their Gram matrices, a block of rows at a time.

The cheaper way where pictures are fewer than all layers' features together: each layer's Gram
matrix is made once, and serves all its pairs. No Gram matrix is ever whole in memory.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.core.seeds import rng

BLOCK = 256
"""Rows of a Gram matrix in memory at a time."""


def gram_hsic(layers: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """n (n - 3) times unbiased HSIC of every pair of layers, and the scale of its rounding.

    With K and L the Gram matrices of centred rows and their diagonals taken out, p and q those
    diagonals: <K, L> + sum p sum q / ((n - 1)(n - 2)) - 2 p.q / (n - 2). Only blocks on and above
    the diagonal are made; products are in the layers' precision, sums in float64.

    Shapes: each layer "row feature", float32 or float64; returns "layer layer" and "layer".
    """
    x = [_centred(layer) for layer in layers]
    n = len(x[0])
    buffer = x[0].new_empty(len(x), BLOCK * n)
    overlap = np.zeros((len(x), len(x)))
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        height = rows.stop - start
        block = buffer[:, : height * (n - start)].view(len(x), height, n - start)
        for place, part in enumerate(x):
            torch.mm(part[rows], part[start:].T, out=block[place])
        overlap += _upper_products(block)
    return _hsic(overlap, torch.stack([part.square().sum(dim=1) for part in x]))


@np.errstate(invalid="ignore", over="ignore")  # what overflows is refused at the end
def minibatch_hsic(
    layers: Sequence[Tensor], *, batch_size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased HSIC averaged over random batches of rows, as `minibatch_cka` has it.

    Shapes as for `gram_hsic`.
    """
    n = len(layers[0])
    order = torch.from_numpy(rng("minibatches", seed).permutation(n)).to(layers[0].device)
    hsic, scale = np.zeros((len(layers), len(layers))), np.zeros(len(layers))
    for rows in torch.tensor_split(order, min(-(-n // batch_size), n // 4)):
        size, half = len(rows), -(-len(rows) // 2)
        upper = layers[0].new_empty(len(layers), half, size)
        lower = layers[0].new_empty(len(layers), size - half, size - half)
        lengths = layers[0].new_empty(len(layers), size)
        for place, layer in enumerate(layers):
            x = layer[rows]
            x -= x.mean(dim=0)
            torch.sum(x.square(), dim=1, out=lengths[place])
            torch.mm(x[:half], x.T, out=upper[place])
            torch.mm(x[half:], x[half:].T, out=lower[place])
        found, far = _hsic(_upper_products(upper) + _upper_products(lower), lengths)
        hsic += found / (size - 3)
        scale += far / (size - 3)
    return hsic, scale


def _upper_products(block: Tensor) -> np.ndarray:
    """Inner products over the rows and columns that a block "layer row column" stands for.

    Its first columns are its rows' own, and lose their diagonal; the others count twice, once for
    their mirror image below the diagonal.
    """
    own = block[:, :, : block.shape[1]]
    own.diagonal(dim1=1, dim2=2).zero_()
    return 2 * _products(block.flatten(1)) - _products(own.flatten(1))


def _centred(layer: Tensor) -> Tensor:
    """Rows less their mean, the largest entry 1 (0 where only rounding makes rows differ)."""
    mean = layer.mean(dim=0)
    centred = layer - mean
    centred -= centred.mean(dim=0)  # what rounding left of a large mean
    largest = centred.abs().max()
    if largest <= torch.finfo(centred.dtype).eps * mean.abs().max():
        return torch.zeros_like(centred)
    return centred.div_(largest)


def _products(flat: Tensor, chunk: int = 1 << 14) -> np.ndarray:
    """Inner products of the rows of a wide matrix, summed in float64 over chunks of it."""
    whole = flat.shape[1] // chunk * chunk
    parts = flat[:, :whole].view(len(flat), -1, chunk).transpose(0, 1)
    total = torch.bmm(parts, parts.transpose(1, 2)).double().sum(dim=0)
    rest = flat[:, whole:]
    return (total + (rest @ rest.T).double()).cpu().numpy()


def _hsic(overlap: np.ndarray, lengths: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """n (n - 3) HSIC from products of Gram matrices without diagonals, and those diagonals."""
    p = lengths.double().cpu().numpy()
    n, total = p.shape[1], p.sum(axis=1)
    correction = np.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * p @ p.T
    return overlap + correction, total**2

"""Similarity of all pairs of layers, of one model or of two that saw the same pictures."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.core.errors import ShapeError
from interp.core.faces.doors import door
from interp.core.progress import say
from interp.core.seeds import rng
from interp.probes.features.features import Features, paired_rows
from interp.probes.representational_similarity.layer_sums import ROWS, LayerSums, ratios, refuse_few
from interp.probes.representational_similarity.measures import SimilarityMeasure, find_measure

BLOCK = 256
"""Rows of a Gram matrix in memory at a time."""

STRIP = 64
"""Rows of a batch's Gram matrix that are made at once, from their own diagonal to the right."""


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
        size = len(rows)
        lengths = layers[0].new_empty(len(layers), size)
        strips = {
            start: layers[0].new_empty(len(layers), min(STRIP, size - start), size - start)
            for start in range(0, size, STRIP)
        }
        for place, layer in enumerate(layers):
            x = layer[rows]
            x -= x.mean(dim=0)
            torch.sum(x.square(), dim=1, out=lengths[place])
            for start, strip in strips.items():
                torch.mm(x[start : start + STRIP], x[start:].T, out=strip[place])
        overlap = np.sum([_upper_products(strip) for strip in strips.values()], axis=0)
        found, far = _hsic(overlap, lengths)
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


GRAM_PRICE = 1.2
"""A multiplication of the Gram form in those of the feature form, by measurement: its matrices are
larger than caches, and are read again for their inner products."""


@door
def layer_similarity(
    features: Features,
    other: Features | None = None,
    *,
    measure: str = "cka",
    batch_size: int = 256,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare all pairs of layers by a similarity measure over the pictures.

    Args:
        features: Features "picture feature" per site; its sites are the rows of the result.
        other: Another model's features of the same pictures in the same order, whose sites are the
            columns; None compares the sites of `features` with one another.
        measure: A name in `MEASURES`.
        batch_size: Pictures per batch, for `minibatch_cka` alone.
        seed: Seed of the deal into batches, for `minibatch_cka` alone.

    Returns:
        The values as a frame "site site", raw numbers; `similarity` compares domains, with null and
        ceiling.

    Raises:
        ShapeError: For features of other pictures.
        DataError: For an unknown measure.
        InterpError: What the measure raises for these features, such as `SampleError` for too few
            pictures.

    Notes:
        - Debiased linear CKA is exact. It takes one Gram matrix per layer, made a block of rows at
          a time, or sums of products of features (`LayerSums`), whichever is less work. float32
          features give it to 1e-6, also with a common mean ten times the spread.
        - `minibatch_cka` compares only rows of the same batch.
        - Kernels, ranks and neighbours need a matrix "row row" per layer. Their bytes and seconds
          are printed beforehand.

    >>> x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    >>> frame = pd.DataFrame({"label": ["cat"] * 50, "domain": ["real"] * 50})
    >>> layer_similarity(Features({"early": x, "late": x[:, ::-1] + 10}, frame)).round(6)
           early  late
    early    1.0   1.0
    late     1.0   1.0
    """
    found = find_measure(measure, "compare layers")
    if other is not None:
        same_pictures(features, other)
    first = features.values
    second = None if other is None else other.values
    if measure in ("cka", "minibatch_cka"):
        small = batch_size if measure == "minibatch_cka" else 0
        values = _linear(first, second, small, seed)
    elif found.matrix is not None:
        values = _by_matrix(found, first, second)
    else:
        values = _by_pair(found, first, second)
    return pd.DataFrame(values, index=list(first), columns=list(second or first))


def _linear(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray] | None,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Linear CKA, minibatch where there is a batch size, else exact by the cheaper form."""
    n = len(next(iter(first.values())))
    widths = [matrix.shape[1] for matrix in first.values()]
    others = [] if second is None else [matrix.shape[1] for matrix in second.values()]
    refuse_few(n)
    if not batch_size and gram_work(n, widths, others) > sums_work(n, widths, others):
        return _by_sums(first, second)
    names = [*first, *(second or [])]
    matrices = [*first.values(), *(second or {}).values()]
    kind = np.float64 if any(each.dtype == np.float64 for each in matrices) else np.float32
    layers = [torch.from_numpy(np.asarray(each, dtype=kind)) for each in matrices]
    if batch_size:
        hsic, scale = minibatch_hsic(layers, batch_size=batch_size, seed=seed)
    else:
        hsic, scale = gram_hsic(layers)
    return ratios(hsic, scale, names, None if second is None else len(first))


def gram_work(n: int, widths: list[int], others: list[int]) -> float:
    """Multiplications of the Gram form: half of each Gram matrix, at what each costs more there.

    >>> gram_work(2000, [768] * 13, []) < sums_work(2000, [768] * 13, []) / 4
    True
    """
    return GRAM_PRICE * n * n * (sum(widths) + sum(others)) / 2


def sums_work(n: int, widths: list[int], others: list[int]) -> float:
    """Multiplications of the feature form: products of features for every pair of layers.

    Half of those of a layer with itself.

    >>> sums_work(10, [2], []), sums_work(10, [2], [3])
    (20.0, 125.0)
    """
    if others:
        own = sum(d * d for d in (*widths, *others))
        return n * (own / 2 + sum(widths) * sum(others))
    return n * sum(widths) ** 2 / 2


def _by_sums(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray] | None
) -> np.ndarray:
    sums = LayerSums(_widths(first), None if second is None else _widths(second))
    n = len(next(iter(first.values())))
    for start in range(0, n, ROWS):
        rows = slice(start, start + ROWS)
        others = {site: matrix[rows] for site, matrix in (second or {}).items()}
        sums.update({site: matrix[rows] for site, matrix in first.items()}, others or None)
    return sums.cka()


def _widths(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    return {site: matrix.shape[1] for site, matrix in values.items()}


def _by_matrix(
    measure: SimilarityMeasure,
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray] | None,
) -> np.ndarray:
    """Each layer's matrix once, all pairs as their inner products."""
    assert measure.matrix is not None
    every = {("a", s): m for s, m in first.items()}
    every |= {("b", s): m for s, m in (second or {}).items()}
    n = len(next(iter(first.values())))
    _foretell(measure, n, max(matrix.shape[1] for matrix in every.values()), len(every))
    flat = np.empty((len(every), n * n))
    for place, matrix in enumerate(every.values()):
        centred, _ = paired_rows(matrix, matrix, measure.title, at_least=measure.least)
        flat[place] = measure.matrix(centred).reshape(-1)
    split = len(first)
    return flat[:split] @ (flat if second is None else flat[split:]).T


def _by_pair(
    measure: SimilarityMeasure,
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray] | None,
) -> np.ndarray:
    across = first if second is None else second
    half = second is None and measure.symmetric
    cells = [(i, j) for i in range(len(first)) for j in range(len(across)) if j >= i or not half]
    pairs = [(list(first)[i], list(across)[j]) for i, j in cells]
    found = {}
    start = time.perf_counter()
    for s, t in pairs:
        found[s, t] = measure.estimate(first[s], across[t])
        if len(found) == 1:
            seconds = (time.perf_counter() - start) * len(pairs)
            say(f"{measure.title} of {len(pairs)} pairs of layers: about {seconds:.1f} s")
    return np.array([[found.get((s, t), found.get((t, s))) for t in across] for s in first])


def _foretell(measure: SimilarityMeasure, n: int, width: int, layers: int) -> None:
    """Say what the matrices of all layers will cost, from the time of one of few rows of noise."""
    assert measure.matrix is not None
    if n < measure.least:
        return
    few = min(n, 256)
    noise = rng("time of a measure").normal(size=(few, width))
    start = time.perf_counter()
    measure.matrix(noise)
    seconds = (time.perf_counter() - start) * layers * (n / few) ** 2
    room = 8 * n * n * layers / 2**20
    say(f"{measure.title} of {n} rows in {layers} layers: about {seconds:.1f} s, {room:.0f} MB")


def same_pictures(features: Features, other: Features) -> None:
    """Refuse features of two models that did not see the same pictures in the same order."""
    same = len(features) == len(other) and all(
        features.frame[name].astype(str).tolist() == other.frame[name].astype(str).tolist()
        for name in ("path", "label", "domain")
        if name in features.frame.columns and name in other.frame.columns
    )
    if not same:
        given = f"features of {len(features)} and {len(other)} pictures that are not the same"
        right = "the same pictures in the same order"
        raise ShapeError("compare two models", given, right, "collect both from one image table")

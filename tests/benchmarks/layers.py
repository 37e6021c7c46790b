"""What CKA of all pairs of layers costs, in streamed Gram matrices, and how exact it is."""

import statistics
import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.probes.features.features import Features
from interp.probes.representational_similarity.layer_similarity import (
    BLOCK,
    gram_hsic,
    layer_similarity,
    minibatch_hsic,
)
from interp.probes.representational_similarity.layer_sums import LayerSums


def layers() -> None:
    """13 layers of width 768 on one thread, a common mean 10 times the spread, 2,000 pictures.

    Processor seconds, so that other work on the machine counts less.
    """
    torch.set_num_threads(1)
    x = layered(2000)
    work: dict[str, Callable[[], object]] = {
        "a centred Gram of each layer": lambda: gram_of_each(x),
        "exact, all pairs": lambda: gram_hsic(x),
        "minibatch 256": lambda: minibatch_hsic(x, batch_size=256),
        "minibatch 128": lambda: minibatch_hsic(x, batch_size=128),
        "exact, from sums": lambda: _sums(x),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(5):
        for name, each in work.items():
            start = time.process_time()
            each()
            taken[name].append(time.process_time() - start)
    bar = statistics.median(taken["a centred Gram of each layer"])
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"layers: {name:30} {middle:.2f} s, {middle / bar:.2f} of the Grams")
    exact = scaled(gram_hsic([layer.double() for layer in x])[0])
    for name, found in (("Grams", scaled(gram_hsic(x)[0])), ("sums", _sums(x))):
        print(f"layers: error of {name} in float32: {np.abs(found - exact).max():.1e} (bar 1e-6)")


def many() -> None:
    """The same layers with 10,000 pictures: is what is chosen no slower than products of features?

    These stand here as one would write them for speed, in NumPy, which multiplies only half of a
    product of a layer with itself, and in torch, which multiplies all. Streamed: about the mean, a
    batch of pictures at a time, added up, so that memory does not grow with the pictures. At once:
    all pictures centred beside the features they come from.
    """
    torch.set_num_threads(1)
    x = layered(10_000)
    values = {str(place): layer.numpy() for place, layer in enumerate(x)}
    frame = pd.DataFrame({"label": ["a"] * len(x[0]), "domain": ["b"] * len(x[0])})
    work: dict[str, Callable[[], np.ndarray]] = {
        "layer_similarity": lambda: layer_similarity(Features(values, frame)).to_numpy(),
        "streamed, NumPy": lambda: _products([*values.values()], rows=2048),
        "streamed, torch": lambda: _products(x, rows=2048),
        "at once, NumPy": lambda: _products([*values.values()], rows=len(x[0])),
        "at once, torch": lambda: _products(x, rows=len(x[0])),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    found: dict[str, np.ndarray] = {}
    for _ in range(3):
        for name, each in work.items():
            start = time.process_time()
            found[name] = each()
            taken[name].append(time.process_time() - start)
    ours, *_ = taken.values()
    exact = _sums([layer.double() for layer in x])
    for name, times in taken.items():
        ratio = statistics.median(a / b for a, b in zip(ours, times, strict=True))
        bar = " (bar 1)" if name.startswith("streamed") else ""
        print(
            f"many: {name:16} {statistics.median(times):.2f} s; layer_similarity takes {ratio:.2f} "
            f"of it{bar}; error {np.abs(found[name] - exact).max():.1e}"
        )


def _products(x: Any, rows: int) -> np.ndarray:
    """Debiased CKA from products of features about their mean, of torch or of NumPy arrays."""
    means, n = [layer.mean(0) for layer in x], len(x[0])
    pairs = list(combinations_with_replacement(range(len(x)), 2))
    total, lengths = np.zeros(len(x)), np.zeros((len(x), len(x)))
    hsic, cross = np.zeros_like(lengths), dict[tuple[int, int], Any]()
    for start in range(0, n, rows):
        batch = [layer[start : start + rows] - mean for layer, mean in zip(x, means, strict=True)]
        a = np.stack([np.asarray((layer * layer).sum(1)) for layer in batch]).astype(float)
        total, lengths = total + a.sum(axis=1), lengths + a @ a.T
        for i, j in pairs:
            product = batch[i].T @ batch[j]
            if start:
                cross[i, j] += product
            elif start + rows < n:
                cross[i, j] = product
            if start + rows >= n:
                whole = cross.pop((i, j), product)
                hsic[i, j] = hsic[j, i] = float((whole * whole).sum())
    return scaled(hsic + np.outer(total, total) / ((n - 1) * (n - 2)) - n / (n - 2) * lengths)


def layered(n: int, width: int = 768, count: int = 13, *, mean: float = 10.0) -> list[torch.Tensor]:
    """Layers that share more and more, about a common mean of so many times their spread."""
    generator = np.random.default_rng(0)
    signal, middle = generator.normal(size=(n, width)), mean * generator.choice([-1, 1], width)
    return [
        torch.from_numpy(
            (signal * np.sqrt(place / count)
             + generator.normal(size=(n, width)) * np.sqrt(1 - place / count) + middle).astype("f4")
        )
        for place in range(count)
    ]  # fmt: skip


def gram_of_each(x: list[torch.Tensor]) -> None:
    for layer in x:
        centred = layer - layer.mean(dim=0)
        for start in range(0, len(centred), BLOCK):
            torch.mm(centred[start : start + BLOCK], centred.T)


def _sums(x: list[torch.Tensor]) -> np.ndarray:
    sums = LayerSums({str(place): layer.shape[1] for place, layer in enumerate(x)})
    sums.update({str(place): layer for place, layer in enumerate(x)})
    return sums.cka()


def scaled(hsic: np.ndarray) -> np.ndarray:
    own = hsic.diagonal()
    return hsic / np.sqrt(np.outer(own, own))

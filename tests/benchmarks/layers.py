"""What CKA of all pairs of layers costs, in streamed Gram matrices, and how exact it is."""

import statistics
import time
from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import torch

from interp.probes.features import Features
from interp.probes.layer_grams import BLOCK, gram_hsic, minibatch_hsic
from interp.probes.layer_sums import LayerSums
from interp.probes.layers import layer_similarity


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

    The other form stands here as one would write it down: a product for every pair of layers.
    """
    torch.set_num_threads(1)
    x = layered(10_000)
    frame = pd.DataFrame({"label": ["a"] * len(x[0]), "domain": ["b"] * len(x[0])})
    features = Features({str(place): layer.numpy() for place, layer in enumerate(x)}, frame)
    work: dict[str, Callable[[], object]] = {
        "layer_similarity": lambda: layer_similarity(features),
        "products of features": lambda: _products(x),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(3):
        for name, each in work.items():
            start = time.process_time()
            each()
            taken[name].append(time.process_time() - start)
    ours, theirs = taken.values()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    for name, times in taken.items():
        print(f"many: {name:20} {statistics.median(times):.2f} s")
    print(f"many: {ratio:.2f} of the products of features (bar 1)")


def _products(x: list[torch.Tensor]) -> np.ndarray:
    centred = [layer - layer.mean(dim=0) for layer in x]
    lengths = torch.stack([layer.square().sum(dim=1) for layer in centred]).double()
    n, total = len(x[0]), lengths.sum(dim=1)
    hsic = total.outer(total) / ((n - 1) * (n - 2)) - n / (n - 2) * lengths @ lengths.T
    for i, j in combinations_with_replacement(range(len(x)), 2):
        product = float((centred[i].T @ centred[j]).square().sum())
        hsic[i, j] += product
        hsic[j, i] += product if i != j else 0
    return scaled(hsic.numpy())


def layered(n: int, width: int = 768, count: int = 13, *, mean: float = 10.0) -> list[torch.Tensor]:
    """Layers that share more and more, about a common mean of so many times their spread."""
    stream = np.random.default_rng(0)
    signal, middle = stream.normal(size=(n, width)), mean * stream.choice([-1, 1], width)
    return [
        torch.from_numpy(
            (signal * np.sqrt(place / count)
             + stream.normal(size=(n, width)) * np.sqrt(1 - place / count) + middle).astype("f4")
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

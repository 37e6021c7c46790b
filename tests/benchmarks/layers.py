"""What CKA of all pairs of layers costs, in streamed Gram matrices, and how exact it is."""

import statistics
from collections.abc import Callable

import numpy as np
import torch

from interp.probes.representational_similarity.layer_similarity import (
    BLOCK,
    gram_hsic,
    minibatch_hsic,
)
from interp.probes.representational_similarity.layer_sums import LayerSums
from tests.benchmarks.timing import alternate


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
    taken = alternate(work, 5)
    bar = statistics.median(taken["a centred Gram of each layer"])
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"layers: {name:30} {middle:.2f} s, {middle / bar:.2f} of the Grams")
    exact = scaled(gram_hsic([layer.double() for layer in x])[0])
    for name, found in (("Grams", scaled(gram_hsic(x)[0])), ("sums", _sums(x))):
        print(f"layers: error of {name} in float32: {np.abs(found - exact).max():.1e} (bar 1e-6)")


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

"""What CKA of all pairs of layers costs, in streamed Gram matrices, and how exact it is."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from interp.probes.layer_grams import BLOCK, gram_hsic, minibatch_hsic
from interp.probes.layer_sums import LayerSums


def layers() -> None:
    """13 layers of width 768 on one thread, a common mean 10 times the spread, 2,000 pictures.

    Processor seconds, so that other work on the machine counts less.
    """
    torch.set_num_threads(1)
    x = _layered(2000)
    work: dict[str, Callable[[], object]] = {
        "a centred Gram of each layer": lambda: _grams(x),
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
    exact = _scaled(gram_hsic([layer.double() for layer in x])[0])
    for name, found in (("Grams", _scaled(gram_hsic(x)[0])), ("sums", _sums(x))):
        print(f"layers: error of {name} in float32: {np.abs(found - exact).max():.1e} (bar 1e-6)")


def _layered(n: int, width: int = 768, count: int = 13) -> list[torch.Tensor]:
    stream = np.random.default_rng(0)
    signal, mean = stream.normal(size=(n, width)), 10 * stream.choice([-1, 1], width)
    return [
        torch.from_numpy(
            (signal * np.sqrt(place / count)
             + stream.normal(size=(n, width)) * np.sqrt(1 - place / count) + mean).astype("f4")
        )
        for place in range(count)
    ]  # fmt: skip


def _grams(x: list[torch.Tensor]) -> None:
    for layer in x:
        centred = layer - layer.mean(dim=0)
        for start in range(0, len(centred), BLOCK):
            torch.mm(centred[start : start + BLOCK], centred.T)


def _sums(x: list[torch.Tensor]) -> np.ndarray:
    sums = LayerSums({str(place): layer.shape[1] for place, layer in enumerate(x)})
    sums.update({str(place): layer for place, layer in enumerate(x)})
    return sums.cka()


def _scaled(hsic: np.ndarray) -> np.ndarray:
    own = hsic.diagonal()
    return hsic / np.sqrt(np.outer(own, own))

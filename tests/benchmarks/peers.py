"""What CKA of all pairs of layers costs and how exact it is, beside the packages that offer it.

They are looked for beside our own; a folder of their own keeps the environment as it is:

python -m pip install --no-deps --target PEERS torch-cka ckatorch pytorch-cka
python -m pip install --no-deps --target PEERS matplotlib seaborn contourpy cycler fonttools
python -m pip install --no-deps --target PEERS kiwisolver pyparsing
PYTHONPATH=PEERS python -m tests.benchmarks peers
"""

import io
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interp.probes.representational_similarity.cka import u_centred
from interp.probes.representational_similarity.layer_similarity import gram_hsic, minibatch_hsic
from tests.benchmarks.layers import gram_of_each, layered, scaled

PEERS = {"torch-cka": "torch_cka", "ckatorch": "ckatorch", "pytorch-cka": "cka"}
N, BATCH, FEW, ROUNDS, ENOUGH = 2000, 256, 3, 5, 10.0
"""Rows; rows of a batch; layers where all take minutes; rounds, of which an arm leaves out the rest
once it has taken so many seconds."""

Layers = list[Tensor]


@dataclass
class Arm:
    """A way to CKA: how it is called, what it should give, and its share of the whole job."""

    call: Callable[[], np.ndarray]
    expected: np.ndarray
    share: float = 1.0
    bar: float | None = None

    def error(self, found: np.ndarray) -> str:
        off = np.abs(found - self.expected)
        lost = f" and NaN for {np.isnan(off).sum()} of {off.size}" if np.isnan(off).any() else ""
        return f"error {np.nanmax(off, initial=0):.1e}{lost}"


def peers() -> None:
    """13 layers of width 768 on one thread, a common mean 10 times the spread, 2,000 pictures.

    Processor seconds, medians of alternating rounds. Errors are against the same estimator over the
    same batches in float64, of U-centred Gram matrices as the textbook has them. The last column
    has 500 rows of three layers without the common mean: who is off by that is called wrongly here.
    """
    torch.set_num_threads(1)
    missing = [name for name, module in PEERS.items() if find_spec(module) is None]
    if missing:
        print(f"peers: left out, since they are not installed: {', '.join(missing)}")
    x = layered(N)
    arms, plain = _arms(x, missing), _arms(layered(500, mean=0)[-FEW:], missing)
    taken: dict[str, list[float]] = {name: [] for name in ("Grams", *arms)}
    found: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        for name in [name for name, times in taken.items() if sum(times) < ENOUGH]:
            start = time.process_time()
            if name == "Grams":
                gram_of_each(x)
            else:
                found[name] = arms[name].call()
            taken[name].append(time.process_time() - start)
    whole = statistics.median(taken["Grams"])
    print(f"peers: a centred Gram of each layer: {whole:.2f} s (of {len(taken['Grams'])})")
    for name, arm in arms.items():
        seconds = statistics.median(taken[name]) / arm.share
        part = "" if arm.share == 1 else f", from {FEW} layers, {arm.share:.3f} of the job"
        bar = "" if arm.bar is None else f" (bar {arm.bar})"
        print(
            f"peers: {name}: {seconds:.2f} s (of {len(taken[name])}{part}), "
            f"{seconds / whole:.2f} of the Grams{bar}, {arm.error(found[name])}; without the mean "
            f"{plain[name].error(plain[name].call())}"
        )


def _arms(x: Layers, missing: list[str]) -> dict[str, Arm]:
    makers = {"torch-cka": _torch_cka, "ckatorch": _ckatorch, "pytorch-cka": _cka}
    batches = {f"minibatch {BATCH}": BATCH, "full batch": len(x[0])}
    truth = {batch: textbook(x, batch) for batch in batches.values()}
    arms = _ours(x, truth[len(x[0])])
    for peer in (peer for peer in makers if peer not in missing):
        for name, batch in batches.items():
            arms[f"{peer}, {name}"] = makers[peer](x, batch, truth[batch])
    return arms


def _ours(x: Layers, truth: np.ndarray) -> dict[str, Arm]:
    """Our minibatches are drawn at random: what they should give is theirs in float64."""
    in_double = scaled(minibatch_hsic([part.double() for part in x], batch_size=BATCH)[0])
    return {
        "ours, exact": Arm(lambda: scaled(gram_hsic(x)[0]), truth, bar=1.0),
        f"ours, minibatch {BATCH}": Arm(
            lambda: scaled(minibatch_hsic(x, batch_size=BATCH)[0]), in_double, bar=0.2
        ),
    }


def _torch_cka(x: Layers, batch: int, truth: np.ndarray) -> Arm:
    """Its work is HSICs, each a product of two Gram matrices: k + 2 k^2 of them for k layers."""
    few = len(x) if batch == BATCH else FEW

    def call() -> np.ndarray:
        model, names = _replayed(x[:few])
        found = import_module("torch_cka").CKA(model, model, "one", "same", names, names, "cpu")
        with suppress(AssertionError):  # of its own NaN; what it found is there none the less
            found.compare(_rows(len(x[0]), batch))
        return found.export()["CKA"].numpy()

    share = (few + 2 * few**2) / (len(x) + 2 * len(x) ** 2)
    return Arm(_quiet(call), truth[:few, :few], share)


def _ckatorch(x: Layers, batch: int, truth: np.ndarray) -> Arm:
    """It compares the tokens of a picture, so that pictures must stand where it has tokens.

    A batch overwrites what the one before it gave: of minibatches only the last one's CKA remains.
    What it does, it does for each pair.
    """

    def call() -> np.ndarray:
        model, names = _replayed(x[:FEW], as_tokens=True)
        found = import_module("ckatorch").CKA(model, model, names, device="cpu")
        return found(_rows(len(x[0]), batch), epochs=1).numpy()

    return Arm(_quiet(call), truth[:FEW, :FEW], FEW**2 / len(x) ** 2)


def _cka(x: Layers, batch: int, truth: np.ndarray) -> Arm:
    """It clips at 0 and 1; what that takes away is no error here."""

    def call() -> np.ndarray:
        model, names = _replayed(x)
        options = {"layers": names, "device": "cpu", "progress": False}
        rows = _rows(len(x[0]), batch)
        return import_module("cka").compute_cka(model, model, rows, **options)[0].numpy()

    return Arm(_quiet(call), truth.clip(0, 1))


class _Replay(nn.Module):
    """A layer that gives stored activations for the rows asked for, without copying them."""

    def __init__(self, kept: Tensor, as_tokens: bool) -> None:
        super().__init__()
        self.kept, self.as_tokens = kept, as_tokens

    def forward(self, rows: Tensor) -> Tensor:
        part = self.kept[int(rows[0]) : int(rows[-1]) + 1]
        return part[None] if self.as_tokens else part


def _replayed(layers: list[Tensor], *, as_tokens: bool = False) -> tuple[nn.Module, list[str]]:
    """A model that replays activations layer by layer, and the names of its layers."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, kept in zip(names, layers, strict=True):
                self.add_module(name, _Replay(kept, as_tokens))

        def forward(self, rows: Tensor) -> Tensor:
            return [layer(rows) for layer in self.children()][-1]

    names = [f"layer{place}" for place in range(len(layers))]
    return Model(), names


def _rows(n: int, batch: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(n)), batch_size=batch, shuffle=False)


def _quiet(call: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """The call without its progress bars and advice."""

    def silent() -> np.ndarray:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()

    return silent


def textbook(layers: list[Tensor], batch: int) -> np.ndarray:
    """Minibatch CKA over batches in order, each weighing the same; exact with one batch."""
    hsic = np.zeros((len(layers), len(layers)))
    for rows in torch.arange(len(layers[0])).split(batch):
        n = len(rows)
        flat = np.empty((len(layers), n * n))
        for place, layer in enumerate(layers):
            part = layer[rows].double().numpy()
            part = part - part.mean(axis=0)
            flat[place] = u_centred(part @ part.T).ravel()
        hsic += flat @ flat.T / (n * (n - 3))
    return scaled(hsic)

"""Dictionaries: seeds side by side against one after another, and what finds planted sharing."""

import statistics
import time
from itertools import product

import numpy as np
import pandas as pd
import torch

from interp.core.progress import set_quiet
from interp.probes import (
    BatchTopK,
    Dictionary,
    Features,
    TopK,
    dictionary_quality,
    dictionary_stability,
    feature_sharing,
    pca,
    raw_units,
    train_dictionaries,
)
from tests.probes.sparse_world import SITE, sparse_world


def dictionaries() -> None:
    """Seconds of several seeds at once, and the index that each code reads off planted doses."""
    set_quiet(True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for d_in, width in ((64, 128), (128, 512), (768, 1024)):
            _side_by_side(d_in, width)
        _doses()
    finally:
        torch.set_num_threads(threads)
        set_quiet(False)


def _side_by_side(d_in: int, width: int, *, seeds: int = 4, rounds: int = 5) -> None:
    x = np.random.default_rng(0).normal(size=(2000, d_in)).astype(np.float32)
    frame = pd.DataFrame({"label": "any", "domain": ["any"] * len(x)})
    features, steps = Features({SITE: x}, frame), 20

    def seconds(groups: list[tuple[int, ...]]) -> float:
        start = time.perf_counter()
        for group in groups:
            train_dictionaries(
                features, SITE, TopK(8), width=width, withheld=(), seeds=group, steps=steps
            )
        return time.perf_counter() - start

    alone, together = [], []
    for _ in range(rounds):
        alone.append(seconds([(seed,) for seed in range(seeds)]))
        together.append(seconds([tuple(range(seeds))]))
    ratio = statistics.median(a / t for a, t in zip(alone, together, strict=True))
    step = statistics.median(together) / steps * 1e3
    print(
        f"dictionaries: {seeds} seeds, {d_in} to {width} features: {step:.0f} ms a step side by "
        f"side, {ratio:.2f} times as fast as one after another"
    )


def _doses() -> None:
    """More features than dimensions, loud marks of each domain: who reads the dose off?"""
    error: dict[str, list[float]] = {}
    for dose, seed in product((0.0, 0.25, 0.5, 0.75, 1.0), range(2)):
        world = sparse_world(
            dose, n_classes=12, n_artists=8, copies=6, width=32, on=0.4, of_domain=3, loud=2.0,
            seed=seed,
        )  # fmt: skip
        several = train_dictionaries(
            world.features, SITE, BatchTopK(5), width=96, withheld=(), seeds=(0, 1, 2), steps=500,
            rate=0.01, batch_size=256,
        )  # fmt: skip
        codes = {
            "planted": lambda x, w=world: w.codes, "dictionary": several,
            "units": raw_units(world.features, SITE, withheld=()),
            "pca": pca(world.features, SITE, withheld=()),
        }  # fmt: skip
        frame = feature_sharing(world.features, SITE, codes, n_permutations=19).frame
        frame = frame[frame["centred"] & (frame["measure"] == "shared mass")]
        for row in frame.to_dict("records"):
            error.setdefault(f"{row['code']}, {row['reading']}", []).append(row["index"] - dose)
        if dose == 1.0:
            _print_quality(several, world.features)
    for name, each in error.items():
        print(f"dictionaries: {name}: index off by {np.mean(np.abs(each)):.2f} on average")


def _print_quality(several: list[Dictionary], features: Features) -> None:
    stable = dictionary_stability(several).frame.set_index("measure")["value"]
    quality = dictionary_quality(several[0], features).frame.iloc[:3].to_dict("records")
    told = ", ".join(f"{row['measure']} {row['value']:.2f}" for row in quality)
    print(f"dictionaries: same features over seeds {stable['same features']:.2f}; {told}")

"""How much disk a set of training runs will take, reckoned from their architectures."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from interp.core.errors import OutputError
from interp.core.progress import say
from interp.models.lists import classes_of
from interp.models.runs import Run

STATES = {"adamw": 2, "sgd": 1}
"""Tensors as large as the parameter that an optimizer keeps for it."""
COUNTERS = {"adamw": 1, "sgd": 0}
"""Single numbers that it keeps beside them."""
PER_TENSOR, PER_FILE = 320, 3000
"""Bytes that a tensor takes in a file beside its values (name, place, padding), and a file."""


@dataclass(frozen=True)
class Size:
    """What a module puts into a checkpoint: trained numbers, bytes of buffers, tensors of each."""

    trained: int
    buffers: int
    n_trained: int
    n_buffers: int


def forecast_disk(runs: Sequence[Run], *, jobs: int = 1) -> int:
    """Bytes that unfinished runs take at most: kept epochs, and what going on needs meanwhile.

    kept epochs x weights, for each run, and 2 x (weights + optimizer) for each of `jobs` at work:
    the latest state, and its successor while that is being written. TensorBoard and logs are not
    counted.
    """
    waiting = [run for run in runs if not run.final.exists()]
    sizes = [checkpoint_bytes(run) for run in waiting]
    stay = sum(weights * len(run.kept) for run, (weights, _) in zip(waiting, sizes, strict=True))
    work = sorted((2 * (weights + states) for weights, states in sizes), reverse=True)
    return stay + sum(work[:jobs])


def checkpoint_bytes(run: Run) -> tuple[int, int]:
    """Bytes of one checkpoint's weights, and of the optimizer's state beside them, at most."""
    recipe = run.recipe
    size, image, width = _sizes(run.model_folder)
    if recipe.objective == "supervised":
        head = (width + 1) * len(classes_of(run.tsv))
        size = replace(image, trained=image.trained + head, n_trained=image.n_trained + 2)
    number = 8 if recipe.precision == "fp64" else 4
    states, counters = STATES[recipe.optimizer], COUNTERS[recipe.optimizer]
    weights = number * size.trained + size.buffers * number // 4
    return (
        weights + PER_TENSOR * (size.n_trained + size.n_buffers) + PER_FILE,
        states * number * size.trained + PER_TENSOR * (states + counters) * size.n_trained,
    )


@lru_cache(maxsize=64)
def _sizes(folder: Path) -> tuple[Size, Size, int]:
    """A whole model, its image tower alone, and the width of the embedding."""
    from interp.models.loading import create

    with torch.device("meta"):  # shapes without memory
        model: Any = create(f"local-dir:{folder}", device="meta", load_weights=False)
    width = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    return _size(model), _size(model.visual), int(width)


def _size(module: torch.nn.Module) -> Size:
    kept, parameters = module.state_dict(), dict(module.named_parameters())
    buffers = [value for name, value in kept.items() if name not in parameters]
    return Size(
        sum(value.numel() for value in parameters.values()),
        sum(value.numel() * value.element_size() for value in buffers),
        len(parameters),
        len(buffers),
    )


def check_room(runs: Sequence[Run], *, jobs: int = 1) -> None:
    """Say what runs will take, and refuse to begin where the disk has less."""
    need = forecast_disk(runs, jobs=jobs)
    place = runs[0].out
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise OutputError(
            f"train {len(runs)} models into {runs[0].out}",
            f"{_said(free)} of free disk",
            f"{_said(need)}",
            "make room, keep fewer epochs, or choose another folder",
        )
    say(f"checkpoints: {_said(need)} at most; {_said(free)} are free")


def _said(size: int) -> str:
    """A number of bytes in words.

    >>> _said(3 * 2**20), _said(5 * 2**30)
    ('3.0 MiB', '5.0 GiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"

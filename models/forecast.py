"""How much disk a set of training runs will take, reckoned from their architectures."""

import json
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from interp.core.errors import OutputError
from interp.core.progress import say
from interp.models.lists import classes_of
from interp.models.runs import Run

STATES = {"adamw": 2, "sgd": 1}
"""Tensors that an optimizer keeps per parameter."""


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
    """Bytes of one checkpoint's weights, and of the optimizer's state beside them."""
    recipe = run.recipe
    trained, buffers, width, image = _numbers(run.model_folder)
    if recipe.objective == "supervised":
        n_classes = len(classes_of(run.tsv))
        trained, buffers = image[0] + (width + 1) * n_classes, image[1]
    wide = 2 if recipe.precision == "fp64" else 1
    return wide * (4 * trained + buffers), wide * 4 * trained * STATES[recipe.optimizer]


@lru_cache(maxsize=64)
def _numbers(folder: Path) -> tuple[int, int, int, tuple[int, int]]:
    """Parameters of a model and bytes of its buffers, width of the embedding, and the first two
    for the image tower alone."""
    from interp.models.loading import create

    with torch.device("meta"):  # shapes without memory
        model: Any = create(f"local-dir:{folder}", device="meta", load_weights=False)
    width = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    return *_count(model), int(width), _count(model.visual)


def _count(module: torch.nn.Module) -> tuple[int, int]:
    kept = module.state_dict()
    parameters = dict(module.named_parameters())
    rest = [value for name, value in kept.items() if name not in parameters]
    return (
        sum(value.numel() for value in parameters.values()),
        sum(value.numel() * value.element_size() for value in rest),
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

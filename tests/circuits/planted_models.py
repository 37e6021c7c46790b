"""Planted models, their pictures, and the circuits of their classes, each made once."""

from functools import cache
from typing import Any

import numpy as np
import torch

from interp.circuits import ClassCircuits, Edges, Units, class_circuits
from interp.circuits.planted.vit import Blueprint, Planted, plant
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.core.images import ImageTable
from interp.models.towers.vit import HookedViT

HEADS, NEURONS = "blocks.*.attn.hook_z", "blocks.*.mlp.hook_post"
AXES = {"head": HEADS, "d_mlp": NEURONS}
GRADIENTS = "integrated gradients"


@cache
def model(condition: str = "all shared") -> tuple[Planted, HookedViT]:
    planted = disguise(plant(Blueprint(condition, 1)), seed=3)
    return planted, HookedViT(planted.source)


@cache
def pictures() -> ImageTable:
    return paint(model()[0].world, 8, seed=5)


@cache
def units(axis: str, method: str = GRADIENTS, condition: str = "all shared") -> Units:
    x = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    return Units.of(model(condition)[1], AXES[axis], x, axis=axis, method=method)


@cache
def found(condition: str, level: str, domain: str = "A", method: str = GRADIENTS) -> ClassCircuits:
    planted, tower = model(condition)
    cut = Edges(tower) if level == "edge" else units(level, method, condition)
    return search(cut, pictures(), planted, domain=domain)


def search(cut: Any, images: ImageTable, planted: Planted, **words: Any) -> ClassCircuits:
    options = {"n": 2, "preprocess": as_tensor, "classifier": planted.classifier} | words
    return class_circuits(cut, images, **options)


def both(condition: str, level: str) -> list[ClassCircuits]:
    return [found(condition, level, domain) for domain in DOMAINS]


def kept_on_others(circuits: ClassCircuits, share: float) -> float:
    """The share of the metric that circuits of one half of the artists keep for the other half."""
    kept, work, gaps = circuits.masks(share), [], []
    for side, read in enumerate(circuits.halves):
        rows = [circuits.classes.index(name) for name in read.pairs.clean.label]
        values, ends = circuits.cut.run(read, kept[rows, 1 - side][None])
        work.append(values[0] - ends[1])
        gaps.append(ends[0] - ends[1])
    return float(np.concatenate(work).mean() / np.concatenate(gaps).mean())

"""How a model is trained, as plain values: the toolkit's own recipe and those of the paper."""

from dataclasses import field, replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.core.declarations.declared import (
    Declared,
    Finite,
    Flag,
    Positive,
    Text,
    Whole,
    at_least,
    one_of,
)
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.storage.store import LATER

PRECISIONS = ("fp32", "amp_bf16", "amp", "fp64")
OBJECTIVES = ("clip", "supervised")
OPTIMIZERS = ("adamw", "sgd")
PARTNERS = ("own", "shuffled")
STEPS = 1000
"""How many steps a recipe has that says neither steps nor epochs."""


@dataclass(frozen=True)
class Recipe(Declared):
    """How a model is trained. Length is `steps` of the optimiser, so that mixtures compare, or
    `epochs`; one of the two counts, and 1,000 steps are taken where neither is given.

    `batch_size` is the whole batch of one step, over all processes and over `accumulate` parts.
    The learning rate rises over `warmup` steps and falls along a cosine; with `milestones` it falls
    to a tenth at those epochs instead. `precision` "auto" is bfloat16 where the machine computes it
    fast, else float32. Training pictures are crops of at least the share `crop` of the area;
    without `augment` they are the ones that evaluation sees. `objective` "clip" is the contrastive
    loss of captions, "supervised" the cross entropy of labels.

    Kept for good are `keep` checkpoints, evenly spaced from epoch 0 to the last, and every
    `save_frequency`-th. `workers` are processes that decode pictures beside the trainer.

    `align` is the weight of a further loss term (`interp.models.training.alignment`) that pulls the
    class means of the seen classes together between the natural and the test domain at `align_site`
    (by default the middle block's output), or apart where it is below 0. With `align_classes`
    "shuffled" each class gets another class of the test domain as its partner. 0 is no term.

    >>> Recipe().steps, Recipe(epochs=32).steps
    (1000, 0)
    >>> Recipe(keep=3).kept(8)
    (0, 4, 8)
    """

    asked = "train a model"

    steps: Annotated[int, at_least(-1, "at least one step")] = -1
    batch_size: Annotated[int, at_least(2, "two pictures or more")] = 128
    lr: Positive = 1e-3
    wd: Finite = 0.05
    warmup: Annotated[int, at_least(0)] = 100
    precision: Annotated[Text, one_of(("auto", *PRECISIONS))] = "auto"
    save_frequency: Annotated[int, at_least(0)] = 0
    seed: Whole = 0
    epochs: Annotated[int, at_least(0, "at least one epoch")] = 0
    accumulate: Annotated[int, at_least(1)] = 1
    objective: Annotated[Text, one_of(OBJECTIVES)] = "clip"
    optimizer: Annotated[Text, one_of(OPTIMIZERS)] = "adamw"
    beta2: Finite = 0.98
    eps: Finite = 1e-6
    milestones: Annotated[tuple[Whole, ...], Field(description="a list of epochs")] = ()
    crop: Annotated[Positive, Field(le=1, description="a share above 0, up to 1")] = 0.9
    augment: Flag = True
    workers: Annotated[int, at_least(0)] = 0
    keep: Annotated[int, at_least(2, "2 (epoch 0 and the last) or more")] = 2
    align: Annotated[Finite, Field(description="a finite weight")] = field(
        default=0.0, metadata=LATER
    )
    align_site: Text = field(default="", metadata=LATER)
    align_classes: Annotated[Text, one_of(PARTNERS)] = field(default="own", metadata=LATER)

    def __post_init__(self) -> None:
        if self.steps == -1:
            object.__setattr__(self, "steps", 0 if self.epochs > 0 else STEPS)
        if (self.steps > 0) == (self.epochs > 0):
            raise SpecificationError(
                "train a model",
                f"{self.steps} steps and {self.epochs} epochs",
                "at least one of the two, and one of the two alone",
                "give one and leave the other out",
            )
        if self.batch_size % self.accumulate:
            raise SpecificationError(
                "train a model",
                f"a batch of {self.batch_size} in {self.accumulate} parts",
                "parts of equal size",
                "choose another number",
            )

    def epochs_for(self, n_train: int) -> int:
        """The number of whole epochs: as given, or nearest to `steps`, at least one.

        >>> Recipe(steps=100, batch_size=10).epochs_for(205), Recipe(epochs=7).epochs_for(205)
        (5, 7)
        """
        return self.epochs or max(1, round(self.steps / self.batches(n_train)))

    def batches(self, n_train: int) -> int:
        """Optimiser steps in an epoch; the pictures that fill no batch wait for another order."""
        batches = n_train // self.batch_size
        if batches < 1:
            raise SampleError(
                "train a model",
                f"{n_train} training pictures",
                f"at least one batch of {self.batch_size}",
                "give more pictures or a smaller batch_size",
            )
        return batches

    def kept(self, epochs: int) -> tuple[int, ...]:
        """The epochs, of so many, whose checkpoints stay.

        >>> Recipe(keep=3, save_frequency=3).kept(7)
        (0, 3, 4, 6, 7)
        """
        even = {round(place * epochs / (self.keep - 1)) for place in range(self.keep)}
        every = range(0, epochs + 1, self.save_frequency) if self.save_frequency else ()
        return tuple(sorted({*even, *every}))

    def share(self, processes: int) -> int:
        """Pictures that one process takes at a time."""
        parts = processes * self.accumulate
        if processes < 1 or self.batch_size % parts:
            raise SpecificationError(
                f"train on {processes} processes",
                f"a batch of {self.batch_size} pictures in {parts} parts",
                "a batch that the parts divide evenly",
                f"choose batch_size = {max(1, self.batch_size // max(parts, 1)) * max(parts, 1)}",
            )
        return self.batch_size // parts


def fast_precision(device: str) -> str:
    """bfloat16 autocast where it is fast (a GPU, or a CPU with the instructions), else float32."""
    if device.startswith("cuda"):
        return "amp_bf16" if torch.cuda.is_bf16_supported() else "amp"
    return "amp_bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


_PAPER = Recipe(
    epochs=32,
    batch_size=1024,
    lr=1e-3,
    wd=0.2,
    warmup=500,
    precision="amp",
    beta2=0.999,
    eps=1e-8,
    workers=8,
    keep=3,
)

RECIPES: dict[str, Recipe] = {
    "small": Recipe(),
    # a small ViT learns late: a higher rate, a longer rise, stronger crops, more steps
    "small-vit": Recipe(steps=4000, lr=2e-3, wd=0.1, warmup=400, crop=0.6),
    # Kempf et al. 2025, with open_clip's betas and eps for ResNets and Swin ...
    "imagenet-captions": _PAPER,
    # ... and for ViTs
    "imagenet-captions-vit": replace(_PAPER, beta2=0.98, eps=1e-6),
    "cc": replace(_PAPER, batch_size=2048, lr=5e-4, warmup=2000),
    "supervised": Recipe(
        epochs=90,
        batch_size=256,
        lr=0.01,
        wd=1e-4,
        warmup=0,
        precision="amp",
        objective="supervised",
        optimizer="sgd",
        milestones=(30, 50, 70),
        workers=8,
        keep=3,
    ),
    # the same loss on what the embedded study's models are trained on
    "small-supervised": Recipe(
        objective="supervised", optimizer="sgd", lr=0.05, wd=1e-4, warmup=50, batch_size=64
    ),
}
"""Recipes by name: `small*` for the embedded study, the others of Kempf et al. (arXiv 2502.09507).

They have float16 `amp` as the paper has; on a CPU take "auto"."""


def named_recipe(name: str, **changes: object) -> Recipe:
    """A recipe by name, with some values changed; new `steps` take the place of `epochs`.

    >>> named_recipe("cc", epochs=2).epochs
    2
    >>> named_recipe("imagenet-captionz")
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: ... Did you mean imagenet-captions, ...?
    """
    check_known("train a model", "recipe", [name], RECIPES, SpecificationError)
    if ("steps" in changes) != ("epochs" in changes):
        changes = {"steps": 0, "epochs": 0, **changes}
    return replace(RECIPES[name], **changes)  # type: ignore[arg-type]

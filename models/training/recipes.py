"""Recipes for training a model, as plain values: the toolkit's own and those of the paper."""

from dataclasses import field, replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.fields import (
    Declared,
    Finite,
    Flag,
    Positive,
    Share,
    Text,
    Whole,
    at_least,
    one_of,
)
from interp.core.storage.store import LATER

PRECISIONS = ("fp32", "amp_bf16", "amp", "fp64")
OBJECTIVES = ("clip", "supervised")
OPTIMIZERS = ("adamw", "muon", "sgd")
PARTNERS = ("own", "shuffled")
NEGATIVES = ("all", "masked", "masked-absent", "masked-random", "only")
VARIED = ("flip", "colour", "grey")
"""Options of augmentation beside crops."""
STEPS = 2000
"""How many steps a recipe has that says neither steps nor epochs."""


@dataclass(frozen=True)
class Recipe(Declared):
    """How a model is trained.

    Args:
        steps: Steps of the optimiser, which makes mixtures comparable. By default 2,000, or none
            where `epochs` are given.
        batch_size: Pictures in a step, over all processes and over `accumulate` parts.
        lr: The highest learning rate.
        wd: Weight decay.
        warmup: Steps over which the learning rate rises; then it falls along a cosine.
        precision: `fp32`, `amp_bf16`, `amp` or `fp64`. "auto" is bfloat16 where the machine
            computes it fast, else float32.
        save_frequency: Every so many epochs a checkpoint is kept for good; 0 keeps only those of
            `keep`.
        seed: Seed of the initial weights, the order of the pictures and their crops.
        epochs: Passes over the pictures, in place of `steps`.
        accumulate: Parts that a batch is worked on in.
        objective: "clip" is the contrastive loss of captions, "supervised" the cross entropy of
            labels.
        optimizer: `adamw`, `muon` (Muon for the matrices of transformer blocks, AdamW for all
            else; it takes torch 2.9) or `sgd`.
        beta2: AdamW's decay rate of the second moment.
        eps: AdamW's epsilon.
        milestones: Epochs at which the learning rate falls to a tenth, in place of the cosine.
        crop: Training pictures are crops of at least this share of the area.
        augment: Whether to augment; without it pictures are prepared as they are for evaluation.
        flip: Share of training pictures that are mirrored.
        colour: How far brightness, contrast and saturation of a training picture change: factors
            from 1 - colour to 1 + colour.
        grey: Share of training pictures that lose their colours.
        workers: Processes that decode pictures beside the trainer.
        keep: Checkpoints kept for good, evenly spaced from epoch 0 to the last.
        align: Weight of a further loss term that pulls the class means of seen classes together
            between the natural and the test domain, or apart where it is below 0; 0 is no term.
        align_site: The site of that term; empty is the middle block's output.
        align_classes: "own", or "shuffled" to give each class another class of the test domain as
            its partner.
        negatives: "all", or whose captions are no negatives of the test domain's pictures: those of
            the classes "masked" (held out), "masked-absent" (with no picture there) or
            "masked-random" (as many seen ones). "only" keeps held-out captions as negatives and
            leaves out all else that these pictures teach.

    Raises:
        SpecificationError: For a value out of range, both steps and epochs, or a batch that
            `accumulate` does not divide.

    Notes:
        The further loss term is that of `interp.models.training.alignment`, the loss without some
        negatives that of `interp.models.training.masked_loss`.

    >>> Recipe().steps, Recipe(epochs=32).steps
    (2000, 0)
    >>> Recipe(keep=3).kept_epochs(8)
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
    flip: Share = field(default=0.0, metadata=LATER)
    colour: Share = field(default=0.0, metadata=LATER)
    grey: Share = field(default=0.0, metadata=LATER)
    align: Annotated[Finite, Field(description="a finite weight")] = field(
        default=0.0, metadata=LATER
    )
    align_site: Text = field(default="", metadata=LATER)
    align_classes: Annotated[Text, one_of(PARTNERS)] = field(default="own", metadata=LATER)
    negatives: Annotated[Text, one_of(NEGATIVES)] = field(default="all", metadata=LATER)

    def __post_init__(self) -> None:
        if self.steps == -1:
            object.__setattr__(self, "steps", 0 if self.epochs > 0 else STEPS)
        if (self.steps > 0) == (self.epochs > 0):
            asked = "train a model"
            given = f"{self.steps} steps and {self.epochs} epochs"
            right = "at least one of the two, and one of the two alone"
            raise SpecificationError(asked, given, right, "give one and leave the other out")
        if self.batch_size % self.accumulate:
            given = f"a batch of {self.batch_size} in {self.accumulate} parts"
            right = "parts of equal size"
            raise SpecificationError("train a model", given, right, "choose another number")
        if self.align and self.negatives != "all":
            asked, given = "train a model", f"align = {self.align:g} and {self.negatives} negatives"
            right = "one of them, whose effect can then be told"
            raise SpecificationError(asked, given, right, "leave one of them out")

    def epochs_for(self, n_train: int) -> int:
        """The number of whole epochs: as given, or nearest to `steps`, at least one.

        Args:
            n_train: Training pictures.

        Returns:
            The number of epochs.

        Raises:
            SampleError: For fewer pictures than a batch.

        >>> Recipe(steps=100, batch_size=10).epochs_for(205), Recipe(epochs=7).epochs_for(205)
        (5, 7)
        """
        return self.epochs or max(1, round(self.steps / self.batches(n_train)))

    def batches(self, n_train: int) -> int:
        """Optimiser steps in an epoch.

        Args:
            n_train: Training pictures; those that fill no batch wait for another order.

        Returns:
            The number of steps.

        Raises:
            SampleError: For fewer pictures than a batch.
        """
        batches = n_train // self.batch_size
        if batches < 1:
            right = f"at least one batch of {self.batch_size}"
            do = "give more pictures or a smaller batch_size"
            raise SampleError("train a model", f"{n_train} training pictures", right, do)
        return batches

    def kept_epochs(self, epochs: int) -> tuple[int, ...]:
        """The epochs whose checkpoints are kept for good.

        Args:
            epochs: The number of the last epoch.

        Returns:
            Their numbers.

        >>> Recipe(keep=3, save_frequency=3).kept_epochs(7)
        (0, 3, 4, 6, 7)
        """
        even = {round(place * epochs / (self.keep - 1)) for place in range(self.keep)}
        every = range(0, epochs + 1, self.save_frequency) if self.save_frequency else ()
        return tuple(sorted({*even, *every}))

    def share(self, processes: int) -> int:
        """The number of pictures that one process works on at a time.

        Args:
            processes: The number of processes.

        Returns:
            The number of pictures.

        Raises:
            SpecificationError: If the parts do not divide the batch evenly.
        """
        parts = processes * self.accumulate
        if processes < 1 or self.batch_size % parts:
            given = f"a batch of {self.batch_size} pictures in {parts} parts"
            right = "a batch that the parts divide evenly"
            do = f"choose batch_size = {max(1, self.batch_size // max(parts, 1)) * max(parts, 1)}"
            raise SpecificationError(f"train on {processes} processes", given, right, do)
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
    "small": Recipe(optimizer="muon"),
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
    """A recipe of `RECIPES` by name, with some values changed.

    Args:
        name: The name.
        **changes: Values of `Recipe` to change; new `steps` take the place of `epochs`, and new
            `epochs` that of `steps`.

    Returns:
        The recipe.

    Raises:
        SpecificationError: For an unknown name, or a value out of range.

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

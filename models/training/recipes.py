"""How a model is trained, as plain values: the toolkit's own recipe and those of the paper."""

import dataclasses
import math
from dataclasses import dataclass, field

import torch

from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.store import LATER

PRECISIONS = ("fp32", "amp_bf16", "amp", "fp64")
OBJECTIVES = ("clip", "supervised")
OPTIMIZERS = ("adamw", "sgd")
PARTNERS = ("own", "shuffled")
STEPS = 1000
"""How many steps a recipe has that says neither steps nor epochs."""


@dataclass(frozen=True)
class Recipe:
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

    steps: int = -1
    batch_size: int = 128
    lr: float = 1e-3
    wd: float = 0.05
    warmup: int = 100
    precision: str = "auto"
    save_frequency: int = 0
    seed: int = 0
    epochs: int = 0
    accumulate: int = 1
    objective: str = "clip"
    optimizer: str = "adamw"
    beta2: float = 0.98
    eps: float = 1e-6
    milestones: tuple[int, ...] = ()
    crop: float = 0.9
    augment: bool = True
    workers: int = 0
    keep: int = 2
    align: float = field(default=0.0, metadata=LATER)
    align_site: str = field(default="", metadata=LATER)
    align_classes: str = field(default="own", metadata=LATER)

    def __post_init__(self) -> None:
        if self.steps == -1:
            object.__setattr__(self, "steps", 0 if self.epochs > 0 else STEPS)
        for kind, given, known in (
            ("precision", self.precision, ("auto", *PRECISIONS)),
            ("objective", self.objective, OBJECTIVES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("partner", self.align_classes, PARTNERS),
        ):
            check_known("train a model", kind, [given], known, SpecificationError)
        if self.steps > 0 and self.epochs > 0:
            raise SpecificationError(
                "train a model",
                f"{self.steps} steps and {self.epochs} epochs",
                "one of the two",
                "leave the other out",
            )
        for wrong, given, right in self._limits():
            if wrong:
                raise SpecificationError("train a model", given, right, "choose another number")

    def _limits(self) -> list[tuple[bool, str, str]]:
        """What is out of bounds, how it was given, and the bounds."""
        length = max(self.steps, self.epochs)
        return [
            (
                length < 1 or min(self.steps, self.epochs) < 0 or self.batch_size < 2,
                f"{length} steps or epochs of {self.batch_size} pictures",
                "at least one step of two",
            ),
            (
                self.accumulate < 1 or self.batch_size % max(self.accumulate, 1) > 0,
                f"a batch of {self.batch_size} in {self.accumulate} parts",
                "parts of equal size",
            ),
            (not 0 < self.lr < float("inf"), f"a learning rate of {self.lr}", "more than 0"),
            (not 0 < self.crop <= 1, f"crops of {self.crop} of the area", "a share, 0 to 1"),
            (not math.isfinite(self.align), f"align = {self.align}", "a finite weight"),
            (self.keep < 2, f"keep = {self.keep}", "2 (epoch 0 and the last) or more"),
            (
                min(self.workers, self.warmup, self.save_frequency) < 0,
                "workers, warmup or save_frequency below 0",
                "0 or more",
            ),
        ]

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
    "imagenet-captions-vit": dataclasses.replace(_PAPER, beta2=0.98, eps=1e-6),
    "cc": dataclasses.replace(_PAPER, batch_size=2048, lr=5e-4, warmup=2000),
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
    return dataclasses.replace(RECIPES[name], **changes)  # type: ignore[arg-type]

"""Pairs of pictures as a tower takes them, with the metric of their classes; and corruptions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Required, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.circuits.tasks.metrics import Metric, MetricKind, Target, check_kind
from interp.core.arguments import Budget, BudgetKeywords, Room, RoomKeywords
from interp.core.classifiers import Classifier
from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Pairs, Preprocess
from interp.core.seeds import rng
from interp.core.tower import Tower


class ClassTaskKeywords(BudgetKeywords, total=False):
    """Who says which class a picture shows, how it is read, and what that may cost."""

    classifier: Required[Classifier]
    preprocess: Required[Preprocess]


class CrossingKeywords(ClassTaskKeywords, total=False):
    """A class task in which activations of one class go into pictures of another."""

    metric: MetricKind


@dataclass(frozen=True, kw_only=True)
class ClassTask(Budget):
    """Who says which class a picture shows, how it is read, and what that may cost.

    Args:
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
    """

    classifier: Classifier
    preprocess: Preprocess


@dataclass(frozen=True, kw_only=True)
class Crossing(ClassTask):
    """A class task in which activations of one class go into pictures of another.

    Args:
        metric: "margin" or "mean_margin", or a function of outputs and a `Target`.
    """

    metric: MetricKind = "margin"

    def __post_init__(self) -> None:
        if not callable(self.metric) and self.metric not in ("margin", "mean_margin"):
            given = f"the metric {self.metric!r}"
            right = "margin or mean_margin, which score a class against all others, or a function"
            do = "choose one of the two, or write a function of outputs and a Target"
            raise SpecificationError("score activations of another picture", given, right, do)


@door
def other_class(pairs: Pairs, *, seed: int = 0) -> np.ndarray | None:
    """Draw a null donor for each pair: a picture of the clean domain that shows a third class.

    Args:
        pairs: The pairs.
        seed: Seed of the draw.

    Returns:
        Rows of `pairs.images`, one per pair; None where some pair has no third class to draw from.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"path": ["a", "b", "c"], "label": ["cat", "dog", "owl"],
    ...                       "domain": "real", "split": "test", "caption": ""})
    >>> pairs = Pairs(ImageTable(frame), np.array([0]), np.array([1]), ("domain",), ("label",))
    >>> other_class(pairs)
    array([2])
    """
    frame = pairs.images.frame
    labels, domains = frame["label"].to_numpy(), frame["domain"].to_numpy()
    generator = rng("null donors", seed)
    rows = []
    for clean, corrupt in zip(pairs.clean_rows, pairs.corrupt_rows, strict=True):
        fits = (domains == domains[clean]) & ~np.isin(labels, [labels[clean], labels[corrupt]])
        if not fits.any():
            return None
        rows.append(generator.choice(np.flatnonzero(fits)))
    return np.asarray(rows)


def embed(tower: Tower, x: Tensor, *, batch_size: int) -> Tensor:
    """Outputs of the tower, without gradients, `batch_size` at a time."""
    with torch.no_grad():
        return torch.cat([tower(part) for part in x.split(batch_size)])


def read(
    images: ImageTable, rows: np.ndarray, preprocess: Callable[..., Tensor], like: Tensor
) -> Tensor:
    """Pictures as the tower takes them, with the device and dtype of `like`."""
    return images.tensors(preprocess, rows.tolist()).to(like)


def check_partners(what: str, x: Tensor, other: Tensor) -> None:
    """Refuse inputs and partners that differ in shape or dtype."""
    if other.shape != x.shape or other.dtype != x.dtype:
        given = f"{tuple(x.shape)} {x.dtype} and {tuple(other.shape)} {other.dtype}"
        right = "one shape and dtype"
        do = "give every input one partner, preprocessed alike"
        raise ShapeError(f"exchange activations of inputs and {what}", given, right, do)


class PairTaskKeywords(TypedDict, total=False):
    """Two runs that are compared, and the metric that compares them."""

    clean: Required[Tensor]
    corrupt: Required[Tensor]
    metric: Required[Callable[[Tensor], Tensor]]
    pairs: Pairs | None


class PairedRunsKeywords(PairTaskKeywords, RoomKeywords, total=False):
    """Two runs that are compared, and what they may hold at a time."""


class ComparedRuns:
    """Two runs and the metric that compares them, as cuts take them."""

    clean: Tensor
    corrupt: Tensor
    metric: Any
    pairs: Any

    @property
    def words(self) -> PairTaskKeywords:
        """What `sweep`, `attribute` and `faithfulness` take: `attribute(tower, **task.words)`."""
        return {
            "clean": self.clean,
            "corrupt": self.corrupt,
            "metric": self.metric,
            "pairs": self.pairs,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTask(ComparedRuns):
    """Two runs that are compared, and the metric that compares them.

    Args:
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to one number per example.
        pairs: What the pictures show; None for inputs of which nothing is known.
    """

    clean: Tensor
    corrupt: Tensor
    metric: Callable[[Tensor], Tensor]
    pairs: Pairs | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedRuns(PairTask, Room):
    """Two runs that are compared, and what they may hold at a time."""


@dataclass(frozen=True)
class Read(ComparedRuns):
    """Clean and corrupt pictures as the tower takes them, and the metric that scores its outputs.

    Args:
        clean: Clean inputs, `batch channel row column`.
        corrupt: Their corrupt partners, in the same order.
        metric: The metric of the outputs.
        pairs: What the pictures show.
        contrast: The unit of the metric, in logits of the classifier that was given.
    """

    clean: Tensor
    corrupt: Tensor
    metric: Metric
    pairs: Pairs
    contrast: float

    def __getitem__(self, rows: np.ndarray) -> "Read":
        """Some of the pairs."""
        places = torch.as_tensor(rows)
        return replace(
            self,
            clean=self.clean[places],
            corrupt=self.corrupt[places],
            metric=self.metric[rows],
            pairs=self.pairs[rows],
        )


@door
def read_pairs(
    tower: Tower,
    pairs: Pairs,
    *,
    classifier: Classifier,
    preprocess: Preprocess,
    metric: MetricKind | None = None,
    batch_size: int = 32,
) -> Read:
    """Read the pictures of pairs, and bind a metric to their classes.

    Args:
        tower: The tower that is going to be patched.
        pairs: The pairs.
        classifier: The classes; device and dtype of its embeddings are those of the inputs.
        preprocess: From a picture to the tower's input.
        metric: One of `METRICS`, or a function of outputs and a `Target`. None takes the
            `logit_difference` of the clean class against the
            corrupt one where all partners differ in class, else the `margin` of the clean class.
        batch_size: Examples in a forward.

    Returns:
        Inputs, metric and pairs; its `words` are keyword arguments of `sweep` and `attribute`.

    Raises:
        DataError: For classes that the classifier does not know.
        SpecificationError: For `logit_difference` where some partners share their class, or an
            unknown metric.
        AlikeError: If the logits do not differ between classes.
        NumericsError: If they are not finite.

    Notes:
        The metric is in units of the model's own contrast (`Classifier.standardised`), so that
        checkpoints can be compared.

    >>> import pandas as pd
    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["red", "blue"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([[1.0, 0, 0], [0, 0, 1]]), ("red", "blue"))
    >>> task = read_pairs(Chain([torch.nn.Identity()]),
    ...                   images.pairs(same="domain", differ="label"), classifier=head,
    ...                   preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]))
    >>> task.metric.name, task.clean.tolist()
    ('logit_difference', [[[255.0, 0.0, 0.0]], [[0.0, 0.0, 255.0]]])
    """
    labels = classifier.numbers(pairs.clean.label.tolist())
    foils = classifier.numbers(pairs.corrupt.label.tolist())
    crossed = bool((labels != foils).all())
    check_kind(metric)
    if metric == "logit_difference" and not crossed:
        given = "pairs of which some share their class"
        right = "pairs that differ in class"
        do = "use metric='margin', or other pairs"
        raise SpecificationError("score clean against corrupt classes", given, right, do)
    like = classifier.embeddings
    clean = read(pairs.images, pairs.clean_rows, preprocess, like)
    corrupt = read(pairs.images, pairs.corrupt_rows, preprocess, like)
    outputs = embed(tower, clean, batch_size=batch_size)
    scale = classifier.standardised(outputs)
    target = Target(scale, labels, foils if crossed else None, outputs)
    name = metric or ("logit_difference" if crossed else "margin")
    return Read(clean, corrupt, Metric(name, target), pairs, classifier.scale / scale.scale)


Pictures = Float[Tensor, "batch channel row column"]


def gaussian_noise(pictures: Tensor, *, strength: float = 1.0, seed: int = 0) -> Tensor:
    """Add independent normal noise, `x + strength * e`.

    `strength` is the noise's standard deviation, in units of the preprocessed values. A picture's
    noise depends on `seed` and its place in the batch, not on how many others there are.

    >>> x = torch.zeros(2, 3, 4, 4)
    >>> torch.equal(gaussian_noise(x, seed=1), gaussian_noise(x, seed=1))
    True
    >>> torch.equal(gaussian_noise(x[:1], seed=1), gaussian_noise(x, seed=1)[:1])
    True
    """
    _check(pictures, strength)
    drawn = [
        rng("noise on pictures", seed, place).standard_normal(tuple(pictures.shape[1:]))
        for place in range(len(pictures))
    ]
    noise = torch.stack([torch.from_numpy(each) for each in drawn])
    return pictures + strength * noise.to(pictures)


def blur(pictures: Tensor, *, strength: float = 4.0, seed: int = 0) -> Tensor:
    """Average each value with its neighbours, by a normal kernel; edges are mirrored.

    `strength` is the kernel's standard deviation in pixels; the kernel ends at three of them, or
    where the picture does. Nothing is random: `seed` is there to be like the others.

    >>> x = torch.ones(1, 3, 8, 8)
    >>> torch.allclose(blur(x), x)
    True
    """
    _check(pictures, strength)
    if strength == 0:
        return pictures.clone()
    for axis in (2, 3):
        reach = min(ceil(3 * strength), pictures.shape[axis] - 1)
        steps = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
        kernel = torch.exp(-((steps / strength) ** 2) / 2)
        kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, -1)
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        pictures = F.conv2d(
            F.pad(pictures, pad, mode="reflect"),
            kernel[..., None] if axis == 2 else kernel[:, :, None],
            groups=pictures.shape[1],
        )
    return pictures


def mean_image(pictures: Tensor, *, strength: float = 1.0, seed: int = 0) -> Tensor:
    """Move each picture towards the batch's mean picture, `x + strength * (mean - x)`.

    `strength` is a share: 1 replaces the picture by the mean, 0 leaves it. The mean is that of the
    batch given, so give all pictures at once. Nothing is random.

    >>> x = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1)
    >>> mean_image(x).flatten().tolist()
    [1.0, 1.0]
    """
    _check(pictures, strength)
    if strength > 1:
        raise _out_of_range(strength, "a share from 0 to 1")
    return pictures + strength * (pictures.mean(dim=0, keepdim=True) - pictures)


CORRUPTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "mean_image": mean_image,
}
"""Every corruption by name; each takes pictures, `strength` and `seed`, and gives pictures.

Pictures are preprocessed, `[batch channel row column]`, and so are the units (one standard
deviation of CLIP's training pictures is 1). A partner from the image table is the better
counterfactual where there is one: noise takes a tower off the pictures it knows (Zhang and
Nanda 2024).
"""


def _check(pictures: Tensor, strength: float) -> None:
    if pictures.ndim != 4 or not pictures.is_floating_point() or not len(pictures):
        given = f"shape {tuple(pictures.shape)}, {pictures.dtype}"
        right = "floating-point numbers of shape (batch, channel, row, column)"
        raise ShapeError("corrupt pictures", given, right, "pass preprocessed pictures")
    if not 0 <= strength < float("inf"):
        raise _out_of_range(strength, "a number of 0 or more")


def _out_of_range(strength: float, right: str) -> SpecificationError:
    return SpecificationError(
        "corrupt pictures", f"strength={strength}", right, "keep the default, or choose another"
    )

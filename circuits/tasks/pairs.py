"""Pairs of an image table read as tensors, with the metric that tells their classes apart."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Required, TypedDict

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.tasks.metrics import Metric, MetricKind, Target, check_kind
from interp.core.arguments import Room, RoomKeywords
from interp.core.artists import artist_column, artists_of
from interp.core.classifiers import Classifier
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Pairs, Preprocess
from interp.core.seeds import rng
from interp.core.tower import Tower


@door
def other_class(pairs: Pairs, *, seed: int = 0) -> np.ndarray | None:
    """Draw a null donor for each pair: a picture of the clean domain that shows a third class.

    Args:
        pairs: The pairs.
        seed: Seed of the draw.

    Returns:
        Rows of `pairs.images`, one per pair; None where some pair has no third class to draw from.

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


@dataclass(frozen=True)
class Transplants:
    """Receivers of transplants, each with three donors, as rows of one image table.

    Args:
        images: The table.
        rows: A row per receiver, with the columns `label, target_label, null_label` (classes) and
            `target, donor, null, ceiling` (rows of `images`).
        artists: The column that says who drew a picture.
        left_out: How many receivers were asked for and not found.

    Notes:
        `target` shows class `target_label` in domain B. `donor` shows `label` in A, `null` shows
        `null_label` in A, `ceiling` shows `label` in B; all three are scored for class `label`.
        None of them is by the artist of the target.
    """

    images: ImageTable
    rows: pd.DataFrame
    artists: str
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)


@door
def draw_transplants(
    images: ImageTable,
    *,
    domain_a: str,
    domain_b: str,
    classes: Sequence[str],
    n: int,
    seed: int = 0,
) -> Transplants:
    """Draw receivers for transplants, each with its donors by other artists.

    Args:
        images: The pictures.
        domain_a: The domain that donors come from.
        domain_b: The domain of the receivers.
        classes: The classes to draw from; only those with pictures in both domains are used.
        n: How many receivers to draw, spread evenly over the classes that are scored.
        seed: Seed of the draw.

    Returns:
        The receivers with their donors; `left_out` counts those for which no donors were found.

    Raises:
        DataError: For an unknown domain.
        SampleError: With fewer than three classes in both domains, or no donors by another artist.

    >>> frame = pd.DataFrame([(f"{domain} {label} {artist}", label, domain, artist)
    ...                       for domain in ("real", "sketch") for label in ("cat", "dog", "owl")
    ...                       for artist in "ab"], columns=["path", "label", "domain", "artist"])
    >>> images = ImageTable(frame.assign(split="test", caption=""))
    >>> drawn = draw_transplants(images, domain_a="real", domain_b="sketch",
    ...                          classes=["cat", "dog", "owl"], n=3)
    >>> drawn.rows["label"].tolist(), drawn.artists, drawn.left_out
    (['cat', 'dog', 'owl'], 'artist', 0)
    """
    check_known("transplant activations", "domain", [domain_a, domain_b], images.domains)
    frame = images.frame.reset_index(drop=True)
    column, artists = artist_column(frame), artists_of(frame)
    pools = {
        key: rows.to_numpy() for key, rows in frame.groupby(["domain", "label"]).groups.items()
    }
    usable = [c for c in classes if (domain_a, c) in pools and (domain_b, c) in pools]
    if len(usable) < 3:
        raise SampleError(
            f"transplant activations from {domain_a} to {domain_b}",
            f"{len(usable)} classes that stand in both",
            "three or more: one to score, one that receives, one for the null",
            "give more classes",
        )
    generator, drawn = rng("transplants", seed), []
    for turn in range(n):
        row = None
        for _ in range(20):  # chance may pick an artist who drew all that would serve
            row = row or _draw_one(
                usable[turn % len(usable)], usable, pools, artists, generator, (domain_a, domain_b)
            )
        drawn.extend([row] if row else [])
    if not drawn:
        raise SampleError(
            f"transplant activations from {domain_a} to {domain_b}",
            f"no target whose donors are by another {column}",
            f"two or more of {column} in each class and domain",
            "give more pictures",
        )
    return Transplants(images, pd.DataFrame(drawn), column, n - len(drawn))


def _draw_one(
    label: str,
    classes: Sequence[str],
    pools: Mapping[Hashable, np.ndarray],
    artists: np.ndarray,
    generator: np.random.Generator,
    domains: tuple[str, str],
) -> dict[str, object] | None:
    others = [name for name in classes if name != label]
    target_label, null_label = (others[i] for i in generator.permutation(len(others))[:2])
    a, b = domains
    target = int(generator.choice(pools[b, target_label]))
    row: dict[str, object] = {
        "label": label,
        "target_label": target_label,
        "null_label": null_label,
        "target": target,
    }
    wanted = {"donor": (a, label), "null": (a, null_label), "ceiling": (b, label)}
    for role, pool in wanted.items():
        fits = pools[pool][artists[pools[pool]] != artists[target]]
        if not len(fits):
            return None
        row[role] = int(generator.choice(fits))
    return row


def embed(tower: Tower, x: Tensor, *, batch_size: int) -> Tensor:
    """Outputs of the tower, without gradients, `batch_size` at a time."""
    with torch.no_grad():
        return torch.cat([tower(part) for part in x.split(batch_size)])


def read(
    images: ImageTable, rows: np.ndarray, preprocess: Callable[..., Tensor], like: Tensor
) -> Tensor:
    """Pictures as the tower takes them, with the device and dtype of `like`."""
    return images.tensors(preprocess, rows.tolist()).to(like)


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
        raise SpecificationError(
            "score clean against corrupt classes",
            "pairs of which some share their class",
            "pairs that differ in class",
            "use metric='margin', or other pairs",
        )
    like = classifier.embeddings
    clean = read(pairs.images, pairs.clean_rows, preprocess, like)
    corrupt = read(pairs.images, pairs.corrupt_rows, preprocess, like)
    outputs = embed(tower, clean, batch_size=batch_size)
    scale = classifier.standardised(outputs)
    target = Target(scale, labels, foils if crossed else None, outputs)
    name = metric or ("logit_difference" if crossed else "margin")
    return Read(clean, corrupt, Metric(name, target), pairs, classifier.scale / scale.scale)

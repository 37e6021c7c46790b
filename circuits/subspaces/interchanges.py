"""Pictures that subspaces are fitted on, and those that they are interchanged in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from interp.circuits.patching.transplant import Transplants, draw_transplants
from interp.circuits.subspaces.fit_subspace import FitKeywords, FitRecipe
from interp.circuits.tasks.metrics import Metric, Target, measure
from interp.circuits.tasks.pairs import Crossing, CrossingKeywords, embed, read
from interp.core.artists import artist_column, artist_sides, artists_of
from interp.core.errors import AlikeError, SampleError, SpecificationError, check_known, listed
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.tower import Tower

Pixels = Float[np.ndarray, "picture row column 3"]
WAVES = 4
"""Waves across a picture, the standard deviation of those that smooth noise keeps."""


def shuffled(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Every picture's pixels in another order: its colours, and nothing of its shapes.

    >>> float(shuffled(np.arange(12.0).reshape(1, 2, 2, 3), np.random.default_rng(0)).sum())
    66.0
    """
    flat = pixels.reshape(len(pixels), -1, 3)
    mixed = np.stack([each[draw.permutation(len(each))] for each in flat])
    return mixed.reshape(pixels.shape)


def scrambled(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Every picture's spectrum, the same in all colours, with the phases of white noise.

    >>> flat = np.full((1, 4, 4, 3), 7.0)
    >>> bool(np.allclose(scrambled(flat, np.random.default_rng(0)), flat))
    True
    """
    phases = np.angle(np.fft.fft2(draw.normal(size=pixels.shape[:3]), axes=(1, 2)))
    phases[:, 0, 0] = 0  # the mean stays
    spectrum = np.fft.fft2(pixels, axes=(1, 2)) * np.exp(1j * phases)[..., None]
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def white(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Independent pixels, with the mean and deviation of all pixels in each colour.

    >>> white(np.zeros((1, 2, 2, 3)), np.random.default_rng(0)).tolist()[0][0][0]
    [0.0, 0.0, 0.0]
    """
    return _coloured(draw.normal(size=pixels.shape), pixels)


def smooth(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """White noise of which only the slow waves are kept, with mean and deviation as in `white`.

    >>> smooth(np.zeros((1, 2, 2, 3)), np.random.default_rng(0)).shape
    (1, 2, 2, 3)
    """
    waves = np.fft.fft2(draw.normal(size=pixels.shape), axes=(1, 2))
    across, down = (np.fft.fftfreq(n)[:, None] * n for n in pixels.shape[1:3])
    slow = np.exp(-(across**2 + down[:, 0] ** 2) / (2 * WAVES**2))
    return _coloured(np.fft.ifft2(waves * slow[..., None], axes=(1, 2)).real, pixels)


def _coloured(noise: Pixels, pixels: Pixels) -> Pixels:
    """Noise with the mean and the deviation of the pixels in each colour."""
    every = (0, 1, 2)
    noise = (noise - noise.mean(axis=every)) / np.maximum(noise.std(axis=every), 1e-12)
    return pixels.mean(axis=every) + pixels.std(axis=every) * noise


CLASS_FREE: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "shuffled pixels": shuffled,
    "scrambled phases": scrambled,
    "smooth noise": smooth,
    "white noise": white,
}
"""The kinds of class-free pictures, each made from as many pictures.

They are a null of causal directions (rung R4): a subspace that carries a class because the layers
above read it, and not because two domains share it, is found on noise as well.
"""


def class_free(pictures: Sequence[Image.Image], kind: str, *, seed: int = 0) -> list[Image.Image]:
    """As many pictures without a class, made from pictures of one size or of several.

    Args:
        pictures: RGB pictures.
        kind: One of `CLASS_FREE`.
        seed: Seed of the draw.

    Returns:
        Pictures of the same sizes, in the same order.

    >>> [each.size for each in class_free([Image.new("RGB", (4, 3))] * 2, "white noise")]
    [(4, 3), (4, 3)]
    """
    draw = rng(kind, seed)
    sizes = np.array([each.size for each in pictures])
    made: list[Image.Image] = [Image.new("RGB", (1, 1))] * len(pictures)
    for size in np.unique(sizes, axis=0):
        rows = np.flatnonzero((sizes == size).all(axis=1)).tolist()
        pixels = np.stack([np.asarray(pictures[row], dtype=float) for row in rows])
        found = CLASS_FREE[kind](pixels, draw).clip(0, 255).round().astype(np.uint8)
        for row, each in zip(rows, found, strict=True):
            made[row] = Image.fromarray(each)
    return made


@dataclass(frozen=True)
class HeldOut:
    """What is fitted on and what is tested on in each domain, by different artists.

    `fitted` are rows of `images`, equally many of each class in all domains. `tested` are
    transplants within a domain: `target` receives from `donor`, which shows `label`, or from
    `null`, which shows a third class.
    """

    images: ImageTable
    classes: Sequence[str]
    fitted: dict[str, np.ndarray]
    tested: dict[str, Transplants]
    artists: str


def hold_out(
    images: ImageTable, domains: Sequence[str], *, classes: Sequence[str], n: int, seed: int = 0
) -> HeldOut:
    """Deal the artists of all domains into those fitted on and those tested on, and draw pictures.

    An artist stands on one side with all classes and domains; the larger side is tested on,
    since base and source are by different artists there. About `n` pictures of each domain are
    fitted on, `n` receivers are tested.

    Raises `DataError` for an unknown domain, `SpecificationError` for one domain twice,
    `SampleError` for fewer than three classes on both sides in every domain, or too few artists.
    """
    check_known("fit a subspace", "domain", domains, images.domains)
    asked = f"compare the subspaces of {' and '.join(domains)}"
    if len(set(domains)) < len(domains) or n < 1:
        right = "different domains, n of at least 1"
        raise SpecificationError(asked, f"{listed(domains)}, n = {n}", right, "choose others")
    frame = images.frame
    used = frame["domain"].isin(domains).to_numpy() & frame["label"].isin(classes).to_numpy()
    column, who = artist_column(frame), artists_of(frame)
    label, domain = (frame[name].to_numpy(object) for name in ("label", "domain"))
    side = np.full(len(frame), -1)
    if used.any():
        side[used] = artist_sides(frame[used], seed=seed)
    cells = pd.DataFrame({"domain": domain, "label": label, "side": side})
    found = cells.groupby(["domain", "label", "side"]).indices
    nobody = np.empty(0, dtype=int)
    rows = {
        (d, c, half): found.get((d, c, half), nobody)
        for d in domains
        for c in classes
        for half in (0, 1)
    }
    usable = [c for c in classes if all(len(rows[d, c, h]) for d in domains for h in (0, 1))]
    few = [d for d in domains if len(set(who[(side == 1) & (domain == d)])) < 2]
    if len(usable) < 3 or few:
        n_artists = {d: len(set(who[used & (domain == d)])) for d in domains}
        given = f"{len(usable)} classes by artists fitted on and others, of {n_artists} ({column})"
        right = "three classes and three artists in every domain: one to fit on, two to test on"
        raise SampleError(asked, given, right, "give more classes or more artists")
    most, generator = -(-n // len(usable)), rng("fitted on", seed)
    fitted: dict[str, list[np.ndarray]] = {d: [] for d in domains}
    for c in usable:
        count = min(most, *(len(rows[d, c, 0]) for d in domains))
        for d in domains:
            fitted[d].append(np.sort(generator.choice(rows[d, c, 0], count, replace=False)))
    rest = images[np.flatnonzero(side == 1)]
    tested = {
        d: draw_transplants(rest, domain_a=d, domain_b=d, classes=usable, n=n, seed=seed)
        for d in domains
    }
    chosen = {d: np.concatenate(parts) for d, parts in fitted.items()}
    return HeldOut(images, usable, chosen, tested, column)


@dataclass(frozen=True, eq=False)
class Material:
    """Pictures to fit on, as the tower takes them.

    `pairs` are rows of `pictures`, a base and a source of another class; `alike` is their distance
    from what the model says of the source.
    """

    pictures: Tensor
    pairs: Int[np.ndarray, "pair 2"]
    alike: Metric


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain's pictures to fit on, and receivers with sources, as the tower takes them.

    `metric` scores receivers for class `label`, and is `before` on them as they are.
    """

    material: Material
    base: Tensor
    donor: Tensor
    null: Tensor
    metric: Metric
    before: Float[np.ndarray, "receiver"]


class DasKeywords(CrossingKeywords, FitKeywords, total=False):
    """What subspaces are asked for: the class task, and how they are fitted."""

    k: int | None
    class_free: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DasTask(Crossing, FitRecipe):
    """What subspaces are asked for: the class task, and how they are fitted.

    Args:
        k: Directions; None takes the fewest that carry the class in every domain compared, at most
            one less than there are classes and half of the features.
        class_free: Kinds of pictures without a class that the null is fitted on, of `CLASS_FREE`;
            none for inputs that are no pictures.
    """

    k: int | None = None
    class_free: Sequence[str] = tuple(CLASS_FREE)

    def __post_init__(self) -> None:
        Crossing.__post_init__(self)
        FitRecipe.__post_init__(self)
        kinds = list(self.class_free)
        check_known("fit a null", "kind of picture", kinds, CLASS_FREE, SpecificationError)


def read_domain(tower: Tower, held: HeldOut, name: str, task: DasTask) -> Domain:
    """Read a domain's pictures and run them once, unpatched; draw the pairs to fit on."""
    classifier, preprocess, rows = task.classifier, task.preprocess, task.batch_size
    like, tested = classifier.embeddings, held.tested[name]
    shown = held.images.frame["label"].to_numpy(object)[held.fitted[name]]
    fitted = read(held.images, held.fitted[name], preprocess, like)
    base, donor, null = (
        read(tested.images, tested.rows[role].to_numpy(), preprocess, like)
        for role in ("target", "donor", "null")
    )
    outputs = embed(tower, base, batch_size=rows)
    scored = classifier.numbers(tested.rows["label"].tolist())
    score = Metric(task.metric, Target(classifier.standardised(outputs), scored))
    return Domain(
        material=material(tower, fitted, classifier.numbers(shown.tolist()).numpy(), task),
        base=base,
        donor=donor,
        null=null,
        metric=score,
        before=measure(score, outputs).double().cpu().numpy(),
    )


def read_class_free(tower: Tower, held: HeldOut, task: DasTask) -> dict[str, Material]:
    """Pictures without a class to fit on, of every kind: as many as of a domain, made from all."""
    each = list(held.fitted.values())
    turn = np.arange(len(each[0])) % len(each)
    rows = np.stack(each)[turn, np.arange(len(turn))]
    shown = [held.images.picture(int(row)) for row in rows]
    found = {}
    for kind in task.class_free:
        made = [task.preprocess(one) for one in class_free(shown, kind, seed=task.seed)]
        pictures = torch.stack(made).to(task.classifier.embeddings)
        try:
            found[kind] = material(tower, pictures, np.arange(len(rows)), task)
        except AlikeError:  # nothing can be fitted to one answer
            say(f"das: no subspace of {kind}, to which the model has one answer")
    return found


def material(tower: Tower, pictures: Tensor, groups: np.ndarray, task: DasTask) -> Material:
    """Pairs of pictures of different groups, and what the model says of each source."""
    pairs = draw_pairs(groups, task.steps * task.batch_size, seed=task.seed)
    says = embed(tower, pictures, batch_size=task.batch_size)
    unit, source = task.classifier.standardised(says), torch.from_numpy(pairs[:, 1])
    clean = says[source.to(says.device)]
    labels = torch.zeros(len(pairs), dtype=torch.long)  # a distance asks for none
    return Material(pictures, pairs, Metric("kl", Target(unit, labels, clean=clean)))


def draw_pairs(labels: np.ndarray, n: int, *, seed: int = 0) -> Int[np.ndarray, "pair 2"]:
    """Rows of bases and sources of different classes, sources spread evenly over the classes.

    >>> draw_pairs(np.array([3, 3, 5]), 2)[:, 1].tolist()[1]
    2
    """
    generator, classes = rng("das pairs", seed), np.unique(labels)
    pairs = np.empty((n, 2), dtype=np.int64)
    for place, label in enumerate(classes):
        turn = slice(place, n, len(classes))
        size = len(pairs[turn])
        pairs[turn, 0] = generator.choice(np.flatnonzero(labels != label), size)
        pairs[turn, 1] = generator.choice(np.flatnonzero(labels == label), size)
    return pairs

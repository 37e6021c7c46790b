"""Words that span what a part of a model writes: a greedy choice, one word after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from interp.core.classifiers import Classifier
from interp.core.errors import AlikeError, NumericsError, SampleError, ShapeError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.seeds import rng

ROUNDING = 1e-5
"""Below this share of the largest, a direction is taken for rounding: in float32 it is."""


@dataclass(frozen=True, eq=False)
class SpanningWords:
    """Words in the order in which they were taken, and what each of them explains.

    Args:
        words: The words.
        explained: For each the share of the variance that it explains beyond those before it.
        directions: For each the direction that it adds, `word d_embed`, orthonormal.

    >>> SpanningWords(("cat", "dog"), np.array([0.5, 0.25]), torch.eye(2)).cumulative.tolist()
    [0.5, 0.75]
    """

    words: Sequence[str]
    explained: np.ndarray
    directions: Tensor

    @property
    def cumulative(self) -> np.ndarray:
        """The share that each word explains together with those before it."""
        return np.cumsum(self.explained)

    def __repr__(self) -> str:
        each = [f"{w} {share:.2f}" for w, share in zip(self.words, self.explained, strict=True)]
        return f"SpanningWords({', '.join(each)})"


@door
def text_span(
    parts: Float[Tensor, "picture d_embed"], words: Classifier, *, n: int = 5
) -> SpanningWords:
    """Choose words that explain the variance of one part of the embedding, greedily.

        word      = argmax_j mean over pictures of <part - mean, word_j>^2
        explained = the same along the word's direction, / mean of |part - mean|^2

    and then the word's direction is taken out of the part and out of all words.

    Args:
        parts: What one part of a model adds to each picture's embedding, such as
            `decompose(tower, x, by="head")["blocks.3.attn.head.1"]`.
        words: Words with their embeddings, such as `clip.zero_shot(words)`. Their lengths do not
            count.
        n: How many words.

    Returns:
        The words, what each explains, and their directions.

    Raises:
        SampleError: For fewer words than are asked for, or fewer than two pictures.
        ShapeError: For embeddings of another size.
        AlikeError: For words that span fewer directions than are asked for, or parts without
            variance.
        NumericsError: For parts with NaN or infinity.

    Notes:
        After Gandelsman, Efros & Steinhardt 2024, "Interpreting CLIP's image representation via
        text-based decomposition" (TextSpan). What is left of a word is not made longer, so that a
        near synonym of a word that was taken is not chosen for its remainder. Words are not
        projected onto the span of the part first: a share is that of the word's own direction.
        The share says nothing without a null: `name_heads` has one.

    >>> parts = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> text_span(parts, Classifier(torch.eye(2), ("cat", "dog")), n=2)
    SpanningWords(cat 0.90, dog 0.10)
    """
    directions = directions_of(words, parts.shape[-1], n).to(parts.device)
    spread = spread_of(parts)
    total = spread.square().sum()
    taken = directions[:0]
    places, explained = [], []
    for _ in range(n):
        place, direction = next_word(directions, spread, taken)
        taken = torch.cat([taken, direction[None]])
        places.append(place)
        explained.append(float((direction @ spread).square().sum() / total))
    return SpanningWords(
        tuple(words.class_names[place] for place in places), np.array(explained), taken
    )


def directions_of(
    words: Classifier, d_embed: int, n: int, *, centred: bool = False
) -> Float[Tensor, "word d_embed"]:
    """The words as unit vectors in float64, without what all have in common if `centred`.

    Raises what `text_span` raises of words.

    >>> directions_of(Classifier(2 * torch.eye(2), ("cat", "dog")), 2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    asked, least = f"name a part in {n} words", n + centred
    if words.embeddings.shape[-1] != d_embed:
        given = f"words embedded in {words.embeddings.shape[-1]} numbers"
        right = f"in {d_embed}, as the part is"
        raise ShapeError(asked, given, right, "embed the words with the same model")
    if n < 1 or len(words.names) < least:
        given = f"{len(words.names)} words to choose from"
        right = f"at least {max(least, 1 + centred)}, and one or more to choose"
        raise SampleError(asked, given, right, "give more words, or ask for fewer")
    found = normalize(words.embeddings.detach().double(), dim=-1)
    found = found - found.mean(dim=0) if centred else found
    sizes = torch.linalg.svdvals(found)
    rank = int((sizes > ROUNDING * max(float(sizes[0]), 1.0)).sum())
    if rank < n:
        given = f"{len(words.names)} words that differ in {rank} directions"
        do = "give words that mean different things, or ask for fewer"
        raise AlikeError(asked, given, f"words that differ in {n} or more", do)
    return normalize(found, dim=-1)


def spread_of(parts: Float[Tensor, "picture d_embed"]) -> Float[Tensor, "d_embed component"]:
    """A matrix F, in float64, such that |u F|^2 is the variance of the parts along u.

    A head's contributions vary in few directions, so F is narrow. Raises what `text_span` raises
    of parts.

    >>> spread_of(torch.tensor([[1.0, 5.0], [-1.0, 5.0]])).abs().tolist()
    [[1.0], [0.0]]
    """
    asked = "name a part in words"
    if len(parts) < 2:
        raise SampleError(asked, f"{len(parts)} pictures", "two or more", "give more pictures")
    if not bool(torch.isfinite(parts).all()):
        raise NumericsError(
            asked, "a part with NaN or infinity", "finite numbers", "check the model's weights"
        )
    wide = parts.detach().double()
    _, sizes, axes = torch.linalg.svd(wide - wide.mean(dim=0), full_matrices=False)
    if float(sizes[0]) <= torch.finfo(parts.dtype).eps * float(wide.norm()):
        do = "give other pictures, or name another part"
        raise AlikeError(asked, "a part that is the same in all pictures", "one that varies", do)
    kept = sizes > ROUNDING * sizes[0]
    return axes[kept].T * sizes[kept] / len(parts) ** 0.5


def next_word(
    directions: Float[Tensor, "word d_embed"],
    spread: Float[Tensor, "d_embed component"],
    taken: Float[Tensor, "step d_embed"],
) -> tuple[int, Float[Tensor, "d_embed"]]:
    """The word that explains most beside the directions taken, and the direction that it adds.

    What is left of the words is orthogonal to what was taken, so nothing has to be taken out of
    the part.

    >>> place, direction = next_word(torch.eye(2), torch.tensor([[3.0], [4.0]]), torch.eye(2)[1:])
    >>> place, direction.tolist()
    (0, [1.0, 0.0])
    """
    left = directions - (directions @ taken.T) @ taken
    lengths = left.norm(dim=-1)
    scores = (left @ spread).square().sum(dim=-1)
    # of a word that was taken only rounding is left, which has a direction too
    place = int(torch.where(lengths > ROUNDING, scores, -1.0).argmax())
    return place, left[place] / lengths[place]


@dataclass(frozen=True, eq=False)
class HalvedPart:
    """What a part writes on pictures that choose its words, and on those that confirm them.

    Args:
        choosing: `picture d_embed`, on the first half.
        confirming: The same on the other half.
        unit: The unit of each confirming picture, by number, which intervals leave out.
    """

    choosing: Tensor
    confirming: Tensor
    unit: Int[Tensor, "picture"]

    @cached_property
    def spread(self) -> Float[Tensor, "d_embed component"]:
        """How it varies in the half that chooses."""
        return spread_of(self.choosing)

    @cached_property
    def other_spread(self) -> Float[Tensor, "d_embed component"]:
        """How it varies in the half that confirms."""
        return spread_of(self.confirming)

    def shares(
        self, directions: Float[Tensor, "direction d_embed"]
    ) -> Float[np.ndarray, "left_out direction"]:
        """The share of the confirming half's variance along directions: of all, then less a unit.

        >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
        >>> part = HalvedPart(rows, rows, torch.tensor([0, 0, 1, 1]))
        >>> part.shares(torch.eye(2).double()).tolist()
        [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
        """
        rows = self.confirming.double()
        rows = rows - rows.mean(dim=0)
        along = rows @ directions.T
        n = _leaving_out(torch.ones_like(rows[:, :1]), self.unit)
        means = _leaving_out(along, self.unit) / n
        variance = _leaving_out(along.square(), self.unit) / n - means.square()
        square = _leaving_out(rows.square().sum(dim=1, keepdim=True), self.unit) / n
        centre = (_leaving_out(rows, self.unit) / n).square().sum(dim=1, keepdim=True)
        return (variance.clamp(min=0) / (square - centre)).cpu().numpy()


def _leaving_out(
    rows: Float[Tensor, "picture column"], unit: Int[Tensor, "picture"]
) -> Float[Tensor, "left_out column"]:
    """The sum over all pictures, then over those without each unit; of one unit the first alone."""
    units = int(unit.max()) + 1
    whole = rows.sum(dim=0, keepdim=True)
    if units < 2:
        return whole
    own = rows.new_zeros(units, rows.shape[1]).index_add_(0, unit, rows)
    return torch.cat([whole, whole - own])


@dataclass(frozen=True, eq=False)
class HeldOutWord:
    """The word of a part at one step, and how it stands the other half.

    Args:
        place: The word's place.
        again: The place of the word that the other half would choose at this step.
        direction: The direction that the word adds, `d_embed`.
        terms: What it explains, the null and the ceiling: `[1 + unit, 3]`, of all, then less a
            unit.
        drawn: What the best of the words explains at each random turn, `[turn]`.
        components: What as many principal components explain together.
    """

    place: int
    again: int
    direction: Tensor
    terms: np.ndarray
    drawn: np.ndarray
    components: float


def held_out_words(
    parts: Sequence[HalvedPart],
    directions: Float[Tensor, "word d_embed"],
    *,
    n: int,
    n_null: int,
    seed: int,
) -> Iterator[list[HeldOutWord]]:
    """One step after the other, each part's word with its evidence.

    The null turns all words at random around the directions that are taken, so that they lie to
    one another as before; the best of them is chosen on the first half and measured on the second,
    as the word is. All parts get the same turns. The ceiling is the principal component of what is
    left, chosen and measured likewise.

    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.randn(40, 1, generator=generator).double() * torch.eye(8)[0]
    >>> part = HalvedPart(rows[:20], rows[20:], torch.arange(20))
    >>> words = torch.eye(8).double()
    >>> [[found]] = held_out_words([part], words, n=1, n_null=20, seed=0)
    >>> found.place, found.terms[0].round(2).tolist()[::2], bool(found.drawn.max() < 1)
    (0, [1.0, 1.0], True)
    """
    taken = [directions[:0] for _ in parts]
    for step in range(n):
        turned = _turned(parts, directions, taken, n_null, rng("turned words", seed, step))
        found = []
        for place, (part, before) in enumerate(zip(parts, taken, strict=True)):
            found.append(_held_out(part, directions, before, turned[place]))
            taken[place] = torch.cat([before, found[-1].direction[None]])
        yield found


def _held_out(part: HalvedPart, directions: Tensor, taken: Tensor, turned: Tensor) -> HeldOutWord:
    place, direction = next_word(directions, part.spread, taken)
    again, _ = next_word(directions, part.other_spread, taken)
    left = part.spread - taken.T @ (taken @ part.spread)
    axes, _, _ = torch.linalg.svd(left, full_matrices=False)
    best, _, _ = torch.linalg.svd(part.spread, full_matrices=False)
    shares = part.shares(torch.cat([direction[None], axes.T[:1], turned]))
    terms = np.stack([shares[:, 0], shares[:, 2:].mean(axis=1), shares[:, 1]], axis=1)
    components = part.shares(best.T[: len(taken) + 1])[0].sum()
    return HeldOutWord(place, again, direction, terms, shares[0, 2:], float(components))


def _turned(
    parts: Sequence[HalvedPart],
    directions: Float[Tensor, "word d_embed"],
    taken: Sequence[Float[Tensor, "step d_embed"]],
    n_null: int,
    generator: np.random.Generator,
) -> Float[Tensor, "part turn d_embed"]:
    """For each part and random turn of the words the direction of the best of them."""
    d_embed, steps = directions.shape[1], len(taken[0]) if taken else 0
    frames = [_Complement(before) for before in taken]
    inner = [frame.into(part.spread) for frame, part in zip(frames, parts, strict=True)]
    widths = [spread.shape[1] for spread in inner]
    found = directions.new_empty(len(parts), n_null, d_embed)
    for number in track(range(n_null if parts else 0), f"turned words, word {steps + 1}"):
        normal = generator.normal(size=(d_embed - steps, d_embed - steps))
        square, triangle = torch.linalg.qr(torch.from_numpy(normal))
        # an orthogonal matrix, all of them alike likely (Mezzadri 2007)
        turn = (square * triangle.diagonal().sign()).to(directions)
        # all parts side by side: a few large products take a tenth of the time of many small ones
        turned = (turn @ torch.cat(inner, dim=1)).split(widths, dim=1)
        outer = [frame.out_of(spread) for frame, spread in zip(frames, turned, strict=True)]
        scores = (directions @ torch.cat(outer, dim=1)).square().split(widths, dim=1)
        best = [int(score.sum(dim=1).argmax()) for score in scores]
        chosen = directions[best][:, :, None]
        words = [frame.into(word) for frame, word in zip(frames, chosen, strict=True)]
        back = (turn.T @ torch.cat(words, dim=1)).split(1, dim=1)
        for place, (frame, column) in enumerate(zip(frames, back, strict=True)):
            found[place, number] = frame.out_of(column)[:, 0]
    return found / found.norm(dim=-1, keepdim=True)


class _Complement:
    """Coordinates of what is orthogonal to the directions taken, by Householder reflections."""

    def __init__(self, taken: Float[Tensor, "step d_embed"]) -> None:
        self.steps = len(taken)
        self._reflectors = torch.geqrf(taken.T) if self.steps else None

    def into(self, columns: Float[Tensor, "d_embed column"]) -> Float[Tensor, "inner column"]:
        """The coordinates of columns, without what they have of the directions taken."""
        if self._reflectors is None:
            return columns
        return torch.ormqr(*self._reflectors, columns, transpose=True)[self.steps :]

    def out_of(self, columns: Float[Tensor, "inner column"]) -> Float[Tensor, "d_embed column"]:
        """The columns that have these coordinates, orthogonal to the directions taken."""
        if self._reflectors is None:
            return columns
        nought = columns.new_zeros(self.steps, columns.shape[1])
        return torch.ormqr(*self._reflectors, torch.cat([nought, columns]))

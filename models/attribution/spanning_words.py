"""Words that span what a part of a model writes: a greedy choice, one word after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from interp.core.classifiers import Classifier
from interp.core.errors import AlikeError, NumericsError, SampleError, ShapeError
from interp.core.faces.doors import door

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
        raise ShapeError(
            asked,
            f"words embedded in {words.embeddings.shape[-1]} numbers",
            f"in {d_embed}, as the part is",
            "embed the words with the same model",
        )
    if n < 1 or len(words.names) < least:
        raise SampleError(
            asked,
            f"{len(words.names)} words to choose from",
            f"at least {max(least, 1 + centred)}, and one or more to choose",
            "give more words, or ask for fewer",
        )
    found = normalize(words.embeddings.detach().double(), dim=-1)
    found = found - found.mean(dim=0) if centred else found
    sizes = torch.linalg.svdvals(found)
    rank = int((sizes > ROUNDING * max(float(sizes[0]), 1.0)).sum())
    if rank < n:
        raise AlikeError(
            asked,
            f"{len(words.names)} words that differ in {rank} directions",
            f"words that differ in {n} or more",
            "give words that mean different things, or ask for fewer",
        )
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
        raise AlikeError(
            asked,
            "a part that is the same in all pictures",
            "one that varies",
            "give other pictures, or name another part",
        )
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

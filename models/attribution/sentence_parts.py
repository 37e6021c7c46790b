"""Sentences in tokens, their words as a tokenizer cuts them, and what each word adds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.core.errors import DataError, SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.tower import check_evaluation
from interp.models.attribution.placed_logits import by_attention, direct_vectors, straight_vectors
from interp.models.loading.presets import token_numbers, unknown_words
from interp.models.towers.hooked import HookedTower

ASKED = "explain the logit of a sentence"


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences with their tokens.

    Args:
        texts: The sentences.
        tokens: Their numbers, `sentence pos`, padded.
        words: For each sentence, what each token stands for, from its beginning to its end.
    """

    texts: tuple[str, ...]
    tokens: Int[Tensor, "sentence pos"]
    words: tuple[tuple[str, ...], ...]

    def vectors(
        self,
        tower: HookedTower,
        *,
        made: Callable[[HookedTower, Tensor], Tensor] = straight_vectors,
    ) -> tuple[list[Tensor], Float[Tensor, "sentence d_embed"]]:
        """What each word adds to the unit direction of its sentence, and that direction.

        Args:
            tower: The text tower.
            made: From tower and tokens to what each position adds to the embedding.

        Returns:
            `word d_embed` for each sentence, without the padding; and `sentence d_embed`.
        """
        tokens = self.tokens.to(next(tower.source.parameters()).device)
        with torch.no_grad():
            embedding = tower(tokens)
        length = embedding.norm(dim=-1, keepdim=True)
        of_tokens = made(tower, tokens) / length[:, None]
        own = [rows[: len(words)] for rows, words in zip(of_tokens, self.words, strict=True)]
        return own, embedding / length


@dataclass(frozen=True, eq=False)
class SpokenSentences:
    """Sentences, the text tower that reads them, and the logit scale."""

    sentences: Sentences
    tower: HookedTower
    scale: float
    method: str

    @property
    def tokens(self) -> Tensor:
        return self.sentences.tokens.to(next(self.tower.source.parameters()).device)

    @cached_property
    def vectors(self) -> list[Tensor]:
        """What each word adds to the direction of its sentence, `word d_embed`."""
        made = direct_vectors if self.method == "direct" else straight_vectors
        unit, _ = self.sentences.vectors(self.tower, made=made)
        return [self.scale * own for own in unit]

    def shares(
        self, pictures: Float[Tensor, "picture d_embed"]
    ) -> list[Float[Tensor, "picture word"]]:
        """What each word adds to the logit of each picture, or how relevant it is."""
        if self.method != "gradient x attention":
            return [pictures @ own.to(pictures).T for own in self.vectors]
        relevance = by_attention(self.tower, self.tokens, pictures)
        return [
            rows[:, : len(own)] for rows, own in zip(relevance, self.sentences.words, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class SentenceParts:
    """The unit directions of sentences as sums over their words, as `sentence_parts` makes them.

    Args:
        words: For each sentence what its tokens stand for, from its beginning to its end.
        vectors: For each sentence what each token adds, `word d_embed`.
        rest: What biases add (and a class token, where one is read), `sentence d_embed`.

    >>> SentenceParts((("a", "cat"),), (torch.eye(2),), torch.zeros(1, 2))
    SentenceParts(1 sentences, 2 words)
    """

    words: tuple[tuple[str, ...], ...]
    vectors: tuple[Tensor, ...]
    rest: Float[Tensor, "sentence d_embed"]

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"SentenceParts({len(self)} sentences, {sum(map(len, self.words))} words)"


@door
def sentence_parts(clip: Any, sentences: Sequence[str]) -> SentenceParts:
    """Take the direction of each sentence apart into what its words add.

    text(y) / |text(y)| = sum over words of their vectors + rest

    Args:
        clip: A `Clip` whose text tower is open_clip's own.
        sentences: The texts.

    Returns:
        The parts. Their product with a picture's unit embedding, times the logit scale, is what
        each word adds to the logit.

    Raises:
        SpecificationError: Without a sentence, or for one that is longer than the context.
        DataError: For words that the tokenizer does not know.

    Notes:
        Norms, attention and activation functions are taken for the linear maps that they are at
        this sentence (Ali et al. 2022), so the sum is exact. `explain` does the same for the words
        of pictures' logits, and for pairs of word and patch.

    >>> import open_clip
    >>> from interp.models.clip import Clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> clip = Clip(model, "ViT-S-32-alt")
    >>> parts = sentence_parts(clip, ["a cat"])
    >>> whole = parts.vectors[0].sum(dim=0) + parts.rest[0]
    >>> direct = clip.text(clip.tokenizer(["a cat"]))[0]
    >>> bool(torch.allclose(whole, direct / direct.norm(), atol=1e-5))
    True
    """
    read = read_sentences(clip.tokenizer, sentences)
    check_evaluation(clip.text, ASKED)
    own, whole = read.vectors(clip.text)
    rest = whole - torch.stack([each.sum(dim=0) for each in own])
    return SentenceParts(read.words, tuple(own), rest)


def read_sentences(tokenizer: Callable[..., Tensor], texts: Sequence[str]) -> Sentences:
    """Cut sentences into tokens.

    Args:
        tokenizer: open_clip's, as `clip.tokenizer`.
        texts: The sentences.

    Returns:
        The sentences.

    Raises:
        SpecificationError: Without a sentence, or for one that is longer than the context.
        DataError: For words that the tokenizer does not know.
    """
    if not len(texts):
        raise SpecificationError(ASKED, "no sentence", "one or more", "write one")
    if strange := unknown_words(tokenizer, texts):
        given = f"the words {listed(strange)}, which the tokenizer of this model does not know"
        right = "words that the model was trained with"
        raise DataError(ASKED, given, right, "say it in other words")
    tokens = tokenizer(list(texts))
    whole = token_numbers(tokenizer, texts)
    for text, numbers in zip(texts, whole, strict=True):
        if len(numbers) > tokens.shape[1]:
            given = f"a sentence of {len(numbers)} tokens, {text[:40]!r}…"
            right = f"at most {tokens.shape[1]}, beginning and end included"
            do = "shorten it, since the model would not see its end"
            raise SpecificationError(ASKED, given, right, do)
    words = tuple(tuple(_word(tokenizer, number) for number in numbers) for numbers in whole)
    return Sentences(tuple(texts), tokens, words)


def _word(tokenizer: Any, number: int) -> str:
    """What a token stands for, without the marks of where a word begins or ends."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        written = str(inner.convert_ids_to_tokens(number))
        special = number in getattr(inner, "all_special_ids", ())
    else:
        written = str(tokenizer.decoder[number])
        special = number in (tokenizer.sot_token_id, tokenizer.eot_token_id)
    bare = written.replace("</w>", "").strip("▁Ġ ").strip("<>[]").replace("_", " ")
    return f"[{bare}]" if special else bare

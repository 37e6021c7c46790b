"""Sentences in tokens, and their words as a tokenizer cuts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from interp.core.errors import DataError, SpecificationError, listed
from interp.models.loading.presets import token_numbers, unknown_words

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

    def vectors(self, of_tokens: Float[Tensor, "sentence pos d_embed"]) -> list[Tensor]:
        """What each word adds, without the padding: `word d_embed` for each sentence."""
        return [rows[: len(own)] for rows, own in zip(of_tokens, self.words, strict=True)]


def read_sentences(tokenizer: Any, texts: Sequence[str]) -> Sentences:
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
        raise DataError(
            ASKED,
            f"the words {listed(strange)}, which the tokenizer of this model does not know",
            "words that the model was trained with",
            "say it in other words",
        )
    tokens = tokenizer(list(texts))
    whole = token_numbers(tokenizer, texts)
    for text, numbers in zip(texts, whole, strict=True):
        if len(numbers) > tokens.shape[1]:
            raise SpecificationError(
                ASKED,
                f"a sentence of {len(numbers)} tokens, {text[:40]!r}…",
                f"at most {tokens.shape[1]}, beginning and end included",
                "shorten it, since the model would not see its end",
            )
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

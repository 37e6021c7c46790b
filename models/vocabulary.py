"""A tokenizer of a study's own words, kept in the model folder that open_clip reads.

open_clip's table of 49,408 tokens would be most of a small model's parameters. This one holds the
words that captions and prompts can contain; a word that it does not know becomes `<unk>`.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import listed

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"


def write_tokenizer(folder: Path, words: Sequence[str], *, context_length: int) -> int:
    """Write `tokenizer.json` and its configuration into a model folder; return the vocabulary size.

    The end token has the largest number of all, since open_clip's text tower pools where the
    token number is greatest.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = [PAD, UNKNOWN, *sorted(set(words)), START, END]
    number = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(number, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{START} $A {END}", special_tokens=[(name, number[name]) for name in (START, END)]
    )
    tokenizer.add_special_tokens([PAD, UNKNOWN, START, END])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": context_length,
                "pad_token": PAD,
                "unk_token": UNKNOWN,
                "bos_token": START,
                "eos_token": END,
            },
            indent=1,
        )
    )
    return len(names)


def unreadable(tokenizer: Any, sentences: Sequence[str]) -> str:
    """Why a tokenizer cannot read some of the sentences; empty if it can.

    A tokenizer of whole words takes a word it does not know for `<unk>`, and cuts what is longer
    than its context: such a sentence would be embedded, but not mean what it says. Byte-pair
    tokenizers such as CLIP's own know every word. `tokenizer` is open_clip's, as `clip.tokenizer`.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    unknown = getattr(inner, "unk_token_id", None)
    if inner is None or unknown is None:
        return ""
    words = sorted({word for sentence in sentences for word in sentence.split()})
    strange = [
        word for word, row in zip(words, _numbers(inner, words), strict=True) if unknown in row
    ]
    longest = max(map(len, _numbers(inner, list(sentences))), default=0)
    room = tokenizer.context_length
    reasons = [f"the tokenizer does not know {listed(strange, limit=5)}"] if strange else []
    if longest > room:
        reasons.append(f"{longest} tokens do not fit a context of {room}")
    return "; ".join(reasons)


def _numbers(inner: Any, texts: list[str]) -> list[list[int]]:
    """Token numbers of each text, uncut; a tokenizer warns of what its model could not take."""
    return inner(texts, truncation=False, verbose=False)["input_ids"] if texts else []


def remembering(tokenize: Any) -> Any:
    """Tokenize each distinct caption once."""
    one = lru_cache(maxsize=200_000)(lambda text: tokenize([text])[0])

    def tokens(texts: list[str] | str) -> Tensor:
        return torch.stack([one(text) for text in ([texts] if isinstance(texts, str) else texts)])

    return tokens

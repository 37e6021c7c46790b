"""Model configurations by name, and the folders that open_clip opens them from (`local-dir:`)."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.storage.store import complete

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"


def write_tokenizer(folder: Path, words: Sequence[str], *, context_length: int) -> int:
    """Write a word tokenizer with its configuration into a model folder.

    Args:
        folder: The model folder.
        words: The vocabulary.
        context_length: Number of tokens of a text, start and end included.

    Returns:
        The vocabulary size, special tokens included.

    Notes:
        The end token has the largest number, since open_clip's text tower pools where the token
        number is greatest.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = [PAD, UNKNOWN, *sorted(set(words)), START, END]
    number = {name: index for index, name in enumerate(names)}
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
    """Why a tokenizer cannot read some of the sentences.

    Args:
        tokenizer: open_clip's tokenizer, as `clip.tokenizer`.
        sentences: The texts.

    Returns:
        The reasons; empty if all can be read.

    Notes:
        A tokenizer of whole words reads an unknown word as `<unk>` and cuts what is longer than its
        context: such a sentence would be embedded without its meaning. Byte-pair tokenizers such as
        CLIP's own know every word.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None or getattr(inner, "unk_token_id", None) is None:
        return ""
    strange = unknown_words(tokenizer, sentences)
    longest = max(map(len, _numbers(inner, list(sentences))), default=0)
    room = tokenizer.context_length
    reasons = [f"the tokenizer does not know {listed(strange, limit=5)}"] if strange else []
    if longest > room:
        reasons.append(f"{longest} tokens do not fit a context of {room}")
    return "; ".join(reasons)


def unknown_words(tokenizer: object, sentences: Sequence[str]) -> list[str]:
    """The words that a tokenizer of whole words does not know; none for byte-pair tokenizers.

    Args:
        tokenizer: open_clip's tokenizer, as `clip.tokenizer`.
        sentences: The texts.

    Returns:
        The words, sorted, each once.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    unknown = getattr(inner, "unk_token_id", None)
    if inner is None or unknown is None or unknown == getattr(inner, "eos_token_id", None):
        return []
    words = sorted({word for sentence in sentences for word in sentence.split()})
    rows = _numbers(inner, words)
    return [word for word, row in zip(words, rows, strict=True) if unknown in row]


def token_numbers(tokenizer: Any, sentences: Sequence[str]) -> list[list[int]]:
    """The tokens of each sentence from its beginning to its end, neither cut nor padded.

    Args:
        tokenizer: open_clip's tokenizer, as `clip.tokenizer`.
        sentences: The texts.

    Returns:
        Token numbers.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        return _numbers(inner, list(sentences))
    first, last = tokenizer.sot_token_id, tokenizer.eot_token_id
    return [[first, *tokenizer.encode(text), last] for text in sentences]


def _numbers(
    inner: Callable[..., Mapping[str, list[list[int]]]], texts: list[str]
) -> list[list[int]]:
    """Token numbers of each text, not cut, without warnings about their length."""
    return inner(texts, truncation=False, verbose=False)["input_ids"] if texts else []


def remembering(tokenize: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a tokenizer so that each distinct caption is tokenized once.

    Args:
        tokenize: Maps a list of texts to token numbers.

    Returns:
        A function of one text or a list of them.
    """
    one = lru_cache(maxsize=200_000)(lambda text: tokenize([text])[0])

    def tokens(texts: list[str] | str) -> Tensor:
        return torch.stack([one(text) for text in ([texts] if isinstance(texts, str) else texts)])

    return tokens


_TEXT = {"width": 128, "heads": 4, "layers": 1, "hf_tokenizer_name": "."}
_DEEPER_TEXT = {**_TEXT, "layers": 2}


def _vit(patch: int, width: int, layers: int, **more: object) -> dict[str, object]:
    """A small ViT: average pooling learns from few pictures where a class token does not."""
    return {
        "layers": layers,
        "width": width,
        "head_width": 32,
        "patch_size": patch,
        "image_size": 48,
        "mlp_ratio": 4.0,
        "pool_type": "avg",
        "final_ln_after_pool": True,
        **more,
    }


PRESETS: dict[str, dict[str, Any]] = {
    # the default study's: one bottleneck per stage, a miniature of CLIP's RN50
    "resnet-small": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 48},
    },
    "vit-small": {"embed_dim": 128, "text_cfg": _TEXT, "vision_cfg": _vit(8, 128, 4)},
    # what a study of ViTs tries, each one thing away from vit-small or from vit-fine: finer
    # patches give four strokes of a glyph four tokens instead of one ...
    "vit-fine": {"embed_dim": 128, "text_cfg": _TEXT, "vision_cfg": _vit(6, 128, 4)},
    # ... dropped patches make steps cheaper and are the augmentation that crops are not ...
    "vit-fine-dropout": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": _vit(6, 128, 4, patch_dropout=0.25),
    },
    # ... layer scale lets a higher rate stand from the first step ...
    "vit-fine-scaled": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": _vit(6, 128, 4, ls_init_value=0.1),
    },
    # ... captions may be what is read too shallowly ...
    "vit-fine-text": {"embed_dim": 128, "text_cfg": _DEEPER_TEXT, "vision_cfg": _vit(6, 128, 4)},
    # ... more depth, or more width, at twice the cost ...
    "vit-deep": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": _vit(6, 128, 8, ls_init_value=0.1, patch_dropout=0.25),
    },
    "vit-wide": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": _vit(6, 192, 4, patch_dropout=0.25),
    },
    # ... and CLIP's own form, a class token, for comparison
    "vit-token": {
        "embed_dim": 128,
        "text_cfg": _TEXT,
        "vision_cfg": _vit(6, 128, 4, pool_type="tok", final_ln_after_pool=False),
    },
    # the paper's, in full size, with open_clip's own tokenizer of 49,408 words
    "RN50": {"open_clip": "RN50"},
    "ViT-S-32": {"open_clip": "ViT-S-32"},
    "Swin-T": {
        "embed_dim": 512,
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 512,
            "heads": 8,
            "layers": 12,
        },
        "vision_cfg": {
            "timm_model_name": "swin_tiny_patch4_window7_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
    },
}
"""open_clip model configurations. Small ones leave vocabulary and context length to the study;
`open_clip` names one of open_clip's own."""

_PICTURES = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def is_full_size(preset: str) -> bool:
    """Whether a preset has open_clip's own tokenizer and preprocessing.

    Args:
        preset: A name in `PRESETS`.

    Returns:
        True for the full-size ones.

    >>> is_full_size("RN50"), is_full_size("Swin-T"), is_full_size("resnet-small")
    (True, True, False)
    """
    check_known("make a model", "preset", [preset], PRESETS, SpecificationError)
    return "hf_tokenizer_name" not in PRESETS[preset].get("text_cfg", {})


def is_small_vit(preset: str) -> bool:
    """Whether a preset is a vision transformer of ours.

    >>> is_small_vit("vit-small"), is_small_vit("resnet-small"), is_small_vit("ViT-S-32")
    (True, False, False)
    """
    full = is_full_size(preset)
    return not full and isinstance(PRESETS[preset]["vision_cfg"]["layers"], int)


@door
def write_model_folder(
    folder: Path, preset: str, *, words: Sequence[str], longest: int, image_size: int | None = None
) -> Path:
    """Write the model folder of a preset, from which open_clip creates the model.

    Args:
        folder: Where to write `open_clip_config.json` and the tokenizer.
        preset: A name in `PRESETS`.
        words: The vocabulary of the captions; a full-size preset keeps open_clip's tokenizer.
        longest: Number of words in the longest caption, to which start and end are added; a
            full-size preset keeps 77 tokens.
        image_size: Side of the pictures in pixels; None keeps the preset's.

    Returns:
        The folder.

    Raises:
        SpecificationError: For an unknown preset, or another size for a timm model.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as parent:
    ...     folder = Path(parent) / "model"
    ...     written = write_model_folder(folder, "vit-small", words=["a", "cat"], longest=2)
    ...     (written / "open_clip_config.json").is_file()
    True
    """
    full = is_full_size(preset)
    config = deepcopy(PRESETS[preset])
    if "open_clip" in config:
        import open_clip

        config = open_clip.get_model_config(config["open_clip"])
        assert config is not None
    vision = config["vision_cfg"]
    if image_size not in (None, vision["image_size"]):
        if "timm_model_name" in vision:
            given = f"pictures of {image_size} pixels"
            right = f"{vision['image_size']}, which its positions are made for"
            do = "leave image_size out: pictures are resized on the way in"
            raise SpecificationError(f"make the model {preset}", given, right, do)
        vision["image_size"] = image_size
    with complete(folder) as temporary:
        if not full:
            size = write_tokenizer(temporary, words, context_length=longest + 2)
            config["text_cfg"] |= {"context_length": longest + 2, "vocab_size": size}
        content = {"model_cfg": config, "preprocess_cfg": {} if full else _PICTURES}
        (temporary / "open_clip_config.json").write_text(json.dumps(content, indent=1))
    return folder

"""Opening of a tower of an open_clip model: hooked where hooks exist, else traced."""

from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from interp.core.errors import SiteError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.models.towers.allocator import free_a_large_buffer
from interp.models.towers.hooked import HookedTower
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.traced import TracedTower
from interp.models.towers.transformer import Unhooked
from interp.models.towers.vit import HookedViT

VISUAL: dict[type[nn.Module], type[HookedTower]] = {
    VisionTransformer: HookedViT,
    ModifiedResNet: HookedResNet,
}
TEXT: dict[type[nn.Module], type[HookedTower]] = {
    TextTransformer: HookedText,
    CLIP: HookedText,  # keeps its text transformer's parts on itself
}

EXAMPLES = 3
"""Rows of input that a traced tower finds its sites with."""


@door
def open_tower(clip_model: nn.Module, which: str) -> HookedTower:
    """Open the image or text tower of an open_clip model, sharing its parameters.

    Args:
        clip_model: The open_clip model.
        which: `visual` or `text`.

    Returns:
        A hooked tower. One without hooks of its own (timm's and Hugging Face's, and open_clip's
        with custom blocks) is a `TracedTower`: the same methods, with sites named by module path.

    Raises:
        SiteError: For another name of a tower.
        SpecificationError: For a module that cannot be traced.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> open_tower(model, "visual").sites[:2]
    ('hook_embed', 'hook_pos_embed')
    """
    check_known("open a tower", "tower", [which], ["visual", "text"], SiteError)
    free_a_large_buffer()  # so that caches of small towers need no fresh memory
    known = VISUAL if which == "visual" else TEXT
    part = getattr(clip_model, which, None)
    part = clip_model if part is None else part
    for kind, hooked in known.items():
        if isinstance(part, kind):
            try:
                return hooked(part)
            except Unhooked:
                break
    return trace_pictures(part) if which == "visual" else trace_texts(part)


def trace_pictures(source: Any) -> TracedTower:
    """Trace a module that embeds pictures of its `image_size`.

    Args:
        source: The module.

    Returns:
        The traced tower.

    Raises:
        SpecificationError: If the module does not say the size of its pictures.
    """
    size = getattr(source, "image_size", None)
    if size is None:
        raise SpecificationError(
            f"trace a {type(source).__name__}",
            "a module that does not say the size of its pictures",
            "one with an image_size",
            "make a TracedTower of it with an example of its input",
        )
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    pictures = rng("traced example", 0).standard_normal((EXAMPLES, 3, height, width))
    return TracedTower(source, torch.tensor(pictures, dtype=torch.float32), label="visual")


def trace_texts(source: Any) -> TracedTower:
    """Trace a module that embeds texts of its `context_length`; Hugging Face's takes shorter ones.

    Args:
        source: The module; where open_clip keeps the text tower's parts on the model itself, the
            model, and a run is its `encode_text`.

    Returns:
        The traced tower.

    Raises:
        SpecificationError: If the module does not say its vocabulary size.
    """
    merged = isinstance(source, CLIP)
    config = getattr(source, "config", None)
    length, words = getattr(source, "context_length", 0), getattr(source, "vocab_size", 0)
    if not words:
        raise SpecificationError(
            f"trace a {type(source).__name__}",
            "a module that does not say how many tokens it knows",
            "one with a vocab_size",
            "make a TracedTower of it with an example of its input",
        )
    padding = getattr(config, "pad_token_id", 0)
    end = getattr(source, "text_eos_id" if merged else "eos_id", None) or words - 1
    return TracedTower(
        source,
        _texts(words, length if config is None else 8, end=end, padding=padding),
        label="text",
        method="encode_text" if merged else "__call__",
        foreign=("visual.", "logit_") if merged else (),
        longest=None if config is None else length,
    )


def check_opened(asked: str, tower: object) -> None:
    """Refuse what is no hooked tower, such as the model or the `Clip` that has one.

    Args:
        asked: What was to be done, for the message.
        tower: What was given.

    Raises:
        SpecificationError: If it is no hooked tower.
    """
    if not isinstance(tower, HookedTower):
        raise SpecificationError(
            asked,
            f"something of type {type(tower).__name__}",
            "a hooked tower",
            "pass clip.visual or clip.text",
        )


def _texts(words: int, length: int, *, end: int, padding: int) -> Tensor:
    """Texts of different lengths, each with its end token and then padding."""
    generator = rng("traced example", 0)
    tokens = generator.integers(0, words - 1, (EXAMPLES, length))
    tokens[(tokens == padding) | (tokens == end)] = next(
        word for word in range(words) if word not in (padding, end)
    )
    for row in range(EXAMPLES):
        last = length - 1 - row
        tokens[row, last], tokens[row, last + 1 :] = end, padding
    return torch.tensor(tokens)

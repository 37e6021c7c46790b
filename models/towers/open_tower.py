"""Opening of a tower: hooked where hooks exist, else traced.

Nearly all of the cost of a cache is the system handing out fresh pages for buffers that were freed
a moment before. glibc decides that for the whole process; `keep_freed_memory` changes it.
"""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock

import torch
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from interp.core.errors import SiteError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.progress import say
from interp.core.seeds import rng
from interp.models.towers.hooked import HookedTower
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.traced import TracedTower
from interp.models.towers.transformer import Unhooked
from interp.models.towers.vit import HookedViT

# numbers of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ADAPTED = 2**25  # bytes
_KEPT = 2**31 - 1  # mallopt takes an int
_SOME = 2**30
_OF_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

_lock = Lock()
_depth = 0


@cache
def keep_some_memory() -> None:
    """Let the process keep up to 1 GiB of freed memory, from the first tower that is opened.

    Notes:
        glibc returns freed memory beyond its trim threshold to the system, and every cached run
        then asks for all of its pages again: a sixth of a forward of a ViT-B/32. Buffers of 32 MiB
        and more are still the system's. The setting is the process's; it is left alone where the
        environment has one (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`),
        and other allocators ignore it.
    """
    library = _glibc()
    if library is not None and not any(name in os.environ for name in _OF_USERS):
        _set(library, _ADAPTED, _SOME)


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep freed memory in the process for the length of a `with` block.

    Returns:
        A context that yields True, or False where there is no glibc.

    Notes:
        Inside, glibc serves every buffer from its heap and returns nothing to the system: the
        process stays as large as it ever was. At the end the heap is trimmed, and the thresholds
        are those of `keep_some_memory`: 32 MiB (mmap) and 1 GiB (trim).

        It acts on the whole process, all threads and libraries. Blocks may be nested. Without glibc
        (Linux) it changes nothing and says so in a line.

    >>> with keep_freed_memory() as kept:  # doctest: +SKIP
    ...     for batch in batches:
    ...         embedding, cache = clip.visual.run_with_cache(batch)
    """
    global _depth
    library = _glibc()
    if library is None:
        say(f"keep_freed_memory does nothing here: it needs glibc, this is {platform.system()}")
        yield False
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(library, _KEPT, _KEPT)
    try:
        yield True
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _set(library, _ADAPTED, _SOME)
                library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process if it is glibc, else None."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set(library: ctypes.CDLL, mmap: int, trim: int) -> None:
    # older releases refuse an mmap threshold above half a heap, which is 32 MiB
    if not library.mallopt(_MMAP_THRESHOLD, mmap):
        library.mallopt(_MMAP_THRESHOLD, _ADAPTED)
    library.mallopt(_TRIM_THRESHOLD, trim)


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
def open_tower(
    module: nn.Module,
    which: str = "visual",
    *,
    example: Tensor | None = None,
    axes: Mapping[str, Sequence[str]] | None = None,
) -> HookedTower:
    """Open the image or text tower of an open_clip model, or any torch module, as a tower.

    Args:
        module: The open_clip model. Or, with an `example`, any module of one input: torchvision's,
            timm's, one's own.
        which: `visual` or `text`.
        example: A batch, of one row or more, of the module's input; the module is then traced.
        axes: Names for the axes of a traced module's sites, by site or pattern:
            `{"layer?": ("batch", "channel", "row", "column")}`. See Notes.

    Returns:
        A hooked tower that shares the module's parameters. One without hooks of its own (any
        module that is not open_clip's, timm's and Hugging Face's towers, and open_clip's with
        custom blocks) is a `TracedTower`: the same methods, with sites named by module path.

    Raises:
        SiteError: For another name of a tower, or axes that a site does not have.
        SpecificationError: For a module that cannot be traced.

    Notes:
        The axes of a traced site are inferred where modules say what they are: maps before and
        behind convolutions and their norms, tokens before and behind layer norms. Others are called
        `axis_1`, `axis_2`; such a site can be read and patched, but its features are not pooled
        before its axes are named.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> open_tower(model, "visual").sites[:2]
    ('hook_embed', 'hook_pos_embed')
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    >>> tower = open_tower(net, example=torch.rand(1, 3, 8, 8))
    >>> tower.sites[::2], tower.axes("1")
    (('0.input', '1.input', '2.input', 'hook_embedding'), ('batch', 'channel', 'row', 'column'))
    """
    check_known("open a tower", "tower", [which], ["visual", "text"], SiteError)
    keep_some_memory()  # so that caches need no fresh memory
    if example is not None:
        tower: HookedTower = TracedTower(module, example, label=which)
    else:
        tower = _of_clip(module, which)
    for names, words in (axes or {}).items():
        if not isinstance(tower, TracedTower):
            given = f"a {type(tower).__name__}, whose axes have names"
            raise SpecificationError("name axes", given, "a traced module", "leave axes out")
        tower.name_axes(names, words)
    return tower


def _of_clip(module: nn.Module, which: str) -> HookedTower:
    known = VISUAL if which == "visual" else TEXT
    part = getattr(module, which, None)
    part = module if part is None else part
    for kind, hooked in known.items():
        if isinstance(part, kind):
            try:
                return hooked(part)
            except Unhooked:
                break
    return trace_pictures(part) if which == "visual" else trace_texts(part)


def trace_pictures(source: nn.Module) -> TracedTower:
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
        given = "a module that does not say the size of its pictures"
        right = "one with an image_size"
        do = "pass a batch of its input: open_tower(module, example=x)"
        raise SpecificationError(f"trace a {type(source).__name__}", given, right, do)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    pictures = rng("traced example", 0).standard_normal((EXAMPLES, 3, height, width))
    return TracedTower(source, torch.tensor(pictures, dtype=torch.float32), label="visual")


def trace_texts(source: nn.Module) -> TracedTower:
    """Trace a module that embeds texts of its `context_length`; Hugging Face's takes shorter ones.

    Args:
        source: The module, or a model that holds the text tower's parts and has `encode_text`.

    Returns:
        The traced tower.

    Raises:
        SpecificationError: If the module does not say its vocabulary size.
    """
    merged = isinstance(source, CLIP)
    config = getattr(source, "config", None)
    length, words = getattr(source, "context_length", 0), getattr(source, "vocab_size", 0)
    if not words:
        given = "a module that does not say how many tokens it knows"
        right = "one with a vocab_size"
        do = "pass a batch of its input: open_tower(module, example=x)"
        raise SpecificationError(f"trace a {type(source).__name__}", given, right, do)
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


def check_opened(asked: str, tower: object) -> HookedTower:
    """A hooked tower; refuses anything else, such as the model or the `Clip` that has one.

    Args:
        asked: What was to be done, for the message.
        tower: What was given.

    Returns:
        The tower.

    Raises:
        SpecificationError: If it is no hooked tower.
    """
    if not isinstance(tower, HookedTower):
        given = f"something of type {type(tower).__name__}"
        raise SpecificationError(asked, given, "a hooked tower", "pass clip.visual or clip.text")
    return tower


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

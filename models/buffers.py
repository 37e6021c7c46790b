"""A cache whose buffers are used again by every run, so that a full cache needs no fresh memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interp.core.model import Tower
from interp.models.selection import Keep, watch


@contextmanager
def kept_buffers(tower: Tower, keep: Keep | None = None) -> Iterator[dict[str, Tensor]]:
    """Hook the kept sites for the length of a `with` block; every run refills the same tensors.

    The tensors hold the activations of the *last* run: clone what must outlive the next one. They
    are detached, made when a site first fires, and made anew when its shape, format or device
    changes. A run costs a copy of what is kept, and none of the page faults of `run_with_cache`,
    which asks the system for all of its memory afresh. `keep_freed_memory` saves the copy as well,
    but acts on the whole process; this acts on one tower.

    >>> with kept_buffers(clip.visual, Keep("blocks.*.hook_resid_post")) as cache:  # doctest: +SKIP
    ...     for batch in batches:
    ...         embedding = clip.visual(batch)
    ...         seen = cache["blocks.3.hook_resid_post"].mean(dim=0)
    """
    keep = Keep() if keep is None else keep
    sites = keep.find(tower)
    axes = {site: tower.axes(site) for site in sites}
    cache: dict[str, Tensor] = {}
    kinds: dict[str, Any] = {}

    def listen(site: str, activation: Tensor) -> None:
        part = keep.part(activation, axes=axes[site], site=site)
        # a tensor made in inference mode must not be written to outside it
        kind = (part.shape, part.dtype, part.device, torch.is_inference_mode_enabled())
        if kinds.get(site) != kind:
            kinds[site] = kind
            cache[site] = torch.empty(
                part.shape, dtype=keep.dtype or part.dtype, device=keep.device or part.device
            )
        cache[site].copy_(part)

    with watch(tower, listen, None if keep.sites is None else sites, filling=cache):
        yield cache

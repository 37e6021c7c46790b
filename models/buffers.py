"""A cache whose buffers are used again by every run, so that a full cache needs no fresh memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interp.core.model import Tower
from interp.models.selection import Keep


@contextmanager
def kept_buffers(tower: Tower, keep: Keep | None = None) -> Iterator[dict[str, Tensor]]:
    """Hook the kept sites for the length of a `with` block; every run refills the same tensors.

    The tensors hold the activations of the *last* run: clone what must outlive the next one. They
    are detached, made when a site first fires, and made anew when its shape, format or device
    changes. Beside `run_with_cache`, whose every call hooks all sites and asks the system for all
    of its memory afresh, a run costs one copy of what is kept, and fewer page faults.

    >>> with kept_buffers(clip.visual, Keep("blocks.*.hook_resid_post")) as cache:  # doctest: +SKIP
    ...     for batch in batches:
    ...         embedding = clip.visual(batch)
    ...         seen = cache["blocks.3.hook_resid_post"].mean(dim=0)
    """
    keep = Keep() if keep is None else keep
    cache: dict[str, Tensor] = {}
    kinds: dict[str, Any] = {}

    def hook_for(site: str) -> Any:
        axes = tower.axes(site)

        def hook(tensor: Tensor, hook: Any = None) -> None:
            part = keep.part(tensor, axes=axes, site=site)
            device = torch.device(keep.device or part.device)
            # a tensor made in inference mode must not be written to outside it
            kind = (part.shape, keep.dtype or part.dtype, device, torch.is_inference_mode_enabled())
            if kinds.get(site) != kind:
                kinds[site] = kind
                cache[site] = torch.empty(part.shape, dtype=kind[1], device=device)
            cache[site].copy_(part)

        return hook

    with tower.hooks(fwd_hooks=[(site, hook_for(site)) for site in keep.find(tower)]):
        yield cache

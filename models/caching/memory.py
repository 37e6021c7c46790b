"""Forecasts of the memory that the activations of a run will take."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from interp.core.errors import ShapeError
from interp.core.storage.store import in_words
from interp.core.tower import Tower
from interp.models.caching.selection import Keep, visit, watch


@dataclass(frozen=True)
class Forecast:
    """Shape, format and bytes of what is kept of each site of a tower.

    Args:
        tower: The tower's label.
        rows: Examples in the batch.
        shapes: The shape of each site, batch included.
        dtypes: The format of each site.
        bytes: The bytes of each site.

    >>> print(Forecast("visual", 8, {"hook_embedding": (8, 128)}, {"hook_embedding": "float32"},
    ...                {"hook_embedding": 4096}))
    visual: 1 site, 4.0 KiB for a batch of 8, largest hook_embedding 4.0 KiB
    """

    tower: str
    rows: int
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    bytes: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all sites."""
        return sum(self.bytes.values())

    @property
    def largest(self) -> str:
        """The site that takes most."""
        return max(self.bytes, key=lambda site: self.bytes[site])

    def __str__(self) -> str:
        sites = "1 site" if len(self.bytes) == 1 else f"{len(self.bytes)} sites"
        return (
            f"{self.tower}: {sites}, {in_words(self.total)} for a batch of "
            f"{self.rows}, largest {self.largest} {in_words(self.bytes[self.largest])}"
        )


def forecast(tower: Tower, batch: Any, keep: Keep | None = None) -> Forecast:
    """Forecast the bytes that the activations of a batch will take, without computing them.

    Args:
        tower: The tower.
        batch: Pictures or tokens, as the tower takes them.
        keep: What will be kept; None is what `run_with_cache` keeps by default.

    Returns:
        Shapes, formats and bytes by site.

    Raises:
        ShapeError: For anything but a batch of one example or more.
        SiteError: For sites that the tower does not have.

    Notes:
        The tower is run on tensors that have a shape and no memory.

    >>> import open_clip
    >>> from interp.models.towers.opening import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> tower = open_tower(model, "visual")
    >>> print(forecast(tower, torch.zeros(8, 3, 64, 64), Keep("blocks.*.mlp.hook_post")))
    visual: 12 sites, 2.8 MiB for a batch of 8, largest blocks.0.mlp.hook_post 240.0 KiB
    """
    if not isinstance(batch, Tensor) or not batch.ndim or not len(batch):
        given = f"shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
        raise ShapeError(
            "forecast the memory of a run",
            given,
            "a batch of one example or more",
            "pass the batch",
        )
    keep = Keep() if keep is None else keep
    kept: dict[str, Tensor] = {}

    def at(site: str, activation: Tensor, axes: tuple[str, ...]) -> None:
        kept[site] = keep.take(activation, axes=axes, site=site)

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        visit(tower, mode.from_tensor(batch), keep, at=at)
    return Forecast(
        getattr(tower, "label", "") or type(tower).__name__,
        len(batch),
        {site: tuple(value.shape) for site, value in kept.items()},
        {site: str(value.dtype).removeprefix("torch.") for site, value in kept.items()},
        {site: value.numel() * value.element_size() for site, value in kept.items()},
    )


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

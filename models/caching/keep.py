"""Selections of what to keep of a run: sites, positions, heads, format; and the memory it takes."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from interp.core.errors import NumericsError, ShapeError, SiteError, listed
from interp.core.sites import ON_DEMAND, find_sites
from interp.core.storage.store import in_words
from interp.core.tower import Hook, Tower
from interp.models.towers.checked_hooks import Listener
from interp.models.towers.hooked import HookedTower

Places = int | slice | Sequence[int] | Tensor | None
"""Some places of an axis, counted from 0; None is all of them."""

_ALONG = {"pos": ("pos", "query"), "head": ("head",)}


@dataclass(frozen=True)
class Keep:
    """What to keep of a run of a tower: sites, positions, heads, format and device.

    Args:
        sites: Names or patterns; None takes every site but the costly ones (`ON_DEMAND`).
        pos: Positions kept of the sites with a `pos` or `query` axis, counted from 0; None keeps
            all.
        head: Heads kept of the sites with a `head` axis, counted from 0; None keeps all.
        dtype: What is kept is converted to it; None leaves it as computed.
        device: What is kept is moved there; None leaves it where it is.

    Raises:
        ShapeError: For no positions or heads, or negative ones.

    Notes:
        Sites without an axis that is selected from are kept whole. A single position or head keeps
        its axis, with length 1.

    >>> Keep("blocks.*.hook_resid_post", pos=0, dtype=torch.float16, device="cpu").pos
    (0,)
    """

    sites: str | Sequence[str] | None = None
    pos: Places = None
    head: Places = None
    dtype: torch.dtype | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.sites is not None and not isinstance(self.sites, str):
            object.__setattr__(self, "sites", tuple(self.sites))
        for axis in _ALONG:
            object.__setattr__(self, axis, _plain(getattr(self, axis), axis))
        if self.device is not None:
            object.__setattr__(self, "device", str(self.device))

    def find(self, tower: Tower) -> list[str]:
        """The tower's sites that are kept, in tower order.

        Args:
            tower: The tower.

        Returns:
            Their names.

        Raises:
            SiteError: For a pattern that matches nothing, or if no site has an axis that is
                selected from.
        """
        if self.sites is None:
            sites = [site for site in tower.sites if not site.endswith(ON_DEMAND)]
        else:
            sites = find_sites(self.sites, tower.sites)
        for axis, names in _ALONG.items():
            if getattr(self, axis) is not None and not any(
                set(names) & set(tower.axes(site)) for site in sites
            ):
                asked = f"keep a part of the {axis} axis"
                given = f"{listed(sites, limit=4)}"
                right = f"a site that has the axis {' or '.join(names)}"
                raise SiteError(asked, given, right, f"leave {axis}= out, or choose other sites")
        return sites

    def part(self, activation: Tensor, *, axes: tuple[str, ...], site: str) -> Tensor:
        """The kept positions and heads of an activation, detached.

        Args:
            activation: The whole activation.
            axes: Its axes in order.
            site: Its name, for messages.

        Returns:
            The part.

        Raises:
            ShapeError: For a position or head that is not there.
        """
        value = activation.detach()
        if self.pos is None and self.head is None:
            return value
        for axis, names in _ALONG.items():
            places = getattr(self, axis)
            for dim in [axes.index(name) for name in names if name in axes]:
                value = _select(value, dim, places, axis=axis, site=site)
        return value

    def take(self, activation: Tensor, *, axes: tuple[str, ...], site: str) -> Tensor:
        """The kept part in the kept format and place, holding no more memory than it shows.

        Args:
            activation: The whole activation.
            axes: Its axes in order.
            site: Its name, for messages.

        Returns:
            The part, converted and moved.

        Raises:
            ShapeError: For a position or head that is not there.

        Notes:
            A view (a slice, or q inside the product that also holds k and v) would keep all of what
            it looks at alive, so it is copied.
        """
        value = self.part(activation, axes=axes, site=site)
        stored = value.to(self.device or value.device, self.dtype or value.dtype)
        if stored.untyped_storage().nbytes() > stored.nbytes:
            stored = stored.clone(memory_format=torch.contiguous_format)
        return stored

    def describe(self) -> dict[str, object]:
        """The same in plain values, for an index or a fingerprint."""
        places = {
            axis: str(value) if isinstance(value := getattr(self, axis), slice) else value
            for axis in _ALONG
        }
        dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {"sites": self.sites, **places, "dtype": dtype}


def read(tower: Tower, x: Tensor, keep: Keep) -> dict[str, Tensor]:
    """Run a batch as far as the last kept site, and return what is kept of each, in tower order.

    Without gradients. No block after the last site runs; each activation is cut to its part when
    it is computed, and the rest freed as the run goes on. A number that was finite and is not in
    the kept format is a `NumericsError`.

    >>> kept = read(clip.visual, x, Keep("blocks.3.*", head=[0, 5]))  # doctest: +SKIP
    """
    kept: dict[str, Tensor] = {}

    def at(site: str, activation: Tensor, axes: tuple[str, ...]) -> None:
        kept[site] = keep.take(activation, axes=axes, site=site)
        if keep.dtype is not None and kept[site].is_floating_point():
            _check_range(activation, kept[site], site)

    visit(tower, x, keep, at=at)
    return kept


def visit(
    tower: Tower, x: Tensor, keep: Keep, *, at: Callable[[str, Tensor, tuple[str, ...]], None]
) -> None:
    """Run a batch as far as the last kept site, and call `at(site, activation, axes)` at each."""
    sites = keep.find(tower)
    axes = {site: tower.axes(site) for site in sites}
    reached: set[str] = set()

    def listen(site: str, activation: Tensor) -> None:
        at(site, activation, axes[site])
        reached.add(site)

    last = max(tower.layer(site) for site in sites) + 1
    stop = {"stop_at_layer": last} if last <= tower.n_layers else {}
    with torch.no_grad(), watch(tower, listen, sites, filling=reached):
        tower(x, **stop)
    silent = [site for site in sites if site not in reached]
    if silent:
        given = "a run that never came there"
        do = "check the tower's layer() of this site"
        raise SiteError(f"read {listed(silent)}", given, "a run that computes the site", do)


def watch(
    tower: Tower, listener: Listener, sites: Sequence[str] | None, *, filling: Container[str]
) -> AbstractContextManager[object]:
    """Call `listener(site, activation)` at some sites, or all but the costly, in a `with` block.

    Our own towers have listeners, which are cheap and leave the fused kernels in use; any other
    tower has hooks.
    """
    if isinstance(tower, HookedTower):
        return tower.listening(listener, sites, filling=filling)

    def hook_for(site: str) -> Hook:
        def hook(activation: Tensor, hook: object = None) -> None:
            listener(site, activation)

        return hook

    named = Keep().find(tower) if sites is None else sites
    return tower.hooks(fwd_hooks=[(site, hook_for(site)) for site in named])


def _plain(places: Any, axis: str) -> slice | tuple[int, ...] | None:
    """Places in a form that compares and hashes by value."""
    if places is None or isinstance(places, slice):
        return places
    try:
        numbers = tuple(int(place) for place in getattr(places, "tolist", lambda: places)())
    except TypeError:
        numbers = (int(places),)
    if not numbers or min(numbers) < 0:
        asked = f"keep a part of the {axis} axis"
        do = "count from the start of the axis"
        raise ShapeError(asked, f"the places {listed(numbers)}", "at least one, counted from 0", do)
    return numbers


def _select(
    value: Tensor, dim: int, places: slice | Sequence[int] | None, *, axis: str, site: str
) -> Tensor:
    if places is None:
        return value
    size = value.shape[dim]
    chosen = list(range(*places.indices(size))) if isinstance(places, slice) else list(places)
    if not chosen or max(chosen) >= size:
        given = f"{axis} {listed(chosen)}"
        right = f"some of 0 to {size - 1}"
        raise ShapeError(f"keep a part of {site}", given, right, "count from the start of the axis")
    return value.index_select(dim, torch.tensor(chosen, device=value.device))


def _check_range(activation: Tensor, stored: Tensor, site: str) -> None:
    """Refuse numbers that are infinite in the kept format and were not before."""
    if stored.isinf().any() and not activation.isinf().any():
        asked = f"keep {site} as {str(stored.dtype).removeprefix('torch.')}"
        given = f"values up to {float(activation.abs().max()):.3g}"
        right = f"at most {torch.finfo(stored.dtype).max:.3g}"
        raise NumericsError(asked, given, right, "keep it as bfloat16 or float32")


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


def forecast(tower: Tower, batch: object, keep: Keep | None = None) -> Forecast:
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
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> tower = open_tower(model, "visual")
    >>> print(forecast(tower, torch.zeros(8, 3, 64, 64), Keep("blocks.*.mlp.hook_post")))
    visual: 12 sites, 2.8 MiB for a batch of 8, largest blocks.0.mlp.hook_post 240.0 KiB
    """
    if not isinstance(batch, Tensor) or not batch.ndim or not len(batch):
        given = f"shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
        right = "a batch of one example or more"
        raise ShapeError("forecast the memory of a run", given, right, "pass the batch")
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
    kinds: dict[str, object] = {}

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

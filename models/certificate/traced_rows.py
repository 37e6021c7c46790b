"""The certificate of a traced tower: which names exist, fire, and change the output when patched.

A traced tower is the module itself, so its numbers need no proof; the tracing does. What is read at
a site is compared with PyTorch's own forward hooks. Every site is patched with its own value, which
must change nothing, and with another value, which must change the embedding.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformer_lens.hook_points import HookPoint

from interp.core.progress import say
from interp.core.seeds import rng
from interp.models.certificate.reference import relative_error
from interp.models.towers.traced import EMBEDDING, TracedTower
from interp.models.towers.tracing import Place, first_tensor

TOGETHER = 8
"""Sites patched in one forward, each in a row of its own."""


def rows_of_traced(
    tower: TracedTower, x: Tensor, *, bar: float, patches: int = 32, seed: int = 0
) -> list[tuple]:
    """The certificate rows of a traced tower, from four checks.

    Args:
        tower: A traced tower.
        x: Inputs of the module.
        bar: The largest error allowed in `read` and `patch with itself`.
        patches: Number of sites, spread evenly, that are really patched with another value.
        seed: Seed of the noise.

    Returns:
        Rows in the columns of `interp.models.certificate.certify.COLUMNS`.

    Notes:
        - `read`: a site's value beside what PyTorch's forward hooks see, relative to its maximum.
        - `patch with itself`: how far the embedding moves, relative to its maximum.
        - `patch with another`: 0 where the embedding moves further than by the site's own value,
          else 1. The `patches` sites, and every site without a gradient, are patched with noise of
          their own size. The others pass by a gradient of the embedding that is not zero. Integers
          that are all the same have no other value to take and are left out.
        - `out of reach`: a module that is no site, or not the whole of one; `reference` says why.

        The time is that of 5 runs of `x` and one of an example for each patch.
    """
    with torch.no_grad():
        started = time.perf_counter()
        right = tower(x)
        seconds = (time.perf_counter() - started) / len(x)
        if seconds * (5 * len(x) + patches) > 5:
            say(
                f"certificate: {len(tower.sites)} sites, {patches} of them patched, "
                f"about {seconds * (10 * len(x) + patches):,.0f} s"
            )
        read = _read(tower, x)
        same = _own_values(tower, x, right, bar)
    moved = _moved(tower, x, patches, same, seed)

    def row(site: str, check: str, error: float, least: float, n: int, how: str) -> tuple:
        kind = str(right.dtype).removeprefix("torch.")
        return (tower.label, site, check, kind, error, least, error <= least, n, how)

    n = right.numel()
    return [
        *(row(site, "read", error, bar, size, "hook") for site, (error, size) in read.items()),
        *(row(site, "patch with itself", same[site], bar, n, "run") for site in tower.sites),
        *(row(site, "patch with another", *moved[site]) for site in tower.sites if site in moved),
        *(row(name, "out of reach", 0.0, 0.0, 0, why) for name, why in tower.unreachable.items()),
    ]


def _read(tower: TracedTower, x: Tensor) -> dict[str, tuple[float, int]]:
    """Each site's distance from what forward hooks saw, and its size."""
    places = {site: traced.place for site, traced in tower.traced_sites.items()}
    with _hooked_by_torch(tower, set(places.values())) as seen:
        embedding = tower.original(x)
    _, cache = tower.run_with_cache(x, names_filter="*")
    theirs = {EMBEDDING: embedding} | {site: seen[place] for site, place in places.items()}
    return {
        site: (relative_error(cache[site].detach(), theirs[site]), cache[site].numel())
        for site in tower.sites
    }


@contextmanager
def _hooked_by_torch(tower: TracedTower, places: set[Place]) -> Iterator[dict[Place, Tensor]]:
    """Copies of what PyTorch's hooks see at the places; work in place would overwrite it."""
    seen: dict[Place, Tensor] = {}
    calls: Counter[tuple[str, str]] = Counter()

    def keep(path: str, end: str, value: object) -> None:
        place = Place(path, end, calls[path, end])
        calls[path, end] += 1
        tensor = first_tensor(value)
        if place in places and tensor is not None:
            seen[place] = tensor.clone()

    def before(path: str) -> Callable[..., None]:
        return lambda _, args, kwargs: keep(path, "input", next(iter((*args, *kwargs.values()))))

    def after(path: str) -> Callable[..., None]:
        return lambda _, args, output: keep(path, "output", output)

    handles: list[RemovableHandle] = []
    try:
        for path, module in tower.source.named_modules():
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(after(path)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _own_values(tower: TracedTower, x: Tensor, right: Tensor, bar: float) -> dict[str, float]:
    """How far the embedding moves when sites get copies of their own values.

    All sites are patched at once and, if the embedding moves too far, one by one.
    """

    def error(sites: Sequence[str]) -> float:
        hooks = [(site, lambda tensor, hook: tensor.clone()) for site in sites]
        return relative_error(tower.run_with_hooks(x, fwd_hooks=hooks), right)

    together = error(tower.sites)
    return {site: together if together <= bar else error([site]) for site in tower.sites}


def _moved(
    tower: TracedTower, x: Tensor, patches: int, same: Mapping[str, float], seed: int
) -> dict[str, tuple[float, float, int, str]]:
    """For each site: 0 if the embedding moves, else 1; the bar; the numbers compared; and how."""
    steep = _steep(tower, x)
    step = max(1, -(-len(tower.sites) // max(1, patches)))
    chosen = [
        site for number, site in enumerate(tower.sites) if number % step == 0 or site not in steep
    ]
    by_gradient = {site: (0.0, 0.0, size, "gradient") for site, size in steep.items()}
    with torch.no_grad():
        return by_gradient | _patched(tower, x, chosen, same, seed)


def _steep(tower: TracedTower, x: Tensor) -> dict[str, int]:
    """The sites at which a projection of the embedding has a gradient other than zero, by size."""
    kept: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: HookPoint) -> None:
        if tensor.requires_grad:
            kept[str(hook.name)] = tensor

    with torch.enable_grad():
        start = x.detach().requires_grad_(x.is_floating_point())
        embedding = tower.run_with_hooks(start, fwd_hooks=[("*", keep)])
        weights = rng("certificate gradient", 0).standard_normal(tuple(embedding.shape))
        loss = (embedding * torch.tensor(weights).to(embedding)).sum()
        slopes = torch.autograd.grad(loss, list(kept.values()), allow_unused=True)
    return {
        site: slope.numel()
        for site, slope in zip(kept, slopes, strict=True)
        if slope is not None and slope.isfinite().all() and slope.any()
    }


def _patched(
    tower: TracedTower, x: Tensor, sites: Sequence[str], same: Mapping[str, float], seed: int
) -> dict[str, tuple[float, float, int, str]]:
    """Patch sites with noise, several in a forward where each can have an example of its own."""
    generator = torch.Generator().manual_seed(int(rng("certificate patch", seed).integers(2**62)))
    alone = [site for site in sites if tower.axes(site)[:1] != ("batch",)]
    rest = [site for site in sites if site not in set(alone)]
    groups = [[site] for site in alone]
    groups += [rest[start : start + TOGETHER] for start in range(0, len(rest), TOGETHER)]
    outcomes: dict[str, tuple[float, float, int, str]] = {}
    for group in groups:
        rows = x[:1].repeat(len(group), *[1] * (x.ndim - 1))
        changed: set[str] = set()
        hooks = [
            (
                site,
                _noise(slice(row, row + 1) if len(group) > 1 else slice(None), generator, changed),
            )
            for row, site in enumerate(group)
        ]
        before, after = tower(rows), tower.run_with_hooks(rows, fwd_hooks=hooks)
        for row, site in enumerate(group):
            if site in changed:
                # a patch, like its own value, may send the run through another kernel
                stays = relative_error(after[row], before[row]) <= same[site]
                outcomes[site] = (float(stays), 0.0, before[row].numel(), "patch")
    return outcomes


def _noise(rows: slice, dice: torch.Generator, changed: set[str]) -> Callable[..., Tensor]:
    """A hook that changes some rows of an activation and records in `changed` whether it did.

    Floating-point numbers get noise of their own size; integers and Booleans are rolled or negated.
    """

    def change(tensor: Tensor, hook: HookPoint) -> Tensor:
        new, old = tensor.clone(), tensor[rows]
        if tensor.is_floating_point():
            size = old.abs().max().clamp(1e-3, 1e3)  # a mask has infinities in it
            new[rows] = old + size * torch.randn(old.shape, generator=dice).to(old)
        else:
            new[rows] = old.logical_not() if old.dtype == torch.bool else old.roll(1, dims=-1)
        if not torch.equal(new, tensor):
            changed.add(str(hook.name))
        return new

    return change

"""What a tower makes of an activation from a site on, when the way to the site is run only once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from interp.core.errors import NumericsError, SiteError, out_of_memory
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import ON_DEMAND
from interp.core.tower import Finishing, Tower

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Held:
    """What is kept of some runs: the stream to go on from, and the activation at a site.

    They are one tensor where the site is what its block hands on.
    """

    stream: Tensor
    activation: Tensor

    def __len__(self) -> int:
        return len(self.activation)


@dataclass(frozen=True, eq=False)
class Onward:
    """The part of a tower from a site on; it starts at the stream that enters block `start`.

    `start` is None where the whole tower has to be run. `handed_on` says that the site is all that
    its block hands on, so that the block itself need not be run again.
    """

    tower: Tower
    site: str
    start: int | None
    handed_on: bool

    @classmethod
    def from_site(cls, tower: Tower, site: str, x: Tensor) -> "Onward":
        """Find out on two inputs where a run that is patched at the site may begin.

        Texts are run from the tokens on, since a text tower reads them again at its end.
        """
        layer = tower.layer(site)
        if not x.is_floating_point():
            return cls(tower, site, None, False)
        start = layer if layer >= 0 else None
        if layer + 1 > tower.n_layers or not _hands_on(tower, site, x[:2]):
            return cls(tower, site, start, False)
        return cls(tower, site, layer + 1, True)

    @torch.no_grad()
    def hold(self, x: Tensor, *, rows: int) -> Held:
        """Run inputs as far as the site, `rows` at a time, and keep what going on takes.

        Raises `NumericsError` for NaN or infinity at the site.
        """
        parts = in_parts(len(x), rows, lambda window: self._hold(x[window]))
        activation = torch.cat([part.activation for part in parts])
        if not bool(torch.isfinite(activation).all()):
            raise NumericsError(
                f"interchange activations at {self.site}",
                "NaN or infinity in them",
                "finite numbers",
                "check the pictures and the tower's weights",
            )
        if self.handed_on:
            return Held(activation, activation)
        return Held(torch.cat([part.stream for part in parts]), activation)

    def _hold(self, x: Tensor) -> Held:
        # a block that works in place would change what was handed to it
        before = x if self.start is None else self.tower(x, stop_at_layer=self.start).clone()
        if self.handed_on:
            return Held(before, before)
        words: dict[str, Any] = {"start_at_layer": self.start}
        layer = self.tower.layer(self.site)
        if self.start is not None and layer < self.tower.n_layers:
            words["stop_at_layer"] = layer + 1
        _, cache = self.tower.run_with_cache(before.clone(), names_filter=[self.site], **words)
        return Held(before, cache[self.site].clone())

    def outputs(self, stream: Tensor, activation: Tensor) -> Tensor:
        """The tower's outputs when the site has this activation, with gradients if it has them."""
        if self.handed_on:
            return self._go_on(activation)
        fired = False

        def replace(_: Tensor, hook: object) -> Tensor:
            nonlocal fired
            fired = True
            return activation

        with self.tower.hooks(fwd_hooks=[(self.site, replace)]):
            out = self._go_on(stream.clone())
        if not fired:
            raise SiteError(
                f"interchange activations at {self.site}",
                f"a run from layer {self.start} that never came there",
                "a site that the run computes",
                "check the tower's layer() of this site",
            )
        return out

    def _go_on(self, stream: Tensor) -> Tensor:
        if self.start is None:
            return self.tower(stream)
        if isinstance(self.tower, Finishing):
            return self.tower.finish(stream, start_at_layer=self.start)
        return self.tower(stream, start_at_layer=self.start)

    def bytes_with_gradients(self, x: Tensor) -> int:
        """What one example keeps in memory from the site on when gradients will be asked for."""
        layer = self.tower.layer(self.site)
        names = [
            name
            for name in self.tower.sites
            if self.tower.layer(name) >= layer and not name.endswith(ON_DEMAND)
        ]
        with torch.no_grad():
            _, cache = self.tower.run_with_cache(x[:1], names_filter=names)
        return 2 * sum(value.nbytes for value in cache.values())


@torch.no_grad()
def _hands_on(tower: Tower, site: str, x: Tensor) -> bool:
    """Whether a block hands on exactly what stands at the site: its last, and tried with noise.

    To compare values would not do: a block whose last part adds zero here may add more to others.
    """
    layer = tower.layer(site)
    if site != [name for name in tower.sites if tower.layer(name) == layer][-1]:
        return False
    start = layer if layer >= 0 else None
    before = x if start is None else tower(x, stop_at_layer=start)
    noise: Mapping[str, Tensor] = {}

    def replace(activation: Tensor, hook: object) -> Tensor:
        nonlocal noise
        drawn = rng("noise at a site").normal(size=tuple(activation.shape))
        noise = {site: torch.as_tensor(drawn).to(activation)}
        return noise[site].clone()

    with tower.hooks(fwd_hooks=[(site, replace)]):
        out = tower(before.clone(), start_at_layer=start, stop_at_layer=layer + 1)
    return site in noise and out.shape == noise[site].shape and torch.equal(out, noise[site])


def in_parts(n: int, rows: int, of: Callable[[slice], Found]) -> list[Found]:
    """What `of` gives for `n` examples, `rows` at a time; half as many when memory runs out.

    >>> in_parts(5, 2, lambda window: window.stop)
    [2, 4, 5]
    """
    found, start = [], 0
    while start < n:
        window = slice(start, min(start + rows, n))
        try:
            found.append(of(window))
        except (MemoryError, RuntimeError) as error:
            if rows == 1 or not out_of_memory(error):
                raise
            rows = max(1, (window.stop - start) // 2)
            say(f"out of memory: going on with {rows} examples per forward")
            continue
        start = window.stop
    return found

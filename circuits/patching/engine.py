"""Patched runs: hold what comes before a patch, patch a site, and go on from there.

A tower is a chain, so a patch in block l leaves the stream that enters block l as it was. Every
patched run here starts from a stream that is held, and is exact: it gives what a whole run would.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from interp.circuits.tasks.metrics import check_finite
from interp.core.errors import SiteError
from interp.core.parallel import Batching
from interp.core.seeds import rng
from interp.core.tower import Enterable, Finishing, Hook, Tower, check_evaluation, resumption

Activations = Mapping[str, Tensor]

Change = Callable[[Tensor], Tensor | None]
"""From an activation to the one that takes its place; None leaves it."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Runs that have come as far as the stream that enters block `at`; at -1 it is their inputs.

    `words` are the keywords that a resumed run takes beside the stream (`resumption`).
    """

    tower: Tower
    stream: Tensor
    at: int = -1
    words: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tower: Tower, x: Tensor) -> "Prefix":
        """Runs of the inputs `x` that have not begun."""
        return cls(tower, x, words=resumption(tower, x))

    def times(self, copies: int) -> "Prefix":
        """So many copies of the runs, one after the other."""
        if copies == 1:
            return self
        words = {name: _repeat(tokens, copies) for name, tokens in self.words.items()}
        return replace(self, stream=_repeat(self.stream, copies), words=words)

    def _span(self, stop: int | None = None) -> dict[str, Any]:
        start = {} if self.at < 0 else {"start_at_layer": self.at, **self.words}
        return start if stop is None else {**start, "stop_at_layer": stop}

    def run(self, stop: int | None = None) -> Tensor:
        """The stream that enters block `stop`, or by default the output."""
        # a tower may work in place, and the stream that is kept must stay what it is
        return self.tower(self.stream.clone(), **self._span(stop))

    def finish(self) -> Tensor:
        """The output, by the tower's cheapest way: equal to `run` up to the order of sums."""
        if self.at < 0 or not isinstance(self.tower, Finishing):
            return self.run()
        return self.tower.finish(self.stream.clone(), **self._span())

    def forward_to(self, layer: int) -> "Prefix":
        """The runs as they enter block `layer`."""
        return self if layer <= self.at else replace(self, stream=self.run(layer), at=layer)

    def read(self, sites: Sequence[str]) -> tuple[Activations, "Prefix"]:
        """The activations of some sites of the next block, and the runs as they come out of it."""
        stop = behind(self.tower, self.at)
        out, cache = self.tower.run_with_cache(
            self.stream.clone(), names_filter=list(sites), **self._span(stop)
        )
        for site in sites:
            if site not in cache:
                raise never_came(site, f"a run of block {self.at}")
        return cache, self if stop is None else replace(self, stream=out, at=stop)

    def changed(
        self, changes: Mapping[str, Change], run: Callable[["Prefix"], Tensor] = finish
    ) -> Tensor:
        """What `run` gives (the output) while sites have other activations.

        Raises `SiteError` for a site that the run does not come to.
        """
        fired: set[str] = set()

        def hook_of(site: str, change: Change) -> tuple[str, Hook]:
            def hook(activation: Tensor, hook: object) -> Tensor | None:
                fired.add(site)
                return change(activation)

            return site, hook

        with self.tower.hooks(fwd_hooks=[hook_of(*each) for each in changes.items()]):
            out = run(self)
        for site in changes:
            if site not in fired:
                raise never_came(site, f"a run from layer {self.at}")
        return out


def _repeat(x: Tensor, copies: int) -> Tensor:
    return x.repeat(copies, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Entry:
    """Runs held in the middle of a block: at a site, with the stream that it is added to."""

    site: str
    activation: Tensor
    stream: Prefix

    def changed(self, change: Callable[[Tensor], Tensor], copies: int = 1) -> Tensor:
        """The output of so many copies of the runs with another activation at the site."""
        runs: Any = self.stream.times(copies)
        activation = change(_repeat(self.activation, copies))
        return runs.tower.enter(self.site, activation, runs.stream, **runs.words)


def entries(runs: Prefix, sites: Sequence[str]) -> tuple[dict[str, Entry], Prefix]:
    """The runs held at those sites of their next block where it can be entered, and as they go on.

    Runs that can be entered nowhere stay where they are.
    """
    tower = runs.tower
    streams = {
        site: stream
        for site in sites
        if isinstance(tower, Enterable) and (stream := tower.added_to(site)) is not None
    }
    if not streams:
        return {}, runs
    cache, after = runs.read(list(dict.fromkeys([*streams, *streams.values()])))
    return {
        site: Entry(site, cache[site], replace(runs, stream=cache[stream]))
        for site, stream in streams.items()
    }, after


def behind(tower: Tower, layer: int) -> int | None:
    """Where to stop so that block `layer` is the last that runs; None runs to the output."""
    return layer + 1 if layer < tower.n_layers else None


def never_came(site: str, run: str) -> SiteError:
    """The error for a run that does not compute a site where it should."""
    return SiteError(
        f"patch {site}",
        f"{run} that never came there",
        "a site that the run computes",
        "check the tower's layer() of this site",
    )


@dataclass(frozen=True, eq=False)
class Held:
    """Runs held at a site: its activation there, and where they start when it is another.

    They start before the site's block, or behind it where the site is all that the block hands on
    (`latest`): then the stream is the activation.
    """

    site: str
    activation: Tensor
    start: Prefix

    def __len__(self) -> int:
        return len(self.activation)

    def __getitem__(self, rows: slice | Tensor) -> "Held":
        words = {name: tokens[rows] for name, tokens in self.start.words.items()}
        start = replace(self.start, stream=self.start.stream[rows], words=words)
        return replace(self, activation=self.activation[rows], start=start)

    @property
    def handed_on(self) -> bool:
        """Whether the runs start behind the site's block."""
        return self.start.at > self.start.tower.layer(self.site)

    def latest(self) -> "Held":
        """The same runs, started behind the site's block where nothing else comes out of it."""
        if self.handed_on or not _hands_on(self):
            return self
        behind_block = replace(self.start, stream=self.activation, at=self.start.at + 1)
        return replace(self, start=behind_block)

    def go_on(self, activation: Tensor, until: str | None = None) -> Tensor:
        """What the runs make of another activation: the output, or the activation at `until`.

        `activation` is `[copies * batch ...]`. Differentiable in every mode; no block before the
        start runs, and none behind `until`.
        """
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor) -> None:
            kept[""] = value.clone()  # in-place code behind the site would overwrite it

        start, changes = self._with(activation)
        if until is None:
            return start.changed(changes, Prefix.run)
        stop = behind(start.tower, start.tower.layer(until))
        start.changed({**changes, until: keep}, lambda runs: runs.run(stop))
        return kept[""]

    def finish(self, activation: Tensor) -> Tensor:
        """The output that `go_on` gives, by the tower's cheapest way."""
        start, changes = self._with(activation)
        return start.changed(changes)

    def _with(self, activation: Tensor) -> tuple[Prefix, dict[str, Change]]:
        start = self.start.times(len(activation) // len(self))
        if self.handed_on:
            return replace(start, stream=activation), {}
        return start, {self.site: lambda _: activation.clone()}  # a tower may work in place


@torch.no_grad()
def _hands_on(held: Held) -> bool:
    """Whether a block hands on exactly what stands at the site: its last, and tried with noise.

    To compare values would not do: a block whose last part adds zero here may add more to others.
    """
    one, tower = held[:1], held.start.tower
    layer, stop = one.start.at, behind(tower, one.start.at)
    if (
        stop is None
        or held.site != [name for name in tower.sites if tower.layer(name) == layer][-1]
    ):
        return False
    drawn = rng("noise at a site").normal(size=tuple(one.activation.shape))
    noise = torch.as_tensor(drawn).to(one.activation)
    out = one.start.changed({held.site: lambda _: noise.clone()}, lambda runs: runs.run(stop))
    return torch.equal(out, noise)


def walk(tower: Tower, x: Tensor, sites: Sequence[str]) -> Iterator[Held]:
    """Run `x` through the tower once, without gradients, held at each of the sites in order."""
    runs = Prefix.of(tower, x)
    for layer, names in groupby(sorted(sites, key=tower.layer), key=tower.layer):
        here = list(names)
        with torch.no_grad():
            start = runs.forward_to(layer)
            cache, runs = start.read(here)
        for site in here:
            yield Held(site, cache[site], start)


def hold(tower: Tower, site: str, x: Tensor, *, rows: int) -> Held:
    """Run inputs as far as the site, `rows` at a time, and keep what going on takes.

    Raises `NumericsError` for NaN or infinity at the site.
    """
    check_evaluation(tower, f"hold runs at {site}")
    parts = Batching(rows).each(len(x), lambda window: next(walk(tower, x[window], [site])))
    activation = torch.cat([part.activation for part in parts])
    check_finite(f"hold runs at {site}", {"its activations": activation})
    stream = torch.cat([part.start.stream for part in parts])
    start = replace(parts[0].start, stream=stream, words=resumption(tower, x))
    return Held(site, activation, start).latest()

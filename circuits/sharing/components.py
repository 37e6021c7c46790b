"""How a tower falls into parts that a circuit may keep: its edges, or units at some sites.

A cut says how much each part matters to a pair of pictures, and runs the tower with some of its
parts alone. Whoever compares circuits needs to know no more of a tower than that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.criteria import measure_masks
from interp.circuits.edges.attribution import attribute
from interp.circuits.edges.wiring import Wiring, wire
from interp.circuits.tasks.pairs import Read
from interp.circuits.units.integrated_gradients import channel_scores, unit_axis
from interp.circuits.units.masked_units import measure_units
from interp.core.arguments import MEMORY
from interp.core.sites import find_sites
from interp.core.tower import Tower


@runtime_checkable
class Cut(Protocol):
    """Parts of a tower, `level` in words, ranked apart by `groups` `[part]`."""

    @property
    def tower(self) -> Tower:
        """What is cut."""
        ...

    @property
    def level(self) -> str:
        """What the parts are: "edge", or the axis of the units."""
        ...

    @property
    def groups(self) -> np.ndarray:
        """Which parts are ranked together, `[part]`."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A name for each part."""
        ...

    def score(self, read: Read) -> np.ndarray:
        """How much each part matters to each pair, `[example part]`, in the metric's unit."""
        ...

    def run(self, read: Read, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric with only some parts, and on the clean and the corrupt run.

        `kept` are Booleans `[circuit example part]`; gives `[circuit example]` and `[2 example]`.
        """
        ...


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of a tower whose stream is a sum of parts; groups are pairs of blocks.

    Scores are those of `attribute`, runs those of `faithfulness`.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> Edges(Chain([torch.nn.Identity()])).names
    ('input->m0', 'input->logits', 'm0->logits')
    """

    tower: Tower
    method: str = "EAP-IG-inputs"
    steps: int = 5
    batch_size: int = 32
    memory: int = MEMORY
    level: str = "edge"

    @cached_property
    def wiring(self) -> Wiring:
        """Which edges there are."""
        return wire(self.tower)

    @property
    def groups(self) -> np.ndarray:
        """A number for each pair of blocks that an edge runs between, `[edge]`."""
        return edge_groups(self.wiring)

    @property
    def names(self) -> Sequence[str]:
        """Every edge as `writer->reader`."""
        return self.wiring.names

    def score(self, read: Read) -> np.ndarray:
        """`attribute`'s values, `[example edge]`."""
        return attribute(
            self.tower,
            method=self.method,
            steps=self.steps,
            **read.words,
            batch_size=self.batch_size,
            memory=self.memory,
        ).values

    def run(self, read: Read, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric when only the edges of a circuit carry what the run computes."""
        return measure_masks(
            self.tower,
            self.wiring,
            kept,
            **read.words,
            batch_size=self.batch_size,
            memory=self.memory,
            what="circuits of edges",
        )


@dataclass(frozen=True, eq=False)
class Units:
    """The units along one axis at some sites, such as a ResNet's channels or a ViT's neurons.

    `widths` says how many units each site has; `Units.of` finds out. Scores are those of
    `channel_scores` with the corrupt run as baseline, runs those of `unit_faithfulness`; each site
    is a group.
    """

    tower: Tower
    widths: Mapping[str, int]
    level: str = "channel"
    steps: int = 5
    batch_size: int = 32

    @classmethod
    def of(
        cls,
        tower: Tower,
        sites: str | Sequence[str],
        x: Tensor,
        *,
        axis: str = "channel",
        steps: int = 5,
        batch_size: int = 32,
    ) -> "Units":
        """The units at sites (names or patterns); `x` is an input, of which one example is run.

        Raises `SiteError` for unknown sites, or one without the axis.

        >>> import torch
        >>> from interp.circuits import Chain
        >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"))
        >>> Units.of(tower, "hook_embed", torch.ones(1, 2, 1, 1)).names
        ('hook_embed.0', 'hook_embed.1')
        """
        names = find_sites(sites, tower.sites)
        with torch.no_grad():
            _, cache = tower.run_with_cache(x[:1], names_filter=names)
        widths = {site: cache[site].shape[unit_axis(tower, site, axis)] for site in names}
        return cls(tower, widths, axis, steps, batch_size)

    @property
    def groups(self) -> np.ndarray:
        """The place of its site, for each unit."""
        return np.repeat(np.arange(len(self.widths)), list(self.widths.values()))

    @property
    def names(self) -> Sequence[str]:
        """Every unit as `site.number`."""
        return tuple(f"{site}.{unit}" for site, n in self.widths.items() for unit in range(n))

    def score(self, read: Read) -> np.ndarray:
        """`channel_scores` of all sites side by side, `[example unit]`."""
        scores = channel_scores(
            self.tower,
            read.clean,
            metric=read.metric,
            sites=list(self.widths),
            baseline=read.corrupt,
            axis=self.level,
            steps=self.steps,
            batch_size=self.batch_size,
        )
        return torch.cat([scores[site] for site in self.widths]).T.double().cpu().numpy()

    def run(self, read: Read, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric when only the units of a circuit are this run's, at every site."""
        ends = np.cumsum(list(self.widths.values()))[:-1]
        masks = dict(zip(self.widths, np.split(kept, ends, axis=-1), strict=True))
        return measure_units(
            self.tower,
            masks,
            clean=read.clean,
            corrupt=read.corrupt,
            metric=read.metric,
            axis=self.level,
            batch_size=self.batch_size,
        )


def edge_groups(wiring: Wiring) -> np.ndarray:
    """For each edge a number that it shares with all edges between the same two blocks."""
    senders, readers = wiring.edges.T
    return wiring.layers[senders] * 1000 + wiring.layers[wiring.owners[readers]]

"""Cuts: a tower taken apart into parts that a circuit may keep, its edges or units at some sites.

A cut says how much each part matters to a pair of pictures, and runs the tower with some of its
parts alone. Code that compares circuits needs to know no more of a tower than that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from interp.circuits.discovery.faithfulness import MaskedWindow, measure_masks, runs_of_masks
from interp.circuits.edges.attribute import METHODS, attribute
from interp.circuits.edges.wire import Wiring, wire
from interp.circuits.tasks.pairs import ComparedRuns
from interp.circuits.units.channel_scores import unit_axis
from interp.circuits.units.unit_faithfulness import measure_units, runs_of_units
from interp.circuits.units.unit_methods import UNIT_METHODS, UnitTask
from interp.core.arguments import MEMORY, Room
from interp.core.errors import SpecificationError, check_known
from interp.core.sites import find_sites
from interp.core.tower import Tower


@runtime_checkable
class Cut(Protocol):
    """A tower taken apart into parts, which can be scored and of which some can be run alone.

    Notes:
        `Edges` and `Units` are cuts. Anything else with these members is one too.

    >>> import torch
    >>> from interp.circuits import Chain, Edges
    >>> cut = Edges(Chain([torch.nn.Identity()]))
    >>> isinstance(cut, Cut), cut.level, len(cut.groups)
    (True, 'edge', 3)
    """

    @property
    def tower(self) -> Tower:
        """The tower that is taken apart."""
        ...

    @property
    def level(self) -> str:
        """What the parts are: "edge", or the axis of the units."""
        ...

    @property
    def groups(self) -> np.ndarray:
        """A number for each part, `part`; parts of one number are ranked together."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A name for each part."""
        ...

    def score(self, read: ComparedRuns) -> np.ndarray:
        """How much each part matters to each pair.

        Args:
            read: The pairs and their metric.

        Returns:
            Scores, `example part`, in the metric's unit.
        """
        ...

    def run(self, read: ComparedRuns, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Measure runs in which only some parts are kept.

        Args:
            read: The pairs and their metric.
            kept: Whether each part is kept, `circuit example part`, Booleans.

        Returns:
            The metric of each circuit, `circuit example`, and of the clean and the corrupt run, `2
            example`.
        """
        ...

    def embed(self, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Tensor:
        """The outputs of runs in which only some parts are kept.

        Args:
            clean: Inputs of the tower.
            corrupt: Their partners, in the same order.
            kept: Whether each part is kept, `circuit part`, Booleans.

        Returns:
            Outputs, `circuit example d_embed`.
        """
        ...


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of a tower whose stream is a sum of parts, as a cut.

    Args:
        tower: A tower that `wire` takes.
        method: A name in `METHODS`, how `attribute` scores the edges.
        steps: Its steps of integration.
        batch_size: Examples in a forward.
        memory: Bytes that may be held beside the scores.
        level: The word for the parts in tables.

    Notes:
        Scores are those of `attribute`, runs those of `faithfulness`. Edges between the same two
        blocks form a group.

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

    def __post_init__(self) -> None:
        check_known("take edges", "method", [self.method], METHODS, SpecificationError)

    @cached_property
    def wiring(self) -> Wiring:
        """Which edges there are."""
        return wire(self.tower)

    @property
    def groups(self) -> np.ndarray:
        """A number for each pair of blocks that an edge runs between, `[edge]`."""
        return self.wiring.groups

    @property
    def names(self) -> Sequence[str]:
        """Every edge as `writer->reader`."""
        return self.wiring.names

    def score(self, read: ComparedRuns) -> np.ndarray:
        """`attribute`'s values, `[example edge]`."""
        return attribute(
            self.tower,
            method=self.method,
            steps=self.steps,
            **read.words,
            batch_size=self.batch_size,
            memory=self.memory,
        ).values

    def run(self, read: ComparedRuns, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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

    def embed(self, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Tensor:
        """The outputs when only the edges of a circuit carry what the run computes."""
        room = Room(batch_size=self.batch_size, memory=self.memory)
        windows = runs_of_masks(
            self.tower,
            self.wiring,
            kept,
            clean=clean,
            corrupt=corrupt,
            room=room,
            what="circuits of edges",
        )
        return _gathered(windows, len(kept))


@dataclass(frozen=True, eq=False)
class Units:
    """The units along one axis at some sites, as a cut: a ResNet's channels, a ViT's neurons.

    Args:
        tower: The tower.
        widths: How many units each site has; `Units.of` finds out.
        level: The axis of the units: `channel`, `d_mlp`, `head`, ...
        steps: Steps of integration of `channel_scores`.
        batch_size: Examples in a forward.
        method: A name in `UNIT_METHODS`, how units are scored.

    Notes:
        Runs are those of `unit_faithfulness`. Each site is a group.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"))
    >>> Units(tower, {"hook_embed": 2}).names
    ('hook_embed.0', 'hook_embed.1')
    """

    tower: Tower
    widths: Mapping[str, int]
    level: str = "channel"
    steps: int = 5
    batch_size: int = 32
    method: str = "integrated gradients"

    def __post_init__(self) -> None:
        check_known("take units", "method", [self.method], UNIT_METHODS, SpecificationError)

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
        method: str = "integrated gradients",
    ) -> "Units":
        """The units at some sites, counted in a run of one example.

        Args:
            tower: The tower.
            sites: Names or patterns of sites.
            x: Inputs, of which the first is run.
            axis: The axis of the units.
            steps: Steps of integration of `channel_scores`.
            batch_size: Examples in a forward.
            method: A name in `UNIT_METHODS`, how units are scored.

        Returns:
            The cut.

        Raises:
            SiteError: For unknown sites, or one without the axis.
            SpecificationError: For an unknown method.

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
        return cls(tower, widths, axis, steps, batch_size, method)

    @property
    def groups(self) -> np.ndarray:
        """The place of its site, for each unit."""
        return np.repeat(np.arange(len(self.widths)), list(self.widths.values()))

    @property
    def names(self) -> Sequence[str]:
        """Every unit as `site.number`."""
        return tuple(f"{site}.{unit}" for site, n in self.widths.items() for unit in range(n))

    def score(self, read: ComparedRuns) -> np.ndarray:
        """The scores of the method, all sites side by side, `[example unit]`."""
        task = UnitTask(
            self.tower, list(self.widths), self.level, read, self.steps, self.batch_size
        )
        scores = UNIT_METHODS[self.method](task)
        return torch.cat([scores[site] for site in self.widths]).T.double().cpu().numpy()

    def run(self, read: ComparedRuns, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric when only the units of a circuit are this run's, at every site."""
        return measure_units(
            self.tower,
            self._by_site(kept),
            clean=read.clean,
            corrupt=read.corrupt,
            metric=read.metric,
            axis=self.level,
            batch_size=self.batch_size,
        )

    def embed(self, clean: Tensor, corrupt: Tensor, kept: np.ndarray) -> Tensor:
        """The outputs when only the units of a circuit are this run's, at every site."""
        windows = runs_of_units(
            self.tower,
            self._by_site(kept),
            clean=clean,
            corrupt=corrupt,
            axis=self.level,
            batch_size=self.batch_size,
        )
        return _gathered(windows, len(kept))

    def _by_site(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.widths.values()))[:-1]
        return dict(zip(self.widths, np.split(kept, ends, axis=-1), strict=True))


def _gathered(windows: Iterable[MaskedWindow], n: int) -> Tensor:
    """Outputs of all masks and examples, `[mask example d_embed]`."""
    parts = []
    for _, (clean, _), found in windows:
        part = clean.new_empty(n, *clean.shape)
        for some, outputs in found:
            part[torch.as_tensor(some, device=part.device)] = outputs
        parts.append(part)
    return torch.cat(parts, dim=1)

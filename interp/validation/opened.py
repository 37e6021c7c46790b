"""Planted models of any kind, made, disguised and opened when they are first asked for."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from interp.circuits.planted.disguises import disguise
from interp.circuits.planted.model import PlantedBlueprint, PlantedModel
from interp.core.tower import Tower
from interp.models.towers.open_tower import VISUAL


def open_planted(source: Any) -> Tower:
    """Open the image tower of a planted model for hooks."""
    return VISUAL[type(source)](source)


@lru_cache(maxsize=1)
def _made(blueprint: PlantedBlueprint) -> PlantedModel[Any]:
    """The model, disguised; the last one is kept, for the next who asks for it."""
    return disguise(blueprint.make(open_planted), seed=blueprint.seed)


@dataclass(frozen=True, eq=False)
class Opened:
    """A planted model, disguised and opened, once it is asked for."""

    blueprint: PlantedBlueprint

    @property
    def planted(self) -> PlantedModel[Any]:
        """The model with its truth."""
        return _made(self.blueprint)

    @cached_property
    def tower(self) -> Tower:
        """The model with its activations named."""
        return open_planted(self.planted.source)

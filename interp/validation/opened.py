"""How planted models of each kind are made and opened, and where in them measures look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

from interp.circuits.planted.disguises import disguise, disguise_resnet
from interp.circuits.planted.expectations import STAGES, STREAMS, AnyBlueprint
from interp.circuits.planted.resnet import PlantedResNet, ResNetBlueprint, plant_resnet
from interp.circuits.planted.trained import plant_trained
from interp.circuits.planted.vit import Blueprint, Planted, TrainedBlueprint, plant
from interp.core.tower import Tower
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.vit import HookedViT


@dataclass(frozen=True)
class Kind:
    """A kind of planted model, and the sites, places and units in it that measures compare."""

    plant: Callable[[Any], Any]
    disguise: Callable[..., Any]
    tower: Callable[[Any], Tower]
    streams: tuple[str, ...]
    place: Mapping[str, int]
    pool: str
    neurons: str
    axis: str


_VIT = Kind(
    plant, disguise, HookedViT, STREAMS, {"pos": 0}, "class", "blocks.*.mlp.hook_post", "d_mlp"
)

KINDS: Mapping[type, Kind] = {
    Blueprint: _VIT,
    TrainedBlueprint: replace(_VIT, plant=partial(plant_trained, open_tower=HookedViT)),
    ResNetBlueprint: Kind(
        plant_resnet, disguise_resnet, HookedResNet, STAGES, {}, "mean",
        "layer*.*.hook_resid_post", "channel",
    ),
}  # fmt: skip
"""The kinds by their blueprints."""


@lru_cache(maxsize=1)
def _made(blueprint: AnyBlueprint) -> Planted | PlantedResNet:
    """The model, disguised; the last one is kept, for the next who asks for it."""
    kind = KINDS[type(blueprint)]
    return kind.disguise(kind.plant(blueprint), seed=blueprint.seed)


@dataclass(frozen=True, eq=False)
class Opened:
    """A planted model, disguised and opened, once it is asked for."""

    blueprint: AnyBlueprint

    @property
    def kind(self) -> Kind:
        """How it is made, and where measures look."""
        return KINDS[type(self.blueprint)]

    @property
    def planted(self) -> Planted | PlantedResNet:
        """The model with its truth."""
        return _made(self.blueprint)

    @cached_property
    def tower(self) -> Tower:
        """The model with its activations named."""
        return self.kind.tower(self.planted.source)

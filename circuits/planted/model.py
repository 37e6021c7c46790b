"""What every planted model is: made by a blueprint, disguised, certified, asked for its truth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self

from jaxtyping import Float
from torch import Tensor

from interp.circuits.planted.truths import SomeTruth, union
from interp.circuits.planted.world import CLASSES, World
from interp.circuits.tasks.metrics import Classifier
from interp.core.errors import SpecificationError, check_known
from interp.core.tables import Table
from interp.core.tower import Tower

TowerOpener = Callable[[Any], Tower]
"""Opens an open_clip image tower for hooks, such as `HookedViT`."""


@dataclass(frozen=True)
class Outlook:
    """Where measures look in a kind of planted model.

    `streams` are the sites where codes are compared, `added` those that are transplanted, at the
    `place`, or pooled by `pool`. `neurons` are the sites whose units, along `axis`, make a circuit.
    """

    streams: tuple[str, ...]
    added: tuple[str, ...]
    place: Mapping[str, int]
    pool: str
    neurons: str
    axis: str


@dataclass(frozen=True)
class PlantedBlueprint(ABC):
    """What to plant: a condition, which says what the domains share, and a seed.

    The seed is that of glyphs, directions, decoys and training. `dose` is the share of classes in
    common, in the condition `dose`, and `tier` says how hard the model is to read, or its kind.
    """

    condition: str
    seed: int = 0
    dose: float | None = None
    tier: str = "easy"
    outlook: ClassVar[Outlook]
    conditions: ClassVar[Collection[str]]

    def __post_init__(self) -> None:
        asked, given = "plant a model", [self.condition]
        check_known(asked, "condition", given, self.conditions, SpecificationError)

    @property
    def world(self) -> World:
        """Where the pictures come from."""
        return World(self.seed)

    @abstractmethod
    def make(self, open_tower: TowerOpener) -> "PlantedModel[Any]":
        """The model, undisguised; `open_tower` is for those that are trained with exchanges."""


@dataclass(frozen=True, eq=False)
class PlantedModel(ABC, Generic[SomeTruth]):
    """An image tower with its world, its classes' directions and its true circuits.

    `source` is open_clip's, in float64 and in eval mode, `classes` are `[class d_embed]`, and
    `by_class` has for each domain the circuit of every class.
    """

    blueprint: PlantedBlueprint
    source: Any
    classes: Float[Tensor, "class d_embed"]
    by_class: dict[str, tuple[SomeTruth, ...]]

    @property
    def world(self) -> World:
        """Where the pictures come from that the model was made for."""
        return self.blueprint.world

    @property
    def classifier(self) -> Classifier:
        """The classes as a zero-shot head: plain cosines."""
        return Classifier(self.classes, CLASSES)

    @property
    def truths(self) -> dict[str, SomeTruth]:
        """For each domain the circuit that tells its classes."""
        return {domain: union(truths) for domain, truths in self.by_class.items()}

    def truth(self, domain: str, label: str | None = None) -> SomeTruth:
        """The circuit that tells the classes in a domain, or the one that tells a class.

        Raises `DataError` for an unknown domain or class.
        """
        check_known("say the truth", "domain", [domain], self.by_class)
        if label is None:
            return union(self.by_class[domain])
        check_known("say the truth", "class", [label], CLASSES)
        return self.by_class[domain][CLASSES.index(label)]

    def ways(self, domain: str) -> list[tuple[list[int], SomeTruth]]:
        """The classes that go the same way in a domain, by their places, and their circuit."""
        groups: dict[frozenset[Any], list[int]] = {}
        for number, truth in enumerate(self.by_class[domain]):
            groups.setdefault(frozenset(truth.units.items()), []).append(number)
        own = self.by_class[domain]
        return [(numbers, union([own[i] for i in numbers])) for numbers in groups.values()]

    def moved(self, source: Any, rename: Callable[[SomeTruth], SomeTruth]) -> Self:
        """The same function in another tower, where the parts of circuits have other names."""
        by_class = {domain: tuple(map(rename, truths)) for domain, truths in self.by_class.items()}
        return replace(self, source=source, by_class=by_class)

    @abstractmethod
    def disguised(self, seed: int) -> Self:
        """The same function with other weights; see `interp.circuits.planted.disguises`."""

    @abstractmethod
    def certify(self, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
        """Hold every part against exact interchange; `tower` is `source`, opened for hooks."""


def check_some_steps(asked: str, steps: int, default: int) -> None:
    """Refuse to train for less than one step: `SpecificationError`."""
    if steps < 1:
        raise SpecificationError(asked, f"{steps} steps", "1 or more", f"take {default}")

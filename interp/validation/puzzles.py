"""Puzzles: planted models without their answers, as a judged method is given them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd
from torch import Tensor

from interp.circuits import wire
from interp.circuits.planted.conditions import CONDITIONS, DOSES, TIERS, expected
from interp.circuits.planted.model import MarginTask, PlantedBlueprint, PlantedModel
from interp.circuits.planted.recovery import recovery, tasks
from interp.circuits.planted.vit import Blueprint
from interp.circuits.planted.weights import disguise
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError, check_known
from interp.core.images import ImageTable, Preprocess
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED
from interp.core.tower import Tower
from interp.models.towers.open_tower import VISUAL
from interp.verdicts.rungs import RUNGS

VERSION = "1"
"""Of the benchmark: it changes where a number of it might."""

DEVELOPMENT, TEST = range(20), range(1000, 1030)
"""Seeds to try a method on, and those that it is judged by: nothing is to be chosen on these."""

PICTURES = 12
"""Pictures of each class in each domain."""

PAIRS = 16
"""Pictures of a domain on which a circuit is asked for, and as many partners."""

PLACE = ["condition", "tier", "dose", "seed"]
"""What tells planted models apart."""


def place_of(blueprint: PlantedBlueprint) -> dict[str, object]:
    """What tells a planted model from others, by the columns of `PLACE`."""
    return {name: getattr(blueprint, name) for name in PLACE}


def open_planted(source: Any) -> Tower:
    """Open the image tower of a planted model for hooks."""
    return VISUAL[type(source)](source)


@lru_cache(maxsize=1)
def _planted(blueprint: PlantedBlueprint) -> PlantedModel[Any]:
    """The model, disguised; the last one is kept, for the next who asks for it."""
    return disguise(blueprint.make(open_planted), seed=blueprint.seed)


@dataclass(frozen=True, eq=False)
class Opened:
    """A planted model, disguised and opened, once it is asked for."""

    blueprint: PlantedBlueprint

    @property
    def planted(self) -> PlantedModel[Any]:
        """The model with its truth."""
        return _planted(self.blueprint)

    @cached_property
    def tower(self) -> Tower:
        """The model with its activations named."""
        return open_planted(self.planted.source)


@dataclass(frozen=True, eq=False)
class SharingPuzzle:
    """A model and pictures of two domains, to say how far the domains share what tells the classes.

    Args:
        tower: The image tower with its activations named; `tower.source` is open_clip's module.
        images: Pictures of eight classes in two domains, with `label`, `domain` and `artist`.
        classifier: The classes as directions in the tower's embedding.
        preprocess: From a picture to what the tower takes.
        domains: The two domains.
    """

    tower: Tower
    images: ImageTable
    classifier: Classifier
    preprocess: Preprocess
    domains: tuple[str, str] = DOMAINS


@dataclass(frozen=True, eq=False)
class CircuitPuzzle:
    """A model and pairs of pictures of one domain, to say by which parts the class is told.

    Args:
        tower: The image tower with its activations named.
        clean: Pictures, `batch channel row column`.
        corrupt: Partners of another class, in the same order.
        metric: From outputs to the margin of the clean picture's class.
        parts: Names of all edges (`writer->reader`) or nodes, which want a score each.
    """

    tower: Tower
    clean: Tensor
    corrupt: Tensor
    metric: Any
    parts: tuple[str, ...]

    @property
    def task(self) -> MarginTask:
        """Keyword arguments of `interp.circuits.attribute` and its kin."""
        return {"clean": self.clean, "corrupt": self.corrupt, "metric": self.metric}


def sharing_puzzle(blueprint: PlantedBlueprint) -> SharingPuzzle:
    """The puzzle of sharing that a planted model makes.

    Args:
        blueprint: What is planted.

    Returns:
        The puzzle; what is shared is not in it.

    >>> sharing_puzzle(Blueprint("all shared", seed=1)).images.counts().shape
    (8, 2)
    """
    opened = Opened(blueprint)
    images = paint(opened.planted.world, PICTURES, seed=blueprint.seed)
    return SharingPuzzle(opened.tower, images, opened.planted.classifier, as_tensor)


def circuit_puzzles(
    blueprint: PlantedBlueprint, kind: str
) -> Iterator[tuple[str, CircuitPuzzle, frozenset[str]]]:
    """The puzzles of circuits that a planted model makes, with their answers.

    Args:
        blueprint: What is planted, a transformer.
        kind: "edge" or "node".

    Yields:
        For each domain, and each group of classes that go one way in it: the domain, the puzzle,
        and the names of the parts that the circuit has.

    >>> domain, puzzle, inside = next(circuit_puzzles(Blueprint("all shared", seed=1), "node"))
    >>> domain, len(puzzle.parts), sorted(inside)
    ('A', 21, ['a1.h0', 'a1.h2', 'a3.h0', 'input', 'm0', 'm2'])
    """
    opened = Opened(blueprint)
    wiring = wire(opened.tower)
    names = wiring.names if kind == "edge" else wiring.writers
    for domain in DOMAINS:
        for task, units in tasks(opened.planted, domain, PAIRS):
            puzzle = CircuitPuzzle(opened.tower, **task, parts=tuple(names))
            yield domain, puzzle, frozenset(units[kind]) & frozenset(names)


def planted_answers(blueprint: PlantedBlueprint) -> dict[str, str]:
    """What the domains of a planted model share, rung by rung.

    Args:
        blueprint: What is planted.

    Returns:
        "shared", "partly shared" or "not shared" for each rung that has one answer: where sites
        differ, or a measure cannot tell even in principle, there is none.

    >>> planted_answers(Blueprint("rotated code"))
    {'R2': 'shared', 'R5': 'not shared', 'R6': 'not shared'}
    """
    answers = {}
    cells = expected(blueprint)
    for rung in RUNGS.values():
        own = [cell.answer for cell in cells if cell.measure in rung.judged.planted]
        if answer := one_answer(own, by_cuts=rung.by_cuts):
            answers[rung.name] = answer
    return answers


def one_answer(answers: Collection[str], *, by_cuts: bool) -> str:
    """The answer of a rung, from those of its measures and sites; empty where there is not one.

    Of a rung that is asked by several cuts, one "not shared" is enough.

    >>> one_answer(["shared", "blind", "shared"], by_cuts=False)
    'shared'
    >>> one_answer(["shared", "not shared"], by_cuts=False)
    ''
    """
    decided = set(answers) & {SHARED, PARTLY, NOT_SHARED}
    if "in part" in answers:
        return ""
    if by_cuts and NOT_SHARED in decided:
        return NOT_SHARED
    return decided.pop() if len(decided) == 1 else ""


def blueprints(
    seeds: Sequence[int] = TEST,
    *,
    conditions: Sequence[str] = tuple(CONDITIONS),
    tiers: Sequence[str] = TIERS,
) -> list[Blueprint]:
    """The models of the benchmark, seed by seed.

    Args:
        seeds: Their seeds; by convention those of `TEST` judge, and those of `DEVELOPMENT` are to
            try things on.
        conditions: Names in `CONDITIONS`.
        tiers: "easy", "hard" or "steep".

    Returns:
        Blueprints: every condition in every tier that it has, at every dose that it has.

    Raises:
        SpecificationError: For an unknown condition or tier, or no model that fits both.

    >>> len(blueprints([1000], conditions=["all shared", "dose"], tiers=["easy"]))
    6
    """
    asked, error = "choose planted models", SpecificationError
    check_known(asked, "condition", list(conditions), CONDITIONS, error)
    check_known(asked, "tier", list(tiers), TIERS, error)
    found = [
        Blueprint(name, seed, dose, tier)
        for seed in seeds
        for name in conditions
        for tier in CONDITIONS[name].tiers
        if tier in tiers
        for dose in (DOSES if CONDITIONS[name].dosed else (None,))
    ]
    if not found:
        given = f"{len(seeds)} seeds, {list(conditions)} in {list(tiers)}"
        raise error(asked, given, "one model or more", "add a seed, a condition or a tier")
    return found


RECOVERED = [
    *(*PLACE, "domain", "method", "unit"),
    *("auroc", "least", "n_true", "n_units", "n_pictures"),
]
"""What is known of each circuit and method."""


def recover(blueprint: PlantedBlueprint, *, learned: bool = False) -> pd.DataFrame:
    """One row for each domain and method: how well its scores tell a circuit from all beside it.

    The model is planted, disguised, and asked through pictures of 8 bits. Each picture has a
    partner of the same domain whose class shares neither P nor Q, drawn independently; the metric
    is the margin of the true class. `auroc` is that of |mean score| for belonging to the circuit,
    among the edges, the nodes (heads and MLPs) or the channels (`unit`): 1 ranks all that is true
    first, .5 is chance. `least` is what it must reach, nothing where the method is declared blind
    (`interp.circuits.planted.conditions`). Where classes go by circuits of their own, a row is
    the mean over these.

    Ways that learn masks are left out, or with `learned` the only ones: they take minutes.

    Raises what planting raises.

    >>> found = recover(Blueprint("all shared", seed=1)).set_index(["domain", "method"])
    >>> row = found.loc[("B", "path patching")]
    >>> row["unit"], round(float(row["auroc"]), 3), int(row["n_units"])
    ('edge', 1.0, 479)
    """
    opened = Opened(blueprint)
    found = recovery(opened.planted, opened.tower, learned=learned)
    return found.assign(**place_of(blueprint))[RECOVERED]

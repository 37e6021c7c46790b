"""Choices behind a verdict on circuits: what must be chosen, among which options, how they cross.

Every choice is an entry of `CHOICES`. Those of `WAYS` decide how parts are scored, which costs
runs of the model. Sizes and measures of overlap come after the scores and cost little.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from interp.circuits.sharing.overlap_measures import MEASURES_OF_OVERLAP, PRIMARY_OVERLAP
from interp.circuits.tasks.metrics import DISTANCES, METRICS
from interp.circuits.tasks.pairs import CORRUPTIONS
from interp.circuits.units.unit_methods import UNIT_METHODS
from interp.core.errors import SpecificationError, check_known, listed
from interp.core.seeds import rng

ANOTHER_CLASS = "another class"
"""The corruption that is none: the corrupt picture of a pair shows another class."""

USUAL_SIZE = "usual"
"""The size that the ladder takes: each rung has its own."""

OVER_SIZES = "over sizes"
"""The usual size of R6: the mean over the sizes at which circuits are faithful."""

STEPPED = ("integrated gradients", "ensemble")
"""Methods of `UNIT_METHODS` that take steps of integration; for others no steps are chosen."""

ASKED = "ask under every choice"
"""What is asked, in errors."""

DECEIVES = "what is left out runs as in a picture that nobody took, where a bias passes for work"


Option = str | int | float
"""What may be chosen: a name, or a number."""


@dataclass(frozen=True)
class Options:
    """What may be chosen at one point.

    Attributes:
        usual: The option that the ladder takes.
        tried: Those tried unless others are named; None: all that are known.
        known: All that there are, by name; None where any number that `fits` may be named.
        slow: Known ones that are tried only where they are named.
        unfit: Known ones that circuits cannot be compared by.
        fits: Whether a number may be named.
        right: What would be right, in errors.
        warned: What the column `reason` says of an option.
    """

    usual: Option
    tried: Sequence[Option] | None = None
    known: Collection[str] | None = None
    slow: Collection[str] = ()
    unfit: Collection[str] = ()
    fits: Callable[[Option], bool] = lambda given: False
    right: str = ""
    warned: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All options that may be named, where they have names."""
        return [name for name in self.known or () if name not in self.unfit]

    def of(self, choice: str, given: Sequence[Option] | None) -> list[Option]:
        """The options that are tried, the usual one first."""
        if given is None:
            unasked = [name for name in self.names if name not in self.slow]
            return list(dict.fromkeys([self.usual, *(self.tried or unasked)]))
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise SpecificationError(
                ASKED, f"{choice} = {given!r}", "a list of options", "put it into a list"
            )
        if self.known is not None:
            check_known(ASKED, choice, map(str, given), self.names, SpecificationError)
        elif wrong := [one for one in given if one != self.usual and not self.fits(one)]:
            raise SpecificationError(
                ASKED, f"{choice} {listed(map(repr, wrong))}", self.right, "name others"
            )
        return list(dict.fromkeys([self.usual, *given]))


CHOICES: Mapping[str, Options] = {
    "method": Options(
        "integrated gradients",
        known=UNIT_METHODS,
        slow=("learned masks", "ensemble", "resample ablation"),
        unfit=("random",),
    ),
    "metric": Options("margin", known=METRICS, unfit=DISTANCES),
    "corruption": Options(
        ANOTHER_CLASS,
        known=(ANOTHER_CLASS, *CORRUPTIONS),
        warned={
            "gaussian_noise": f"noise takes a tower off the pictures it knows: {DECEIVES}",
            "blur": f"a blurred picture may still tell its class: {DECEIVES}",
            "mean_image": f"masks reach 1.16 of a metric under a mean, and .01 else: {DECEIVES}",
        },
    ),
    "steps": Options(
        5,
        (1, 5, 20),
        fits=lambda given: type(given) is int and given > 0,  # no truth value
        right="whole numbers, 1 or more",
    ),
    "size": Options(
        USUAL_SIZE,
        (USUAL_SIZE, 0.05, 0.1, 0.2),
        fits=lambda given: isinstance(given, float) and 0 < given < 1,
        right="shares of parts between 0 and 1, such as 0.1",
    ),
    "overlap": Options(PRIMARY_OVERLAP, known=MEASURES_OF_OVERLAP),
}
"""Every choice by its name, which is its column in the table too."""

WAYS = ("method", "metric", "corruption", "steps")
"""The choices that make a way to score parts."""


class Way(NamedTuple):
    """One way to score parts: an option of each of `WAYS`; None where no steps are taken."""

    method: str
    metric: str
    corruption: str
    steps: int | None


def options_of(choices: Mapping[str, Sequence[Option]] | None) -> dict[str, list[Option]]:
    """The options of every choice, the usual one first: those named, else those tried.

    >>> options_of({"metric": ["probability"]})["metric"]
    ['margin', 'probability']
    """
    given = {} if choices is None else choices
    if not isinstance(given, Mapping):
        do = 'write choices={"metric": ["margin", "probability"]}'
        raise SpecificationError(ASKED, f"choices = {given!r}", "lists of options by choice", do)
    check_known(ASKED, "choice", map(str, given), CHOICES, SpecificationError)
    return {name: one.of(name, given.get(name)) for name, one in CHOICES.items()}


def ways_among(options: Mapping[str, Sequence[Option]]) -> list[Way]:
    """Every way to score parts, the usual one first.

    >>> len(ways_among(options_of({"method": [], "metric": ["probability"], "corruption": []})))
    6
    """
    # a method without steps stands in the table without any
    ways = [
        Way(str(method), str(metric), str(corruption), int(steps) if method in STEPPED else None)
        for method, metric, corruption, steps in product(*(options[name] for name in WAYS))
    ]
    return list(dict.fromkeys(ways))


def picked(ways: Sequence[Way], n: int, seed: int) -> list[Way]:
    """At most n ways in their order: the usual one, then those one choice away, then any others.

    Of those that are as near, which ones is drawn.

    >>> ways = ways_among(options_of({"method": [], "corruption": [], "steps": [1]}))
    >>> [f"{way.metric} {way.steps}" for way in picked(ways, 3, seed=0)]
    ['margin 5', 'margin 1', 'true_class_cosine 5']
    """
    generator = rng("ways to score parts", seed)
    near = [number for number, way in enumerate(ways) if changes(way, ways[0]) == 1]
    far = [number for number, way in enumerate(ways) if changes(way, ways[0]) > 1]
    drawn = [*generator.permutation(near).tolist(), *generator.permutation(far).tolist()]
    return [ways[int(number)] for number in sorted([0, *drawn[: n - 1]])]


def changes(way: Way, usual: Way) -> int:
    """In how many choices a way differs from the usual one."""
    return sum(one is not None and one != other for one, other in zip(way, usual, strict=True))


def warnings_of(way: Way) -> list[str]:
    """What a reader must know of a way's options."""
    said = [CHOICES[name].warned.get(str(one), "") for name, one in way._asdict().items()]
    return [each for each in said if each]


def size_label(size: float | None) -> str:
    """What the table calls a size; `None` is the mean over sizes.

    >>> size_label(0.05), size_label(None)
    ('5 %', 'over sizes')
    """
    return OVER_SIZES if size is None else f"{100 * size:g} %"

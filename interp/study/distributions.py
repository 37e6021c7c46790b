"""The training distributions of a study: settings x test domains, and what varies between them."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from interp.core.errors import SpecificationError, check_known, listed
from interp.core.fields import CountOrNames, Declared, Flag, Names, Text
from interp.data.mixtures.settings import NATURAL, MixtureSpec

SHARED = ("test_domain", "held_out", "natural", "foreign", "labels", "seed")
"""Fields of a mixture that all variations of a block share."""


def beside_the_file(path: str, info: Any) -> str:
    """A path of a study file, which is looked for beside the file; `hf:` names are no paths."""
    if not info.context or not path or path.startswith("hf:"):
        return path
    return str((info.context["folder"] / path).resolve())


BesideTheFile = Annotated[Text, AfterValidator(beside_the_file)]


@dataclass(frozen=True)
class Variation:
    """One training distribution of a grid: a setting, and where it departs from the section.

    `changes` are fields of `MixtureSpec` with their values, sorted by name; the mixtures that are
    made of them check the values.

    >>> Variation.of({"setting": "cg-high", "domains": 2}).changes
    (('domains', 2),)
    """

    setting: str
    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, given: Any) -> "Variation":
        """A variation from what a file says: the setting's name, or a table with changes."""
        if isinstance(given, cls):
            return given
        table = {"setting": given} if isinstance(given, str) else given
        if not isinstance(table, dict) or not isinstance(table.get("setting"), str):
            raise SpecificationError(
                "make mixtures",
                f"the setting {given!r}",
                "a name, or a table with setting = NAME",
                'write "cg-high" or { setting = "cg-high", domains = 2 }',
            )
        own = {f.name for f in fields(MixtureSpec)} - {"setting", *SHARED}
        changes = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in table.items()
            if name != "setting"
        }
        check_known(f"vary {table['setting']}", "entry", changes, sorted(own), SpecificationError)
        return cls(table["setting"], tuple(sorted(changes.items())))


def _read_variation(given: Any, info: Any) -> Variation:
    if isinstance(given, dict) and isinstance(given.get("base"), str):
        given = {**given, "base": beside_the_file(given["base"], info)}
    return Variation.of(given)


@dataclass(frozen=True)
class MixturesSpec(Declared):
    """Which training distributions: settings x test domains, and the classes held out of both.

    `settings` are names, or tables with a name and changes to it (`Variation`). `held_out` are the
    names of classes, or how many to draw; with `blocks` and no names, it is a fold of the classes.
    """

    asked = "make mixtures"

    test_domains: Annotated[
        Names, Field(min_length=1, description="a list of names, each once, at least one")
    ] = ("sketch",)
    settings: Annotated[
        tuple[Annotated[Any, AfterValidator(_read_variation)], ...],
        Field(min_length=1, validate_default=True, description="a list of at least one"),
    ] = ("natural-only", "cg-low", "leave-out-domain", "cg-high")
    held_out: CountOrNames = 10
    natural: Text = NATURAL
    hold: Text = "size"
    rule: Text = "random"
    domain_words: Flag = True
    base: BesideTheFile = ""

    def __post_init__(self) -> None:
        for domain in self.test_domains:  # refuses what no mixture can be, before anything runs
            check_distinct(self.names(domain))

    def names(self, test_domain: str) -> list[str]:
        """What the mixtures for a test domain are called."""
        anything = self.made(test_domain, (), foreign=("a foreign class",))
        return [mixture.name for mixture in anything]

    def made(
        self,
        test_domain: str,
        held_out: Sequence[str],
        *,
        foreign: Sequence[str] = (),
        seed: int = 0,
    ) -> list[MixtureSpec]:
        """The mixtures for a test domain, one for each setting."""
        common = {name: getattr(self, name) for name in ("natural", "hold", "rule", "base")}
        common |= {"domain_words": self.domain_words, "foreign": tuple(foreign), "seed": seed}
        return [
            MixtureSpec(
                setting=each.setting,
                test_domain=test_domain,
                held_out=tuple(held_out),
                **{**common, **dict(each.changes)},
            )
            for each in self.settings
        ]


def check_distinct(names: Sequence[str]) -> None:
    """Refuse two mixtures of one name: their results could not be told apart."""
    twins = sorted({name for name in names if list(names).count(name) > 1})
    if twins:
        raise SpecificationError(
            "make mixtures",
            f"{listed(twins)} more than once",
            "settings that differ",
            "leave one of them out",
        )

"""How a study file varies a setting: `{ setting = "cg-high", domains = 2 }`, checked and frozen."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from interp.core.errors import SpecificationError, check_known
from interp.data.settings import MixtureSpec


@dataclass(frozen=True)
class Variation:
    """One training distribution of a grid: a setting, and where it departs from the section.

    `changes` are fields of `MixtureSpec` with their values, sorted by name.

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
        changes = {name: frozen(value) for name, value in table.items() if name != "setting"}
        check_known(f"vary {table['setting']}", "entry", changes, sorted(own), SpecificationError)
        for name, value in changes.items():
            if not _fits(value, KINDS[name]):
                raise SpecificationError(
                    f"vary {table['setting']}",
                    f"{name} = {value!r}",
                    " or ".join(KINDS[name]),
                    "mend the value",
                )
        return cls(table["setting"], tuple(sorted(changes.items())))


KINDS: dict[str, tuple[str, ...]] = {
    "hold": ("text",),
    "domain_words": ("true or false",),
    "domains": ("a number", "a list of names"),
    "seen_dose": ("a number, 0 to 1",),
    "held_out_dose": ("a number, 0 to 1",),
    "overlap": ("a number, 0 to 1",),
    "rule": ("text",),
    "base": ("text",),
}
"""What the changes of a variation may be, in words."""


def _fits(value: Any, kinds: Sequence[str]) -> bool:
    """Whether a value of the file is of one of the kinds.

    >>> [_fits(value, KINDS["domains"]) for value in (2, ("sketch",), "2")]
    [True, True, False]
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    of_kind = {
        "text": isinstance(value, str),
        "true or false": isinstance(value, bool),
        "a number": is_number and isinstance(value, int),
        "a number, 0 to 1": is_number,
        "a list of names": are_names(value),
    }
    return any(of_kind[kind] for kind in kinds)


def are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


SHARED = ("test_domain", "held_out", "natural", "foreign", "labels", "seed")
"""Fields of a mixture that all variations of a block share."""


def frozen(value: Any) -> Any:
    """A value of the file as one that does not change."""
    if isinstance(value, dict) and "setting" not in value:
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value

"""The form of public docstrings: one sentence, Args, Returns and an example."""

import importlib
import inspect
import re
from typing import Any, TypedDict, Unpack, get_args

import pytest

FACES = ("interp", *(f"interp.{wing}" for wing in "models probes circuits data report".split()))


def _described(package: str) -> list[str]:
    """The functions and classes of a face; constants and subpackages have no docstring."""
    module = importlib.import_module(package)
    return [
        name for name in module.__all__
        if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name))
    ]  # fmt: skip


def faults(thing: Any) -> list[str]:
    """What a docstring lacks of the form of a public one."""
    text = inspect.getdoc(thing) or ""
    summary = text.split("\n\n")[0]
    _, _, arguments = text.partition("\nArgs:\n")
    described = re.findall(r"^    \*{0,2}(\w+): \S", arguments.split("\n\n")[0], re.MULTILINE)
    missing = [name for name in _parameters(thing) if name not in described]
    missing += [name for name in _grouped(thing) if name not in described]
    returns = inspect.isclass(thing) or inspect.signature(thing).return_annotation in (None, "None")
    wrong = {
        "the first paragraph is not one sentence with a full stop": not _is_sentence(summary),
        f"no line under Args for {', '.join(missing)}": bool(missing),
        "no Returns": not returns and "\nReturns:\n" not in text,
        "no example": ">>> " not in text,
    }
    return [fault for fault, found in wrong.items() if found]


def _parameters(thing: Any) -> list[str]:
    if inspect.isclass(thing) and getattr(thing, "_is_protocol", False):
        return []
    named = inspect.signature(thing).parameters.items()
    return [name for name, each in named if name != "self" and not _group(each)]


def _grouped(thing: Any) -> list[str]:
    """The keywords of a group that its own docstring does not describe."""
    if inspect.isclass(thing):
        return []
    groups = [
        group for each in inspect.signature(thing).parameters.values() for group in _group(each)
    ]
    return [
        name for group in groups for name in group.__annotations__
        if not re.search(rf"^    {name}: \S", inspect.getdoc(group) or "", re.MULTILINE)
    ]  # fmt: skip


def _group(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The `TypedDict` of a parameter `**group: Unpack[...]`, if it is one."""
    whole = parameter.kind is parameter.VAR_KEYWORD
    return get_args(parameter.annotation) if whole else ()


def _is_sentence(summary: str) -> bool:
    """Whether a paragraph ends in a full stop and holds no other end of a sentence."""
    return summary.endswith(".") and not re.search(r"[.?!]\s+[A-Z`]", summary)


@pytest.mark.parametrize("package", FACES)
def test_public_docstrings_have_one_form(package: str) -> None:
    module = importlib.import_module(package)
    found = {name: faults(getattr(module, name)) for name in _described(package)}
    assert not {name: wrong for name, wrong in found.items() if wrong}


def test_a_docstring_of_another_form_is_found() -> None:
    def whole(x: int, *, y: int = 0) -> int:
        """Add two numbers.

        Args:
            x: The first.
            y: The second.

        Returns:
            The sum.

        >>> whole(1)
        1
        """
        return x + y

    def bare(x: int) -> int:
        """Is this added? It is"""
        return x

    def without_result(x: int) -> None:
        """Print a number.

        Args:
            x: The number.

        >>> without_result(1)
        """

    assert not faults(whole) and not faults(without_result)
    assert len(faults(bare)) == 4


class _Described(TypedDict, total=False):
    """A group.

    Args:
        seed: Seed of all draws.
    """

    seed: int


class _Bare(TypedDict, total=False):
    """A group without a word about its keywords."""

    steps: int


def test_keywords_of_a_group_are_described_where_they_are_passed_or_where_they_stand() -> None:
    def here(**group: Unpack[_Bare]) -> None:
        """Do nothing.

        Args:
            **group: The keywords that follow.
            steps: How often.

        >>> here()
        """

    def there(**group: Unpack[_Described]) -> None:
        """Do nothing.

        >>> there()
        """

    def nowhere(**group: Unpack[_Bare]) -> None:
        """Do nothing.

        >>> nowhere()
        """

    assert not faults(here) and not faults(there)
    assert faults(nowhere) == ["no line under Args for steps"]

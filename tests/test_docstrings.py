"""The form of public docstrings: one sentence, Args, Returns and an example."""

import importlib
import inspect
import re
from typing import Any

import pytest

FACES = ("interp", *(f"interp.{wing}" for wing in "models probes circuits data report".split()))

TO_DO: dict[str, tuple[str, ...]] = {
    "interp.circuits": tuple(
        """
        ablate attribute channel_circuit channel_edges das das_among faithfulness
        fit_subspace localise minimality screen sweep transplant unit_faithfulness
        """.split()
    ),
}
"""Public names whose docstrings do not have the form yet. It may only shrink."""


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
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def _is_sentence(summary: str) -> bool:
    """Whether a paragraph ends in a full stop and holds no other end of a sentence."""
    return summary.endswith(".") and not re.search(r"[.?!]\s+[A-Z`]", summary)


@pytest.mark.parametrize("package", FACES)
def test_public_docstrings_have_one_form(package: str) -> None:
    module = importlib.import_module(package)
    names = set(_described(package)) - set(TO_DO.get(package, ()))
    found = {name: faults(getattr(module, name)) for name in sorted(names)}
    assert not {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize("package", sorted(TO_DO))
def test_the_list_of_what_is_to_be_done_only_shrinks(package: str) -> None:
    module = importlib.import_module(package)
    assert set(TO_DO[package]) <= set(_described(package))
    assert not [name for name in TO_DO[package] if not faults(getattr(module, name))]


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

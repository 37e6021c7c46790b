"""Groups of keywords that many functions share, and the values that functions make of them.

A group is a `TypedDict`, named `...Keywords`, for a signature that ends in `**budget:
Unpack[BudgetKeywords]` (PEP 692): every keyword can be passed and checked as if it stood there. The
value is a dataclass with the same fields and their defaults, which `filled` makes.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from inspect import getdoc
from typing import Any, TypedDict, TypeVar, cast

from interp.core.errors import SpecificationError, check_known, listed

MEMORY = 2**30
"""Bytes of activations that a run may hold unless told otherwise."""

Value = TypeVar("Value")


class RoomKeywords(TypedDict, total=False):
    """What a run may hold at a time."""

    batch_size: int
    memory: int


class BudgetKeywords(RoomKeywords, total=False):
    """What a run may hold at a time, and the seed of all that it draws."""

    seed: int


class ResamplingKeywords(TypedDict, total=False):
    """How often evidence is drawn anew."""

    n_splits: int
    n_permutations: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a run may hold at a time.

    Args:
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.
    """

    batch_size: int = 32
    memory: int = MEMORY


@dataclass(frozen=True, kw_only=True)
class Budget(Room):
    """What a run may hold at a time, and the seed of all that it draws.

    Args:
        seed: Seed of all draws.
    """

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How often evidence is drawn anew.

    Args:
        n_splits: Deals of the artists into halves.
        n_permutations: Draws of a null by permutation.
        seed: Seed of all draws.
    """

    n_splits: int = 5
    n_permutations: int = 999
    seed: int = 0


def filled(
    function: Callable[..., object], kind: type[Value], given: Mapping[str, object]
) -> Value:
    """Make a value of the keywords that a function was given, with defaults for the others.

    Args:
        function: The function that was called; errors name it and suggest its own keywords too.
        kind: The dataclass to make.
        given: The keywords.

    Returns:
        The value.

    Raises:
        SpecificationError: For an unknown keyword, or a missing one that has no default.

    >>> def run(*, steps: int = 5, **budget: int) -> Budget:
    ...     return filled(run, Budget, budget)
    >>> run(batch_size=8)
    Budget(batch_size=8, memory=1073741824, seed=0)
    >>> run(batchsize=1)
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: Cannot call run: ... mean batch_size?
    """
    parts = fields(cast(Any, kind))
    asked, names = f"call {getattr(function, '__name__', function)}", [part.name for part in parts]
    if set(given) - set(names):
        own = inspect.signature(function).parameters.values()
        known = [each.name for each in own if each.kind is not each.VAR_KEYWORD]
        check_known(asked, "keyword", given, [*known, *names], SpecificationError)
    missing = [
        part.name
        for part in parts
        if part.default is MISSING and part.default_factory is MISSING and part.name not in given
    ]
    if missing:
        right = f"the keywords {listed(missing)}, which have no default"
        do = f"pass {', '.join(f'{name}=...' for name in missing)}"
        raise SpecificationError(asked, f"no {' and no '.join(missing)}", right, do)
    return cast(Any, kind)(**given)


def check_counts(asked: str, *, least: int = 1, **counts: float) -> None:
    """Refuse counts that are no whole numbers of `least` or more.

    >>> check_counts("fit a mask", steps=0)
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: Cannot fit a mask: given 0 steps, right would be ...
    """
    for name, n in counts.items():
        if n < least or n % 1:
            given = f"{n} {name.replace('_', ' ')}"
            raise SpecificationError(
                asked, given, f"a whole number, {least} or more", "leave it at its default"
            )


def check_shares(asked: str, shares: Sequence[float], *, whole: bool = False) -> None:
    """Refuse no shares, and shares that keep nothing or (but for `whole`) everything.

    >>> check_shares("keep parts", [1.0], whole=True)
    """
    if not len(shares) or not all(0 < s < 1 or (whole and s == 1) for s in shares):
        right = f"shares above 0, {'up to' if whole else 'below'} 1"
        raise SpecificationError(asked, f"shares {list(shares)}", right, "keep the defaults")


def numbers_from(text: str, what: str) -> range:
    """Whole numbers as the command line says them, `FIRST-LAST` or one number.

    Args:
        text: What was typed.
        what: What they are numbers of, for messages.

    Returns:
        The numbers.

    Raises:
        SpecificationError: For anything else.

    >>> numbers_from("1000-1002", "seeds"), numbers_from("7", "blocks")
    (range(1000, 1003), range(7, 8))
    """
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()) or int(last) < int(first):
        raise SpecificationError(
            f"choose {what}", repr(text), "FIRST-LAST, such as 0-3", "write two whole numbers"
        )
    return range(int(first), int(last) + 1)


Function = TypeVar("Function")


class Named(dict[str, Function]):
    """Functions by name; its repr gives each a line.

    >>> Named(length=len)
    length  Return the number of items in a container.
    """

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(
            f"{name:{width}}  {(getdoc(function) or '').partition(chr(10))[0]}"
            for name, function in self.items()
        )

"""Doors: public functions check their arguments first, so that a wrong call ends in our own error.

`door` reads a function's annotations. It checks what a mistake gets wrong most often: text for a
number, a bare text for a list of texts, an object of another kind, an empty batch, a device that is
not there. It leaves other shapes and ranges to the function. A `Clip` is taken where a tower is
asked for, by its image tower or, for tokens, its text tower.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
from torch import Tensor

from interp.core.errors import SpecificationError, listed, nearest
from interp.core.parallel import which_device
from interp.core.tower import Tower

Function = TypeVar("Function", bound=Callable[..., Any])

SAID: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Sequence[str]: "a list of texts",
    Iterable[str]: "a list of texts",
    Tower: "a tower, such as clip.visual",
    Tensor: "a torch tensor",
    "ImageTable": "an ImageTable, as interp.open_images returns it",
    "Pairs": "pairs, as images.pairs(...) returns them",
    "Classifier": "a classifier, such as clip.zero_shot(class_names)",
    "Target": "a target, as Target(classifier, labels=...) makes it",
}
"""What is checked, and how it is said, by type or by its name; all other annotations are let
through."""

INSTEAD = {
    Tower: "open a module of another kind by interp.models.open_tower",
    Tensor: "make one with torch.as_tensor",
    "ImageTable": "open the pictures with interp.open_images",
}

COUNTED = ("batch_size", "shard_size", "per_cell")
"""Arguments that are at least 1 wherever they stand."""


def door(function: Function) -> Function:
    """Check the arguments of a public function before it runs.

    Args:
        function: A function with annotations.

    Returns:
        The same function; a wrong argument is a `SpecificationError` that says what was asked,
        what was given, and what would be right.

    >>> @door
    ... def pool(names: Sequence[str], *, size: int = 8) -> int:
    ...     return len(names) * size
    >>> pool(["a"], size="4")
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: Cannot call pool: given size = '4', right would be a ...
    >>> pool("a")
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: Cannot call pool: given names = 'a', right would be a ...
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _miscalled(function, signature, args, kwargs, error) from None
        kinds = _kinds(function)
        changed = False
        for name, value in bound.arguments.items():
            if name in kinds and not _fits(value, kinds[name]):
                found = _tower_of(value, kinds[name], bound.arguments)
                if found is None:
                    raise _wrong(function.__name__, name, value, kinds[name])
                bound.arguments[name], changed = found, True
            elif signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                for key, given in value.items():
                    if key in kinds and not _fits(given, kinds[key]):
                        raise _wrong(function.__name__, key, given, kinds[key])
                    _check_promise(function.__name__, key, given)
            _check_promise(function.__name__, name, bound.arguments[name])
        return function(*bound.args, **bound.kwargs) if changed else function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def check_fields(thing: Any) -> None:
    """Check the fields of a dataclass as `door` checks arguments, for its `__post_init__`.

    Args:
        thing: An instance of a dataclass with annotations.

    Raises:
        SpecificationError: For a field of another kind than its annotation.
    """
    kinds = _kinds(type(thing))
    for each in fields(thing):
        value = getattr(thing, each.name)
        if each.name in kinds and not _fits(value, kinds[each.name]):
            raise _wrong(type(thing).__name__, each.name, value, kinds[each.name])


def _check_promise(function: str, name: str, value: object) -> None:
    """Refuse a count below 1, and a device that is not there."""
    if name in COUNTED and isinstance(value, (int, np.integer)) and value < 1:
        raise SpecificationError(
            f"call {function}", f"{name} = {value}", "at least 1", f"leave {name} at its default"
        )
    if name == "device" and value is not None:
        which_device(str(value))


@cache
def _kinds(function: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """The kinds that each argument may be, of those arguments whose every kind can be checked."""
    hints = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    groups = [get_args(hint)[0] for hint in hints.values() if "Unpack" in str(get_origin(hint))]
    for group in groups:
        hints |= get_type_hints(group) if is_typeddict(group) else {}
    found = {}
    for name, hint in hints.items():
        union = get_origin(hint) in (Union, UnionType)
        kinds = tuple(get_args(hint)) if union else (hint,)
        if all(_known(kind) for kind in kinds):
            found[name] = kinds
    return found


def _known(kind: object) -> bool:
    """Whether it can be said of a value if it is of a kind."""
    if _key(kind) in SAID or kind is NoneType or get_origin(kind) is Callable:
        return True
    return type(kind) is type and not _is_protocol(kind)


def _key(kind: object) -> Any:
    """What a kind is entered by: classes that stand on this module by their names."""
    return kind if kind in SAID else getattr(kind, "__name__", kind)


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _fits(value: object, kinds: Sequence[Any]) -> bool:
    return any(_is(value, kind) for kind in kinds)


def _is(value: Any, kind: Any) -> bool:
    if kind in (Sequence[str], Iterable[str]):
        listed_ = not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")
        return listed_ and all(isinstance(each, str) for each in value)
    if get_origin(kind) is Callable:
        return callable(value)
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind in (int, float):
        numbers = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, kind)


def _tower_of(value: Any, kinds: Sequence[Any], arguments: Mapping[str, object]) -> Any:
    """A tower of a `Clip`: of texts where any argument holds tokens, else of pictures."""
    if Tower not in kinds or not (hasattr(value, "visual") and hasattr(value, "model")):
        return None
    groups = [each for each in arguments.values() if isinstance(each, dict)]
    given = [*arguments.values(), *(each for group in groups for each in group.values())]
    tokens = any(isinstance(x, Tensor) and not x.is_floating_point() for x in given)
    return value.text if tokens else value.visual


def _wrong(function: str, name: str, value: object, kinds: Sequence[Any]) -> SpecificationError:
    said = [_kind_name(kind) for kind in kinds if kind is not NoneType]
    said += ["None"] if NoneType in kinds else []
    shown = repr(value)
    short = shown if len(shown) < 60 else f"a {type(value).__name__}"
    hint = next((INSTEAD[_key(kind)] for kind in kinds if _key(kind) in INSTEAD), "")
    if isinstance(value, str) and any(kind in (Sequence[str], Iterable[str]) for kind in kinds):
        hint = "put it into a list"
    return SpecificationError(
        f"call {function}",
        f"{name} = {short}",
        " or ".join(said),
        hint or f"pass {name} as {said[0]}",
    )


def _kind_name(kind: Any) -> str:
    if get_origin(kind) is Callable:
        return "a function"
    return SAID.get(_key(kind)) or f"a {kind.__name__}"


def _miscalled(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    error: TypeError,
) -> SpecificationError:
    """An unknown or a missing argument, with the nearest name, or too many in a row."""
    asked = f"call {function.__name__}"
    kinds = {
        name: p.kind for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD
    }
    unknown = [name for name in kwargs if name not in kinds]
    if "unexpected" in str(error):
        return SpecificationError(
            asked,
            f"the argument {unknown[0]}",
            f"one of {listed(kinds, limit=12)}",
            f"did you mean {nearest(unknown[0], kinds)}?",
        )
    if "too many" in str(error):
        first = [name for name, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY]
        return SpecificationError(
            asked,
            f"{len(args)} arguments without names",
            f"at most {len(first)}: {listed(first)}",
            "pass the others by name",
        )
    needed = [
        name for name in kinds if signature.parameters[name].default is inspect.Parameter.empty
    ]
    missing = [name for name in needed[len(args) :] if name not in kwargs]
    return SpecificationError(
        asked,
        f"no {' and no '.join(missing)}" if missing else str(error),
        f"all of {listed(needed)}",
        f"pass {', '.join(missing)}",
    )

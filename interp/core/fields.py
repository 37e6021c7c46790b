"""Specifications: declared by field, checked by pydantic, refused with messages of four parts.

The `description` of a field says what would be right; the types below bring theirs. Values are
taken as given: nothing is converted but lists, which become tuples, so hashes stay the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from interp.core.errors import SpecificationError, listed, nearest


def at_least(number: int, words: str = "") -> Any:
    """The field of a whole number with a lower bound; `words` say it otherwise.

    >>> at_least(2).description
    'a whole number, at least 2'
    """
    return Field(strict=True, ge=number, description=words or f"a whole number, at least {number}")


def one_of(names: Iterable[str]) -> AfterValidator:
    """A check that refuses a name that is not known; the error suggests the nearest."""
    known = list(names)

    def check(name: str) -> str:
        if name not in known:
            raise PydanticCustomError("unknown", "unknown", {"instead": _instead(name, known)})
        return name

    return AfterValidator(check)


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse values that stand in a list more than once.

    >>> each_once(("cat", "dog"))
    ('cat', 'dog')
    """
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{listed(twice)} twice")
    return values


AS_GIVEN = WrapValidator(lambda value, check: (check(value), value)[1])
"""Keeps 1 from becoming 1.0, which has another hash."""

Text = Annotated[str, Field(strict=True, description="text")]
Flag = Annotated[bool, Field(strict=True, description="true or false")]
Whole = Annotated[int, Field(strict=True, description="a whole number")]
Finite = Annotated[
    float, Field(strict=True, allow_inf_nan=False, description="a finite number"), AS_GIVEN
]
Positive = Annotated[Finite, Field(gt=0, description="a number more than 0")]
Share = Annotated[Finite, Field(ge=0, le=1, description="a share from 0 to 1")]
Names = Annotated[
    tuple[Text, ...], AfterValidator(each_once), Field(description="a list of names, each once")
]
Count = Annotated[int, at_least(0)]
CountOrNames = Annotated[
    Count | Names, Field(description="how many, or a list of names, each once")
]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Declared:
    """What a specification is derived from. `asked` says, for errors, what it is there to do.

    Checks of one field are declared at the field. Those of several stand in `__post_init__` and
    raise our errors themselves.

    >>> @dataclass(frozen=True)
    ... class FitSpec(Declared):
    ...     asked = "fit directions"
    ...     steps: Annotated[int, at_least(1)] = 100
    >>> FitSpec(0)
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: Cannot fit directions: given steps = 0, ... Mend steps.

    Notes:
        With a validation context, values come from a file. A refusal then travels on as pydantic's
        error, and `refused_in` says which section of the file it is about.
    """

    asked: ClassVar[str] = "specify"

    @model_validator(mode="wrap")
    @classmethod
    def _refused_in_our_words(cls, given: Any, check: Callable[[Any], Any], info: Any) -> Any:
        try:
            return check(given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "refused" or not first["loc"]:
                raise
            same = [each for each in error.errors() if each["loc"][0] == first["loc"][0]]
            parts = _parts(cls, same[-1])  # the last of a union's branches knows most
        if info.context:
            raise PydanticCustomError("refused", "refused", {"parts": parts})
        raise SpecificationError(cls.asked, *parts)


def refused_in(error: ValidationError, file: str) -> SpecificationError:
    """Our error for what is wrong in a file, whose sections are fields of a `Declared`."""
    first = error.errors()[0]
    section = f"[{first['loc'][0]}]" if first["loc"] else file
    return SpecificationError(f"read {section}", *first["ctx"]["parts"])  # type: ignore[typeddict-item]


def _parts(cls: Any, error: ErrorDetails) -> tuple[str, str, str]:
    """What was given, what would be right, what to do."""
    names = [field.name for field in fields(cls)]
    place, *within = error["loc"]
    name = names[place] if isinstance(place, int) else place
    if error["type"] == "unexpected_keyword_argument":
        return f"entry {name!r}", *_instead(name, names)
    right = cls.__pydantic_fields__[name].description or f"a section [{name}] of key = value"
    given, context = f"{name} = {error['input']!r}", error.get("ctx", {})
    if error["type"].startswith("missing"):
        given = f"no {name}"
    elif error["type"] == "value_error":
        given = f"{context['error']} in {name}"
    elif within and isinstance(within[-1], int):
        given = f"{error['input']!r} in {name}"
    return given, *context.get("instead", (right, f"mend {name}"))


def _instead(name: str, known: list[str]) -> tuple[str, str]:
    """What is right instead of an unknown name, and what to do."""
    return f"one of {listed(known, limit=12)}", f"did you mean {nearest(name, known)}?"

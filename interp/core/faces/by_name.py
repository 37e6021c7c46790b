"""Functions by name, which say what each of them does."""

from inspect import getdoc
from typing import TypeVar

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

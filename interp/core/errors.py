"""The errors that a user may meet, as one tree.

InterpError                 whatever the command line reports in a line or two, with exit status 2
├── SiteError               a name that is no site, or a hook or patch that never fired
├── ShapeError              a tensor or picture of another shape than the place it goes to
├── CheckpointError         weights that are missing, cut short, foreign or of another model
├── DataError               pictures, classes or domains that are not there or do not fit
│   ├── PictureError        a picture that cannot be read
│   ├── AlikeError          pictures that a model answers alike
│   └── LeakError           a training distribution that holds what it must withhold
├── SampleError             too few samples for the estimator that was asked for
├── NumericsError           a NaN or an infinity where a number must stand
├── SpecificationError      a study file or option that cannot be carried out
└── OutputError             a folder that cannot be written, or a disk that is full
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class InterpError(Exception):
    """A message in four parts: what was asked, what was given, what would be right, what to do.

    Args:
        asked: What was to be done, after "Cannot".
        given: What was given instead.
        right: What would be right.
        do: What to do, as an imperative.

    >>> print(DataError("read pictures", "an empty folder", "domain/class/*.png", "fill it"))
    Cannot read pictures: given an empty folder, right would be domain/class/*.png. Fill it.
    """

    def __init__(self, asked: str, given: str, right: str, do: str) -> None:
        self.asked, self.given, self.right, self.do = asked, given, right, do
        advice = do[:1].upper() + do[1:]
        stop = "" if advice.endswith((".", "?")) else "."
        super().__init__(f"Cannot {asked}: given {given}, right would be {right}. {advice}{stop}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.asked, self.given, self.right, self.do)


class SiteError(InterpError):
    """A name that is no site of the tower, or a hook or patch that never fired."""


class ShapeError(InterpError):
    """A tensor or picture of another shape than the place it goes to."""


class CheckpointError(InterpError):
    """Weights that are missing, cut short, foreign or of another model."""


class DataError(InterpError):
    """Pictures, classes or domains that are not there or do not fit."""


class PictureError(DataError):
    """A picture that cannot be read: no picture, cut short, or gone."""


class AlikeError(DataError):
    """Pictures that a model answers alike, where the difference is what would be measured."""


class LeakError(DataError):
    """A training distribution that holds what it must withhold."""


class SampleError(InterpError):
    """Too few samples for the estimator that was asked for."""


class NumericsError(InterpError):
    """A NaN or an infinity where a number must stand."""


class SpecificationError(InterpError):
    """A study file or option that cannot be carried out."""


class OutputError(InterpError):
    """A folder that cannot be written, or a disk that is full."""


def listed(names: Iterable[object], *, limit: int = 8) -> str:
    """Write names into a sentence, the first `limit` of them.

    Args:
        names: The names.
        limit: How many are written out.

    Returns:
        The names, separated by commas, and how many more there are.

    >>> listed(["cat", "dog", "owl"], limit=2)
    'cat, dog and 1 more'
    """
    words = [str(name) for name in names]
    if len(words) <= limit:
        return ", ".join(words) if words else "nothing"
    return f"{', '.join(words[:limit])} and {len(words) - limit} more"


def sequence(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> sequence(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def nearest(name: str, names: Iterable[str], *, limit: int = 3) -> str:
    """Suggest the names that a mistyped one may have meant.

    Args:
        name: The mistyped name.
        names: The known names.
        limit: How many suggestions.

    Returns:
        The nearest names, or all if none is near.

    >>> nearest("sketsh", ["real", "sketch"])
    'sketch'
    """
    known = list(names)
    return listed(get_close_matches(name, known, n=limit, cutoff=0.4) or known)


def check_known(
    asked: str,
    kind: str,
    given: Iterable[str],
    known: Iterable[str],
    error: type[InterpError] = DataError,
) -> None:
    """Refuse names that are not known, and suggest those that are.

    Args:
        asked: What was to be done.
        kind: What the names are names of.
        given: The names to check.
        known: The known names.
        error: The class of the error.

    Raises:
        InterpError: Of class `error`, for the first unknown name.

    >>> check_known("test on a domain", "domain", ["skech"], ["real", "sketch"])
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot test on a domain: given domain 'skech', ... mean sketch?
    """
    names = list(known)
    for name in given:
        if name not in names:
            right = f"one of {listed(names, limit=12)}"
            raise error(asked, f"{kind} {name!r}", right, f"did you mean {nearest(name, names)}?")


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device.

    Args:
        error: The exception.

    Returns:
        True if a smaller batch may help.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes do not fit"))
    (True, False)
    """
    words = str(error).lower()
    # torch's class goes by its name: these errors are imported where torch must not be
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(
            sign in words
            for sign in ("out of memory", "can't allocate memory", "not enough memory")
        )
    )

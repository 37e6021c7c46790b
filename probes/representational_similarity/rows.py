"""Two sets of features whose rows belong together, checked and centred before they are compared."""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import NumericsError, SampleError, ShapeError


def paired_rows(
    x: ArrayLike, y: ArrayLike, what: str, *, at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float64, centred, the largest entry 1; or the error that says why not.

    Shapes: `x` "row d_x", `y` "row d_y". Raises `ShapeError` for other axes or unequal rows,
    `SampleError` below `at_least` rows, `NumericsError` for a NaN and for features that are the
    same in every row.

    >>> paired_rows([[1.0], [3.0]], [[0.0], [5.0]], "an example", at_least=2)[0].tolist()
    [[-1.0], [1.0]]
    """
    asked = f"measure {what}"
    a, b = (np.asarray(side, dtype=np.float64) for side in (x, y))
    for side in (a, b):
        if side.ndim != 2:
            raise ShapeError(asked, f"shape {side.shape}", '"row feature"', "flatten to two axes")
    if len(a) != len(b):
        raise ShapeError(
            asked, f"{len(a)} and {len(b)} rows", "equally many, row by row", "pair the rows first"
        )
    if len(a) < at_least:
        raise SampleError(
            asked, f"{len(a)} rows", f"at least {at_least}", "give more classes or pictures"
        )
    return centred_rows(a, asked), centred_rows(b, asked)


def centred_rows(x: np.ndarray, asked: str) -> np.ndarray:
    """Features "row feature" less their mean, the largest entry 1."""
    refuse_nan(x, asked)
    magnitude = float(np.abs(x).max(initial=0.0))
    centred = x - x.mean(axis=0)
    centred -= centred.mean(axis=0)  # a second pass takes out what rounding left of a large mean
    if not varies(centred, magnitude):
        raise NumericsError(
            asked,
            "constant features: every row is the same",
            "features that vary",
            "leave this site out",
        )
    return centred / np.abs(centred).max()


def refuse_nan(x: np.ndarray, asked: str) -> None:
    """Refuse features that hold a NaN or an infinity, naming the first such row."""
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise NumericsError(
            asked, f"a NaN or infinity in row {row}", "finite features", "look at that row"
        )


def varies(centred: np.ndarray, magnitude: float) -> bool:
    """Whether centred features differ between rows by more than rounding."""
    return bool(np.abs(centred).max(initial=0.0) > 1e-10 * magnitude)


def narrowed(centred: np.ndarray) -> np.ndarray:
    """The same geometry in no more columns than rows.

    >>> narrowed(np.eye(2, 7) * 3).shape
    (2, 2)
    """
    if centred.shape[1] <= len(centred):
        return centred
    return np.asarray(np.linalg.qr(centred.T, mode="r")).T

"""Who drew a picture, and on which side of a split they stand, with all that they drew."""

import numpy as np
import pandas as pd

from interp.core.seeds import rng

TRIES = 16
"""Orders in which artists are dealt; the one that fills cells most evenly counts."""


def artists_of(frame: pd.DataFrame) -> tuple[str, np.ndarray]:
    """Which column says who drew a picture, and who: artists, drawings, or else each its own.

    >>> artists_of(pd.DataFrame({"artist": ["ann", None], "path": ["x", "y"]}))[1].tolist()
    ['ann', 'picture 1']
    """
    column = next(name for name in ("artist", "drawing", "path") if name in frame.columns)
    known = frame[column].notna().to_numpy()
    alone = np.array([f"picture {row}" for row in range(len(frame))], dtype=object)
    return column, np.where(known, frame[column].astype(str).to_numpy(object), alone)


def deal(artists: np.ndarray, cells: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """A side, 0 or 1, for each picture: artists go with all they drew, so that cells fill evenly.

    In random order each artist goes where the cells that they drew for are emptier; of several
    orders the one that fills cells most evenly counts. Side 1 has the more artists.

    >>> deal(np.array(list("aabbcc")), np.array(["cat", "dog"] * 3)).tolist().count(0)
    2
    """
    names, who = np.unique(artists.astype(str), return_inverse=True)
    kinds, cell = np.unique(cells.astype(str), return_inverse=True)
    share = np.zeros((len(names), len(kinds)))
    np.add.at(share, (who, cell), 1.0)
    share /= share.sum(axis=0)
    stream, best, found = rng("deal artists", seed), -1.0, np.zeros(len(names), dtype=int)
    for _ in range(TRIES):
        sides, filled = np.zeros(len(names), dtype=int), np.zeros((2, len(kinds)))
        coin = stream.integers(2, size=len(names))
        for artist in stream.permutation(len(names)):
            zero, one = filled[:, share[artist] > 0].sum(axis=1)
            side = coin[artist] if np.isclose(zero, one) else int(one < zero)
            sides[artist] = side
            filled[side] += share[artist]
        even = float(np.minimum(*filled).sum())
        if even > best + 1e-9:
            best, found = even, sides
    return found[who] if 2 * found.sum() >= len(names) else 1 - found[who]

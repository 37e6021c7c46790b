"""Pictures of several domains, balanced: a class has equally many in each, per half of artists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.artists import artists_of, dealt_artists, equally_many
from interp.core.seeds import rng


def balanced_pictures(
    frame: pd.DataFrame, domains: Sequence[str], half: np.ndarray, generator: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The classes that all domains have in both halves, and equally many pictures of each.

    Args:
        frame: The pictures.
        domains: The domains among which a class is balanced, within a half.
        half: `[picture]`, the half of the artist.
        generator: Draws pictures where a domain has more than another.

    Returns:
        The classes, sorted; row numbers; and the place of each row's class.
    """
    label, domain = frame["label"].to_numpy(object), frame["domain"].to_numpy(object)
    kept: list[np.ndarray] = []
    classes: list[str] = []
    found = pd.DataFrame({"label": label, "half": half, "domain": domain})
    by_cell = found.groupby(["label", "half", "domain"]).indices
    nobody = np.empty(0, dtype=int)
    for name in sorted(set(label)):
        cells = [[by_cell.get((name, side, d), nobody) for d in domains] for side in (0, 1)]
        if min(len(rows) for side in cells for rows in side) == 0:
            continue
        classes.append(name)
        for side in cells:
            kept += equally_many(side, generator)
    rows = np.concatenate(kept) if kept else np.empty(0, dtype=int)
    return classes, rows, pd.Index(classes).get_indexer(label[rows])


@dataclass(frozen=True)
class DomainPair:
    """Pictures of two domains, balanced: each class has as many in one as in the other, per half.

    `rows` are places in the frame; aligned with them are `code` (the class's place in `classes`),
    `half` (of the artist), `sign` (1 in domain a, -1 in b) and `drawn` "permutation picture", the
    signs under relabelling.
    """

    a: str
    b: str
    classes: list[str]
    rows: np.ndarray
    code: np.ndarray
    half: np.ndarray
    sign: np.ndarray
    drawn: np.ndarray
    left_out: int


def domain_pair(
    frame: pd.DataFrame, a: str, b: str, *, n_permutations: int, seed: int
) -> DomainPair:
    """Classes that both domains have in both halves of the artists, and their pictures.

    An artist stands in one half with all pictures. Relabelling keeps to what could have been: an
    artist who drew a class in both domains has the two groups swapped or not; the groups of the
    others are permuted among themselves, within class and half.

    >>> frame = pd.DataFrame([(c, d, r) for c in "pq" for d in "ab" for r in "wxyz"],
    ...                      columns=["label", "domain", "artist"])
    >>> pair = domain_pair(frame, "a", "b", n_permutations=2, seed=0)
    >>> len(pair.rows), pair.drawn.shape, int(pair.sign.sum())
    (16, (2, 16), 0)
    """
    here = np.flatnonzero(frame["domain"].isin([a, b]).to_numpy())
    part = frame.iloc[here].reset_index(drop=True)
    half = dealt_artists(part, [a, b], seed=seed)
    classes, rows, code = balanced_pictures(part, [a, b], half, rng("balanced pair", seed))
    sign = np.where(part["domain"].to_numpy(object)[rows] == a, 1, -1).astype(np.int8)
    drawn = _relabelled(
        sign, code * 2 + half[rows], artists_of(part)[rows], n_permutations, rng("relabelled", seed)
    )
    left_out = part["label"].nunique() - len(classes)
    return DomainPair(a, b, classes, here[rows], code, half[rows], sign, drawn, left_out)


def _relabelled(
    sign: np.ndarray, cell: np.ndarray, who: np.ndarray, n: int, generator: np.random.Generator
) -> np.ndarray:
    drawn = np.tile(sign, (n, 1))
    for each in np.unique(cell):
        alone: list[np.ndarray] = []
        for artist in sorted(set(who[cell == each])):
            rows = np.flatnonzero((cell == each) & (who == artist))
            if np.ptp(sign[rows]):  # drew it in both domains
                drawn[:, rows] *= generator.choice(np.array([-1, 1], np.int8), size=(n, 1))
            else:
                alone.append(rows)
        if alone:
            given = np.tile([sign[rows[0]] for rows in alone], (n, 1))
            for rows, labels in zip(alone, generator.permuted(given, axis=1).T, strict=True):
                drawn[:, rows] = labels[:, None]
    return drawn

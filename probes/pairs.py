"""Two domains side by side: the same classes, equally many pictures, halves without common artists.

And what chance would say of them: relabellings that move whole class x artist groups.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.seeds import rng
from interp.probes.halves import dealt_artists, equally_many, hands


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
    stream = rng("balanced pair", seed)
    here = np.flatnonzero(frame["domain"].isin([a, b]).to_numpy())
    part = frame.iloc[here].reset_index(drop=True)
    half = dealt_artists(part, [a, b], seed=seed)
    label, is_a = part["label"].to_numpy(object), (part["domain"] == a).to_numpy()
    kept: list[np.ndarray] = []
    classes: list[str] = []
    for name in sorted(set(label)):
        cells = [
            [np.flatnonzero((label == name) & (half == side) & (is_a == one)) for one in (1, 0)]
            for side in (0, 1)
        ]
        if min(len(rows) for pair in cells for rows in pair) == 0:
            continue
        classes.append(name)
        for pair in cells:
            kept += equally_many(pair, stream)
    rows = np.concatenate(kept) if kept else np.empty(0, dtype=int)
    code = pd.Index(classes).get_indexer(label[rows])
    sign = np.where(is_a[rows], 1, -1).astype(np.int8)
    drawn = _relabelled(
        sign, code * 2 + half[rows], hands(part)[rows], n_permutations, rng("relabelled", seed)
    )
    return DomainPair(
        a, b, classes, here[rows], code, half[rows], sign, drawn, len(set(label)) - len(classes)
    )


def _relabelled(
    sign: np.ndarray, cell: np.ndarray, who: np.ndarray, n: int, stream: np.random.Generator
) -> np.ndarray:
    drawn = np.tile(sign, (n, 1))
    for each in np.unique(cell):
        alone: list[np.ndarray] = []
        for artist in sorted(set(who[cell == each])):
            rows = np.flatnonzero((cell == each) & (who == artist))
            if np.ptp(sign[rows]):  # drew it in both domains
                drawn[:, rows] *= stream.choice(np.array([-1, 1], np.int8), size=(n, 1))
            else:
                alone.append(rows)
        if alone:
            given = np.tile([sign[rows[0]] for rows in alone], (n, 1))
            for rows, labels in zip(alone, stream.permuted(given, axis=1).T, strict=True):
                drawn[:, rows] = labels[:, None]
    return drawn

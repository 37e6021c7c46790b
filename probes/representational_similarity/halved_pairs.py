"""Two domains whose artists are dealt into halves, and the classes that every half has of both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from interp.core.artists import (
    artist_halves,
    artists_of,
    dealt_artists,
    equally_many,
    halved_classes,
    meeting_halves,
)
from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Counts, counts_of


@dataclass(frozen=True)
class HalvedPair:
    """Which pictures of domains A and B are compared, and in which halves of the artists.

    Aligned with the pictures of `frame` are `code`, the class's place in `classes` (-1: in none of
    them), and `deals` "split picture", the half in each deal (-1: in neither).

    >>> frame = pd.DataFrame([(c, d, r) for c in "pq" for d in "ab" for r in "wxyz"],
    ...                      columns=["label", "domain", "artist"])
    >>> pair = HalvedPair.of(frame, "a", "b", n_splits=3, seed=0)
    >>> pair.classes, pair.counts["n_pictures"], pair.rows("a", 0, 1).size, pair.meetings
    (['p', 'q'], 16, 4, [(0, 1), (1, 0)])
    """

    a: str
    b: str
    frame: pd.DataFrame
    deals: np.ndarray
    classes: list[str]
    code: np.ndarray

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        a: str,
        b: str,
        *,
        n_splits: int,
        seed: int,
        among: Sequence[str] = (),
    ) -> "HalvedPair":
        """Deal the artists of both domains into halves, `n_splits` times.

        Artists of domains named in `among` are dealt along, though their pictures are not compared.
        """
        both = list(dict.fromkeys([a, b]))
        here = np.flatnonzero(frame["domain"].isin([*both, *among]).to_numpy())
        part = frame.iloc[here].reset_index(drop=True)
        deals = np.full((n_splits, len(frame)), -1, dtype=np.int8)
        for split in range(n_splits):
            deals[split, here] = artist_halves(part, both, seed=seed, split=split)
        classes = halved_classes(frame, list(deals), both)
        code = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
        return cls(a, b, frame, deals, classes, code)

    @property
    def used(self) -> np.ndarray:
        """Which pictures some half holds of the classes."""
        return (self.deals >= 0).any(axis=0) & (self.code >= 0)

    @cached_property
    def meetings(self) -> list[tuple[int, int]]:
        """The halves of A and of B that share no artist."""
        return meeting_halves(self.frame, self.a, self.b)

    @cached_property
    def counts(self) -> Counts:
        """The counts that belong to a row of evidence."""
        return counts_of(self.frame[self.used], len(self.classes))

    @property
    def fewer(self) -> str:
        """What a table says of the classes that are left out; empty if none is."""
        here = self.frame["domain"].isin([self.a, self.b])
        gone = self.frame["label"][here].nunique() - len(self.classes)
        return left_out(gone)

    def too_few(self, least: int) -> str:
        """What a table says of fewer than `least` classes; empty if there are so many."""
        return too_few(len(self.classes), least)

    def rows(self, domain: str, split: int, half: int) -> np.ndarray:
        """Row numbers of a domain's pictures in one half."""
        here = (self.frame["domain"] == domain).to_numpy() & (self.code >= 0)
        return np.flatnonzero(here & (self.deals[split] == half))

    def everyone(self, domain: str) -> np.ndarray:
        """Row numbers of a domain's pictures that some half holds."""
        return np.flatnonzero(self.used & (self.frame["domain"] == domain).to_numpy())

    def means(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean of some rows of `values` per class, "class feature"."""
        share = (self.code[rows] == np.arange(len(self.classes))[:, None]).astype(float)
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
        return share @ values[rows]


def left_out(n_classes: int) -> str:
    """What a table says of classes that are left out; empty for none."""
    return f"{n_classes} classes left out: not by two artists in both domains" * bool(n_classes)


def too_few(n_classes: int, least: int) -> str:
    """What a table says of fewer than `least` classes; empty for enough."""
    why = f"{n_classes} classes by two artists in both domains, {least} are needed"
    return why if n_classes < least else ""


def refuse_few_classes(n_classes: Iterable[int], least: int, asked: str, why: str = "") -> None:
    """Refuse to compare domains where no pair has `least` classes; `n_classes` has one per pair.

    Raises:
        SampleError: Where the largest number of classes is below `least`.
    """
    most = max(n_classes, default=0)
    if most < least:
        given = f"at most {most} classes with pictures by two artists in both of two domains"
        do = "give more classes, or two pictures of each class and domain"
        raise SampleError(asked, given, f"at least {least}{why}", do)


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

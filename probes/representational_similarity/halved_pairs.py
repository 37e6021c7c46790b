"""Two domains whose artists are dealt into halves, and the classes that every half has of both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp.core.artists import artist_halves, halved_classes, meeting_halves
from interp.core.errors import SampleError
from interp.core.statistics.evidence_rows import counts_of


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
    def counts(self) -> dict[str, Any]:
        """The counts that belong to a row of evidence."""
        return counts_of(self.frame[self.used], len(self.classes))

    @property
    def fewer(self) -> str:
        """What a table says of the classes that are left out; empty if none is."""
        here = self.frame["domain"].isin([self.a, self.b])
        gone = self.frame["label"][here].nunique() - len(self.classes)
        return f"{gone} classes left out: not by two artists in both domains" if gone else ""

    def too_few(self, least: int) -> str:
        """What a table says of fewer than `least` classes; empty if there are so many."""
        n = len(self.classes)
        said = f"{n} classes by two artists in both domains, {least} are needed"
        return said if n < least else ""

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


def refuse_few_classes(n_classes: Iterable[int], least: int, asked: str, why: str = "") -> None:
    """Refuse to compare domains where no pair has `least` classes; `n_classes` has one per pair.

    Raises:
        SampleError: Where the largest number of classes is below `least`.
    """
    most = max(n_classes, default=0)
    if most < least:
        raise SampleError(
            asked,
            f"at most {most} classes with pictures by two artists in both of two domains",
            f"at least {least}{why}",
            "give more classes, or two pictures of each class and domain",
        )

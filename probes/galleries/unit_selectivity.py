"""Selectivity of units: how well each tells one class from all others, and one domain from another.

A class is chosen on the drawings of one half of the artists and scored on those of the other half,
in the same domain or in another: among many classes the best would look selective by luck.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import csr_matrix

from interp.core.artists import artist_sides, artists_of, n_drawings
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval

FOR_CLASS, FOR_DOMAIN = "class selectivity", "domain selectivity"
"""The measures, as the table names them."""

N_PERMUTATIONS = 99
HALVES = (0, 1)
UPPER = 0.95
"""Of random directions, the quantile that stands beside a unit's number."""


@dataclass(frozen=True, eq=False)
class Selectivity:
    """The numbers of pictures, "picture unit", asked what they tell apart.

    `random` are those of random units of the same pictures.
    """

    values: np.ndarray
    random: np.ndarray
    frame: pd.DataFrame
    domains: Sequence[str]
    seed: int = 0

    @cached_property
    def classes(self) -> list[str]:
        """The classes that every domain has drawings of in both halves of the artists."""
        found = [set(self._labels(rows)) for rows in self._cells.values()]
        return sorted(set.intersection(*found))

    @cached_property
    def constant(self) -> np.ndarray:
        """Which units are the same for all pictures."""
        return np.ptp(self.values, axis=0) == 0

    def by_class(self) -> pd.DataFrame:
        """A row for each unit and each two domains: where its class is chosen, and where scored."""
        if len(self.classes) < 2:
            return pd.DataFrame()
        every = [rows for domain in self.domains for rows in self._scored_in(domain)]
        return pd.concat(every, ignore_index=True)

    def by_domain(self) -> pd.DataFrame:
        """A row for each unit and each two domains, classes counted alike."""
        every = [self._of_domain(*pair) for pair in combinations(self.domains, 2)]
        return pd.concat(every, ignore_index=True) if every else pd.DataFrame()

    @cached_property
    def _sides(self) -> np.ndarray:
        return artist_sides(self.frame, seed=self.seed)

    @cached_property
    def _cells(self) -> dict[tuple[str, int], np.ndarray]:
        """The rows of each domain and half."""
        domain = self.frame["domain"].to_numpy(object)
        return {(name, half): np.flatnonzero((domain == name) & (self._sides == half))
                for name in self.domains for half in HALVES}  # fmt: skip

    def _labels(self, rows: np.ndarray) -> np.ndarray:
        return self.frame["label"].to_numpy(object)[rows]

    @cached_property
    def _both(self) -> np.ndarray:
        return np.concatenate([self.values, self.random], axis=1)

    @cached_property
    def _ranked(self) -> dict[tuple[str, int], "_Ranked"]:
        """The pictures of each domain and half; random units stand behind the units."""
        named = pd.Index(self.classes)
        return {
            cell: _Ranked(
                self._both[rows],
                named.get_indexer(self._labels(rows)),
                _drawings(self.frame.iloc[rows]),
            )
            for cell, rows in self._cells.items()
        }

    @cached_property
    def _scores(self) -> dict[tuple[str, int], np.ndarray]:
        """AUROCs "class unit" of each domain and half."""
        n, width = len(self.classes), self._both.shape[1]
        return {cell: each.aurocs(n, width) for cell, each in self._ranked.items()}

    def _scored_in(self, b: str) -> Iterator[pd.DataFrame]:
        """The rows of every domain in which the classes may be chosen."""
        n, told = self.values.shape[1], [self._scores[b, half] for half in HALVES]
        every = np.arange(told[0].shape[1])
        chosen = {a: [self._scores[a, h].argmax(axis=0) for h in HALVES] for a in self.domains}
        values = {a: _mean(told, of, every) for a, of in chosen.items()}
        p = self._permuted_p(b, chosen, values)
        labels = np.asarray(self.classes, dtype=object)
        about = self._about(
            b, "drawing", "another class than the chosen one",
            "the class is chosen on other artists' drawings",
        )  # fmt: skip
        for a, of in chosen.items():
            total = np.mean([one.sum(axis=0) for one in told], axis=0)
            others = (total - values[a]) / (len(labels) - 1)
            first, second = (labels[one[:n]] for one in of)
            names = [one if one == two else f"{one}, {two}"
                     for one, two in zip(first, second, strict=True)]  # fmt: skip
            error, drawings = self._errors(b, [one[:n] for one in of])
            yield self._rows(FOR_CLASS, (a, b), about, values[a], others, p[a], error, drawings,
                             names)  # fmt: skip

    def _permuted_p(
        self, b: str, chosen: Mapping[str, list[np.ndarray]], values: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """How often units score as high where a domain's drawings have traded classes.

        Of the domain itself the classes are chosen anew each time: what both halves choose scores
        high in both.
        """
        n, size = self.values.shape[1], len(self.classes)
        every, at_least = np.arange(n), {a: np.ones(n) for a in chosen}
        deals = [
            _dealt_anew(
                self.frame.iloc[self._cells[b, half]], rng(f"trades in {b}", self.seed, half)
            )
            for half in HALVES
        ]
        for _ in range(N_PERMUTATIONS):
            told = [
                self._ranked[b, half].aurocs(size, n, next(deal))
                for half, deal in zip(HALVES, deals, strict=True)
            ]
            for a, of in chosen.items():
                mine = [one.argmax(axis=0) for one in told] if a == b else [one[:n] for one in of]
                at_least[a] += _mean(told, mine, every) >= values[a][:n] - 1e-12
        return {a: count / (1 + N_PERMUTATIONS) for a, count in at_least.items()}

    def _errors(self, domain: str, chosen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The standard error of each unit's AUROC, and how many drawings of its class it is of.

        The halves share no artist. The drawings of the class and the other classes are resampled,
        as wholes, by the variance of their placements (DeLong et al. 1988, Obuchowski 1997).
        """
        found = [
            self._ranked[domain, 1 - half].variance(of) for half, of in enumerate(chosen)
        ]  # fmt: skip
        variances, counts = zip(*found, strict=True)
        return np.sqrt(np.sum(variances, axis=0)) / len(found), np.sum(counts, axis=0)

    def _of_domain(self, a: str, b: str) -> pd.DataFrame:
        n = self.values.shape[1]
        cells = self.frame.groupby(["label", "domain"]).indices
        found = [
            placements(self._both[rows], self._both[cells[label, b]])[0].mean(axis=0)
            for (label, domain), rows in cells.items()
            if domain == a and (label, b) in cells
        ]
        if not found:
            return pd.DataFrame()
        each = np.stack(found)
        value, size = each.mean(axis=0), len(each)
        spread = each[:, :n].std(axis=0, ddof=1) if size > 1 else np.full(n, np.nan)
        signs = rng("signs of classes", self.seed).choice([-1.0, 1.0], (N_PERMUTATIONS, size))
        drawn = np.abs(signs @ (each[:, :n] - 0.5)) / size
        at_least = (drawn >= np.abs(value[:n] - 0.5) - 1e-12).sum(axis=0)
        about = self._about(
            b, "class", "the domains' names exchanged, class by class: .5",
            f"share of pictures of {a} above those of {b}, mean over classes",
        )  # fmt: skip
        p = (1 + at_least) / (1 + N_PERMUTATIONS)
        half = np.full(len(value), 0.5)
        return self._rows(FOR_DOMAIN, (a, b), about, value, half, p, spread / np.sqrt(size),
                          np.full(n, float(size)), [""] * n)  # fmt: skip

    def _about(self, domain: str, unit: str, null: str, estimand: str) -> Evidence:
        rows = self.frame[self.frame["domain"] == domain]
        return Evidence(
            estimand=estimand, null_kind=null, seed=self.seed, n_units=0, unit=unit,
            n_pictures=len(rows), n_drawings=n_drawings(rows),
        )  # fmt: skip

    def _rows(
        self,
        measure: str,
        ends: tuple[str, str],
        about: Evidence,
        value: np.ndarray,
        null: np.ndarray,
        p: np.ndarray,
        error: np.ndarray,
        n_units: np.ndarray,
        names: Sequence[str],
    ) -> pd.DataFrame:
        """A row for each unit; behind the units stand random units, which they are beside."""
        n = self.values.shape[1]
        chance = value[n:]
        beside = {
            "random": chance.mean() if len(chance) else np.nan,
            "random_high": np.quantile(chance, UPPER) if len(chance) else np.nan,
        }
        reach = stats.t.ppf(0.975, np.maximum(n_units - 1, 1)) * error
        rows = []
        for unit in range(n):
            dead = bool(self.constant[unit])
            known = not dead and n_units[unit] > 1
            low, high = (
                np.clip(value[unit] + sign * reach[unit], 0, 1) if known else np.nan
                for sign in (-1, 1)
            )
            found = Interval(value[unit], error[unit], low, high)
            reason = "the same for all pictures" if dead else ""
            row = about.row(found, null=null[unit], p=np.nan if dead else p[unit], reason=reason)
            named = {"measure": measure, "domain_a": ends[0], "domain_b": ends[1]}
            rows.append({"feature": unit, **named, "label": "" if dead else names[unit], **row,
                         "n_units": n_units[unit], **beside})  # fmt: skip
        return pd.DataFrame(rows)


def _drawings(frame: pd.DataFrame) -> np.ndarray:
    """Which drawing each picture shows, or who made it where drawings are not known."""
    if "drawing" in frame.columns and frame["drawing"].notna().all():
        return frame["drawing"].astype(str).to_numpy(object)
    return artists_of(frame)


def _mean(told: Sequence[np.ndarray], of: Sequence[np.ndarray], every: np.ndarray) -> np.ndarray:
    """What each half says of the class that the other chose, mean of both."""
    return (told[1][of[0], every] + told[0][of[1], every]) / 2


def _dealt_anew(frame: pd.DataFrame, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Orders of pictures in which drawings have traded classes, each with another of its artist.

    A picture gets a picture of the drawing whose class it takes. Where artists are not known, any
    drawing trades with any other.
    """
    drawing, place = np.unique(_drawings(frame).astype(str), return_inverse=True)
    first = np.unique(place, return_index=True)[1]
    known = "artist" in frame.columns and frame["artist"].notna().all()
    who = frame["artist"].to_numpy(object)[first] if known else np.zeros(len(drawing))
    groups = [np.flatnonzero(who == name) for name in pd.unique(who)]
    while True:
        order = np.arange(len(drawing))
        for group in groups:
            order[group] = generator.permutation(group)
        yield first[order][place]


def placements(above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each picture above, the share of those below that it exceeds, and the reverse, by unit.

    Ties count half. The mean of either is the AUROC.

    >>> placements(np.array([[2.0], [0.0]]), np.array([[1.0]]))[0].tolist()
    [[1.0], [0.0]]
    """
    first, second = np.empty(above.shape), np.empty(below.shape)
    size = max(1, COMPARED // (len(above) * len(below)))
    for start in range(0, above.shape[1], size):
        units = slice(start, start + size)
        one, two = above[:, None, units], below[None, :, units]
        exceeds = (one > two).astype(np.float32)
        exceeds += 0.5 * (one == two)
        first[:, units], second[:, units] = exceeds.mean(axis=1), exceeds.mean(axis=0)
    return first, second


COMPARED = 2_000_000
"""So many pairs of numbers are compared at a time."""


class _Ranked:
    """Pictures in the order of each unit's numbers, with their classes and drawings.

    `least` and `most` are how many pictures lie below, and not above, each number.
    """

    def __init__(self, values: np.ndarray, codes: np.ndarray, drawings: np.ndarray) -> None:
        self.order = values.argsort(axis=0, kind="stable")
        self.least, self.most = _ties(values, self.order)
        self.twice_ranks = (self.least + self.most + 1).astype(np.float32)
        self.codes, self.by_class = codes, _members(codes)
        self.by_drawing = _members(np.unique(drawings.astype(str), return_inverse=True)[1])

    def aurocs(
        self, n_classes: int, width: int, order: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """How often a picture of a class has the larger number, "class unit", of the first units.

        With an `order` pictures have the classes of others. Ties count half (Mann and Whitney
        1947).
        """
        of = self.codes[order] == np.arange(n_classes)[:, None]
        n = of.sum(axis=1)[:, None]
        # twice a rank is whole, and its sums are exact in float32 below 2^24
        twice = of.astype(np.float32) @ self.twice_ranks[:, :width]
        return (twice / 2.0 - n * (n + 1) / 2) / (n * (of.shape[1] - n))

    def placements(self, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pictures are of each unit's class, and what share of the other side they exceed.

        For a picture of another class it is the share of the class's pictures that lie below it.
        """
        mine = self.codes[:, None] == of
        below = np.zeros((len(mine) + 1, len(of)))
        order, least, most = (each[:, : len(of)] for each in (self.order, self.least, self.most))
        np.cumsum(np.take_along_axis(mine, order, axis=0), axis=0, out=below[1:])
        of_class = (
            np.take_along_axis(below, least, axis=0) + np.take_along_axis(below, most, axis=0)
        ) / 2
        n = mine.sum(axis=0)
        others = (least + most) / 2 - of_class
        return mine, np.where(mine, others / (len(mine) - n), of_class / n)

    def variance(self, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The variance of each unit's AUROC for its class, and the drawings of that class.

        NaN where one side is a single drawing or class.
        """
        mine, shares = self.placements(of)
        variance = np.zeros(len(of))
        for side, groups in ((mine, self.by_drawing), (~mine, self.by_class)):
            n = side.sum(axis=0)
            off = np.where(side, shares - (shares * side).sum(axis=0) / n, 0)
            k = ((groups @ side.astype(float)) > 0).sum(axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance += ((groups @ off) ** 2).sum(axis=0) * k / (k - 1) / n**2
        return variance, ((self.by_drawing @ mine.astype(float)) > 0).sum(axis=0)


def _ties(values: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many numbers lie below each number of its column, and how many not above it."""
    ordered, n = np.take_along_axis(values, order, axis=0), len(values)
    new = np.ones((n + 1, values.shape[1]), dtype=bool)
    new[1:-1] = ordered[1:] != ordered[:-1]
    places = np.arange(n)[:, None]
    begins = np.maximum.accumulate(np.where(new[:-1], places, 0), axis=0)
    ends = np.minimum.accumulate(np.where(new[1:], places + 1, n)[::-1], axis=0)[::-1]
    least, most = np.empty_like(order), np.empty_like(order)
    np.put_along_axis(least, order, begins, axis=0)
    np.put_along_axis(most, order, ends, axis=0)
    return least, most


def _members(codes: np.ndarray) -> Any:
    """Which pictures each group has, "group picture", as a sparse matrix."""
    every = np.arange(len(codes))
    return csr_matrix((np.ones(len(codes)), (codes - codes.min(), every)))

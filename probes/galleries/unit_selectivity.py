"""Selectivity of units: how well each tells one class from all others, and one domain from another.

A class is chosen on the drawings of one half of the artists and scored on those of the other half,
in the same domain or in another: among many classes the best would look selective by luck.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import csr_matrix

from interp.core.artists import artist_column, artist_sides, artists_of, n_drawings
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval


class Ranked:
    """Pictures in the order of each unit's numbers, "picture unit"; equal ones count half.

    `least` and `most` are how many pictures lie below each number, and not above it.

    >>> ranked = Ranked(np.array([[3.0], [2.0], [1.0], [1.0]]))
    >>> ranked.aurocs(np.array([[True, False, True, False]])).tolist()
    [[0.625]]
    """

    def __init__(self, values: np.ndarray) -> None:
        self.order = values.argsort(axis=0, kind="stable")
        self.least, self.most = _ties(values, self.order)
        # twice a rank is whole, and its sums are exact in float32 below 2^24
        self.twice_ranks = (self.least + self.most + 1).astype(np.float32)

    def aurocs(self, groups: np.ndarray, width: int | None = None) -> np.ndarray:
        """How often a picture of a group has the larger number than another, "group unit".

        `groups` are "group picture", the same for all units, or for the first `width` of them
        (Mann and Whitney 1947).
        """
        n = groups.sum(axis=1)[:, None]
        twice = groups.astype(np.float32) @ self.twice_ranks[:, :width]
        return (twice / 2.0 - n * (n + 1) / 2) / (n * (groups.shape[1] - n))

    def aurocs_of(self, mine: np.ndarray) -> np.ndarray:
        """The same for groups of each unit's own, "picture unit"; NaN for none or all pictures."""
        n = mine.sum(axis=0)
        above = (mine * self.twice_ranks[:, : mine.shape[1]]).sum(axis=0, dtype=float) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return (above - n * (n + 1) / 2) / (n * (len(mine) - n))

    def placements(self, mine: np.ndarray) -> np.ndarray:
        """What share of the other side each picture exceeds, "picture unit".

        `mine` says which pictures are of each unit's own group. For a picture of the others it is
        the share of the group's pictures that lie below it.
        """
        order, least, most = (
            each[:, : mine.shape[1]] for each in (self.order, self.least, self.most)
        )
        below = np.zeros((len(mine) + 1, mine.shape[1]))
        np.cumsum(np.take_along_axis(mine, order, axis=0), axis=0, out=below[1:])
        of_group = (
            np.take_along_axis(below, least, axis=0) + np.take_along_axis(below, most, axis=0)
        ) / 2
        n = mine.sum(axis=0)
        others = (least + most) / 2 - of_group
        return np.where(mine, others / (len(mine) - n), of_group / n)

    def variance(
        self, mine: np.ndarray, among_mine: csr_matrix, among_others: csr_matrix
    ) -> np.ndarray:
        """The variance of each unit's AUROC, where whole clusters of pictures may be drawn anew.

        Clusters of the group and of the others are `clusters(...)`. NaN where one side is a single
        cluster (DeLong et al. 1988; of whole clusters Obuchowski 1997).
        """
        shares, variance = self.placements(mine), np.zeros(mine.shape[1])
        for side, groups in ((mine, among_mine), (~mine, among_others)):
            n, k = side.sum(axis=0), clusters_in(side, groups)
            off = np.where(side, shares - (shares * side).sum(axis=0) / n, 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                variance += ((groups @ off) ** 2).sum(axis=0) * k / (k - 1) / n**2
        return variance


def clusters(names: np.ndarray) -> csr_matrix:
    """Which pictures each cluster has, "cluster picture", as a sparse matrix."""
    codes = pd.factorize(names.astype(str))[0]
    return csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))


def clusters_in(side: np.ndarray, groups: csr_matrix) -> np.ndarray:
    """How many clusters have a picture on a side, for each unit."""
    return ((groups @ side.astype(float)) > 0).sum(axis=0)


def drawing_column(frame: pd.DataFrame) -> str:
    """What tells drawings apart: `drawing` where all are known, else who made them."""
    known = "drawing" in frame.columns and frame["drawing"].notna().all()
    return "drawing" if known else artist_column(frame)


def drawing_of(frame: pd.DataFrame) -> np.ndarray:
    """Which drawing each picture shows, or who made it where drawings are not known."""
    if drawing_column(frame) == "drawing":
        return frame["drawing"].astype(str).to_numpy(object)
    return artists_of(frame)


def traded(frame: pd.DataFrame, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Orders of pictures in which drawings have changed places, each with another of its artist.

    A drawing in one domain may trade with one in another. Each picture of a drawing gets the place
    of one of the drawing that it trades with, in turn. Where drawings are not known a picture
    trades alone, and where artists are not, with any other.
    """
    alone = drawing_column(frame) != "drawing"
    names = np.arange(len(frame)) if alone else drawing_of(frame)
    _, first, place, size = np.unique(
        pd.factorize(pd.MultiIndex.from_arrays([names, frame["domain"]]))[0],
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    rows = np.argsort(place, kind="stable")
    begins = np.cumsum(size) - size
    turn = np.empty_like(place)
    turn[rows] = np.arange(len(place)) - begins[place[rows]]
    known = "artist" in frame.columns and frame["artist"].notna().all()
    who = frame["artist"].to_numpy(object)[first] if known else np.zeros(len(first))
    groups = [np.flatnonzero(who == name) for name in pd.unique(who)]
    while True:
        order = np.arange(len(first))
        for group in groups:
            order[group] = generator.permutation(group)
        partner = order[place]
        yield rows[begins[partner] + turn % size[partner]]


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


FOR_CLASS, FOR_DOMAIN = "class selectivity", "domain selectivity"
"""The measures, as the table names them."""

N_PERMUTATIONS = 99
HALVES = (0, 1)
SAME = "the same for all pictures of a domain"
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

    def constant(self, *domains: str) -> np.ndarray:
        """Which units are the same for all pictures of these domains together."""
        return np.ptp(self.values[self.frame["domain"].isin(domains)], axis=0) == 0

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
    def _cells(self) -> dict[tuple[str, int], np.ndarray]:
        """The rows of each domain and half."""
        domain = self.frame["domain"].to_numpy(object)
        sides = artist_sides(self.frame, seed=self.seed)
        return {
            (name, half): np.flatnonzero((domain == name) & (sides == half))
            for name in self.domains
            for half in HALVES
        }

    def _labels(self, rows: np.ndarray) -> np.ndarray:
        return self.frame["label"].to_numpy(object)[rows]

    @cached_property
    def _both(self) -> np.ndarray:
        return np.concatenate([self.values, self.random], axis=1)

    @cached_property
    def _ranked(self) -> dict[tuple[str, int], Ranked]:
        """The pictures of each domain and half; random units stand behind the units."""
        return {cell: Ranked(self._both[rows]) for cell, rows in self._cells.items()}

    @cached_property
    def _codes(self) -> dict[tuple[str, int], np.ndarray]:
        """The class of each picture of a domain and half, by its place; -1 for no such class."""
        named = pd.Index(self.classes)
        return {cell: named.get_indexer(self._labels(rows)) for cell, rows in self._cells.items()}

    def _of_classes(
        self, cell: tuple[str, int], order: slice | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Which pictures each class has, "class picture"; with an `order`, those of others."""
        return self._codes[cell][order] == np.arange(len(self.classes))[:, None]

    @cached_property
    def _scores(self) -> dict[tuple[str, int], np.ndarray]:
        """AUROCs "class unit" of each domain and half."""
        return {cell: each.aurocs(self._of_classes(cell)) for cell, each in self._ranked.items()}

    def _scored_in(self, b: str) -> Iterator[pd.DataFrame]:
        """The rows of every domain in which the classes may be chosen."""
        n, scores = self.values.shape[1], [self._scores[b, half] for half in HALVES]
        every = np.arange(scores[0].shape[1])
        chosen = {a: [self._scores[a, h].argmax(axis=0) for h in HALVES] for a in self.domains}
        values = {a: _mean(scores, of, every) for a, of in chosen.items()}
        p = self._permuted_p(b, chosen, values)
        labels = np.asarray(self.classes, dtype=object)
        null = "another class than the chosen one"
        estimand = "the class is chosen on other artists' drawings"
        about = self._about(b, drawing_column(self.frame), null, estimand)
        for a, of in chosen.items():
            total = np.mean([one.sum(axis=0) for one in scores], axis=0)
            others = (total - values[a]) / (len(labels) - 1)
            error, drawings = self._errors(b, [one[:n] for one in of])
            first, again = (labels[one[:n]] for one in of)
            dead = self.constant(a) | self.constant(b)
            numbers = _Numbers(values[a], others, p[a], error, drawings, dead, first, again)
            yield self._rows(FOR_CLASS, (a, b), about, numbers)

    def _permuted_p(
        self, b: str, chosen: Mapping[str, list[np.ndarray]], values: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """How often units score as high where a domain's drawings have traded classes.

        Of the domain itself the classes are chosen anew each time: what both halves choose scores
        high in both.
        """
        n, cells = self.values.shape[1], [(b, half) for half in HALVES]
        every, at_least = np.arange(n), {a: np.ones(n) for a in chosen}
        trades = [
            traded(self.frame.iloc[self._cells[cell]], rng("trades of drawings", self.seed, half))
            for half, cell in enumerate(cells)
        ]
        for _ in range(N_PERMUTATIONS):
            scores = [
                self._ranked[cell].aurocs(self._of_classes(cell, next(trade)), n)
                for cell, trade in zip(cells, trades, strict=True)
            ]
            for a, of in chosen.items():
                mine = [one.argmax(axis=0) for one in scores] if a == b else [one[:n] for one in of]
                at_least[a] += _mean(scores, mine, every) >= values[a][:n] - 1e-12
        return {a: count / (1 + N_PERMUTATIONS) for a, count in at_least.items()}

    def _errors(self, domain: str, chosen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The standard error of each unit's AUROC, and how many drawings of its class it is of.

        The halves share no artist. The drawings of the class and the other classes are resampled,
        as wholes, by the variance of their placements (DeLong et al. 1988, Obuchowski 1997).
        """
        variance, n = np.zeros(len(chosen[0])), np.zeros(len(chosen[0]))
        for half, of in enumerate(chosen):
            cell = domain, 1 - half
            frame = self.frame.iloc[self._cells[cell]]
            by_drawing = clusters(drawing_of(frame))
            mine = self._codes[cell][:, None] == of
            by_class = clusters(frame["label"].to_numpy(object))
            variance += self._ranked[cell].variance(mine, by_drawing, by_class)
            n += clusters_in(mine, by_drawing)
        return np.sqrt(variance) / len(chosen), n

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
        null = "the domains' names exchanged, class by class: .5"
        estimand = f"share of pictures of {a} above those of {b}, mean over classes"
        p = (1 + at_least) / (1 + N_PERMUTATIONS)
        nobody = np.full(n, "", dtype=object)
        error, units, dead = spread / np.sqrt(size), np.full(n, float(size)), self.constant(a, b)
        numbers = _Numbers(value, np.full(len(value), 0.5), p, error, units, dead, nobody, nobody)
        about = self._about(b, "class", null, estimand)
        return self._rows(FOR_DOMAIN, (a, b), about, numbers)

    def _about(self, domain: str, unit: str, null: str, estimand: str) -> Evidence:
        rows = self.frame[self.frame["domain"] == domain]
        return Evidence(
            estimand=estimand,
            null_kind=null,
            seed=self.seed,
            n_units=0,
            unit=unit,
            n_pictures=len(rows),
            n_drawings=n_drawings(rows),
        )

    def _rows(
        self, measure: str, ends: tuple[str, str], about: Evidence, numbers: "_Numbers"
    ) -> pd.DataFrame:
        """A row for each unit, with random units beside it."""
        chance = numbers.value[self.values.shape[1] :]
        beside = {"random": chance.mean(), "random_high": np.quantile(chance, UPPER)}
        reach = stats.t.ppf(0.975, np.maximum(numbers.n_units - 1, 1)) * numbers.error
        rows = []
        for unit, dead in enumerate(numbers.dead):
            value, known = float(numbers.value[unit]), not dead and numbers.n_units[unit] > 1
            low, high = (
                float(np.clip(value + sign * reach[unit], 0, 1)) if known else np.nan
                for sign in (-1, 1)
            )
            row = about.row(
                Interval(value, float(numbers.error[unit]), low, high),
                null=float(numbers.null[unit]),
                p=np.nan if dead else float(numbers.p[unit]),
                reason=SAME if dead else "",
            )
            place = {"feature": unit, "measure": measure, "domain_a": ends[0], "domain_b": ends[1]}
            chosen = (numbers.label[unit], numbers.label_again[unit])
            label, again = ("", "") if dead else chosen
            named = {"label": label, "label_again": again}
            rows.append(place | named | row | {"n_units": numbers.n_units[unit]} | beside)
        return pd.DataFrame(rows)


class _Numbers(NamedTuple):
    """The numbers of all units for two domains; those of random units stand behind `value`."""

    value: np.ndarray
    null: np.ndarray
    p: np.ndarray
    error: np.ndarray
    n_units: np.ndarray
    dead: np.ndarray
    label: np.ndarray
    label_again: np.ndarray


def _mean(scores: Sequence[np.ndarray], of: Sequence[np.ndarray], every: np.ndarray) -> np.ndarray:
    """What each half says of the class that the other chose, mean of both."""
    return (scores[1][of[0], every] + scores[0][of[1], every]) / 2


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

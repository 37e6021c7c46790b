"""Selectivity of units: how well each tells one class from all others, and one domain from another.

A class is chosen on the drawings of one half of the artists and scored on those of the other half,
in the same domain or in another: among many classes the best would look selective by luck.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.artists import artist_sides, n_drawings
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval
from interp.probes.galleries.ranked_units import (
    Ranked,
    clusters,
    clusters_in,
    drawing_column,
    drawing_of,
    traded,
)

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
    def _sides(self) -> np.ndarray:
        return artist_sides(self.frame, seed=self.seed)

    @cached_property
    def _cells(self) -> dict[tuple[str, int], np.ndarray]:
        """The rows of each domain and half."""
        domain = self.frame["domain"].to_numpy(object)
        return {
            (name, half): np.flatnonzero((domain == name) & (self._sides == half))
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

    def _of_classes(self, cell: tuple[str, int], order: Any = slice(None)) -> np.ndarray:
        """Which pictures each class has, "class picture"; with an `order`, those of others."""
        return self._codes[cell][order] == np.arange(len(self.classes))[:, None]

    @cached_property
    def _scores(self) -> dict[tuple[str, int], np.ndarray]:
        """AUROCs "class unit" of each domain and half."""
        return {cell: each.aurocs(self._of_classes(cell)) for cell, each in self._ranked.items()}

    def _scored_in(self, b: str) -> Iterator[pd.DataFrame]:
        """The rows of every domain in which the classes may be chosen."""
        n, told = self.values.shape[1], [self._scores[b, half] for half in HALVES]
        every = np.arange(told[0].shape[1])
        chosen = {a: [self._scores[a, h].argmax(axis=0) for h in HALVES] for a in self.domains}
        values = {a: _mean(told, of, every) for a, of in chosen.items()}
        p = self._permuted_p(b, chosen, values)
        labels = np.asarray(self.classes, dtype=object)
        about = self._about(
            b,
            drawing_column(self.frame),
            "another class than the chosen one",
            "the class is chosen on other artists' drawings",
        )
        for a, of in chosen.items():
            total = np.mean([one.sum(axis=0) for one in told], axis=0)
            others = (total - values[a]) / (len(labels) - 1)
            error, drawings = self._errors(b, [one[:n] for one in of])
            first, again = (labels[one[:n]] for one in of)
            dead = self.constant(a) | self.constant(b)
            told_of = _Told(values[a], others, p[a], error, drawings, dead, first, again)
            yield self._rows(FOR_CLASS, (a, b), about, told_of)

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
            told = [
                self._ranked[cell].aurocs(self._of_classes(cell, next(trade)), n)
                for cell, trade in zip(cells, trades, strict=True)
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
        about = self._about(
            b,
            "class",
            "the domains' names exchanged, class by class: .5",
            f"share of pictures of {a} above those of {b}, mean over classes",
        )
        p = (1 + at_least) / (1 + N_PERMUTATIONS)
        nobody = np.full(n, "", dtype=object)
        told = _Told(
            value,
            np.full(len(value), 0.5),
            p,
            spread / np.sqrt(size),
            np.full(n, float(size)),
            self.constant(a, b),
            nobody,
            nobody,
        )
        return self._rows(FOR_DOMAIN, (a, b), about, told)

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
        self, measure: str, ends: tuple[str, str], about: Evidence, told: "_Told"
    ) -> pd.DataFrame:
        """A row for each unit, with random units beside it."""
        chance = told.value[self.values.shape[1] :]
        beside = {"random": chance.mean(), "random_high": np.quantile(chance, UPPER)}
        reach = stats.t.ppf(0.975, np.maximum(told.n_units - 1, 1)) * told.error
        rows = []
        for unit, dead in enumerate(told.dead):
            value, known = float(told.value[unit]), not dead and told.n_units[unit] > 1
            low, high = (
                float(np.clip(value + sign * reach[unit], 0, 1)) if known else np.nan
                for sign in (-1, 1)
            )
            row = about.row(
                Interval(value, float(told.error[unit]), low, high),
                null=float(told.null[unit]),
                p=np.nan if dead else float(told.p[unit]),
                reason=SAME if dead else "",
            )
            rows.append(
                {
                    "feature": unit,
                    "measure": measure,
                    "domain_a": ends[0],
                    "domain_b": ends[1],
                    "label": "" if dead else told.label[unit],
                    "label_again": "" if dead else told.label_again[unit],
                    **row,
                    "n_units": told.n_units[unit],
                    **beside,
                }
            )
        return pd.DataFrame(rows)


class _Told(NamedTuple):
    """The numbers of all units for two domains; those of random units stand behind `value`."""

    value: np.ndarray
    null: np.ndarray
    p: np.ndarray
    error: np.ndarray
    n_units: np.ndarray
    dead: np.ndarray
    label: np.ndarray
    label_again: np.ndarray


def _mean(told: Sequence[np.ndarray], of: Sequence[np.ndarray], every: np.ndarray) -> np.ndarray:
    """What each half says of the class that the other chose, mean of both."""
    return (told[1][of[0], every] + told[0][of[1], every]) / 2


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

"""Products of cell means (class in domain) of two halves, from which factors of variance follow.

The halves share no artist, so that a product of one half's mean with the other's holds no noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from interp.core.artists import artist_halves, halved_classes
from interp.core.errors import SampleError, listed
from interp.core.seeds import rng
from interp.probes.representational_similarity.kernel_alignment import u_centred

LEAST_CLASSES = 5
"""Four for unbiased products of classes, and one to leave out."""


def dealt_cells(
    frame: pd.DataFrame, names: Sequence[str], *, n_splits: int, seed: int
) -> tuple[list[str], list["CellLayout"]]:
    """Classes with pictures by two artists in every domain, and their cells in each deal."""
    deals = [artist_halves(frame, names, seed=seed, split=split) for split in range(n_splits)]
    classes = halved_classes(frame, deals, names)
    if len(names) < 2 or len(classes) < LEAST_CLASSES:
        raise SampleError(
            f"factorise {listed(names)}",
            f"{len(names)} domains and {len(classes)} classes with pictures by two artists in each",
            f"at least two domains and {LEAST_CLASSES} classes",
            "give more classes, or leave a domain out that has few",
        )
    return classes, [CellLayout.of(frame, deal, classes, names) for deal in deals]


@dataclass(frozen=True)
class CellLayout:
    """The pictures of one deal: their rows, cells (half, class, domain) and classes."""

    rows: np.ndarray
    cell: np.ndarray
    label: np.ndarray
    n: tuple[int, int]

    @property
    def domain(self) -> np.ndarray:
        """The place of each picture's domain."""
        return self.cell % self.n[1]

    @property
    def half(self) -> np.ndarray:
        """The half of each picture's artist, 0 or 1."""
        return self.cell // (self.n[0] * self.n[1])

    @staticmethod
    def of(
        frame: pd.DataFrame, deal: np.ndarray, classes: Sequence[str], names: Sequence[str]
    ) -> "CellLayout":
        label = pd.Index(classes).get_indexer(frame["label"].to_numpy(object))
        domain = pd.Index(names).get_indexer(frame["domain"].to_numpy(object))
        rows = np.flatnonzero((deal >= 0) & (label >= 0) & (domain >= 0))
        n = len(classes), len(names)
        cell = (deal[rows].astype(int) * n[0] + label[rows]) * n[1] + domain[rows]
        return CellLayout(rows, cell, label[rows], n)


@dataclass(frozen=True)
class CellProducts:
    """Inner products of one deal from which everything follows, with any class left out.

    gram: half-1 by half-2 cell means, "class domain class domain"; square: mean |x|^2 "class";
    along: residuals on both halves' class means, "half picture class"; spread: residual |r|^2
    "picture"; label and half "picture".
    """

    gram: np.ndarray
    square: np.ndarray
    along: np.ndarray
    spread: np.ndarray
    label: np.ndarray
    half: np.ndarray
    residual: np.ndarray

    @staticmethod
    def of(values: np.ndarray, layout: CellLayout) -> "CellProducts":
        x = values[layout.rows].astype(np.float64)
        x -= x.mean(axis=0)
        n_classes, n_domains = layout.n
        counts = np.bincount(layout.cell, minlength=2 * n_classes * n_domains)
        order = np.argsort(layout.cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        means = np.add.reduceat(x[order], starts, axis=0) / counts[:, None]
        square = np.bincount(layout.cell, (x**2).sum(axis=1)) / counts
        residual = x - means[layout.cell]
        # a mean takes 1 / n of its own cell's variance out of the residuals
        residual *= np.sqrt(counts / np.maximum(counts - 1, 1))[layout.cell][:, None]
        residual /= np.sqrt(counts[layout.cell])[:, None]  # cells count equally
        cells = means.reshape(2, n_classes, n_domains, -1)
        shape = (n_classes, n_domains, n_classes, n_domains)
        flat = means.reshape(2, n_classes * n_domains, -1)
        return CellProducts(
            (flat[0] @ flat[1].T).reshape(shape),
            square.reshape(2, n_classes, n_domains).mean(axis=(0, 2)),
            np.stack([residual @ cells[half].mean(axis=1).T for half in (0, 1)]),
            (residual**2).sum(axis=1),
            layout.label,
            layout.half,
            residual,
        )

    def effects(self, keep: np.ndarray) -> np.ndarray:
        """Mean squared class, domain and interaction effects, and the total, of some classes."""
        gram = self.gram[keep][:, :, keep]
        everything = gram.mean()
        by_class = np.einsum("cdce->c", gram).mean() / gram.shape[1] ** 2
        by_domain = np.einsum("cdkd->d", gram).mean() / len(keep) ** 2
        by_cell = np.einsum("cdcd->", gram) / (len(keep) * gram.shape[1])
        interaction = by_cell - by_class - by_domain + everything
        total = self.square[keep].mean() - everything
        return np.array([by_class - everything, by_domain - everything, interaction, total])

    def own(self, keep: np.ndarray) -> np.ndarray:
        """Mean squared class effects within each domain, of some classes."""
        within = np.einsum("cdkd->dck", self.gram[keep][:, :, keep])
        return np.einsum("dcc->d", within) / len(keep) - within.mean(axis=(1, 2))

    def angle(self, keep: np.ndarray) -> np.ndarray:
        """beta'S beta summed, tr S W, tr W, tr S and tr S^2, of some classes."""
        n = len(keep)
        gram = self.gram[keep][:, :, keep]
        classes = gram.mean(axis=(1, 3))
        meet = _centred(gram.mean(axis=(1, 2))) * _centred(gram.mean(axis=(0, 3)).T)
        held = np.isin(self.label, keep)
        along = self.along[:, held][:, :, keep]
        along = along - along.mean(axis=2, keepdims=True)
        effect = np.trace(classes) - classes.mean() * n
        square = (u_centred(classes) * u_centred(classes.T)).sum() / (n * (n - 3))
        through = (along[0] * along[1]).sum()
        sums = [meet.sum() / gram.shape[1], through, self.spread[held].sum() * (n - 1), effect]
        return np.array([*(each / (n - 1) for each in sums), square])

    def domain_sizes(self, keep: np.ndarray) -> np.ndarray:
        """tr S and tr S^2 of the covariance S of the effects of these domains."""
        domains = _centred(self.gram[keep][:, :, keep].mean(axis=(0, 2)))
        n = len(domains)
        return np.array([np.trace(domains), (domains * domains.T).sum() / (n - 1)]) / (n - 1)

    def sizes_within(self) -> np.ndarray:
        """tr W and tr W^2 of the mean covariance W of pictures within their cells."""
        n_cells = self.gram.shape[0] * self.gram.shape[1]
        first, second = (self.residual[self.half == half] for half in (0, 1))
        square = ((first @ second.T) ** 2).sum() / n_cells**2
        return np.array([self.spread.sum() / (2 * n_cells), square])

    def permuted(self, n_permutations: int, seed: int) -> dict[str, np.ndarray]:
        """Class and domain effects with classes permuted in each domain, domains in each class."""
        n, n_domains = self.gram.shape[:2]
        orders, turns = exchanges(n, n_domains, n_permutations, seed)
        domain = np.arange(n_domains)
        met = self.gram[orders[:, :, :, None], domain[:, None], orders[:, :, None, :], domain]
        # which cells stand in a domain's place, as ones: "permutation domain cell"
        cells = np.arange(n) * n_domains + turns.swapaxes(1, 2)
        chosen = np.zeros((n_permutations * n_domains, n * n_domains))
        np.put_along_axis(chosen, cells.reshape(len(chosen), n), 1.0, axis=1)
        gram = self.gram.reshape(n * n_domains, n * n_domains)
        moved = np.einsum("pc,pc->p", chosen @ gram, chosen).reshape(n_permutations, n_domains)
        everything = self.gram.mean()
        return {
            "class": met.mean(axis=(1, 2, 3)) - everything,
            "domain": moved.mean(axis=1) / n**2 - everything,
        }

    def random_angles(self, n_draws: int, n_domains: int, seed: int) -> np.ndarray:
        """g'S g / g'g of random directions g within cells, as many at a time as domain effects."""
        weights = rng("directions within cells", seed).normal(
            size=(n_draws, n_domains - 1, len(self.spread))
        )
        along = weights @ (self.along - self.along.mean(axis=2, keepdims=True))[:, None]
        through = (along[0] * along[1]).sum(axis=(1, 2)) / (self.gram.shape[0] - 1)
        length = ((weights @ self.residual) ** 2).sum(axis=(1, 2))
        return np.divide(through, length, out=np.zeros_like(through), where=length > 0)


@lru_cache(maxsize=4)
def exchanges(
    n: int, n_domains: int, n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orders of the classes within domains, and of the domains within classes.

    Both are "permutation class domain".
    """
    generator = rng("class permutations in each domain", seed)
    orders = np.empty((n_permutations, n, n_domains), dtype=np.intp)
    turns = np.empty_like(orders)
    for place in range(n_permutations):
        for domain in range(n_domains):
            orders[place, :, domain] = generator.permutation(n)
        turns[place] = np.argsort(generator.random((n, n_domains)), axis=1)
    return orders, turns


def _centred(table: np.ndarray) -> np.ndarray:
    """A table less its row and column means."""
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    return table - rows - columns + table.mean()

"""Products of cell means (class in domain) of two halves, from which factors of variance follow.

The halves share no artist, so that a product of one half's mean with the other's holds no noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from interp.core.artists import artist_halves, halved_classes
from interp.core.errors import SampleError, listed
from interp.core.seeds import rng


def without_each(table: np.ndarray) -> np.ndarray:
    """Sums of a table "class class ...", "left ...": of all classes, then without each.

    >>> without_each(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [10.0, 4.0, 1.0]
    """
    own = np.einsum("cc...->c...", table)
    total = table.sum(axis=(0, 1))
    left = total - table.sum(axis=0) - table.sum(axis=1) + own
    return np.concatenate([total[None], left])


def without_each_own(table: np.ndarray) -> np.ndarray:
    """Sums of the diagonal of a table "class class ...", "left ...".

    >>> without_each_own(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [5.0, 4.0, 1.0]
    """
    own = np.einsum("cc...->c...", table)
    total = own.sum(axis=0)
    return np.concatenate([total[None], total - own])


def u_squares(table: np.ndarray) -> np.ndarray:
    """Inner products of a U-centred table "class class" with that of its transpose, "left".

        sum_{i != j} K_ij K_ji - (|r|^2 + |c|^2) / (n - 2) + s^2 / ((n - 1)(n - 2))

    with r and c the sums of rows and columns and s the sum of all, without the diagonal.

    >>> round(float(u_squares(np.ones((5, 5)))[0]), 12)
    0.0
    """
    off = table - np.diag(np.diagonal(table))
    rows, columns, total = off.sum(axis=1), off.sum(axis=0), off.sum()
    crossed = (off * off.T).sum(axis=1)
    k = len(off)
    n = k - np.r_[0, np.ones(k)]
    # without a class, a row loses its product with that class, and the class its own row
    by_row = (rows**2).sum() - rows**2 - 2 * off.T @ rows + (off**2).sum(axis=0)
    by_column = (columns**2).sum() - columns**2 - 2 * off @ columns + (off**2).sum(axis=1)
    squares = np.r_[(rows**2).sum() + (columns**2).sum(), by_row + by_column]
    sums = np.r_[total, total - rows - columns]
    products = np.r_[crossed.sum(), crossed.sum() - 2 * crossed]
    return products - squares / (n - 2) + sums**2 / ((n - 1) * (n - 2))


def without_each_meeting(gram: np.ndarray) -> np.ndarray:
    """Class effects of each half along the other's domain effects, multiplied and summed, "left".

    `gram` is "class domain class domain", the first two of one half.
    """
    n, n_domains = gram.shape[:2]
    first = gram.sum(axis=1)  # class class domain: effects of classes along domains
    second = gram.sum(axis=3).transpose(2, 0, 1)
    ends = [_without_one(each) / n_domains for each in (first, second)]
    kept = np.vstack([np.ones(n), 1 - np.eye(n)])[:, :, None]
    met = kept
    for each in ends:
        mean = each / kept.sum(axis=1)[:, None]
        rows = mean.mean(axis=2, keepdims=True)
        columns = (mean * kept).sum(axis=1, keepdims=True) / kept.sum(axis=1)[:, None]
        middle = columns.mean(axis=2, keepdims=True)
        met = met * (mean - rows - columns + middle)
    return met.sum(axis=(1, 2))


def _without_one(table: np.ndarray) -> np.ndarray:
    """Sums over the second axis of "class class domain", "left class domain"."""
    total = table.sum(axis=1)
    return np.concatenate([total[None], total[None] - table.swapaxes(0, 1)])


LEAST_CLASSES = 5
"""Four for unbiased products of classes, and one to leave out."""

PIECE = 4096
"""Pictures at a time where a matrix would have a row for each."""


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

    @property
    def alone(self) -> "CellLayout":
        """The same of a table that holds these rows alone."""
        return replace(self, rows=np.arange(len(self.rows)))

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
    means: both halves' class means "half class feature"; residual: what is left of each picture
    "picture feature", and its |r|^2 `spread`; label and half "picture".
    """

    gram: np.ndarray
    square: np.ndarray
    means: np.ndarray
    residual: np.ndarray
    spread: np.ndarray
    label: np.ndarray
    half: np.ndarray

    @staticmethod
    def of(values: np.ndarray, layout: CellLayout) -> "CellProducts":
        x = values[layout.rows].astype(np.float64)
        x -= x.mean(axis=0)
        n_classes, n_domains = layout.n
        counts = np.bincount(layout.cell, minlength=2 * n_classes * n_domains)
        order = np.argsort(layout.cell, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        means = np.add.reduceat(x[order], starts, axis=0) / counts[:, None]
        square = np.bincount(layout.cell, np.einsum("pf,pf->p", x, x)) / counts
        # a mean takes 1 / n of its own cell's variance out of the residuals; cells count equally
        scale = np.sqrt(counts / np.maximum(counts - 1, 1)) / np.sqrt(counts)
        for start in range(0, len(x), PIECE):  # in place: a second matrix of pictures is gigabytes
            piece = slice(start, start + PIECE)
            x[piece] -= means[layout.cell[piece]]
            x[piece] *= scale[layout.cell[piece]][:, None]
        cells = means.reshape(2, n_classes, n_domains, -1)
        shape = (n_classes, n_domains, n_classes, n_domains)
        flat = means.reshape(2, n_classes * n_domains, -1)
        return CellProducts(
            (flat[0] @ flat[1].T).reshape(shape),
            square.reshape(2, n_classes, n_domains).mean(axis=(0, 2)),
            cells.mean(axis=2),
            x,
            np.einsum("pf,pf->p", x, x),
            layout.label,
            layout.half,
        )

    @property
    def left(self) -> np.ndarray:
        """How many classes there are, of all and without each, "left"."""
        n = len(self.gram)
        return n - np.r_[0, np.ones(n, dtype=int)]

    def effects(self) -> np.ndarray:
        """Mean squared class, domain and interaction effects, and the total, "left 4".

        As everything that is "left": of all classes, then without each of them.
        """
        n, n_domains = self.left, self.gram.shape[1]
        classes, within = self.gram.sum(axis=(1, 3)), self._within.sum(axis=2)
        everything = without_each(classes) / (n * n_domains) ** 2
        by_class = without_each_own(classes) / (n * n_domains**2)
        by_domain = without_each(within) / (n_domains * n**2)
        by_cell = without_each_own(within) / (n * n_domains)
        square = (self.square.sum() - np.r_[0.0, self.square]) / n
        interaction = by_cell - by_class - by_domain + everything
        ends = (by_class - everything, by_domain - everything, interaction, square - everything)
        return np.stack(ends, axis=1)

    @property
    def _within(self) -> np.ndarray:
        """Products of cells of one domain, "class class domain"."""
        return np.einsum("cdkd->ckd", self.gram)

    def own(self) -> np.ndarray:
        """Mean squared class effects within each domain, "left domain"."""
        n = self.left[:, None]
        return without_each_own(self._within) / n - without_each(self._within) / n**2

    def angle(self) -> np.ndarray:
        """beta'S beta summed, tr S W, tr W, tr S and tr S^2, "left 5"."""
        n, n_domains = self.left, self.gram.shape[1]
        classes = self.gram.mean(axis=(1, 3))
        effect = without_each_own(classes) - without_each(classes) / n
        squares = u_squares(classes) / (n * (n - 3))
        label = np.bincount(self.label, self.spread, minlength=len(classes))
        spread = (self.spread.sum() - np.r_[0.0, label]) * (n - 1)
        sums = [without_each_meeting(self.gram) / n_domains, self._through(), spread, effect]
        return np.stack([*(each / (n - 1) for each in sums), squares], axis=1)

    def _through(self) -> np.ndarray:
        """Products of residuals along both halves' class effects, summed, "left"."""
        k = self.means.shape[1]
        found = np.zeros(1 + k)
        for start in range(0, len(self.spread), PIECE):
            piece = slice(start, start + PIECE)
            one, two = (self.residual[piece] @ half.T for half in self.means)
            products, sums = (one * two).sum(axis=1), (one.sum(axis=1), two.sum(axis=1))
            found[0] += (products - sums[0] * sums[1] / k).sum()
            each = products[:, None] - one * two
            each -= (sums[0][:, None] - one) * (sums[1][:, None] - two) / (k - 1)
            each[np.arange(len(each)), self.label[piece]] = 0.0  # a class goes with its pictures
            found[1:] += each.sum(axis=0)
        return found

    def domain_sizes(self) -> np.ndarray:
        """tr S and tr S^2 of the covariance S of the effects of these domains, "left 2"."""
        domains = without_each(self.gram.swapaxes(1, 2)) / self.left[:, None, None] ** 2
        domains = domains - domains.mean(axis=1, keepdims=True)
        domains = domains - domains.mean(axis=2, keepdims=True)
        n = domains.shape[1]
        size = np.trace(domains, axis1=1, axis2=2)
        square = (domains * domains.swapaxes(1, 2)).sum(axis=(1, 2)) / (n - 1)
        return np.stack([size, square], axis=1) / (n - 1)

    def sizes_within(self) -> np.ndarray:
        """tr W and tr W^2 of the mean covariance W of pictures within their cells.

        The sum of squared products of two halves' pictures is also the product of the halves'
        scatters, so that many pictures of few features are never multiplied one by one.
        """
        n_cells = self.gram.shape[0] * self.gram.shape[1]
        first, second = (self.residual[self.half == half] for half in (0, 1))
        if min(len(first), len(second)) > first.shape[1]:
            square = ((first.T @ first) * (second.T @ second)).sum()
        else:
            square = ((first @ second.T) ** 2).sum()
        return np.array([self.spread.sum() / (2 * n_cells), square / n_cells**2])

    def permuted_classes(self, n_permutations: int, seed: int) -> np.ndarray:
        """Class effects with classes permuted in each domain, "permutation"."""
        n, n_domains = self.gram.shape[:2]
        orders, _ = exchanges(n, n_domains, n_permutations, seed)
        domain = np.arange(n_domains)
        met = self.gram[orders[:, :, :, None], domain[:, None], orders[:, :, None, :], domain]
        return met.mean(axis=(1, 2, 3)) - self.gram.mean()

    def permuted_domains(self, n_permutations: int, seed: int) -> np.ndarray:
        """Domain effects with domains permuted in each class, "permutation"."""
        n, n_domains = self.gram.shape[:2]
        _, turns = exchanges(n, n_domains, n_permutations, seed)
        # which cells stand in a domain's place, as ones: "permutation domain cell"
        cells = np.arange(n) * n_domains + turns.swapaxes(1, 2)
        chosen = np.zeros((n_permutations * n_domains, n * n_domains))
        np.put_along_axis(chosen, cells.reshape(len(chosen), n), 1.0, axis=1)
        gram = self.gram.reshape(n * n_domains, n * n_domains)
        moved = np.einsum("pc,pc->p", chosen @ gram, chosen).reshape(n_permutations, n_domains)
        return moved.mean(axis=1) / n**2 - self.gram.mean()

    def random_angles(self, n_draws: int, n_domains: int, seed: int) -> np.ndarray:
        """g'S g / g'g of random directions g within cells, as many at a time as domain effects."""
        generator = rng("directions within cells", seed)
        effects = self.means - self.means.mean(axis=1, keepdims=True)
        found = np.empty(n_draws)
        for place in range(n_draws):  # one at a time: all would be n_draws numbers a picture
            weights = generator.normal(size=(n_domains - 1, len(self.spread)))
            drawn = weights @ self.residual
            along = [drawn @ half.T for half in effects]
            through, length = (along[0] * along[1]).sum() / (len(effects[0]) - 1), (drawn**2).sum()
            found[place] = through / length if length > 0 else 0.0
        return found


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


@dataclass(frozen=True)
class ShrunkCovariance:
    """A covariance shrunk by Ledoit and Wolf's (2004) share towards a multiple of the identity.

    It is kept by its axes, so that no "feature feature" matrix is made.

    Args:
        squares: Variances along the axes, "axis".
        axes: Unit vectors, "axis feature". Across them only the multiple of the identity is left.
        share: How far it is shrunk, 0 to 1.
        level: The mean variance that it is shrunk towards.

    >>> plain = ShrunkCovariance(np.array([4.0]), np.array([[1.0, 0.0]]), share=0.5, level=2.0)
    >>> plain.times(np.array([[3.0, 1.0]]), power=1).tolist()
    [[9.0, 1.0]]
    """

    squares: np.ndarray
    axes: np.ndarray
    share: float
    level: float

    @staticmethod
    def of(inner: np.ndarray) -> "ShrunkCovariance":
        """The covariance of rows "picture feature" that are centred already."""
        squares, axes = _components(inner)
        share, level = _ledoit_wolf(squares, (inner**2).sum(axis=1), inner.shape[1])
        return ShrunkCovariance(squares, axes, share, level)

    def times(self, rows: np.ndarray, *, power: float) -> np.ndarray:
        """Rows times a power of the covariance: -1 weighs by it, -1/2 whitens.

        Rows of zeros where there is no variance at all.
        """
        least = self.share * self.level
        if least <= 0:
            return np.zeros_like(rows)
        along = ((1 - self.share) * self.squares + least) ** power - least**power
        return rows * least**power + ((rows @ self.axes.T) * along) @ self.axes


def _components(inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances along the principal axes of centred rows, and the axes "axis feature".

    From the smaller of the two products of the rows. Axes without variance are left out.
    """
    n, width = inner.shape
    small = inner @ inner.T if n < width else inner.T @ inner
    squares, found = np.linalg.eigh(small / n)
    kept = squares > 1e-12 * max(squares[-1], 0.0)
    squares, found = squares[kept], found[:, kept]
    axes = found.T @ inner / np.sqrt(n * squares)[:, None] if n < width else found.T
    return squares, axes


def _ledoit_wolf(squares: np.ndarray, norms: np.ndarray, width: int) -> tuple[float, float]:
    """Share of shrinking, and the mean variance shrunk towards, from a covariance's eigenvalues."""
    n, level = len(norms), float(squares.sum()) / width
    total = float((squares**2).sum())
    spread = total / width - level**2
    noise = (float((norms**2).sum()) / n - total) / (width * n)
    if spread <= 1e-15 * level**2:
        return 1.0, level
    # a covariance of few rows may leave nothing to shrink; it must still have an inverse
    return float(np.clip(noise / spread, 1e-6, 1.0)), level

"""Two domains measured: as they are, with each class left out, and with classes permuted.

A measure that is an inner product of matrices is taken at all pairs of sites at once, whole stacks
of matrices (deals of artists x halves x sites) by matrix products, and its null is exact. Others
are taken anew for every order of the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from interp.core.errors import InterpError
from interp.core.progress import track
from interp.core.statistics.resampling import class_permutations
from interp.probes.features.features import centred_rows
from interp.probes.representational_similarity.arranging import ComparisonDesign, Side
from interp.probes.representational_similarity.measures import SimilarityMeasure

Meetings = Sequence[tuple[int, int]]
"""The halves of A and of B that are compared."""


@dataclass(frozen=True)
class Measured:
    """Two domains measured at pairs of sites; "left" is first no class, then each left out.

    value, null: "left site site"; within (a domain's halves): "left site"; drawn: "permutation site
    site"; failed: why a site cannot be measured, in each domain; refused: why a pair of sites
    cannot be; errors: standard errors of value, ceiling and index "3 site site", where they are
    known without leaving out; halves: the value of A_1 and B_2, and of A_2 and B_1, of the first
    deal, "2 site site", of inner products of matrices.
    """

    failed: tuple[np.ndarray, np.ndarray]
    refused: np.ndarray
    value: np.ndarray
    null: np.ndarray
    within: tuple[np.ndarray, np.ndarray]
    drawn: np.ndarray
    errors: np.ndarray | None = None
    halves: np.ndarray | None = None

    @staticmethod
    def nothing(
        sites: tuple[int, int], n_classes: int, *, n_drawn: int = 0, why: str = ""
    ) -> "Measured":
        """No number anywhere, to be filled in or left for a reason.

        >>> Measured.nothing((2, 3), 5, why="too few classes").value.shape
        (6, 2, 3)
        """
        left = 1 + n_classes
        return Measured(
            failed=(np.full(sites[0], "", dtype=object), np.full(sites[1], "", dtype=object)),
            refused=np.full(sites, why, dtype=object),
            value=np.full((left, *sites), np.nan),
            null=np.full((left, *sites), np.nan),
            within=(np.full((left, sites[0]), np.nan), np.full((left, sites[1]), np.nan)),
            drawn=np.full((n_drawn, *sites), np.nan),
        )


def by_matrix(sides: tuple[Side, Side], design: ComparisonDesign) -> Measured:
    """A measure that is an inner product of matrices, all pairs of sites at once."""
    meetings, n = sides[0].pair.meetings, len(sides[0].pair.classes)
    (first, failed_a), (second, failed_b) = (_stacked(side) for side in sides)
    orders = class_permutations(n, design.n_permutations, design.seed)
    if design.exact:
        value = across(first, second, meetings)
        within = [_diagonal(across(grams, grams, [(0, 1)])) for grams in (first, second)]
        null = np.zeros_like(value)
    else:
        found = [_terms(first, second, meetings, n)]
        for c in range(n):
            left, other = (_stacked(side, c)[0] for side in sides)
            found.append(_terms(left, other, meetings, n - 1))
        value, null, *within = (np.stack(each) for each in zip(*found, strict=True))
    if design.zero:  # what rounding left of it would pass for a ceiling above the null
        null = np.zeros_like(null)
    return Measured(
        failed=(failed_a, failed_b),
        refused=np.full(value.shape[1:], "", dtype=object),
        value=value,
        null=null,
        within=(within[0], within[1]),
        drawn=permuted(first, second, meetings, orders),
        errors=standard_errors(first, second, meetings) if design.exact else None,
        halves=np.stack([_met(first[:1], second[:1], [one]) for one in ((0, 1), (1, 0))]),
    )


def _stacked(side: Side, without: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The matrices to compare, "split half site row row", and why there are none, per site.

    Those of a site that cannot be measured are 0.
    """
    made, reasons = side.arranged(without=without)
    n = len(side.pair.classes) - (without >= 0)
    shape = next(iter(made.values())).shape if made else (n, n)
    grams = np.zeros((len(side.pair.deals), 2, len(reasons), *shape))
    for at in [at for at in made if not reasons[at[2]]]:
        grams[at] = made.pop(at)
    return grams, reasons


def _diagonal(table: np.ndarray) -> np.ndarray:
    return np.diagonal(table, axis1=-2, axis2=-1)


def _terms(
    first: np.ndarray, second: np.ndarray, meetings: Meetings, n_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value, null and both domains' halves."""
    value, null = _met(first, second, meetings), expected(first, second, meetings, n_classes)
    within_a, within_b = (_diagonal(_met(grams, grams, [(0, 1)])) for grams in (first, second))
    return value, null, within_a, within_b


def _met(first: np.ndarray, second: np.ndarray, meetings: Meetings) -> np.ndarray:
    """Mean inner product of A_i and B_j over meetings and splits: "site site"."""
    a, b = (grams.reshape(*grams.shape[:3], -1) for grams in (first, second))
    every = product(range(len(first)), meetings)
    return np.mean([a[split, i] @ b[split, j].T for split, (i, j) in every], axis=0)


def expected(
    first: np.ndarray, second: np.ndarray, meetings: Meetings, n_classes: int
) -> np.ndarray:
    """Mean of the value over all permutations of B's classes, exactly: "site site".

    Rows of a class move together. The mean of <A, P B P'> over permutations P pairs the sum of A's
    blocks on the diagonal with that of B's, and the sum of the others with that of B's others.
    """
    size = first.shape[-1] // n_classes
    sums = []
    for grams in (first, second):
        blocks = grams.reshape(*grams.shape[:3], n_classes, size, n_classes, size)
        own = np.einsum("shacicj->shaij", blocks)
        sums.append((own, blocks.sum(axis=(3, 5)) - own))
    (own_a, off_a), (own_b, off_b) = sums
    own, off = _met(own_a, own_b, meetings), _met(off_a, off_b, meetings)
    return own / n_classes + off / (n_classes * (n_classes - 1))


def across(first: np.ndarray, second: np.ndarray, meetings: Meetings) -> np.ndarray:
    """Mean of CKA(A_i, B_j) over meetings and splits: "left site site", first no class left out.

    A CKA of debiased Gram matrices is their inner product once each has length 1. U-centred rows
    sum to 0, so with h_c = sum_j K_cj L_cj the product without class c is
    <K, L> - 2 h_c (n - 2) / (n - 3), and no matrix is built anew.
    """
    lengths_a, lengths_b = _lengths_left(first), _lengths_left(second)
    total = np.zeros(())
    for split, (i, j) in product(range(len(first)), meetings):
        a = first[split, i].transpose(1, 0, 2)  # class site class
        b = second[split, j].transpose(1, 2, 0)  # class class site
        whole, left = _left(a @ b)
        scale = lengths_a[:, split, i, :, None] * lengths_b[:, split, j, None, :]
        # 0 where features are constant; those sites get a reason instead
        left = np.divide(left, scale, out=np.zeros_like(left), where=scale > 0)
        total = total + np.concatenate([whole[None], left])
    return total / (len(first) * len(meetings))


def _left(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of U-centred matrices, and with each class left out, from h_c, class first."""
    n, product = len(rows), rows.sum(axis=0)
    return product, product - 2 * rows * (n - 2) / (n - 3)


DEGENERATE = 0.5
"""How much of the variance that pairs of classes have by themselves is taken off the linear one.

All of it is right for pairs without skew. Over classes of rank 3, 5 and 12 under three amounts of
noise, unrelated, half shared and identical, half of it gave intervals that cover .94 to .97 on
average at 15, 20, 40 and 60 classes, and at least .90 in each case; all of it .87 to .96.
"""


FEWER, ENOUGH = 0.1, 15
"""Below so many classes, how much wider an interval is for each class fewer. With 5 to 12 classes
of rank 2, 4 and 10, unrelated, half shared and identical, intervals then cover .94 to .97 on
average, and at least .86 in each case; as they are, .83 to .93 and .70.
"""


def standard_errors(first: np.ndarray, second: np.ndarray, meetings: Meetings) -> np.ndarray:
    """Standard errors over classes of value, ceiling and index: "3 site site".

    With unit matrices K and L, r = <K, L> changes with the pair of classes (i, j) by
    g_ij = K_ij L_ij - r (K_ij^2 + L_ij^2) / 2, and what is made of several r by the same sums of
    theirs. For the pairs' influence g

        variance = (4 sum_i (sum_j g_ij)^2 - 2 DEGENERATE sum_ij g_ij^2) n / (n - 3)

    The first term counts the pairs of unrelated classes twice, as leaving one class out does. Below
    15 classes an error is `1 + FEWER (15 - n)` times as large, by simulation as well.
    """
    n = first.shape[-1]
    met = [_influence(first[:, i, :, None], second[:, None, j]) for i, j in meetings]
    value = np.mean([r for r, _ in met], axis=0)
    of_value = np.mean([g for _, g in met], axis=0)
    within_a, of_a = _influence(first[:, 0], first[:, 1])
    within_b, of_b = _influence(second[:, 0], second[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):  # no ceiling, no index
        relative = (of_a / within_a[:, None, None])[:, None] / 2
        relative = relative + (of_b / within_b[:, None, None])[None] / 2
        ceiling = np.sqrt(within_a[:, None] * within_b)[..., None, None]
        of_index = of_value / ceiling - value[..., None, None] / ceiling * relative
        return np.stack([_error(each, n) for each in (of_value, ceiling * relative, of_index)])


def _influence(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of unit matrices, the mean over deals, and what each pair of rows adds."""
    products = (one * other).sum(axis=(-1, -2))
    half = products[..., None, None] / 2
    return products.mean(axis=0), (one * other - half * (one**2 + other**2)).mean(axis=0)


def _error(influence: np.ndarray, n: int) -> np.ndarray:
    linear = 4 * (influence.sum(axis=-1) ** 2).sum(axis=-1)
    pairs = 2 * (influence**2).sum(axis=(-1, -2))
    wider = 1 + FEWER * max(0, ENOUGH - n)
    return wider * np.sqrt(np.maximum(linear - DEGENERATE * pairs, linear / 4) * n / (n - 3))


def _lengths_left(grams: np.ndarray) -> np.ndarray:
    """Lengths of the matrices with one class left out: "class split half site"."""
    return np.sqrt(np.maximum(_left(np.moveaxis((grams**2).sum(axis=-1), -1, 0))[1], 0))


def permuted(
    first: np.ndarray, second: np.ndarray, meetings: Meetings, orders: np.ndarray
) -> np.ndarray:
    """The value with B's classes in other orders "permutation class": "permutation site site".

    Permuting classes leaves lengths alone, so a measure is an inner product of matrices of length
    1, and the mean over meetings and splits is one product of the stacked matrices. Of symmetric
    ones the entries above the diagonal, counted twice, and those on it say all.
    """
    n_sites, n = first.shape[2], first.shape[-1]
    row, column, weight = _entries(first, second)
    a = np.stack([first[:, i] for i, _ in meetings], axis=1)[..., row, column] * weight
    b = np.stack([second[:, j] for _, j in meetings], axis=1)[..., row, column]
    a = a.transpose(0, 1, 3, 2).reshape(-1, n_sites)
    b = b.transpose(0, 1, 3, 2).reshape(-1, len(row), second.shape[2])
    place = np.zeros((n, n), dtype=int)
    place[column, row] = np.arange(len(row))
    place[row, column] = np.arange(len(row))
    a = np.ascontiguousarray(a.T) / (len(first) * len(meetings))
    return np.stack(
        [
            a @ np.take(b, place[order[row], order[column]], axis=1).reshape(-1, b.shape[2])
            for order in _row_orders(orders, n)
        ]
    )


def _entries(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which entries of the matrices an inner product needs, and how often each counts."""
    n = first.shape[-1]
    both = (first, second)
    if not all(np.array_equal(grams, grams.swapaxes(-1, -2)) for grams in both):
        row, column = (axis.ravel() for axis in np.indices((n, n)))
        return row, column, np.ones(n * n)
    # U-centred matrices are 0 on the diagonal
    bare = all(not grams.diagonal(axis1=-2, axis2=-1).any() for grams in both)
    row, column = np.triu_indices(n, k=int(bare))
    return row, column, np.where(row == column, 1.0, 2.0)


def _row_orders(orders: np.ndarray, n_rows: int) -> np.ndarray:
    """Orders of classes as orders of their rows, which stand side by side: "order row"."""
    size = n_rows // orders.shape[1]
    return (orders[:, :, None] * size + np.arange(size)).reshape(len(orders), -1)


NULL_DRAWS = 20
"""Permutations that say how far the null moves when a class is left out. All classes and all but
one are permuted alike, so that few do: they widen the interval of an index by some percent."""

ENTRIES = 2**22
"""Entries of the matrices "order row row" that are made at once: 32 MB."""

Rows = dict[tuple[int, int, int], np.ndarray]
"""Centred rows of one side, by deal, half and site."""


def by_reordering(sides: tuple[Side, Side], design: ComparisonDesign) -> Measured:
    """A measure at every pair of sites, each pair on its own.

    The null is the mean over the drawn permutations, which p counts too; with a class left out, it
    is moved by the mean change of the first `NULL_DRAWS` of them.
    """
    measure, pair, n = design.method, sides[0].pair, len(sides[0].pair.classes)
    (first, failed_a), (second, failed_b) = (_rows(side, measure) for side in sides)
    sites, splits = (len(failed_a), len(failed_b)), range(design.n_splits)
    found = Measured.nothing(sites, n, n_drawn=design.n_permutations)
    found = replace(found, failed=(failed_a, failed_b))
    for side, rows in enumerate((first, second)):
        for s in np.flatnonzero(found.failed[side] == "").tolist():
            ends = [(rows[split, 0, s], rows[split, 1, s]) for split in splits]
            try:
                found.within[side][:, s] = _mean(measure, ends, np.arange(n)[None])[1][:, 0]
            except InterpError as error:
                found.failed[side][s] = error.given
    orders = class_permutations(n, design.n_permutations, design.seed)
    orders = np.vstack([np.arange(n), orders])
    cells = [(s, t) for s, t in design.cells(*sites) if failed_a[s] == failed_b[t] == ""]
    for s, t in track(cells, f"{measure.title} of {pair.a} and {pair.b}"):
        met = [
            (first[split, i, s], second[split, j, t])
            for split, (i, j) in product(splits, pair.meetings)
        ]
        try:
            whole, left = _mean(measure, met, orders)
        except InterpError as error:
            found.refused[s, t] = error.given
            continue
        moved = (left[:, 1:] - left[0, 1:]).mean(axis=1)
        found.value[:, s, t], found.null[:, s, t] = left[:, 0], whole[1:].mean() + moved
        found.drawn[:, s, t] = whole[1:]
    return found


def _rows(side: Side, measure: SimilarityMeasure) -> tuple[Rows, np.ndarray]:
    """The rows of one side, and why a site cannot be measured."""
    found, reasons = side.arranged()
    if measure.dimensions is not None:
        for site in np.flatnonzero(reasons == ""):
            kept = max(measure.dimensions(x) for at, x in found.items() if at[2] == site)
            reasons[site] = _forced(measure, kept, len(side.pair.classes), side.size)
    return found, reasons


def _forced(measure: SimilarityMeasure, kept: int, n_classes: int, size: int) -> str:
    """Why both halves' dimensions together leave no room, also with one class left out."""
    needed = 2 * kept // size + 2
    if n_classes >= needed:
        return ""
    return (
        f"{n_classes} classes keep {kept} dimensions, where some canonical correlations are 1 "
        f"whatever the data; {measure.title} needs {needed} classes, more if these keep more"
    )


def _mean(
    measure: SimilarityMeasure, pairs: list[tuple[np.ndarray, np.ndarray]], orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean over pairs of halves: "order", and "left order" of the first `1 + NULL_DRAWS`.

    The first order is that of the data.
    """
    n = orders.shape[1]
    groups, deal = dealt_rows(measure, n, len(pairs[0][0]) // n)
    few = orders[: 1 + NULL_DRAWS]
    whole, left = np.zeros(len(orders)), np.zeros((n, len(few)))
    for x, y in pairs:
        whole += in_orders(measure, x, y, orders, deal)
        for c in range(n):
            kept = groups != c
            a, b = (centred_rows(side[kept], f"measure {measure.title}") for side in (x, y))
            left[c] += in_orders(measure, a, b, orders_without(few, c), deal[kept])
    return whole / len(pairs), np.vstack([whole[: len(few)], left]) / len(pairs)


def dealt_rows(
    measure: SimilarityMeasure, n_classes: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each row, `size` of a class side by side, and its fold or batch."""
    groups = np.repeat(np.arange(n_classes), size)
    deal = np.zeros(len(groups), dtype=int) if measure.deal is None else measure.deal(groups)
    return groups, deal


def in_orders(
    measure: SimilarityMeasure, x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """A measure with the classes of `y` in every order: "order".

    One that differs by direction is averaged over both, the classes of `x` being put in the
    inverse order when it is foretold from `y`.

    Shapes: `x` "row d_x", `y` "row d_y", centred, the rows of a class side by side; `orders` "order
    class"; `deal` "row", the fold or batch of each row.
    """
    assert measure.in_orders is not None
    rows, step = _row_orders(orders, len(x)), max(1, ENTRIES // len(x) ** 2)
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]
    found = np.concatenate([measure.in_orders(x, y, part, deal) for part in parts])
    if not measure.symmetric:
        back = [measure.in_orders(y, x, np.argsort(part, axis=1), deal) for part in parts]
        found = (found + np.concatenate(back)) / 2
    return found


def orders_without(orders: np.ndarray, c: int) -> np.ndarray:
    """Orders of all classes as orders of all but one; its place takes what stood in its stead.

    Uniform orders give uniform ones, and the data's order gives the data's.

    >>> orders_without(np.array([[0, 1, 2, 3], [1, 2, 3, 0]]), 3).tolist()
    [[0, 1, 2], [1, 2, 0]]
    """
    bridged = np.where(orders == c, orders[:, c : c + 1], orders)
    kept = np.delete(bridged, c, axis=1)
    return kept - (kept > c)

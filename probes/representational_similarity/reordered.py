"""Measures that are no inner product of matrices, taken anew for every order of the classes."""

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from interp.core.errors import InterpError
from interp.core.progress import say, track
from interp.core.seeds import rng
from interp.core.statistics.resampling import class_permutations
from interp.probes.representational_similarity.arrangements import row_builder
from interp.probes.representational_similarity.design import ComparisonDesign, Dealt, Measured
from interp.probes.representational_similarity.grams import pictured
from interp.probes.representational_similarity.measures import MEASURES, SimilarityMeasure
from interp.probes.representational_similarity.rows import centred_rows

NULL_DRAWS = 20
"""Permutations that say how far the null moves when a class is left out. All classes and all but
one are permuted alike, so that few do: they widen the interval of an index by some percent."""

ENTRIES = 2**22
"""Entries of the matrices "order row row" that are made at once: 32 MB."""

Rows = Mapping[tuple[int, int, int], np.ndarray]
"""Centred rows of one side, by deal, half and site."""


def by_reordering(dealt: Dealt, design: ComparisonDesign) -> Measured:
    """A measure at every pair of sites, each pair on its own.

    The null is the mean over the drawn permutations, which p counts too; with a class left out, it
    is moved by the mean change of the first `NULL_DRAWS` of them.
    """
    measure, n = MEASURES[design.measure], len(dealt.classes)
    (first, failed_a), (second, failed_b) = (_class_rows(dealt, s, measure, design) for s in (0, 1))
    sites, others = (range(len(features.sites)) for features, _ in dealt.sides)
    found = Measured.nothing(len(sites), len(others), n, design.n_permutations, "")
    found = replace(found, failed=(failed_a, failed_b))
    for side, rows in enumerate((first, second)):
        for s in np.flatnonzero(found.failed[side] == "").tolist():
            ends = [(rows[split, 0, s], rows[split, 1, s]) for split in range(design.n_splits)]
            try:
                whole, left = _mean(measure, ends, np.arange(n)[None])
            except InterpError as error:
                found.failed[side][s] = error.given
                continue
            found.within[side][s], found.within_left[side][:, s] = whole[0], left[:, 0]
    orders = class_permutations(n, design.n_permutations, design.seed)
    orders = np.vstack([np.arange(n), orders])
    cells = [(s, s) for s in sites] if design.layers == "same" else list(product(sites, others))
    cells = [(s, t) for s, t in cells if failed_a[s] == failed_b[t] == ""]
    for s, t in track(cells, f"{measure.title} of {dealt.sides[0][1]} and {dealt.sides[1][1]}"):
        met = [(first[split, i, s], second[split, j, t])
               for split in range(design.n_splits) for i, j in dealt.meetings]  # fmt: skip
        try:
            whole, left = _mean(measure, met, orders)
        except InterpError as error:
            found.refused[s, t] = error.given
            continue
        moved = (left[:, 1:] - whole[1 : left.shape[1]]).mean(axis=1)
        found.value[s, t], found.value_left[:, s, t] = whole[0], left[:, 0]
        found.null[s, t], found.null_left[:, s, t] = whole[1:].mean(), whole[1:].mean() + moved
        found.drawn[:, s, t] = whole[1:]
    return found


def _class_rows(
    dealt: Dealt, side: int, measure: SimilarityMeasure, design: ComparisonDesign
) -> tuple[Rows, np.ndarray]:
    """The rows of one side, and why a site cannot be measured."""
    build = row_builder(measure, design.rows, dealt.size)
    reasons = np.full(len(dealt.sides[side][0].sites), "", dtype=object)
    found = {}
    for at, picked, starts, counts in pictured(dealt, side, dealt.classes):
        try:
            found[at] = build(picked, starts, counts)
        except InterpError as error:
            reasons[at[2]] = error.given
    if measure.dimensions is not None:
        for site in np.flatnonzero(reasons == ""):
            kept = max(measure.dimensions(x) for at, x in found.items() if at[2] == site)
            reasons[site] = _forced(measure, kept, len(dealt.classes), dealt.size)
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
    """The mean over pairs of halves: "order", and with each class left out "class order".

    The first order is that of the data; with a class left out only `NULL_DRAWS` others count.
    """
    n = orders.shape[1]
    size = len(pairs[0][0]) // n
    groups = np.repeat(np.arange(n), size)
    deal = np.zeros(len(groups), dtype=int) if measure.deal is None else measure.deal(groups)
    few = orders[: 1 + NULL_DRAWS]
    whole, left = np.zeros(len(orders)), np.zeros((n, len(few)))
    for x, y in pairs:
        whole += in_orders(measure, x, y, orders, deal)
        for c in range(n):
            kept = groups != c
            a, b = (centred_rows(side[kept], f"measure {measure.title}") for side in (x, y))
            left[c] += in_orders(measure, a, b, orders_without(few, c), deal[kept])
    return whole / len(pairs), left / len(pairs)


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
    size = len(x) // orders.shape[1]
    rows = (orders[:, :, None] * size + np.arange(size)).reshape(len(orders), -1)
    step = max(1, ENTRIES // len(x) ** 2)
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


def foretell_reordering(
    design: ComparisonDesign, n_classes: int, size: int, width: int, n_sites: int, n_meetings: int
) -> None:
    """Say how often the measure will be taken, and for how long, from its time on noise.

    `n_sites` and `n_meetings` are sums over the pairs of domains: of pairs of sites, and of those
    times the pairs of halves that meet.
    """
    measure, n = MEASURES[design.measure], n_classes * size
    # a falling spectrum, so that few dimensions hold the variance
    noise = rng("time of a measure").normal(size=(n, min(n, width))) * 0.5 ** np.arange(
        min(n, width)
    )
    groups, few = np.repeat(np.arange(n_classes), size), NULL_DRAWS + 1
    deal = np.zeros(n, dtype=int) if measure.deal is None else measure.deal(groups)
    seconds = []
    for orders in (1, few):
        start = time.perf_counter()
        try:
            in_orders(measure, noise, noise, np.tile(np.arange(n_classes), (orders, 1)), deal)
        except InterpError:
            return  # it will be refused, which costs nothing
        seconds.append(time.perf_counter() - start)
    once, each = seconds[0], max(seconds[1] - seconds[0], 0) / NULL_DRAWS
    meetings, ends = design.n_splits * n_meetings, 2 * design.n_splits * n_sites
    drawn = 1 + design.n_permutations
    taken = meetings * (drawn + n_classes * few) + ends * (1 + n_classes)
    total = meetings * (once + n_classes * once + (drawn + n_classes * few) * each)
    total += ends * (1 + n_classes) * once
    say(f"{measure.title} is taken {taken:,} times in all: about {total:.0f} s")

"""Planning of a comparison of domains: what so many classes can show, and what it will cost."""

import math
import time
from collections.abc import Sequence

import numpy as np
from scipy import stats

from interp.core.artists import meeting_halves
from interp.core.errors import InterpError, SpecificationError
from interp.core.faces.doors import door
from interp.core.progress import say
from interp.core.seeds import rng
from interp.probes.features.features import Features
from interp.probes.representational_similarity.arranging import MOST_PAIRS, ComparisonDesign
from interp.probes.representational_similarity.permuting import (
    DEGENERATE,
    NULL_DRAWS,
    dealt_rows,
    in_orders,
)

LEAST_CLASSES = 5
"""Four for the unbiased estimator, and one to leave out."""


def null_deviation(n_classes: int) -> float:
    """Standard deviation of debiased CKA between unrelated class means: sqrt(2 / (n (n - 3))).

    Two U-centred matrices of length 1 have n (n - 3) / 2 free entries, and the inner product of
    unrelated ones has the deviation of a mean of so many. The width of the features does not
    matter, nor their spectrum to first order: it cancels between HSIC and its scale.

    >>> round(null_deviation(15), 3)
    0.105
    """
    if n_classes < 4:
        given = f"{n_classes} classes"
        right = "at least 4"
        raise SpecificationError("foretell the deviation of CKA", given, right, "give more classes")
    return math.sqrt(2 / (n_classes * (n_classes - 3)))


@door
def classes_needed(width: float, *, ceiling: float = 1.0) -> int:
    """Fewest classes at which the index of unrelated domains has a 95 % interval of a given width.

        width = 2 t sqrt(1.5 n / (n - 3)) null_deviation(n) / ceiling

    for n classes; t is the 97.5 % quantile of Student's t with n - 1 degrees of freedom.

    Args:
        width: Width of the interval, in units of the index. For a verdict "not shared" the interval
            must end below .2, so a width of .4 is the most that can decide.
        ceiling: The CKA that two halves of one domain reach, above 0 and at most 1; 1 means that
            halves agree fully.

    Returns:
        The number of classes, at least 5.

    Raises:
        SpecificationError: For a width or ceiling out of range.

    Notes:
        The width is that of the interval of the index of debiased CKA (`similarity`). The index is
        withheld unless the ceiling is at least three deviations above 0, which counts here too.

    >>> classes_needed(0.4), classes_needed(0.4, ceiling=0.5)
    (22, 39)
    """
    if not (width > 0 and 0 < ceiling <= 1):
        given = f"width={width}, ceiling={ceiling}"
        right = "a width above 0 and a ceiling above 0, at most 1"
        raise SpecificationError("foretell the classes needed", given, right, "say width=0.4")
    n = 5
    while interval_width(n, ceiling=ceiling) > width or ceiling < 3 * null_deviation(n):
        n += 1
    return n


def interval_width(n_classes: int, *, ceiling: float = 1.0) -> float:
    """Width of the 95 % interval of an index of unrelated domains, foretold.

    The interval counts pairs of unrelated classes `2 - DEGENERATE` times.

    >>> round(interval_width(45), 2)
    0.17
    """
    reach = float(stats.t.ppf(0.975, n_classes - 1))
    counted = math.sqrt((2 - DEGENERATE) * n_classes / (n_classes - 3))
    return 2 * reach * counted * null_deviation(n_classes) / ceiling


def foretell(
    features: Features, other: Features, pairs: Sequence[tuple[str, str]], design: ComparisonDesign
) -> None:
    """Say what so many classes can show, and what a measure without a matrix costs."""
    here = features.frame["domain"].isin({name for pair in pairs for name in pair})
    n = features.frame["label"][here].nunique()
    if n < LEAST_CLASSES:
        return
    say(
        f"similarity over at most {n} classes: without sharing, debiased CKA deviates by "
        f"{null_deviation(n):.2f} and its interval is {interval_width(n):.2f} wide; a width of "
        f".4 needs {classes_needed(0.4)} classes where halves agree fully"
    )
    if design.method.matrix is None:
        cells = len(design.cells(len(features.sites), len(other.sites)))
        meetings = cells * sum(len(meeting_halves(features.frame, a, b)) for a, b in pairs)
        width = max(matrix.shape[1] for matrix in features.values.values())
        _foretell_reordering(design, n, width, cells * len(pairs), meetings)


def _foretell_reordering(
    design: ComparisonDesign, n_classes: int, width: int, n_sites: int, n_meetings: int
) -> None:
    """Say how often the measure will be taken, and for how long, from its time on noise.

    `n_sites` and `n_meetings` are sums over the pairs of domains: of pairs of sites, and of those
    times the pairs of halves that meet.
    """
    measure, few = design.method, NULL_DRAWS + 1
    size = MOST_PAIRS if design.rows == "picture pair" else 1
    groups, deal = dealt_rows(measure, n_classes, size)
    d = min(len(groups), width)
    # a falling spectrum, so that few dimensions hold the variance
    noise = rng("time of a measure").normal(size=(len(groups), d)) * 0.5 ** np.arange(d)
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

"""How many classes a comparison of domains needs, before any picture is shown to a model."""

import math

from scipy import stats

from interp.core.errors import SpecificationError


def null_deviation(n_classes: int) -> float:
    """Standard deviation of debiased CKA between unrelated class means: sqrt(2 / (n (n - 3))).

    Two U-centred matrices of length 1 have n (n - 3) / 2 free entries, and the inner product of
    unrelated ones has the deviation of a mean of so many. The width of the features does not
    matter, nor their spectrum to first order: it cancels between HSIC and its scale.

    >>> round(null_deviation(15), 3)
    0.105
    """
    if n_classes < 4:
        raise SpecificationError(
            "foretell the deviation of CKA",
            f"{n_classes} classes",
            "at least 4",
            "give more classes",
        )
    return math.sqrt(2 / (n_classes * (n_classes - 3)))


def classes_needed(width: float, *, ceiling: float = 1.0) -> int:
    """Fewest classes at which the index of unrelated domains has a 95 % interval of some width.

    A jackknife interval of the index is 2 t sqrt(2) null_deviation(n) / ceiling wide (t the 97.5 %
    quantile of Student's t with n - 1 degrees). The index is withheld unless the ceiling, the CKA
    that two halves of one domain reach, is three deviations above 0. For a verdict "not shared"
    the interval must end below .2, so that a width of .4 is the most that can decide.

    >>> classes_needed(0.4), classes_needed(0.4, ceiling=0.5)
    (23, 42)
    """
    if not (width > 0 and 0 < ceiling <= 1):
        raise SpecificationError(
            "foretell the classes needed",
            f"width={width}, ceiling={ceiling}",
            "a width above 0 and a ceiling above 0, at most 1",
            "say width=0.4",
        )
    n = 5
    while interval_width(n, ceiling=ceiling) > width or ceiling < 3 * null_deviation(n):
        n += 1
    return n


def interval_width(n_classes: int, *, ceiling: float = 1.0) -> float:
    """Width of the 95 % interval of an index of unrelated domains, foretold.

    The jackknife doubles the variance of a sum over pairs of unrelated classes, hence the root.

    >>> round(interval_width(45), 2)
    0.19
    """
    reach = float(stats.t.ppf(0.975, n_classes - 1))
    return 2 * reach * math.sqrt(2) * null_deviation(n_classes) / ceiling

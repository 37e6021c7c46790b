"""The similarity measures by name, with what holds of each: one list for tables and for tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from interp.core.errors import NumericsError, check_known
from interp.probes.canonical import (
    pwcca,
    pwcca_dimensions,
    pwcca_in_orders,
    svcca,
    svcca_dimensions,
    svcca_in_orders,
)
from interp.probes.cka import (
    biased_cka,
    cka,
    dealt_batches,
    gaussian_kernel,
    minibatch_cka,
    minibatch_in_orders,
    rbf_cka,
    u_centred,
)
from interp.probes.neighbours import mutual_knn, neighbours
from interp.probes.predictivity import dealt_folds, predictivity, predictivity_in_orders
from interp.probes.procrustes import procrustes, procrustes_in_orders
from interp.probes.rsa import ranked_distances, rsa

K = 10
"""Neighbours of mutual k-NN, as in Huh et al. 2024."""


@dataclass(frozen=True)
class Measure:
    """A similarity measure: its title in tables, its function, and what holds of it.

    `least` is the fewest rows. `matrix` makes of centred rows "row feature" a matrix "row row" of
    length 1, such that the measure of two sets is the inner product of their matrices. A measure
    without one has `in_orders` instead: of centred x and y, "order row" and the rows' deal, its
    values with the rows of y in every order. `deal` makes of the rows' groups (classes) the fold or
    batch of each row, and `dimensions` tells how many of a set it keeps, where it needs more rows
    than both sets keep together. The others say whether it is 0 on average without relation
    (`zero`), unmoved by rotations of either set, the same from either side, and unmoved by the
    order of the rows (batches and folds are dealt by place).

    >>> MEASURES["cka"].title, MEASURES["pwcca"].symmetric
    ('debiased CKA', False)
    """

    title: str
    estimate: Callable[..., float]
    least: int
    matrix: Callable[[np.ndarray], np.ndarray] | None = None
    zero: bool = False
    rotation: bool = True
    symmetric: bool = True
    any_order: bool = True
    in_orders: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    deal: Callable[[np.ndarray], np.ndarray] | None = None
    dimensions: Callable[[np.ndarray], int] | None = None


def _unit(matrix: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(matrix)
    if not length > 0:
        raise NumericsError(
            "compare rows",
            "rows that are all equally far apart",
            "rows with some geometry",
            "give more rows or another site",
        )
    return matrix / length


def _debiased(x: np.ndarray) -> np.ndarray:
    return _unit(u_centred(x @ x.T))


def _biased(x: np.ndarray) -> np.ndarray:
    return _unit(x @ x.T)


def _rbf(x: np.ndarray) -> np.ndarray:
    return _unit(u_centred(gaussian_kernel(x)))


def _near(x: np.ndarray) -> np.ndarray:
    return _unit(neighbours(x, K).astype(float))


def _rsa(title: str, distance: str, *, rotation: bool) -> Measure:
    matrix = partial(ranked_distances, distance=distance)
    estimate = partial(rsa, distance=distance)
    return Measure(title, estimate, 4, matrix, zero=True, rotation=rotation)


MEASURES: dict[str, Measure] = {
    "cka": Measure("debiased CKA", cka, 4, _debiased, zero=True),
    "biased_cka": Measure("biased CKA", biased_cka, 2, _biased),
    "rbf_cka": Measure("debiased RBF CKA", rbf_cka, 4, _rbf, zero=True),
    "minibatch_cka": Measure(
        "minibatch CKA", minibatch_cka, 4, zero=True, any_order=False,
        in_orders=minibatch_in_orders, deal=lambda groups: dealt_batches(len(groups)),
    ),
    "rsa": _rsa("RSA (correlation)", "correlation", rotation=False),
    "rsa_cosine": _rsa("RSA (cosine)", "cosine", rotation=True),
    "rsa_euclidean": _rsa("RSA (euclidean)", "euclidean", rotation=True),
    "procrustes": Measure(
        "Procrustes similarity", procrustes, 2, in_orders=procrustes_in_orders
    ),
    "svcca": Measure(
        "SVCCA", svcca, 4, in_orders=svcca_in_orders, dimensions=svcca_dimensions
    ),
    "pwcca": Measure(
        "PWCCA", pwcca, 4, rotation=False, symmetric=False,
        in_orders=pwcca_in_orders, dimensions=pwcca_dimensions,
    ),
    "mutual_knn": Measure(f"mutual {K}-NN", mutual_knn, K + 2, _near),
    "predictivity": Measure(
        "linear predictivity", predictivity, 10, zero=True, symmetric=False, any_order=False,
        in_orders=predictivity_in_orders, deal=dealt_folds,
    ),
}  # fmt: skip


def find_measure(name: str, asked: str) -> Measure:
    """The measure of a name, or an error that suggests the nearest.

    >>> find_measure("rsa_cosine", "compare layers").title
    'RSA (cosine)'
    """
    check_known(asked, "measure", [name], MEASURES)
    return MEASURES[name]

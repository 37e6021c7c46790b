"""A comparison of two domains: what is asked, the pictures it takes, and what is found."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.probes.features.matrices import Features
from interp.probes.representational_similarity.arrangements import CROSS_VALIDATED
from interp.probes.representational_similarity.measures import MEASURES


@dataclass(frozen=True)
class ComparisonDesign:
    """What is asked of every pair of domains."""

    measure: str
    rows: str
    layers: str
    n_splits: int
    n_permutations: int
    seed: int

    @property
    def exact(self) -> bool:
        """Whether leaving a class out has a closed form: for linear CKA of class means."""
        return self.rows == "class mean" and self.measure == "cka"

    @property
    def zero(self) -> bool:
        """Whether the mean over permutations of classes is 0 by construction."""
        debiased = self.measure == CROSS_VALIDATED or MEASURES[self.measure].zero
        return self.rows != "picture pair" and debiased

    @property
    def by_matrix(self) -> bool:
        """Whether the measure is an inner product of matrices, with an exact null."""
        return self.measure == CROSS_VALIDATED or MEASURES[self.measure].matrix is not None


@dataclass(frozen=True)
class Dealt:
    """The pictures of two domains, dealt into halves: each side's features and domain.

    `frame` lists the pictures at `rows` of the features; `size` is how many rows of a comparison
    each of the `classes` has; `meetings` are the halves that share no artist.
    """

    sides: tuple[tuple[Features, str], tuple[Features, str]]
    rows: np.ndarray
    frame: pd.DataFrame
    deals: list[np.ndarray]
    classes: list[str]
    meetings: list[tuple[int, int]]
    size: int


@dataclass(frozen=True)
class Measured:
    """Two domains measured at pairs of sites.

    value, null: "site site"; with a class left out: "class site site"; within (a domain's halves):
    "site", within_left: "class site"; drawn: "permutation site site"; failed: why a site cannot
    be measured, in each domain; refused: why a pair of sites cannot be.
    """

    failed: tuple[np.ndarray, np.ndarray]
    refused: np.ndarray
    value: np.ndarray
    value_left: np.ndarray
    null: np.ndarray
    null_left: np.ndarray
    within: tuple[np.ndarray, np.ndarray]
    within_left: tuple[np.ndarray, np.ndarray]
    drawn: np.ndarray

    @staticmethod
    def nothing(n_sites: int, n_others: int, n_classes: int, n_drawn: int, why: str) -> "Measured":
        """No number anywhere, to be filled in or left for a reason.

        >>> Measured.nothing(2, 3, 5, 9, "too few classes").value_left.shape
        (5, 2, 3)
        """
        shape = (n_sites, n_others)
        return Measured(
            failed=(np.full(n_sites, "", dtype=object), np.full(n_others, "", dtype=object)),
            refused=np.full(shape, why, dtype=object),
            value=np.full(shape, np.nan),
            value_left=np.full((n_classes, *shape), np.nan),
            null=np.full(shape, np.nan),
            null_left=np.full((n_classes, *shape), np.nan),
            within=(np.full(n_sites, np.nan), np.full(n_others, np.nan)),
            within_left=(
                np.full((n_classes, n_sites), np.nan),
                np.full((n_classes, n_others), np.nan),
            ),
            drawn=np.full((n_drawn, *shape), np.nan),
        )

"""Erasers: affine maps that take a concept out of vectors (LEACE, Belrose et al. 2023)."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.core.errors import NumericsError, SampleError


@dataclass(frozen=True)
class Eraser:
    """An affine map that takes a subspace out of vectors.

        r(x) = x - left right (x - mean)

    Args:
        mean: The vector that stays as it is, "feature".
        left: "feature rank".
        right: "rank feature".

    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> Eraser(torch.zeros(2), eye[:, :1], eye[:1])(torch.tensor([[3.0, 4.0]])).tolist()
    [[0.0, 4.0]]
    """

    mean: Tensor
    left: Tensor
    right: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Vectors "... feature" without what is erased, in their own dtype and on their device."""
        mean, left, right = (part.to(x) for part in (self.mean, self.left, self.right))
        return x - ((x - mean) @ right.T) @ left.T

    def moved(self, covariance: Tensor) -> float:
        """E |x - r(x)|^2: the variance that is removed, of x with this covariance."""
        change = self.left @ self.right
        return float(torch.einsum("ij,jk,ik->", change, covariance, change))

    def share(self, covariance: Tensor) -> float:
        """The variance that is removed, as a share of all there is."""
        return self.moved(covariance) / float(covariance.trace())


class Moments:
    """Mean and covariance of vectors, and their covariances with labels, summed batch by batch.

    concept-erasure's `LeaceFitter` does the summing; the covariance of the vectors, which is large,
    is shared by all `n_labellings`, of `n_values` labels each.
    """

    def __init__(self, n_labellings: int, n_values: int) -> None:
        self.n_labellings, self.n_values = n_labellings, n_values
        self._fitter: Any = None

    def update(self, x: Tensor, labels: Tensor) -> None:
        """Add vectors "row feature" and their labels "row labelling" (0 to n_values - 1)."""
        z = torch.nn.functional.one_hot(labels, self.n_values).flatten(1)
        if self._fitter is None:
            self._fitter = _leace_fitter(x.shape[1], z.shape[1])
        self._fitter.update(x.detach().cpu().double(), z.double())

    @property
    def covariance(self) -> Tensor:
        """Of the vectors, "feature feature"."""
        return self._fitter.sigma_xx_ / (self._fitter.n - 1)

    def leace(self, labelling: int) -> Eraser:
        """The LEACE eraser of one of the labellings (Belrose et al. 2023).

        Among the affine maps after which no linear probe reads the labels, it changes x least in
        mean square. The covariance is shrunk as the package does, since features may outnumber
        vectors; on the vectors it was fitted to, labels are unreadable either way.
        """
        if self._fitter is None or int(self._fitter.n) < 2:
            raise SampleError(
                "fit an eraser", "fewer than two vectors", "two or more", "give more pictures"
            )
        columns = slice(labelling * self.n_values, (labelling + 1) * self.n_values)
        whole = self._fitter
        part = _leace_fitter(whole.x_dim, self.n_values)
        part.n, part.mean_x, part.sigma_xx_ = whole.n, whole.mean_x, whole.sigma_xx_
        part.mean_z, part.sigma_xz_ = whole.mean_z[columns], whole.sigma_xz_[:, columns]
        found = part.eraser
        eraser = Eraser(whole.mean_x.clone(), found.proj_left, found.proj_right)
        if not bool(torch.isfinite(eraser.left).all()):
            given = "vectors whose covariance cannot be inverted"
            raise NumericsError("fit an eraser", given, "features that vary", "leave the site out")
        return eraser

    def random(self, like: Eraser, generator: np.random.Generator) -> Eraser:
        """Take out a random subspace that holds as much variance as `like` removes."""
        axes, strength = matched_subspace(self.covariance, like.moved(self.covariance), generator)
        return Eraser(like.mean, axes * strength, axes.T)


def matched_subspace(
    covariance: Tensor, variance: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random orthonormal axes "feature rank" and strengths "rank" that remove a given variance.

    Axes are added until they hold enough; the last is taken out in part, so that
    sum_i strength_i^2 axis_i' covariance axis_i = variance exactly. Rank is not matched: a concept
    may lie along the direction of most variance, and no other of its rank would hold as much.

    Raises `NumericsError` for more variance than there is.

    >>> axes, strength = matched_subspace(torch.eye(4).double(), 2.25, np.random.default_rng(0))
    >>> axes.shape, round(float(strength[-1]), 6)
    (torch.Size([4, 3]), 0.5)
    """
    d = len(covariance)
    axes = torch.linalg.qr(torch.as_tensor(generator.normal(size=(d, d)), dtype=covariance.dtype))[
        0
    ]
    held = (axes * (covariance @ axes)).sum(dim=0)
    total = held.cumsum(dim=0)
    if not variance <= float(total[-1]) * (1 + 1e-9):
        given = f"{variance:.3g} of a total of {float(total[-1]):.3g}"
        right = "less than the total"
        raise NumericsError("match the variance of an eraser", given, right, "fit to more pictures")
    rank = min(int((total < variance).sum()) + 1, d)
    strength = torch.ones(rank, dtype=covariance.dtype)
    missing = variance - float(total[rank - 1] - held[rank - 1])
    strength[-1] = (missing / float(held[rank - 1])) ** 0.5 if missing > 0 else 0.0
    return axes[:, :rank], strength


def _leace_fitter(d: int, k: int) -> Any:
    """concept-erasure's `LeaceFitter` for d features and k label columns.

    Its default cuts off correlations below .01, and mixes the map with another where variance would
    grow; either way something of the concept would stay readable.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        from concept_erasure import LeaceFitter
    return LeaceFitter(d, k, dtype=torch.float64, svd_tol=1e-6, constrain_cov_trace=False)

"""Erasers: affine maps that take a concept out of an activation, and their insertion in a tower."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.core.errors import NumericsError, SampleError, SiteError, check_known
from interp.core.tower import Tower
from interp.probes.features.pooling import tokens, untokens

POSITIONS = ("every", "class")
"""Which tokens an eraser changes: each of them with one map, or the class token alone."""


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


def leace(x: ArrayLike, labels: ArrayLike) -> Eraser:
    """Fit the LEACE eraser of one labelling of vectors.

    Args:
        x: Vectors "row feature".
        labels: Labels "row": names, or whole numbers from 0.

    Returns:
        The affine map after which no linear probe reads the labels from these vectors, and that
        changes them least in mean square.

    Raises:
        SampleError: For fewer than two vectors.
        NumericsError: For vectors whose covariance cannot be inverted.

    References:
        Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form".

    Notes:
        The covariance is shrunk, as in the package concept-erasure, since features may outnumber
        vectors. On the vectors that it was fitted to, labels are unreadable either way.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> labels = (x[:, 0] > 0).astype(int)
    >>> erased = leace(x, labels)(torch.as_tensor(x)).numpy()
    >>> gap = erased[labels == 1].mean(axis=0) - erased[labels == 0].mean(axis=0)
    >>> bool(np.abs(gap).max() < 1e-12)
    True
    """
    given = np.asarray(labels)
    if given.dtype.kind in "UO":  # names, in any order
        given = np.unique(given.astype(str), return_inverse=True)[1]
    vectors, places = torch.as_tensor(np.asarray(x)), torch.as_tensor(given)
    moments = Moments(1, int(places.max()) + 1)
    moments.update(vectors, places[:, None])
    return moments.leace(0)


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


def eraser_hook(
    eraser: Callable[[Tensor], Tensor], axes: tuple[str, ...], *, positions: str = "every"
) -> Callable[..., Tensor]:
    """A hook that erases from an activation: at every position or place, or at the class token."""
    check_positions(axes, positions)

    def hook(activation: Tensor, hook: object = None) -> Tensor:
        x = tokens(activation, axes)
        if positions == "class":
            x = torch.cat([eraser(x[:, :1]), x[:, 1:]], dim=1)
        else:
            x = eraser(x)
        return untokens(x, activation, axes)

    return hook


@contextmanager
def erased(
    tower: Tower, site: str, eraser: Callable[[Tensor], Tensor], *, positions: str = "every"
) -> Iterator[Tower]:
    """Apply an eraser at a site of a tower to everything that runs within the `with` block.

    Args:
        tower: The tower.
        site: The site.
        eraser: From vectors "batch token feature" to vectors of the same shape, such as an
            `Eraser`.
        positions: `every` changes every position (place of a map), `class` the class token alone.

    Returns:
        The tower, from the context manager.

    Raises:
        SiteError: For a site that the tower does not have, other positions, a site that holds no
            vectors (an attention pattern), or a class token on a feature map.

    >>> from interp.circuits import Chain
    >>> eye = torch.eye(2)
    >>> tower, eraser = Chain([torch.nn.Identity()]), Eraser(torch.zeros(2), eye[:, :1], eye[:1])
    >>> with erased(tower, "blocks.0.hook_resid_pre", eraser):
    ...     tower(torch.ones(1, 3, 2)).tolist()
    [[0.0, 2.0]]
    """
    check_known("erase at a site", "site", [site], tower.sites, SiteError)
    hook = eraser_hook(eraser, tower.axes(site), positions=positions)
    with tower.hooks(fwd_hooks=[(site, hook)]):
        yield tower


def check_positions(axes: tuple[str, ...], positions: str) -> None:
    """Refuse sites that hold no vectors, and a class token where there is none."""
    check_known("erase", "positions", [positions], POSITIONS, SiteError)
    if "key" in axes:
        given = f"the axes {', '.join(axes)}"
        right = "vectors: a stream, heads, a map or an embedding"
        raise SiteError("erase from an attention pattern", given, right, "choose another site")
    if positions == "class" and "row" in axes:
        given = "a feature map, which has none"
        right = "positions='every'"
        raise SiteError("erase from the class token", given, right, "erase at every place")


def _leace_fitter(d: int, k: int) -> Any:
    """concept-erasure's `LeaceFitter` for d features and k label columns.

    Its default cuts off correlations below .01, and mixes the map with another where variance would
    grow; either way something of the concept would stay readable.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        from concept_erasure import LeaceFitter
    return LeaceFitter(d, k, dtype=torch.float64, svd_tol=1e-6, constrain_cov_trace=False)

"""The covariance of pictures within their classes, shrunk so that it has an inverse."""

from dataclasses import dataclass

import numpy as np


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

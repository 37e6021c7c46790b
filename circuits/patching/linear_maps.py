"""Linear maps from one model's features to another's, the same at every place of a site."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.subspaces.subspace import feature_axis

RIDGE = 1e-6
"""Penalty, as a share of the mean variance: small, since what is read may be small itself."""


@dataclass(frozen=True)
class Stitch:
    """A linear map between the features of two sites, the same at every position.

    Args:
        weight: `[source target]`.
        bias: `[target]`.
    """

    weight: Float[Tensor, "source target"]
    bias: Float[Tensor, " target"]

    def __call__(self, rows: Float[Tensor, "*batch source"]) -> Float[Tensor, "*batch target"]:
        return rows @ self.weight.to(rows) + self.bias.to(rows)


def fit_stitch(
    source: Float[Tensor, "row source"],
    target: Float[Tensor, "row target"],
    *,
    ridge: float = RIDGE,
) -> Stitch:
    """Fit the map by least squares with a small penalty.

    min_W |(X - mean X) W - (Y - mean Y)|^2 + ridge * n * tr(cov X) / d * |W|^2

    Args:
        source: Rows X.
        target: The rows Y that they are mapped to.
        ridge: The penalty.

    Returns:
        The map.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> fit_stitch(x, 2 * x + 1, ridge=0.0)(x).round(decimals=4).tolist()
    [[1.0, 3.0], [3.0, 1.0], [3.0, 3.0]]
    """
    x, y = source.double(), target.double()
    means = x.mean(dim=0), y.mean(dim=0)
    x, y = x - means[0], y - means[1]
    gram = x.T @ x
    spread = gram.diagonal().mean()
    if spread == 0:  # nothing to map: the mean of the target
        return Stitch(torch.zeros_like(x.T @ y), means[1])
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram + ridge * spread * eye, x.T @ y)
    return Stitch(weight, means[1] - means[0] @ weight)


def places_last(activation: Tensor, axes: Sequence[str]) -> Float[Tensor, "batch place feature"]:
    """An activation with its features last and all other places in one axis.

    >>> places_last(torch.zeros(2, 3, 4, 5), ("batch", "channel", "row", "column")).shape
    torch.Size([2, 20, 3])
    """
    moved = activation.movedim(list(axes).index(feature_axis(axes)), -1)
    return moved[:, None] if moved.ndim == 2 else moved.flatten(1, -2)


def as_before(flat: Tensor, like: Tensor, axes: Sequence[str]) -> Tensor:
    """The reverse of `places_last`, in the shape and format of an activation of that site."""
    at = list(axes).index(feature_axis(axes))
    shape = like.movedim(at, -1).shape
    return flat.reshape(shape).movedim(-1, at).to(like)

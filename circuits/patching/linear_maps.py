"""Linear maps from one model's features to another's, the same at every place of a site."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.core.errors import ShapeError, SiteError, listed
from interp.core.seeds import rng

FEATURES = ("d_model", "d_mlp", "d_head", "d_embed", "channel", "feature")
"""The axes along which a subspace may lie, and a map goes."""

MAP = ("batch", "channel", "row", "column")

RIDGES = tuple(10.0**power for power in range(-6, 2))
"""Penalties that are tried, as shares of the mean variance. A layer of as many features as there
are rows needs a large one: there one CLIP kept .95 of another, and .25 with the smallest."""

FOLDS = 4


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


@dataclass(frozen=True, eq=False)
class StitchSource:
    """Activations that maps are fitted from, as often as there are targets.

    min_W |(X - mean X) W - (Y - mean Y)|^2 + ridge * tr(X^T X) / d * |W|^2

    The ridge is the one of `RIDGES` whose map errs least on pictures that it was not fitted to, in
    four folds of the pictures. Their classes, and what any model answers, have no part in it.

    Args:
        rows: X, the features at each place of each picture.

    >>> x = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0))
    >>> stitch = StitchSource(x).fit(2 * x + 1)
    >>> bool((stitch(x) - (2 * x + 1)).abs().max() < 1e-4)
    True
    """

    rows: Float[Tensor, "picture place source"]

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor]:
        mean = self.rows.double().mean(dim=(0, 1))
        return self.rows.double() - mean, mean

    @cached_property
    def _folds(self) -> list[slice]:
        """Every fourth picture, from each of the first four on."""
        return [slice(fold, None, FOLDS) for fold in range(min(FOLDS, len(self.rows)))]

    @cached_property
    def _whole(self) -> "_Spectrum":
        x, _ = self._centred
        return _Spectrum.of(_product(x, x))

    @cached_property
    def _held(self) -> list[tuple["_Spectrum", Tensor]]:
        """For each fold the spectrum of the others, and its own scatter in those coordinates."""
        x, total = self._centred[0], self._whole.gram
        found = []
        for fold in self._folds:
            own = _product(x[fold], x[fold])
            spectrum = _Spectrum.of(total - own)
            found.append((spectrum, spectrum.ways.T @ own @ spectrum.ways))
        return found

    def fit(self, target: Float[Tensor, "picture place target"]) -> Stitch:
        """The map to a target.

        Args:
            target: Y, at the same places of the same pictures.

        Returns:
            The map.
        """
        x, mean = self._centred
        y = target.to(x)
        middle = y.mean(dim=(0, 1))
        y = y - middle
        if self._whole.spread == 0:  # nothing to map: the mean of the target
            return Stitch(x.new_zeros(x.shape[-1], y.shape[-1]), middle)
        both = _product(x, y)
        errors = torch.zeros(len(RIDGES), dtype=x.dtype)
        for fold, (spectrum, own) in zip(self._folds, self._held, strict=True):
            met = _product(x[fold], y[fold])
            way, held = spectrum.ways.T @ (both - met), spectrum.ways.T @ met
            for n, ridge in enumerate(RIDGES):
                found = spectrum.shrunk(way, ridge)
                errors[n] += float((found * (own @ found - 2 * held)).sum())
        weight = self._whole.ways @ self._whole.shrunk(
            self._whole.ways.T @ both, RIDGES[int(errors.argmin())]
        )
        return Stitch(weight, middle - mean @ weight)


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """A scatter matrix, its directions and their sizes."""

    gram: Tensor
    sizes: Tensor
    ways: Tensor
    spread: float

    @classmethod
    def of(cls, gram: Tensor) -> "_Spectrum":
        sizes, ways = torch.linalg.eigh(gram)
        return cls(gram, sizes.clamp_min(0), ways, float(gram.diagonal().mean()))

    def shrunk(self, products: Tensor, ridge: float) -> Tensor:
        """Least squares with a penalty, in these coordinates."""
        return products / (self.sizes + ridge * self.spread).clamp_min(1e-300)[:, None]


def _product(x: Tensor, y: Tensor) -> Tensor:
    """x^T y, summed over pictures and places."""
    return x.flatten(0, 1).T @ y.flatten(0, 1)


MOST_ROWS = 40_000
"""Rows (a position of a picture) that a map is fitted to, at most."""


def some_places(n_places: int, n_pictures: int, seed: int = 0) -> Tensor:
    """Places that a map is fitted at: all, or as many as `MOST_ROWS` leaves room for, in order.

    >>> some_places(3, 10).tolist(), len(some_places(100, 2000))
    ([0, 1, 2], 20)
    """
    order = rng("places of a stitch", seed).permutation(n_places)
    return torch.from_numpy(np.sort(order[: max(1, MOST_ROWS // n_pictures)]))


def places_last(activation: Tensor, axes: Sequence[str]) -> Float[Tensor, "batch place feature"]:
    """An activation with its features last and all other places in one axis.

    >>> places_last(torch.zeros(2, 3, 4, 5), ("batch", "channel", "row", "column")).shape
    torch.Size([2, 20, 3])
    """
    moved = activation.movedim(list(axes).index(feature_axis(axes)), -1)
    return moved[:, None] if moved.ndim == 2 else moved.flatten(1, -2)


def places_like(
    activation: Tensor, axes: Sequence[str], like: Tensor, like_axes: Sequence[str]
) -> Float[Tensor, "batch place feature"]:
    """`places_last`, of as many places as another site's activation has: maps are resized.

    Args:
        activation: The activation.
        axes: Its axes.
        like: An activation of the other site.
        like_axes: Its axes.

    Returns:
        The activation with its features last; maps are resized bilinearly.

    Raises:
        ShapeError: For as many places in neither of the two ways.

    >>> small, wide = torch.zeros(1, 2, 2, 2), torch.ones(1, 5, 4, 4)
    >>> places_like(wide, MAP, small, MAP).shape
    torch.Size([1, 4, 5])
    """
    flat, n = places_last(activation, axes), places_last(like, like_axes).shape[1]
    if flat.shape[1] == n:
        return flat
    ends = tuple(axes), tuple(like_axes)
    if not all({"row", "column"} <= set(each) for each in ends):
        given = f"{flat.shape[1]} and {n} places"
        right = "as many places, or maps in both, which are resized"
        raise ShapeError("stitch two models", given, right, "choose other sites")
    size = [like.shape[ends[1].index(name)] for name in ("row", "column")]
    maps = activation.permute(*(ends[0].index(name) for name in MAP))
    small = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return small.permute(0, 2, 3, 1).flatten(1, 2)


def as_before(flat: Tensor, like: Tensor, axes: Sequence[str]) -> Tensor:
    """The reverse of `places_last`, in the shape and format of an activation of that site."""
    at = list(axes).index(feature_axis(axes))
    shape = like.movedim(at, -1).shape
    return flat.reshape(shape).movedim(-1, at).to(like)


def feature_axis(axes: Sequence[str]) -> str:
    """The axis along which a subspace lies; `SiteError` for a site that has none.

    >>> feature_axis(("batch", "channel", "row", "column"))
    'channel'
    """
    for axis in FEATURES:
        if axis in axes:
            return axis
    raise SiteError(
        "find a subspace",
        f"a site with the axes {listed(axes)}",
        f"a site with one of {listed(FEATURES)}",
        "choose a residual stream, an attention's or an MLP's output, or a feature map; a traced "
        "module's axes are named by open_tower(..., axes=...)",
    )

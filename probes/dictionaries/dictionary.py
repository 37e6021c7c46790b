"""Dictionaries of features: sparse autoencoders, which write an activation by few directions.

A sparse autoencoder writes an activation as a bias plus a few of its `width` unit directions, each
with a strength. The strengths are the features that sharing is measured on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from interp.core.errors import NumericsError, ShapeError, SpecificationError


@dataclass(frozen=True)
class L1:
    """Sparsity by a penalty on the sum of strengths.

    Args:
        penalty: Weight of the sum in the loss, at least 0; 0 puts no price on strengths.

    Raises:
        SpecificationError: For a negative penalty, or one that is no number.

    References:
        Bricken et al. 2023, "Towards monosemanticity".

    >>> L1(0.1).select(torch.tensor([[[2.0, -1.0]]])).tolist()
    [[[2.0, 0.0]]]
    """

    penalty: float

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            _refuse_sparsity(f"penalty={self.penalty!r}", "a number of at least 0")

    def select(
        self, strength: Float[Tensor, "dictionary row width"]
    ) -> Float[Tensor, "dictionary row width"]:
        """The positive strengths."""
        return strength.relu()


@dataclass(frozen=True)
class TopK:
    """Sparsity by keeping the strongest features of each row.

    Args:
        k: Features that are kept of a row, at least 1; of these only the positive ones count.

    Raises:
        SpecificationError: For k below 1.

    References:
        Gao et al. 2024, "Scaling and evaluating sparse autoencoders".

    >>> TopK(1).select(torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]])).tolist()
    [[[2.0, 0.0], [0.0, 0.0]]]
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            _refuse_sparsity(f"k={self.k!r}", "at least one feature a row")

    def select(
        self, strength: Float[Tensor, "dictionary row width"]
    ) -> Float[Tensor, "dictionary row width"]:
        """The positive ones among the k largest of each row."""
        return strongest(strength, self.k)


@dataclass(frozen=True)
class BatchTopK:
    """Sparsity by keeping the strongest features of a batch of rows.

    Args:
        k: Features that are kept per row on average, at least 1; of these only the positive ones
            count.

    Raises:
        SpecificationError: For k below 1.

    References:
        Bussmann et al. 2024, "BatchTopK sparse autoencoders".

    Notes:
        One row may have more features and another fewer. Once trained, a threshold takes the place
        of the batch, so that a row's features do not depend on the rows beside it.

    >>> BatchTopK(1).select(torch.tensor([[[2.0, 3.0], [1.0, -2.0]]])).tolist()
    [[[2.0, 3.0], [0.0, 0.0]]]
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            _refuse_sparsity(f"k={self.k!r}", "at least one feature a row")

    def select(
        self, strength: Float[Tensor, "dictionary row width"]
    ) -> Float[Tensor, "dictionary row width"]:
        """The positive ones among the k x rows largest of each dictionary's batch."""
        flat = strength.flatten(1)
        return strongest(flat, self.k * strength.shape[1]).view_as(strength)


Sparsity = L1 | TopK | BatchTopK


@dataclass(frozen=True)
class Dictionary:
    """A trained sparse autoencoder, in the units of the activations it was trained on.

        a  = (x - decoder_bias) encoder + encoder_bias
        f  = a where a > threshold and a is among the k largest of its row, else 0
        x^ = f decoder + decoder_bias

    Args:
        encoder: Weights "d_in width".
        decoder: Directions of the features, "width d_in", rows of norm 1.
        encoder_bias: "width".
        decoder_bias: "d_in".
        threshold: Strength from which each feature counts, "width"; 0 except for BatchTopK and
            JumpReLU.
        k: Features that are kept of a row, for TopK; None sets no limit.
        unit_rows: Whether x is divided by its norm first, and x^ multiplied by it.
        facts: What it was trained on, such as `site`, `pool` and `withheld`.
        standard_rows: Whether each x is centred and divided by its standard deviation (plus 1e-5)
            first, and x^ multiplied by it and shifted back, as dictionaries of others may want.

    Raises:
        SpecificationError: For k outside 1 to `width`, or both ways to scale rows.
        NumericsError: For weights that are not finite.

    Notes:
        One formula serves all kinds. The mean and scale that inputs were normalised with in
        training are folded into the biases. Called on "picture d_in", a dictionary gives "picture
        width" in numpy: it is a code, as `raw_units` and `pca` are.

    >>> eye = torch.eye(2)
    >>> dictionary = Dictionary(eye, eye, torch.zeros(2), torch.ones(2), torch.zeros(2))
    >>> dictionary([[3.0, 0.0]]).tolist()
    [[2.0, 0.0]]
    >>> dictionary.reconstruct(torch.tensor([[3.0, 0.0]])).tolist()
    [[3.0, 1.0]]
    """

    encoder: Float[Tensor, "d_in width"]
    decoder: Float[Tensor, "width d_in"]
    encoder_bias: Float[Tensor, " width"]
    decoder_bias: Float[Tensor, " d_in"]
    threshold: Float[Tensor, " width"]
    k: int | None = None
    unit_rows: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    standard_rows: bool = False

    def __repr__(self) -> str:
        kept = f", at most {self.k} at a time" if self.k else ""
        site = f", of {self.facts['site']}" if "site" in self.facts else ""
        return f"Dictionary({self.width} features of {self.d_in} units{kept}{site})"

    def __post_init__(self) -> None:
        if self.k is not None and not 1 <= self.k <= self.width:
            _refuse_sparsity(f"k={self.k} of {self.width} features", f"k from 1 to {self.width}")
        if self.unit_rows and self.standard_rows:
            raise SpecificationError(
                "make a dictionary", "unit_rows and standard_rows", "one of them", "leave one out"
            )
        for name, tensor in self.tensors.items():
            if not torch.isfinite(tensor).all():
                given = f"a NaN or infinity in its {name}"
                do = "check where the weights come from, or train again at a lower rate"
                raise NumericsError("make a dictionary", given, "finite weights", do)

    @property
    def width(self) -> int:
        """How many features it has."""
        return self.decoder.shape[0]

    @property
    def d_in(self) -> int:
        """How wide the activations are."""
        return self.decoder.shape[1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        names = ("encoder", "decoder", "encoder_bias", "decoder_bias", "threshold")
        return {name: getattr(self, name) for name in names}

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Dictionary":
        """The same dictionary on a device, in a floating-point format."""
        return replace(self, **{n: t.to(device, dtype) for n, t in self.tensors.items()})

    def strength(self, x: Tensor) -> Tensor:
        """What features are chosen by, "... d_in" to "... width": a in the formula above."""
        if self.unit_rows:
            x = x / _norm(x)
        elif self.standard_rows:
            x = (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-5)
        return (x - self.decoder_bias) @ self.encoder + self.encoder_bias

    def encode(self, x: Tensor) -> Tensor:
        """Activations as features.

        Args:
            x: Activations "... d_in".

        Returns:
            Features "... width".

        Raises:
            ShapeError: For activations of another width.
        """
        _refuse_width(x.shape, self.d_in)
        a = self.strength(x)
        a = torch.where(a > self.threshold, a, 0)
        return a if self.k is None else strongest(a, self.k)

    def reconstruct(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """What the features (those of x, unless others are given) make of "... d_in"."""
        made = (self.encode(x) if features is None else features) @ self.decoder
        made = made + self.decoder_bias
        if self.standard_rows:
            return made * x.std(dim=-1, keepdim=True) + x.mean(dim=-1, keepdim=True)
        return made * _norm(x) if self.unit_rows else made

    def __call__(self, values: ArrayLike) -> np.ndarray:
        with torch.no_grad():
            parts = [self.encode(rows).cpu() for rows in self.rows(values)]
        return torch.cat(parts).numpy()

    def rows(self, values: ArrayLike, size: int = 8192) -> Iterator[Tensor]:
        """Activations "picture d_in" as tensors of this dictionary's device, some rows a time."""
        matrix = np.asarray(values)
        _refuse_width(matrix.shape, self.d_in)
        for start in range(0, max(len(matrix), 1), size):
            yield torch.as_tensor(matrix[start : start + size]).to(self.decoder)


def strongest(strength: Tensor, k: int) -> Tensor:
    """The positive ones among the k largest of the last axis; the rest become 0.

    >>> strongest(torch.tensor([3.0, 1.0, 2.0]), 2).tolist()
    [3.0, 0.0, 2.0]
    """
    values, places = strength.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(strength).scatter(-1, places, values.relu())


def _norm(x: Tensor) -> Tensor:
    """Norm of each row; a row of zeros is left as it is."""
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, norm, 1)


def _refuse_width(shape: tuple[int, ...], d_in: int) -> None:
    if not shape or shape[-1] != d_in:
        given = f"shape {tuple(shape)}"
        do = "give the activations of the site that the dictionary was trained on"
        raise ShapeError("encode activations", given, f"{d_in} values a row, as in training", do)


def _refuse_sparsity(given: str, right: str) -> None:
    raise SpecificationError("keep a dictionary sparse", given, right, "choose another")

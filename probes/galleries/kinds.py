"""What a gallery is of: a site's units, heads, features of a code, directions or subspaces.

Each kind makes "batch token unit" of the site's "batch token feature". Beside each stands the same
at random, which a unit is held against.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from interp.core.errors import ShapeError, SiteError, SpecificationError
from interp.core.seeds import rng
from interp.probes.dictionaries.codes import Code

KINDS = ("unit", "head", "feature", "direction", "subspace")
"""What there are galleries of."""

HEADS = "heads"


@dataclass(frozen=True)
class SiteUnits:
    """`n` units of one kind, each a number of every token; `size` directions are behind each."""

    kind: str
    n: int
    read: Callable[[Tensor], Tensor]
    size: int = 1

    def at_random(self, width: int, n: int, *, seed: int = 0) -> "SiteUnits":
        """As many random directions of a site `width` wide, or subspaces where those are read.

        They are drawn evenly from all directions. Features are never below 0, and neither is what
        stands for them here.
        """
        normal = rng("random directions of a gallery", seed).normal(size=(n, width, self.size))
        drawn = np.linalg.qr(normal)[0].transpose(0, 2, 1)
        if self.kind in ("head", "subspace"):
            return _subspaces(list(drawn))
        plain = _directions(drawn[:, 0])
        if self.kind != "feature":
            return plain
        return SiteUnits("direction", n, lambda x: plain.read(x).relu())


def units_at(
    of: Any, site: str, axes: Sequence[str], shape: Sequence[int], width: int
) -> SiteUnits:
    """What `of` stands for at a site: None for its units, or heads, a code, directions, subspaces.

    `shape` is that of one activation along `axes`, `width` the number of features of its tokens.

    Raises `SiteError` for heads where there are none, `ShapeError` for directions of another width,
    `SpecificationError` for anything else.
    """
    if of is None:
        return SiteUnits("unit", width, lambda x: x)
    if isinstance(of, str):
        return _heads(of, site, axes, shape)
    if isinstance(of, Code):
        n = of.encode(torch.zeros(1, 1, width)).shape[-1]
        return SiteUnits("feature", n, of.encode)
    if isinstance(of, list | tuple):
        return _subspaces([_orthonormal(site, each, width) for each in of])
    directions = np.atleast_2d(np.asarray(torch.as_tensor(of).detach().cpu(), dtype=float))
    _check_width(site, directions, width)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ShapeError(
            f"make a gallery of directions at {site}",
            "one that is 0 or not finite",
            "directions with a length",
            "leave it out",
        )
    return _directions(directions / lengths)


def _heads(of: str, site: str, axes: Sequence[str], shape: Sequence[int]) -> SiteUnits:
    if of != HEADS:
        raise SpecificationError(
            f"make a gallery at {site}",
            repr(of),
            '"heads", a code, directions "direction feature", or a list of subspaces',
            "leave it out for the site's units",
        )
    if not {"head", "d_head"} <= set(axes):
        raise SiteError(
            "make a gallery of heads",
            f"{site}, whose axes are {', '.join(axes)}",
            "a site with the axes head and d_head",
            "take blocks.N.attn.hook_z",
        )
    n, size = shape[list(axes).index("head")], shape[list(axes).index("d_head")]

    def lengths(x: Tensor) -> Tensor:
        return rearrange(x, "batch token (head d_head) -> batch token head d_head", head=n).norm(
            dim=-1
        )

    return SiteUnits("head", n, lengths, size)


def _directions(rows: np.ndarray) -> SiteUnits:
    made = torch.from_numpy(np.ascontiguousarray(rows))
    return SiteUnits("direction", len(rows), lambda x: x @ made.to(x).T)


def _subspaces(bases: Sequence[np.ndarray]) -> SiteUnits:
    """How long an activation is within each subspace; `bases` are orthonormal rows."""
    made = torch.from_numpy(np.concatenate(list(bases)))
    sizes = [len(basis) for basis in bases]

    def lengths(x: Tensor) -> Tensor:
        parts = (x @ made.to(x).T).split(sizes, dim=-1)
        return torch.stack([part.norm(dim=-1) for part in parts], dim=-1)

    return SiteUnits("subspace", len(sizes), lengths, round(float(np.mean(sizes))))


def _orthonormal(site: str, basis: Any, width: int) -> np.ndarray:
    rows = np.atleast_2d(np.asarray(torch.as_tensor(basis).detach().cpu(), dtype=float))
    _check_width(site, rows, width)
    if np.linalg.matrix_rank(rows) < len(rows):
        raise ShapeError(
            f"make a gallery of subspaces at {site}",
            "a basis whose rows depend on one another",
            "independent rows",
            "give fewer",
        )
    return np.linalg.qr(rows.T)[0].T


def _check_width(site: str, rows: np.ndarray, width: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ShapeError(
            f"make a gallery at {site}",
            f"shape {rows.shape}",
            f'"direction feature" with {width} features',
            "give directions of that site",
        )

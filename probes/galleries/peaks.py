"""Peaks: the largest number of every picture at a site, and the token where it stands.

One pass of the pictures serves all units of a site.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from interp.core.edits.edits import places, tokens
from interp.core.errors import ShapeError, SiteError, SpecificationError
from interp.core.images import ImageTable, Preprocess
from interp.core.seeds import rng
from interp.core.tower import Tower
from interp.probes.features.features import Code
from interp.probes.features.pooling import parameter, reading_runs

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
    of: object, site: str, axes: Sequence[str], shape: Sequence[int], width: int
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
        given = "one that is 0 or not finite"
        right = "directions with a length"
        raise ShapeError(f"make a gallery of directions at {site}", given, right, "leave it out")
    return _directions(directions / lengths)


def _heads(of: str, site: str, axes: Sequence[str], shape: Sequence[int]) -> SiteUnits:
    if of != HEADS:
        right = '"heads", a code, directions "direction feature", or a list of subspaces'
        do = "leave it out for the site's units"
        raise SpecificationError(f"make a gallery at {site}", repr(of), right, do)
    if not {"head", "d_head"} <= set(axes):
        given = f"{site}, whose axes are {', '.join(axes)}"
        right = "a site with the axes head and d_head"
        raise SiteError("make a gallery of heads", given, right, "take blocks.N.attn.hook_z")
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


def _orthonormal(site: str, basis: object, width: int) -> np.ndarray:
    rows = np.atleast_2d(np.asarray(torch.as_tensor(basis).detach().cpu(), dtype=float))
    _check_width(site, rows, width)
    if np.linalg.matrix_rank(rows) < len(rows):
        given = "a basis whose rows depend on one another"
        right = "independent rows"
        raise ShapeError(f"make a gallery of subspaces at {site}", given, right, "give fewer")
    return np.linalg.qr(rows.T)[0].T


def _check_width(site: str, rows: np.ndarray, width: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != width:
        given = f"shape {rows.shape}"
        right = f'"direction feature" with {width} features'
        raise ShapeError(f"make a gallery at {site}", given, right, "give directions of that site")


NOWHERE = -1
"""The token of a picture in which the number is the same at all tokens."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, as shares of its sides."""


@dataclass(frozen=True, eq=False)
class Peaks:
    """The largest number of each picture, "picture unit", and the token it was found at (or
    `NOWHERE`).

    `grid` are the rows and columns that tokens lie in, and `first` how many stand before them (the
    class token); no grid is known of other sites.
    """

    values: np.ndarray
    tokens: np.ndarray
    grid: tuple[int, int] | None
    first: int = 0

    def box(self, picture: int, unit: int) -> Box | None:
        """Where in the picture the number stands; None for a class token, nowhere, or no grid.

        >>> Peaks(np.ones((1, 1)), np.array([[2]]), (2, 2), first=1).box(0, 0)
        (0.5, 0.0, 1.0, 0.5)
        """
        place = int(self.tokens[picture, unit]) - self.first
        if self.grid is None or place < 0:
            return None
        rows, columns = self.grid
        row, column = divmod(place, columns)
        return column / columns, row / rows, (column + 1) / columns, (row + 1) / rows


def framed(picture: Image.Image, box: Box | None, side: int) -> Image.Image:
    """A picture whose longer side has `side` pixels, with a frame around a part of it."""
    scale = side / max(picture.size)
    width, height = (max(1, round(scale * length)) for length in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    if box is not None:
        ends = zip(box, (width, height) * 2, strict=True)
        left, top, right, bottom = (round(share * (length - 1)) for share, length in ends)
        draw = ImageDraw.Draw(small)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="white", width=4)
        draw.rectangle((left, top, right, bottom), outline="#D55E00", width=2)
    return small


def find_peaks(
    tower: Tower,
    images: ImageTable,
    site: str,
    of: object,
    *,
    preprocess: Preprocess,
    batch_size: int,
    device: str | torch.device | None,
    n_random: int,
    seed: int,
) -> tuple[SiteUnits, Peaks, np.ndarray]:
    """What is read, its peaks, and the values of as many random units, in one pass."""
    like = parameter(tower)
    target = torch.device(device) if device is not None else like.device
    layer, axes = tower.layer(site) + 1, tower.axes(site)
    stop = {"stop_at_layer": layer} if layer < tower.n_layers else {}

    @torch.no_grad()
    def activation(batch: Tensor) -> Tensor:
        x = batch.to(target, like.dtype)
        return tower.run_with_cache(x, names_filter=[site], **stop)[1][site]

    first = activation(images.tensors(preprocess, range(1)))
    width = tokens(first, axes).shape[-1]
    chosen = units_at(of, site, axes, first.shape, width)
    chance = chosen.at_random(width, n_random, seed=seed)

    def peaks(batch: Tensor) -> dict[str, Tensor]:
        seen = tokens(activation(batch), axes)
        read = chosen.read(seen)
        values, at = read.max(dim=1)
        at = at.where(values > read.amin(dim=1), NOWHERE)  # the same at all places, such as 0
        return {"values": values, "tokens": at, "random": chance.read(seen).amax(dim=1)}

    found: dict[str, list[np.ndarray]] = {"values": [], "tokens": [], "random": []}
    for _, made in reading_runs(peaks, images, preprocess, batch_size, [range(len(images))]):
        for name, rows in made.items():
            found[name].append(rows)
    values, at, random = (np.concatenate(rows) for rows in found.values())
    grid, before = _grid(axes, first.shape)
    return chosen, Peaks(values, at.astype(np.int32), grid, before), random


def _grid(axes: Sequence[str], shape: Sequence[int]) -> tuple[tuple[int, int] | None, int]:
    """The rows and columns of a site's tokens, and how many stand before them."""
    sides = [shape[place] for place in places(tuple(axes))]
    if len(sides) == 2:
        return (sides[0], sides[1]), 0
    if len(sides) != 1:
        return None, 0
    for before in (1, 0):
        side = round(max(sides[0] - before, 0) ** 0.5)
        if side > 1 and side**2 == sides[0] - before:
            return (side, side), before
    return None, 0

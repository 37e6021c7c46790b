"""Peaks: the largest number of every picture at a site, and the token where it stands.

One pass of the pictures serves all units of a site.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.core.images import ImageTable, Preprocess
from interp.core.tower import Tower
from interp.probes.features.pooling import places, tokens
from interp.probes.features.reading import parameter, reading_runs
from interp.probes.galleries.kinds import SiteUnits, units_at

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


def find_peaks(
    tower: Tower,
    images: ImageTable,
    site: str,
    of: Any,
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

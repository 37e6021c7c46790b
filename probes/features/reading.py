"""Batches of pictures through a tower, read at sites and pooled: what every pass is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.runs.batching import Batching, batches
from interp.core.sites import find_sites
from interp.core.tower import Tower
from interp.probes.features.matrices import refuse_nan
from interp.probes.features.pooling import (
    attention_weights,
    check_pool,
    places,
    pooled,
    pooling_site,
    refuse_unnamed,
)

Values = dict[str, np.ndarray]
"""Per site, "picture feature" in float32."""


@dataclass
class Reading:
    """What is read of a tower: called with pictures, it gives "batch feature" per site.

    `shapes` are the number and width of each site's tokens, known after the first call.
    """

    tower: Tower
    names: list[str]
    pool: str
    weights_from: str | None
    stop: dict[str, int]
    device: torch.device
    dtype: torch.dtype
    shapes: dict[str, tuple[int, int]]

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        asked = dict.fromkeys([*self.names, *([self.weights_from] if self.weights_from else [])])
        with torch.no_grad():
            x = batch.to(self.device, self.dtype)
            _, cache = self.tower.run_with_cache(x, names_filter=list(asked), **self.stop)
        weights = attention_weights(cache[self.weights_from]) if self.weights_from else None
        made = {}
        for name in self.names:
            axes, activation = self.tower.axes(name), cache[name]
            n = int(np.prod([activation.shape[place] for place in places(axes)]))
            self.shapes[name] = (n, activation[0].numel() // n)
            made[name] = pooled(activation, axes, self.pool, weights)
        return made


def read_from(
    tower: Tower, sites: str | Iterable[str], pool: str, device: str | torch.device | None
) -> Reading:
    """A reading of the sites that the patterns stand for, checked before anything runs."""
    check_pool(pool)
    names = find_sites(sites, list(tower.sites))
    for name in names:
        refuse_unnamed(name, tower.axes(name))
    weights_from = pooling_site(tower) if pool == "attention" else None
    read = [*names, *([weights_from] if weights_from else [])]
    last = max(tower.layer(name) for name in read) + 1
    stop = {"stop_at_layer": last} if last < tower.n_layers else {}
    like = parameter(tower)
    target = torch.device(device) if device is not None else like.device
    return Reading(tower, names, pool, weights_from, stop, target, like.dtype, {})


def reading_runs(
    embed: Callable[[Tensor], Mapping[str, Tensor]],
    images: ImageTable,
    preprocess: Preprocess,
    batch_size: int,
    stretches: Iterable[range],
) -> Iterator[tuple[range, Values]]:
    """Batches of pictures, embedded; the batch is halved for good whenever memory runs out.

    A value that is not finite is refused at once rather than after the whole pass.
    """
    halved = Batching(batch_size)
    pieces = [rows[part] for rows in stretches for part in batches(len(rows), batch_size)]
    for piece in track(pieces, "activations") if len(pieces) > 1 else pieces:
        x = images.tensors(preprocess, piece)
        for part, made in halved.through(len(x), lambda rows, x=x: [embed(x[rows])]):
            rows = piece[part]
            values = {site: value.detach().float().cpu().numpy() for site, value in made.items()}
            for site, matrix in values.items():
                refuse_nan(site, matrix, images.frame, rows.start)
            yield rows, values


def parameter(tower: Any) -> Tensor:
    """A floating-point parameter whose device and dtype the pictures take."""
    parameters = tower.parameters() if hasattr(tower, "parameters") else ()
    return next((p for p in parameters if p.is_floating_point()), torch.empty(0))

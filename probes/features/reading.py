"""Batches of pictures through a tower, read at sites and pooled: what every pass is made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.core.errors import out_of_memory
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say, track
from interp.core.sites import find_sites
from interp.core.tower import Tower
from interp.probes.features.matrices import refuse_nan
from interp.probes.features.pooling import (
    attention_weights,
    check_pool,
    places,
    pooled,
    pooling_site,
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
    """Batches of pictures, embedded; the batch is halved for good whenever memory runs out."""
    size = batch_size
    parts = [
        range(start, min(start + batch_size, rows.stop))
        for rows in stretches
        for start in range(rows.start, rows.stop, batch_size)
    ]
    for part in track(parts, "activations") if len(parts) > 1 else parts:
        batch = images.tensors(preprocess, part)
        done = 0
        while done < len(batch):
            try:
                made = embed(batch[done : done + size])
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
                size = max(1, min(size, len(batch)) // 2)
                say(f"out of memory: the batch is halved to {size}")
                continue
            stop = min(done + size, len(batch))
            values = {site: x.detach().float().cpu().numpy() for site, x in made.items()}
            yield range(part.start + done, part.start + stop), values
            done = stop


def checked(
    made: Iterable[tuple[range, Values]], images: ImageTable
) -> Iterator[tuple[range, Values]]:
    """The same batches; a NaN is refused at once rather than after the whole pass."""
    for rows, values in made:
        refuse_values(values, images, rows.start)
        yield rows, values


def refuse_values(values: Values, images: ImageTable, start: int) -> None:
    """Refuse a batch with a value that is not finite; its first row is picture `start`."""
    for site, matrix in values.items():
        refuse_nan(site, matrix, images.frame, start)


def parameter(tower: Any) -> Tensor:
    """A floating-point parameter whose device and dtype the pictures take."""
    parameters = tower.parameters() if hasattr(tower, "parameters") else ()
    return next((p for p in parameters if p.is_floating_point()), torch.empty(0))

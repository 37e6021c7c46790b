"""Pooling: from an activation with tokens or places to one vector per picture."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.core.edits.edits import check_axes, places, tokens
from interp.core.errors import SiteError, SpecificationError, check_known, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.parallel import Batching, batches
from interp.core.progress import track
from interp.core.sites import find_sites
from interp.core.tower import Tower
from interp.probes.features.features import refuse_nan

POOLS: Mapping[str, str] = {
    "mean": "the mean over all tokens, or over all places of a map",
    "class": "the first token; a map, which has none, is averaged",
    "space": "the mean over the tokens after the first (the patches); a map is averaged",
    "attention": "the mean under the weights with which the tower itself collects its tokens: the "
    "first query's row of its last attention pattern, averaged over heads",
    "token": 'all of them side by side, "picture token*feature", see `Features.tokens`',
}
"""How tokens become one vector: what each pool keeps."""


def pooled(
    activation: Tensor, axes: tuple[str, ...], pool: str, weights: Tensor | None = None
) -> Tensor:
    """An activation as "batch feature", pooled as `POOLS` says.

    `weights` "batch key" are those of `attention_weights`, for `pool="attention"` alone. They fit
    tokens of their own number. On a map their first key stands for the mean of all places, as in
    CLIP's attention pool, and is dealt out evenly; a map so many times as fine as the pool's is
    taken in windows.

    >>> pooled(torch.ones(2, 3, 4, 4), ("batch", "channel", "row", "column"), "mean").shape
    torch.Size([2, 3])
    >>> pooled(torch.ones(2, 5, 3, 4), ("batch", "pos", "head", "d_head"), "class").shape
    torch.Size([2, 12])
    """
    check_axes(activation, axes)
    is_map = "row" in axes or "column" in axes
    found = places(axes)
    if pool == "token":
        return tokens(activation, axes).flatten(1)
    if not found:
        return activation.flatten(1)
    if pool == "attention":
        if activation.shape[found[0]] == 1 and not is_map:
            return activation.flatten(1)
        size = tuple(activation.shape[place] for place in found)
        if weights is None:
            raise SpecificationError(
                "pool by attention", "no weights", '"batch key"', "pass attention_weights(pattern)"
            )
        if not is_map and weights.shape[1] != size[0]:
            raise _unlike(f"{size[0]} tokens", weights)
        w = _on_map(weights, size) if is_map else weights
        return torch.einsum("bt,btf->bf", w.to(activation), tokens(activation, axes))
    if pool == "class" and not is_map:
        return activation.select(found[0], 0).flatten(1)
    if pool == "space" and not is_map and activation.shape[found[0]] > 1:
        activation = activation.narrow(found[0], 1, activation.shape[found[0]] - 1)
    return activation.mean(dim=found).flatten(1)


def attention_weights(pattern: Tensor) -> Tensor:
    """The first query's weights, averaged over heads: "batch head query key" to "batch key".

    >>> attention_weights(torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]])).tolist()
    [[0.5, 0.5]]
    """
    return pattern[:, :, 0].mean(dim=1)


def pooling_site(tower: Tower) -> str:
    """The tower's last attention pattern, by which it collects its tokens: `attnpool`'s, if any.

    Raises `SiteError` for a tower that shows no pattern.
    """
    found = [
        site
        for site in tower.sites
        if site.endswith("pattern") and tower.axes(site) == ("batch", "head", "query", "key")
    ]
    if not found:
        given = "a tower without a site that ends in `pattern`"
        right = "a tower whose attention is hooked"
        do = f"choose another pool of {listed(POOLS)}"
        raise SiteError("pool by the tower's own attention", given, right, do)
    return found[-1]


def check_pool(pool: str) -> None:
    """Refuse a way of pooling that there is not."""
    check_known("pool features", "pool", [pool], POOLS, SpecificationError)


def refuse_unnamed(site: str, axes: tuple[str, ...]) -> None:
    """Refuse to pool a site of which nobody has said what its axes are."""
    if len(axes) > 2 and any(axis.startswith("axis_") for axis in axes):
        raise SiteError(
            f"pool {site}",
            f"the axes {listed(axes)}, which do not say what tells tokens apart",
            "axes with names",
            f"name them: tower.name_axes({site!r}, ('batch', 'pos', 'feature')), or channel, row "
            "and column",
        )


def _on_map(weights: Tensor, size: tuple[int, ...]) -> Tensor:
    """Weights "batch key" (the mean, then side x side places) spread over a map, flat."""
    side = round((weights.shape[1] - 1) ** 0.5)
    if side < 1 or side**2 + 1 != weights.shape[1] or any(length % side for length in size):
        raise _unlike(f"a map of {' x '.join(map(str, size))}", weights)
    spread = (weights[:, 1:] + weights[:, :1] / side**2).unflatten(1, (side, side))
    for axis, length in enumerate(size, start=1):
        spread = spread.repeat_interleave(length // side, dim=axis) * side / length
    return spread.flatten(1)


def _unlike(site: str, weights: Tensor) -> SiteError:
    return SiteError(
        "pool by the tower's own attention",
        f"{site} under weights of {weights.shape[1]} keys",
        "as many tokens as keys, or a map as fine as they are, or 2, 3, ... times",
        "choose other sites, or another pool",
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


def parameter(tower: object) -> Tensor:
    """A floating-point parameter whose device and dtype the pictures take."""
    parameters = getattr(tower, "parameters", tuple)()
    return next((p for p in parameters if p.is_floating_point()), torch.empty(0))

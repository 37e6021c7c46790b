"""Decomposition of a ModifiedResNet's embedding into what each bottleneck's branch added.

Every ReLU that follows a residual addition is a gate. With the gates and the attention pool's
pattern held fixed, the map from a branch's output to the embedding is linear: shortcuts,
downsampling convolutions with their batch norm, the pool's values and output.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn

from interp.core.tower import Hook
from interp.models.attribution.transformer_parts import EmbeddingPiece, Label, wide
from interp.models.towers.resnet import HookedResNet

Maps = Float[Tensor, "part batch channel row column"]
NewMaps = Float[Tensor, "part batch new_channel new_row new_column"]


class ResNetFlow:
    """The parts of the stream, carried along block by block while the tower runs.

    At block m every part so far goes through the linear part of the shortcut. The branch's output
    and the constant of a downsampling norm are new parts. Then the block's gates are applied to all
    parts.

    Args:
        tower: The tower whose run is followed.
    """

    def __init__(self, tower: HookedResNet) -> None:
        self.tower = tower
        self.labels = [Label("stem", "stem", -1)]
        self.maps: Tensor = torch.empty(0)
        self.out: Tensor = torch.empty(0)
        self.pattern: Tensor = torch.empty(0)

    def hooks(self) -> list[tuple[str, Hook]]:
        """The hooks to install for the run, as (site, function) pairs."""
        blocks = self.tower.chain
        hooks: list[tuple[str, Hook]] = [("stem.hook_pool", self._begin)]
        for layer, block in enumerate(blocks):
            hooks.append((f"{block.name}.hook_out", self._keep))
            hooks.append((f"{block.name}.hook_resid_post", partial(self._pass, layer)))
        return [*hooks, ("attnpool.hook_pattern", self._end)]

    def _begin(self, tensor: Tensor, hook: object) -> None:
        self.maps = wide(tensor.detach())[None]

    def _keep(self, tensor: Tensor, hook: object) -> None:
        self.out = wide(tensor.detach())

    def _end(self, tensor: Tensor, hook: object) -> None:
        self.pattern = wide(tensor.detach())

    def _pass(self, layer: int, tensor: Tensor, hook: object) -> None:
        block: Any = self.tower.chain[layer]
        new = {block.name: Label(block.name, "block", layer)}
        grown = [self.maps, self.out[None]]
        if block.source.downsample is not None:
            moved, shift = _shortcut(block.source.downsample, self.maps)
            name = f"{block.name}.downsample.b"
            new[name] = Label(name, "bias", layer)
            grown = [moved, self.out[None], shift.expand_as(self.out)[None]]
        self.labels += new.values()
        self.maps = torch.cat(grown).mul_(tensor.detach() > 0)


def _shortcut(downsample: Any, maps: Maps) -> tuple[NewMaps, Float[Tensor, "new_channel 1 1"]]:
    """A downsampling shortcut without the constant that it adds, and that constant."""
    *steps, norm = downsample
    x = rearrange(maps, "part batch channel row column -> (part batch) channel row column")
    for step in steps:
        x = F.conv2d(x, step.weight.to(x)) if isinstance(step, nn.Conv2d) else step(x)
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * gain
    x, shift = x * gain[:, None, None].to(x), shift.to(x)
    return (
        rearrange(
            x, "(part batch) channel row column -> part batch channel row column", part=len(maps)
        ),
        shift[:, None, None],
    )


def resnet_pieces(
    tower: HookedResNet, x: Tensor, *, by: str
) -> tuple[Float[Tensor, "batch d_embed"], list[EmbeddingPiece]]:
    """Run a ResNet tower and split its embedding into parts.

    Args:
        tower: A ResNet tower in evaluation mode.
        x: Pictures.
        by: `layer`, `component`, `head`, `token` or `place`, as in `decompose`.

    Returns:
        The embedding, and pieces whose parts are computed when `make` is called.
    """
    if by == "head":
        return _head_pieces(tower, x)
    if by in ("token", "place"):
        return _token_pieces(tower, x, one_head=by == "place")
    flow = ResNetFlow(tower)
    embedding = tower.run_with_hooks(x, fwd_hooks=flow.hooks())
    pool, pattern = tower.source.attnpool, flow.pattern[:, :, 0]
    places = rearrange(
        flow.maps, "part batch channel row column -> part batch (row column) channel"
    )

    def carried() -> Tensor:
        # a head reads each position directly, and through the mean at position 0
        weight = pattern[..., 1:] + pattern[..., :1] / (pattern.shape[-1] - 1)
        pooled = einsum(
            weight, places, "batch head pos, part batch pos d_model -> batch part head d_model"
        )
        return _project(pool, _values(pool, pooled))

    where = einsum(
        pattern,
        pool.positional_embedding.to(pattern),
        "batch head key, key d_model -> batch head d_model",
    )
    bias = rearrange(pool.v_proj.bias, "(head d_head) -> head d_head", head=pool.num_heads)
    last = tower.n_layers
    return embedding, [
        EmbeddingPiece(flow.labels, carried),
        EmbeddingPiece(
            [Label("attnpool.pos_embed", "pos_embed", last)],
            lambda: _project(pool, _values(pool, where)),
        ),
        EmbeddingPiece(
            [Label("attnpool.b_V", "bias", last)], lambda: _project(pool, bias).expand(len(x), -1)
        ),
        _output_bias(tower, x),
    ]


def _head_pieces(tower: HookedResNet, x: Tensor) -> tuple[Tensor, list[EmbeddingPiece]]:
    """One part for each head of the attention pool."""
    embedding, cache = tower.run_with_cache(x, names_filter="attnpool.hook_z")
    pool, last = tower.source.attnpool, tower.n_layers
    labels = [Label(f"attnpool.head.{head}", "head", last, head) for head in range(pool.num_heads)]
    each = partial(_project_each, pool, wide(cache["attnpool.hook_z"]))
    return embedding, [EmbeddingPiece(labels, each), _output_bias(tower, x)]


def _token_pieces(
    tower: HookedResNet, x: Tensor, *, one_head: bool
) -> tuple[Tensor, list[EmbeddingPiece]]:
    """One part for each head of the pool and position of the map, or for each position.

    Position 0 of the pool is the mean of the map. What a head takes from it is shared out evenly
    over the other positions, with the position embeddings and the bias, so that they sum to the
    head.
    """
    sites = ["attnpool.hook_v", "attnpool.hook_pattern"]
    embedding, cache = tower.run_with_cache(x, names_filter=sites)
    pool, last = tower.source.attnpool, tower.n_layers
    pattern, v = wide(cache["attnpool.hook_pattern"][:, :, 0]), wide(cache["attnpool.hook_v"])
    n_places = v.shape[1] - 1
    labels = [
        Label(f"attnpool.head.{head}.pos.{pos + 1}", "token", last, head, pos + 1)
        for head in range(pool.num_heads)
        for pos in range(n_places)
    ]
    if one_head:
        labels = [Label(f"pos.{pos + 1}", "place", last, pos=pos + 1) for pos in range(n_places)]

    def each() -> Tensor:
        # v at place 0 is the mean of the others' up to its position: the map's share of it is
        # v[place] - position[place] W_V, and the position's is shared evenly
        positions = _position_values(pool).to(v)
        bare = v[:, 1:] - positions[1:]
        own = pattern[:, :, 1:, None] * rearrange(
            v[:, 1:], "batch pos head d_head -> batch head pos d_head"
        )
        spread = rearrange(bare + positions[0], "batch pos head d_head -> batch head pos d_head")
        values = own + pattern[:, :, :1, None] / n_places * spread
        values = rearrange(values, "batch head pos d_head -> batch pos head d_head")
        return _project(pool, values) if one_head else _project_each(pool, values)

    return embedding, [EmbeddingPiece(labels, each), _output_bias(tower, x)]


def _output_bias(tower: HookedResNet, x: Tensor) -> EmbeddingPiece:
    bias = tower.source.attnpool.c_proj.bias
    return EmbeddingPiece(
        [Label("attnpool.b_O", "bias", tower.n_layers)], lambda: bias.expand(len(x), -1)
    )


def _values(
    pool: AttentionPool2d, x: Float[Tensor, "*lead head d_model"]
) -> Float[Tensor, "*lead head d_head"]:
    """Each head's values of its own vector, without the bias."""
    weight = rearrange(
        pool.v_proj.weight, "(head d_head) d_model -> head d_head d_model", head=pool.num_heads
    )
    return einsum(x, weight.to(x), "... head d_model, head d_head d_model -> ... head d_head")


def _position_values(pool: AttentionPool2d) -> Float[Tensor, "key head d_head"]:
    """The values that the position embeddings alone give."""
    return rearrange(
        pool.positional_embedding @ pool.v_proj.weight.T,
        "key (head d_head) -> key head d_head",
        head=pool.num_heads,
    )


def _w_o(pool: AttentionPool2d) -> Float[Tensor, "head d_head d_embed"]:
    return rearrange(
        pool.c_proj.weight, "d_embed (head d_head) -> head d_head d_embed", head=pool.num_heads
    )


def _project(
    pool: AttentionPool2d, z: Float[Tensor, "*lead head d_head"]
) -> Float[Tensor, "*lead d_embed"]:
    return einsum(z, _w_o(pool).to(z), "... head d_head, head d_head d_embed -> ... d_embed")


def _project_each(
    pool: AttentionPool2d, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch head pos d_embed"]:
    return einsum(
        z, _w_o(pool).to(z), "batch pos head d_head, head d_head d_embed -> batch head pos d_embed"
    )

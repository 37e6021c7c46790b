"""Decomposition of a transformer tower's embedding into what each block or head wrote.

With the last norm's scale held at its value, the map from the last residual stream to the embedding
is linear, and the stream is a sum of what was written into it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from interp.models.towers.attention import Heads
from interp.models.towers.block import HookedBlock, HookedNorm
from interp.models.towers.text import HookedText
from interp.models.towers.transformer import TransformerTower
from interp.models.towers.vit import HookedQueries, HookedViT

Stream = Float[Tensor, "batch pos d_model"]


class Label(NamedTuple):
    """The description of a part.

    Args:
        name: Its name, for example `blocks.3.mlp`.
        kind: One of the kinds of `Decomposition`.
        layer: The block; -1 before the blocks, n_layers after them.
        head: The head, or None.
        pos: The source position, or None.
    """

    name: str
    kind: str
    layer: int
    head: int | None = None
    pos: int | None = None


class EmbeddingPiece(NamedTuple):
    """Some parts with the function that computes them.

    Args:
        labels: A label per part.
        make: Gives the parts, `batch part d_embed`, or a tensor that reshapes to it.
    """

    labels: list[Label]
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class ReadOut:
    """The linear map from the last stream to the embedding, with norms and pooling held fixed.

    embedding = sum_channel sum_pos weight[channel, pos] stream[pos] matrix[channel] + constants.

    Args:
        weight: Pooling and norm scale. Pooling by position has one channel, pooling by attention
            one for each of its heads.
        matrix: Centring, gain and projection.
        constants: Biases by name.
    """

    weight: Float[Tensor, "#batch channel pos"]
    matrix: Float[Tensor, "channel d_model d_embed"]
    constants: dict[str, Float[Tensor, "*batch d_embed"]]

    def __call__(self, stream: Stream) -> Float[Tensor, "batch d_embed"]:
        """What a stream, or a part of it, adds to the embedding."""
        pooled = einsum(
            self.weight.expand(len(stream), -1, -1),
            stream.to(self.matrix),
            "batch channel pos, batch pos d_model -> batch channel d_model",
        )
        return einsum(
            pooled, self.matrix, "batch channel d_model, channel d_model d_embed -> batch d_embed"
        )

    def heads(
        self, z: Heads, w_o: Float[Tensor, "head d_head d_model"]
    ) -> Float[Tensor, "batch head d_embed"]:
        """What each head adds; the output bias belongs to no head."""
        pooled = einsum(
            self.weight.expand(len(z), -1, -1),
            z.to(self.matrix),
            "batch channel pos, batch pos head d_head -> batch channel head d_head",
        )
        return einsum(
            pooled,
            self._through(w_o),
            "batch channel head d_head, channel head d_head d_embed -> batch head d_embed",
        )

    def tokens(
        self,
        pattern: Float[Tensor, "batch head query key"],
        v: Float[Tensor, "batch key head d_head"],
        w_o: Float[Tensor, "head d_head d_model"],
    ) -> Float[Tensor, "batch head key d_embed"]:
        """What each head adds from each source position."""
        # queries first: a head and source then costs d_embed numbers, however long the sequence
        share = einsum(
            self.weight.expand(len(v), -1, -1),
            pattern.to(self.matrix),
            "batch channel query, batch head query key -> batch channel head key",
        )
        through, values = self._through(w_o), v.to(self.matrix)
        total = 0
        for channel in range(through.shape[0]):
            carried = einsum(
                values,
                through[channel],
                "batch key head d_head, head d_head d_embed -> batch head key d_embed",
            )
            total = total + carried.mul_(share[:, channel, :, :, None])
        return torch.as_tensor(total)

    def places(self, stream: Stream) -> Float[Tensor, "batch pos d_embed"]:
        """What each position of a stream, or of a part of it, adds to the embedding."""
        return einsum(
            self.weight.expand(len(stream), -1, -1),
            stream.to(self.matrix),
            self.matrix,
            "batch channel pos, batch pos d_model, channel d_model d_embed -> batch pos d_embed",
        )

    def _through(
        self, w_o: Float[Tensor, "head d_head d_model"]
    ) -> Float[Tensor, "channel head d_head d_embed"]:
        return einsum(
            w_o.to(self.matrix),
            self.matrix,
            "head d_head d_model, channel d_model d_embed -> channel head d_head d_embed",
        )


def pooling_weight(tower: HookedViT | HookedText, x: Tensor | None) -> Float[Tensor, "#batch pos"]:
    """How much of each position the pooling reads, which sums to 1.

    Args:
        tower: A transformer tower.
        x: The tokens, which a text tower needs; an image tower ignores it.

    Returns:
        Weights by position. Where learned queries pool, the positions are those of the queries.

    Notes:
        Pooling is linear, so its weights are what it returns for an identity matrix.
    """
    where: Tensor = tower.source.positional_embedding
    if isinstance(tower, HookedViT):
        n = len(where) if tower.attnpool is None else len(tower.attnpool.source.query)
        return tower._pool(torch.eye(n, device=where.device)[None])[:, 0]
    assert x is not None
    identity = torch.eye(len(where), device=where.device)
    if tower.class_token:
        return identity[None, -1]
    return text_global_pool(
        identity.expand(len(x), -1, -1), x, pool_type=tower.pool_type, eos_token_id=tower.eos_id
    )


def read_out(tower: HookedViT | HookedText, x: Tensor, cache: Mapping[str, Tensor]) -> ReadOut:
    """The tower's read-out, with norm scales and pooling attention at their values in a run.

    Args:
        tower: A transformer tower.
        x: The input of the run.
        cache: The run's `ln_final.hook_scale`, and `attnpool`'s pattern and scale where queries
            pool.

    Returns:
        The map from stream to embedding.
    """
    scale = wide(cache["ln_final.hook_scale"])
    # the scale has one position where the tower pools before it normalises
    weight = pooling_weight(tower, x).to(scale) / scale.squeeze(-1)
    project, bias = _projection(tower, scale)
    gain, shift = tower.ln_final.w.to(scale), tower.ln_final.b.to(scale)
    matrix = _centred(gain[:, None] * project)
    constants = {"ln_final.b": shift @ project}
    if bias is not None:
        constants["projection.b"] = bias
    pool = getattr(tower, "attnpool", None)
    if pool is None:
        return ReadOut(weight[:, None], matrix[None], constants)
    return read_by_queries(pool, cache, ReadOut(weight[:, None], matrix[None], constants))


def read_by_queries(pool: HookedQueries, cache: Mapping[str, Tensor], after: ReadOut) -> ReadOut:
    """Extend a read-out through pooling by learned queries; each head becomes a channel.

    Args:
        pool: The pooling module.
        cache: The run's `attnpool.hook_pattern` and `attnpool.ln_k.hook_scale`.
        after: The read-out of what the queries give.

    Returns:
        The map from the stream before the pooling to the embedding.
    """
    like = after.matrix
    pattern = wide(cache["attnpool.hook_pattern"])
    queries = after.weight[:, 0]  # batch query
    weight = einsum(queries, pattern, "batch query, batch head query key -> batch head key")
    weight = weight / wide(cache["attnpool.ln_k.hook_scale"]).squeeze(-1)[:, None]
    gain, shift = pool.ln_k.w.to(like), pool.ln_k.b.to(like)
    w_v, b_v, w_o = pool.W_V.to(like), pool.b_V.to(like), pool.W_O.to(like)
    onwards = einsum(w_o, like[0], "head d_head width, width d_embed -> head d_head d_embed")
    by_head = "head d_model d_head, head d_head d_embed -> head d_model d_embed"
    through = einsum(w_v, onwards, by_head)
    matrix = torch.stack([_centred(gain[:, None] * each) for each in through])
    once = queries.sum(dim=1)[:, None]  # its attention is 1 in all, so it reads each bias once
    biases = {
        "attnpool.ln_k.b": einsum(shift, through, "d_model, head d_model d_embed -> d_embed"),
        "attnpool.b_V": einsum(b_v, onwards, "head d_head, head d_head d_embed -> d_embed"),
        "attnpool.b_O": pool.source.attn.out_proj.bias.to(like) @ like[0],
    }
    constants = {name: once * bias for name, bias in biases.items()}
    return ReadOut(weight, matrix, constants | after.constants)


def _centred(matrix: Float[Tensor, "d_model d_embed"]) -> Float[Tensor, "d_model d_embed"]:
    """Subtract the matrix's mean row: the same as subtracting the mean of what it multiplies."""
    return matrix - matrix.mean(dim=0)


def _projection(tower: HookedViT | HookedText, like: Tensor) -> tuple[Tensor, Tensor | None]:
    source = tower.source
    project = source.proj if isinstance(tower, HookedViT) else source.text_projection
    if isinstance(project, nn.Linear):
        return project.weight.T.to(like), None if project.bias is None else project.bias.to(like)
    if project is None:
        return torch.eye(len(tower.ln_final.w)).to(like), None
    return project.to(like), None


def wide(x: Tensor) -> Tensor:
    """Widen half precision to float32, since half precision cannot hold a sum of parts."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


INNER = {
    "layer": ("hook_attn_out", "hook_mlp_out"),
    "component": ("hook_attn_out", "hook_mlp_out"),
    "head": ("attn.hook_z", "hook_mlp_out"),
    "token": ("attn.hook_pattern", "attn.hook_v", "hook_mlp_out"),
    "place": ("attn.hook_pattern", "attn.hook_v", "hook_mlp_out"),
}
"""The sites of a block that each granularity reads."""


def transformer_pieces(
    tower: HookedViT | HookedText, x: Tensor, *, by: str
) -> tuple[Float[Tensor, "batch d_embed"], list[EmbeddingPiece]]:
    """Run a transformer tower and split its embedding into parts.

    Args:
        tower: A transformer tower in evaluation mode.
        x: Pictures or tokens.
        by: `layer`, `component`, `head`, `token` or `place`, as in `decompose`.

    Returns:
        The embedding, and pieces whose parts are computed when `make` is called.
    """
    sites = [f"blocks.*.{name}" for name in INNER[by]]
    sites += ["hook_embed", "hook_pos_embed", "ln_final.hook_scale"]
    if isinstance(getattr(tower, "ln_pre", None), HookedNorm):
        sites.append("ln_pre.hook_scale")
    if getattr(tower, "attnpool", None) is not None:
        sites += ["attnpool.hook_pattern", "attnpool.ln_k.hook_scale"]
    embedding, cache = tower.run_with_cache(x, names_filter=sites)
    reading = read_out(tower, x, cache)
    pieces = _places(tower, cache, reading) if by == "place" else _entry(tower, cache, reading)
    blocks: Any = tower.blocks
    for layer, block in enumerate(blocks):
        pieces += _block(block, cache, reading, layer, by)
    for name, constant in reading.constants.items():
        pieces.append(_one(name, "bias", tower.n_layers, partial(constant.expand, len(x), -1)))
    return embedding, pieces


def _one(name: str, kind: str, layer: int, make: Callable[[], Tensor]) -> EmbeddingPiece:
    return EmbeddingPiece([Label(name, kind, layer)], make)


def _entered(tower: TransformerTower, cache: Mapping[str, Tensor], site: str) -> Stream:
    """What a site before the first block adds to the stream, through the norm that may follow."""
    stream, norm = wide(cache[site]), getattr(tower, "ln_pre", None)
    if not isinstance(norm, HookedNorm):
        return stream
    centred = stream - stream.mean(dim=-1, keepdim=True)
    return centred / cache["ln_pre.hook_scale"] * norm.w


def _entry(
    tower: TransformerTower, cache: Mapping[str, Tensor], reading: ReadOut
) -> list[EmbeddingPiece]:
    """The parts of the stream before the first block."""
    return [
        _one(name, name, -1, lambda name=name: reading(_entered(tower, cache, f"hook_{name}")))
        for name in ("embed", "pos_embed")
    ] + _entry_bias(tower, cache, reading)


def _entry_bias(
    tower: TransformerTower, cache: Mapping[str, Tensor], reading: ReadOut
) -> list[EmbeddingPiece]:
    norm = getattr(tower, "ln_pre", None)
    if not isinstance(norm, HookedNorm):
        return []
    shift = norm.b.expand_as(cache["hook_embed"])
    return [_one("ln_pre.b", "bias", -1, partial(reading, shift))]


def _places(
    tower: TransformerTower, cache: Mapping[str, Tensor], reading: ReadOut
) -> list[EmbeddingPiece]:
    """A part for each position: what attention read there, and what else stands there."""

    def make() -> Tensor:
        total = sum(
            reading.places(_entered(tower, cache, site))
            for site in ("hook_embed", "hook_pos_embed")
        )
        blocks: Any = tower.blocks
        for layer, block in enumerate(blocks):
            pattern, v, out = (wide(cache[f"blocks.{layer}.{name}"]) for name in INNER["place"])
            total = total + reading.tokens(pattern, v, block.attn.W_O).sum(dim=1)
            total = total + reading.places(out)
        return torch.as_tensor(total)

    n = cache["hook_embed"].shape[1]
    labels = [Label(f"pos.{pos}", "place", tower.n_layers, pos=pos) for pos in range(n)]
    return [EmbeddingPiece(labels, make), *_entry_bias(tower, cache, reading)]


def _block(
    block: HookedBlock, cache: Mapping[str, Tensor], reading: ReadOut, layer: int, by: str
) -> list[EmbeddingPiece]:
    """The parts that a block wrote into the stream."""
    here = f"blocks.{layer}"

    def read(name: str) -> Tensor:
        return wide(cache[f"{here}.{name}"])

    if by == "layer":
        return [
            _one(
                here, "block", layer, lambda: reading(read("hook_attn_out") + read("hook_mlp_out"))
            )
        ]
    mlp = _one(f"{here}.mlp", "mlp", layer, lambda: reading(read("hook_mlp_out")))
    if by == "component":
        return [_one(f"{here}.attn", "attn", layer, lambda: reading(read("hook_attn_out"))), mlp]
    n_heads = block.attn.source.attn.num_heads
    shift = _one(
        f"{here}.attn.b_O",
        "bias",
        layer,
        lambda: reading(block.attn.b_O.expand_as(cache["hook_embed"])),
    )
    if by == "place":
        return [shift]
    name = f"{here}.attn.head"
    if by == "head":
        heads = EmbeddingPiece(
            [Label(f"{name}.{head}", "head", layer, head) for head in range(n_heads)],
            lambda: reading.heads(read("attn.hook_z"), block.attn.W_O),
        )
    else:
        heads = EmbeddingPiece(
            [
                Label(f"{name}.{head}.pos.{pos}", "token", layer, head, pos)
                for head in range(n_heads)
                for pos in range(read("attn.hook_v").shape[1])
            ],
            lambda: reading.tokens(read("attn.hook_pattern"), read("attn.hook_v"), block.attn.W_O),
        )
    return [heads, shift, mlp]

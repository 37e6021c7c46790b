"""open_clip's ModifiedResNet with hooks: three-convolution stem, bottlenecks, attention pooling."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError
from interp.models.towers.attention import attend, merge_heads, split_heads
from interp.models.towers.hooked import HookedTower, share
from interp.models.towers.vit import check_pictures

Map = Float[Tensor, "batch channel row column"]
NewMap = Float[Tensor, "batch new_channel new_row new_column"]

# open_clip's ReLUs write in place, which would overwrite what a hook keeps; here all are F.relu.


class HookedStem(nn.Module):
    """Three convolutions and average pooling over 2 x 2 windows.

    Args:
        source: The `ModifiedResNet`.
    """

    source: ModifiedResNet

    def __init__(self, source: ModifiedResNet) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_act1, self.hook_act2, self.hook_act3 = HookPoint(), HookPoint(), HookPoint()
        self.hook_pool = HookPoint()

    def forward(self, x: Map) -> NewMap:
        """The map that enters the first bottleneck."""
        net = self.source
        x = self.hook_act1(F.relu(net.bn1(net.conv1(x))))
        x = self.hook_act2(F.relu(net.bn2(net.conv2(x))))
        x = self.hook_act3(F.relu(net.bn3(net.conv3(x))))
        return self.hook_pool(net.avgpool(x))


class HookedBottleneck(nn.Module):
    """Three convolutions with a shortcut around them.

    Args:
        source: The open_clip bottleneck.

    Notes:
        `hook_out` is the branch alone, before the shortcut is added. `hook_resid_post` is their sum
        after the ReLU, so it is not a sum of parts as in a transformer.
    """

    source: Bottleneck

    def __init__(self, source: Bottleneck) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_resid_pre = HookPoint()
        self.hook_act1, self.hook_act2, self.hook_out = HookPoint(), HookPoint(), HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, x: Map) -> NewMap:
        """The map after the block."""
        net = self.source
        x = self.hook_resid_pre(x)
        out = self.hook_act1(F.relu(net.bn1(net.conv1(x))))
        out = self.hook_act2(F.relu(net.bn2(net.conv2(out))))
        out = self.hook_out(net.bn3(net.conv3(net.avgpool(out))))
        shortcut = x if net.downsample is None else net.downsample(x)
        return self.hook_resid_post(F.relu(out + shortcut))


class HookedAttentionPool(nn.Module):
    """Attention pooling: the mean of the map attends to itself and to every position of the map.

    Args:
        source: The open_clip attention pool.

    Notes:
        open_clip computes a query for every position and keeps only the mean's. Here only that one
        is computed, so `hook_q`, `hook_z` and the pattern's `query` axis have length 1.
    """

    source: AttentionPool2d

    def __init__(self, source: AttentionPool2d) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z = HookPoint()

    def forward(self, x: Map) -> Float[Tensor, "batch d_embed"]:
        """The embedding."""
        pool = self.source
        places = rearrange(x, "batch channel row column -> batch (row column) channel")
        places = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        places = places + pool.positional_embedding.to(places.dtype)
        q = self.hook_q(split_heads(pool.q_proj(places[:, :1]), n_heads=pool.num_heads))
        k = self.hook_k(split_heads(pool.k_proj(places), n_heads=pool.num_heads))
        v = self.hook_v(split_heads(pool.v_proj(places), n_heads=pool.num_heads))
        z = self.hook_z(
            attend(q, k, v, None, at_scores=self.hook_attn_scores, at_pattern=self.hook_pattern)
        )
        return pool.c_proj(merge_heads(z)).squeeze(1)


class HookedResNet(HookedTower):
    """open_clip's ModifiedResNet as a tower: stem, bottlenecks of four stages, attention pooling.

    Args:
        source: The `ModifiedResNet`.

    Notes:
        `tower(pictures)` is open_clip's `encode_image(pictures, normalize=False)`. The chain is the
        bottlenecks of all stages in a row: layer 0 is `layer1.0`, and the number of `layer2.0` is
        how many blocks the first stage has.

    >>> tower = HookedResNet(ModifiedResNet((1, 1, 1, 1), 32, heads=4, image_size=64, width=8))
    >>> tower.n_layers, tower(torch.zeros(1, 3, 64, 64)).shape
    (4, torch.Size([1, 32]))
    """

    label = "visual"

    def __init__(self, source: ModifiedResNet) -> None:
        super().__init__(source)
        self.stem = HookedStem(source)
        self.layer1 = nn.ModuleList(HookedBottleneck(block) for block in source.layer1)
        self.layer2 = nn.ModuleList(HookedBottleneck(block) for block in source.layer2)
        self.layer3 = nn.ModuleList(HookedBottleneck(block) for block in source.layer3)
        self.layer4 = nn.ModuleList(HookedBottleneck(block) for block in source.layer4)
        self.attnpool = HookedAttentionPool(source.attnpool)
        self.hook_embedding = HookPoint()
        self.setup()

    @property
    def chain(self) -> list[nn.Module]:
        """The bottlenecks of all stages in a row."""
        return [*self.layer1, *self.layer2, *self.layer3, *self.layer4]

    @property
    def cfg(self) -> TransformerBridgeConfig:
        """The tower in TransformerLens's terms; widths and heads are the attention pool's."""
        pool, weight = self.source.attnpool, self.source.conv1.weight
        n_ctx, d_model = pool.positional_embedding.shape
        return TransformerBridgeConfig(
            d_model=d_model,
            d_head=d_model // pool.num_heads,
            n_layers=self.n_layers,
            n_ctx=n_ctx,
            n_heads=pool.num_heads,
            d_vocab=-1,
            act_fn="relu",
            normalization_type=None,
            attention_dir="bidirectional",
            is_visual_model=True,
            device=str(weight.device),
            dtype=weight.dtype,
        )

    def original(self, x: Tensor) -> Tensor:
        """The embedding as open_clip itself computes it."""
        return self.source(x)

    def _check_input(self, x: Tensor) -> None:
        check_pictures(x, size=(self.source.image_size, self.source.image_size))

    def _check_stream(self, stream: Tensor, layer: int) -> None:
        right = self._map_shape(layer)
        if stream.ndim != 4 or tuple(stream.shape[1:]) != right:
            wanted = f"(batch, {right[0]}, {right[1]}, {right[2]})"
            do = "pass what stop_at_layer or hook_resid_pre gave at that layer"
            raise ShapeError(f"resume at layer {layer}", f"shape {tuple(stream.shape)}", wanted, do)

    def _map_shape(self, layer: int) -> tuple[int, int, int]:
        """Channels, rows and columns of the map that enters a block, or the pool."""
        blocks: list[Any] = [block.source for block in self.chain]
        # the stem's first convolution rounds up, its mean over windows rounds down
        side = (self.source.image_size + 1) // 2 // 2
        for block in blocks[:layer]:
            side //= block.stride
        channels = (
            blocks[layer].conv1.in_channels
            if layer < len(blocks)
            else blocks[-1].conv3.out_channels
        )
        return channels, side, side

    def _embed(self, x: Tensor) -> Tensor:
        return self.stem(x)

    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[()]:
        return ()

    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        return self.hook_embedding(self.attnpool(stream))

"""The transformer block that both of CLIP's towers are built of, with its activations named."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, Transformer
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SpecificationError
from interp.models.attention import HookedAttention, Mask
from interp.models.hooked import hooked, only_heard, share


class HookedNorm(nn.Module):
    """A layer norm; its scale and normalised stream exist when somebody listens.

    `hook_scale` is $\\sqrt{\\mathrm{var}(x) + \\epsilon}$ and `hook_normalized` is (x - mean) /
    scale, *before* the gain and the bias, as TransformerLens 4 has it.
    """

    source: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The normalised stream, with gain and bias."""
        points = self._modules.values()  # quicker to come by than each as an attribute
        if not hooked(*points):
            return self.source(x)
        if not torch.is_grad_enabled() and x.dtype in (torch.float32, torch.float64):
            if only_heard(*points):
                return self._overheard(x)
        # half precision cannot hold the squares; the fused kernel widens them too
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred = wide - wide.mean(dim=-1, keepdim=True)
        scale = (centred.pow(2).mean(dim=-1, keepdim=True) + self.source.eps).sqrt()
        normalized = self.hook_normalized(centred / self.hook_scale(scale))
        return (normalized * self.source.weight + self.source.bias).to(x.dtype)

    def _overheard(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The fused kernel, and what it knows: no bit of the result changes for being heard."""
        out, mean, inverse = torch.native_layer_norm(
            x, self.source.normalized_shape, self.source.weight, self.source.bias, self.source.eps
        )
        self.hook_scale(inverse.reciprocal())
        self.hook_normalized((x - mean).mul_(inverse))
        return out

    @property
    def w(self) -> Float[Tensor, "d_model"]:
        """The gain."""
        return self.source.weight

    @property
    def b(self) -> Float[Tensor, "d_model"]:
        """The bias."""
        return self.source.bias


class HookedMLP(nn.Module):
    """The two-layer perceptron of a block, with the LayerScale that may follow it."""

    source: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the neurons write, given the normalised stream."""
        mlp = self.source.mlp
        neurons = self.hook_post(mlp.gelu(self.hook_pre(mlp.c_fc(x))))
        return self.source.ls_2(mlp.c_proj(neurons))

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """The weights into the neurons."""
        return self.source.mlp.c_fc.weight.T

    @property
    def b_in(self) -> Float[Tensor, "d_mlp"]:
        """The neurons' biases."""
        return self.source.mlp.c_fc.bias

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """The weights out of the neurons, LayerScale included."""
        return self.source.ls_2(self.source.mlp.c_proj.weight.T)

    @property
    def b_out(self) -> Float[Tensor, "d_model"]:
        """The output bias, LayerScale included."""
        return self.source.ls_2(self.source.mlp.c_proj.bias)


class HookedBlock(nn.Module):
    """A residual block: attention, then the perceptron, each adding to the stream."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1 = HookedNorm(source.ln_1)
        self.attn = HookedAttention(source)
        self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint()
        self.ln2 = HookedNorm(source.ln_2)
        self.mlp = HookedMLP(source)
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(
        self, stream: Float[Tensor, "batch pos d_model"], mask: Mask = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream after the block."""
        stream = self.hook_resid_pre(stream)
        stream = self.hook_resid_mid(stream + self.hook_attn_out(self.attn(self.ln1(stream), mask)))
        return self.hook_resid_post(stream + self.hook_mlp_out(self.mlp(self.ln2(stream))))


def open_blocks(transformer: Transformer) -> nn.ModuleList:
    """Wrap the blocks of a transformer; `SpecificationError` where they are of another kind."""
    for block in transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            raise unsupported(f"blocks of type {type(block).__name__}", "ResidualAttentionBlock")
    return nn.ModuleList(HookedBlock(block) for block in transformer.resblocks)


def unsupported(given: str, right: str) -> SpecificationError:
    """The error for a part of a tower that nobody wrote hooks for."""
    return SpecificationError(
        "hook this tower", given, right, "choose another model, or read this one through nnsight"
    )


def open_config(
    transformer: Transformer, *, n_ctx: int, causal: bool, vision: bool
) -> TransformerBridgeConfig:
    """Describe a transformer in TransformerLens's terms, for its tools that read `model.cfg`."""
    block: Any = transformer.resblocks[0]
    weight = block.attn.in_proj_weight
    return TransformerBridgeConfig(
        d_model=transformer.width,
        d_head=transformer.width // block.attn.num_heads,
        n_layers=len(transformer.resblocks),
        n_ctx=n_ctx,
        n_heads=block.attn.num_heads,
        d_mlp=block.mlp.c_fc.out_features,
        d_vocab=-1,
        eps=block.ln_1.eps,
        act_fn="quick_gelu" if isinstance(block.mlp.gelu, QuickGELU) else "gelu",
        normalization_type="LN",
        attention_dir="causal" if causal else "bidirectional",
        is_visual_model=vision,
        device=str(weight.device),
        dtype=weight.dtype,
    )


def check_resid(stream: Tensor, *, n_ctx: int, d_model: int) -> None:
    """Refuse what is no residual stream of this tower."""
    if stream.ndim != 3 or tuple(stream.shape[1:]) != (n_ctx, d_model):
        raise ShapeError(
            "resume from a residual stream",
            f"shape {tuple(stream.shape)}",
            f"(batch, {n_ctx}, {d_model})",
            "pass what stop_at_layer or hook_resid_pre gave",
        )

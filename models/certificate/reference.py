"""Reference values of every site of a tower, from a run of the original open_clip modules.

A module's own input or output is the reference wherever a site lies on a module's edge. Inside
fused attention, PyTorch's `multi_head_attention_forward` is called again on the input that the
module received. With weights it returns the pattern; with an identity for the output projection, z;
if moreover every token attends only to itself, v; with the output projection cut up by head, each
head's result. Queries, keys and scores are plain matrix products, head by head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from interp.models.towers.hooked import HookedTower
from interp.models.towers.resnet import HookedResNet
from interp.models.towers.text import HookedText
from interp.models.towers.vit import HookedViT


class Reference(NamedTuple):
    """A site's value in the original.

    Args:
        value: The activation.
        how: Where it was read: `module`, `function`, `weight` or `model`.
    """

    value: Tensor
    how: str


References = dict[str, Reference]

Call = dict[str, Any]
"""The arguments of a call of `multi_head_attention_forward`."""


@dataclass
class Recording:
    """What the original's modules received and returned, by module name.

    Args:
        inputs: The first input of each module.
        outputs: The first output of each module.
        masks: The mask of each attention module.
        kernels: The attention kernel that each module ran.
        attention_calls: Arguments of each direct call of `multi_head_attention_forward`.
        embedding: The model's output.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor | None] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)
    attention_calls: list[Call] = field(default_factory=list)
    embedding: Tensor = field(default_factory=lambda: torch.empty(0))


class _Kernels(TorchDispatchMode):
    """Records which attention kernel ran for the current module."""

    def __init__(self, kernels: dict[str, str]) -> None:
        super().__init__()
        self.kernels, self.module = kernels, ""

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:
        if self.module and "attention" in func.__name__:
            self.kernels[self.module] = func.__name__.removesuffix(".default")
        return func(*args, **(kwargs or {}))


class _AttentionCalls(TorchFunctionMode):
    """Records the arguments of `multi_head_attention_forward`."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:
        if func is F.multi_head_attention_forward:
            given = signature(func).bind(*args, **(kwargs or {})).arguments
            self.calls.append(
                {
                    name: value.detach() if isinstance(value, Tensor) else value
                    for name, value in given.items()
                }
            )
        return func(*args, **(kwargs or {}))


def record(tower: HookedTower, x: Tensor) -> Recording:
    """Run the original on a batch and record what passes between its modules.

    Args:
        tower: A hooked tower, whose `original` is run.
        x: Pictures or tokens.

    Returns:
        Copies of all inputs and outputs; in-place ReLU and `+=` would overwrite the originals.
    """
    kept = Recording()
    kernels = _Kernels(kept.kernels)
    handles = [
        handle
        for name, module in tower.source.named_modules()
        if name
        for handle in _listen(name, module, kept, kernels)
    ]
    try:
        with kernels:
            if isinstance(tower, HookedResNet):
                with _AttentionCalls(kept.attention_calls):
                    kept.embedding = tower.original(x).detach()
            else:  # a function mode would keep PyTorch off its fast path, which is to be seen
                kept.embedding = tower.original(x).detach()
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _listen(
    name: str, module: nn.Module, kept: Recording, kernels: _Kernels
) -> list[RemovableHandle]:
    def before(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        if args and isinstance(args[0], Tensor):
            kept.inputs[name] = args[0].detach().clone()
        if isinstance(module, nn.MultiheadAttention):
            kept.masks[name] = kwargs.get("attn_mask")
            kernels.module = name

    def after(module: nn.Module, args: object, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        kept.outputs[name] = first.detach().clone()
        if isinstance(module, nn.MultiheadAttention):
            kernels.module = ""

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


def references(tower: HookedTower, x: Tensor) -> References:
    """The reference value of every site on a batch.

    Args:
        tower: A hooked tower.
        x: Pictures or tokens.

    Returns:
        References by site; a site that is missing has none.
    """
    kept = record(tower, x)
    with torch.no_grad():
        if isinstance(tower, HookedResNet):
            sites = _resnet_sites(tower, kept)
        elif isinstance(tower, HookedViT):
            sites = _vit_sites(tower, kept) | _block_sites(tower, kept)
        elif isinstance(tower, HookedText):
            sites = _text_sites(tower, kept, x) | _block_sites(tower, kept)
        else:
            sites = {}
    return sites | {"hook_embedding": Reference(kept.embedding, "model")}


# attention


def _attention_call(
    attn: nn.MultiheadAttention, x: Tensor, mask: Tensor | None, keys: Tensor | None = None
) -> dict[str, object]:
    """The arguments with which the module itself calls PyTorch's function."""
    x = x.transpose(0, 1)  # the function wants positions first
    keys = x if keys is None else keys.transpose(0, 1)
    parts = {name: getattr(attn, f"{name}_proj_weight") for name in "qkv"}
    return dict(
        query=x,
        key=keys,
        value=keys,
        embed_dim_to_check=attn.embed_dim,
        num_heads=attn.num_heads,
        in_proj_weight=attn.in_proj_weight,
        in_proj_bias=attn.in_proj_bias,
        use_separate_proj_weight=attn.in_proj_weight is None,
        **{f"{name}_proj_weight": weight for name, weight in parts.items()},
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attn.out_proj.weight,
        out_proj_bias=attn.out_proj.bias,
        training=False,
        need_weights=False,
        attn_mask=mask,
    )


def _ask(call: Call, **changes: object) -> tuple[Tensor, Tensor | None]:
    out, weights = F.multi_head_attention_forward(**{**call, **changes})
    return out.transpose(0, 1), weights


def _attention_sites(call: Call) -> dict[str, Tensor]:
    """q, k, v, scores, pattern and z of one call, for every position."""
    x, keys, heads = call["query"], call["key"], call["num_heads"]
    q, k = _project(call, 0), _project(call, 1)
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    bare = {"out_proj_weight": identity, "out_proj_bias": None}
    alone = torch.full((len(keys), len(keys)), -torch.inf, dtype=x.dtype, device=x.device)
    z, _ = _ask(call, **bare)
    one_each = x[:1].expand(len(keys), -1, -1)  # what is asked does not matter: there is one answer
    v, _ = _ask(call, **bare, query=one_each, attn_mask=alone.fill_diagonal_(0.0))
    _, pattern = _ask(call, need_weights=True, average_attn_weights=False)
    assert pattern is not None
    return {
        "hook_q": q,
        "hook_k": k,
        "hook_v": v.unflatten(-1, (heads, -1)),
        "hook_attn_scores": _scores(q, k, call.get("attn_mask")),
        "hook_pattern": pattern,
        "hook_z": z.unflatten(-1, (heads, -1)),
    }


def _project(call: Call, part: int) -> Tensor:
    """Queries (part 0) or keys (part 1), one head after the other."""
    heads, x = call["num_heads"], call[("query", "key")[part]].transpose(0, 1)
    if call.get("use_separate_proj_weight"):
        weight = call[("q_proj_weight", "k_proj_weight")[part]]
    else:
        weight = call["in_proj_weight"].chunk(3)[part]
    bias = call["in_proj_bias"].chunk(3)[part]
    each = zip(weight.chunk(heads), bias.chunk(heads), strict=True)
    return torch.stack([x @ w.T + b for w, b in each], dim=-2)


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    heads = [q[:, :, head] @ k[:, :, head].transpose(1, 2) for head in range(q.shape[2])]
    scores = torch.stack(heads, dim=1) * q.shape[-1] ** -0.5
    if mask is None:
        return scores
    return scores + (mask.view(scores.shape) if mask.ndim == 3 else mask)


def _results(block: ResidualAttentionBlock, call: Call) -> Tensor:
    """Each head's contribution: output projections with other heads' columns zeroed, stacked."""
    weight, heads = call["out_proj_weight"], call["num_heads"]
    cut = torch.stack([torch.zeros_like(weight)] * heads)
    for head, columns in enumerate(torch.arange(weight.shape[1]).chunk(heads)):
        cut[head][:, columns] = weight[:, columns]
    out, _ = _ask(call, out_proj_weight=cut.flatten(0, 1), out_proj_bias=None)
    return block.ls_1(out.unflatten(-1, (heads, -1)))


# towers


def _norm_sites(prefix: str, norm: nn.LayerNorm, x: Tensor) -> References:
    x = x if x.ndim == 3 else x[:, None]  # pooled before the norm: a `pos` axis of one
    normalized, _, rstd = torch.native_layer_norm(x, norm.normalized_shape, None, None, norm.eps)
    return {
        f"{prefix}.hook_scale": Reference(1 / rstd, "function"),
        f"{prefix}.hook_normalized": Reference(normalized, "function"),
    }


def _block_sites(tower: HookedViT | HookedText, kept: Recording) -> References:
    sites: References = {}
    for layer, block in enumerate(tower.source.transformer.resblocks):
        there, here = f"transformer.resblocks.{layer}", f"blocks.{layer}"
        call = _attention_call(
            block.attn, kept.inputs[f"{there}.attn"], kept.masks[f"{there}.attn"]
        )
        inner = _attention_sites(call) | {"hook_result": _results(block, call)}
        sites |= {
            f"{here}.attn.{name}": Reference(value, "function") for name, value in inner.items()
        }
        sites |= _norm_sites(f"{here}.ln1", block.ln_1, kept.inputs[f"{there}.ln_1"])
        sites |= _norm_sites(f"{here}.ln2", block.ln_2, kept.inputs[f"{there}.ln_2"])
        kernel = kept.kernels.get(f"{there}.attn")
        edges = {
            "hook_resid_pre": kept.inputs[there],
            "hook_attn_out": kept.outputs[f"{there}.ls_1"],
            "hook_resid_mid": kept.inputs[f"{there}.ln_2"],
            "mlp.hook_pre": kept.outputs[f"{there}.mlp.c_fc"],
            "mlp.hook_post": kept.outputs[f"{there}.mlp.gelu"],
            "hook_mlp_out": kept.outputs[f"{there}.ls_2"],
            "hook_resid_post": kept.outputs[there],
        }
        for name, value in edges.items():
            how = f"module, {kernel}" if kernel and name == "hook_attn_out" else "module"
            sites[f"{here}.{name}"] = Reference(value, how)
    return sites


def _vit_sites(tower: HookedViT, kept: Recording) -> References:
    source = tower.source
    patches = kept.outputs["conv1"].flatten(2).transpose(1, 2)
    first = source.class_embedding.expand(len(patches), 1, -1)
    embed = torch.cat([first, patches], dim=1)
    where = source.positional_embedding.detach().expand_as(embed)
    normed = kept.outputs["ln_post"]
    after = source.final_ln_after_pool and source.attn_pool is None
    pooled = normed if after else source._global_pool(normed)[0]
    sites = {
        "hook_embed": Reference(embed, "module"),
        "hook_pos_embed": Reference(where, "weight"),
        "hook_full_embed": Reference(kept.inputs["patch_dropout"], "module"),
        "hook_pooled": Reference(pooled, "function"),
    }
    if not isinstance(source.ln_pre, nn.Identity):
        sites |= _norm_sites("ln_pre", source.ln_pre, kept.inputs["ln_pre"])
    if source.attn_pool is not None:
        tokens = kept.outputs["attn_pool.ln_k"]
        asked = kept.outputs["attn_pool.ln_q"].expand(len(tokens), -1, -1)
        call = _attention_call(source.attn_pool.attn, asked, None, tokens)
        inner = {f"attnpool.{name}": value for name, value in _attention_sites(call).items()}
        sites |= {name: Reference(value, "function") for name, value in inner.items()}
        sites |= _norm_sites("attnpool.ln_k", source.attn_pool.ln_k, kept.inputs["attn_pool.ln_k"])
    return sites | _norm_sites("ln_final", source.ln_post, kept.inputs["ln_post"])


def _text_sites(tower: HookedText, kept: Recording, tokens: Tensor) -> References:
    source, embed = tower.source, kept.outputs["token_embedding"]
    class_token = getattr(source, "cls_emb", None)
    if class_token is not None:
        embed = torch.cat([embed, class_token.expand(len(embed), 1, -1)], dim=1)
    where = source.positional_embedding.detach().expand_as(embed)
    pooled = kept.outputs["ln_final"]
    if class_token is None:
        merged = isinstance(source, CLIP)  # which keeps these under names of its own
        pool = source.text_pool_type if merged else source.pool_type
        end = source.text_eos_id if merged else source.eos_id
        pooled = text_global_pool(pooled, tokens, pool, eos_token_id=end)
    sites = {
        "hook_embed": Reference(embed, "module"),
        "hook_pos_embed": Reference(where, "weight"),
        "hook_full_embed": Reference(kept.inputs["transformer"], "module"),
        "hook_pooled": Reference(pooled, "function"),
    }
    return sites | _norm_sites("ln_final", source.ln_final, kept.inputs["ln_final"])


def _resnet_sites(tower: HookedResNet, kept: Recording) -> References:
    edges = {
        "stem.hook_act1": kept.outputs["act1"],
        "stem.hook_act2": kept.outputs["act2"],
        "stem.hook_act3": kept.outputs["act3"],
        "stem.hook_pool": kept.outputs["avgpool"],
    }
    for stage in (1, 2, 3, 4):
        for number in range(len(getattr(tower.source, f"layer{stage}"))):
            block = f"layer{stage}.{number}"
            edges |= {
                f"{block}.hook_resid_pre": kept.inputs[block],
                f"{block}.hook_act1": kept.outputs[f"{block}.act1"],
                f"{block}.hook_act2": kept.outputs[f"{block}.act2"],
                f"{block}.hook_out": kept.outputs[f"{block}.bn3"],
                f"{block}.hook_resid_post": kept.outputs[block],
            }
    (call,) = kept.attention_calls
    inner = _attention_sites(call)
    # the original asks for every place and keeps the first answer
    for name in ("hook_q", "hook_z"):
        inner[name] = inner[name][:, :1]
    for name in ("hook_attn_scores", "hook_pattern"):
        inner[name] = inner[name][:, :, :1]
    sites = {site: Reference(value, "module") for site, value in edges.items()}
    return sites | {
        f"attnpool.{name}": Reference(value, "function") for name, value in inner.items()
    }


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|, over the values that are finite in both.

    Args:
        ours: A tensor.
        theirs: The reference.

    Returns:
        The error; infinite where shapes differ, or where infinities and NaN do not agree.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    if torch.equal(ours, theirs):
        return 0.0
    finite = theirs.isfinite()
    if not torch.equal(ours[~finite], theirs[~finite]) or not ours[finite].isfinite().all():
        return float("inf")  # a NaN in the reference equals nothing, so it fails as well
    if not finite.any():
        return 0.0
    difference = float((ours[finite] - theirs[finite]).abs().max())
    scale = float(theirs[finite].abs().max())
    return difference / scale if scale else (float("inf") if difference else 0.0)

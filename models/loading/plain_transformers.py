"""timm's and torchvision's plain vision transformers, rebuilt as open_clip's `VisionTransformer`.

They compute the same under other names: patches, a class token, learned positions, blocks that
normalise before attention and MLP, and a pooled, normalised embedding. Rebuilt, such a network is a
hooked tower like CLIP's own, so heads, edges and circuits can be asked of it. A rebuilt network is
used only after its outputs and gradients have been compared with the original's.
"""

from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import LayerScale, QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from interp.core.progress import say
from interp.core.seeds import rng
from interp.models.certificate.certify import move_weights
from interp.models.certificate.reference import relative_error
from interp.models.towers.transformer import unsupported

OUTPUT_BAR, SLOPE_BAR = 1e-10, 1e-8
"""The largest difference allowed in float64, as a fraction of the largest absolute value: of the
embedding, and of its gradient at the picture."""

LARGE = 50_000_000
"""Parameters of a network from which the comparison takes seconds and is announced."""


@dataclass(frozen=True)
class PlainBlock:
    """The parts of one block, whoever wrote it.

    Args:
        norms: The layer norms before attention and MLP.
        heads: Number of heads.
        into: Stacked weight of queries, keys and values, "d_qkv d_model", and its bias.
        out: The output projection of attention.
        layers: The two layers of the MLP.
        activation: Its activation function.
        scales: LayerScale behind attention and MLP; None where there is none.
    """

    norms: tuple[nn.Module, nn.Module]
    heads: int
    into: tuple[nn.Parameter, nn.Parameter | None]
    out: nn.Linear
    layers: tuple[nn.Linear, nn.Linear]
    activation: nn.Module
    scales: tuple[nn.Parameter | None, nn.Parameter | None] = (None, None)


@dataclass(frozen=True)
class PlainTransformer:
    """The parts of a plain vision transformer, whoever wrote it.

    Args:
        image_size: (rows, columns) of its pictures.
        patches: The convolution that makes patches.
        class_token: "1 1 d_model".
        positions: "1 pos d_model", of the class token and the patches.
        before: The layer norm before the blocks; None where there is none.
        blocks: The blocks.
        after: The last layer norm.
        pool: `tok` for the class token, `avg` for the mean of the patches.
        pooled_first: Whether `after` normalises the pooled vector instead of every position.
        project: Weight of a last layer without bias, "d_embed d_model"; None where there is none.
    """

    image_size: tuple[int, int]
    patches: nn.Conv2d
    class_token: Tensor
    positions: Tensor
    before: nn.Module | None
    blocks: tuple[PlainBlock, ...]
    after: nn.Module
    pool: str = "tok"
    pooled_first: bool = False
    project: Tensor | None = None


def hooked_form(module: nn.Module, example: Tensor, *, seed: int = 0) -> VisionTransformer:
    """Rebuild a plain vision transformer as open_clip's, and compare the two.

    error = max |ours - theirs| / max |theirs|

    Args:
        module: A vision transformer of timm or torchvision without a classification layer.
        example: A batch of its input, "batch channel row column".
        seed: Seed of the weights and pictures that they are compared on.

    Returns:
        open_clip's transformer, in evaluation mode. Its parameters share memory with the module's,
        but for positions where the class token has none (they are a copy); where open_clip has a
        parameter that the module lacks (a bias), it is zero and not trained.

    Raises:
        Unhooked: For a module of another kind, a part that open_clip's transformer does not have,
            pictures of another size, or a comparison that fails.

    Notes:
        The comparison runs in float64 on copies of which every weight has been moved off its value.
        Dropout and stochastic depth are left out.
    """
    parts = read_parts(module)
    _check(
        tuple(example.shape[1:]) == (3, *parts.image_size),
        f"pictures of {tuple(example.shape[1:])}",
        f"pictures of {(3, *parts.image_size)}",
    )
    output, slope = compare_forms(module, seed=seed)
    for what, error, bar in (("outputs", output, OUTPUT_BAR), ("gradients", slope, SLOPE_BAR)):
        _check(error <= bar, f"a rebuilt network whose {what} differ by {error:.1e}", f"{bar:.0e}")
    return _rebuilt(parts)


def compare_forms(module: nn.Module, *, seed: int = 0) -> tuple[float, float]:
    """How far a rebuilt network is from the original, in float64 on weights moved off their values.

    Args:
        module: The original.
        seed: Seed of weights and pictures.

    Returns:
        The largest difference of the embeddings and of a projection's gradient at the pictures, as
        fractions of the largest absolute value.
    """
    # on the processor, since not every accelerator has float64
    copy = deepcopy(module).eval().to("cpu", torch.float64).requires_grad_(False)
    parts = read_parts(move_weights(copy, seed))
    if sum(value.numel() for value in copy.parameters()) > LARGE:
        say("a vision transformer is rebuilt with hooks and compared with the original")
    drawn = rng("plain transformer", seed).standard_normal((2, 3, *parts.image_size))
    pictures = torch.tensor(drawn, requires_grad=True)
    found: list[tuple[Tensor, Tensor]] = []
    with torch.enable_grad():
        # rebuilt after the original ran, so that a change of a part they share would show, too
        for network in (lambda: copy, lambda: _rebuilt(parts)):
            embedding = network()(pictures)
            weights = rng("plain transformer gradient", seed).standard_normal(embedding.shape)
            loss = (embedding * torch.tensor(weights)).sum()
            (slope,) = torch.autograd.grad(loss, pictures)
            found.append((embedding.detach(), slope))
    (theirs, their_slope), (own, own_slope) = found
    return relative_error(own, theirs), relative_error(own_slope, their_slope)


def _check(holds: bool, given: str, right: str) -> None:
    if not holds:
        raise unsupported(given, right)


def read_parts(module: nn.Module) -> PlainTransformer:
    from timm.models.vision_transformer import VisionTransformer as OfTimm
    from torchvision.models.vision_transformer import VisionTransformer as OfTorchvision

    if type(module) is OfTimm:
        parts = _of_timm(module)
    elif type(module) is OfTorchvision:
        parts = _of_torchvision(module)
    else:
        kind = f"{type(module).__module__.split('.')[0]}'s {type(module).__name__}"
        raise unsupported(kind, "a VisionTransformer of timm or torchvision")
    patches = parts.patches
    rows, columns = (
        size // step for size, step in zip(parts.image_size, patches.stride, strict=True)
    )
    width = patches.out_channels
    _check(
        tuple(parts.positions.shape) == (1, rows * columns + 1, width),
        f"positions of shape {tuple(parts.positions.shape)}",
        f"one for the class token and each of {rows * columns} patches",
    )
    _check(patches.in_channels == 3 and patches.padding == (0, 0), "other patches", "of 3 colours")
    norms = [parts.after, *(norm for block in parts.blocks for norm in block.norms)]
    for norm in (*norms, *([] if parts.before is None else [parts.before])):
        plain = isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.bias is not None
        _check(plain, f"a {type(norm).__name__}", "layer norms with gain and bias")
    return parts


def _of_timm(module: Any) -> PlainTransformer:
    from timm.layers.patch_embed import PatchEmbed

    embed = module.patch_embed
    _check(type(embed) is PatchEmbed, f"patches by {type(embed).__name__}", "one convolution")
    _check(_idle(embed.norm), "normalised patches", "patches as they are")
    _check(embed.img_size is not None, "pictures of any size", "pictures of one size")
    _check(module.has_class_token, "no class token", "a class token")
    _check(not module.num_reg_tokens, f"{module.num_reg_tokens} register tokens", "none")
    _check(module.pos_embed is not None, "no learned positions", "learned positions")
    pooled = {"token": "tok", "avg": "avg"}.get(module.global_pool)
    _check(pooled is not None, f"pooling {module.global_pool!r}", "token or avg")
    _check(
        not (pooled == "avg" and module.pool_include_prefix),
        "a mean with the class token",
        "a mean of the patches",
    )
    _check(_idle(module.norm) != _idle(module.fc_norm), "no last norm, or two", "one last norm")
    positions = module.pos_embed
    if module.no_embed_class:  # the class token has no position
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return PlainTransformer(
        image_size=embed.img_size,
        patches=embed.proj,
        class_token=module.cls_token,
        positions=positions.detach(),
        before=None if _idle(module.norm_pre) else module.norm_pre,
        blocks=tuple(_block_of_timm(block) for block in module.blocks),
        after=module.fc_norm if _idle(module.norm) else module.norm,
        pool=pooled or "",
        pooled_first=_idle(module.norm),
        project=_projection(module.head),
    )


def _block_of_timm(block: Any) -> PlainBlock:
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import Attention, Block  # type: ignore

    attn: Any = getattr(block, "attn", None)
    mlp: Any = getattr(block, "mlp", None)
    for part, right in ((block, Block), (attn, Attention), (mlp, Mlp)):
        _check(type(part) is right, f"a {type(part).__name__}", f"timm's {right.__name__}")
    _check(_idle(attn.q_norm) and _idle(attn.k_norm), "normed queries and keys", "none")
    _check(_idle(attn.norm) and _idle(mlp.norm), "norms within attention or MLP", "none")
    _check(getattr(attn, "gate", None) is None, "gated attention", "plain attention")
    _check(
        attn.proj.in_features == attn.qkv.in_features, "heads of another width", "d_model / heads"
    )
    scales = tuple(None if _idle(scale) else scale.gamma for scale in (block.ls1, block.ls2))
    return PlainBlock(
        norms=(block.norm1, block.norm2),
        heads=attn.num_heads,
        into=(attn.qkv.weight, attn.qkv.bias),
        out=attn.proj,
        layers=(mlp.fc1, mlp.fc2),
        activation=mlp.act,
        scales=(scales[0], scales[1]),
    )


def _of_torchvision(module: Any) -> PlainTransformer:
    _check(isinstance(module.conv_proj, nn.Conv2d), "several convolutions before the blocks", "one")
    heads = [layer for layer in module.heads.modules() if not list(layer.children())]
    _check(len(heads) < 2, "a hidden layer behind the class token", "one layer or none")
    return PlainTransformer(
        image_size=(module.image_size, module.image_size),
        patches=module.conv_proj,
        class_token=module.class_token,
        positions=module.encoder.pos_embedding.detach(),
        before=None,
        blocks=tuple(_block_of_torchvision(block) for block in module.encoder.layers),
        after=module.encoder.ln,
        project=_projection(heads[0] if heads else nn.Identity()),
    )


def _block_of_torchvision(block: Any) -> PlainBlock:
    from torchvision.models.vision_transformer import EncoderBlock

    _check(type(block) is EncoderBlock, f"a {type(block).__name__}", "torchvision's EncoderBlock")
    attn = block.self_attention
    linear = [layer for layer in block.mlp if isinstance(layer, nn.Linear)]
    rest = [layer for layer in block.mlp if not isinstance(layer, (nn.Linear, nn.Dropout))]
    _check(len(linear) == 2 and len(rest) == 1, "another MLP", "two layers and an activation")
    return PlainBlock(
        norms=(block.ln_1, block.ln_2),
        heads=attn.num_heads,
        into=(attn.in_proj_weight, attn.in_proj_bias),
        out=attn.out_proj,
        layers=(linear[0], linear[1]),
        activation=rest[0],
    )


def _idle(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def _projection(head: nn.Module) -> Tensor | None:
    """The weight of a last layer; a bias would have no place in open_clip's transformer."""
    if _idle(head):
        return None
    plain = isinstance(head, nn.Linear) and head.bias is None
    _check(plain, "a classification layer", "an embedding: take the layer off")
    return head.weight.detach()  # type: ignore[return-value]


def _rebuilt(parts: PlainTransformer) -> VisionTransformer:
    """open_clip's transformer around these parts; a parameter that was left out would show."""
    width, first = parts.patches.out_channels, parts.blocks[0]
    with torch.device("meta"):  # no memory: every parameter is replaced
        vit = VisionTransformer(
            image_size=parts.image_size,  # type: ignore[arg-type]  # it takes pairs
            patch_size=parts.patches.kernel_size,  # type: ignore[arg-type]
            width=width,
            layers=len(parts.blocks),
            heads=first.heads,
            mlp_ratio=first.layers[0].out_features / width,
            no_ln_pre=parts.before is None,
            pool_type=parts.pool,
            final_ln_after_pool=parts.pooled_first,
            output_dim=width if parts.project is None else len(parts.project),
        )
    vit.conv1 = parts.patches
    vit.class_embedding = nn.Parameter(parts.class_token.detach().reshape(width))
    vit.positional_embedding = nn.Parameter(parts.positions[0])
    vit.ln_pre = nn.Identity() if parts.before is None else parts.before
    vit.ln_post = parts.after
    vit.proj = None if parts.project is None else nn.Parameter(parts.project.T)  # type: ignore
    for block, part in zip(vit.transformer.resblocks, parts.blocks, strict=True):
        _fill_block(block, part)
    vit.eval()
    lost = [name for name, value in vit.named_parameters() if value.is_meta]
    _check(not lost, f"no value for {', '.join(lost)}", "every parameter")
    return vit


def _fill_block(block: ResidualAttentionBlock, part: PlainBlock) -> None:
    weight, bias = part.into
    block.ln_1, block.ln_2 = part.norms
    block.attn.in_proj_weight = weight
    block.attn.in_proj_bias = _zeros(weight) if bias is None else bias
    out = _with_bias(part.out)
    block.attn.out_proj.weight, block.attn.out_proj.bias = out.weight, out.bias
    block.ls_1, block.ls_2 = (_scale(gamma) for gamma in part.scales)
    layers = [_with_bias(layer) for layer in part.layers]
    named = {"c_fc": layers[0], "gelu": _activation(part.activation), "c_proj": layers[1]}
    block.mlp = nn.Sequential(OrderedDict(named))


def _zeros(weight: Tensor) -> nn.Parameter:
    """A bias that stays zero."""
    return nn.Parameter(torch.zeros_like(weight[:, 0]), requires_grad=False)


def _with_bias(layer: nn.Linear) -> nn.Linear:
    if layer.bias is not None:
        return layer
    with torch.device("meta"):
        other = nn.Linear(layer.in_features, layer.out_features)
    other.weight, other.bias = layer.weight, _zeros(layer.weight)
    return other


def _scale(gamma: nn.Parameter | None) -> nn.Module:
    if gamma is None:
        return nn.Identity()
    with torch.device("meta"):
        scale = LayerScale(len(gamma))
    scale.gamma = gamma
    return scale


def _activation(module: nn.Module) -> nn.Module:
    """The activation under the class that towers know it by."""
    kind = type(module).__name__
    if isinstance(module, nn.GELU):
        return module
    known = {"GELU": nn.GELU(), "GELUTanh": nn.GELU(approximate="tanh"), "QuickGELU": QuickGELU()}
    _check(kind in known, f"the activation {kind}", "GELU, exact or tanh, or QuickGELU")
    return known[kind]

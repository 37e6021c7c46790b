"""timm's and torchvision's plain transformers as hooked towers, against the originals."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.layers.mlp import SwiGLU
from timm.models.vision_transformer import VisionTransformer as OfTimm
from torch import Tensor, nn
from torchvision.models import VisionTransformer as OfTorchvision

from interp.models import HookedViT, TracedTower, load_encoder
from interp.models.certificate.certify import move_weights
from interp.models.loading import plain_transformers
from interp.models.loading.plain_transformers import compare_forms, hooked_form
from interp.models.towers.transformer import Unhooked
from tests.refusals import refuses

SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0
}  # fmt: skip


def of_timm(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return OfTimm(**{**SMALL, **options}).eval()


def of_torchvision(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    net = OfTorchvision(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=48, **options
    ).eval()
    net.heads = nn.Identity()
    return net


FORMS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": of_torchvision,
    "timm, class token": of_timm,
    "timm, mean and then norm (MAE)": lambda: of_timm(global_pool="avg"),
    "timm, norm and then mean": lambda: of_timm(global_pool="avg", fc_norm=False),
    "timm, class token and then norm": lambda: of_timm(fc_norm=True),
    "timm, LayerScale (DINOv2)": lambda: of_timm(init_values=1e-5),
    "timm, class token without position (DeiT III)": lambda: of_timm(no_embed_class=True),
    "timm, no biases": lambda: of_timm(qkv_bias=False, proj_bias=False),
    "timm, norm before (CLIP), QuickGELU": lambda: of_timm(pre_norm=True, act_layer="quick_gelu"),
    "timm, GELU by tanh": lambda: of_timm(act_layer="gelu_tanh"),
    "timm, any size": lambda: of_timm(dynamic_img_size=True),
    "timm, wide pictures": lambda: of_timm(img_size=(32, 48)),
    "timm, a projection": lambda: with_head(bias=False),
}


def with_head(*, bias: bool) -> nn.Module:
    net = of_timm()
    net.head = nn.Linear(32, 5, bias=bias)
    return net


def pictures(net: Any, n: int = 3) -> Tensor:
    size = net.patch_embed.img_size if isinstance(net, OfTimm) else (net.image_size,) * 2
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def reads(image: Any) -> Tensor:
    return torch.zeros(3, 32, 32)


@pytest.mark.parametrize("form", FORMS)
def test_a_rebuilt_network_computes_what_the_original_does(form: str) -> None:
    net = FORMS[form]()
    move_weights(net, 3)
    tower = HookedViT(hooked_form(net, pictures(net)))
    with torch.no_grad():
        assert torch.allclose(tower(pictures(net)), net(pictures(net)), atol=1e-5)
    output, slope = compare_forms(net, seed=5)
    assert output < 1e-14 and slope < 1e-14


@pytest.mark.parametrize("form", ["torchvision", "timm, mean and then norm (MAE)",
                                  "timm, LayerScale (DINOv2)", "timm, no biases"])  # fmt: skip
def test_its_tower_is_certified_site_by_site(form: str) -> None:
    encoder = load_encoder(FORMS[form](), preprocess=reads)
    assert isinstance(encoder.visual, HookedViT) and not encoder.traced
    assert encoder.certify().frame["ok"].all()
    assert "hooked" in repr(encoder)


def test_sites_hold_what_the_original_computes_in_the_middle() -> None:
    net: Any = of_timm(init_values=0.5)
    move_weights(net, 0)
    tower, x = HookedViT(hooked_form(deepcopy(net), pictures(net))), pictures(net)
    seen: dict[str, Tensor] = {}
    for name in ("blocks.0", "blocks.1.attn.qkv", "blocks.1.mlp.fc1", "norm"):
        net.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: out})
        )
    with torch.no_grad():
        net(x)
        _, cache = tower.run_with_cache(x)
    q, k, v = seen["blocks.1.attn.qkv"].unflatten(-1, (3, 2, 16)).unbind(2)
    close = {"blocks.0.hook_resid_post": seen["blocks.0"], "blocks.1.attn.hook_q": q,
             "blocks.1.attn.hook_k": k, "blocks.1.attn.hook_v": v,
             "blocks.1.mlp.hook_pre": seen["blocks.1.mlp.fc1"],
             "hook_pooled": seen["norm"][:, 0]}  # fmt: skip
    for site, value in close.items():
        torch.testing.assert_close(cache[site], value, msg=site)


def test_parameters_share_memory_with_the_original() -> None:
    net: Any = of_torchvision()
    tower = HookedViT(hooked_form(net, pictures(net)))
    theirs = {value.data_ptr() for value in net.parameters()}
    assert {value.data_ptr() for value in tower.parameters()} == theirs
    with torch.no_grad():
        net.class_token += 1
        assert torch.allclose(tower(pictures(net)), net(pictures(net)), atol=1e-6)


def test_comparing_changes_nothing() -> None:
    net = of_timm()
    before = deepcopy(net.state_dict())
    compare_forms(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no class token": (lambda: of_timm(class_token=False, global_pool="avg"), "no class token"),
    "registers": (lambda: of_timm(reg_tokens=4), "4 register tokens"),
    "normed queries": (lambda: of_timm(qk_norm=True), "normed queries and keys"),
    "attentional pool": (lambda: of_timm(global_pool="map"), "pooling 'map'"),
    "mean with class token": (
        lambda: of_timm(global_pool="avg", pool_include_prefix=True), "a mean with the class token"
    ),
    "ReLU": (lambda: of_timm(act_layer="relu"), "the activation ReLU"),
    "SwiGLU": (lambda: of_timm(mlp_layer=SwiGLU), "a SwiGLU"),
    "RMSNorm": (lambda: of_timm(norm_layer="rmsnorm"), "a RmsNorm"),
    "no positions": (lambda: of_timm(pos_embed="none"), "no learned positions"),
    "no last norm": (lambda: of_timm(final_norm=False), "no last norm, or two"),
    "classes": (lambda: with_head(bias=True), "a classification layer"),
    "other blocks": (
        lambda: of_timm(block_fn=timm.models.vision_transformer.ResPostBlock), "a ResPostBlock"
    ),
    "rotary positions": (
        lambda: timm.create_model(
            "eva02_tiny_patch14_224", img_size=28, embed_dim=24, depth=2, num_heads=2, num_classes=0
        ),
        "timm's Eva",
    ),
    "relative positions": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=16,
            depths=(1, 1), num_heads=(2, 2), num_classes=0,
        ),
        "timm's SwinTransformer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_by_name(kind: str) -> None:
    make, given = REFUSED[kind]
    refuses(Unhooked, given, hooked_form, make(), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("kind", ["relative positions", "registers"])
def test_and_its_tower_is_traced(kind: str) -> None:
    make, given = REFUSED[kind]
    net = make()
    encoder = load_encoder(net, preprocess=reads)
    assert isinstance(encoder.visual, TracedTower) and encoder.visual.source is net
    assert encoder.traced == given and f"traced ({given})" in repr(encoder)


def test_pictures_of_another_size_are_traced() -> None:
    net = of_timm(dynamic_img_size=True)
    encoder = load_encoder(net, preprocess=lambda image: torch.zeros(3, 48, 48))
    assert isinstance(encoder.visual, TracedTower) and "(3, 48, 48)" in encoder.traced


def swap_queries_and_keys(vit: Any) -> None:
    attn = vit.transformer.resblocks[1].attn
    q, k, v = attn.in_proj_weight.detach().chunk(3)
    attn.in_proj_weight = nn.Parameter(torch.cat([k, q, v]))


def drop_a_bias(vit: Any) -> None:
    layer = vit.transformer.resblocks[0].mlp.c_fc
    layer.bias = nn.Parameter(torch.zeros_like(layer.bias))


def drop_the_bias_of_values(vit: Any) -> None:
    attn = vit.transformer.resblocks[0].attn
    bias = attn.in_proj_bias.detach().clone()
    bias[-32:] = 0
    attn.in_proj_bias = nn.Parameter(bias)


def mistake_eps(vit: Any) -> None:
    norm = nn.LayerNorm(32, eps=1e-5)
    norm.load_state_dict(vit.ln_post.state_dict())
    vit.ln_post = norm.double()


def swap_heads(vit: Any) -> None:
    attn = vit.transformer.resblocks[0].attn
    weight = attn.out_proj.weight.detach().roll(16, dims=1)
    attn.out_proj.weight = nn.Parameter(weight)


def forget_layer_scale(vit: Any) -> None:
    vit.transformer.resblocks[1].ls_2 = nn.Identity()


def mistake_gelu(vit: Any) -> None:
    vit.transformer.resblocks[1].mlp.gelu = QuickGELU()


def pool_otherwise(vit: Any) -> None:
    vit.pool_type = "avg"


MUTANTS = (swap_queries_and_keys, drop_a_bias, drop_the_bias_of_values, mistake_eps, swap_heads,
           forget_layer_scale, mistake_gelu, pool_otherwise)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda each: each.__name__)
def test_a_wrong_form_is_refused(mutate, monkeypatch) -> None:
    net = of_timm(init_values=0.5)
    assert max(compare_forms(net)) < 1e-14
    right = plain_transformers._rebuilt

    def wrong(parts: Any) -> VisionTransformer:
        vit = right(parts)
        mutate(vit)
        return vit

    monkeypatch.setattr(plain_transformers, "_rebuilt", wrong)
    assert compare_forms(net)[0] > 1e-8
    refuses(Unhooked, "outputs differ by", hooked_form, net, pictures(net))
    encoder = load_encoder(net, preprocess=reads)
    assert isinstance(encoder.visual, TracedTower) and "outputs differ" in encoder.traced

"""The certificate passes what is right, and what only one of its checks sees."""

from typing import Any

import pandas as pd
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.core.sites import AXES
from interp.models.certificate import certify as certificate
from interp.models.certificate.certify import certify, relative_error
from interp.models.towers import attention, block, vit
from interp.models.towers.open_tower import open_tower

VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
RESNET: Any = {"layers": (1, 2, 1, 1), "width": 4, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
Patch = pytest.MonkeyPatch


def build(
    vision: dict | None = None, words: dict | None = None, *, kind: Any = CLIP, **more: Any
) -> Any:
    torch.manual_seed(0)
    return kind(24, vision or VIT, TEXT | (words or {}), **more)


def rows(model: Any, which: str = "visual") -> pd.DataFrame:
    frame = certify(open_tower(model, which))
    assert tuple(frame.columns) == certificate.COLUMNS
    assert (frame.tower == which).all()
    assert (frame.ok == (frame.error <= frame.bar)).all()
    return frame


GOOD = {
    "vit": lambda: (build(), "visual"),
    "mean": lambda: (build(VIT | {"pool_type": "avg"}), "visual"),
    "norm after": lambda: (build(VIT | {"final_ln_after_pool": True}), "visual"),
    "no first norm": lambda: (build(VIT | {"no_ln_pre": True}), "visual"),
    "layer scale": lambda: (build(VIT | {"ls_init_value": 1e-5}), "visual"),
    "quick gelu": lambda: (build(quick_gelu=True), "visual"),
    "half precision": lambda: (build(cast_dtype=torch.float16), "visual"),
    "three heads": lambda: (build(VIT | {"width": 48}), "visual"),  # odd: never PyTorch's fast path
    "queries": lambda: (
        build(VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5}),
        "visual",
    ),
    "resnet": lambda: (build(RESNET), "visual"),
    "text": lambda: (build(), "text"),
    "text eos": lambda: (build(words={"pool_type": "eos", "eos_id": 5}), "text"),
    "custom text": lambda: (build(words={"proj_bias": True}, kind=CustomTextCLIP), "text"),
    "class token": lambda: (build(words={"embed_cls": True}, kind=CustomTextCLIP), "text"),
    "both ways": lambda: (build(words={"no_causal_mask": True, "pool_type": "last"}), "text"),
}


@pytest.mark.parametrize("name", GOOD)
def test_passes(name: str) -> None:
    model, which = GOOD[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frame = rows(model, which)
    assert frame.ok.all(), frame[~frame.ok].to_string()
    forward = frame[frame.check.str.startswith("forward")]
    tower = open_tower(model, which)
    for _, part in forward.groupby(["check", "dtype"]):
        assert list(part.site) == list(tower.sites)
    assert (frame.n > 0).all()
    gradients = set(frame[frame.check == "gradient"].site)
    assert gradients == set(dict(tower.named_parameters())) | (
        {"input"} if which == "visual" else set()
    )
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])  # the certificate works on a copy


def test_says_which_kernel_the_original_ran() -> None:
    frame = rows(build())
    out = frame[frame.site == "blocks.0.hook_attn_out"].set_index(["check", "dtype"]).reference
    assert "_native_multi_head_attention" in out["forward no-grad", "float32"]
    assert "_scaled_dot_product" in out["forward grad", "float32"]


def test_is_repeatable_and_seeded() -> None:
    model = build()
    first, second = certify(open_tower(model, "visual")), certify(open_tower(model, "visual"))
    pd.testing.assert_frame_equal(first, second)
    third = certify(open_tower(model, "visual"), seed=1)
    assert not first.error.equals(third.error) and third.ok.all()


def test_a_cut_gradient_fails_by_gradient_alone(monkeypatch: Patch) -> None:
    old = attention.fused_attention
    monkeypatch.setattr(
        attention, "fused_attention", lambda q, k, v, mask: old(q, k.detach(), v, mask)
    )
    frame = rows(build())
    assert frame[frame.check != "gradient"].ok.all()
    assert not frame[frame.check == "gradient"].ok.all()


def test_an_error_under_float32s_bar_fails_in_float64(monkeypatch: Patch) -> None:
    old = block.HookedMLP.forward
    monkeypatch.setattr(block.HookedMLP, "forward", lambda self, x: old(self, x) * (1 + 1e-8))
    frame = rows(build())
    assert frame[frame.dtype == "float32"].ok.all()
    assert not frame[frame.dtype == "float64"].ok.all()


def test_a_site_without_a_reference_fails(monkeypatch: Patch) -> None:
    monkeypatch.setitem(AXES, "hook_extra", ("batch", "pos", "d_model"))

    class More(vit.HookedViT):
        def setup(self) -> None:
            self.hook_extra = HookPoint()
            super().setup()

        def _embed(self, x: Tensor) -> Tensor:
            return self.hook_extra(super()._embed(x))

    frame = certify(More(build().visual))
    extra = frame[frame.site == "hook_extra"]
    assert not extra.ok.any() and (extra.reference == "none").all() and len(extra) == 3
    assert frame[frame.site != "hook_extra"].ok.all()


def test_both_towers_of_a_model() -> None:
    model = build()
    frame = certify(model)
    parts = [certify(open_tower(model, which)) for which in ("visual", "text")]
    pd.testing.assert_frame_equal(frame, pd.concat(parts, ignore_index=True))


def test_gradients_are_certified_where_the_caller_has_turned_them_off() -> None:
    with torch.no_grad():
        frame = rows(build())
    assert frame.ok.all() and (frame.check == "gradient").any()


def test_relative_error() -> None:
    inf, nan = torch.inf, torch.nan
    one = torch.tensor([1.0, -4.0])
    assert relative_error(one, one) == 0.0
    assert relative_error(torch.tensor([1.0, -3.0]), one) == 0.25
    assert relative_error(one[None], one) == inf
    assert relative_error(torch.tensor([1.0, nan]), one) == inf
    assert relative_error(torch.tensor([1.0, nan]), torch.tensor([1.0, nan])) == inf
    assert relative_error(torch.tensor([1.0, -inf]), torch.tensor([1.0, -inf])) == 0.0
    assert relative_error(torch.tensor([1.0, inf]), torch.tensor([1.0, -inf])) == inf
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_error(one, torch.zeros(2)) == inf

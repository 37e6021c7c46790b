"""The hooked text tower, in both of the places where open_clip keeps it."""

from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor

from interp.core.errors import InterpError, ShapeError
from interp.models.towers.open_tower import open_tower
from interp.models.towers.text import HookedText
from interp.models.towers.traced import TracedTower
from tests.models.moved import moved, tokens

VIT: Any = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
TEXT: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
VARIANTS: dict[str, Any] = {
    "plain": {},
    "eos": {"pool_type": "eos", "eos_id": 5},
    "first": {"pool_type": "first"},
    "last": {"pool_type": "last"},
    "both ways": {"no_causal_mask": True},
    "no projection": {"proj_type": "none"},
    "biased projection": {"proj_bias": True},
    "class token": {"embed_cls": True},
    "layer scale": {"ls_init_value": 0.1},
    "tanh": {"act_kwargs": {"approximate": "tanh"}},
}


@pytest.mark.parametrize(
    "kind, name",
    [(CLIP, name) for name in VARIANTS if name != "class token"]  # only CustomTextCLIP has one
    + [(CustomTextCLIP, name) for name in VARIANTS],
)
def test_variants(kind: Any, name: str) -> None:
    torch.manual_seed(0)
    model = moved(kind(24, VIT, TEXT | VARIANTS[name]))
    tower = open_tower(model, "text")
    right = model.encode_text(tokens())
    torch.testing.assert_close(tower(tokens()), right, rtol=1e-12, atol=1e-12)
    assert tower.cfg.act_fn == ("gelu_pytorch_tanh" if name == "tanh" else "gelu")
    embedding, cache = tower.run_with_cache(tokens(), names_filter="*")
    torch.testing.assert_close(embedding, right, rtol=1e-12, atol=1e-12)
    for layer in range(3):
        stream = tower(tokens(), stop_at_layer=layer)
        again = tower(stream, start_at_layer=layer, tokens=tokens())
        assert torch.equal(again, tower(tokens()))
    assert cache["blocks.0.attn.hook_pattern"].shape[-1] == tower.cfg.n_ctx


def test_padding_mask() -> None:
    torch.manual_seed(0)
    source = moved(
        TextTransformer(
            8,
            50,
            32,
            2,
            2,
            output_dim=24,
            no_causal_mask=True,
            use_pad_mask=True,
            pool_type="argmax",
        )
    )
    tower = HookedText(source)
    torch.testing.assert_close(tower(tokens()), source(tokens()), rtol=1e-12, atol=1e-12)
    _, cache = tower.run_with_cache(tokens(), names_filter="*hook_pattern")
    assert (cache["blocks.0.attn.hook_pattern"][0, :, :, 3:] == 0).all()
    with pytest.raises(ShapeError, match="tokens="):
        tower(tower(tokens(), stop_at_layer=1), start_at_layer=1, stop_at_layer=2)


@pytest.fixture
def tower() -> Any:
    torch.manual_seed(0)
    return open_tower(moved(CLIP(24, VIT, TEXT)), "text")


def test_causal_mask_hides_the_future(tower: Any) -> None:
    _, cache = tower.run_with_cache(tokens(), names_filter="*")
    for layer in range(2):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        assert (pattern.triu(1) == 0).all()
        assert torch.isinf(cache[f"blocks.{layer}.attn.hook_attn_scores"]).any()
    assert tower.cfg.attention_dir == "causal"
    later = tokens()
    later[:, 7] = 3
    same = slice(0, 7)
    torch.testing.assert_close(
        tower(later, stop_at_layer=2)[:, same], tower(tokens(), stop_at_layer=2)[:, same]
    )


def test_reads_where_the_text_ends(tower: Any) -> None:
    _, cache = tower.run_with_cache(tokens())
    final = cache["ln_final.hook_normalized"] * tower.ln_final.w + tower.ln_final.b
    right = torch.stack([final[0, 2], final[1, 4], final[2, 7]])
    torch.testing.assert_close(cache["hook_pooled"], right)


def test_resuming_needs_the_tokens(tower: Any) -> None:
    stream = tower(tokens(), stop_at_layer=1)
    with pytest.raises(ShapeError, match="tokens="):
        tower(stream, start_at_layer=1)
    with pytest.raises(ShapeError, match="2 rows of tokens"):
        tower(stream, start_at_layer=1, tokens=tokens()[:2])
    tower(stream, start_at_layer=1, stop_at_layer=2)  # no reading off, no tokens


def test_resuming_needs_no_tokens_at_a_fixed_place() -> None:
    torch.manual_seed(0)
    tower = open_tower(moved(CLIP(24, VIT, TEXT | {"pool_type": "last"})), "text")
    stream = tower(tokens(), stop_at_layer=1)
    assert torch.equal(tower(stream, start_at_layer=1), tower(tokens()))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 7, dtype=torch.int64),
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(2, 8),
        torch.zeros(2, 8, dtype=torch.bool),
    ],
)
def test_tokens_that_do_not_fit(tower: Any, wrong: Tensor) -> None:
    with pytest.raises(ShapeError, match="embed a text"):
        tower(wrong)


def test_moving_the_tower_leaves_the_other_names_alone(tower: Any) -> None:
    assert set(tower.state_dict()) == {
        name for name in tower.source.state_dict() if not name.startswith(("visual.", "logit_"))
    }
    tower.train()
    assert not tower.source.visual.training
    tower.eval()


@pytest.mark.parametrize("variant", [{"pool_type": "none"}, {"qk_norm": True}])
def test_what_has_no_hooks_is_traced(variant: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = moved(CLIP(24, VIT, TEXT | variant))
    with pytest.raises(InterpError, match="hook this tower"):
        HookedText(model)
    tower = open_tower(model, "text")
    assert isinstance(tower, TracedTower)
    theirs = model.encode_text(tokens())
    assert torch.equal(tower(tokens()), theirs[0] if isinstance(theirs, tuple) else theirs)
    assert "transformer.resblocks.1.mlp.c_fc" in tower.sites

"""The hooked text tower, in both of the places where open_clip keeps it."""

from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor

from interp.core.errors import InterpError, ShapeError
from interp.models import HookedText, TracedTower
from tests.models.moved import TEXT_VARIANTS, moved, text, tokens
from tests.refusals import refuses


@pytest.mark.parametrize(
    "kind, name",
    [(CLIP, name) for name in TEXT_VARIANTS if name != "class token"]  # only CustomTextCLIP has one
    + [(CustomTextCLIP, name) for name in TEXT_VARIANTS],
)
def test_variants(kind: Any, name: str) -> None:
    model, tower, _ = text(kind, **TEXT_VARIANTS[name])
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
    options: Any = {"no_causal_mask": True, "use_pad_mask": True, "pool_type": "argmax"}
    source = moved(TextTransformer(8, 50, 32, 2, 2, output_dim=24, **options))
    tower = HookedText(source)
    torch.testing.assert_close(tower(tokens()), source(tokens()), rtol=1e-12, atol=1e-12)
    _, cache = tower.run_with_cache(tokens(), names_filter="*hook_pattern")
    assert (cache["blocks.0.attn.hook_pattern"][0, :, :, 3:] == 0).all()
    with pytest.raises(ShapeError, match="tokens="):
        tower(tower(tokens(), stop_at_layer=1), start_at_layer=1, stop_at_layer=2)


@pytest.fixture
def tower() -> Any:
    return text()[1]


def test_resuming_needs_the_tokens(tower: Any) -> None:
    stream = tower(tokens(), stop_at_layer=1)
    refuses(ShapeError, "tokens=", tower, stream, start_at_layer=1)
    refuses(ShapeError, "2 rows of tokens", tower, stream, start_at_layer=1, tokens=tokens()[:2])
    tower(stream, start_at_layer=1, stop_at_layer=2)  # no reading off, no tokens


def test_resuming_needs_no_tokens_at_a_fixed_place() -> None:
    _, tower, _ = text(pool_type="last")
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
    refuses(ShapeError, "embed a text", tower, wrong)


def test_moving_the_tower_leaves_the_other_names_alone(tower: Any) -> None:
    assert set(tower.state_dict()) == {
        name for name in tower.source.state_dict() if not name.startswith(("visual.", "logit_"))
    }
    tower.train()
    assert not tower.source.visual.training
    tower.eval()


@pytest.mark.parametrize("variant", [{"pool_type": "none"}, {"qk_norm": True}])
def test_what_has_no_hooks_is_traced(variant: dict[str, Any]) -> None:
    model, tower, _ = text(**variant)
    refuses(InterpError, "hook this tower", HookedText, model)
    assert isinstance(tower, TracedTower)
    theirs = model.encode_text(tokens())
    assert torch.equal(tower(tokens()), theirs[0] if isinstance(theirs, tuple) else theirs)
    assert "transformer.resblocks.1.mlp.c_fc" in tower.sites

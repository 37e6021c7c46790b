"""Towers as a TransformerLens user expects them: caches, weights, reprs."""

from typing import Any

import pytest
import torch
from transformer_lens import ActivationCache, FactoredMatrix

from interp import Patch
from interp.core.errors import ShapeError, SiteError, SpecificationError
from interp.models.clip import Clip
from interp.models.towers.site_cache import SiteCache
from tests.circuits.conftest import open_vit
from tests.refusals import refuses

X = torch.rand(2, 3, 16, 16, dtype=torch.float64)


def test_a_cache_takes_short_names_and_computes_results_on_demand() -> None:
    tower = open_vit()
    _, cache = tower.run_with_cache(X)
    assert isinstance(cache, dict) and "blocks.0.attn.hook_result" not in cache
    assert cache["pattern", 1] is cache["blocks.1.attn.hook_pattern"]
    assert cache["resid_post", 2] is cache["blocks.2.hook_resid_post"]
    _, asked = tower.run_with_cache(X, names_filter="blocks.0.attn.hook_result")
    torch.testing.assert_close(cache["result", 0], asked["blocks.0.attn.hook_result"])


def test_a_cache_says_what_was_not_kept_and_what_is_no_site() -> None:
    _, cache = open_vit().run_with_cache(X, names_filter="blocks.0.*")
    with pytest.raises(SiteError, match=r"names_filter='blocks\.1\.attn\.hook_pattern'"):
        cache["pattern", 1]
    with pytest.raises(SiteError, match=r"Did you mean blocks\.0\.hook_resid_pre"):
        cache["blocks.0.resid_pre"]
    assert cache.get("blocks.1.attn.hook_z") is None


def test_the_librarys_tools_work_on_a_cache() -> None:
    tower = open_vit()
    _, cache = tower.run_with_cache(X)
    ours = cache.accumulated_resid(layer=2, incl_mid=True)
    theirs = ActivationCache(dict(cache), tower).accumulated_resid(layer=2, incl_mid=True)
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(AttributeError, match="no 'accumulated'"):
        cache.accumulated  # noqa: B018
    assert repr(cache).startswith("SiteCache of") and len(repr(cache).splitlines()) < 15


def test_runs_take_patches_at_several_sites() -> None:
    """As TransformerLens's own hooks that write the same numbers in place."""
    tower = open_vit()
    _, other = tower.run_with_cache(X.flip(0))

    def head(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[:, :, 1] = other["z", 1][:, :, 1]
        return tensor

    def grow(tensor: torch.Tensor, hook: object) -> torch.Tensor:
        return torch.cat([3 * tensor[:, :1], tensor[:, 1:]], 1)

    by_hand = tower.run_with_hooks(
        X, fwd_hooks=[("blocks.1.attn.hook_z", head), ("blocks.2.hook_resid_pre", grow)]
    )
    patches = [
        Patch("blocks.1.attn.hook_z", other["z", 1][:, :, 1], where={"head": 1}),
        Patch("blocks.2.hook_resid_pre", lambda part: 3 * part, where={"pos": 0}),
    ]
    assert torch.equal(tower.run_with_hooks(X, patches=patches), by_hand)
    embedding, cache = tower.run_with_cache(X, patches=patches)
    torch.testing.assert_close(embedding, by_hand)
    assert not torch.allclose(by_hand, tower(X))
    assert torch.equal(cache["z", 1][:, :, 1], other["z", 1][:, :, 1])
    with tower.hooks(patches=patches):
        assert torch.equal(tower(X), by_hand)
    torch.testing.assert_close(tower(X), tower.run_with_cache(X)[0])


def test_a_patch_takes_a_pattern_and_a_number() -> None:
    tower = open_vit()
    _, cache = tower.run_with_cache(X, patches=[Patch("blocks.*.attn.hook_z", 0, {"head": 0})])
    assert all((cache["z", block][:, :, 0] == 0).all() for block in range(3))
    assert all((cache["z", block][:, :, 1] != 0).any() for block in range(3))


def test_patches_that_do_not_fit_are_refused() -> None:
    tower = open_vit()
    z = "blocks.0.attn.hook_z"
    for patch, kind, said in (
        (Patch("blocks.9.hook_z", 0), SiteError, "9"),
        (Patch(z, 0, {"channel": 1}), SiteError, "axis channel"),
        (Patch(z, torch.ones(3)), ShapeError, r"shape \(3,\)"),
        (Patch(z, 0, {"head": 7}), ShapeError, "head 7, right would be 0 to 1"),
        (Patch(z, lambda part: None), ShapeError, "a function"),  # type: ignore[arg-type,return-value]
    ):
        refuses(kind, said, tower.run_with_hooks, X, patches=[patch])
    with pytest.raises(SpecificationError, match="a list of patches"):
        tower.run_with_hooks(X, patches=iter([(z, 0)]))  # type: ignore[list-item]
    with pytest.raises(SiteError, match="never came there"):
        tower.run_with_hooks(X, patches=[Patch("blocks.2.attn.hook_z", 0)], stop_at_layer=1)


def test_weights_are_stacked_by_layer_and_circuits_are_factored() -> None:
    tower = open_vit()
    assert tower.W_Q.shape == tower.W_K.shape == tower.W_V.shape == (3, 2, 16, 8)
    assert tower.W_O.shape == (3, 2, 8, 16)
    assert tower.W_in.shape == (3, 16, 32) and tower.W_out.shape == (3, 32, 16)
    assert isinstance(tower.OV, FactoredMatrix) and isinstance(tower.QK, FactoredMatrix)
    both = [
        (tower.OV.AB, tower.W_V[1, 0] @ tower.W_O[1, 0]),
        (tower.QK.AB, tower.W_Q[1, 0] @ tower.W_K[1, 0].T),
    ]
    for factored, by_hand in both:
        torch.testing.assert_close(torch.as_tensor(factored)[1, 0], by_hand)


def test_a_towers_repr_fits_on_a_screen() -> None:
    said = repr(open_vit()).splitlines()
    assert said[0].startswith("HookedViT of") and len(said) <= 15


def test_a_clip_is_moved_and_asked_as_open_clips_is() -> None:
    import open_clip

    model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    clip, pictures = Clip(model, "ViT-S-32-alt"), torch.rand(1, 3, 64, 64)
    assert torch.equal(clip.encode_image(pictures), model.encode_image(pictures))
    tokens = torch.randint(1, 100, (1, 77))
    assert torch.equal(clip.encode_text(tokens), model.encode_text(tokens))
    assert clip.to(torch.float64) is clip and clip.dtype == torch.float64
    assert clip.encode_image(pictures).dtype == torch.float64
    assert clip.train().model.training and not clip.eval().model.training
    assert isinstance(clip.visual.run_with_cache(pictures.double())[1], SiteCache)


def test_layers_of_a_cache_are_counted_from_the_end_too() -> None:
    tower = open_vit()
    _, cache = tower.run_with_cache(X)
    last = tower.n_layers - 1
    assert cache["resid_post", -1] is cache[f"blocks.{last}.hook_resid_post"]
    assert cache["pattern", -tower.n_layers] is cache["pattern", 0]
    with pytest.raises(SiteError):
        cache["resid_post", -tower.n_layers - 1]


def test_one_patch_alone_is_taken() -> None:
    tower, patch = open_vit(), Patch("blocks.1.attn.hook_z", 0.0, where={"head": 1})
    patched = tower.run_with_hooks(X, patches=[patch])
    assert not torch.allclose(patched, tower(X))
    assert torch.equal(tower.run_with_hooks(X, patches=patch), patched)
    torch.testing.assert_close(tower.run_with_cache(X, patches=patch)[0], patched)


def test_biases_are_stacked_as_weights_are() -> None:
    """Queries, and what attention and MLP write, made of the stacked parts alone."""
    tower = open_vit()
    _, cache = tower.run_with_cache(X)
    for layer in range(tower.n_layers):
        block: Any = tower.blocks[layer]
        x = cache["normalized", layer, "ln1"] * block.ln1.w + block.ln1.b
        for name in "QKV":
            weight, bias = getattr(tower, f"W_{name}")[layer], getattr(tower, f"b_{name}")[layer]
            found = torch.einsum("bpd,hde->bphe", x, weight) + bias
            torch.testing.assert_close(found, cache[name.lower(), layer])
        written = torch.einsum("bphe,hed->bpd", cache["z", layer], tower.W_O[layer])
        torch.testing.assert_close(written + tower.b_O[layer], cache["attn_out", layer])
        y = cache["normalized", layer, "ln2"] * block.ln2.w + block.ln2.b
        torch.testing.assert_close(
            y @ tower.W_in[layer] + tower.b_in[layer], cache["pre", layer, "mlp"]
        )
        out = cache["post", layer, "mlp"] @ tower.W_out[layer] + tower.b_out[layer]
        torch.testing.assert_close(out, cache["mlp_out", layer])


def test_a_bare_text_is_no_list_of_its_letters() -> None:
    clip = Clip(open_vit().source, "ViT-S-32-alt")
    refuses(SpecificationError, r"embed sentences.*Pass \['a cat'\]", clip.encode_text, "a cat")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_clip_is_not_moved_to_a_device_that_is_not_there() -> None:
    clip = Clip(open_vit().source, "ViT-S-32-alt")
    refuses(SpecificationError, "compute on cuda", clip.to, "cuda")

"""A run that is finished, or entered in a block, gives the whole run's embedding for less work."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor

from interp.core.errors import ShapeError, SiteError
from interp.core.tower import Enterable, Finishing
from interp.models import HookedText
from interp.models.towers.block import ADDED_TO, SEEN_WHOLE
from tests.models.moved import TEXT_VARIANTS, moved, tokens, visual
from tests.models.moved import text as moved_text
from tests.models.towers import test_vit
from tests.refusals import refuses

READS_ALL = ("mean", "queries")
"""How variants' names begin whose embedding is read off many positions."""

BARS = {torch.float64: 1e-10, torch.float32: 5e-6}


def vit(name: str) -> tuple[Any, Tensor]:
    return visual(n=2, **test_vit.VARIANTS[name])[1:]


def text(name: str, kind: Any = CustomTextCLIP) -> tuple[Any, Tensor]:
    return moved_text(kind, **TEXT_VARIANTS[name])[1:]


CASES = [(vit, name) for name in test_vit.VARIANTS] + [(text, name) for name in TEXT_VARIANTS]


def again(tower: Any, x: Tensor) -> dict[str, Tensor]:
    return {"tokens": x} if tower.label == "text" else {}


def check_close(found: Tensor, right: Tensor, bar: float) -> None:
    assert found.shape == right.shape
    assert (found - right).abs().max() <= bar * right.abs().max()


@contextmanager
def counting(tower: Any) -> Iterator[list[int]]:
    """How many positions each call of the last block's perceptron gets."""
    seen: list[int] = []
    perceptron = tower.source.transformer.resblocks[-1].mlp.c_fc
    handle = perceptron.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[1]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("make", "name"), CASES)
def test_equals_the_whole_run(make: Any, name: str, dtype: torch.dtype, gradients: bool) -> None:
    tower, x = make(name)
    tower, x = tower.to(dtype), x.to(dtype) if x.is_floating_point() else x
    assert isinstance(tower, Finishing)
    with torch.set_grad_enabled(gradients):
        right = tower(x)
        for layer in range(tower.n_layers + 1):
            stream = tower(x, stop_at_layer=layer)
            with counting(tower) as positions:
                found = tower.finish(stream, start_at_layer=layer, **again(tower, x))
            check_close(found, right, BARS[dtype])
            whole = make is vit and name.startswith(READS_ALL)
            expected = [stream.shape[1] if whole else 1]
            assert positions == (expected if layer < tower.n_layers else [])


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_equals_the_whole_run_wherever_open_clip_keeps_the_text(kind: Any) -> None:
    tower, x = text("eos", kind)
    stream = tower(x, stop_at_layer=0)
    check_close(tower.finish(stream, start_at_layer=0, tokens=x), tower(x), 1e-10)
    refuses(ShapeError, "tokens=", tower.finish, stream, start_at_layer=0)


def test_a_mask_for_each_example_is_obeyed() -> None:
    torch.manual_seed(0)
    words: dict[str, Any] = {"output_dim": 24, "no_causal_mask": True, "use_pad_mask": True}
    tower = HookedText(moved(TextTransformer(8, 50, 32, 2, 2, pool_type="argmax", **words)))
    stream = tower(tokens(), stop_at_layer=0)
    found = tower.finish(stream, start_at_layer=0, tokens=tokens())
    check_close(found, tower(tokens()), 1e-10)


@pytest.mark.parametrize(("make", "name"), [(vit, "class token"), (text, "plain")])
def test_hooks_see_and_change_what_they_would_in_the_whole_run(make: Any, name: str) -> None:
    """At every site of every block: a doubled activation, with the shape that its axes promise."""
    tower, x = make(name)
    last = tower.n_layers - 1
    stream = tower(x, stop_at_layer=0)
    shapes: dict[str, list] = {}

    def double(tensor: Tensor, hook: Any) -> Tensor:
        shapes.setdefault(hook.name, []).append(tensor.shape)
        return 2 * tensor

    for site in [name for name in tower.sites if tower.layer(name) >= 0]:
        with counting(tower) as positions:
            with tower.hooks(fwd_hooks=[(site, double)]):
                found = tower.finish(stream, start_at_layer=0, **again(tower, x))
        right = tower.run_with_hooks(x, fwd_hooks=[(site, double)])
        check_close(found, right, 1e-10)
        assert shapes[site][0] == shapes[site][1]
        ahead = f"blocks.{last}."
        inside = site.startswith(ahead) and site.removeprefix(ahead) not in SEEN_WHOLE
        assert (positions == [1]) == (not inside and not site.startswith("ln_final."))


def test_listeners_hear_what_they_would_in_the_whole_run() -> None:
    tower, x = vit("class token")
    stream, heard = tower(x, stop_at_layer=1), {}
    with tower.listening(heard.__setitem__, ["blocks.1.*", "ln_final.*"], filling=heard):
        found = tower.finish(stream, start_at_layer=1)
    right, cache = tower.run_with_cache(x, names_filter=["blocks.1.*", "ln_final.*"])
    check_close(found, right, 1e-10)
    for site, value in cache.items():
        check_close(heard[site], value, 1e-10)


def test_gradients_are_those_of_the_whole_run() -> None:
    tower, x = vit("class token")
    stream = tower(x, stop_at_layer=0).detach().requires_grad_()
    right = torch.autograd.grad(tower(stream, start_at_layer=0).square().sum(), stream)[0]
    found = torch.autograd.grad(tower.finish(stream, start_at_layer=0).square().sum(), stream)[0]
    check_close(found, right, 1e-10)


def test_a_hook_that_never_fires_and_a_layer_that_is_not_there() -> None:
    tower, x = vit("class token")
    stream = tower(x, stop_at_layer=1)
    with pytest.raises(SiteError, match="never came there"):
        with tower.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda tensor, hook: None)]):
            tower.finish(stream, start_at_layer=1)
    refuses(SiteError, "0 <= start_at_layer", tower.finish, stream, start_at_layer=-1)
    refuses(ShapeError, "resume from", tower.finish, stream[:, 1:], start_at_layer=1)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("make", "name"), CASES)
def test_a_run_may_be_entered_at_any_of_a_blocks_sums(make, name, dtype) -> None:
    tower, x = make(name)
    tower, x = tower.to(dtype), x.to(dtype) if x.is_floating_point() else x
    assert isinstance(tower, Enterable)
    right, cache = tower.run_with_cache(x)
    entered = [site for site in tower.sites if tower.added_to(site) is not None]
    assert len(entered) == len(ADDED_TO) * tower.n_layers
    for site in entered:
        stream = cache[tower.added_to(site)]
        with counting(tower) as positions:
            found = tower.enter(site, cache[site], stream, **again(tower, x))
        check_close(found, right, BARS[dtype])
        whole = make is vit and name.startswith(READS_ALL)
        behind = site.startswith(f"blocks.{tower.n_layers - 1}.mlp.") or site.endswith(
            (f"{tower.n_layers - 1}.hook_mlp_out", f"{tower.n_layers - 1}.hook_resid_post")
        )
        assert positions == ([] if behind else [stream.shape[1] if whole else 1])


@pytest.mark.parametrize(("make", "name"), [(vit, "class token"), (text, "plain")])
def test_hooks_behind_an_entry_see_and_change_what_they_would(make: Any, name: str) -> None:
    tower, x = make(name)
    _, cache = tower.run_with_cache(x)
    for number, site in enumerate(tower.sites):
        if (stream := tower.added_to(site)) is None:
            continue
        for later in tower.sites[number + 1 :]:
            hooks = [(later, lambda tensor, hook: 2 * tensor)]
            right = tower.run_with_hooks(x, fwd_hooks=hooks)
            with tower.hooks(fwd_hooks=hooks):
                found = tower.enter(site, cache[site], cache[stream], **again(tower, x))
            check_close(found, right, 1e-10)


def test_a_block_is_not_entered_before_positions_are_mixed() -> None:
    tower, x = vit("class token")
    _, cache = tower.run_with_cache(x)
    for site in ("blocks.0.attn.hook_k", "blocks.0.hook_resid_pre", "ln_final.hook_normalized"):
        assert tower.added_to(site) is None
        with pytest.raises(SiteError, match="behind which positions are mixed"):
            tower.enter(site, cache[site], cache["blocks.0.hook_resid_pre"])

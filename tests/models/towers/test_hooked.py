"""What every hooked tower promises, tower by tower."""

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from interp.core.errors import InterpError, ShapeError, SiteError
from interp.core.sites import ON_DEMAND, Site
from interp.core.tower import Patch, Tower
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import open_tower
from tests.refusals import refuses

VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
RESNET: Any = {"layers": (1, 2, 1, 1), "width": 8, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
CASES = ("vit", "resnet", "text", "custom text")
TRANSFORMERS = ("vit", "text", "custom text")


class Case:
    """A tower, the open_clip model it shares, and a batch for it."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        kind: Any = CustomTextCLIP if name == "custom text" else CLIP
        self.model: Any = kind(24, RESNET if name == "resnet" else VIT, TEXT).eval()
        for value in self.model.parameters():  # nothing may hide behind an initial zero
            nn.init.normal_(value, mean=float(value.detach().mean()), std=0.1)
        self.which = "text" if "text" in name else "visual"
        self.tower: Any = open_tower(self.model, self.which)
        side = 64 if name == "resnet" else 32
        self.x = (
            torch.randint(0, 50, (2, 10)) if self.which == "text" else torch.randn(2, 3, side, side)
        )
        self.again: dict[str, Any] = {"tokens": self.x} if self.which == "text" else {}
        self.middle = "layer2.0.hook_resid_pre" if name == "resnet" else "blocks.1.hook_resid_pre"

    def original(self) -> Tensor:
        encode = self.model.encode_text if self.which == "text" else self.model.encode_image
        return encode(self.x, normalize=False)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def installed(tower: HookedTower) -> int:
    return sum(
        len(point._forward_hooks) + len(point._backward_hooks) for point in tower.hook_points()
    )


def nothing(tensor: Tensor, hook: Any) -> None:
    """A hook that reads."""


def test_satisfies_the_protocol(case: Case) -> None:
    tower = case.tower
    assert tower.cfg.n_layers == tower.n_layers == len(tower.chain)
    assert isinstance(tower, Tower)


def test_embeds_as_open_clip_does(case: Case) -> None:
    torch.testing.assert_close(case.tower(case.x), case.original(), rtol=0, atol=2e-6)
    torch.testing.assert_close(case.tower.original(case.x), case.original(), rtol=0, atol=0)
    embedding, cache = case.tower.run_with_cache(case.x)
    assert torch.equal(cache["hook_embedding"], embedding)


def test_chain_may_be_cut_anywhere(case: Case) -> None:
    tower, whole = case.tower, case.tower(case.x)
    n = tower.n_layers
    streams = [tower(case.x, stop_at_layer=layer) for layer in range(n + 1)]
    for layer, stream in enumerate(streams):
        assert torch.equal(tower(stream, start_at_layer=layer, **case.again), whole)
        for later in range(layer, n + 1):
            part = tower(stream, start_at_layer=layer, stop_at_layer=later, **case.again)
            assert torch.equal(part, streams[later])


def test_stopping_leaves_later_blocks_out(case: Case) -> None:
    _, cache = case.tower.run_with_cache(case.x, stop_at_layer=1)
    assert {case.tower.layer(site) for site in cache} == {-1, 0}
    stream = case.tower(case.x, stop_at_layer=1)
    _, cache = case.tower.run_with_cache(stream, start_at_layer=1, **case.again)
    first = next(iter(cache))
    assert first.endswith("hook_resid_pre") and case.tower.layer(first) == 1
    assert torch.equal(cache[first], stream)


@pytest.mark.parametrize("span", [(-1, None), (None, -1), (2, 1), (None, 99), (99, None)])
def test_layers_that_are_not_there(case: Case, span: tuple[int | None, int | None]) -> None:
    with pytest.raises(SiteError, match="start_at_layer"):
        case.tower(case.x, start_at_layer=span[0], stop_at_layer=span[1])


def test_sites_axes_and_layers(case: Case) -> None:
    _, cache = case.tower.run_with_cache(case.x, names_filter="*")
    assert tuple(cache) == case.tower.sites  # also: they fire in the order they are listed in
    layers = [case.tower.layer(site) for site in case.tower.sites]
    assert layers == sorted(layers)
    assert set(layers) == set(range(-1, case.tower.n_layers + 1))
    for site, value in cache.items():
        assert value.ndim == len(case.tower.axes(site)) == len(Site(site).axes)


def test_patching_own_activation_back_changes_nothing(case: Case) -> None:
    for site in case.tower.sites:
        whole, cache = case.tower.run_with_cache(case.x, names_filter=site)
        patch = Patch(site, cache[site])
        patched = case.tower.run_with_hooks(
            case.x,
            fwd_hooks=[
                (site, lambda t, hook, patch=patch: patch.apply(t, axes=case.tower.axes(hook.name)))
            ],
        )
        assert torch.equal(patched, whole), site


def test_patching_anything_takes_effect(case: Case) -> None:
    clean = case.tower(case.x)
    for site in case.tower.sites:
        dice = torch.Generator().manual_seed(1)

        def shake(tensor: Tensor, hook: Any, dice: torch.Generator = dice) -> Tensor:
            return tensor * (1 + torch.rand(tensor.shape, generator=dice))

        moved = case.tower.run_with_hooks(case.x, fwd_hooks=[(site, shake)])
        assert (moved - clean).abs().max() > 1e-4, site


def test_shares_the_parameters(case: Case) -> None:
    theirs = dict(case.model.named_parameters())
    prefix = {"visual": "visual.", "text": "text." if hasattr(case.model, "text") else ""}
    ours = dict(case.tower.named_parameters())
    assert ours
    for name, value in ours.items():
        assert value is theirs[prefix[case.which] + name]
        assert value.data_ptr() == theirs[prefix[case.which] + name].data_ptr()
    assert set(ours) <= set(case.tower.state_dict())
    assert not any(name.startswith(("visual", "logit")) for name in ours)
    before = case.tower(case.x)
    with torch.no_grad():
        for value in ours.values():
            value.mul_(1.1)
    assert not torch.allclose(case.tower(case.x), before)
    torch.testing.assert_close(case.tower(case.x), case.original(), rtol=1e-5, atol=1e-5)


def test_moves_and_switches_with_the_model(case: Case) -> None:
    case.model.double()
    x = case.x.double() if case.x.is_floating_point() else case.x
    assert case.tower(x).dtype == torch.float64 == case.tower.cfg.dtype
    case.tower.float()
    assert case.tower(case.x).dtype == torch.float32
    if case.which == "visual":
        assert case.model.visual.conv1.weight.dtype == torch.float32
    case.tower.train()
    assert case.tower.source.training
    case.tower.eval()
    assert not case.tower.source.training


def test_open_clip_modules_are_left_as_they_were(case: Case) -> None:
    assert not any(hasattr(module, "name") for module in case.model.modules())
    before = list(case.model.state_dict())
    open_tower(case.model, case.which)
    assert list(case.model.state_dict()) == before


def test_copies_and_pickles(case: Case) -> None:
    for twin in (deepcopy(case.tower), pickle.loads(pickle.dumps(case.tower))):
        assert torch.equal(twin(case.x), case.tower(case.x))
        with torch.no_grad():
            next(twin.parameters()).add_(1.0)
        assert not torch.equal(twin(case.x), case.tower(case.x))


def test_gradients_reach_every_parameter_through_open_attention(case: Case) -> None:
    case.model.requires_grad_(True)
    with case.tower.hooks(fwd_hooks=[("*", nothing)]):
        case.tower(case.x).square().sum().backward()
    for name, value in case.tower.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
        assert value.grad.any() or name.endswith(("k_proj.bias", "in_proj_bias")), name


def test_backward_hooks(case: Case) -> None:
    seen: dict[str, Tensor] = {}

    def keep(grad: Tensor, hook: Any) -> None:
        seen[hook.name] = grad

    with case.tower.hooks(bwd_hooks=[(case.middle, keep), ("hook_embedding", keep)]):
        case.tower(case.x).square().sum().backward()
    stream = case.tower(case.x, stop_at_layer=1).detach().requires_grad_(True)
    case.tower(stream, start_at_layer=1, **case.again).square().sum().backward()
    torch.testing.assert_close(seen[case.middle], stream.grad)
    assert installed(case.tower) == 0


@pytest.mark.parametrize(
    "wrong", ["hook_embeding", "visual.hook_embedding", "*.hook_nothing", lambda name: False]
)
def test_names_that_match_nothing(case: Case, wrong: Any) -> None:
    tower, x = case.tower, case.x
    for run in (
        lambda: tower.run_with_cache(x, names_filter=wrong),
        lambda: tower.run_with_cache(x, names_filter=["hook_embedding", wrong]),
        lambda: tower.run_with_hooks(x, fwd_hooks=[(wrong, nothing)]),
        lambda: tower.run_with_hooks(x, bwd_hooks=[(wrong, nothing)], reset_hooks_end=False),
        lambda: tower.add_hook(wrong, nothing),
        lambda: tower.add_caching_hooks(wrong),
    ):
        refuses(SiteError, "", run)
        assert installed(tower) == 0
    refuses(SiteError, "", tower.run_with_cache, x, names_filter=[])


def test_patterns_filters_and_sites_name_the_same(case: Case) -> None:
    wanted = [site for site in case.tower.sites if site.endswith("hook_resid_post")]
    for names in (
        "*.hook_resid_post",
        ["*.hook_resid_post"],
        tuple(wanted),
        [Site(site) for site in wanted],
        lambda name: name.endswith("resid_post"),
    ):
        _, cache = case.tower.run_with_cache(case.x, names_filter=names)
        assert list(cache) == wanted
        seen: list[str] = []
        if isinstance(names, (str, Site)) or callable(names):
            case.tower.run_with_hooks(
                case.x, fwd_hooks=[(names, lambda t, hook, seen=seen: seen.append(hook.name))]
            )
            assert seen == wanted


def test_a_hook_that_never_fires(case: Case) -> None:
    tower, x, last = case.tower, case.x, case.tower.sites[-2]
    with pytest.raises(SiteError, match="never came there"):
        tower.run_with_hooks(x, fwd_hooks=[("hook_embedding", nothing)], stop_at_layer=1)
    with pytest.raises(SiteError, match="never came there"):
        tower.run_with_cache(x, names_filter=[last], stop_at_layer=1)
    with pytest.raises(SiteError), tower.hooks(bwd_hooks=[("hook_embedding", nothing)]):
        tower(x, stop_at_layer=0)
    stream = tower(x, stop_at_layer=1)
    with pytest.raises(SiteError), tower.hooks(fwd_hooks=[(tower.sites[0], nothing)]):
        tower(stream, start_at_layer=1, **case.again)
    assert installed(tower) == 0


def test_a_block_without_a_run_or_with_two_is_no_error(case: Case) -> None:
    with case.tower.hooks(fwd_hooks=[("hook_embedding", nothing)]):
        pass
    with case.tower.hooks(fwd_hooks=[("hook_embedding", nothing)]):
        case.tower(case.x, stop_at_layer=1)
        case.tower(case.x)
    assert installed(case.tower) == 0


def test_a_pattern_needs_to_fire_only_somewhere(case: Case) -> None:
    case.tower.run_with_hooks(case.x, fwd_hooks=[("*.hook_resid_pre", nothing)], stop_at_layer=1)
    _, cache = case.tower.run_with_cache(case.x, names_filter=["*.hook_resid_pre"], stop_at_layer=1)
    assert len(cache) == 1


def test_hooks_go_when_something_raises(case: Case) -> None:
    def burst(tensor: Tensor, hook: Any) -> None:
        raise ZeroDivisionError

    refuses(ZeroDivisionError, "", case.tower.run_with_hooks, case.x, fwd_hooks=[("*", burst)])
    assert installed(case.tower) == 0
    refuses(ShapeError, "", case.tower.run_with_cache, case.x[:, :1])
    assert installed(case.tower) == 0
    case.tower(case.x)


def test_hooks_of_another_shape(case: Case) -> None:
    for answer in (lambda t, hook: t[:1], lambda t, hook: t[..., :1], lambda t, hook: 3.0):
        with pytest.raises(ShapeError, match=case.middle):
            case.tower.run_with_hooks(case.x, fwd_hooks=[(case.middle, answer)])
    assert installed(case.tower) == 0


def test_reset_hooks_and_nested_blocks(case: Case) -> None:
    fired: list[str] = []
    case.tower.add_hook("hook_embedding", lambda t, hook: fired.append("outer"))
    case.tower.run_with_hooks(
        case.x, fwd_hooks=[("hook_embedding", lambda t, hook: fired.append("inner"))]
    )
    assert fired == ["outer", "inner"] and installed(case.tower) == 1
    case.tower.reset_hooks()
    assert installed(case.tower) == 0


def test_pos_slice_never_cuts_the_batch(case: Case) -> None:
    _, whole = case.tower.run_with_cache(case.x, names_filter="*")
    _, cut = case.tower.run_with_cache(case.x, names_filter="*", pos_slice=0)
    for site, value in whole.items():
        axes = case.tower.axes(site)
        along = [axis for axis in ("pos", "query") if axis in axes]
        right = value.narrow(axes.index(along[0]), 0, 1) if along else value
        assert torch.equal(cut[site], right), site


def test_input_is_not_written_to(case: Case) -> None:
    before = case.x.clone()
    case.tower.run_with_cache(case.x, names_filter="*")
    assert torch.equal(case.x, before)


def test_a_resumed_stream_must_fit(case: Case) -> None:
    stream = case.tower(case.x, stop_at_layer=1)
    for wrong in (stream[..., :-1], stream[:, 1:], stream[0]):
        refuses(ShapeError, "resume", case.tower, wrong, start_at_layer=1, **case.again)


def test_unknown_towers() -> None:
    model: Any = CLIP(24, VIT, TEXT)
    refuses(SiteError, "visual", open_tower, model, "vision")
    model.visual = nn.Linear(2, 2)
    refuses(InterpError, "Linear", open_tower, model, "visual")


@pytest.mark.parametrize("gradients", [True, False])
def test_listening_gives_what_hooks_give(case: Case, gradients: bool) -> None:
    """`run_with_cache` listens; the library's own caching hooks are the second way to a cache."""
    with torch.set_grad_enabled(gradients):
        out, cache = case.tower.run_with_cache(case.x)
        saved, forward, _ = case.tower.get_caching_hooks()
        wanted = case.tower.run_with_hooks(case.x, fwd_hooks=forward)
    assert list(cache) == list(saved)
    assert list(cache) == [site for site in case.tower.sites if not site.endswith(ON_DEMAND)]
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    for site, value in saved.items():
        assert not cache[site].requires_grad
        scale = float(value.abs().max())
        torch.testing.assert_close(cache[site], value, rtol=0, atol=5e-6 * scale)


def test_listening_sees_what_a_hook_has_put_in(case: Case) -> None:
    with case.tower.hooks([(case.middle, lambda t, hook: t * 0)]):
        _, cache = case.tower.run_with_cache(case.x, names_filter=case.middle)
    assert not cache[case.middle].any()
    _, cache = case.tower.run_with_cache(case.x, names_filter=case.middle)
    assert cache[case.middle].any()


@pytest.mark.parametrize("case", TRANSFORMERS, indirect=True)
def test_a_patched_norm_changes_the_stream_also_when_heard(case: Case) -> None:
    norms = [site for site in case.tower.sites if site.endswith("ln1.hook_scale")]
    with torch.no_grad():
        plain, _ = case.tower.run_with_cache(case.x, names_filter=norms)
        with case.tower.hooks([(norms[0], lambda t, hook: t * 2)]):
            patched, _ = case.tower.run_with_cache(case.x, names_filter=norms)
    assert not torch.allclose(plain, patched)


def test_nobody_listens_after_a_run_that_failed(case: Case) -> None:
    def fail(tensor: Tensor, hook: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), case.tower.hooks([(case.middle, fail)]):
        case.tower.run_with_cache(case.x)
    assert not any(point.listener for point in case.tower.hook_points())


# a ResNet's attention pool computes one query where open_clip computes all
@pytest.mark.parametrize("case", TRANSFORMERS, indirect=True)
def test_without_gradients_a_transformer_is_open_clip_to_the_bit(case: Case) -> None:
    # the scales and the normalised streams may be read, but not the insides of attention
    outside = [site for site in case.tower.sites if ".attn." not in site]
    with torch.no_grad():
        wanted = case.original()
        assert torch.equal(case.tower(case.x), wanted)
        assert torch.equal(case.tower.run_with_cache(case.x, names_filter=outside)[0], wanted)


def test_a_mask_for_each_example_is_obeyed_without_gradients() -> None:
    torch.manual_seed(0)
    model: Any = CustomTextCLIP(24, VIT, TEXT | {"embed_cls": True}).eval()
    tower: Any = open_tower(model, "text")
    x = torch.randint(1, 50, (2, 10))
    x[0, 4:] = 0  # padding, which nothing may attend to
    with torch.no_grad():
        wanted = model.encode_text(x)
        torch.testing.assert_close(tower(x), wanted, rtol=1e-5, atol=1e-6)
        _, cache = tower.run_with_cache(x, names_filter="blocks.0.attn.hook_pattern")
    first, second = cache["blocks.0.attn.hook_pattern"][:, :, -1]
    # open_clip's mask stands one place too far to the right, as existing weights were trained
    assert not first[:, 5:].any() and first[:, :5].all() and second.all()

"""Traced towers: any tree of modules, read and patched by module path."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor, nn
from transformers.models.bert import BertConfig
from transformers.models.roberta import RobertaConfig

import interp
from interp import probes
from interp.core.errors import InterpError, ShapeError, SiteError, SpecificationError
from interp.models.towers.hooked import HookedTower
from interp.models.towers.open_tower import open_tower, trace_pictures, trace_texts
from interp.models.towers.surveying import name_axes
from interp.models.towers.traced import TracedTower
from tests.models.unhooked import (
    TIMM,
    VIT,
    WORDS,
    bert,
    by_torch,
    pictures,
    small_timm,
    traced,
    vit,
)
from tests.refusals import refuses
from tests.tables import image_table


class Branchy(nn.Module):
    """What tracing can trip over, in a few modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.pair, self.named = Pair(), Named()
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)
        self.idle, self.blocks = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)])
        self.alias = self.first
        self.silent = Silent()

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        x = self.act(self.first(x))
        x = self.act(self.pair(x)[0] - 0.1)
        x = x + self.attn(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0]
        self.silent(x)
        return self.blocks[0](self.named(x)["out"]), "and a word"


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.cos(), x.sin()


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": 2 * x}


class Silent(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


@pytest.fixture
def branchy() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return TracedTower(Branchy().double().eval(), torch.randn(1, 4)), torch.randn(5, 4).double()


@pytest.mark.parametrize("name", TIMM)
def test_every_site_is_what_torch_sees(name: str) -> None:
    tower, x = traced(name), pictures()
    with torch.no_grad():
        right = tower.source(x)
        assert torch.equal(tower(x), right)
        embedding, cache = tower.run_with_cache(x, names_filter="*")
        assert torch.equal(embedding, right) and torch.equal(cache["hook_embedding"], right)
        assert list(cache) == list(tower.sites) and len(tower.sites) > 30
        for path in list(dict(tower.source.named_modules()))[1::5]:
            for end, suffix in (("output", ""), ("input", ".input")):
                seen = by_torch(tower.source, path, lambda: tower.source(x), end)
                for call, value in enumerate(seen):
                    site = f"{path}{'' if len(seen) == 1 else f'#{call}'}{suffix}"
                    assert torch.equal(cache[site], value), site
                    assert cache[site].ndim == len(tower.axes(site))
                assert seen or path in tower.unreachable or isinstance(
                    tower.source.get_submodule(path), nn.ModuleList
                )  # fmt: skip
    assert any(found.overwritten for found in tower.traced_sites.values()) == (name == "resnet")


def test_sites_are_in_the_order_of_the_run(branchy: tuple[Any, Tensor]) -> None:
    tower, _ = branchy
    assert tower.sites == (
        "first.input", "first", "act#0.input", "act#0", "pair.input", "pair", "act#1.input",
        "act#1", "attn.input", "attn", "silent.input", "named.input", "named", "blocks.0.input",
        "blocks.0", "hook_embedding",
    )  # fmt: skip
    _, cache = tower.run_with_cache(torch.ones(1, 4).double())
    assert set(cache) == {site for site in tower.sites if not site.endswith(".input")}


def test_calls_tuples_dictionaries_and_work_in_place(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    net = tower.source
    embedding, cache = tower.run_with_cache(x, names_filter="*")
    first = F.linear(x, net.first.weight, net.first.bias)
    torch.testing.assert_close(cache["first"], first)  # although act#0 writes over it
    assert (cache["first"] < 0).any()
    torch.testing.assert_close(cache["act#0"], first.relu())
    torch.testing.assert_close(cache["pair"], first.relu().cos())
    torch.testing.assert_close(cache["act#1"], (first.relu().cos() - 0.1).relu())
    torch.testing.assert_close(cache["named"], 2 * cache["named.input"])
    assert torch.equal(embedding, net(x)[0])


def test_what_is_out_of_reach_is_said(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    assert tower.unreachable == {
        "act": "runs 2 times; its sites are act#0 and so on, by call",
        "pair": "gives a tuple, of which the site is the first tensor",
        "named": "gives a dict, of which the site is the first tensor",
        "attn": "gives a tuple, of which the site is the first tensor",
        "attn.out_proj": "is never called: fused attention reads its weights",
        "idle": "is never called",
        "alias": "is first under another name",
        "silent": "gives a NoneType that holds no tensor",
    }
    with pytest.raises(SiteError, match=r"act.*runs 2 times.*act#0"):
        tower.run_with_cache(x, names_filter="act")
    with pytest.raises(SiteError, match="is never called"):
        tower.run_with_hooks(x, fwd_hooks=[("idle", lambda tensor, hook: None)])


def test_axes() -> None:
    tower = traced("swin")
    assert tower.axes("layers.0.blocks.0") == ("batch", "axis_1", "axis_2", "axis_3")
    assert tower.axes("layers.0.blocks.0.attn") == ("batch_x_4", "axis_1", "axis_2")
    assert tower.axes("hook_embedding") == ("batch", "d_embed")
    assert name_axes((7, 2), (7, 3)) == ("axis_0", "batch")
    assert name_axes((2, 2), (3, 3)) == ("batch", "axis_1")
    tower.name_axes("layers.*.blocks.0", ("batch", "row", "column", "channel"))
    assert tower.axes("layers.1.blocks.0")[3] == "channel"
    for wrong in (
        ("batch", "pos"),
        ("row", "batch", "column", "channel"),
        ("batch", "a", "a", "b"),
    ):
        refuses(SiteError, "name the axes", tower.name_axes, "layers.0.blocks.0", wrong)


def test_axes_are_inferred_where_modules_say_them() -> None:
    tokens, maps = ("batch", "pos", "feature"), ("batch", "channel", "row", "column")
    vit, resnet = traced("vit"), traced("resnet")
    assert {resnet.axes(site) for site in resnet.sites if len(resnet.axes(site)) == 4} == {maps}
    for site in ("blocks.0", "blocks.1.norm2.input", "blocks.0.mlp.act", "blocks.0.attn.qkv"):
        assert vit.axes(site) == tokens, site
    # heads and widths look alike in a norm of queries: not guessed
    assert vit.axes("blocks.0.attn.q_norm") == ("batch", "axis_1", "axis_2", "axis_3")


def test_axes_are_not_guessed_where_a_linear_map_runs_over_tokens() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.over_tokens, self.over_features = (
                nn.LayerNorm(6), nn.Linear(5, 5), nn.Linear(6, 4),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            mixed = self.over_tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
            return self.over_features(mixed).flatten(1)

    tower = open_tower(Mixer(), example=torch.rand(2, 5, 6))
    assert tower.axes("norm") == ("batch", "pos", "feature")
    assert tower.axes("over_tokens") == ("batch", "axis_1", "axis_2")
    assert tower.axes("over_features") == ("batch", "pos", "feature")


def test_any_module_opens_with_an_example() -> None:
    from torchvision.models import resnet18

    net, x = resnet18().eval(), torch.rand(2, 3, 64, 64)
    tower = interp.open_tower(net, example=x[:1])
    embedding, _ = tower.run_with_cache(x, names_filter="layer?")
    assert torch.equal(embedding, net(x))
    features = probes.collect(
        tower, gray_pictures(3), "layer?", preprocess=lambda picture: as_tensor(picture)
    )
    with torch.no_grad():
        row = tower.run_with_cache(as_tensor(gray_pictures(3).picture(1))[None])[1]["layer3"]
    assert np.allclose(features.values["layer3"][1], row.mean((2, 3))[0], atol=1e-6)
    named = open_tower(
        nn.Sequential(nn.Flatten(0, 0)),
        example=torch.rand(1, 4, 6),
        axes={"0": ("batch", "pos", "feature")},
    )
    assert named.axes("0") == ("batch", "pos", "feature")
    with pytest.raises(SpecificationError, match="whose axes have names"):
        open_tower(CLIP(24, VIT, WORDS), "visual", axes={"hook_embed": ("a", "b")})
    refuses(SpecificationError, r"open_tower\(module, example=x\)", open_tower, resnet18())


def test_features_of_unnamed_axes_are_not_pooled() -> None:
    tower = open_tower(nn.Sequential(nn.Flatten(2)), example=torch.rand(1, 3, 4, 4))
    with pytest.raises(SiteError, match=r"pool 0: .*axis_1.*name_axes\('0'"):
        probes.collect(tower, gray_pictures(2, size=4), "0", preprocess=as_tensor)
    tower.name_axes("0", ("batch", "channel", "pos"))
    assert probes.collect(tower, gray_pictures(2, size=4), "0", preprocess=as_tensor).values[
        "0"
    ].shape == (2, 3)


def gray_pictures(n: int, *, size: int = 64) -> interp.ImageTable:
    read = lambda row: Image.new("RGB", (size, size), (40 * int(row["path"]), 9, 90))  # noqa: E731
    return image_table([("cat",)] * n, "label", read)


def as_tensor(picture: Image.Image) -> Tensor:
    return torch.tensor(np.array(picture) / 255, dtype=torch.float32).permute(2, 0, 1)


def test_a_patch_is_what_torch_makes_of_it() -> None:
    tower, x = traced("vit"), pictures()
    kept: list[Tensor] = []

    def double(tensor: Tensor, hook: Any) -> Tensor:
        assert hook.name == "blocks.0.attn"
        kept.append(tensor)
        return 2 * tensor

    with torch.no_grad():
        ours = tower.run_with_hooks(x, fwd_hooks=[("blocks.0.attn", double)])
        block = tower.source.get_submodule("blocks.0.attn")
        handle = block.register_forward_hook(lambda _, args, out: 2 * out)
        theirs = tower.source(x)
        handle.remove()
        assert torch.equal(ours, theirs) and not torch.equal(ours, tower(x))
        mid = tower.run_with_hooks(x, fwd_hooks=[("blocks.1.norm2.input", double_any)])
        handle = tower.source.get_submodule("blocks.1.norm2").register_forward_pre_hook(
            lambda _, args: (2 * args[0],)
        )
        assert torch.equal(mid, tower.source(x))
        handle.remove()


def double_any(tensor: Tensor, hook: Any) -> Tensor:
    return 2 * tensor


def test_patches_of_one_call_a_tuple_and_a_dictionary(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    net = tower.source

    def by_hand(one: float, pair: float, named: float) -> Tensor:
        h = net.first(x).relu()
        h = one * (pair * h.cos() - 0.1).relu()
        h = h + net.attn(h[:, None], h[:, None], h[:, None], need_weights=False)[0][:, 0]
        return net.blocks[0](named * 2 * h)

    for site, factors in (("act#1", (2, 1, 1)), ("pair", (1, 2, 1)), ("named", (1, 1, 2))):
        ours = tower.run_with_hooks(x, fwd_hooks=[(site, double_any)])
        torch.testing.assert_close(ours, by_hand(*factors))
        assert not torch.allclose(ours, tower(x))
    out = tower.run_with_hooks(x, fwd_hooks=[("hook_embedding", double_any)])
    assert torch.equal(out, 2 * tower(x))


def test_gradients_flow_through_and_can_be_hooked(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    kept: dict[str, Tensor] = {}

    def keep(tensor: Tensor, hook: Any) -> None:
        tensor.retain_grad()
        kept[hook.name] = tensor

    out = tower.run_with_hooks(x, fwd_hooks=[("first", keep), ("named", keep)])
    out.sum().backward()
    right = tower.source.blocks[0].weight.sum(0).expand(5, -1)
    torch.testing.assert_close(kept["named"].grad, right)
    step = 1e-6 * torch.randn_like(kept["first"])  # finite differences, through the ReLU in place
    more = tower.run_with_hooks(x, fwd_hooks=[("first", lambda tensor, hook: tensor + step)])
    grad: Any = kept["first"].grad
    slope = (grad * step).sum()
    torch.testing.assert_close((more.sum() - out.sum()), slope, rtol=1e-4, atol=1e-12)

    grads: list[Tensor] = []
    with tower.hooks(bwd_hooks=[("named", lambda grad, hook: grads.append(grad))]):
        tower(x).sum().backward()
    torch.testing.assert_close(grads[0], right)


def test_hooks_for_the_length_of_a_block(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    with tower.hooks(fwd_hooks=[("named", double_any)]):
        inside = tower(x)
        assert not torch.equal(tower.source(x)[0], inside)  # the module itself stays as it was
    assert torch.equal(inside, tower.run_with_hooks(x, fwd_hooks=[("named", double_any)]))
    assert torch.equal(tower(x), tower.source(x)[0])
    tower.add_hook("named", double_any)
    assert torch.equal(tower(x), inside)
    tower.reset_hooks()
    assert torch.equal(tower(x), tower.source(x)[0])


def test_refusals(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    refuses(SiteError, r"Try .*blocks\.0", tower.run_with_cache, x, names_filter="block.0")
    refuses(SiteError, "", tower.run_with_cache, x, names_filter=lambda name: False)
    with pytest.raises(ShapeError, match=r"replace named.*\(5, 2\)"):
        tower.run_with_hooks(x, fwd_hooks=[("named", lambda tensor, hook: tensor[:, :2])])
    refuses(SiteError, "run a part", tower, x, stop_at_layer=1)
    with pytest.raises(SiteError, match="never came there"):
        tower.run_with_hooks(x, stop_at_layer=0, fwd_hooks=[("hook_embedding", double_any)])
    refuses(ShapeError, "resume behind", tower, x[:, :3], start_at_layer=0)
    refuses(ShapeError, "as its example", tower, x[:, :3])
    with pytest.raises(SpecificationError, match="one of its own hooks"):
        tower.run_with_hooks(x, fwd_hooks=[("named", lambda tensor, hook: tower(x))])
    with pytest.raises(SpecificationError, match="TransformerLens"):
        _ = tower.cfg
    assert torch.equal(tower(tower(x, stop_at_layer=0), start_at_layer=0), tower(x))


def test_a_hook_that_never_fires_is_an_error() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x) if x.sum() < 100 else self.one(x)

    tower = TracedTower(Sometimes(), torch.zeros(1, 4))
    assert tower.sites == ("two.input", "two", "hook_embedding")
    read: list[Tensor] = []
    tower.run_with_hooks(
        torch.zeros(2, 4), fwd_hooks=[("two", lambda tensor, hook: read.append(tensor))]
    )
    assert len(read) == 1
    with pytest.raises(SiteError, match=r"two.*did not come there"):
        tower.run_with_hooks(torch.full((2, 4), 100.0), fwd_hooks=[("two", double_any)])


def test_pictures_and_texts_that_do_not_fit() -> None:
    tower = trace_pictures(small_timm())
    for wrong in (torch.zeros(2, 3, 31, 32), torch.zeros(2, 3, 32, 32, dtype=torch.int64)):
        refuses(ShapeError, "embed pictures", tower, wrong)
    words = trace_texts(bert())
    assert words(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 6)
    for wrong in (torch.ones(2, 13, dtype=torch.int64), torch.ones(2, 5), torch.ones(5).long()):
        refuses(ShapeError, "embed a text", words, wrong)


def state(module: nn.Module) -> list[tuple]:
    return [
        (
            name,
            sorted(part.__dict__),
            "forward" in part.__dict__,
            len(part._forward_hooks) + len(part._forward_pre_hooks),
        )
        for name, part in module.named_modules()
    ]


def test_nothing_stays_on_the_module(branchy: tuple[Any, Tensor]) -> None:
    tower, x = branchy
    before = state(tower.source)
    during: list[Any] = []
    tower.run_with_hooks(
        x, fwd_hooks=[("named", lambda tensor, hook: during.append(state(tower.source)))]
    )
    assert during[0] != before  # or this test could not fail
    assert state(tower.source) == before

    def fall(tensor: Tensor, hook: Any) -> None:
        raise KeyError("fallen")

    for run in (
        lambda: tower.run_with_hooks(x, fwd_hooks=[("named", fall)]),
        lambda: tower.run_with_hooks(x.float(), fwd_hooks=[("named", double_any)]),
    ):
        refuses((KeyError, RuntimeError), "", run)
        assert state(tower.source) == before
        assert not any(point.has_hooks() for point in tower.hook_points())
    assert torch.equal(tower(x), tower.source(x)[0])
    again = pickle.loads(pickle.dumps(tower.source))
    assert torch.equal(copy.deepcopy(tower.source)(x)[0], again(x)[0])


def test_a_forward_of_the_modules_own_is_kept() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    net[1].forward = torch.relu
    tower, x = TracedTower(net, torch.zeros(1, 4)), torch.randn(3, 4)
    _, cache = tower.run_with_cache(x)
    assert torch.equal(cache["1"], cache["0"].relu())
    assert net[1].forward is torch.relu


def test_the_survey_leaves_modes_and_statistics_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    net[2].eval()
    before = copy.deepcopy(net.state_dict())
    assert "1" in TracedTower(net, torch.randn(2, 4)).sites
    assert [part.training for part in net] == [True, True, False]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_parameters_are_the_models_own() -> None:
    source = vit()
    tower = TracedTower(source, pictures(1))
    assert {id(p) for p in tower.parameters()} == {id(p) for p in source.parameters()}
    assert list(tower.state_dict()) == list(source.state_dict())
    tower.double()
    assert tower(pictures().double()).dtype == torch.float64
    assert "not yet listed" in repr(tower) and "traced" in repr(tower)


def test_open_tower_falls_back_on_tracing() -> None:
    torch.manual_seed(0)
    model: Any = CLIP(24, VIT | {"qk_norm": True}, WORDS | {"qk_norm": True}).eval()
    visual, text = open_tower(model, "visual"), open_tower(model, "text")
    assert isinstance(visual, TracedTower) and isinstance(text, TracedTower)
    x, tokens = pictures(), text.example(3)
    assert torch.equal(visual(x), model.encode_image(x))
    assert torch.equal(text(tokens), model.encode_text(tokens))
    assert not any(site.startswith("visual") for site in (*text.sites, *text.unreachable))
    assert not any(name.startswith("visual") for name, _ in text.named_parameters())
    _, cache = text.run_with_cache(tokens)
    seen = by_torch(model, "ln_final", lambda: model.encode_text(tokens))
    assert torch.equal(cache["ln_final"], seen[0])
    plain = open_tower(CLIP(24, VIT, WORDS), "visual")
    assert isinstance(plain, HookedTower) and not isinstance(plain, TracedTower)


@pytest.mark.parametrize(
    "kind, pooler", [(BertConfig, "cls_pooler"), (RobertaConfig, "mean_pooler")]
)
def test_hugging_face_texts(kind: Any, pooler: str) -> None:
    tower = trace_texts(bert(kind, pooler))
    tokens = tower.example(2)
    embedding, cache = tower.run_with_cache(tokens)
    assert torch.equal(embedding, tower.source(tokens))
    layer = "transformer.encoder.layer.1.output"  # a module that nnsight would call E_output
    seen = by_torch(tower.source, layer, lambda: tower.source(tokens))
    assert torch.equal(cache[layer], seen[0])
    assert "transformer.encoder.layer.0.attention.self" in tower.unreachable


@pytest.mark.parametrize("trace", [trace_pictures, trace_texts])
def test_a_module_that_says_nothing_of_its_input(trace: Any) -> None:
    refuses(SpecificationError, r"Linear.*example", trace, nn.Linear(2, 2))


def test_an_embedding_is_asked_for() -> None:
    tower = TracedTower(Silent(), torch.zeros(1, 2))
    refuses(InterpError, "NoneType for its result", tower, torch.zeros(1, 2))

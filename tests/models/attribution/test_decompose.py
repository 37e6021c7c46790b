"""Parts of an embedding that sum to it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from interp.core.classifiers import Classifier
from interp.core.errors import DataError, InterpError, NumericsError, ShapeError
from interp.core.statistics.resampling import mean_interval
from interp.models import Decomposition, HookedResNet, HookedText, HookedViT, decompose
from interp.models.attribution.decompose import GRANULARITIES
from tests.models.moved import RESNET, TEXT_VARIANTS, VIT, VIT_VARIANTS, moved, text, tokens, visual
from tests.refusals import refuses

RESNET_VARIANTS: dict[str, Any] = {"four stages": {}, "odd map": {"image_size": 96}}


def build(kind: str, **variant: Any) -> tuple[Any, Tensor]:
    if kind == "padded text":
        torch.manual_seed(0)
        options: Any = {"no_causal_mask": True, "use_pad_mask": True, "pool_type": "argmax"}
        source = TextTransformer(8, 50, 32, 2, 2, output_dim=24, **options)
        return HookedText(moved(source)), tokens()
    if "text" in kind:
        return text({"text": CLIP, "custom text": CustomTextCLIP}[kind], **variant)[1:]
    return visual(RESNET if kind == "resnet" else VIT, **variant)[1:]


CASES = (
    [("vit", name, variant) for name, variant in VIT_VARIANTS.items()]
    + [("text", name, v) for name, v in TEXT_VARIANTS.items() if name != "class token"]
    + [("custom text", name, variant) for name, variant in TEXT_VARIANTS.items()]
    + [("padded text", "", {})]
    + [("resnet", name, variant) for name, variant in RESNET_VARIANTS.items()]
)


def assert_sums(whole: Decomposition, embedding: Tensor, bar: float) -> None:
    """The parts sum to the embedding of every picture, and are named one by one."""
    off = (whole.parts.sum(1) - embedding).norm(dim=-1) / embedding.norm(dim=-1)
    assert off.max() <= bar
    assert whole.error <= bar
    assert len(set(whole.names)) == len(whole.names) == len(whole.labels) == whole.parts.shape[1]
    # a part that is nought everywhere would not have been missed; a token may be masked
    seen = (whole.parts.abs().amax(dim=(0, 2)) > 0).tolist()
    assert all(
        any_ or kind in ("token", "place")
        for any_, kind in zip(seen, whole.labels["kind"], strict=True)
    )


@pytest.mark.parametrize("kind, name, variant", CASES, ids=[f"{k}: {n}" for k, n, _ in CASES])
def test_parts_sum_to_the_embedding(kind: str, name: str, variant: Any) -> None:
    tower, x = build(kind, **variant)
    with torch.no_grad():
        for by in GRANULARITIES:
            assert_sums(decompose(tower, x, by=by), tower.original(x), 1e-10)
        tower.float()
        narrow = x.float() if x.is_floating_point() else x
        for by in GRANULARITIES:
            whole = decompose(tower, narrow, by=by)
            assert_sums(whole, tower.original(narrow), 1e-5)
            # norm or attention may have run in the open, so the last bits are not promised
            torch.testing.assert_close(whole.embedding, tower(narrow))


# every part by a second way: the slope of the embedding along it, everything above held still


def slope(tower: Any, x: Tensor, site: str, along: Callable[[Tensor], Tensor]) -> Tensor:
    """d/dt of the embedding as `along` the activation is added t times, later branches frozen."""
    frozen = ("hook_attn_out", "hook_mlp_out", "hook_out", "hook_pattern", "ln_final.hook_scale")
    _, cache = tower.run_with_cache(x)
    later = tower.sites[tower.sites.index(site) + 1 :]
    # the branch that the site itself is a part of runs on
    own = site.removesuffix("attn.hook_z") + "hook_attn_out"
    held = [name for name in later if name.endswith(frozen) and name != own]

    def hold(tensor: Tensor, hook: Any) -> Tensor:
        return cache[hook.name]

    def run(t: Tensor) -> Tensor:
        def add(tensor: Tensor, hook: Any) -> Tensor:
            return tensor + t * along(tensor)

        return tower.run_with_hooks(x, fwd_hooks=[(site, add), *((name, hold) for name in held)])

    start, step = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    moved: Any = torch.autograd.functional.jvp(run, start, step)[1]
    return moved.detach()


def itself(tensor: Tensor) -> Tensor:
    return tensor.detach()


@pytest.mark.parametrize("variant", ["class token", "mean, norm after", "layer scale"])
def test_a_component_is_the_slope_along_what_it_wrote(variant: str) -> None:
    tower, x = build("vit", **VIT_VARIANTS[variant])
    whole = decompose(tower, x)
    for layer in range(2):
        for name in ("attn", "mlp"):
            right = slope(tower, x, f"blocks.{layer}.hook_{name}_out", itself)
            torch.testing.assert_close(whole[f"blocks.{layer}.{name}"], right)


@pytest.mark.parametrize("variant", ["class token", "mean"])
def test_heads_and_their_tokens(variant: str) -> None:
    tower, x = build("vit", **VIT_VARIANTS[variant])
    heads, each = decompose(tower, x, by="head"), decompose(tower, x, by="token")
    _, cache = tower.run_with_cache(x)
    for layer in range(2):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        v = cache[f"blocks.{layer}.attn.hook_v"]
        for head in range(2):
            name, site = f"blocks.{layer}.attn.head.{head}", f"blocks.{layer}.attn.hook_z"

            def alone(z: Tensor, head: int = head) -> Tensor:
                only = torch.zeros_like(z)
                only[:, :, head] = z[:, :, head].detach()
                return only

            torch.testing.assert_close(heads[name], slope(tower, x, site, alone))
            for pos in (0, 3):

                def source(z: Tensor, head: int = head, pos: int = pos) -> Tensor:
                    only = torch.zeros_like(z)
                    only[:, :, head] = (
                        pattern[:, head, :, pos, None] * v[:, pos, head][:, None]  # noqa: B023
                    )
                    return only

                torch.testing.assert_close(each[f"{name}.pos.{pos}"], slope(tower, x, site, source))


def test_what_stands_before_the_blocks() -> None:
    for variant in ({}, {"no_ln_pre": True}):
        tower, x = build("vit", **variant)
        whole = decompose(tower, x)
        entry = whole.grouped("layer")["layer.-1"]
        right = slope(tower, x, "blocks.0.hook_resid_pre", itself)
        torch.testing.assert_close(entry, right)
    by_hand = (tower.source.positional_embedding[0]).detach()
    by_hand = (by_hand - by_hand.mean()) * tower.ln_final.w
    _, cache = tower.run_with_cache(x)
    right = by_hand / cache["ln_final.hook_scale"][:, 0] @ tower.source.proj
    torch.testing.assert_close(whole["pos_embed"], right.detach())


@pytest.mark.parametrize("variant", RESNET_VARIANTS)
def test_a_bottleneck_is_the_slope_along_its_branch(variant: str) -> None:
    tower, x = build("resnet", **RESNET_VARIANTS[variant])
    whole = decompose(tower, x, by="layer")
    for block in tower.chain:
        right = slope(tower, x, f"{block.name}.hook_out", itself)
        torch.testing.assert_close(whole[block.name], right)
        if block.source.downsample is not None:  # which adds what it makes of nothing
            nothing = torch.zeros(1, block.source.conv1.in_channels, 8, 8, dtype=torch.float64)
            added = block.source.downsample(nothing)[:, :, :1, :1].detach()
            right = slope(tower, x, f"{block.name}.hook_out", lambda out, a=added: a.expand_as(out))
            torch.testing.assert_close(whole[f"{block.name}.downsample.b"], right)
    torch.testing.assert_close(whole["stem"], slope(tower, x, "stem.hook_pool", itself))
    same = decompose(tower, x, by="component")
    assert same.names == whole.names and torch.equal(same.parts, whole.parts)


def test_the_pools_heads_and_places() -> None:
    tower, x = build("resnet")
    heads, places = decompose(tower, x, by="head"), decompose(tower, x, by="token")
    _, cache = tower.run_with_cache(x)
    pool, z = tower.source.attnpool, cache["attnpool.hook_z"]
    for head in range(4):
        columns = pool.c_proj.weight[:, 64 * head : 64 * (head + 1)]
        torch.testing.assert_close(
            heads[f"attnpool.head.{head}"], (z[:, 0, head] @ columns.T).detach()
        )
    merged = places.grouped(["layer", "head"])
    for head in range(4):
        torch.testing.assert_close(merged[f"layer.6.head.{head}"], heads[f"attnpool.head.{head}"])
    # moving one place of the map moves its own parts alone, with the pattern held
    last = tower(x, stop_at_layer=tower.n_layers)

    def rest(stream: Tensor) -> Tensor:
        only = torch.zeros_like(stream)
        only[:, :, 1, 0] = stream[:, :, 1, 0].detach()
        return only

    right = slope(tower, x, "layer4.0.hook_resid_post", rest)
    own = places.grouped("pos")["pos.3"]  # row 1, column 0 of 2 x 2, after the mean at 0
    constants = (
        places.parts[:, (places.labels["pos"] == 3).fillna(False).to_numpy(bool)].sum(1) - right
    )
    shift = pool.v_proj(pool.positional_embedding).detach().unflatten(-1, (4, 64))
    pattern = cache["attnpool.hook_pattern"][:, :, 0]
    mixed = pattern[:, :, 3, None] * shift[3] + pattern[:, :, 0, None] * shift[0] / 4
    torch.testing.assert_close(constants, (mixed.flatten(1) @ pool.c_proj.weight.T).detach())
    assert last.shape[-2:] == (2, 2) and own.shape == right.shape


@pytest.fixture
def whole() -> Decomposition:
    return decompose(*build("vit"), by="head")


@pytest.fixture
def head() -> Classifier:
    dice = torch.Generator().manual_seed(1)
    weight = nn.functional.normalize(torch.randn(4, 24, generator=dice), dim=-1)
    return Classifier(weight, ("cat", "dog", "owl", "pig"), 20.0)


def test_logits_of_parts_sum_to_the_logits(whole: Decomposition, head: Classifier) -> None:
    logits = whole.logits(head)
    torch.testing.assert_close(logits.sum(1), head(whole.embedding))
    part, picture, name = 3, 1, 2
    length = whole.embedding[picture].pow(2).sum().sqrt()
    right = 20 * (whole.parts[picture, part] * head.weight[name]).sum() / length
    torch.testing.assert_close(logits[picture, part, name], right)


def test_groups(whole: Decomposition) -> None:
    for by in ("layer", "head", "pos", "kind", ["layer", "kind"], ["kind", "layer", "head", "pos"]):
        merged = whole.grouped(by)
        torch.testing.assert_close(merged.total, whole.total)
        assert len(set(merged.names)) == len(merged.names) == len(merged.labels)
        assert list(merged.labels.columns) == list(whole.labels.columns)
    layers = whole.grouped("layer")
    assert layers.names == ("layer.-1", "layer.0", "layer.1", "layer.2")
    assert layers.labels["layer"].tolist() == [-1, 0, 1, 2]
    for layer in range(-1, 3):
        mine = [i for i, value in enumerate(whole.labels["layer"]) if value == layer]
        torch.testing.assert_close(layers[f"layer.{layer}"], whole.parts[:, mine].sum(1))
    kinds = whole.grouped("kind")
    assert kinds.names == ("embed", "pos_embed", "bias", "head", "mlp")
    assert kinds.labels["layer"].isna().tolist() == [False, False, True, True, True]
    assert whole.grouped("pos").names == ("rest",)


def test_summary(whole: Decomposition, head: Classifier) -> None:
    labels = ["dog", "owl", "dog"]
    table = whole.summary(head, labels, seed=3).frame
    logits = whole.logits(head)
    for part, row in table.iterrows():
        margins = []
        for picture, label in enumerate(labels):
            own = head.class_names.index(label)
            others = [i for i in range(4) if i != own]
            margins.append(float(logits[picture, part, own] - logits[picture, part, others].mean()))
        right = mean_interval(margins, labels, seed=3)
        assert row["value"] == pytest.approx(right.value)
        assert (row["low"], row["high"]) == pytest.approx((right.low, right.high))
    assert table["part"].tolist() == list(whole.names)
    assert (table["unit"] == "class").all() and (table["n_units"] == 2).all()
    assert (table["n_pictures"] == 3).all() and (table["low"] < table["high"]).all()
    full = head(whole.embedding)
    margins = [
        float(full[i, own] - (full[i].sum() - full[i, own]) / 3) for i, own in enumerate((1, 2, 1))
    ]
    assert table["value"].sum() == pytest.approx(mean_interval(margins, labels).value)


def test_summary_of_one_class_is_over_pictures(whole: Decomposition, head: Classifier) -> None:
    table = whole.summary(head, ["cat"] * 3).frame
    assert (table["unit"] == "picture").all() and (table["n_units"] == 3).all()
    assert table["low"].notna().all()
    alone = Decomposition(whole.parts[:1], whole.names, whole.labels, whole.embedding[:1])
    lone = alone.summary(head, ["cat"]).frame
    assert lone["low"].isna().all() and (lone["reason"] != "").all()


def test_what_is_refused(whole: Decomposition, head: Classifier) -> None:
    refuses(ShapeError, "2 labels for 3", whole.summary, head, ["cat", "dog"])
    refuses(DataError, "Did you mean cat", whole.summary, head, ["cat", "dog", "cta"])
    with pytest.raises(InterpError, match="two or more"):
        whole.summary(Classifier(head.weight[:1], ("cat",), 1.0), ["cat"] * 3)
    refuses(ShapeError, "same model", whole.logits, Classifier(torch.ones(1, 7), ("cat",), 1.0))
    with pytest.raises(InterpError, match=r"blocks\.0\.mlp"):
        _ = whole["blocks.0.mpl"]
    refuses(InterpError, "group parts", whole.grouped, "layers")
    refuses(InterpError, "group parts", whole.grouped, [])
    tower, x = build("vit")
    refuses(InterpError, "Did you mean head", decompose, tower, x, by="heads")
    refuses(InterpError, r"clip\.visual", decompose, nn.Linear(2, 2), x)


def test_training_mode_is_refused_where_it_matters() -> None:
    for kind, variant in (("resnet", {}), ("vit", {"patch_dropout": 0.5})):
        tower, x = build(kind, **variant)
        tower.train()
        before = {name: value.clone() for name, value in tower.state_dict().items()}
        refuses(InterpError, r"training mode.*\.eval\(\)", decompose, tower, x)
        assert all(torch.equal(before[name], value) for name, value in tower.state_dict().items())
    tower, x = build("vit")
    tower.train()
    assert decompose(tower, x).error < 1e-10


def test_a_hook_that_breaks_the_sum_is_found() -> None:
    tower, x = build("vit")
    tower.add_hook("blocks.1.hook_resid_pre", lambda stream, hook: 2 * stream)
    refuses(NumericsError, "reset_hooks", decompose, tower, x)
    tower.reset_hooks()
    assert decompose(tower, x).error < 1e-10
    # replacing what a head wrote keeps the sum, and the part says so
    tower.add_hook("blocks.1.attn.hook_z", lambda z, hook: torch.zeros_like(z))
    assert not decompose(tower, x, by="head")["blocks.1.attn.head.1"].any()
    tower.reset_hooks()
    with torch.no_grad():
        tower.source.proj[0, 0] = torch.nan
    refuses(NumericsError, "", decompose, tower, x)


@pytest.mark.parametrize("kind", ["vit", "text", "resnet"])
def test_half_precision_is_summed_up_wider(kind: str) -> None:
    tower, x = build(kind)
    tower.to(torch.bfloat16)
    x = x.to(torch.bfloat16) if x.is_floating_point() else x
    whole = decompose(tower, x, by="head")
    assert whole.parts.dtype == torch.float32 and whole.embedding.dtype == torch.bfloat16
    assert 0 < whole.error < 0.05


def test_nothing_carries_gradients_or_stays_installed() -> None:
    for kind, expected in (("vit", HookedViT), ("text", HookedText), ("resnet", HookedResNet)):
        tower, x = build(kind)
        assert isinstance(tower, expected)
        for by in GRANULARITIES:
            assert not decompose(tower, x, by=by).parts.requires_grad
        assert not any(point.fwd_hooks for point in tower.hook_dict.values())

"""The logit lens, against open_clip's own parts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import text_global_pool
from torch import Tensor

from interp.core.classifiers import Classifier
from interp.core.errors import InterpError, SiteError
from interp.models import decompose, logit_lens
from interp.models.attribution.logit_lens import lens_embeddings, lens_sites
from tests.models.moved import QUERIES, RESNET, VIT, text, visual
from tests.refusals import refuses

THREE = VIT | {"layers": 3}


def head() -> Classifier:
    dice = torch.Generator().manual_seed(1)
    weight = F.normalize(torch.randn(4, 24, generator=dice), dim=-1)
    return Classifier(weight, ("cat", "dog", "owl", "pig"), 20.0)


def outputs(blocks: Any, run: Any) -> list[Tensor]:
    """The streams that open_clip's own blocks were given and gave."""
    seen: list[Tensor] = []
    handles = [blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))]
    handles += [block.register_forward_hook(lambda *args: seen.append(args[2])) for block in blocks]
    run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    "variant",
    [{}, {"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}, QUERIES],
)
def test_pictures(variant: Any) -> None:
    model, tower, x = visual(THREE, **variant)
    net = model.visual
    streams = outputs(net.transformer.resblocks, lambda: net(x))
    naive = []
    for stream in streams:
        if net.attn_pool is not None:
            pooled = net.ln_post(net.attn_pool(stream))[:, 0]
        elif net.final_ln_after_pool:
            pooled = net.ln_post(stream[:, 1:].mean(1))
        elif net.pool_type == "avg":
            pooled = net.ln_post(stream)[:, 1:].mean(1)
        else:
            pooled = net.ln_post(stream[:, 0])
        naive.append(pooled @ net.proj)
    ours = lens_embeddings(tower, x)
    torch.testing.assert_close(ours, torch.stack(naive).detach())
    assert lens_sites(tower)[0] == "blocks.0.hook_resid_pre" and len(ours) == 4
    logits = logit_lens(tower, x, head())
    for row, embedding in zip(logits, naive, strict=True):
        right = 20 * F.normalize(embedding, dim=-1) @ head().weight.double().T
        torch.testing.assert_close(row, right.detach())
    with torch.no_grad():
        assert torch.equal(logits[-1], head()(tower(x)))
    assert not torch.allclose(logits[-2], logits[-1])


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_texts(kind: Any) -> None:
    model, tower, x = text(kind)
    net = model if kind is CLIP else model.text
    streams = outputs(net.transformer.resblocks, lambda: model.encode_text(x))
    naive = [
        text_global_pool(net.ln_final(stream), x, "argmax") @ net.text_projection
        for stream in streams
    ]
    ours = lens_embeddings(tower, x)
    torch.testing.assert_close(ours, torch.stack(naive).detach())
    with torch.no_grad():
        assert torch.equal(ours[-1], tower(x))


def test_a_bottlenecks_row_is_its_stream_read_with_gates_and_pattern_held() -> None:
    _, tower, x = visual(RESNET)
    ours = lens_embeddings(tower, x)
    _, cache = tower.run_with_cache(x)
    blocks = [block.name for block in tower.chain]
    pattern = cache["attnpool.hook_pattern"]

    def hold(tensor: Tensor, hook: Any) -> Tensor:
        return cache[hook.name]

    # what the pool makes of an empty map with its pattern held: positions and biases
    nothing = torch.zeros_like(cache[f"{blocks[-1]}.hook_resid_post"])
    constants = tower.run_with_hooks(
        nothing, start_at_layer=len(blocks), fwd_hooks=[("attnpool.hook_pattern", hold)]
    )
    for layer, name in enumerate(blocks[:-1]):
        later = [f"{other}.hook_out" for other in blocks[layer + 1 :]]
        held = [(site, hold) for site in (*later, "attnpool.hook_pattern")]

        def run(t: Tensor, name: str = name, held: Any = held) -> Tensor:
            def grow(stream: Tensor, hook: Any) -> Tensor:
                return stream * (1 + t)

            return tower.run_with_hooks(x, fwd_hooks=[(f"{name}.hook_resid_post", grow), *held])

        start, step = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        slope: Any = torch.autograd.functional.jvp(run, start, step)[1]
        torch.testing.assert_close(ours[layer + 1], (slope + constants).detach())
    assert torch.equal(ours[-1], tower(x)) and pattern.shape[2] == 1
    whole = decompose(tower, x, by="layer")
    torch.testing.assert_close(ours[-1], whole.total)
    stem = whole["stem"] + whole.grouped("layer")["layer.6"]
    torch.testing.assert_close(ours[0], stem)
    assert torch.equal(logit_lens(tower, x, head())[-1], head()(tower(x)))


def test_the_streams_may_be_chosen() -> None:
    _, tower, x = visual(THREE)
    full = lens_embeddings(tower, x)
    some = lens_embeddings(tower, x, sites=["blocks.1.hook_resid_post", "blocks.*.hook_resid_pre"])
    assert len(some) == 4  # in tower order, whatever the order of the patterns
    torch.testing.assert_close(some[[0, 1, 2, 3]], full[[0, 1, 2, 2]])
    middle = lens_embeddings(tower, x, sites="blocks.0.hook_resid_mid")
    part = decompose(tower, x)
    assert middle.shape == (1, 3, 24) and not torch.allclose(middle[0], part.total)
    _, resnet, pictures = visual(RESNET)
    rows = lens_embeddings(resnet, pictures)
    for sites, row in (("layer2.0.hook_resid_pre", 2), ("layer2.0.hook_resid_post", 3)):
        torch.testing.assert_close(lens_embeddings(resnet, pictures, sites=sites)[0], rows[row])


def test_what_is_refused() -> None:
    model, tower, x = visual(THREE)
    refuses(SiteError, "use decompose", lens_embeddings, tower, x, sites="blocks.0.hook_mlp_out")
    with pytest.raises(SiteError, match="hook_resid_post"):
        lens_embeddings(tower, x, sites="blocks.0.hook_residpost")
    refuses(SiteError, "", lens_embeddings, tower, x, sites=[])
    refuses(InterpError, r"clip\.visual", logit_lens, model, x, head())


def test_nothing_stays_installed_and_nothing_carries_gradients() -> None:
    for vision in (VIT, RESNET):
        _, tower, x = visual(vision)
        assert not logit_lens(tower, x, head()).requires_grad
        assert not any(point.fwd_hooks for point in tower.hook_dict.values())


@pytest.mark.parametrize("variant", [{}, {"pool_type": "avg"}, QUERIES])
def test_logit_attrs_are_the_parts_of_the_decomposition(variant: Any) -> None:
    _, tower, x = visual(THREE, **variant)
    with torch.no_grad():
        _, cache = tower.run_with_cache(x)
    labels, foils = ["cat", "owl", "cat"], ["dog"]
    ours = cache.logit_attrs(cache.stack_head_results(layer=2), head(), labels, foils)
    parts = decompose(tower, x, by="head")
    logits = parts.logits(head())
    own = logits[torch.arange(3), :, [head().class_names.index(label) for label in labels]]
    wanted = own - logits[:, :, 1]
    rows = [name for name in parts.names if name.startswith(("blocks.0.attn.h", "blocks.1.attn.h"))]
    assert len(rows) == len(ours) == 4
    for row, name in enumerate(rows):
        torch.testing.assert_close(ours[row], wanted[:, parts.names.index(name)].to(ours))


def test_logit_attrs_of_a_text_read_its_end() -> None:
    _, tower, x = text()
    with torch.no_grad():
        _, cache = tower.run_with_cache(x)
    whole = cache[f"blocks.{tower.n_layers - 1}.hook_resid_post"][None]
    biases = [part for part in ("ln_final.b", "text_projection.b")]
    parts = decompose(tower, x)
    rest = sum(
        parts.logits(head())[:, parts.names.index(name), 0]
        for name in biases
        if name in parts.names
    )
    ours = cache.logit_attrs(whole, head(), "cat")
    torch.testing.assert_close(ours[0] + rest, head()(cache["hook_embedding"])[:, 0].to(ours))


def test_logit_attrs_refuse_what_does_not_fit() -> None:
    _, tower, x = visual(THREE)
    with torch.no_grad():
        _, cache = tower.run_with_cache(x)
    stack = cache.stack_head_results(layer=1)
    for wrong in (
        lambda: cache.logit_attrs(stack[:, :, 0], head(), ["cat"]),
        lambda: cache.logit_attrs(stack, head(), ["cat", "dog"]),
        lambda: cache.logit_attrs(stack, head(), ["cta"]),
    ):
        refuses(InterpError, "attribute logits to parts of the stream", wrong)
    _, resnet, x = visual(RESNET)
    with torch.no_grad():
        _, cache = resnet.run_with_cache(x)
    with pytest.raises(InterpError, match=r"decompose\(tower, x\)\.logits"):
        cache.logit_attrs(stack, head(), ["cat"])

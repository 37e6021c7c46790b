"""What patches and words add to a logit."""

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from interp.circuits import planted_vit
from interp.circuits.planted.world import DOMAINS, PARTS
from interp.core.classifiers import Classifier
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.models import Clip, decompose, explain, open_tower, sentence_parts
from interp.models.attribution.explain import EXACT
from interp.models.attribution.placed_logits import (
    by_attention,
    covered,
    integrated,
    straight,
    straight_vectors,
)
from interp.models.attribution.sentence_parts import read_sentences
from tests.models.attribution.test_decompose import RESNET_VARIANTS, build
from tests.models.moved import TEXT_VARIANTS, VIT_VARIANTS
from tests.refusals import refuses

SENTENCES = ["a photo of a cat", "dogs"]
VARIANTS = [("vit", name) for name in VIT_VARIANTS] + [("resnet", name) for name in RESNET_VARIANTS]
OF = {"vit": VIT_VARIANTS, "resnet": RESNET_VARIANTS, "custom text": TEXT_VARIANTS}


def head(width: int, n: int = 3) -> Classifier:
    torch.manual_seed(3)
    return Classifier(torch.randn(n, width), [f"class {place}" for place in range(n)], 20.0)


@pytest.fixture(scope="module")
def clip() -> Clip:
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt", force_image_size=96).eval()
    return Clip(model, "ViT-S-32-alt")


@pytest.mark.parametrize(("kind", "variant"), VARIANTS)
@pytest.mark.parametrize("method", EXACT)
def test_patches_and_the_rest_sum_to_the_logit(kind: str, variant: str, method: str) -> None:
    tower, x = build(kind, **OF[kind][variant])
    classes = head(tower(x).shape[-1])
    maps = explain(tower, x, classes, method=method)
    right = classes(tower(x))
    assert torch.allclose(maps.logits, right, atol=1e-5)
    assert torch.allclose(maps.patches.sum(dim=(2, 3)) + maps.rest, right, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "variant"), [*VARIANTS, *(("custom text", name) for name in TEXT_VARIANTS)]
)
def test_a_gradient_finds_what_running_each_place_alone_finds(kind: str, variant: str) -> None:
    tower, x = build(kind, **OF[kind][variant])
    tower.source.double()
    x = x.double() if x.is_floating_point() else x
    directions = torch.randn(2, tower(x).shape[-1], dtype=torch.float64)
    for layer in (0, tower.n_layers - 1):
        fast = straight(tower, x, directions, layer)
        slow = straight_vectors(tower, x, layer) @ directions.T
        assert torch.allclose(fast, slow.transpose(1, 2), atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        ("vit", "class token"),
        ("vit", "queries"),
        ("vit", "mean, norm after"),
        ("custom text", "plain"),
    ],
)
def test_without_biases_the_places_alone_make_the_embedding(kind: str, variant: str) -> None:
    tower, x = build(kind, **OF[kind][variant])
    with torch.no_grad():
        for module in tower.source.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name:
                    parameter.zero_()
    vectors = straight_vectors(tower, x)
    assert torch.allclose(vectors.sum(dim=1), tower(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", EXACT)
def test_sentences_are_explained_by_words_and_pairs(clip: Clip, method: str) -> None:
    x = torch.rand(3, 3, 96, 96)
    maps = explain(clip, x, SENTENCES, method=method, pairs=True)
    assert maps.patches.shape == (3, 2, 3, 3)
    assert maps.words[1] == ("[start of text]", "dogs", "[end of text]")
    assert [each.shape[1] for each in maps.by_word] == [7, 3]
    unit = nn.functional.normalize(clip.visual(x), dim=-1)
    read = clip.tokenizer(SENTENCES)
    texts = clip.text(read)
    along = (
        parts_of_words(clip, read, unit, method)
        * clip.logit_scale
        / texts.norm(dim=-1)[:, None, None]
    )
    for place, (own, pairs) in enumerate(zip(maps.by_word, maps.pairs, strict=True)):
        n = own.shape[1]
        assert torch.allclose(own, along[place, :, :n], atol=1e-5)
        assert along[place, :, n:].abs().max() < 1e-5  # what stands behind the end is not read
        assert pairs.shape == (3, n, 3, 3)
    # a word's pairs are the map of the word's own direction
    word = maps.pairs[0][:, 4]
    direction = word_direction(clip, read, method)[0, 4] * clip.logit_scale / texts[0].norm()
    again = explain(
        clip.visual,
        x,
        Classifier(direction[None].detach(), ["word"], float(direction.norm().detach())),
        method=method,
    )
    assert torch.allclose(word, again.patches[:, 0], atol=1e-5)


def test_a_sentence_is_the_sum_of_its_words(clip: Clip) -> None:
    """With the biases; a word's vector is its gradient's, and nothing else is told of it."""
    parts = sentence_parts(clip, SENTENCES)
    read = clip.tokenizer(SENTENCES)
    unit = nn.functional.normalize(clip.text(read), dim=-1)
    for place, (own, rest) in enumerate(zip(parts.vectors, parts.rest, strict=True)):
        assert len(own) == len(parts.words[place])
        assert torch.allclose(own.sum(dim=0) + rest, unit[place], atol=1e-6)
    pictures = torch.randn(4, unit.shape[1])
    length = clip.text(read).norm(dim=-1)[:, None, None]
    along = parts_of_words(clip, read, pictures, "straight") / length
    for own, wanted in zip(parts.vectors, along, strict=True):
        assert torch.allclose(pictures @ own.T, wanted[:, : len(own)], atol=1e-5)
    refuses(SpecificationError, "no sentence", sentence_parts, clip, [])
    refuses(SpecificationError, "at most", sentence_parts, clip, ["word " * 100])


def parts_of_words(clip: Clip, tokens: Tensor, unit: Tensor, method: str) -> Tensor:
    """What each token adds along each picture: `sentence picture token`."""
    if method == "straight":
        return straight(clip.text, tokens, unit, 0)
    return torch.einsum("std,pd->spt", word_direction(clip, tokens, method), unit)


def word_direction(clip: Clip, tokens: Tensor, method: str) -> Tensor:
    if method == "straight":
        return straight_vectors(clip.text, tokens)
    parts = decompose(clip.text, tokens, by="place")
    return parts.parts[:, np.flatnonzero(parts.labels["kind"] == "place").tolist()]


@pytest.mark.long
@pytest.mark.slow
def test_a_contrast_explains_what_one_sentence_has_over_the_others(clip: Clip) -> None:
    x = torch.rand(2, 3, 96, 96)
    three = [*SENTENCES, "a bus"]
    plain, less = (
        explain(clip, x, three, method="straight", contrast=contrast) for contrast in (False, True)
    )
    others = (plain.patches[:, 1] + plain.patches[:, 2]) / 2
    assert torch.allclose(less.patches[:, 0], plain.patches[:, 0] - others, atol=1e-5)
    assert torch.allclose(
        less.logits[:, 0], plain.logits[:, 0] - plain.logits[:, 1:].mean(dim=1), atol=1e-4
    )


def test_occlusion_is_the_fall_of_the_logit(clip: Clip) -> None:
    x, classes = torch.rand(2, 3, 96, 96), head(256)
    maps = explain(clip.visual, x, classes, method="occlusion", grid=(2, 4))
    hidden = x.clone()
    hidden[:, :, 48:, 24:48] = x.mean(dim=(2, 3), keepdim=True)
    fall = classes(clip.visual(x)) - classes(clip.visual(hidden))
    assert torch.allclose(maps.patches[:, :, 1, 1], fall, atol=1e-4)
    assert maps.rest.isnan().all()


def test_gradient_x_attention_of_one_block_is_its_weighed_attention() -> None:
    tower, x = build("vit", layers=1)
    direction = torch.randn(1, 24, dtype=torch.float64)
    found = by_attention(tower, x, direction)
    kept: list[Tensor] = []
    with tower.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda t, hook: kept.append(t))]):
        out = tower(x)
    [gradient] = torch.autograd.grad((out @ direction.T).sum(), kept)
    right = (kept[0] * gradient).clamp(min=0).mean(dim=1)[:, 0]
    assert torch.allclose(found[:, 0], right)


def places_found(condition: str, seed: int, **options: Any) -> dict[str, float]:
    """The AUROC of a map for the patches of P and Q, by domain; class against the others."""
    planted = planted_vit(condition, seed=seed)
    tower = open_tower(planted.source)
    found = {}
    for domain in DOMAINS:
        scenes = planted.world.scenes(24, domain=domain, seed=5)
        pictures = planted.world.render(scenes)
        maps = explain(tower, pictures, planted.classifier, contrast=True, **options)
        rows = torch.arange(len(scenes))
        own = maps.patches[rows, torch.as_tensor(scenes.label)].flatten(1).numpy()
        truth = np.zeros(own.shape, dtype=bool)
        for part in ("P", "Q"):
            truth[rows, scenes.place[:, list(PARTS).index(part)]] = True
        each = [roc_auc_score(t, o) for t, o in zip(truth, own, strict=True)]
        found[domain] = float(np.mean(each))
    return found


@pytest.mark.parametrize("condition", ["all shared", "all separate", "rewired"])
@pytest.mark.parametrize(
    "options",
    [{"method": "straight"}, {"method": "gradient x attention"}, {"method": "occlusion"}],
    ids=lambda options: options["method"],
)
def test_planted_parts_are_found_where_they_stand(condition: str, options: Any) -> None:
    assert min(places_found(condition, seed=1, **options).values()) >= 0.95


@pytest.mark.slow
def test_integrated_gradients_sum_to_what_a_picture_has_over_a_plain_one(clip: Clip) -> None:
    x, classes = torch.rand(2, 3, 96, 96), head(256)
    maps = explain(clip.visual, x, classes, method="integrated gradients")
    plain = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    assert torch.allclose(maps.rest, classes(clip.visual(plain)), atol=0.02)
    assert float(maps.patches.abs().max()) > 0.1


def test_integrated_gradients_of_a_linear_tower_are_its_terms() -> None:
    weight = torch.randn(1, 3, 5, 4)

    def logits(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=(1, 2, 3))[:, None]

    x = torch.rand(2, 3, 5, 4)
    found = integrated(logits, x, 1, (2, 2), steps=3)
    terms = (x - x.mean(dim=(2, 3), keepdim=True)) * weight
    assert torch.allclose(found[:, 0, 1], terms[:, :, :3, 2:].sum(dim=(1, 2, 3)), atol=1e-5)
    # the same pixels that are covered
    where = torch.tensor([[[False, True], [False, False]]]).expand(2, -1, -1)
    assert bool((covered(x, where)[:, :, :3, 2:] != x[:, :, :3, 2:]).all())
    assert torch.equal(covered(x, where)[:, :, 3:], x[:, :, 3:])


def test_what_cannot_be_explained_is_said(clip: Clip) -> None:
    x = torch.rand(1, 3, 96, 96)
    refuses(SpecificationError, "at most 77", explain, clip, x, "cat " * 90)
    refuses(SpecificationError, "one or more", explain, clip, x, [])
    refuses(SpecificationError, "a Clip, whose text tower", explain, clip.visual, x, ["a cat"])
    refuses(SpecificationError, "two or more", explain, clip, x, ["a cat"], contrast=True)
    with pytest.raises(SpecificationError, match="pairs"):
        explain(clip, x, ["a cat"], method="occlusion", pairs=True)
    refuses(SpecificationError, "0 to 12", explain, clip, x, ["a cat"], method="straight", layer=13)
    refuses(SpecificationError, "method", explain, clip, x, ["a cat"], method="saliency")
    refuses(SampleError, "no pictures", explain, clip, [], ["a cat"])
    with pytest.raises(SpecificationError, match="whole numbers"):
        explain(clip, x, ["a cat"], method="occlusion", grid=(0, 2))
    with pytest.raises(SpecificationError, match="preprocess="):
        explain(clip.visual, Image.new("RGB", (96, 96)), head(256))


def test_sentences_of_whole_words_are_read_word_by_word(toy: Any) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{toy.model}")
    read = read_sentences(tokenizer, ["a square 3", "the square"])
    assert read.words == (
        ("[start]", "a", "square", "3", "[end]"),
        ("[start]", "the", "square", "[end]"),
    )
    assert read.tokens.shape == (2, 6)
    refuses(DataError, "the words circle", read_sentences, tokenizer, ["a circle"])
    with pytest.raises(SpecificationError, match="a sentence of 7 tokens"):
        read_sentences(tokenizer, ["a square 1 2 3"])


def test_a_tower_in_training_mode_is_refused() -> None:
    tower, x = build("resnet")
    tower.source.train()
    refuses(SpecificationError, "training mode", explain, tower, x, head(24))


@pytest.mark.slow
def test_a_figure_says_what_the_logit_is_the_sum_of(clip: Clip) -> None:
    maps = explain(clip, torch.rand(2, 3, 96, 96), SENTENCES, method="straight", pairs=True)
    figure = maps.plot(1)
    heads = [each.text for each in figure.layout.annotations]
    logit, rest = float(maps.logits[1, 0]), float(maps.rest[1, 0])
    assert heads[0] == "the picture"
    assert f"logit {logit:.2f} =<br>patches {logit - rest:+.2f}" in heads[1]
    drawn = [trace for trace in figure.data if trace.type == "heatmap"]
    np.testing.assert_allclose(drawn[1].z, maps.patches[1, 1].numpy(), rtol=1e-6)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    np.testing.assert_allclose(bars[0].y, maps.by_word[0][1].numpy(), rtol=1e-6)
    assert "no interval" in figure.layout.meta["caption"]
    # one scale for all maps of a picture
    assert figure.layout.coloraxis.cmax == pytest.approx(float(maps.patches[1].abs().max()))
    pairs = maps.plot_pairs(0, 1)
    assert len([trace for trace in pairs.data if trace.type == "heatmap"]) == 3
    with pytest.raises(SpecificationError, match="pairs=True"):
        explain(clip, torch.rand(1, 3, 96, 96), SENTENCES, method="occlusion").plot_pairs()
    refuses(SpecificationError, "picture 0 to 1", maps.plot, 2)


def test_pictures_are_drawn_as_they_were_given(clip: Clip) -> None:
    green = Image.new("RGB", (120, 96), "green")
    figure = explain(clip, green, "a cat", method="occlusion").plot()
    shown = np.asarray(figure.data[0].z)
    assert shown.shape[0] == shown.shape[1]  # what the model sees of it
    assert (shown == (0, 128, 0)).all()

"""Every preset opens in open_clip, and the paper's are the paper's."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from interp.core.errors import SpecificationError
from interp.data.mixtures.templates import fill, longest_caption, prompts, vocabulary
from interp.models.clip import write
from interp.models.loading.load_clip import load_clip
from interp.models.loading.presets import PRESETS, is_full_size, unreadable, write_model_folder

SMALL = [name for name in PRESETS if not is_full_size(name)]
FULL = [name for name in PRESETS if is_full_size(name)]


@pytest.mark.parametrize("preset", SMALL)
def test_every_small_preset_opens_in_open_clip(preset, small_images, tmp_path) -> None:
    import open_clip

    longest = longest_caption(small_images.labels, small_images.domains)
    words = vocabulary(small_images.labels, small_images.domains)
    folder = write_model_folder(tmp_path / preset, preset, words=words, longest=longest)
    model = open_clip.create_model(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    tokens = tokenizer(["a light bulb is visible in an informational chart.", "xyzzy"])
    end = len(tokenizer.tokenizer) - 1
    assert (tokens == end).sum(dim=1).tolist() == [1, 1] and int(tokens.max()) == end
    assert tokens[1].tolist()[:3] == [end - 1, 1, end]
    assert model.encode_text(tokens).shape == (2, 128)
    assert model.encode_image(torch.zeros(2, 3, 48, 48)).shape == (2, 128)


@pytest.mark.parametrize("preset", SMALL)
def test_every_small_preset_has_hooks(preset: str, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / preset, preset, words=["a"], longest=4, image_size=48)
    clip = load_clip(f"local-dir:{folder}")
    assert not type(clip.visual).__name__.startswith("Traced")


@pytest.mark.parametrize(("preset", "embed"), [("RN50", 1024), ("ViT-S-32", 384), ("Swin-T", 512)])
def test_full_size_presets_keep_open_clips_tokenizer(preset, embed, tmp_path) -> None:
    folder = write_model_folder(tmp_path / preset, preset, words=["a"], longest=4)
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    assert config["text_cfg"]["vocab_size"] == 49408 and config["embed_dim"] == embed
    assert config["vision_cfg"]["image_size"] == 224
    assert [path.name for path in folder.iterdir()] == ["open_clip_config.json"]
    assert preset in FULL and len(FULL) == 3


@pytest.mark.slow
@pytest.mark.parametrize("preset", FULL)
def test_full_size_presets_open(preset: str, tmp_path: Path) -> None:
    import open_clip

    folder = write_model_folder(tmp_path / preset, preset, words=[], longest=0)
    clip = load_clip(f"local-dir:{folder}")
    tokens = clip.tokenizer(["a photo of an aircraft carrier"])
    assert (
        tokens.tolist()
        == open_clip.get_tokenizer("RN50")(["a photo of an aircraft carrier"]).tolist()
    )
    with torch.no_grad():
        image = clip.model.encode_image(torch.zeros(1, 3, 224, 224))  # type: ignore[operator]
        assert image.shape == clip.model.encode_text(tokens).shape  # type: ignore[operator]
    if preset != "Swin-T":
        theirs = open_clip.create_model(preset)
        shapes = {name: value.shape for name, value in theirs.state_dict().items()}
        assert shapes == {name: value.shape for name, value in clip.model.state_dict().items()}


def test_a_fixed_size_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="Leave image_size out"):
        write_model_folder(tmp_path / "m", "Swin-T", words=[], longest=0, image_size=64)
    assert not (tmp_path / "m").exists()


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="Did you mean vit-small"):
        write_model_folder(tmp_path / "m", "vit-smal", words=[], longest=0)


WORDS = ["a", "an", "image", "of", "cat", "."]


def test_a_small_vocabulary_names_what_it_lacks(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", "vit-small", words=WORDS, longest=6)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert unreadable(tokenizer, ["an image of a cat.", "A cat"]) == ""
    assert "know dog, zebra" in unreadable(tokenizer, ["a zebra", "an image of a dog"])
    long = unreadable(tokenizer, ["an image of an image of a cat."])
    assert "11 tokens do not fit a context of 8" in long
    sentences = [write(template, "cat") for template in prompts("paper")]
    assert "blurry" in unreadable(tokenizer, sentences)


def test_clips_own_tokenizer_reads_everything() -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    sentences = [write(template, "axolotl") for template in prompts("paper")]
    sentences += [fill(prompt, "zebra") for prompt in prompts("neutral")]
    assert unreadable(tokenizer, sentences) == ""

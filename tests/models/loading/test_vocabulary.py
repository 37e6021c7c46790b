"""What a tokenizer can read: a study's own words, and nothing that it would turn to unknown."""

from pathlib import Path

import open_clip

from interp.data.mixtures.templates import fill, prompts
from interp.models.clip import write
from interp.models.loading.presets import unreadable, write_model_folder

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

"""Plates of what patching moves: the right pictures, in the right order, on both kinds of tower."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.circuits import localise
from interp.core.illustrations import contact_sheets
from interp.core.images import ImageTable
from interp.core.sites import present
from interp.data.mixtures.templates import fill, prompts
from interp.measures.catalogue.patched_sites import (
    PATCHED,
    SIDE,
    across_domains,
    middle,
    moved,
    pictured,
)
from interp.measures.subject import Subject
from interp.models.loading.load_clip import load_clip
from interp.models.loading.presets import write_model_folder


@pytest.fixture(params=["vit-small", "resnet-small"])
def subject(request: pytest.FixtureRequest, small_images: ImageTable, tmp_path: Path) -> Subject:
    """An untrained model of either kind, with a tokenizer of the prompts' own words."""
    asked = prompts("neutral", domain="real", domains=small_images.domains)
    sentences = [fill(prompt, label) for prompt in asked for label in small_images.labels]
    words = sorted({word for sentence in sentences for word in sentence.split()})
    longest = max(len(sentence.split()) for sentence in sentences)
    folder = write_model_folder(tmp_path / "model", request.param, words=words, longest=longest)
    place = {"setting": "cg-high", "seed": 0}
    clip = load_clip(f"local-dir:{folder}")
    return Subject(clip, small_images, ("real", "sketch"), place=place)


def test_the_plate_holds_the_pairs_that_move_most_and_least(
    subject: Subject, small_images: ImageTable
) -> None:
    seen = small_images.select(split="analysis")
    pairs = across_domains(seen, domains=("real", "sketch"), n_pairs=8, seed=0)
    swept = []
    for pattern, axes in PATCHED.items():
        if present(subject.tower, [pattern]):
            swept.append(
                localise(
                    subject.tower, pairs, sites=pattern, axes=axes, classifier=subject.classifier,
                    preprocess=subject.preprocess,
                ).frame
            )  # fmt: skip
    examples = pd.concat(swept)
    (plate,) = pictured(subject, pairs, examples)
    far = moved(examples)
    order = np.argsort(-far.to_numpy(), kind="stable")
    wanted = [*order[:3], *order[-3:]]
    said = plate.caption.split("activation: ")[1].split(". From")[0].replace("; ", ", ")
    assert [word.rsplit(" ", 1)[0] for word in said.split(", ")] == [
        pairs.clean.label.iloc[place] for place in wanted
    ]
    # the pictures are those pairs', clean above corrupt, and not their neighbours
    for across, place in enumerate(wanted):
        for down, side in enumerate((pairs.clean, pairs.corrupt)):
            x = across * (SIDE + 3) + 12 * (across >= 3)
            found = plate.image.crop((x, down * (SIDE + 3), x + SIDE, down * (SIDE + 3) + SIDE))
            right = side.picture(int(place)).resize((8, 8))
            apart = np.abs(np.asarray(found.resize((8, 8)), float) - np.asarray(right, float))
            assert apart.mean() < 12
    is_vit = hasattr(subject.tower, "source") and "blocks" in middle(examples)
    assert ("where the last layer looks" in plate.caption) == is_vit
    assert "each position there alone" in plate.caption
    assert plate.image.height == (4 if is_vit else 3) * (SIDE + 3)


def test_moving_is_beyond_the_null_donor() -> None:
    rows = pd.DataFrame(
        {
            "site": ["a", "a", "b", "b"], "depth": [0.45, 0.45, 0.9, 0.9],
            "example": [0, 1, 0, 1], "value": [1.0, 1.0, 9.0, 0.0], "null": [0.9, 0.1, 0.0, 0.0],
            "corrupt_metric": 0.0,
        }
    )  # fmt: skip
    assert moved(rows).to_dict() == pytest.approx({0: 0.1, 1: 0.9})
    assert moved(rows.drop(columns="null")).to_dict() == {0: 1.0, 1: 1.0}


def test_contact_sheets_say_where_each_class_is() -> None:
    rows = [
        {"path": f"{domain}/{label}", "label": label, "domain": domain, "split": "test",
         "caption": ""}
        for domain in ("real", "sketch") for label in ("ant", "bee", "cat", "dog", "emu")
        if (domain, label) != ("sketch", "bee")
    ]  # fmt: skip
    shades = {"ant": 10, "bee": 60, "cat": 110, "dog": 160, "emu": 210}
    table = ImageTable(
        pd.DataFrame(rows), reader=lambda row: Image.new("RGB", (9, 9), (shades[row.label],) * 3)
    )
    for plate in contact_sheets(table, size=4):
        labels, columns = json.loads(plate.keys["labels"]), int(plate.keys["columns"])
        assert labels.count("") == (plate.keys["domain"] == "sketch")
        for number, label in enumerate(labels):
            shade = plate.image.getpixel((number % columns * 4 + 1, number // columns * 4 + 1))
            assert shade == ((shades[label],) * 3 if label else (255, 255, 255))

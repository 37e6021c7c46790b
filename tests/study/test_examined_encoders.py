"""One encoder without text, from the command's function to its page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from interp.core.images import ImageTable
from interp.study.examine import examine, with_pictures_to_learn_from

BRIEF = {"n_pairs": 4, "n_transplants": 4, "n_circuit_pairs": 4, "erasure": False,
         "features": False, "representation": False, "transfer": False, "pairs": "own",
         "n_permutations": 19, "n_splits": 1}  # fmt: skip
PARTS = {False: ("patching", "transplant"),
         True: ("patching", "transplant", "circuits", "edges", "das", "rungs")}  # fmt: skip


def test_nothing_is_asked_of_what_was_learned_from(small_images: ImageTable) -> None:
    every = small_images.with_frame(small_images.frame.assign(split="test"))
    images = with_pictures_to_learn_from(every, "real", seed=0)
    learned, asked = (images.frame[images.frame["split"] == each] for each in ("train", "test"))
    assert set(learned["domain"]) == {"real"} and set(asked["domain"]) >= {"real", "sketch"}
    assert set(learned["label"]) == set(asked["label"]) == set(small_images.labels)
    assert not set(learned["drawing"]) & set(asked["drawing"])
    assert not set(learned["artist"]) & set(asked["artist"])


def test_a_class_that_cannot_be_learned_is_left_out() -> None:
    rows = [
        (f"{domain}{label}{n}", label, domain, "test", "")
        for domain in ("real", "sketch")
        for label in "abc"
        for n in range(4)
        if (domain, label) != ("real", "c")
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "domain", "split", "caption"])
    images = with_pictures_to_learn_from(ImageTable(frame), "real", seed=0)
    assert images.labels == ["a", "b"]
    assert set(images.select(split="train").domain) == {"real"}
    assert len(images.select(domain="sketch")) == 8  # nobody says who drew them


@pytest.mark.slow
@pytest.mark.parametrize("wired", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_encoder_is_examined_by_the_same_call(tmp_path: Path, wired: bool) -> None:
    generator = np.random.default_rng(0)
    for domain, shade in (("photo", 0), ("sketch", 120)):
        for number, name in enumerate("abcdef"):
            folder = tmp_path / "pictures" / domain / name
            folder.mkdir(parents=True)
            for n in range(8):
                picture = generator.integers(0, 60, size=(32, 32, 3)) + shade
                picture[:, 5 * number : 5 * number + 5] += 60
                Image.fromarray(picture.astype(np.uint8)).save(folder / f"{n}.png")
    weights = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), weights)
    result = examine(
        weights, tmp_path / "pictures", tmp_path / "out", architecture="timm:test_vit",
        domains=("photo", "sketch"), analysis=BRIEF | {"circuits": wired},
    )  # fmt: skip
    assert "nearest class mean of 24 pictures in photo" in str(result.facts["specification"])
    rows = pd.read_csv(tmp_path / "out" / "tables" / "similarity.csv")
    assert {"blocks.0.hook_resid_post", "hook_embedding"} <= set(rows["site"])
    parts = {name: pd.read_csv(tmp_path / "out" / "tables" / f"{name}.csv")
             for name in PARTS[wired]}  # fmt: skip
    assert all(len(frame) for frame in parts.values())
    if wired:  # edges of the encoder's heads and MLPs
        assert parts["circuits"]["edge"].str.contains("h0").any()
        assert {"R4", "R5", "R6"} <= set(parts["rungs"]["rung"])
    accuracy = pd.read_csv(tmp_path / "out" / "tables" / "accuracy.csv")
    assert accuracy["value"].between(0, 1).all() and len(accuracy)
    assert "nearest class mean of 24 pictures in photo" in result.report().read_text()

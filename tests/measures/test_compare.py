"""Two models compared: both tables, of other architectures and picture sizes, and their profile."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from interp import compare
from interp.circuits import Chain, Classifier, planted_vit
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.measures.compare import _held_both_ways
from interp.models import load_clip, load_encoder, open_tower
from tests.measures.test_any_encoder import reads, vit

PAIR = ("real", "sketch")
BRIEF = {"n_splits": 1, "n_permutations": 19, "domains": PAIR}


@pytest.fixture(scope="module")
def pictures(small_images: ImageTable) -> ImageTable:
    return small_images.select(split="analysis")


@pytest.mark.long
@pytest.mark.slow
def test_a_model_is_the_same_as_itself(trained_checkpoint: Path, pictures: ImageTable) -> None:
    clip = load_clip(trained_checkpoint)
    found = compare(clip, clip, pictures, **BRIEF)  # type: ignore[arg-type]
    own = found.stitching.frame.query("label == '' and measure == 'stitched'")
    assert (own["value"] - own["ceiling"]).abs().max() < 0.1
    rows = found.similarity.frame
    same = rows[rows["domain_a"] == rows["domain_b"]]
    assert set(same["domain_a"]) == set(PAIR) and (same["model_b"] == "B").all()
    assert (same["low"] <= same["ceiling"]).all()
    profile = found.profile()
    assert set(profile["domain"]) == set(PAIR) and (profile["site"] == profile["site_b"]).all()
    assert len(profile) == 10
    assert rows["estimand"].str.contains("two models").all()
    missing = profile[["similarity", "A into B"]].isna().any(axis=1)
    assert (missing == (profile["reason"] != "")).all()  # a number, or why there is none


def test_models_of_other_architectures_meet_at_the_nearest_depth(
    trained_checkpoint: Path, small_images: ImageTable, pictures: ImageTable
) -> None:
    clip = load_clip(trained_checkpoint)
    other = load_encoder(vit(), preprocess=reads)
    other = other.teach(small_images.select(split="train", domain="real"))
    found = compare(clip, other, pictures, **BRIEF)  # type: ignore[arg-type]
    frame = found.stitching.frame
    assert set(frame["model_b"]) == {"A", "B"}
    met = set(zip(frame["site"], frame["site_b"], strict=True))
    assert ("layer1.0.hook_resid_post", "blocks.0.hook_resid_post") in met
    refused = frame[frame["reason"].fillna("").str.contains("as many places")]
    assert len(refused)  # a map of 12 x 12 and 17 tokens: said, and the rest goes on
    assert len(found.similarity.frame[["site", "site_b"]].drop_duplicates()) > len(met) // 2
    assert set(found.profile()["domain"]) <= set(PAIR)  # nothing that was refused


def test_heads_of_other_classes_are_refused(trained_checkpoint: Path, pictures) -> None:
    clip = load_clip(trained_checkpoint)
    with pytest.raises(SpecificationError, match="different classes"):
        heads = (clip.zero_shot(list(pictures.labels[:3])), clip.zero_shot(list(pictures.labels)))
        compare(clip, clip, pictures, heads=heads, **BRIEF)


def test_a_stitch_holds_where_it_is_shared_both_ways() -> None:
    rows = [  # A's sites are a1 and a2, B's b1 and b2
        ("B", "a1", "b1", "real", "shared"), ("A", "b1", "a1", "real", "shared"),
        ("B", "a1", "b1", "sketch", "shared"), ("A", "b1", "a1", "sketch", "partly shared"),
        ("B", "a2", "b1", "real", "shared"), ("A", "b2", "a2", "real", "shared"),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["model_b", "site", "site_b", "domain", "verdict"])
    assert _held_both_ways(frame.assign(measure="stitched")) == [("a1", "b1", "real")]
    assert _held_both_ways(frame.assign(measure="untrained")) == []


@pytest.mark.slow
def test_where_a_stitch_holds_each_model_reads_the_others_subspace() -> None:
    plain, hidden = (planted_vit("all shared", seed=1, disguised=each) for each in (False, True))
    models = [
        SimpleNamespace(
            visual=open_tower(one.source), preprocess=one.preprocess,
            zero_shot=lambda names, one=one: one.classifier,
        )
        for one in (plain, hidden)
    ]  # fmt: skip
    images = plain.pictures(12)
    how: Any = {"domains": ["A"], "sites": ["blocks.1.hook_resid_post"], "n_permutations": 19}
    found = compare(*models, images, subspaces=True, **how).subspaces
    assert found is not None and set(found.frame["model_b"]) == {"A", "B"}
    assert (found.frame["index"] > 0.8).all()
    empty = SimpleNamespace(
        visual=Chain([torch.nn.Identity()]),
        preprocess=lambda image: torch.zeros(2, 3),
        zero_shot=lambda names: Classifier(torch.eye(len(names), 3), tuple(names)),
    )
    how["sites"] = ["blocks.0.hook_resid_post"]
    assert compare(empty, empty, images, subspaces=True, **how).subspaces is None

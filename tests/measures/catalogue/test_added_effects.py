"""The linear factors of an opened model: which pictures count, and what is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interp import probes
from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE
from interp.measures.catalogue import added_effects
from interp.measures.subject import AnalysisSpec, Subject
from interp.models import load_clip

PAIR = ("real", "sketch")
BRIEF = AnalysisSpec(n_permutations=19, n_splits=1)


@pytest.fixture(scope="module")
def opened(trained_checkpoint: Path, small_images: ImageTable) -> Subject:
    held = tuple(small_images.labels[:2])
    place = {"setting": "cg-high"}
    return Subject(load_clip(trained_checkpoint), small_images, PAIR, held, BRIEF, place=place)


def test_both_tables_are_of_pictures_apart_from_tested_drawings(opened: Subject) -> None:
    frames = added_effects.measure(opened)
    assert set(frames) == {"linear_factors", "composition"}
    for frame in frames.values():
        assert set(EVIDENCE) <= set(frame.columns) and (frame["setting"] == "cg-high").all()
    apart = opened.features_apart
    assert apart is not None
    assert set(apart.frame["split"]) == {"analysis"} and set(apart.frame["domain"]) == set(PAIR)
    if "drawing" in apart.frame:
        assert not set(apart.frame["drawing"]) & set(opened.test.frame["drawing"])
    assert set(opened.held_out) <= set(apart.frame["label"])
    assert not set(opened.held_out) & set(opened.features.frame["label"])
    rows = frames["composition"]
    assert (rows["n_units"] == 2).all() and rows["domain_b"].eq("sketch").all()
    options = {"n_splits": 1, "n_permutations": 19}
    again = probes.composition(apart, PAIR, opened.held_out, **options).frame
    np.testing.assert_array_equal(again["value"], rows["value"])


def test_what_cannot_be_composed_is_left_out(opened: Subject) -> None:
    assert set(added_effects.measure(replace(opened, held_out=()))) == {"linear_factors"}
    tested = opened.images.select(split="test")
    assert set(added_effects.measure(replace(opened, images=tested))) == {"linear_factors"}
    one = replace(opened, held_out=opened.held_out[:1])
    assert "1 held-out" in added_effects.measure(one)["composition"]["reason"].item()

"""Strips of what nodes of a circuit respond to: the highest pictures of each domain, each drawing
once."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.circuits import planted_vit
from interp.core.illustrations import GAP, ROOM
from interp.measures.catalogue.circuits_within import EACH, SIDE, _most, node_strips
from interp.measures.subject import Subject
from interp.models import open_tower


class Opened:
    """What stands for a CLIP: a planted tower and its preprocessing."""

    def __init__(self) -> None:
        self.planted = planted_vit("all separate", seed=2)
        self.visual = open_tower(self.planted.source)
        self.preprocess = self.planted.preprocess


@pytest.fixture(scope="module")
def opened() -> Subject:
    clip = Opened()
    place = {"setting": "planted", "test_domain": "B", "seed": 0}
    return Subject(clip, clip.planted.pictures(6), ("A", "B"), place=place)


def circuits(*nodes: str) -> dict[str, pd.DataFrame]:
    return {"circuits": pd.DataFrame({"node": nodes[:-1], "node_b": nodes[1:]})}


def test_a_strip_for_every_node_that_is_a_head_or_channel(opened: Subject) -> None:
    [plate] = node_strips(opened, circuits("input", "a1.h0", "m2", "a3.h1", "logits"))
    assert json.loads(plate.keys["nodes"]) == ["a1.h0", "a3.h1"]
    assert (plate.keys["kind"], plate.keys["setting"]) == ("nodes", "planted")
    assert plate.image.size == (2 * EACH * (SIDE + GAP) + ROOM, 2 * (SIDE + GAP))
    assert node_strips(opened, circuits("input", "m2", "logits")) == []


def test_the_pictures_of_a_strip_are_those_that_activate_most(opened: Subject) -> None:
    images = opened.analysed
    tower: Any = opened.tower
    x = images.tensors(opened.preprocess)
    _, cache = tower.run_with_cache(x, names_filter="blocks.1.attn.hook_z")
    length = cache["blocks.1.attn.hook_z"][:, :, 0].norm(dim=-1).amax(dim=1).numpy()
    rows = np.flatnonzero((images.domain == "B").to_numpy())
    best = rows[np.argsort(-length[rows])][:EACH]
    [plate] = node_strips(opened, circuits("a1.h0", "logits"))
    for place, row in enumerate(best):
        left = EACH * (SIDE + GAP) + ROOM + place * (SIDE + GAP)
        shown = plate.image.crop((left, 0, left + SIDE, SIDE))
        right = images.picture(int(row)).resize((336, 336), 3).resize((SIDE, SIDE))
        assert np.abs(np.asarray(shown, float) - np.asarray(right, float)).mean() < 2


def test_a_drawing_stands_once_and_what_is_missing_stays_empty(opened: Subject) -> None:
    images = opened.analysed[:4]
    frame = images.frame.assign(drawing=["a", "a", "b", "c"], domain=["A", "A", "A", "B"])
    chosen = _most(images.with_frame(frame), np.array([3.0, 4.0, 1.0, 9.0]), "A")
    assert chosen == [1, 2, None]

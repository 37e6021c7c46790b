"""Steering: what is added, to whom, and what is said then; closed forms and planted models."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from interp.circuits import Chain, planted_vit
from interp.core.artists import artist_sides
from interp.core.edits.edits import site_rows
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.models import open_tower
from interp.probes import steered_answers, steering
from interp.probes.concept_erasure.steering import fit_directions
from tests.tables import image_table

LABELS = "abcdef"
SITE = "hook_embedding"


def pictures(*, artists: int = 4, labels: str = LABELS) -> ImageTable:
    """A picture of every class by every artist in two domains."""
    who = [f"artist {n}" for n in range(artists)]
    return image_table(product(labels, "xy", who), "label domain artist")


class World:
    """Six features for the classes of domain x, six for those of y (`shared`: x's for both), and a
    flag that says which domain it is; y's features are heard where the flag is up.
    """

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared

    def preprocess(self, picture: Image.Image) -> Tensor:
        about = picture.info
        label, right = LABELS.index(about["label"]), int(about["domain"] == "y")
        features = torch.zeros(1, 13)
        features[0, label + (0 if self.shared else 6 * right)] = 1.0
        features[0, :12] += 0.01 * int(about["artist"][-1])
        features[0, 12] = right
        return features

    def classifier(self, x: Tensor) -> Tensor:
        features, right = x.flatten(1)[:, :12], x.flatten(1)[:, 12:]
        if self.shared:
            return features[:, :6]
        return features[:, :6] * (1 - right) + features[:, 6:] * right

    def words(self) -> dict[str, Any]:
        return {
            "preprocess": self.preprocess,
            "classifier": self.classifier,
            "class_names": list(LABELS),
        }


def steered(world: World, **options: Any) -> pd.DataFrame:
    tower = Chain([torch.nn.Identity()])
    return steering(tower, pictures(), SITE, **world.words(), **options).frame


def test_a_shared_direction_works_in_both_domains_and_a_private_one_in_its_own() -> None:
    shared = steered(World(shared=True), doses=(0.0, 2.0)).set_index(
        ["domain_a", "domain_b", "dose"]
    )
    assert (shared["value"].xs(2.0, level="dose") == 1).all()
    assert (shared["value"].xs(0.0, level="dose") == 0).all()
    assert (shared["null"] == 0).all()
    apart = steered(World(shared=False), doses=(2.0,)).set_index(["domain_a", "domain_b"])
    assert apart.loc[("x", "x"), "value"] == apart.loc[("y", "y"), "value"] == 1
    assert apart.loc[("x", "y"), "value"] == apart.loc[("y", "x"), "value"] == 0
    assert apart["ceiling"].eq(1).all()
    assert apart.loc[("x", "x"), "p"] < 0.05


def test_every_row_has_its_evidence() -> None:
    table = steering(Chain([torch.nn.Identity()]), pictures(), SITE, **World(shared=True).words())
    rows = table.frame
    assert len(rows) == 2 * 2 * 5 and (rows["unit"] == "class").all()
    # pictures by the other half of the artists alone
    assert (rows["n_pictures"] == len(LABELS) * 2).all()
    assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()


def test_directions_are_a_class_less_the_mean_of_the_others_by_the_first_half() -> None:
    world, tower, images = World(shared=False), Chain([torch.nn.Identity()]), pictures()
    fitted = fit_directions(tower, images, SITE, ["x", "y"], **world.words())
    first = images[artist_sides(images.frame) == 0]
    features = site_rows(tower, first, SITE, preprocess=world.preprocess).mean(dim=1).numpy()
    for domain in "xy":
        here = (first.domain == domain).to_numpy()
        means = {
            label: features[here & (first.label == label).to_numpy()].mean(axis=0)
            for label in LABELS
        }
        others = np.mean([means[label] for label in LABELS if label != "c"], axis=0)
        found = fitted.by_domain[domain][fitted.labels.index("c")]
        np.testing.assert_allclose(found, means["c"] - others, atol=1e-6)


def test_the_edit_moves_each_picture_to_its_own_class() -> None:
    world, images = World(shared=True), pictures()
    fitted = fit_directions(Chain([torch.nn.Identity()]), images, SITE, ["x"], **world.words())
    edit = fitted.added("x", ["b", "e", "a"], 3.0)
    moved = edit(torch.zeros(2, 1, 13), np.array([1, 2]))
    rows = fitted.by_domain["x"]
    np.testing.assert_allclose(moved[0, 0], 3 * rows[4], atol=1e-5)
    np.testing.assert_allclose(moved[1, 0], 3 * rows[0], atol=1e-5)


def test_planted_classes_are_turned_up_where_they_are_read() -> None:
    planted = planted_vit("all shared", seed=1)
    rows = steering(
        open_tower(planted.source), planted.pictures(6), "blocks.2.hook_resid_post",
        preprocess=planted.preprocess, classifier=planted.classifier, pool="class",
        class_names=list(planted.classifier.names), doses=(0.0, 2.0),
    ).frame  # fmt: skip
    assert (rows[rows["dose"] == 2]["value"] == 1).all()
    assert (rows[rows["dose"] == 0]["value"] == 0).all()


def test_answers_add_up_and_begin_with_the_class_that_is_turned_up() -> None:
    world = World(shared=True)
    rows = steered_answers(
        Chain([torch.nn.Identity()]), pictures(), SITE, ["b"], fitted_in="x", doses=(0.0, 2.0),
        most=3, **world.words(),
    )  # fmt: skip
    assert rows.groupby(["domain", "dose"])["share"].sum().round(9).eq(1).all()
    per_view = rows.groupby(["domain", "dose"])["answer"].agg(list)
    assert all(each[0] == "b" and each[-1] == "others" for each in per_view)
    assert per_view.map(tuple).nunique() == 1  # the same bars in both domains, at every dose
    assert rows[(rows["dose"] == 2) & (rows["answer"] == "b")]["share"].eq(1).all()
    assert set(rows["n_pictures"]) == {10}


def test_what_cannot_be_steered_is_said() -> None:
    world, tower = World(shared=True), Chain([torch.nn.Identity()])
    with pytest.raises(SpecificationError, match="no doses"):
        steering(tower, pictures(), SITE, doses=(), **world.words())
    with pytest.raises(SampleError, match="three or more"):
        steering(tower, pictures(labels="ab"), SITE, **world.words())
    with pytest.raises(DataError, match="domain"):
        steering(tower, pictures(), SITE, domains=["x", "z"], **world.words())
    with pytest.raises(DataError, match="class"):
        steered_answers(tower, pictures(), SITE, ["g"], fitted_in="x", **world.words())


class TestHeldOutClasses:
    def test_what_is_steered_to_seen_ones_is_as_without_them(self) -> None:
        world, tower, held = World(shared=True), Chain([torch.nn.Identity()]), ["e", "f"]
        images = pictures()
        seen = images[~images.label.isin(held).to_numpy()]
        alone = steering(tower, seen, SITE, **world.words()).frame
        both = steering(tower, images, SITE, held_out=held, **world.words()).frame
        assert set(alone["class_set"]) == {"seen"} and len(both) == 2 * len(alone)
        own = both[both["class_set"] == "seen"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone)
        others = both[both["class_set"] == "held-out"]
        assert (others["n_units"] == 2).all() and (others["n_pictures"] == 4 * 2).all()

    def test_their_direction_is_less_the_mean_of_the_seen_ones(self) -> None:
        world, tower, images = World(shared=False), Chain([torch.nn.Identity()]), pictures()
        fitted = fit_directions(tower, images, SITE, ["x"], held_out=["e", "f"], **world.words())
        assert list(fitted.seen) == list("abcd") and list(fitted.labels) == list(LABELS)
        expected = torch.zeros(13)
        expected[:4], expected[4] = -0.5, 2.0  # the block adds the stream to itself
        np.testing.assert_allclose(fitted.by_domain["x"][4], expected, atol=1e-6)

    def test_a_class_that_a_domain_keeps_down_does_not_come_by_its_direction(self) -> None:
        """In domain y four logits are raised by three: a dose of 2 is too little there."""
        world, raised = World(shared=True), torch.tensor([3.0] * 4 + [0.0] * 2)
        words = world.words() | {
            "classifier": lambda x: world.classifier(x) + raised * x.flatten(1)[:, 12:]
        }
        rows = steering(
            Chain([torch.nn.Identity()]),
            pictures(),
            SITE,
            held_out=["e", "f"],
            doses=(2.0,),
            **words,
        ).frame
        found = rows.set_index(["class_set", "domain_a", "domain_b"])["value"]
        assert (
            found["seen", "x", "y"] == found["seen", "x", "x"] == found["held-out", "x", "x"] == 1
        )
        assert found["held-out", "x", "y"] == 0

    def test_one_alone_has_no_other_to_be_drawn(self) -> None:
        rows = steered(World(shared=True), held_out=["f"])
        assert set(rows["class_set"]) == {"seen"}
        with pytest.raises(DataError, match="'z'"):
            steered(World(shared=True), held_out=["z"])

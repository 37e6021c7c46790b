"""Units chosen from circuits whose parts are planted, and shown on pictures that did not choose."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.circuits import ClassCircuits, Units, class_circuits
from interp.circuits.planted.vit import Planted, planted_vit
from interp.circuits.sharing import by_site as choosing
from interp.circuits.sharing.by_site import BOTH, DRAWN, serves_more, serving_units, strength
from interp.core.artists import artist_sides
from interp.core.errors import SampleError
from interp.core.illustrations import GAP, HEAD, ROOM
from interp.core.images import ImageTable
from interp.measures import unit_galleries as module
from interp.measures.subject import Subject
from interp.measures.unit_galleries import SIDE, gallery_of_others, plate_of_units, unit_rows
from interp.models.towers.vit import HookedViT
from interp.probes import Gallery

pytestmark = pytest.mark.slow

SITE = "blocks.2.mlp.hook_post"


class Looked(NamedTuple):
    name: str
    planted: Planted
    images: ImageTable
    found: list[ClassCircuits]
    units: pd.DataFrame
    shown: Gallery
    told: pd.DataFrame


def looked_at(name: str) -> Looked:
    planted = planted_vit(name, seed=4)
    tower, images = HookedViT(planted.source), planted.pictures(12)
    x = planted.preprocess(images.picture(0))[None]
    cut = Units.of(tower, "blocks.*.mlp.hook_post", x, axis="d_mlp")
    words = {"preprocess": planted.preprocess}
    found = [
        class_circuits(cut, images, domain=domain, classifier=planted.classifier, n=6, **words)
        for domain in "AB"
    ]
    units = serving_units(*found, SITE)
    shown = gallery_of_others(tower, images, SITE, ["A", "B"], **words)
    return Looked(name, planted, images, found, units, shown, unit_rows(shown, units))


@pytest.fixture(scope="module", params=["all shared", "all separate"])
def looked(request: pytest.FixtureRequest) -> Looked:
    return looked_at(request.param)


def true(looked: Looked, domain: str, block: int) -> set[int]:
    return {unit for layer, unit in looked.planted.truth(domain).neurons if layer == block}


def test_roles_are_those_that_were_planted(looked: Looked) -> None:
    """Separate circuits have their second step in block 2 for A, in block 1 for B."""
    unit = looked.units.set_index("role")["feature"]
    assert unit.index.tolist() == [BOTH, serves_more("A"), serves_more("B"), DRAWN]
    assert unit.is_unique
    if looked.name == "all shared":
        assert unit[BOTH] in true(looked, "A", 2) & true(looked, "B", 2)
        return
    assert unit[serves_more("A")] in true(looked, "A", 2) - true(looked, "B", 2)
    other = serving_units(*looked.found, "blocks.1.mlp.hook_post").set_index("role")["feature"]
    assert other[serves_more("B")] in true(looked, "B", 1) - true(looked, "A", 1)


def test_strength_is_a_share_of_what_all_units_do_in_the_half_that_chooses(looked: Looked) -> None:
    found = looked.found[0].only([SITE])
    labels = found.halves[0].pairs.clean.label.to_numpy()
    for label, row in strength(looked.found[0], SITE).iterrows():
        mean = found.values[0][labels == label].mean(axis=0)
        np.testing.assert_allclose(row, mean / np.abs(mean).sum(), rtol=1e-6)


def test_both_is_the_lesser_of_two_and_more_is_what_is_beyond_the_other(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "A": pd.DataFrame([[0.95, 0.5, 0.1, -0.4, 0.7]], index=["cat"]),
        "B": pd.DataFrame([[0.0, 0.4, 0.1, 0.6, -0.4], [0, 0, 0, 0, 0.9]], index=["cat", "dog"]),
    }
    monkeypatch.setattr(choosing, "strength", lambda found, site: told[found.domain])
    units = serving_units(*looked.found, SITE).set_index("role")
    assert units["feature"].drop(DRAWN).tolist() == [1, 0, 3]  # dog is told in B alone: left out
    assert (units["chosen_for"].drop(DRAWN) == "cat").all()
    assert units.loc[DRAWN, "feature"] in (2, 4) and units.loc[DRAWN, "chosen_for"] == ""


@pytest.mark.parametrize(
    ("of_a", "of_b"),
    [
        (np.ones((1, 5)), np.zeros((0, 5))),  # no class is told in both
        (np.ones((1, 3)), np.ones((1, 3))),  # nobody is left to be drawn
    ],
)
def test_what_cannot_be_chosen_is_said(
    looked: Looked, monkeypatch: pytest.MonkeyPatch, of_a: np.ndarray, of_b: np.ndarray
) -> None:
    told = {"A": pd.DataFrame(of_a), "B": pd.DataFrame(of_b)}
    monkeypatch.setattr(choosing, "strength", lambda found, site: told[found.domain])
    with pytest.raises(SampleError, match="choose units of"):
        serving_units(*looked.found, SITE)


def test_a_model_is_looked_at_where_its_circuits_are_cut(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = looked.planted
    subject = Subject.of_tower(
        HookedViT(planted.source), looked.images, domains=("A", "B"),
        classifier=planted.classifier, preprocess=planted.preprocess,
    )  # fmt: skip
    circuits = dict(zip("AB", looked.found, strict=True))
    monkeypatch.setattr(module, "circuits_of", lambda subject, domain, cut: circuits[domain])
    rows = module.unit_galleries(subject)["unit_galleries"]
    assert set(rows["site"]) == {"blocks.1.mlp.hook_post"}  # nearest to half depth
    assert set(rows["role"]) == set(looked.units["role"]) and (rows["reason"] == "").any()

    def fail(*given: object) -> ClassCircuits:
        raise SampleError("find circuits", "2 classes", "four", "add some")

    monkeypatch.setattr(module, "circuits_of", fail)
    rows = module.unit_galleries(subject)["unit_galleries"]
    assert "2 classes" in rows["reason"].item() and "role" not in rows


def test_galleries_are_of_pictures_that_chose_no_unit(looked: Looked) -> None:
    sides = artist_sides(looked.images.frame)
    shown = set(looked.shown.images.path)
    assert shown == set(looked.images[sides == 1].select(domain=["A", "B"]).path)
    for found in looked.found:
        for side in (found.halves[0].pairs.clean, found.halves[0].pairs.corrupt):
            assert not shown & set(side.frame["path"])


def test_a_unit_tells_the_class_that_it_was_chosen_for(looked: Looked) -> None:
    told = looked.told.query("measure == 'class selectivity' and domain_a == domain_b")
    role, domains = (BOTH, "AB") if looked.name == "all shared" else (serves_more("A"), "A")
    mine = told[(told["role"] == role) & told["domain_a"].isin(list(domains))]
    assert len(mine) == len(domains)
    assert (mine["label"] == mine["chosen_for"]).all() and (mine["p"] < 0.05).all()


def test_units_are_named_where_there_are_pictures_enough(looked: Looked) -> None:
    assert "name" not in set(looked.told["measure"])
    words = {"preprocess": looked.planted.preprocess}
    tower, more = HookedViT(looked.planted.source), looked.planted.pictures(60)
    told = unit_rows(gallery_of_others(tower, more, SITE, "AB", **words), looked.units)
    named = told[(told["measure"] == "name") & (told["domain"] == "A")].set_index("role")
    assert named.index.tolist() == looked.units["role"].tolist()
    role = BOTH if looked.name == "all shared" else serves_more("A")
    assert named.loc[role, "word"] == named.loc[role, "verdict"] == named.loc[role, "chosen_for"]


def test_the_plate_holds_what_the_gallery_shows(looked: Looked) -> None:
    plate = plate_of_units(looked.shown, looked.told, "the model", {"setting": "a, b"})
    strips = [(unit, domain) for unit in looked.units["feature"] for domain in "AB"]
    for down, (unit, domain) in enumerate(strips):
        rows = looked.shown.shown(int(unit), domain)["row"]
        top = down * (SIDE + GAP) + down // 2 * ROOM + (down // 2 + 1) * HEAD
        for across, row in enumerate(rows):
            left = across * (SIDE + GAP)
            drawn = plate.image.crop((left, top, left + SIDE, top + SIDE))
            wanted = looked.shown.picture(int(row), int(unit), side=SIDE).resize((SIDE, SIDE))
            np.testing.assert_array_equal(np.asarray(drawn), np.asarray(wanted))
    assert isinstance(plate.image, Image.Image)
    for row in looked.units.itertuples():
        assert f"Unit {row.feature} {row.role}" in plate.caption
    assert "n = 2 artists" in plate.caption and plate.keys["kind"] == "units"

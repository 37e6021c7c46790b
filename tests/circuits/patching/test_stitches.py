"""Stitches: plain loops, models that are one another in disguise, and what a model does not see."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from interp.circuits import Chain, Classifier, Controls, planted_vit, stitch
from interp.circuits.patching.linear_maps import RIDGES, StitchSource, as_before, places_last
from interp.circuits.patching.stitch import StitchedRuns
from interp.core.artists import artist_halves
from interp.core.classifiers import LinearClassifier
from interp.core.errors import SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE
from interp.models import open_tower
from tests.circuits.conftest import Function
from tests.refusals import refuses
from tests.tables import image_table

SITE = "blocks.0.hook_resid_post"
COLOURS = {"red": (9, 0, 0), "lime": (0, 9, 0), "blue": (0, 0, 9), "white": (9, 9, 9)}
HEAD = Classifier(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), tuple(COLOURS))


def pictures(n: int = 6) -> ImageTable:
    """Colours in two domains; a picture knows what it is."""
    artists = [f"artist {artist}" for artist in range(n)]
    return image_table(product(("bright", "dim"), COLOURS, artists), "domain label artist")


def sees(images: ImageTable, turn: Tensor, noise: float = 0.3, seed: int = 0) -> Any:
    """A model that sees each picture's colour in coordinates of its own."""
    generator = np.random.default_rng(seed)
    shown = {
        path: torch.tensor(COLOURS[label]) + noise * torch.from_numpy(generator.normal(size=3))
        for path, label in zip(images.frame["path"], images.label, strict=True)
    }

    def read(image: Any) -> Tensor:
        return (turn.double() @ shown[image.info["path"]].double())[None]

    return SimpleNamespace(visual=Chain([nn.Identity()]), preprocess=read)


def rows(table: Any, **where: str) -> pd.DataFrame:
    frame = table.frame[table.frame["label"] == where.pop("label", "")]
    for name, value in where.items():
        frame = frame[frame[name] == value]
    return frame.set_index(["domain", "measure"])


TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double())[0]


def double(head: Classifier, turn: Tensor) -> Classifier:
    return Classifier(head.embeddings.double() @ turn.T.double(), head.names)


def nearest_colours() -> tuple[LinearClassifier, LinearClassifier]:
    """Classes as the nearest colour, in plain coordinates and turned."""
    means = torch.tensor(list(COLOURS.values())).double()
    plain, turned = (
        LinearClassifier(means @ turn.T, HEAD.names, bias=-(means**2).sum(dim=1) / 2)
        for turn in (torch.eye(3).double(), TURN)
    )
    return plain, turned


def test_what_is_the_same_in_other_coordinates_is_shared() -> None:
    images = pictures()
    a, b = sees(images, torch.eye(3)), sees(images, TURN)
    heads = (double(HEAD, torch.eye(3)), double(HEAD, TURN))
    table = stitch(a, b, images, sites=[SITE], heads=heads)
    assert set(EVIDENCE) <= set(table.frame.columns)
    own = rows(table)
    for domain in ("bright", "dim"):
        assert own.loc[(domain, "stitched"), "value"] == own.loc[(domain, "stitched"), "ceiling"]
        assert own.loc[(domain, "there and back"), "index"] == pytest.approx(1)
        assert own.loc[(domain, "pictures shuffled"), "value"] < 0.6
        assert own.loc[(domain, "classes exchanged"), "value"] > 0.9  # colours lie apart
    by_class = table.frame[table.frame["label"] != ""]
    assert len(by_class) == 8 and (by_class["value"] == 1).all() and by_class["low"].isna().all()


def test_what_a_model_does_not_see_no_map_gives_it() -> None:
    """A sees red alone: red and white are one to it, and so are lime and blue."""
    images = pictures()
    blind = sees(images, torch.diag(torch.tensor([1.0, 0.0, 0.0])))
    b, dark = sees(images, TURN), sees(images, torch.zeros(3, 3))
    own = rows(
        stitch(blind, b, images, sites=[SITE], heads=nearest_colours(), controls=Controls(dark))
    )
    for domain in ("bright", "dim"):
        row = own.loc[(domain, "stitched")]
        assert 0.2 < row["value"] < 0.8 and row["ceiling"] > 0.95
        assert row["null"] == own.loc[(domain, "untrained"), "value"] == 0.25
        assert row["null_kind"] == "activations of the model before training"


def test_the_ceiling_is_what_another_seed_gives() -> None:
    """B goes on from a twin as blind as A: all that can be asked for, though B itself sees all."""
    images = pictures()
    red = torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    blind, twin = sees(images, red, seed=1), sees(images, red, seed=2)
    b, dark = sees(images, TURN), sees(images, torch.zeros(3, 3))
    how: Any = {"sites": [SITE], "heads": nearest_colours()}
    own = rows(stitch(blind, b, images, **how, controls=Controls(dark, [twin])))
    for domain in ("bright", "dim"):
        row, other = own.loc[(domain, "stitched")], own.loc[(domain, "another seed")]
        assert row["ceiling"] == other["value"] < 0.8 < other["ceiling"]
        assert row["ceiling_kind"] == "accuracy of B that goes on from another seed of its mixture"
        assert own.loc[(domain, "there and back"), "ceiling_kind"] == "accuracy of A itself"
    both = rows(stitch(blind, b, images, **how, controls=Controls(dark, [twin, b])))
    one, itself = (own.loc[("dim", "another seed"), name] for name in ("value", "ceiling"))
    assert both.loc[("dim", "stitched"), "ceiling"] == pytest.approx((one + itself) / 2)
    swapped = rows(stitch(twin, b, images, **how, controls=Controls(dark, [blind])))
    assert swapped["value"]["bright", "stitched"] == own["value"]["bright", "another seed"]


def test_a_control_is_read_where_its_model_is() -> None:
    """What stands for A untrained is read at A's site, another seed of B at B's."""
    beside = Controls(sees(pictures(), TURN), [sees(pictures(), TURN)] * 2).models
    model = SimpleNamespace(visual=None, preprocess=None)
    runs = StitchedRuns(
        model, model, beside, (HEAD, HEAD), pictures(), np.zeros(48), (), batch_size=1, seed=0
    )
    sites = [(name, site) for name, _, site in runs._others("at a", "at b")]
    assert sites == [
        ("untrained 0", "at a"),
        ("another seed 0", "at b"),
        ("another seed 1", "at b"),
    ]


def test_accuracy_is_that_of_plain_loops() -> None:
    images = pictures()
    a, b = sees(images, TURN, noise=5, seed=1), sees(images, torch.eye(3), noise=5, seed=2)
    heads = (double(HEAD, TURN), double(HEAD, torch.eye(3)))
    own = rows(stitch(a, b, images, sites=[SITE], heads=heads))
    deal = artist_halves(images.frame, ["bright", "dim"])
    xs, ys = (
        [m.preprocess(images.picture(n))[0].numpy() for n in range(len(images))] for m in (a, b)
    )
    right: dict[tuple[str, str], list[bool]] = {}
    for half in (0, 1):
        x, y = (np.array(each)[deal == half] for each in (xs, ys))
        weight = plainly_fitted(x[:, None], y[:, None])[0]
        for n in np.flatnonzero(deal == 1 - half):
            mapped = (xs[n] - x.mean(0)) @ weight + y.mean(0)
            names = heads[1].predict(torch.from_numpy(mapped)[None])
            place = images.domain.iloc[n], images.label.iloc[n]
            right.setdefault(place, []).append(names[0] == place[1])
    for domain in ("bright", "dim"):
        slow = np.mean([np.mean(right[domain, name]) for name in COLOURS])
        assert own.loc[(domain, "stitched"), "value"] == pytest.approx(slow)
        assert 0.4 < slow < 1


def test_a_disguised_transformer_is_stitched_to_itself_and_later_layers_to_anything() -> None:
    plain, hidden = (planted_vit("all shared", seed=1, disguised=each) for each in (False, True))
    models = [
        SimpleNamespace(visual=open_tower(one.source), preprocess=one.preprocess)
        for one in (plain, hidden)
    ]
    sites = [f"blocks.{n}.hook_resid_post" for n in (0, 2)]
    table = stitch(
        *models, plain.pictures(8), sites=sites, heads=(plain.classifier, hidden.classifier)
    )
    frame = table.frame[table.frame["label"] == ""].set_index(["site", "domain", "measure"])
    for domain in ("A", "B"):
        for site in sites:
            assert frame.loc[(site, domain, "stitched"), "verdict"] == "shared"
            assert frame.loc[(site, domain, "there and back"), "value"] > 0.95
        exchanged = [frame.loc[(site, domain, "classes exchanged"), "value"] for site in sites]
        assert exchanged[0] < 0.5 < 0.9 < exchanged[1]


def test_places_go_back_where_they_were() -> None:
    x = torch.randn(2, 3, 4, 5)
    for axes in (("batch", "channel", "row", "column"), ("batch", "pos", "head", "d_head")):
        torch.testing.assert_close(as_before(places_last(x, axes), x, axes), x)
    y = torch.randn(2, 7)
    flat = places_last(y, ("batch", "d_embed"))
    torch.testing.assert_close(as_before(flat, y, ("batch", "d_embed")), y)


def plainly_fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """The map from "picture place feature" rows, and its ridge, by one inverse after another."""
    a, b = x - x.mean(axis=(0, 1)), y - y.mean(axis=(0, 1))

    def solved(some: np.ndarray, ridge: float) -> np.ndarray:
        rows, wanted = (each[some].reshape(-1, each.shape[-1]) for each in (a, b))
        gram = rows.T @ rows
        eye = np.trace(gram) / len(gram) * np.eye(len(gram))
        return np.linalg.inv(gram + ridge * eye) @ rows.T @ wanted

    number = np.arange(len(x))
    errors = [
        sum(
            (
                (
                    a[number % 4 == fold] @ solved(number[number % 4 != fold], ridge)
                    - b[number % 4 == fold]
                )
                ** 2
            ).sum()
            for fold in range(4)
        )
        for ridge in RIDGES
    ]
    ridge = RIDGES[int(np.argmin(errors))]
    return solved(number, ridge), ridge


@pytest.mark.parametrize("noise", [0.01, 1, 10])
def test_the_ridge_is_the_one_that_errs_least_on_other_pictures(noise: float) -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(22, 2, 12)) * np.linspace(0.1, 3, 12)
    y = x @ generator.normal(size=(12, 5)) + noise * generator.normal(size=(22, 2, 5)) + 4
    slow, ridge = plainly_fitted(x, y)
    found = StitchSource(torch.from_numpy(x)).fit(torch.from_numpy(y))
    np.testing.assert_allclose(found.weight, slow, rtol=1e-6, atol=1e-9)
    assert (ridge > 1e-4) == (noise > 0.1)
    torch.testing.assert_close(
        found(torch.from_numpy(x)).mean(dim=(0, 1)), torch.from_numpy(y.mean(axis=(0, 1)))
    )


def test_as_many_features_as_pictures_are_no_obstacle() -> None:
    """Where both are as many, least squares alone maps to noise."""
    generator = np.random.default_rng(2)
    shown = generator.normal(size=(80, 1, 6))
    x = shown @ generator.normal(size=(6, 60)) + generator.normal(size=(80, 1, 60))
    y = shown @ generator.normal(size=(6, 8))
    found = StitchSource(torch.from_numpy(x[:60])).fit(torch.from_numpy(y[:60]))
    own = found(torch.from_numpy(x[60:])).numpy()
    centred = x[:60, 0] - x[:60].mean(0), y[:60, 0] - y[:60].mean(0)
    naive = np.linalg.lstsq(*centred, rcond=None)[0]
    bare = (x[60:, 0] - x[:60].mean(0)) @ naive + y[:60].mean(0)
    scale = y[60:].var()
    errors = [((each - y[60:, 0]) ** 2).mean() / scale for each in (own[:, 0], bare)]
    assert errors[0] < 0.35 and errors[1] > 3 * errors[0]


def seen_at(size: int) -> Any:
    tower = Chain([nn.Identity()], pool=Function(means), axes=("batch", "channel", "row", "column"))

    def read(image: Any) -> Tensor:
        colour = torch.tensor(COLOURS[image.info["label"]]).double()
        return colour[:, None, None].expand(3, size, size).clone()

    return SimpleNamespace(visual=tower, preprocess=read)


def means(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def first_place(x: Tensor) -> Tensor:
    return x[:, 0]


def test_maps_of_other_sizes_are_resized_and_other_places_are_refused() -> None:
    images = pictures()
    heads = (double(HEAD, torch.eye(3)),) * 2
    own = rows(stitch(seen_at(4), seen_at(6), images, sites=[SITE], heads=heads))
    assert (own.xs("stitched", level="measure")["value"] == 1).all()
    assert "there and back" not in own.index.get_level_values("measure")
    tokens = [
        SimpleNamespace(
            visual=Chain(
                [nn.Identity()], axes=("batch", "pos", "d_model"), pool=Function(first_place)
            ),
            preprocess=lambda image, n=n: torch.ones(n, 3).double(),
        )
        for n in (2, 3)
    ]
    frame = stitch(*tokens, images, sites=[SITE], heads=heads).frame
    assert "right would be as many places" in frame["reason"].item()


def test_what_cannot_be_stitched_is_said() -> None:
    images = pictures()
    a, heads = sees(images, torch.eye(3)), (double(HEAD, torch.eye(3)),) * 2
    other = Classifier(HEAD.embeddings[:3].double(), HEAD.names[:3])
    with pytest.raises(SpecificationError, match="different classes"):
        stitch(a, a, images, sites=[SITE], heads=(heads[0], other))
    few = images.select(label=["red", "lime"])
    refuses(SampleError, "2 classes", stitch, a, a, few, sites=[SITE], heads=heads)

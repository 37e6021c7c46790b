"""Subspaces carried from one model to another: disguised twins, blind models, plain loops."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.circuits import Chain, Classifier, das_between, interchange, planted_vit
from interp.circuits.subspaces.das_between import _mapped, _Shown, _stitches
from interp.circuits.subspaces.interchanges import DasTask, hold_out
from interp.circuits.tasks.metrics import measure
from interp.core.errors import SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.models import open_tower
from tests.tables import image_table

CLASSES = tuple("abcdef")
PLAIN, TURN = torch.linalg.qr(torch.randn(2, 24, 24, generator=torch.Generator().manual_seed(3)))[0]
HOW: Any = {"domain": "real", "site": "hook_embed", "n": 48, "steps": 12, "class_free": ()}


def pictures(n: int = 8) -> ImageTable:
    """Pictures that know their class and artist."""
    artists = [f"artist {artist}" for artist in range(n)]
    return image_table(product(CLASSES, artists), "label artist")


def sees(turn: Tensor, classes: int = 6) -> Any:
    """A model with a direction for each of some classes, and many for what differs otherwise."""

    def read(image: Any) -> Tensor:
        number, artist = CLASSES.index(image.info["label"]), int(image.info["artist"].split()[1])
        noise = np.random.default_rng([number, artist]).normal(size=24)
        shown = torch.eye(24)[number] * (number < classes)
        spread = torch.tensor([0.05] * 6 + [0.5] * 18)
        return (turn @ (shown + spread * torch.from_numpy(noise).float()))[None]

    return SimpleNamespace(visual=Chain([nn.Identity()]), preprocess=read)


def head(turn: Tensor) -> Classifier:
    return Classifier(turn[:, :6].T.contiguous(), CLASSES)


def test_the_same_model_in_other_coordinates_takes_over_the_variable() -> None:
    found = das_between(
        sees(PLAIN), sees(TURN), pictures(), heads=(head(PLAIN), head(TURN)), k=3, **HOW
    )
    assert found.frame["model_b"].tolist() == ["B", "A"]
    assert (found.frame["index"] > 0.95).all() and (found.frame["k"] == 3).all()
    assert (found.frame["value"] > 3 * found.frame["random"]).all()
    assert (found.frame["value"] > 3 * found.frame["shuffled"]).all()
    assert found.facts["classes"] == sorted(CLASSES)
    assert (found.frame["n_units"] == 6).all()
    # fitted on one half of the artists, tested on the other: every picture has its part
    assert (found.frame["n_pictures"] > 24).all()


def test_what_a_model_does_not_see_its_variable_does_not_carry() -> None:
    """A tells two of six classes: what it knows moves B part of the way."""
    blind = sees(PLAIN, classes=2)
    whole = das_between(
        sees(TURN), sees(PLAIN), pictures(), heads=(head(TURN), head(PLAIN)), k=3, **HOW
    )
    part = das_between(blind, sees(PLAIN), pictures(), heads=(head(PLAIN), head(PLAIN)), k=3, **HOW)
    into_b = [found.frame.set_index("model_b").loc["B"] for found in (whole, part)]
    assert into_b[0]["value"] > into_b[1]["value"] and not into_b[1]["verdict"] == "shared"


def test_the_value_is_that_of_a_plain_interchange() -> None:
    """The map by least squares, the basis by hand, each receiver run alone."""
    images, models = pictures(), (sees(PLAIN), sees(TURN))
    heads = (head(PLAIN), head(TURN))
    table = das_between(*models, images, heads=heads, k=3, **HOW)
    held = hold_out(images, ["real"], classes=sorted(CLASSES), n=48)
    ends = [
        _Shown.of(
            m.visual,
            "hook_embed",
            held,
            "real",
            DasTask(classifier=h, preprocess=m.preprocess, k=3, steps=12, class_free=()),
        ).fitted("real", 3)
        for m, h in zip(models, heads, strict=True)
    ]
    rows = held.fitted["real"]
    x, y = (
        np.stack([m.preprocess(held.images.picture(int(n)))[0].numpy() for n in rows])
        for m in models
    )
    centred = x - x.mean(0), y - y.mean(0)
    weight = np.linalg.lstsq(centred[0], centred[1], rcond=1e-5)[0]
    own = ends[0].fitted.first(3)["real"][0].basis.numpy()
    basis = np.linalg.qr(weight.T @ own)[0]
    like = ends[1].fitted.first(3)["real"][0]
    mapped = _mapped(ends[0].fitted.first(3)["real"][0], _stitches(*ends, 0)[0], like)
    np.testing.assert_allclose(
        mapped.basis @ mapped.basis.T, basis @ basis.T, atol=1e-4
    )  # the same plane
    shown, plane = ends[1].shown, like.with_basis(torch.from_numpy(basis))
    outputs = torch.cat(
        [
            interchange(models[1].visual, plane, base=base[None], source=donor[None])
            for base, donor in zip(shown.base, shown.donor, strict=True)
        ]
    )
    moved = measure(shown.metric, outputs).double().numpy() - shown.before
    labels = held.tested["real"].rows["label"].to_numpy()
    slow = np.mean([moved[labels == name].mean() for name in sorted(set(labels))])
    assert table.frame["value"].iloc[0] == pytest.approx(slow, rel=1e-3)


@pytest.mark.slow
def test_a_disguised_transformer_reads_the_variable_of_the_plain_one() -> None:
    plain, hidden = (planted_vit("all shared", seed=1, disguised=each) for each in (False, True))
    models = [
        SimpleNamespace(visual=open_tower(one.source), preprocess=one.preprocess)
        for one in (plain, hidden)
    ]
    found = das_between(
        *models,
        plain.pictures(12),
        domain="A",
        site="blocks.1.hook_resid_post",
        heads=(plain.classifier, hidden.classifier),
        n=64,
        class_free=("shuffled pixels",),
    ).frame
    assert (found["index"] > 0.8).all()


def test_what_cannot_be_asked_is_refused() -> None:
    model = sees(PLAIN)
    other = Classifier(head(PLAIN).embeddings, CLASSES[::-1])
    with pytest.raises(SpecificationError, match="heads of different classes"):
        das_between(model, model, pictures(), heads=(head(PLAIN), other), **HOW)
    with pytest.raises(SampleError, match="artists"):
        das_between(model, model, pictures(1), heads=(head(PLAIN), head(PLAIN)), **HOW)


def test_models_of_other_widths_are_compared_at_one_size() -> None:
    """B has but six directions, so at most three are compared; all of them compare nothing."""
    narrow = torch.eye(24)[:6]
    models, heads = (sees(PLAIN), sees(narrow)), (head(PLAIN), head(narrow))
    found = das_between(*models, pictures(), heads=heads, **HOW).frame
    assert (found["k"] <= 3).all() and found["k"].nunique() == 1
    into_b = found.set_index("model_b").loc["B"]
    assert into_b["value"] == pytest.approx(into_b["ceiling"], rel=0.15)
    assert into_b["in_domain"] > 0 and into_b["whole"] >= into_b["ceiling"] - 1e-6
    assert into_b["shuffled"] < into_b["whole"] and into_b["varied"] <= into_b["whole"] + 1e-6
    whole = das_between(*models, pictures(), heads=heads, k=6, **HOW).frame.set_index("model_b")
    assert whole.loc["B", "verdict"] == "unknown"
    assert "all directions of the site" in whole.loc["B", "reason"]

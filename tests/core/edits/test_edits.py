"""Edits of a site on a tower whose every answer is known, and what dictionaries leave of it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp import errors
from interp.circuits import Chain
from interp.core.edits.edits import AS_IT_IS, edited, edited_answers, site_rows
from interp.core.tables import EVIDENCE
from interp.probes import Dictionary, TopK, dictionary_quality, recovered_accuracy
from interp.probes.dictionaries.train_dictionaries import train_dictionaries
from interp.probes.features.pooling import pooled
from tests.probes.sparse_world import SITE, SparseWorld, sparse_world
from tests.refusals import refuses

AXES = {
    ("batch", "pos", "d_model"): (3, 4, 6),
    ("batch", "pos", "head", "d_head"): (3, 4, 2, 3),
    ("batch", "channel", "row", "column"): (3, 6, 2, 4),
    ("batch", "head", "query", "key"): (3, 2, 4, 3),
    ("batch", "d_embed"): (3, 6),
}


@pytest.mark.parametrize("axes", AXES, ids=" ".join)
@pytest.mark.parametrize("pool", ["mean", "class", "space", "token"])
class TestEdited:
    def test_gives_the_pooled_features_that_were_asked_for(self, axes, pool) -> None:
        x = torch.randn(AXES[axes], generator=torch.Generator().manual_seed(0)).double()
        wanted = torch.arange(18.0).double().view(3, 1, 6)
        moved = edited(x, axes, pool, lambda features, rows: wanted[rows].expand_as(features))
        how = "mean" if pool == "token" else pool
        torch.testing.assert_close(pooled(moved, axes, how), wanted[:, 0])

    def test_leaves_the_rest_alone(self, axes, pool) -> None:
        x = torch.randn(AXES[axes], generator=torch.Generator().manual_seed(0)).double()
        torch.testing.assert_close(edited(x, axes, pool, lambda f, rows: f), x)
        moved = edited(x, axes, pool, lambda f, rows: f + 1) - x
        share = {"class": 0.25, "space": 0.75} if {"pos", "query"} & set(axes) else {}
        assert (moved > 0.5).double().mean() == share.get(pool, 1.0)


def test_edits_refuse_other_pools_and_axes() -> None:
    with pytest.raises(errors.SpecificationError, match="pool"):
        edited(torch.ones(1, 2), ("batch", "d_embed"), "max", lambda f, rows: f)
    with pytest.raises(errors.SiteError, match="row per picture"):
        edited(torch.ones(2), ("d_embed",), "mean", lambda f, rows: f)


class Add(nn.Module):
    def __init__(self, what: Tensor) -> None:
        super().__init__()
        self.what = nn.Parameter(what)

    def forward(self, x: Tensor) -> Tensor:
        return self.what.expand_as(x)


@pytest.fixture(scope="module")
def world() -> SparseWorld:
    return sparse_world(1.0, n_classes=6, n_artists=8, copies=2, width=24, per_class=2, on=0.8)


def tower_of(world: SparseWorld) -> Chain:
    """Two blocks that add nothing and one; the embedding is the stream."""
    zero = torch.zeros(24)
    blocks = [Add(zero), Add(zero + 1)]
    return Chain(blocks, pool=nn.Identity(), axes=("batch", "d_embed")).eval()


def classifier_of(world: SparseWorld):
    """Reads the planted features of every class out of the embedding."""
    read = np.linalg.pinv(world.directions)
    names = sorted(set(world.features.frame["label"]))
    columns = [world.of[name, "real"] for name in names]
    weight = torch.as_tensor(np.stack([read[:, each].sum(axis=1) for each in columns])).float()
    return (lambda embedding: (embedding - 1) @ weight.T), names


def words(world: SparseWorld) -> dict:
    classifier, names = classifier_of(world)
    return {"preprocess": world.vectors, "classifier": classifier, "class_names": names}


def test_answers_are_those_of_the_plain_arithmetic(world) -> None:
    classifier, names = classifier_of(world)
    x = torch.as_tensor(world.features.values[SITE])
    shift = torch.randn(len(x), 24, generator=torch.Generator().manual_seed(0))
    edits = {"shifted": lambda f, rows: f + shift[rows][:, None]}
    found = edited_answers(
        tower_of(world), world.images, SITE, edits, batch_size=50, **words(world)
    )
    for name, wanted in ((AS_IT_IS, x + 1), ("shifted", x + shift + 1)):
        logits = classifier(wanted).numpy()
        np.testing.assert_allclose(found.logits[name], logits, atol=1e-5)
        truth = [names.index(label) for label in world.features.frame["label"]]
        np.testing.assert_array_equal(found.right(name), logits.argmax(axis=1) == truth)
        margin = [row[t] - max(np.delete(row, t)) for row, t in zip(logits, truth, strict=True)]
        np.testing.assert_allclose(found.margin(name), margin, atol=1e-5)
    assert found.right(AS_IT_IS).mean() > found.right("shifted").mean()


def test_site_rows_are_the_collected_features(world) -> None:
    for site, extra in ((SITE, 0), ("hook_embedding", 1), ("hook_embed", 0)):
        rows = site_rows(
            tower_of(world), world.images, site, preprocess=world.vectors, batch_size=70
        )
        wanted = world.features.values[SITE][:, None] + extra
        np.testing.assert_allclose(rows.numpy(), wanted, atol=1e-6)


def test_a_good_dictionary_recovers_the_accuracy_and_a_dumb_one_none_of_it(world) -> None:
    (good,) = train_dictionaries(
        world.features, SITE, TopK(3), width=24, withheld=(), steps=400, rate=0.01, batch_size=96
    )
    zero = torch.zeros(24)
    dumb = Dictionary(
        torch.zeros(24, 4), torch.eye(24)[:4], zero[:4], zero, zero[:4], facts=good.facts
    )
    frames = [
        recovered_accuracy(one, tower_of(world), world.images, **words(world)).frame
        for one in (good, dumb)
    ]
    assert set(EVIDENCE) <= set(frames[0].columns)
    assert (frames[0]["index"] > 0.9).all() and (frames[0]["ceiling"] > 0.8).all()
    assert (frames[1]["value"] < 0.4).all()
    x = torch.as_tensor(world.features.values[SITE])
    classifier, names = classifier_of(world)
    label, domain = (world.features.frame[name].to_numpy() for name in ("label", "domain"))
    for row in frames[0].to_dict("records"):
        for column, embedding in (
            ("value", good.reconstruct(x)), ("ceiling", x), ("null", x.mean(dim=0).expand_as(x)),
        ):  # fmt: skip
            said = np.array(names)[classifier(embedding + 1).argmax(dim=1).numpy()]
            right = [
                (said == label)[(label == c) & (domain == row["domain"])].mean() for c in names
            ]
            assert row[column] == pytest.approx(np.mean(right))


def test_quality_is_that_of_plain_sums(world) -> None:
    (one,) = train_dictionaries(
        world.features, SITE, TopK(2), width=24, withheld=[("c00", "sketch")], steps=60
    )
    frame = dictionary_quality([one, one], world.features).frame
    assert len(frame) == 2 * 3 * 5 and set(EVIDENCE) <= set(frame.columns)
    x, label = world.features.values[SITE].astype(float), world.features.frame["label"].to_numpy()
    codes = one(world.features.values[SITE])
    lacking = x - one.reconstruct(torch.as_tensor(world.features.values[SITE])).numpy()
    domain = world.features.frame["domain"].to_numpy()
    cells = {
        ("", "all"): domain != "",
        ("real", "all"): domain == "real",
        ("sketch", "all"): domain == "sketch",
        ("sketch", "held-out"): (domain == "sketch") & (label == "c00"),
        ("sketch", "seen"): (domain == "sketch") & (label != "c00"),
    }
    for (name, which), rows in cells.items():
        part = frame[(frame["domain"] == name) & (frame["class_set"] == which)].iloc[:3]
        got = part.set_index("measure")
        spread = ((x[rows] - x[rows].mean(axis=0)) ** 2).sum()
        assert got.loc["active features", "value"] == pytest.approx((codes[rows] > 0).sum(1).mean())
        explained = 1 - (lacking[rows] ** 2).sum() / spread
        assert got.loc["explained variance", "value"] == pytest.approx(explained, abs=1e-6)
        dead = (codes[rows].max(axis=0) == 0).mean()
        assert got.loc["dead features", "value"] == pytest.approx(dead)
        assert got.loc["dead features", "reason"] != ""
        if which == "held-out":
            assert got.loc["active features", "reason"] == "one class: no interval"
        else:
            left = np.array([
                1 - (lacking[rows & (label != c)] ** 2).sum()
                / ((x[rows & (label != c)] - x[rows & (label != c)].mean(axis=0)) ** 2).sum()
                for c in sorted(set(label[rows]))
            ])  # fmt: skip
            error = np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())
            half = got.loc["explained variance", "high"] - explained
            assert half / error == pytest.approx(2.57 if len(left) == 6 else 2.776, abs=0.01)


def test_doors_refuse_what_cannot_be_answered(world) -> None:
    tower, good = tower_of(world), words(world)
    refuses(errors.SiteError, "blocks", edited_answers, tower, world.images, "blocks.7", {}, **good)
    refuses(
        errors.SampleError, "no pictures", edited_answers, tower, world.images[:0], SITE, {}, **good
    )
    with pytest.raises(errors.DataError, match="c05"):
        edited_answers(
            tower, world.images, SITE, {}, **good | {"class_names": good["class_names"][:-1]}
        )
    with pytest.raises(errors.ShapeError, match="name classes"):
        edited_answers(tower, world.images, SITE, {}, **good | {"classifier": lambda e: e[:, :2]})
    broken = {"classifier": lambda e: good["classifier"](e) * torch.nan}
    with pytest.raises(errors.NumericsError, match="name classes"):
        edited_answers(tower, world.images, SITE, {}, **good | broken)

"""Shared features hurt both domains and private ones their own, on a tower that is known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.errors import DataError, SampleError, SpecificationError
from interp.core.statistics.resampling import jackknife, sign_flip_p
from interp.core.tables import EVIDENCE
from interp.probes import Dictionary, TopK, ablate_shared, pca, train_dictionaries
from interp.probes.dictionaries.ablate_shared import _paired
from tests.probes.sparse_world import SITE, SparseWorld, sparse_world
from tests.refusals import refuses


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(48))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand_as(x)


@pytest.fixture(scope="module")
def world() -> SparseWorld:
    """Of a class's two features in either domain one is the same."""
    return sparse_world(0.5, n_classes=8, n_artists=10, copies=2, per_class=2, on=0.9)


@pytest.fixture(scope="module")
def known(world) -> Dictionary:
    """The planted features themselves as a dictionary."""
    read, n = np.linalg.pinv(world.directions), len(world.directions)
    weights = [torch.as_tensor(each).float() for each in (read, world.directions)]
    zero = torch.zeros(n)
    return Dictionary(*weights, zero, torch.zeros(48), zero + 0.4, facts={"site": SITE})


def model(world: SparseWorld, *, deaf: bool = False) -> dict:
    """A tower that passes the stream on, and a classifier that adds up a class's features.

    If `deaf`, what it reads is only what is private to a domain.
    """
    names = sorted(set(world.features.frame["label"]))
    columns = []
    for name in names:
        own = [set(world.of[name, domain]) for domain in ("real", "sketch")]
        columns.append(sorted(own[0] ^ own[1] if deaf else own[0] | own[1]))
    read = np.linalg.pinv(world.directions)
    weight = torch.as_tensor(np.stack([read[:, each].sum(axis=1) for each in columns])).float()
    return {
        "tower": Chain([Nothing(), Nothing()], pool=nn.Identity(), axes=("batch", "d_embed")),
        "images": world.images, "preprocess": world.vectors, "class_names": names,
        "classifier": lambda embedding: embedding @ weight.T,
    }  # fmt: skip


def ablated(code, world: SparseWorld, **words):
    settings = {"source": "real", "target": "sketch"} | words
    deaf = settings.pop("deaf", False)
    table = ablate_shared(code, site=SITE, **model(world, deaf=deaf), **settings)
    return table, table.frame.set_index(["measure", "ablated", "domain"]).sort_index()


@pytest.mark.parametrize("measure", ["accuracy drop", "margin drop"])
def test_shared_features_hurt_both_domains_and_private_ones_one(world, known, measure) -> None:
    table, frame = ablated(known, world)
    rows = frame.loc[measure]
    assert set(EVIDENCE) <= set(table.frame.columns)
    least = 0.15 if measure == "accuracy drop" else 1.0
    assert (rows.loc["shared", "low"] > least / 4).all()
    assert (rows.loc["shared", "value"] > least).all()
    assert rows.loc[("private", "real"), "value"] > least
    assert abs(rows.loc[("private", "sketch"), "value"]) < 0.01
    assert rows.loc[("shared", "sketch"), "verdict"] == "shared"
    assert rows.loc[("private", "sketch"), "verdict"] == "not shared"
    less = rows.loc["shared less private"]
    assert less.loc["sketch", "low"] > 0 and less.loc["sketch", "p"] < 0.05
    assert less.loc["real", "low"] <= 0 <= less.loc["real", "high"]  # matched in the source


def test_matched_sets_take_away_alike(world, known) -> None:
    table, frame = ablated(known, world)
    removed = frame.loc["margin drop", "removed"]
    ratio = removed["shared", "real"] / removed["private", "real"]
    assert 0.6 < ratio < 1.6 and len(table.facts["shared"]) == len(table.facts["private"]) >= 6
    own = {domain: {f for (_, d), fs in world.of.items() if d == domain for f in fs}
           for domain in ("real", "sketch")}  # fmt: skip
    assert set(table.facts["shared"]) <= own["real"] & own["sketch"]
    assert set(table.facts["private"]) <= own["real"] - own["sketch"]


def test_features_that_nothing_reads_have_no_match_and_the_reason_says_so(world, known) -> None:
    """Shared features are there as before, but the model does not listen to them."""
    table, _ = ablated(known, world, deaf=True)
    assert (
        table.frame["reason"]
        .str.contains("matched by a private one.*cost -?0.00 and 0.[1-9]")
        .all()
    )
    assert table.frame[["value", "null", "index", "p"]].isna().all(axis=None)
    assert set(table.frame["verdict"]) == {"unknown"} and table.facts["shared"] == []


def test_drops_are_those_of_plain_arithmetic(world, known) -> None:
    """All of a set's features at once, in the second half, redone by hand for every donor."""
    from interp.core.artists import artist_halves
    from interp.core.seeds import rng

    table, frame = ablated(known, world, n_donors=2)
    words = model(world)
    half = artist_halves(world.features.frame, ["real", "sketch"])
    label, domain = (world.features.frame[n].to_numpy(object) for n in ("label", "domain"))
    x = world.features.values[SITE].astype(np.float64)
    codes = known(world.features.values[SITE]).astype(np.float64)
    donors, generator = np.zeros((2, len(x)), dtype=int), rng("feature donors", 0)
    for where, name in sorted(set(zip(domain, label, strict=True))):
        mine = (domain == where) & (label == name)
        others = np.flatnonzero((domain == where) & (label != name))
        donors[:, mine] = generator.choice(others, (2, mine.sum()))
    truth = np.array([words["class_names"].index(name) for name in label])

    def right(values: np.ndarray) -> np.ndarray:
        logits = words["classifier"](torch.as_tensor(values).float()).numpy()
        return (logits.argmax(axis=1) == truth).astype(float)

    for kind in ("shared", "private"):
        chosen = table.facts[kind]
        after = []
        for draw in range(2):
            change = codes[donors[draw]][:, chosen] - codes[:, chosen]
            after.append(right(x + change @ world.directions[chosen]))
        lost = right(x) - np.mean(after, axis=0)
        for where in ("real", "sketch"):
            rows = (half == 1) & (domain == where)
            each = np.array([lost[rows & (label == name)].mean() for name in words["class_names"]])
            row = frame.loc[("accuracy drop", kind, where)]
            assert row["value"] == pytest.approx(each.mean(), abs=1e-6)
            left = [(each.sum() - one) / 7 for one in each]
            assert row["high"] == pytest.approx(jackknife(each.mean(), left).high, abs=1e-6)
            assert row["p"] == pytest.approx(sign_flip_p(each, seed=0))


@pytest.mark.parametrize("kind", ["dictionary", "pca"])
def test_learnt_codes_serve_as_well(world, kind) -> None:
    if kind == "dictionary":
        (code,) = train_dictionaries(
            world.features, SITE, TopK(2), width=32, withheld=(), steps=400, rate=0.01,
            batch_size=128,
        )  # fmt: skip
    else:
        code = pca(world.features, SITE, withheld=())
    table, frame = ablated(code, world, n_donors=1)
    assert "private features" in table.facts["pairs"]
    if kind == "dictionary":
        assert frame.loc[("margin drop", "shared", "sketch"), "verdict"] == "shared"


def test_pairs_are_as_like_as_can_be_or_none() -> None:
    removed = np.array([1.0, 2.0, 8.0, 2.1, 1.1, 64.0])
    cost = np.array([0.0, 1.0, 0.5, 1.0, 0.0, 0.5])
    pairs = _paired(removed, cost, 3)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (1, 0)]  # 8 and 64 are too far apart
    for n in (0, 6):
        assert _paired(removed, cost, n).shape == (0, 2)


def test_doors_refuse_what_cannot_be_told(world, known) -> None:
    refuses(DataError, "real", ablated, known, world, source="reel")
    refuses(SpecificationError, "two domains", ablated, known, world, target="real")
    few = sparse_world(0.5, n_classes=8, n_artists=2, copies=1, per_class=2)
    refuses(SampleError, "at least 5", ablated, known, few)

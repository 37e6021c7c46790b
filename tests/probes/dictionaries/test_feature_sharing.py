"""Feature sharing on planted codes: every figure a second way, and the right verdict."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from interp.core.artists import artist_halves
from interp.core.errors import NumericsError, SampleError, ShapeError, SiteError, SpecificationError
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE
from interp.probes import (
    Dictionary,
    Features,
    TopK,
    class_sharing,
    feature_roles,
    feature_sharing,
    paper_feature_sharing,
    pca,
    raw_units,
    train_dictionaries,
)
from tests.probes.sparse_world import SITE, SparseWorld, sparse_world
from tests.refusals import refuses


def measured(world: SparseWorld, *, centred: bool = True, measure: str = "shared mass", **words):
    """The row of the planted codes themselves."""
    settings = {"n_splits": 2, "n_permutations": 99} | words
    table = feature_sharing(world.features, SITE, {"planted": lambda x: world.codes}, **settings)
    frame = table.frame
    return frame[(frame["centred"] == centred) & (frame["measure"] == measure)].iloc[0]


def plain(world: SparseWorld, n_splits: int, n_matched: int, left: str = "") -> np.ndarray:
    """value, null and ceiling of the raw shared mass, by loops over classes."""
    frame, codes = world.features.frame, world.codes
    label, domain = frame["label"].to_numpy(), frame["domain"].to_numpy()
    names = [name for name in sorted(set(label)) if name != left]
    found = []

    def profile(name: str, where: str, half: np.ndarray, side: int) -> np.ndarray:
        mean = codes[(label == name) & (domain == where) & (half == side)].mean(axis=0)
        return mean / mean.sum()

    def like(name: str, where: str) -> list[str]:
        every = {}
        for other in sorted(set(label)):
            rows = codes[(label == other) & (domain == where)]
            every[other] = np.array([(rows > 0).sum(axis=1).mean(), rows.sum(axis=1).mean()])
        spread = np.std(list(every.values()), axis=0)
        apart = {o: (((every[o] - every[name]) / spread) ** 2).sum() for o in names if o != name}
        return sorted(apart, key=lambda o: apart[o])[:n_matched]

    for split in range(n_splits):
        half = artist_halves(frame, ["real", "sketch"], split=split)
        for name in names:
            p = {(n, d, s): profile(n, d, half, s)
                 for n, d, s in product(names, ("real", "sketch"), (0, 1))}  # fmt: skip
            value = np.mean([
                np.minimum(p[name, "real", i], p[name, "sketch", 1 - i]).sum() for i in (0, 1)
            ])  # fmt: skip
            null = [np.minimum(p[name, "real", i], p[other, "sketch", 1 - i]).sum()
                    for other, i in product(like(name, "sketch"), (0, 1))]  # fmt: skip
            null += [np.minimum(p[other, "real", i], p[name, "sketch", 1 - i]).sum()
                     for other, i in product(like(name, "real"), (0, 1))]  # fmt: skip
            within = [np.minimum(p[name, d, 0], p[name, d, 1]).sum() for d in ("real", "sketch")]
            found.append([value, np.mean(null), *within])
    value, null, in_a, in_b = np.mean(found, axis=0)
    return np.array([value, null, np.sqrt(in_a * in_b)])


def test_value_null_ceiling_and_jackknife_are_those_of_plain_loops() -> None:
    world = sparse_world(0.5, n_classes=6, n_artists=4, everywhere=2, pool=20, seed=3)
    row = measured(world, centred=False, n_matched=2)
    whole = plain(world, 2, 2)
    assert row[["value", "null", "ceiling"]].to_numpy(float) == pytest.approx(whole, abs=1e-10)
    index = (whole[0] - whole[1]) / (whole[2] - whole[1])
    assert row["index"] == pytest.approx(index, abs=1e-10)
    left = np.array([plain(world, 2, 2, name) for name in sorted(set(world.features.frame.label))])
    spread = jackknife(index, (left[:, 0] - left[:, 1]) / (left[:, 2] - left[:, 1]))
    assert row[["index_low", "index_high"]].to_numpy(float) == pytest.approx(
        [spread.low, spread.high], abs=1e-9
    )


def test_shared_top_features_are_those_of_sets() -> None:
    world = sparse_world(0.5, n_classes=6, n_artists=4, pool=24, per_class=6, seed=1)
    row = measured(world, centred=False, measure="shared top features", n_splits=1)
    frame = world.features.frame
    half = artist_halves(frame, ["real", "sketch"])

    def top(name: str, domain: str, side: int, k: int) -> set[int]:
        rows = (frame["label"] == name) & (frame["domain"] == domain) & (half == side)
        use = world.codes[rows].mean(axis=0)
        return {f for f in sorted(range(len(use)), key=lambda f: -use[f])[:k] if use[f] > 0}

    shares = [
        len(top(name, "real", i, k) & top(name, "sketch", 1 - i, k)) / k
        for name, i, k in product(sorted(set(frame["label"])), (0, 1), (5, 10))
    ]
    assert world.codes.shape[1] == 24  # 15 and 20 would be more than half of the features
    assert row["value"] == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(("dose", "verdict"), [(0.0, "not shared"), (1.0, "shared")])
def test_separate_and_shared_features_are_told_apart(dose: float, verdict: str) -> None:
    rows = [
        measured(sparse_world(dose, n_classes=12, pool=100, seed=seed, everywhere=3), seed=seed)
        for seed in range(12)
    ]
    index = np.array([row["index"] for row in rows])
    assert index.mean() == pytest.approx(dose, abs=0.04)
    assert [row["verdict"] for row in rows].count(verdict) >= 11
    low, high = (np.array([row[name] for row in rows]) for name in ("index_low", "index_high"))
    assert ((low <= dose) & (dose <= high)).mean() >= 0.7  # .95 to .98 over 150 worlds


def test_dose_is_measured_and_half_of_it_is_partly_shared() -> None:
    doses = (0.0, 0.25, 0.5, 0.75, 1.0)
    index = [
        np.mean([measured(sparse_world(dose, pool=48, seed=seed))["index"] for seed in range(5)])
        for dose in doses
    ]
    np.testing.assert_allclose(index, doses, atol=0.08)
    verdict = {measured(sparse_world(0.5, pool=48, seed=seed))["verdict"] for seed in range(6)}
    assert verdict == {"partly shared"}


@pytest.mark.slow
def test_p_is_uniform_where_classes_share_by_chance_only() -> None:
    p = [
        measured(sparse_world(0.0, n_classes=8, pool=20, n_artists=4, seed=s), n_splits=1, seed=s)
        for s in range(60)
    ]
    assert stats.kstest([row["p"] for row in p], "uniform").pvalue > 0.01


def test_features_on_for_everything_do_not_pass_for_sharing() -> None:
    """The trap: their sets overlap far above those of random features, in separate domains."""
    world = sparse_world(0.0, everywhere=6, loud=2.0, n_classes=12)
    row = measured(world, centred=False, measure="shared top features")
    sizes = [5, 10, 15, 20]
    chance = np.mean(sizes) / world.codes.shape[1]
    assert row["value"] > 3 * chance
    assert abs(row["index"]) < 0.05 and row["verdict"] == "not shared"
    assert row["p"] > 0.05
    twin = measured(
        sparse_world(1.0, everywhere=6, loud=2.0, n_classes=12), centred=False,
        measure="shared top features",
    )  # fmt: skip
    assert twin["index"] > 0.9 and twin["verdict"] == "shared" and twin["p"] <= 0.01


def test_matching_meets_classes_of_like_activity() -> None:
    """Busy classes use the same busy features whatever they are; quiet ones do not."""
    world = sparse_world(0.0, n_classes=12, n_artists=8)
    busy = np.isin(world.features.frame["label"], [f"c{n:02d}" for n in range(6)])
    extra = np.where(busy[:, None], 2.0, 0.0) * np.ones((1, 5))
    loud = replace(world, codes=np.hstack([world.codes, extra]))
    matched = measured(loud, centred=False, n_matched=3)
    anyone = measured(loud, centred=False, n_matched=11)
    assert matched["verdict"] == "not shared" and abs(matched["index"]) < 0.05
    assert anyone["index"] > 0.2  # what a null of all other classes would have said


def test_loud_features_of_a_domain_lower_the_raw_overlap_only() -> None:
    world = sparse_world(1.0, of_domain=6, loud=3.0, n_classes=12)
    assert measured(world, centred=False)["index"] < 0.3
    row = measured(world)
    assert row["index"] == pytest.approx(1.0, abs=0.05) and row["verdict"] == "shared"


def test_gain_of_a_domain_does_not_count() -> None:
    world = sparse_world(1.0, n_classes=12)
    weak = np.where((world.features.frame["domain"] == "sketch").to_numpy()[:, None], 0.3, 1.0)
    assert measured(replace(world, codes=world.codes * weak))["verdict"] == "shared"


@pytest.fixture(scope="module")
def made() -> tuple[SparseWorld, list[Dictionary]]:
    """More features than dimensions, loud marks of the domain, half of the features shared."""
    world = sparse_world(
        0.5, n_classes=12, n_artists=8, copies=6, width=32, on=0.4, of_domain=3, loud=2.0
    )
    dictionaries = train_dictionaries(
        world.features, SITE, TopK(5), width=96, withheld=(), seeds=(0, 1), steps=500,
        rate=0.01, batch_size=256,
    )  # fmt: skip
    return world, dictionaries


class TestCodes:
    def test_a_dictionary_beats_units_and_components(self, made) -> None:
        world, dictionaries = made
        codes = {
            "dictionary": dictionaries,
            "units": raw_units(world.features, SITE, withheld=()),
            "pca": pca(world.features, SITE, withheld=()),
        }
        frame = feature_sharing(world.features, SITE, codes, n_permutations=9).frame
        assert set(EVIDENCE) <= set(frame.columns)
        mass = frame[(frame["measure"] == "shared mass") & frame["centred"]]
        one = mass[mass["reading"] == "one code"].set_index("code")["index"]
        assert abs(one["dictionary"] - 0.5) < 0.12
        assert abs(one["dictionary"] - 0.5) < min(abs(one["units"] - 0.5), abs(one["pca"] - 0.5))

    def test_the_second_ceiling_allows_for_what_seeds_differ_in(self, made) -> None:
        world, dictionaries = made
        frame = feature_sharing(world.features, SITE, {"d": dictionaries}, n_permutations=9).frame
        mass = frame[(frame["measure"] == "shared mass") & frame["centred"]].set_index("reading")
        one, two = mass.loc["one code"], mass.loc["dictionaries of two seeds"]
        assert two["ceiling"] < one["ceiling"] and two["value"] < one["value"]
        assert abs(two["index"] - 0.5) < 0.2

    def test_one_dictionary_permuted_is_no_second_seed(self, made) -> None:
        """Matching undoes a permutation: both readings then say the same."""
        world, (first, _) = made
        order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
        second = Dictionary(
            first.encoder[:, order], first.decoder[order], first.encoder_bias[order],
            first.decoder_bias, first.threshold, first.k,
        )  # fmt: skip
        frame = feature_sharing(
            world.features, SITE, {"d": [first, second]}, n_permutations=9
        ).frame
        wide = frame.pivot_table(index=["measure", "centred"], columns="reading", values="index")
        np.testing.assert_allclose(wide["one code"], wide["dictionaries of two seeds"], atol=1e-3)


def test_the_paper_s_measure_is_a_plain_recomputation() -> None:
    generator = np.random.default_rng(0)
    world = sparse_world(0.5, n_classes=5, pool=60, per_class=12, everywhere=10, seed=2)
    third = np.arange(len(world.codes)) % 3 == 0  # a third domain out of some pictures
    frame = world.features.frame.assign(
        domain=np.where(third, "paint", world.features.frame["domain"])
    )
    codes = world.codes * (generator.random(world.codes.shape) < 0.8)
    features = Features({SITE: world.features.values[SITE]}, frame)
    labels = ["c00", "c01", "c02"]
    table = paper_feature_sharing(features, lambda x: codes, SITE, labels=labels).frame

    def histogram(label: str, domain: str) -> tuple[np.ndarray, np.ndarray]:
        count, strength = np.zeros((2, codes.shape[1]))
        for row in np.flatnonzero((frame["label"] == label) & (frame["domain"] == domain)):
            strongest = sorted(range(len(count)), key=lambda f: -codes[row, f])[:20]
            for feature in strongest:
                count[feature] += codes[row, feature] > 0
                strength[feature] += codes[row, feature]
        return count, strength

    def share(label: str, a: str, b: str) -> float:
        found = []
        for k in (5, 10, 15, 20):
            tops = []
            for domain in (a, b):
                count, strength = histogram(label, domain)
                order = np.lexsort((-strength, -count))[:k]
                tops.append({f for f in order if count[f] > 0})
            found.append(len(tops[0] & tops[1]) / k)
        return float(np.mean(found))

    pairs = {("paint", "real"), ("paint", "sketch"), ("real", "sketch")}
    for a, b in pairs:
        row = table[(table["domain_a"] == a) & (table["domain_b"] == b)].iloc[0]
        each = [share(label, a, b) for label in labels]
        assert row["value"] == pytest.approx(np.mean(each))
        assert row["low"] == pytest.approx(
            jackknife(float(np.mean(each)), [(sum(each) - one) / 2 for one in each]).low
        )
        assert row["null"] == pytest.approx(12.5 / codes.shape[1])
    for test in ("paint", "real", "sketch"):
        own = [pair for pair in pairs if test in pair]
        wanted = np.mean([share(label, *pair) for pair in own for label in labels])
        assert table.set_index("test_domain").loc[test, "value"] == pytest.approx(wanted)


def test_the_paper_s_chance_is_that_of_random_sets() -> None:
    frame = pd.DataFrame(
        [(f"c{n:03d}", domain) for n in range(200) for domain in ("real", "sketch")],
        columns=["label", "domain"],
    )
    random = np.random.default_rng(0).random((400, 400))
    features = Features({"hook_embedding": random}, frame)
    row = paper_feature_sharing(features, lambda x: x).frame.iloc[0]
    assert row["low"] < row["null"] < row["high"]
    assert row["null"] == pytest.approx(0.003 * 4096 / 400, rel=0.03)


def test_class_sharing_averages_to_the_whole() -> None:
    world = sparse_world(0.5, n_classes=8, pool=30)
    half = replace(world, codes=np.where(
        (world.features.frame["label"] < "c04").to_numpy()[:, None], world.codes, 0
    ))  # fmt: skip
    frame = class_sharing(world.features, SITE, lambda x: world.codes, n_splits=2).frame
    whole = measured(world)
    assert len(frame) == 8 and frame["value"].mean() == pytest.approx(whole["value"])
    assert frame["null"].mean() == pytest.approx(whole["null"])
    assert (frame["reason"] != "").all() and set(EVIDENCE) <= set(frame.columns)
    silent = class_sharing(world.features, SITE, lambda x: half.codes, n_splits=2).frame
    assert silent["index"].isna().sum() == 4
    assert silent["reason"][silent["index"].isna()].str.contains("no index").all()


def test_roles_are_those_planted() -> None:
    world = sparse_world(0.5, n_classes=10, n_artists=12, everywhere=3, of_domain=2)
    table = feature_roles(
        world.features, SITE, lambda x: world.codes, domain_a="real", domain_b="sketch"
    ).frame
    own = {name: {f for (_, d), fs in world.of.items() if d == name for f in fs}
           for name in ("real", "sketch")}  # fmt: skip
    planted = {
        "shared": own["real"] & own["sketch"],
        "private to real": own["real"] - own["sketch"],
        "private to sketch": own["sketch"] - own["real"],
    }
    for role, features in planted.items():
        found = set(table.loc[table["role"] == role, "feature"])
        assert len(found & features) >= 0.85 * len(features) and not found - features
    assert table["used_a"].sum() == pytest.approx(1)
    label, domain = (world.features.frame[n].to_numpy() for n in ("label", "domain"))
    half = artist_halves(world.features.frame, ["real", "sketch"])
    m = {
        (d, s): np.stack([
            world.codes[(label == c) & (domain == d) & (half == s)].mean(axis=0)
            for c in sorted(set(label))
        ])
        for d, s in product(("real", "sketch"), (0, 1))
    }  # fmt: skip
    once = feature_roles(
        world.features, SITE, lambda x: world.codes, domain_a="real", domain_b="sketch", n_splits=1
    ).frame
    cov = np.mean([np.cov(m["real", i][:, 0], m["sketch", 1 - i][:, 0])[0, 1] for i in (0, 1)])
    ends = [np.cov(m[d, 0][:, 0], m[d, 1][:, 0])[0, 1] for d in ("real", "sketch")]
    assert once["agreement"].iloc[0] == pytest.approx(cov / np.sqrt(np.prod(ends)))


class TestDoors:
    def test_refuse_activity_that_is_none(self) -> None:
        world = sparse_world(1.0)
        for code, error in (
            (lambda x: -world.codes, NumericsError),
            (lambda x: world.codes * np.nan, NumericsError),
            (lambda x: world.codes[:-1], ShapeError),
            (lambda x: world.codes[:, :0], ShapeError),
        ):
            refuses(error, "as features", feature_sharing, world.features, SITE, {"bad": code})
        with pytest.raises(SpecificationError, match="19 features"):
            paper_feature_sharing(world.features, lambda x: world.codes[:, :19], SITE)

    def test_refuse_what_cannot_be_compared(self) -> None:
        world = sparse_world(1.0)
        few = world.features.rows(world.features.frame["label"] < "c04")
        refuses(SampleError, "4 classes", feature_sharing, few, SITE, {"planted": lambda x: x})
        with pytest.raises(SampleError, match="at least 5"):
            feature_roles(few, SITE, np.abs, domain_a="real", domain_b="sketch")
        one = ~world.features.frame.duplicated(["label", "domain"])
        with pytest.raises(SampleError, match="0 classes"):
            feature_sharing(world.features.rows(one), SITE, {"planted": lambda x: x})
        refuses(SiteError, "blocks", feature_sharing, world.features, "blocks.1", {})
        with pytest.raises(SpecificationError, match="n_matched=0"):
            feature_sharing(world.features, SITE, {}, n_matched=0)

    def test_say_why_nothing_is_measured_of_features_that_are_off(self) -> None:
        world = sparse_world(1.0)
        row = measured(replace(world, codes=np.zeros_like(world.codes)))
        assert row["verdict"] == "unknown" and "standard errors" in row["reason"]

    def test_count_classes_that_one_domain_lacks(self) -> None:
        world = sparse_world(1.0, n_classes=8)
        frame = world.features.frame
        kept = ~((frame["label"] == "c00") & (frame["domain"] == "sketch")).to_numpy()
        part = replace(world, features=world.features.rows(kept), codes=world.codes[kept])
        row = measured(part)
        assert row["n_units"] == 7 and "1 classes left out" in row["reason"]

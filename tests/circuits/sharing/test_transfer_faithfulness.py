"""Circuits of one domain at work in another: planted truth, a plain loop, its level, refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.circuits import (
    ClassCircuits,
    Scores,
    Units,
    circuit_stability,
    circuit_transfer,
    class_circuits,
    inclusion,
    overlap,
)
from interp.circuits.edges.wire import open_run, run_masked
from interp.circuits.patching.localise import of_its_own
from interp.circuits.planted.world import as_tensor
from interp.circuits.sharing.circuit_runs import SMALLEST
from interp.circuits.sharing.overlap_measures import rewire
from interp.circuits.tasks.pairs import ComparedRuns
from interp.core.errors import DataError, SampleError, ShapeError, SpecificationError
from interp.core.seeds import rng
from interp.core.statistics.index_of_sharing import Index
from interp.core.tables import EVIDENCE
from tests.circuits.planted_models import NEURONS, both, found, model, pictures, search
from tests.refusals import refuses

MODELS = ["all shared", "all separate"]


@pytest.mark.parametrize(("condition", "index"), [("all shared", 1.0), ("all separate", 0.0)])
def test_neurons_tell_a_shared_circuit_from_a_separate_one(condition: str, index: float) -> None:
    table = circuit_transfer(*both(condition, "d_mlp"), shares=(0.05, 0.1), seed=1)
    assert set(EVIDENCE) <= set(table.frame) and len(table) == 6
    for row in table.frame.itertuples():
        assert row.verdict == ("shared" if index else "not shared")
        assert row.value == pytest.approx(index, abs=0.05)
        assert row.ceiling == pytest.approx(1, abs=0.05)
        assert row.null < 0.6 and row.random < 0.6
    np.testing.assert_allclose(table.frame["index"], index, atol=0.05)


@pytest.mark.parametrize(("condition", "lost"), [("all shared", 1.0), ("all separate", 0.0)])
def test_what_a_shared_circuit_does_is_lost_without_it(condition: str, lost: float) -> None:
    """Other classes have parts in common with a class; without these, they are not needed."""
    table = circuit_transfer(*both(condition, "d_mlp"), shares=(0.02, 0.05), removed=True).frame
    assert set(table["measure"]) == {"circuit necessity", "circuit necessity, mean over sizes"}
    np.testing.assert_allclose(table["value"], lost, atol=0.05)
    assert (table["own"] > 0.9).all()
    if lost:  # where domains are apart, parts that are none of A's may be B's own
        assert (table["random"] < 0.05).all() and (table["null"] < 0.15).all()
    assert table["estimand"].str.contains("lost without").all()
    assert table["null_kind"].str.endswith("none of the class's, as many").all()
    told = table if lost else table[table["measure"] == "circuit necessity, mean over sizes"]
    assert set(told["verdict"]) == ({"shared"} if lost else {"not shared"})


def test_parts_of_the_class_itself_are_no_null_of_necessity() -> None:
    """What is knocked out for the null is as much as the circuit, and nothing of it."""
    a, b = both("all shared", "d_mlp")
    seen: list[np.ndarray] = []

    class Watched(Units):
        def run(self, read: ComparedRuns, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            seen.append(~kept)
            return super().run(read, kept)

    assert isinstance(a.cut, Units)
    cut = Watched(a.cut.tower, a.cut.widths, a.cut.level)
    ends = [replace(each, cut=cut) for each in (a, b)]
    circuit_transfer(*ends, shares=(0.1,), removed=True, n_null=3)
    assert len(seen) == 4  # two directions, two halves
    for masks in seen:
        own, *others = (*masks[:4], *masks[5:8])  # the fifth is B's own circuit, the last the core
        for other in others:
            assert not (own & other).any()
            for group in np.unique(cut.groups):
                here = cut.groups == group
                assert (own[:, here].sum(axis=1) == other[:, here].sum(axis=1)).all()


def test_parts_without_others_to_compare_with_are_refused() -> None:
    """Every circuit of a site of few units is most of it: that it is necessary says nothing."""
    a, b = both("all shared", "edge")
    groups, sizes = np.unique(a.cut.groups, return_counts=True)
    assert len(groups) > 1 and (sizes == 1).any()
    table = circuit_transfer(a, b, shares=(0.9,), removed=True).frame
    assert (table["verdict"] == "unknown").all() and table["index"].isna().all()
    assert table["reason"].str.contains("as many parts are left that are none of").all()


@pytest.mark.slow
def test_edges_see_the_separation_but_not_which_class_is_shared() -> None:
    """All classes of a planted model run along one set of edges: other classes' do as well."""
    apart = circuit_transfer(*both("all separate", "edge"), shares=(0.5,)).frame
    assert (apart["verdict"] == "not shared").all() and (apart["value"].abs() < 0.01).all()
    same = circuit_transfer(*both("all shared", "edge"), shares=(0.2,)).frame
    assert (same["value"] > 0.95).all() and (same["null"] > 0.95).all()
    assert (same["verdict"] == "unknown").all()
    assert same["reason"].str.contains("ceiling - null").all()


def foreign(
    found: ClassCircuits, other: int, side: int, own: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """The parts that matter most to another class, group by group, as many, none of the taken."""
    size = np.abs(found.scores.means(found.classes)[other, side])
    mask = np.zeros(len(own), bool)
    for group in np.unique(found.cut.groups):
        here = np.flatnonzero((found.cut.groups == group) & ~taken)
        wanted = int((own & (found.cut.groups == group)).sum())
        mask[here[np.argsort(-size[here], kind="stable")[:wanted]]] = True
    return mask


@pytest.mark.parametrize("removed", [False, True])
def test_a_row_is_what_a_plain_loop_gives(removed: bool) -> None:
    """Value, null and ceiling from masked runs of one picture each, and counted by hand."""
    a, b = (scrambled(one, seed) for seed, one in enumerate(both("all shared", "edge")))
    share = 0.2
    row = circuit_transfer(a, b, shares=(share,), removed=removed, n_null=7).frame.iloc[0]
    kept_a, kept_b, lifted = a.masks(share), b.masks(share), a.lifted(share)
    assert lifted is not None
    rows = []
    for side in (0, 1):
        read = b.halves[side]
        for place, name in enumerate(read.pairs.clean.label):
            c = b.classes.index(name)
            clean, corrupt = (open_run(a.cut.tower, x[[place]]) for x in (read.clean, read.corrupt))
            score = read.metric[np.array([place])]

            def work(mask: np.ndarray, runs: Any = (clean, corrupt), score: Any = score) -> float:
                wiring = a.cut.wiring  # type: ignore[attr-defined]
                mask = ~mask if removed else mask
                out = run_masked(a.cut.tower, wiring, mask[None], clean=runs[0], corrupt=runs[1])
                if removed:
                    return float(score(runs[0].output) - score(out[0]))
                return float(score(out[0]) - score(runs[1].output))

            own, taken = kept_a[c, 1 - side], kept_a[c, 1 - side] | kept_b[c, 1 - side]
            others = [
                work(foreign(a, o, 1 - side, own, taken) if removed else kept_a[o, 1 - side])
                for o in range(8)
                if o != c
            ]
            gap = float(score(clean.output) - score(corrupt.output))
            core = work(own & kept_b[c, 1 - side])
            readout = np.nan if removed else work(lifted[c, 1 - side])
            rows.append(
                (c, work(own), np.mean(others), work(kept_b[c, 1 - side]), core, gap, readout)
            )
    means = pd.DataFrame(rows).groupby(0).mean().mean()
    expected = [means[column] / means[5] for column in (1, 2, 3, 4)]
    expected[1] = np.nanmax([expected[1], means[6] / means[5]])
    told = row[["value", "null", "own", "core"]].astype(float)
    np.testing.assert_allclose(told, expected, atol=1e-9)


@pytest.mark.slow
def test_what_no_index_needs_is_left_out_and_changes_nothing_else() -> None:
    ends = both("all shared", "d_mlp")
    for removed in (False, True):
        words: dict[str, Any] = {"shares": (0.05, 0.1), "removed": removed, "seed": 1}
        whole, bare = (circuit_transfer(*ends, beside=it, **words).frame for it in (True, False))
        assert bare["core"].isna().all() and bare["random"].isna().all() == (not removed)
        same = ["value", "null", "ceiling", "index", "index_low", "index_high"]
        pd.testing.assert_frame_equal(whole[same], bare[same])


def test_how_sparse_circuits_are_is_read_off_their_curve() -> None:
    shares = (0.01, 0.02, 0.05, 0.2)
    ends = both("all shared", "d_mlp")
    table = circuit_transfer(*ends, shares=shares, seed=1).frame
    sizes = {each.domain: [each.masks(share).mean() for share in shares] for each in ends}
    assert max(*sizes["A"], *sizes["B"]) < 0.1  # little matters, and a fifth is never filled up
    curves = table[table["measure"] == "circuit transfer"].groupby("domain_b")
    for bar, name in SMALLEST.items():
        rows = table[table["measure"] == name].set_index("domain_b")
        for domain, curve in curves:
            for column, told in (("own", "value"), ("random", "null")):
                work = curve[column].to_numpy()
                if work.max() < bar:
                    assert np.isnan(rows.loc[domain, told])
                    continue
                right = np.exp(np.interp(bar, work, np.log(sizes[domain])))  # the curves rise
                assert rows.loc[domain, told] == pytest.approx(right, rel=1e-3)
        assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
        assert (rows["n_units"] == 8).all()
    assert (table["domain_a"] == table["domain_b"]).sum() == 4


def test_a_circuit_that_is_faithful_nowhere_has_no_size() -> None:
    a, b = both("all shared", "d_mlp")
    table = circuit_transfer(scrambled(a, 1), b, shares=(0.001, 0.002, 0.005), seed=1).frame
    row = table[table["measure"].isin(SMALLEST.values()) & (table["domain_b"] == "A")].iloc[0]
    assert np.isnan(row["value"]) and "no circuit does as much" in row["reason"]


def test_the_ceiling_is_that_of_both_domains() -> None:
    """A's circuits are spoilt: at home they do little, which must not make B's look bad."""
    a, b = both("all shared", "d_mlp")
    a = blurred(a, 2.0)
    table = circuit_transfer(a, b, shares=(0.1, 0.5), seed=1).frame
    for _, rows in table.groupby("measure", sort=False):
        for _, ways in rows.groupby("share", dropna=False):
            first, second = ways.to_dict("records")
            right = np.sqrt(first["own"] * second["own"])
            assert first["ceiling"] == pytest.approx(right) == second["ceiling"]
    assert (table["own"].max() - table["own"].min()) > 0.05  # so the mean is one of something


def test_circuits_that_do_not_do_their_own_work_say_nothing() -> None:
    a, b = both("all shared", "d_mlp")
    table = circuit_transfer(scrambled(a, 1), b, shares=(0.05, 0.1), seed=1).frame
    assert (table["verdict"] == "unknown").all() and table["index"].isna().all()
    assert table["reason"].str.contains("in A of the metric's work.*50% are needed").all()
    assert not table["reason"].str.contains("nan").any()


def test_sizes_that_are_not_faithful_are_left_out_of_the_mean() -> None:
    """One unit of each site holds too little of a class; a tenth is enough, and half not needed."""
    a, b = both("all shared", "d_mlp")
    table = circuit_transfer(blurred(a, 2.0), b, shares=(0.001, 0.1, 0.5), seed=1).frame
    table = table[table["domain_a"] != table["domain_b"]]
    one, tenth, _, mean = (rows for _, rows in table.groupby("share", sort=False, dropna=False))
    assert one["own"].min() < 0.5 < tenth["own"].min()
    np.testing.assert_allclose(mean["value"], tenth["value"])
    assert one["reason"].str.contains("50% are needed").all()
    assert not mean["reason"].str.contains("50% are needed").any()


def blurred(found: ClassCircuits, noise: float) -> ClassCircuits:
    """The same circuits with scores under noise, in units of their deviation."""
    generator = np.random.default_rng(5)
    first, second = (
        each + noise * generator.normal(size=each.shape) * each.std() for each in found.values
    )
    return replace(found, values=(first, second))


def scrambled(found: ClassCircuits, seed: int) -> ClassCircuits:
    """The same pictures with scores by chance around the true ones: no two circuits are alike."""
    generator = np.random.default_rng(seed)
    first, second = (
        each + 0.3 * generator.normal(size=each.shape) * np.abs(each).max() for each in found.values
    )
    return replace(found, values=(first, second))


def test_classes_of_b_under_other_names_are_not_shared() -> None:
    """The null study: where B's classes are permuted, A's circuits do no better than others'."""
    a, b = both("all shared", "d_mlp")
    labels = np.asarray(b.classes, dtype=object)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        fixed = order == np.arange(len(labels))
        if fixed.sum() > 1:
            continue
        renamed = dict(zip(labels, labels[order], strict=True))
        other = rename(b, renamed)
        table = circuit_transfer(a, other, shares=(0.1,), seed=seed).frame
        assert (table["verdict"] != "shared").all()
        verdicts = overlap(a.scores, other.scores).frame["verdict"]
        assert (verdicts != "shared").all()


def rename(found: ClassCircuits, names: dict[str, str]) -> ClassCircuits:
    """The same circuits and pictures, under other classes' names; the metric stays."""
    halves = []
    for read in found.halves:
        frame = read.pairs.images.frame
        images = read.pairs.images.with_frame(frame.assign(label=frame["label"].map(names)))
        halves.append(replace(read, pairs=replace(read.pairs, images=images)))
    return replace(found, halves=tuple(halves))


def test_rewiring_keeps_every_nodes_number_of_edges_in_every_group() -> None:
    a = found("all separate", "edge", "A")
    kept, ends = a.masks(0.1)[0, 0], a.cut.wiring.edges  # type: ignore[attr-defined]
    moved = 0
    for seed in range(5):
        rewired = rewire(kept, ends, a.cut.groups, np.random.default_rng(seed))
        for column, group in [(c, g) for c in (0, 1) for g in np.unique(a.cut.groups)]:
            here = a.cut.groups == group
            before, after = (
                np.bincount(ends[one & here, column], minlength=200) for one in (kept, rewired)
            )
            assert (before == after).all()
        moved += int((rewired != kept).sum())
    assert moved > 0


def test_edges_are_held_against_rewired_ones() -> None:
    rows = overlap(*(one.scores for one in both("all separate", "edge"))).frame
    given = rows[rows["measure"] == "jaccard, nodes given"].iloc[0]
    plain = rows[rows["measure"] == "jaccard"].iloc[0]
    assert given["value"] == plain["value"] and "rewirings" in given["null_kind"]


def test_inclusion_is_certain_for_the_circuit_and_chance_for_noise() -> None:
    planted, _ = model("all shared")
    a = found("all shared", "d_mlp", "A")
    table = inclusion(a, share=0.1, n=50).frame
    true = {f"blocks.{layer}.mlp.hook_post.{unit}" for layer, unit in planted.truth("A").neurons}
    inside = table["node"].isin(true)
    assert table.loc[inside, "value"].mean() > 0.9 > 0.1 > table.loc[~inside, "value"].mean()
    assert table["value"].groupby(a.cut.groups).mean().to_numpy() == pytest.approx(
        table["null"].groupby(a.cut.groups).mean().to_numpy()
    )


def test_stability_sums_inclusion_up_site_by_site() -> None:
    """A second way: the mean inclusion of the parts kept; and noise keeps what chance keeps."""
    a = found("all shared", "d_mlp", "A")
    parts = inclusion(a, share=0.1, n=50).frame
    rows = circuit_stability(a, share=0.1, n=50).frame.set_index("site")
    kept = parts[parts["kept"]]
    assert rows.loc["", "value"] == pytest.approx(kept["value"].mean())
    for site in a.cut.widths:  # type: ignore[attr-defined]
        own = kept[kept["node"].str.startswith(f"{site}.")]
        row = rows.loc[site]
        if own.empty:  # nothing in the block matters
            assert np.isnan(row["index"]) and "no part of this site" in row["reason"]
            continue
        assert row["value"] == pytest.approx(own["value"].mean())
        assert row["n_edges"] == len(own) and row["n_sure"] == (own["value"] >= 0.95).sum()
        assert row["low"] <= row["value"] <= row["high"] <= 1
        assert row["null"] == pytest.approx(len(own) / a.cut.widths[site])  # type: ignore[attr-defined]
        assert row["index"] == pytest.approx((row["value"] - row["null"]) / (1 - row["null"]))
    generator, values = rng("inclusion", 0), a.scores.values
    labels, first = np.asarray(a.scores.labels), parts["node"].str.startswith("blocks.0.")
    shares = []
    for _ in range(50):  # the slow way, for the first block
        means = []
        for name in a.classes:
            own = np.flatnonzero(labels == name)
            means.append(np.abs(values[generator.choice(own, len(own))].mean(axis=0)))
        size = pd.Series(np.mean(means, axis=0))[first.to_numpy()]
        best = size.nlargest(int(parts["kept"][first].sum())).index
        shares.append(np.isin(np.flatnonzero(parts["kept"] & first), best).mean())
    row = rows.loc["blocks.0.mlp.hook_post"]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(shares, [0.025, 0.975]))
    noise = np.random.default_rng(0)
    drawn = replace(a, values=tuple(noise.normal(size=each.shape) for each in a.values))
    random = circuit_stability(drawn, n=50).frame.set_index("site")
    assert rows.loc["", "index"] > 0.7 > 0.5 > random.loc["", "index"]


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = both("all shared", "d_mlp")
    edges = found("all shared", "edge", "B")
    other = found("all separate", "d_mlp", "B")
    for wrong, said in ((edges, "parts"), (other, "one tower"), (a, "two domains")):
        refuses(SpecificationError, said, circuit_transfer, a, wrong)
    refuses(SpecificationError, "shares", circuit_transfer, a, b, shares=(0.0,))
    refuses(ShapeError, "", overlap, a.scores, edges.scores)
    refuses(SpecificationError, r"shares \[0\]", inclusion, a, share=0)
    refuses(SpecificationError, "0 draws", circuit_stability, a, n=0)
    refuses(SpecificationError, "circuits of edges", edges.only, [NEURONS])


def test_not_shared_is_withheld_where_most_serves_all_classes() -> None:
    """A rotated code runs along one set of edges; what little is of a class alone is not shared."""
    own = Index(0.0, -0.1, 0.1, "not shared", "")
    withheld = of_its_own(own, 0.6, 1.0)
    assert withheld.verdict == "unknown" and "serves other classes" in withheld.reason
    assert of_its_own(own, 0.4, 1.0) is own
    shared = Index(1.0, 0.9, 1.1, "shared", "")
    assert of_its_own(shared, 0.9, 1.0) is shared
    generator = np.random.default_rng(0)
    labels, sides = np.repeat(range(8), 8), np.tile([0, 1], 32)
    common = np.r_[np.full(8, 9.0), np.zeros(92)]  # most of a tenth serves every class

    def scores(truth: np.ndarray) -> Scores:
        noise = 0.1 * generator.normal(size=(64, 100))
        return Scores(common + truth[labels] + noise, labels, sides, np.zeros(100))

    apart = overlap(*(scores(np.eye(8, 100, place) * 3) for place in (20, 40))).frame
    row = apart[apart["measure"] == "jaccard"].iloc[0]
    assert row["null"] > 0.5 * row["ceiling"] and row["verdict"] == "unknown"
    alike = overlap(*(scores(np.eye(8, 100, 20) * 3) for _ in range(2))).frame
    assert alike.query("measure == 'jaccard'")["verdict"].tolist() == ["shared"]


def test_too_few_artists_classes_and_unknown_domains() -> None:
    planted, _ = model("all shared")
    cut = found("all shared", "d_mlp", "A").cut
    images = pictures()
    refuses(DataError, "domain", search, cut, images, planted, domain="C")
    one = images[images.artist == "artist 0"]
    with pytest.raises(SampleError, match="0 classes with pictures by artists of both halves"):
        search(cut, one, planted, domain="A")
    few = images.select(label=images.labels[:3])
    refuses(SampleError, "3 classes", search, cut, few, planted, domain="A")


def test_every_picture_is_used_unless_fewer_are_asked_for() -> None:
    planted, hooked = model("all shared")
    cut = Units.of(hooked, NEURONS, torch.zeros(1, 3, 32, 32).double(), axis="d_mlp")
    words = {"domain": "A", "classifier": planted.classifier, "preprocess": as_tensor}
    every = class_circuits(cut, pictures(), **words)
    assert sum(map(len, every.values)) == (pictures().domain == "A").sum()
    few = class_circuits(cut, pictures(), n=1, **words)
    assert sum(map(len, few.values)) == 2 * len(few.classes)

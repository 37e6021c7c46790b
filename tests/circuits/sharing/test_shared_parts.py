"""Overlap of circuits: by hand, on planted sharing, at its level without sharing, refusals."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from interp.circuits import Attribution, Circuit, Scores, overlap, weisfeiler_lehman, wire
from interp.circuits.sharing.overlap_measures import (
    MEASURES_OF_OVERLAP,
    PRIMARY_OVERLAP,
    best_of_groups,
)
from interp.circuits.sharing.overlap_rows import NO_MORE, beyond_readout
from interp.core.errors import DataError, SampleError, ShapeError, SpecificationError
from interp.core.statistics.index_of_sharing import READER, Index
from interp.core.tables import EVIDENCE
from tests.circuits.conftest import open_vit
from tests.refusals import refuses


def domains(
    *, shared: float, common: float = 1.0, classes: int = 15, units: int = 300, seed: int = 0
) -> tuple[Scores, Scores]:
    """Two domains whose classes' scores correlate by `shared`, over what matters to every class."""
    generator = np.random.default_rng(seed)
    everywhere = common * generator.normal(size=units)
    own = generator.normal(size=(3, classes, units))
    truths = [
        everywhere + np.sqrt(shared) * own[0] + np.sqrt(1 - shared) * own[1 + d] for d in (0, 1)
    ]
    labels, sides = np.repeat(np.arange(classes), 8), np.tile([0, 1], 4 * classes)
    a, b = (
        Scores(
            truth[labels] + generator.normal(size=(len(labels), units)),
            labels,
            sides,
            np.arange(units) // 50,
        )
        for truth in truths
    )
    return a, b


@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
@pytest.mark.parametrize(("shared", "verdict"), [(1.0, "shared"), (0.0, "not shared")])
def test_planted_sharing_is_told(measure: str, shared: float, verdict: str) -> None:
    row = overlap(*domains(shared=shared, seed=1), measures=[measure]).frame.iloc[0]
    assert row["verdict"] == verdict
    assert row["index"] == pytest.approx(shared, abs=0.12)
    assert shared == 0 or row["p"] < 0.01


@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
def test_halves_of_the_artists_are_the_two_parts_of_the_value(measure: str) -> None:
    """A's first half with B's second, and the other way round: no picture in both."""
    a, b = domains(shared=0.5)
    row = overlap(a, b, measures=[measure]).frame.iloc[0]
    assert (row["half_1"] + row["half_2"]) / 2 == pytest.approx(row["value"] - row["null"])
    turned = np.where(np.isin(a.sides, [0])[:, None], a.values, a.values[::-1])
    moved = overlap(replace(a, values=turned), b, measures=[measure]).frame.iloc[0]
    assert moved["half_1"] + moved["null"] == pytest.approx(row["half_1"] + row["null"])
    assert moved["half_2"] + moved["null"] < row["half_2"] + row["null"]


@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
def test_units_that_matter_to_every_class_are_no_sharing(measure: str) -> None:
    """They lift the raw overlap far above chance, and the index not at all."""
    bare = overlap(*domains(shared=0, common=0), measures=[measure]).frame.iloc[0]
    row = overlap(*domains(shared=0, common=2), measures=[measure]).frame.iloc[0]
    assert row["value"] > bare["value"] + 0.1
    assert abs(row["index"]) < 0.15 and row["verdict"] != "shared"


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
def test_p_is_uniform_without_sharing(measure: str) -> None:
    found = [
        overlap(
            *domains(shared=0, units=60, seed=seed),
            measures=[measure],
            n_permutations=99,
            seed=seed,
        )
        .frame["p"]
        .iloc[0]
        for seed in range(120)
    ]
    assert kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
def test_an_artists_marks_are_no_sharing(measure: str) -> None:
    """Artists who drew in both domains leave their own marks there; classes share nothing."""
    generator = np.random.default_rng(0)
    labels, sides = np.repeat(np.arange(15), 8), np.tile([0, 1], 60)
    marks = generator.normal(size=(15, 2, 300))  # of each half's artists, alike in both domains
    a, b = (
        Scores(truth[labels] + 2 * marks[labels, sides], labels, sides, np.arange(300) // 50)
        for truth in generator.normal(size=(2, 15, 300))
    )
    row = overlap(a, b, measures=[measure]).frame.iloc[0]
    assert row["value"] == pytest.approx(row["null"], abs=0.03) and row["p"] > 0.01


def test_by_hand() -> None:
    """Four classes, two units kept of four: every overlap can be counted."""
    kept = {0: (0, 1), 1: (0, 2), 2: (1, 3), 3: (2, 3)}
    values = np.zeros((8, 4))
    for label, units in kept.items():
        values[2 * label : 2 * label + 2, list(units)] = 1.0
    same = Scores(values, np.repeat(range(4), 2), [0, 1] * 4, np.zeros(4))
    told = overlap(same, same, measures=["jaccard", "dice"], share=0.5).frame.set_index("measure")
    both, either = (
        np.array([len(how(set(kept[c]), set(kept[d]))) for c in kept for d in kept if c != d])
        for how in (set.intersection, set.union)
    )
    assert (told[["value", "ceiling", "index"]] == 1).all(axis=None)
    assert told["null"]["jaccard"] == pytest.approx(np.mean(both / either))
    assert told["null"]["dice"] == pytest.approx(np.mean(both / 2))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_judged_overlap_is_the_share_of_parts_in_common(share: float) -> None:
    """Of every class 20 parts in a hundred, of which a share is the other domain's too."""
    ours = np.kron(np.eye(5), np.ones(20)) * np.random.default_rng(0).uniform(1, 2, 100)
    theirs = ours.copy()
    for label in range(5):  # the others change places with parts that no class has
        away = 20 * label + np.arange(round(20 * share), 20)
        theirs[label, away] = 0
    theirs = np.concatenate([theirs, np.where(theirs == 0, ours, 0)], axis=1)
    ours = np.concatenate([ours, np.zeros_like(ours)], axis=1)
    labels, sides = np.repeat(range(5), 4), [0, 1] * 10
    a, b = (Scores(each[labels], labels, sides, np.zeros(200)) for each in (ours, theirs))
    row = overlap(a, b, measures=[PRIMARY_OVERLAP], share=0.5, n_permutations=9).frame.iloc[0]
    assert row["index"] == row["value"] == pytest.approx(share) and row["null"] == 0


def test_what_is_negligible_belongs_to_no_circuit() -> None:
    scores = np.array([[5.0, -2.0, 0.04, 0.06, 0.0, 1.0], np.zeros(6)])
    quiet = np.array([[5.0, 4.0, 3.0, 2.0, 0.006, 0.004]])  # a thousandth of the largest is .005
    groups = np.array([0, 0, 0, 0, 1, 1])
    kept = best_of_groups(scores, groups, 1.0)
    assert kept.tolist() == [[True, True, False, True, False, True], [False] * 6]
    assert best_of_groups(quiet, groups, 1.0).tolist() == [[*[True] * 5, False]]
    assert best_of_groups(scores, groups, 0.5)[0].tolist() == [True, True, *[False] * 3, True]
    signed = best_of_groups(scores, groups, 1.0, signed=True)[0]
    assert signed.tolist() == [True, False, False, True, False, True]
    signed = best_of_groups(scores, groups, 1.0, signed=True, negligible=0)
    assert signed.tolist() == [[True, False, True, True, False, True], [False] * 6]
    for name in ("dice", "jaccard"):
        compare, _ = MEASURES_OF_OVERLAP[name]
        assert compare(kept[:1], kept[1:]) == compare(kept[1:], kept[1:]) == 0


def test_what_is_denied_beside_the_readout_says_why() -> None:
    terms, of_others = np.array([0.14, 0.06, 0.8]), np.array([0.14, 0.02, 0.8])
    denied, partly = (
        Index(0.11, 0.08, 0.13, "not shared", ""),
        Index(0.15, 0.12, 0.18, "partly", ""),
    )
    told = beyond_readout(denied, partly, terms, of_others, 0.3, NO_MORE)
    assert (told.verdict, told.reason) == ("unknown", NO_MORE)
    assert beyond_readout(denied, partly, terms, of_others, 0.005, NO_MORE) is denied
    explained = beyond_readout(
        partly, partly, np.array([0.75, 0.7, 0.8]), of_others, 0.005, NO_MORE
    )
    assert np.isnan(explained.value) and explained.reason.startswith(READER)
    silent = Index(np.nan, np.nan, np.nan, "unknown", "no room")
    assert beyond_readout(denied, silent, terms, of_others, 0.3, NO_MORE) is silent


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(2, 3, 40))
    compare, _ = MEASURES_OF_OVERLAP["rank correlation"]
    slow = [[spearmanr(a, b).statistic for b in y] for a in x]
    np.testing.assert_allclose(compare(x, y), slow, atol=1e-12)


def test_nodes_are_sums_of_the_edges_that_leave_them() -> None:
    wiring = wire(open_vit())
    values = np.random.default_rng(4).normal(size=(8, wiring.n_edges))
    found = Attribution(wiring, values, "EAP", "margin", labels=list("aabbccdd"))
    nodes = Scores.of(found, [0, 1] * 4, level="node")
    leaving = {name: [] for name in wiring.writers}
    for edge, name in enumerate(wiring.names):
        leaving[name.split("->")[0]].append(values[:, edge])
    slow = np.stack([np.sum(edges, axis=0) for edges in leaving.values()], axis=1)
    np.testing.assert_allclose(nodes.values, slow, atol=1e-12)
    edges = Scores.of(found, [0, 1] * 4)
    table = overlap(edges, edges, level="edge", domains=("real", "sketch"))
    assert set(EVIDENCE) <= set(table.frame.columns)
    assert table.frame["measure"].tolist() == [*MEASURES_OF_OVERLAP, "jaccard, nodes given"]


def test_refusals() -> None:
    a, b = domains(shared=1.0, classes=4)
    words: dict[str, Any] = {}
    refuses(SpecificationError, "jaccard", overlap, a, b, measures=["jacard"])
    refuses(SampleError, "share of 0", overlap, a, b, share=0, **words)
    few = Scores(a.values[:16], a.labels[:16], a.sides[:16], a.groups)
    refuses(SampleError, "2 classes", overlap, few, b)
    refuses(ShapeError, "units", overlap, a, domains(shared=1.0, classes=4, units=100)[1])
    with pytest.raises(SampleError, match="none in half 1"):
        overlap(Scores(a.values, a.labels, [0] * len(a.sides), a.groups), b)
    refuses(ShapeError, "a label and a side", Scores, a.values, a.labels[:3], a.sides, a.groups)
    wiring = wire(open_vit())
    bare = Attribution(wiring, np.zeros((2, wiring.n_edges)), "EAP", "m")
    refuses(DataError, "without labels", Scores.of, bare, [0, 1])


def read_out(
    *, own: float, readout: float, classes: int = 12, units: int = 300
) -> tuple[Scores, Scores]:
    """Two domains that share a class's readout, and beside it parts of the class by `own`."""
    generator = np.random.default_rng(8)
    shared, leads = generator.normal(size=(2, classes, units))
    labels, sides = np.repeat(np.arange(classes), 8), np.tile([0, 1], 4 * classes)

    def noisy(truth: np.ndarray) -> np.ndarray:
        return truth[labels] + generator.normal(size=(len(labels), units))

    found = []
    for _ in range(2):
        parts = np.sqrt(own) * shared + np.sqrt(1 - own) * generator.normal(size=(classes, units))
        foreign = Scores(noisy(readout * leads), labels, sides, np.zeros(units))
        values = noisy(parts + readout * leads)
        found.append(Scores(values, labels, sides, np.zeros(units), readout=foreign))
    return found[0], found[1]


def test_what_is_read_out_of_any_picture_is_no_sharing() -> None:
    """Domains with parts of their own agree in what leads to a class, as other pictures do."""
    found = read_out(own=0, readout=1.5)
    plain = overlap(*(replace(each, readout=None) for each in found)).frame.iloc[0]
    assert plain["verdict"] in ("shared", "partly shared") and plain["p"] < 0.01
    assert plain["null_kind"] == "another class of the other domain"
    row = overlap(*found).frame.iloc[0]
    assert row["value"] == plain["value"] and row["null"] > plain["null"]
    assert row["null_kind"] == "the class's readout, on pictures of other classes"
    assert row["verdict"] == "unknown" and row["reason"].startswith("parts overlap no more than")
    assert row["index"] < 0.2 and row["p"] > 0.05


def test_parts_beyond_the_readout_are_shared() -> None:
    found = read_out(own=1, readout=1.0)
    row = overlap(*found).frame.iloc[0]
    assert row["verdict"] == "shared" and row["index"] == pytest.approx(1, abs=0.1)
    assert row["p"] < 0.01
    a, b = domains(shared=0.5)  # what matters to every class is more than a readout of noise
    silent = [
        replace(each.readout, groups=a.groups) for each in read_out(own=1, readout=0.0, classes=15)
    ]
    weak = overlap(replace(a, readout=silent[0]), replace(b, readout=silent[1])).frame.iloc[0]
    assert weak["null_kind"] == "another class of the other domain"
    assert weak["index"] == overlap(a, b).frame["index"].iloc[0]


def test_the_readout_is_compared_with_the_other_domain_by_hand() -> None:
    a, b = read_out(own=0.5, readout=1.0, classes=5, units=40)
    row = overlap(a, b, measures=["weighted jaccard"]).frame.iloc[0]
    compare, _ = MEASURES_OF_OVERLAP["weighted jaccard"]
    assert a.readout is not None and b.readout is not None
    slow = []
    for label in range(5):
        for half in (0, 1):
            for one, two in ((a, b.readout), (a.readout, b)):
                x, y = (
                    each.values[(each.labels == label) & (each.sides == side)].mean(axis=0)
                    for each, side in ((one, half), (two, 1 - half))
                )
                slow.append(compare(x[None], y[None])[0, 0])
    assert row["null"] == pytest.approx(np.mean(slow))


def test_a_reader_that_leaves_no_room_is_named() -> None:
    row = overlap(*read_out(own=0, readout=8.0)).frame.iloc[0]
    assert row["verdict"] == "unknown" and np.isnan(row["index"]) and np.isnan(row["p"])
    assert row["reason"].startswith("the reader explains it: ")


def test_parts_make_no_class_that_the_model_does_not_tell() -> None:
    a, b = domains(shared=1.0)
    noise = np.random.default_rng(0).normal(size=len(a.values))
    told = overlap(replace(a, gap=noise + 2), replace(b, gap=noise + 2)).frame.iloc[0]
    assert told["verdict"] == "shared"
    blind = overlap(replace(a, gap=noise + 2), replace(b, gap=noise)).frame.iloc[0]
    assert blind["verdict"] == "unknown" and np.isnan(blind["index"])
    assert blind["reason"].startswith("the model does not tell classes in B")
    assert blind["value"] == told["value"]  # what was measured stays
    wiring = wire(open_vit())
    values = np.random.default_rng(4).normal(size=(8, wiring.n_edges))
    edges = Scores(values, list("aabbccdd"), [0, 1] * 4, np.zeros(wiring.n_edges), wiring.edges)
    silent = replace(edges, gap=-np.ones(8))
    assert set(overlap(silent, silent).frame["verdict"]) == {"unknown"}  # rewired ones, too


def test_where_another_class_denies_the_readout_is_not_asked() -> None:
    """A common readout must neither turn what is found into a denial nor mix the numbers of two."""
    a, b = domains(shared=0.0, common=0)
    leads = np.random.default_rng(1).normal(size=(15, 300))[a.labels]
    readout = [
        Scores(leads + noise, a.labels, a.sides, a.groups)
        for noise in np.random.default_rng(2).normal(size=(2, *leads.shape))
    ]
    found = [replace(each, readout=one) for each, one in zip((a, b), readout, strict=True)]
    row, plain = (overlap(*pair).frame.iloc[0] for pair in (found, (a, b)))
    assert row["verdict"] == plain["verdict"] == "not shared"
    assert row["null"] == plain["null"] and row["p"] == plain["p"]
    little = domains(shared=0.15, common=0, seed=3)
    some = [replace(each, readout=one) for each, one in zip(little, readout, strict=True)]
    assert overlap(*little).frame["p"].iloc[0] < 0.05
    assert overlap(*some).frame["verdict"].iloc[0] != "not shared"


def test_nodes_take_readout_and_gap_along() -> None:
    wiring = wire(open_vit())
    values = np.random.default_rng(4).normal(size=(8, wiring.n_edges))
    labels, sides = list("aabbccdd"), [0, 1] * 4
    other = Scores(values[::-1], labels, sides, np.zeros(wiring.n_edges))
    edges = Scores(values, labels, sides, np.zeros(wiring.n_edges), gap=np.ones(8), readout=other)
    nodes = edges.leaving(wiring)
    assert nodes.readout is not None and nodes.gap is edges.gap
    np.testing.assert_array_equal(nodes.readout.values, other.leaving(wiring).values)
    np.testing.assert_array_equal(nodes.readout.values, nodes.values[::-1])
    refuses(ShapeError, "3 gaps", replace, edges, gap=np.ones(3))
    refuses(ShapeError, "units read out", replace, edges, readout=nodes)


def test_kernel_counts_unfolded_trees() -> None:
    """A label of round r is the tree of r steps upstream: counted here from whole trees."""
    names = ["input->m0", "m0->m1", "m1->logits"], ["input->m0", "input->m1", "m1->logits"]
    a, b = (Circuit.of(wire(open_vit()), edges) for edges in names)

    def tree(edges: list[str], node: str, depth: int) -> str:
        above = [edge.split("->")[0] for edge in edges if edge.endswith(f"->{node}")]
        return f"{node}({sorted(tree(edges, u, depth - 1) for u in above)})" if depth else node

    counts = [
        Counter(
            f"{depth} {tree(edges, node, depth)}"
            for depth in range(3)
            for node in ("input", "m0", "m1", "logits")
        )
        for edges in names
    ]
    dot = sum(counts[0][label] * counts[1][label] for label in counts[0])
    norms = [np.sqrt(sum(n**2 for n in count.values())) for count in counts]
    assert weisfeiler_lehman(a, b, rounds=2) == pytest.approx(dot / (norms[0] * norms[1]))
    assert weisfeiler_lehman(a, b) == weisfeiler_lehman(b, a) < weisfeiler_lehman(a, a) == 1


def test_kernel_sees_which_input_of_a_head_an_edge_enters() -> None:
    wiring = wire(open_vit())
    key, query = (Circuit.of(wiring, [f"input->a0.h0<{kind}>", "a0.h0->logits"]) for kind in "kq")
    assert weisfeiler_lehman(key, query) < 1
    with pytest.raises(SpecificationError, match="as graphs"):
        weisfeiler_lehman(key, key.without().pruned(), rounds=0)


@pytest.mark.parametrize("measure", MEASURES_OF_OVERLAP)
def test_a_domain_without_circuits_is_no_denial(measure: str) -> None:
    """Scores of pure noise are not found again by other artists: they tell nothing of sharing."""
    a, b = domains(shared=1.0, seed=3)
    noise = np.random.default_rng(4).normal(size=b.values.shape)
    row = overlap(a, replace(b, values=noise), measures=[measure]).frame.iloc[0]
    assert row["verdict"] == "unknown" and np.isnan(row["index"])
    assert row["reason"].startswith("circuits of B are not found again by other artists")

"""Circuits: chosen, written in other tools' forms, and put to the test on known towers."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import (
    DISCOVERERS,
    Attribution,
    Chain,
    Circuit,
    Runs,
    Wiring,
    attribute,
    discover,
    effects,
    faithfulness,
    minimality,
    path_patch,
    sweep,
    wire,
)
from interp.circuits.discovery.faithfulness import measure_masks
from interp.core.artists import artist_column, artists_of
from interp.core.errors import DataError, NumericsError, ShapeError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import EVIDENCE, Table
from tests.circuits.conftest import Function, bent, open_vit
from tests.refusals import refuses


def planted(*, backup: bool = False) -> Chain:
    """Five blocks of which two matter: m0 doubles coordinate 0 into 1, m3 brings 1 to 2; 2 is read.

    With a backup, m4 does m3's work as well.
    """

    def move(source: int, target: int, gain: float) -> Function:
        def body(x: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            out[..., target] = gain * x[..., source]
            return out

        return Function(body)

    idle = Function(lambda x: 0.1 * x.roll(1, dims=-1) * torch.tensor([0.0, 0, 0, 1, 1]))
    last = move(1, 2, 1.0) if backup else idle
    blocks = [move(0, 1, 2.0), idle, idle, move(1, 2, 1.0), last]
    return Chain(blocks, pool=Function(lambda x: x[:, 0, 2:3].repeat(1, 2)))


TRUE = ("input->m0", "m0->m3", "m3->logits")


@pytest.fixture
def runs() -> dict[str, Any]:
    torch.manual_seed(20)
    clean, corrupt = torch.randn(2, 8, 1, 5)
    clean[..., 0] += 4.0
    corrupt[..., 0] -= 4.0
    corrupt[..., 1:3] = clean[..., 1:3]
    return {"clean": clean, "corrupt": corrupt, "metric": lambda out: out[:, 0]}


@pytest.mark.parametrize("how", DISCOVERERS)
def test_every_way_finds_the_planted_circuit(how: str, runs: dict[str, Any]) -> None:
    tower = planted()
    scores = attribute(tower, **runs, method="EAP")
    size = {"n": 3} if how in ("top-n", "greedy") else {"threshold": 1.0}
    circuit = discover(scores, how=how, runs=Runs(tower, **runs), **size)
    assert circuit.edges == TRUE and circuit.nodes == ("input", "m0", "m3", "logits")
    assert circuit.facts["how"] == how and circuit.facts["method"] == "EAP"


@pytest.mark.parametrize("how", ["top-n", "threshold", "greedy"])
def test_ways_agree_with_their_definitions(how: str, wired: Any) -> None:
    tower, clean, corrupt = wired
    scores = attribute(tower, clean=clean, corrupt=corrupt, metric=bent, method="EAP")
    size = np.abs(scores.scores)
    words: dict[str, Any] = {"threshold": np.sort(size)[-12]} if how == "threshold" else {"n": 12}
    found = discover(scores, how=how, prune=False, **words)
    kept = set(np.argsort(-size)[:12].tolist())
    if how == "greedy":
        ends = scores.wiring.owners[scores.wiring.edges[:, 1]]
        kept = set()
        for _ in range(12):
            nodes = {len(scores.wiring.nodes) - 1} | {scores.wiring.edges[e, 0] for e in kept}
            open_edges = [e for e in range(len(size)) if ends[e] in nodes and e not in kept]
            kept.add(max(open_edges, key=lambda e: size[e]))
    assert set(np.flatnonzero(found.kept).tolist()) == kept


@pytest.mark.parametrize("wired", ["text"], indirect=True)
def test_acdc_equals_the_naive_loop(wired: Any) -> None:
    """The same edges go when each is tried by path patching, in a run of its own."""
    tower, clean, corrupt = wired
    words: dict[str, Any] = {"clean": clean, "corrupt": corrupt, "metric": bent}
    scores = attribute(tower, **words, method="EAP")
    size = np.abs(scores.scores)
    cut = float(np.sort(size)[-12])
    runs = Runs(tower, clean, corrupt, bent)
    found = discover(scores, how="ACDC", threshold=cut, runs=runs, prune=False)
    with torch.no_grad():
        whole = bent(tower(clean)).numpy()
    removed: list[str] = []
    now = 0.0
    for edge in np.lexsort([size, -scores.wiring.edges[:, 1]]):
        tried = [*removed, scores.wiring.names[edge]]
        then = np.abs(path_patch(tower, tried, **words) - whole).mean()
        if then - now < cut:
            removed, now = tried, then
    assert set(found.edges) == set(scores.wiring.names) - set(removed)
    assert 0 < len(removed) < len(size)


def test_pruning_leaves_paths_from_input_to_output() -> None:
    wiring = wire(planted())
    dangling = ["input->m1", "m2->logits", "m1->m2", "m0->m4"]
    pruned = Circuit.of(wiring, [*TRUE, *dangling[:2], dangling[3]]).pruned()
    assert pruned.edges == TRUE
    joined = Circuit.of(wiring, [*TRUE, *dangling[:3]]).pruned()
    assert set(joined.edges) == {*TRUE, *dangling[:3]}


def test_refusals_of_discovery(runs: dict[str, Any]) -> None:
    scores = attribute(planted(), **runs)
    for words, match in (
        ({"how": "topn", "n": 3}, "top-n"),
        ({"n": 0}, "0 edges"),
        ({"n": 10**6}, "1000000 edges"),
        ({}, "n or share"),
        ({"how": "threshold"}, "threshold"),
        ({"how": "ACDC", "threshold": 1.0}, "runs"),
        ({"how": "threshold", "threshold": 1e9}, "0 edges"),
    ):
        refuses(SpecificationError, match, discover, scores, **words)


def test_the_planted_circuit_is_faithful_complete_and_minimal(runs: dict[str, Any]) -> None:
    tower = planted()
    circuit = Circuit.of(wire(tower), TRUE)
    table = faithfulness(tower, circuit, **runs).frame.set_index("measure")
    alone, without = table.loc["circuit alone"], table.loc["model without the circuit"]
    assert alone["value"] == pytest.approx(1, abs=1e-5)
    assert without["value"] == pytest.approx(0, abs=1e-5)
    # one edge only joins two layers of this tower: a random circuit of its profile is itself
    assert np.isnan(alone["index"]) and "ceiling - null" in alone["reason"] and alone["p"] == 1
    assert (table["n_edges"] == 3).all() and (table["unit"] == "pair").all()
    edges = minimality(tower, circuit, **runs).frame
    assert edges["edge"].tolist() == list(TRUE)
    assert np.allclose(edges["value"], 1, atol=1e-5) and (edges["p"] < 0.05).all()


def test_a_wrong_circuit_is_not_faithful(runs: dict[str, Any]) -> None:
    wrong = Circuit.of(wire(planted()), ["input->m1", "m1->m2", "m2->logits"])
    table = faithfulness(planted(), wrong, **runs).frame.set_index("measure")
    assert abs(table.loc["circuit alone", "value"]) < 0.2
    assert table.loc["model without the circuit", "value"] > 0.8


def test_a_backup_makes_a_faithful_circuit_incomplete(runs: dict[str, Any]) -> None:
    half = Circuit.of(wire(planted(backup=True)), TRUE)
    table = faithfulness(planted(backup=True), half, **runs).frame.set_index("measure")
    assert table.loc["circuit alone", "value"] == pytest.approx(0.5, abs=1e-5)
    whole = Circuit.of(half.wiring, [*TRUE, "m0->m4", "m4->logits"])
    table = faithfulness(planted(backup=True), whole, **runs).frame.set_index("measure")
    assert table.loc["circuit alone", "value"] == pytest.approx(1, abs=1e-5)
    assert table.loc["model without the circuit", "value"] == pytest.approx(0, abs=1e-5)


def test_an_idle_edge_costs_nothing(runs: dict[str, Any]) -> None:
    fat = Circuit.of(wire(planted()), [*TRUE, "m1->m2"])
    edges = minimality(planted(), fat, **runs).frame.set_index("edge")
    assert edges.loc["m1->m2", "value"] == 0 and edges.loc["m1->m2", "p"] == 1


def test_curve_and_areas_by_hand(runs: dict[str, Any]) -> None:
    tower = planted()
    scores = attribute(tower, **runs, method="EAP")
    table = faithfulness(tower, scores, **runs, shares=(0.05, 0.15, 1.0), n_random=3)
    curve = table.frame[table.frame["measure"] == "circuit alone"]
    assert curve["n_edges"].tolist() == [1, 3, 21]
    np.testing.assert_allclose(curve["value"], [0, 1, 1], atol=1e-5)
    shares = np.array([0, 1, 3, 21]) / 21
    areas = table.frame.set_index("measure")
    by_hand = np.trapezoid([0, 0, 1, 1], shares)
    assert areas.loc["CPR", "value"] == pytest.approx(by_hand, abs=1e-5)
    assert areas.loc["CMD", "value"] == pytest.approx(1 - by_hand, abs=1e-5)
    assert set(EVIDENCE) <= set(table.frame.columns)


def test_whole_and_empty_are_the_two_runs_and_batches_change_nothing(wired: Any) -> None:
    tower, clean, corrupt = wired
    wiring = wire(tower)
    masks = np.random.default_rng(3).random((6, wiring.n_edges)) < 0.5
    masks[0], masks[1] = True, False
    words = {"clean": clean, "corrupt": corrupt, "metric": bent}
    values, ends = measure_masks(tower, wiring, masks, **words)
    np.testing.assert_array_equal(values[:2], ends)
    for batch_size in (1, 2, 18):
        again, _ = measure_masks(tower, wiring, masks, **words, batch_size=batch_size)
        np.testing.assert_allclose(again, values, rtol=0, atol=1e-12)


def test_random_circuits_have_the_size_and_layers_of_the_circuit() -> None:
    from interp.circuits.discovery.faithfulness import _random_masks

    wiring = wire(open_vit())
    circuit = discover(
        Attribution(wiring, np.random.default_rng(1).random((1, wiring.n_edges)), "random", "m"),
        n=20,
        prune=False,
    )
    draws = _random_masks(circuit, 5, seed=0)
    layers = wiring.layers

    def profile(kept: np.ndarray) -> list[tuple[int, int]]:
        ends = wiring.edges[kept]
        return sorted(zip(layers[ends[:, 0]], layers[wiring.owners[ends[:, 1]]], strict=True))

    for draw in draws:
        assert profile(draw) == profile(circuit.kept)
        assert draw.sum() == len(circuit)
    assert any((a != b).any() for a, b in itertools.pairwise(draws))


def test_classes_are_the_units_where_pairs_are_known(pictures: ImageTable, colours: Any) -> None:
    pairs = pictures.select(domain="A").pairs(same="domain", differ="label")
    read = {
        side: pairs.images.tensors(colours, rows.tolist())[:, None] / 100
        for side, rows in (("clean", pairs.clean_rows), ("corrupt", pairs.corrupt_rows))
    }
    tower = Chain([Function(torch.relu), Function(torch.tanh)], pool=Function(lambda x: x[:, 0]))
    words: dict[str, Any] = {**read, "metric": lambda out: out[:, 0], "pairs": pairs}
    scores = attribute(tower, **words)
    assert scores.labels is not None and len(set(scores.labels)) == 5
    circuit = Circuit.of(scores.wiring, ["input->m0", "m0->logits"])
    found = faithfulness(tower, circuit, **words).frame
    assert set(found["unit"]) == {"class"} and set(found["n_units"]) == {5}


def test_areas_are_withheld_where_their_curve_is(runs: dict[str, Any]) -> None:
    tower = planted()
    scores = attribute(tower, **runs, method="EAP")
    half = runs["clean"].clone()
    half[::2], other = runs["corrupt"][::2], runs["corrupt"].clone()
    other[::2] = runs["clean"][::2]  # the gap has either sign, and none on average
    table = faithfulness(
        tower, scores, **{**runs, "clean": half, "corrupt": other}, shares=(0.05, 0.5), n_random=2
    ).frame
    assert table["value"].isna().all() and table["low"].isna().all()
    assert table["reason"].str.contains("gap").all()


def test_pairs_of_one_class_are_resampled_by_who_drew_them(pictures, colours) -> None:
    of_one = pictures.select(label=pictures.label.iloc[0])
    pairs = of_one.pairs(same="label", differ="domain", clean="A")
    read = {
        side: pairs.images.tensors(colours, rows.tolist())[:, None] / 100
        for side, rows in (("clean", pairs.clean_rows), ("corrupt", pairs.corrupt_rows))
    }
    tower = Chain([Function(torch.relu), Function(torch.tanh)], pool=Function(lambda x: x[:, 0]))
    words: dict[str, Any] = {**read, "metric": lambda out: out[:, 0]}
    circuit = Circuit.of(wire(tower), ["input->m0", "m0->logits"])
    found = faithfulness(tower, circuit, pairs=pairs, **words).frame
    drawn_by = artists_of(of_one.frame)[pairs.clean_rows]
    assert set(found["unit"]) == {artist_column(of_one.frame)} and found["low"].notna().all()
    assert set(found["n_units"]) == {len(set(drawn_by))}
    if len(set(drawn_by)) == len(pairs):  # every pair its own artist: as if pairs were unknown
        alone = faithfulness(tower, circuit, **words).frame
        assert np.allclose(found[["value", "low", "high"]], alone[["value", "low", "high"]])
    swept = effects(sweep(tower, **words, pairs=pairs, axes=("layer",))).frame
    assert set(swept["unit"]) <= {"drawing", "pair"} and swept["low"].notna().all()


def test_refusals_of_faithfulness(runs: dict[str, Any], hand: Chain) -> None:
    empty = Circuit(wire(planted()), np.zeros(21, bool), np.zeros(21))
    circuit = Circuit.of(wire(planted()), TRUE)
    refuses(SpecificationError, "without edges", faithfulness, planted(), empty, **runs)
    refuses(SpecificationError, "without edges", minimality, planted(), empty, **runs)
    with pytest.raises(SpecificationError, match="wired differently"):
        faithfulness(planted(), [circuit, Circuit.of(wire(hand), ["input->m0"])], **runs)
    with pytest.raises(SpecificationError, match="a budget of 10 bytes"):
        faithfulness(planted(), circuit, **runs, memory=10)
    refuses(SpecificationError, "none", faithfulness, planted(), [], **runs)
    with pytest.raises(SpecificationError, match="0 random circuits"):
        faithfulness(planted(), circuit, **runs, n_random=0)
    refuses(SpecificationError, "for a tower of 6", minimality, hand, circuit, **runs)
    with pytest.raises(SpecificationError, match="ignores the output"):
        faithfulness(planted(), circuit, **{**runs, "metric": lambda out: 0 * out[:, 0]})
    with pytest.raises(NumericsError, match="NaN"):
        faithfulness(planted(), circuit, **{**runs, "metric": lambda out: out[:, 0].sqrt()})
    with pytest.raises(DataError, match="identical"):
        faithfulness(planted(), circuit, **{**runs, "corrupt": runs["clean"]})


def test_no_gap_gives_no_share_but_a_reason(runs: dict[str, Any]) -> None:
    """Where clean and corrupt do not differ in the metric's mean, no circuit can be told."""
    words = {**runs, "metric": lambda out: out[:, 0] ** 2}
    row = faithfulness(planted(), Circuit.of(wire(planted()), TRUE), **words).frame.iloc[0]
    assert np.isnan(row["value"]) and np.isnan(row["index"]) and "gap" in row["reason"]


def scored(wiring: Wiring) -> Circuit:
    generator = np.random.default_rng(5)
    return Circuit(
        wiring, generator.random(wiring.n_edges) < 0.3, generator.normal(size=wiring.n_edges)
    )


def test_forms_there_and_back(tmp_path: Path) -> None:
    wiring = wire(open_vit())
    circuit = scored(wiring)
    circuit.to_table().save(tmp_path)
    by_table = Circuit.from_table(Table.load(tmp_path / "circuit.csv"), wiring)
    by_json = Circuit.from_mib(circuit.to_mib(tmp_path / "graph.json"), wiring)
    by_graph = Circuit.from_networkx(circuit.to_networkx(), wiring)
    for other in (by_table, by_json, by_graph):
        assert other.edges == circuit.edges and other.nodes == circuit.nodes
        np.testing.assert_allclose(other.scores[other.kept], circuit.scores[circuit.kept])
    np.testing.assert_allclose(by_json.scores, circuit.scores)


def test_the_json_is_that_of_the_benchmark(tmp_path: Path) -> None:
    wiring = wire(open_vit())
    written = json.loads(scored(wiring).to_mib(tmp_path / "g.json").read_text())
    assert written["cfg"] == {"n_layers": 3, "n_heads": 2}
    assert set(written["nodes"]) == set(wiring.nodes) >= {"input", "a2.h1", "m2", "logits"}
    assert set(written["edges"]["input->a0.h0<q>"]) == {"score", "in_graph"}
    assert len(written["edges"]) == wiring.n_edges


def test_bad_files_and_shapes(tmp_path: Path, hand: Chain) -> None:
    wiring = wire(hand)
    (tmp_path / "bad.json").write_text('{"edges": {"input->m0": {"score": 1}}}')
    for path in ("bad.json", "missing.json"):
        refuses(DataError, r"to_mib|edges of this tower", Circuit.from_mib, tmp_path / path, wiring)
    with pytest.raises(DataError, match="wiring of the tower"):
        Circuit.from_table(scored(wire(planted())).to_table(), wiring)
    refuses(ShapeError, "", Circuit, wiring, np.ones(2, bool), np.ones(2))
    refuses(SiteError, "m0->m1", Circuit.of, wiring, ["m0->m2"])

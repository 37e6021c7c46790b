"""Circuits as values: sets of edges that compare, combine, run and travel through files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp.circuits import Chain, Circuit, overlap, wire
from interp.core.errors import SiteError, SpecificationError
from tests.circuits.conftest import open_vit
from tests.refusals import refuses

BLOCKS = [torch.nn.Linear(2, 2, bias=False) for _ in range(3)]
TOWER = Chain(BLOCKS)
WIRING = wire(TOWER)
A = Circuit.of(WIRING, ["input->m0", "m0->m1", "m1->logits"])
B = Circuit.of(WIRING, ["input->m0", "m0->m2", "m2->logits"])


def test_equal_circuits_have_the_same_edges_whatever_their_scores() -> None:
    scored = Circuit(
        WIRING, A.kept.copy(), np.arange(WIRING.n_edges, dtype=float), {"how": "top-n"}
    )
    assert scored == A and hash(scored) == hash(A) and A != B and A != "A"
    assert len({A, scored, B}) == 2


def test_sets_of_edges_combine_as_pythons_sets_do() -> None:
    a, b, every = set(A.edges), set(B.edges), set(WIRING.names)
    assert set((A & B).edges) == a & b and set((A | B).edges) == a | b
    assert set((A - B).edges) == a - b and set((~A).edges) == every - a == set(A.without().edges)
    assert (A & B) <= A <= (A | B) and not A <= B
    assert A.jaccard(B) == len(a & b) / len(a | b) and A.jaccard(A) == 1
    assert np.isnan((A - A).jaccard(B - B))


def test_names_are_taken_out_by_edge_and_by_node() -> None:
    assert A.without("m0->m1").edges == ("input->m0", "m1->logits")
    assert A.without("m1").edges == ("input->m0",)
    refuses(SiteError, "m0->m1", A.without, "m0-m1")


def test_a_circuit_runs_alone() -> None:
    torch.manual_seed(0)
    clean, corrupt = torch.randn(2, 5, 1, 2)
    whole, none = Circuit.of(WIRING, WIRING.names), A - A
    torch.testing.assert_close(whole.run(TOWER, clean=clean, corrupt=corrupt), TOWER(clean))
    torch.testing.assert_close(none.run(TOWER, clean=clean, corrupt=corrupt), TOWER(corrupt))
    m0, m1, _ = BLOCKS  # by hand: only A's edges carry the clean run
    first = m0(clean) - m0(corrupt)
    second = m1(corrupt + m0(corrupt) + first) - m1(corrupt + m0(corrupt))
    by_hand = TOWER(corrupt) + TOWER(second, start_at_layer=3)
    torch.testing.assert_close(A.run(TOWER, clean=clean, corrupt=corrupt), by_hand)


def test_what_is_of_another_tower_is_refused() -> None:
    other = Chain([torch.nn.Identity()])
    with pytest.raises(SpecificationError, match="wired differently"):
        _ = A & Circuit.of(wire(other), ["input->m0"])
    with pytest.raises(SpecificationError, match="wired differently"):
        A.run(other, clean=torch.ones(1, 1, 2), corrupt=torch.zeros(1, 1, 2))


def test_files_give_the_same_circuit_back(tmp_path: Path) -> None:
    scored = Circuit(WIRING, A.kept, np.linspace(-1, 1, WIRING.n_edges))
    back = Circuit.from_mib(scored.to_mib(tmp_path / "circuit.json"), WIRING)
    assert back == scored and np.array_equal(back.scores, scored.scores)


def test_two_circuits_overlap_against_rewired_ones() -> None:
    (row,) = overlap(A, B, domains=("real", "sketch")).frame.to_dict("records")
    assert row["value"] == A.jaccard(B) and row["domain_b"] == "sketch" and row["unit"] == "edge"
    wiring = wire(open_vit())
    kept = np.random.default_rng(0).random(wiring.n_edges) < 0.3
    some = Circuit(wiring, kept, np.zeros(wiring.n_edges))
    (same,) = overlap(some, some).frame.to_dict("records")
    assert same["value"] == 1 and same["null"] < 0.9 and same["index"] == 1 and same["p"] < 0.05
    assert "no interval" in same["reason"] and np.isnan(same["low"])

"""Every method, on models whose circuits are known: does it see what is there, and nothing else?"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interp import circuits
from interp.circuits.planted.certification import draw_partners, margin_task
from interp.circuits.planted.model import MarginTask
from interp.circuits.planted.world import DOMAINS
from tests.circuits.planted_models import model

pytestmark = pytest.mark.slow

CONDITIONS = ("all shared", "all separate")

BARS = {
    "exact": 0.999,
    "EAP": 0.95,
    "EAP-IG-inputs": 0.98,
    "EAP-IG-activations": 0.98,
    # blind to what moves attention: in these models the keys by which a glyph is found
    "RelP": 0.8,
    "learned masks": 0.98,
    "ensemble": 0.98,
}
"""Least AUROC of |score| for an edge's being in the circuit; measured: .97 EAP, .85 RelP."""


@cache
def runs(condition: str, domain: str) -> MarginTask:
    """Pictures of a domain, and partners that share neither P nor Q, other places and nuisances."""
    planted, _ = model(condition)
    return margin_task(planted, *draw_partners(planted.world, domain, 16, seed=5))


def truth(condition: str, domain: str) -> circuits.Circuit:
    planted, tower = model(condition)
    edges = [f"{sender}->{reader}" for sender, reader in planted.truth(domain).edges]
    return circuits.Circuit.of(circuits.wire(tower), edges)


def every_way() -> Iterator[Any]:
    """All methods on all models; learned masks take half a minute each: `make test-all`.

    An ensemble is learned masks with another, and joined by a mean of ranks.
    """
    for method, condition, domain in product(circuits.METHODS, CONDITIONS, DOMAINS):
        learned = method in ("learned masks", "ensemble")
        yield pytest.param(method, condition, domain, marks=[pytest.mark.long] * learned)


@pytest.mark.parametrize(("method", "condition", "domain"), list(every_way()))
def test_methods_rank_the_true_edges_first(method: str, condition: str, domain: str) -> None:
    _, tower = model(condition)
    scores = circuits.attribute(
        tower, **runs(condition, domain), method=method, batch_size=16
    ).scores
    found = roc_auc_score(truth(condition, domain).kept, np.abs(scores))
    if method == "random":
        assert 0.2 < found < 0.8
    else:
        assert found >= BARS[method]


@pytest.mark.parametrize("how", circuits.DISCOVERERS)
def test_every_way_finds_the_true_circuit_from_exact_scores(how: str) -> None:
    condition, domain = "all shared", "B"
    _, tower = model(condition)
    words = runs(condition, domain)
    scores = circuits.attribute(tower, **words, method="exact", batch_size=16)
    wanted = truth(condition, domain)
    felt = float(np.abs(scores.scores[wanted.kept]).min())
    size: dict[str, Any] = (
        {"n": len(wanted)} if how in ("top-n", "greedy") else {"threshold": felt / 4}
    )
    found = circuits.discover(
        scores, how=how, runs=circuits.Runs(tower, **words), prune=False, **size
    )
    assert set(found.edges) == set(wanted.edges)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_true_circuit_is_faithful_and_complete(condition: str) -> None:
    _, tower = model(condition)
    table = circuits.faithfulness(
        tower, truth(condition, "A"), **runs(condition, "A"), n_random=2
    ).frame.set_index("measure")
    assert table.loc["circuit alone", "value"] > 0.95
    assert abs(table.loc["model without the circuit", "value"]) < 0.05
    assert table.loc["circuit alone", "null"] < 0.2 and table.loc["circuit alone", "index"] > 0.9


@pytest.mark.parametrize(
    ("condition", "share"),
    [("all shared", 1.0), ("all separate", 0.0), ("rotated code", 1.0), ("rewired", 0.0)],
)
def test_a_domains_circuit_in_the_other_domain(condition: str, share: float) -> None:
    """Shared: A's circuit does B's work. Separate: it does none of it. Nothing in between."""
    _, tower = model(condition)
    row = circuits.faithfulness(
        tower, truth(condition, "A"), **runs(condition, "B"), n_random=1
    ).frame
    assert row["value"].iloc[0] == pytest.approx(share, abs=0.05)

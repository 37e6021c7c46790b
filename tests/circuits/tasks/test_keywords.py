"""Keywords in groups: every public door refuses unknown and missing ones in the same words."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

from interp import circuits
from interp.circuits.patching.ablate import AblationOptions, AblationOptionsKeywords
from interp.circuits.patching.sweep import SweepOptions, SweepOptionsKeywords
from interp.circuits.subspaces.fit_subspace import FitKeywords, FitRecipe
from interp.circuits.subspaces.interchanges import DasKeywords, DasTask
from interp.circuits.tasks.pairs import (
    ClassTask,
    ClassTaskKeywords,
    Crossing,
    CrossingKeywords,
    PairedRuns,
    PairedRunsKeywords,
    PairTask,
    PairTaskKeywords,
)
from interp.core.arguments import Budget, BudgetKeywords, Room, RoomKeywords
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from tests.refusals import refuses

ONES = torch.ones(1, 2, 1)
TOWER = circuits.Chain([torch.nn.Identity()])
RUNS: dict[str, Any] = {"clean": ONES, "corrupt": 0 * ONES, "metric": lambda out: out[:, 0]}
IMAGES = ImageTable(
    pd.DataFrame(
        {"label": ["cat", "dog"], "domain": "A", "split": "test", "path": "", "caption": ""}
    )
)
PAIRS = IMAGES.pairs(same="domain", differ="label")
CIRCUIT = circuits.Circuit.of(circuits.wire(TOWER), ["input->logits"])
HEAD = Classifier(torch.eye(3), ("ant", "bee", "cat"))
CROSSING: dict[str, Any] = {"domain_a": "A", "domain_b": "B", "sites": "hook_embed"}
FIT: dict[str, Any] = {"base": ONES, "source": ONES, "metric": RUNS["metric"], "k": 1}
EDGES = {"upstream": "hook_embed", "downstream": "blocks.0.hook_mlp_out", "baseline": "zero"}

DOORS: dict[str, Callable[..., Any]] = {
    "sweep": lambda **how: circuits.sweep(TOWER, **RUNS, **how),
    "screen": lambda **how: circuits.screen(TOWER, **RUNS, **how),
    "ablate": lambda **how: circuits.ablate(TOWER, ONES, metric=RUNS["metric"], **how),
    "localise": lambda **how: circuits.localise(TOWER, PAIRS, **how),
    "transplant": lambda **how: circuits.transplant(TOWER, IMAGES, **CROSSING, **how),
    "das_among": lambda **how: circuits.das(TOWER, IMAGES, **CROSSING, **how),
    "fit_subspace": lambda **how: circuits.fit_subspace(TOWER, "hook_embed", **FIT, **how),
    "attribute": lambda **how: circuits.attribute(TOWER, **RUNS, **how),
    "faithfulness": lambda **how: circuits.faithfulness(TOWER, (), **RUNS, **how),
    "minimality": lambda **how: circuits.minimality(TOWER, CIRCUIT, **RUNS, **how),
    "unit_faithfulness": lambda **how: circuits.unit_faithfulness(TOWER, {}, **RUNS, **how),
    "channel_edges": lambda **how: circuits.channel_edges(TOWER, ONES, **EDGES, **how),
    "channel_circuit": lambda **how: circuits.channel_circuit(
        TOWER, ONES, metric=RUNS["metric"], **how
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_unknown_keywords_are_refused_with_the_nearest(name: str) -> None:
    wanted = f"Cannot call {name}: given keyword 'batchsize', .* mean batch_size"
    refuses(SpecificationError, wanted, DOORS[name], batchsize=3)


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: circuits.attribute(TOWER, clean=ONES, metric=RUNS["metric"]), "corrupt"),
        (lambda: circuits.faithfulness(TOWER, (), clean=ONES, corrupt=ONES), "metric"),
        (lambda: circuits.screen(TOWER, corrupt=ONES, metric=RUNS["metric"]), "clean"),
        (lambda: circuits.localise(TOWER, PAIRS, preprocess=len), "classifier"),
        (lambda: circuits.das(TOWER, IMAGES, **CROSSING, classifier=HEAD), "preprocess"),
        (lambda: circuits.transplant(TOWER, IMAGES, **CROSSING), "classifier and no preprocess"),
    ],
)
def test_missing_keywords_are_named(call: Callable[[], Any], missing: str) -> None:
    refuses(SpecificationError, f"given no {missing}, right .* Pass ", call)


def test_a_mistyped_argument_of_the_function_itself_is_suggested_too() -> None:
    with pytest.raises(SpecificationError, match=r"keyword 'methd'.*mean method"):
        circuits.attribute(TOWER, **RUNS, methd="EAP")


@pytest.mark.parametrize(
    ("group", "value"),
    [
        (RoomKeywords, Room),
        (BudgetKeywords, Budget),
        (ClassTaskKeywords, ClassTask),
        (CrossingKeywords, Crossing),
        (PairTaskKeywords, PairTask),
        (PairedRunsKeywords, PairedRuns),
        (SweepOptionsKeywords, SweepOptions),
        (AblationOptionsKeywords, AblationOptions),
        (FitKeywords, FitRecipe),
        (DasKeywords, DasTask),
    ],
)
def test_a_group_has_the_fields_of_the_value_it_becomes(group: Any, value: Any) -> None:
    fields = value.__dataclass_fields__
    assert set(group.__annotations__) == set(fields)
    required = {
        name for name, each in fields.items() if repr(each.default).startswith("<dataclasses")
    }
    assert group.__required_keys__ == required

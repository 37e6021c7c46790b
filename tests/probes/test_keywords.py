"""Keywords in groups: the doors of probes refuse unknown and missing ones, with the nearest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp import probes
from interp.circuits import Chain
from interp.core.arguments import Resampling, ResamplingKeywords
from interp.core.edits.edits import Answering, AnsweringKeywords
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.probes.dictionaries.train_dictionaries import Descent, DescentKeywords
from interp.probes.representational_similarity.similarity import (
    ComparisonKeywords,
    ComparisonOptions,
)
from tests.refusals import refuses

TOWER = Chain([torch.nn.Identity()])
ROWS = {"label": ["cat", "dog"], "domain": "A", "split": "test", "path": "", "caption": ""}
IMAGES = ImageTable(pd.DataFrame(ROWS))
FEATURES = probes.Features({"hook_embed": np.eye(2)}, IMAGES.frame)
CODE = probes.LinearCode(torch.zeros(2), torch.eye(2), torch.eye(2))
ENDS: dict[str, Any] = {"source": "A", "target": "B"}

DOORS: dict[str, Callable[..., Any]] = {
    "similarity": lambda **how: probes.similarity(FEATURES, **how),
    "erasure": lambda **how: probes.erasure(TOWER, IMAGES, "*", **how),
    "ablate_shared": lambda **how: probes.ablate_shared(
        CODE, TOWER, IMAGES, "hook_embed", **ENDS, **how
    ),
    "train_dictionaries": lambda **how: probes.train_dictionaries(
        FEATURES, "hook_embed", probes.TopK(1), width=1, **how
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_unknown_keywords_are_refused_with_the_nearest(name: str) -> None:
    wanted = f"Cannot call {name}: given keyword 'batchsize', .* mean batch_size"
    refuses(SpecificationError, wanted, DOORS[name], batchsize=3)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("erasure", "preprocess"),
        ("ablate_shared", "preprocess and no classifier and no class_names"),
    ],
)
def test_missing_keywords_are_named(name: str, missing: str) -> None:
    refuses(SpecificationError, f"given no {missing}, right .* Pass ", DOORS[name])


@pytest.mark.parametrize(
    ("group", "value"),
    [
        (ResamplingKeywords, Resampling),
        (AnsweringKeywords, Answering),
        (DescentKeywords, Descent),
        (ComparisonKeywords, ComparisonOptions),
    ],
)
def test_a_group_has_the_fields_of_the_value_it_becomes(group: Any, value: Any) -> None:
    assert set(group.__annotations__) == set(value.__dataclass_fields__)

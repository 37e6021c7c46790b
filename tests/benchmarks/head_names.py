"""Names of heads and MLPs, tested on planted models: whether who writes a class is named after it.

A planted model is read out in three ways. As planted, decoys write nothing into the embedding. Else
a random map reads whatever the class's own read-out does not, so that every part writes something:
in directions of its own, or among those of the classes.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from interp.circuits.planted.model import PlantedBlueprint, PlantedModel
from interp.circuits.planted.vit import Blueprint
from interp.circuits.planted.world import CLASSES, DOMAINS, as_tensor
from interp.core.classifiers import Classifier
from interp.core.seeds import rng
from interp.models import name_heads
from interp.models.attribution.name_heads import NO_NAME
from interp.validation.puzzles import Opened, open_planted

PICTURES = 16
"""Pictures of each class and domain, by four artists."""

OTHERS = 24
"""Words for nothing, beside the eight classes, in random directions of the embedding."""

AS_PLANTED, ANYWHERE, AMONG_CLASSES = "as planted", "anywhere", "among classes"
READINGS = (AS_PLANTED, ANYWHERE, AMONG_CLASSES)
"""What the embedding reads beside the classes: nothing, or all else, in which directions."""

MODEL = ["condition", "tier", "dose", "seed"]
COLUMNS = [*MODEL, "reading", "domain", "part", "writes", "word", "named", "right"]
"""What is known of each part in each domain."""


def score_names(
    blueprint: Blueprint, reading: str = AS_PLANTED, *, n_null: int = 199
) -> pd.DataFrame:
    """One row for each head and MLP in each domain: whether it writes classes, and its name.

    The model is planted, disguised, and asked through pictures of 8 bits, in words for its eight
    classes and for 24 others. `writes` says that the true circuit of a class in this domain ends
    in the part; its name is `right` if that is such a class. A part that writes no class should
    have no name. Among classes it has some of each class in it: there a name is `right` if it is
    that of a class.

    Raises what planting raises.

    >>> found = score_names(Blueprint("all shared", seed=1), n_null=20)
    >>> found[found["writes"]][["part", "named", "right"]].to_numpy().tolist()
    [['a3.h0', True, True], ['a3.h0', True, True]]
    >>> int(found[~found["writes"]]["named"].sum())
    0
    """
    planted: Any = Opened(blueprint).planted
    tower: Any = open_planted(_read_by(planted, reading))
    table = name_heads(
        tower,
        planted.pictures(PICTURES, seed=blueprint.seed),
        _with_others(planted),
        kinds=("head", "mlp"),
        n_words=1,
        preprocess=as_tensor,
        n_null=n_null,
        seed=blueprint.seed,
    )
    rows = [
        {
            "domain": row["domain"],
            "part": node_name(row),
            "word": row["word"],
            "named": row["verdict"] != NO_NAME,
        }
        for row in table.frame.to_dict("records")
        if row["domain"] in DOMAINS
    ]
    found = pd.DataFrame(rows).assign(reading=reading)
    for name in MODEL:
        found[name] = getattr(blueprint, name)
    written = [
        {label for label in CLASSES if (part, "logits") in planted.truth(domain, label).edges}
        for part, domain in zip(found["part"], found["domain"], strict=True)
    ]
    found["writes"] = [bool(labels) for labels in written]
    mixed = set(CLASSES) if reading == AMONG_CLASSES else set()
    true = [word in (labels or mixed) for word, labels in zip(found["word"], written, strict=True)]
    return found.assign(right=found["named"] & np.array(true))[COLUMNS]


def node_name(row: Mapping[Any, Any]) -> str:
    """What circuits call the part of a row.

    >>> node_name({"kind": "head", "layer": 3, "head": 0}), node_name({"kind": "mlp", "layer": 2})
    ('a3.h0', 'm2')
    """
    layer = int(row["layer"])
    return f"m{layer}" if row["kind"] == "mlp" else f"a{layer}.h{int(row['head'])}"


def _stream(purpose: str, blueprint: PlantedBlueprint) -> np.random.Generator:
    """A stream of the blueprint's own: models of one seed share their glyphs and decoys."""
    return rng(f"{purpose}: {blueprint.condition}", blueprint.seed)


def _with_others(planted: PlantedModel[Any]) -> Classifier:
    """The classes as words, and others that stand for nothing."""
    classes = planted.classes
    drawn = _stream("words for nothing", planted.blueprint).normal(size=(OTHERS, classes.shape[1]))
    others = normalize(torch.from_numpy(drawn).to(classes), dim=-1)
    names = [*CLASSES, *(f"word {number}" for number in range(OTHERS))]
    return Classifier(torch.cat([classes, others]), names)


@torch.no_grad()
def _read_by(planted: PlantedModel[Any], reading: str) -> Any:
    """The model with another read-out, which takes nothing from what the class's own reads."""
    source = deepcopy(planted.source)
    if reading == AS_PLANTED:
        return source
    own, classes = source.proj, planted.classes.to(source.proj)
    drawn = torch.from_numpy(_stream("read-out", planted.blueprint).normal(size=own.shape))
    # what is already read: the columns of the projection, as far as they are independent
    axes, sizes, _ = torch.linalg.svd(own, full_matrices=False)
    read = axes[:, sizes > 1e-6 * sizes[0]]
    more = (drawn - read @ (read.T @ drawn)) / own.shape[1] ** 0.5
    if reading == AMONG_CLASSES:
        basis = torch.linalg.qr(classes.T)[0]
        more = more @ basis @ basis.T
    source.proj += more
    return source

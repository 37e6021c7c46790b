"""The models of two results compared with one another, setting by setting."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, SpecificationError
from interp.core.parallel import which_device
from interp.core.progress import track
from interp.core.storage.store import fingerprint
from interp.core.tables import Table, stacked
from interp.study.blocks import Block, open_block, open_blocks
from interp.study.comparing.with_one_mixture import TABLES, made_once, two_checkpoints
from interp.study.measuring import checkpoint_hash
from interp.study.results import Result, open_result, versions
from interp.study.specification import Specification

A_INTO_B, B_INTO_A = "B, from A", "A, from B"
PLACE = ("architecture", "setting", "test_domain", "seed")
"""What two models have in common that are compared."""


def models_compared(
    a: Result | str | Path,
    b: Result | str | Path,
    *,
    steps: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Table]:
    """Compare the last models of two results that stand in the same place: similarity and stitches.

    Args:
        a: A result of a study, or its folder.
        b: Another, of the same pictures.
        steps: A folder that every finished pair is kept in, so that a run that was stopped goes on;
            None keeps nothing.
        device: Where the models run; None chooses.

    Returns:
        `stitching` and `model_similarity`, as of `interp.compare`, for every setting, test domain
        and seed of which both have a model.

    Raises:
        SpecificationError: For results that are no studies, or studies of other pictures.
        DataError: For results that have no model in the same place.
    """
    results = [each if isinstance(each, Result) else open_result(each) for each in (a, b)]
    facts = [result.facts for result in results]
    asked = "compare the models of two results"
    if any(each.get("mode") != "study" for each in facts):
        raise SpecificationError(
            asked,
            "a result of one model",
            "results of studies, which know their pictures",
            "use interp.compare in Python",
        )
    if _pictures(facts[0]) != _pictures(facts[1]):
        raise SpecificationError(
            asked,
            "results of other pictures",
            "the same pictures, which neither was trained on",
            "use interp.compare with pictures that are new to both",
        )
    models = [_models(result) for result in results]
    places = [place for place in models[0] if place in models[1]]
    if not places:
        raise DataError(
            asked,
            "no checkpoint in both of one setting, test domain and seed",
            "the folders that the studies trained in, with their steps",
            "run both studies without --tables, or copy their steps beside them",
        )
    spec = _specification(facts[0])
    blocks = _blocks(spec, {place[-1] for place in places})
    parts = []
    for place in track(places, "models compared"):
        where = dict(zip(PLACE, place, strict=True))
        own = [side[place] for side in models]
        measured = partial(
            two_checkpoints,
            (_last(own[0]), _last(own[1])),
            blocks[where["seed"]].images.select(split="test"),
            (spec.mixtures.natural, where["test_domain"]),
            untrained=(own[0].get(0), own[1].get(0)),
            seed=where["seed"],
            device=which_device(device),
        )
        files = [[checkpoint_hash(each[n]) for n in {0, max(each)} if n in each] for each in own]
        about = [where, spec.mixtures.natural, _pictures(facts[0]), versions()]
        name = f"compared-{fingerprint(files, about)}"
        found = made_once(Path(steps) / name, measured) if steps else measured()
        way = found["stitching"]["model_b"].map({"B": A_INTO_B, "A": B_INTO_A})
        found["stitching"] = found["stitching"].assign(way=way)
        parts.append({name: each.assign(**where, model_b="B") for name, each in found.items()})
    frames = {name: stacked(part[name] for part in parts) for name in TABLES}
    return {name: Table.with_evidence(name, frame) for name, frame in frames.items()}


def _last(checkpoints: Mapping[int, Path]) -> Path:
    """The checkpoint of the last epoch."""
    return checkpoints[max(checkpoints)]


def _pictures(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    """What says which pictures every model was trained on and not: blocks draw their own."""
    told = facts["specification"]
    return facts["source_hash"], told["images"], bool(told["blocks"])


def _models(result: Result) -> dict[tuple[Any, ...], dict[int, Path]]:
    """Checkpoints by epoch, by place; places whose last one is there."""
    rows = pd.DataFrame(result.facts.get("checkpoints", []))
    if rows.empty:
        return {}
    found = {}
    for place, own in rows.sort_values("epoch").groupby(list(PLACE), sort=False):
        paths = zip(own["epoch"], own["path"], strict=True)
        here = {int(epoch): result.folder / path for epoch, path in paths}
        here = {epoch: path for epoch, path in here.items() if path.exists()}
        if int(own["epoch"].max()) in here:
            found[place] = here
    return found


def _specification(facts: Mapping[str, Any]) -> Specification:
    """The part of a study's specification that says which pictures its models are asked about."""
    told = facts["specification"]
    asked: Any = {name: told["mixtures"][name] for name in ("natural", "test_domains", "held_out")}
    return Specification(
        images=told["images"], mixtures=asked, seeds=told["seeds"], blocks=told["blocks"]
    )


def _blocks(spec: Specification, seeds: set[int]) -> dict[int, Block]:
    if spec.blocks:
        return {seed: open_block(spec, seed) for seed in sorted(seeds)}
    return {block.seed: block for block in open_blocks(spec)}

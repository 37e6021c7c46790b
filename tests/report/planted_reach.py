"""A result as large as the page must bear: 6 domains x 17 sites x 20 checkpoints, numbers drawn."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.illustrations import Plate
from interp.core.statistics.index_of_sharing import verdict_of_interval
from interp.core.tables import Table
from interp.verdicts.judging import climb
from tests.report.conftest import EVIDENCE, FACTS, study_tables

DOMAINS = ("real", "clipart", "infograph", "painting", "quickdraw", "sketch")
SITES = {
    "stem.hook_pool": 0.02,
    **{f"layer{n}.0.hook_resid_post": round(0.05 + 0.06 * n, 3) for n in range(1, 16)},
    "hook_embedding": 1.0,
}
CHECKPOINTS = 20


def reach_tables(*, checkpoints: int = CHECKPOINTS) -> dict[str, pd.DataFrame]:
    """Every table of a study of so many settings, with pairs of domains at every site."""
    settings = [f"cg-high, dose {n / checkpoints:g}" for n in range(checkpoints)]
    generator = np.random.default_rng(0)
    index = {setting: n / checkpoints for n, setting in enumerate(settings)}
    tables = study_tables({name: 0.1 + 0.4 * at for name, at in index.items()}, index, index)
    floors = [*((name, "", at) for name, at in index.items()), ("", "epoch 0", 0.02)]
    made: dict[str, list[dict[str, Any]]] = {
        "similarity": [], "transfer": [], "das": [], "overlap": [], "circuit_transfer": []
    }  # fmt: skip
    for setting, control, shared in floors:
        own = {"setting": setting, "control": control, "test_domain": "sketch"}
        for site, depth in SITES.items():
            at = own | {"site": site, "depth": depth, "layer": int(16 * depth)}
            for a in DOMAINS:
                for b in DOMAINS:
                    ends = {"train_domain": a, "domain": b, "measure": "probe transfer"}
                    made["transfer"] += [
                        _row(generator, shared) | at | ends | {"centred": centred}
                        for centred in (False, True)
                    ]
                    if a < b:
                        pair = {"domain_a": a, "domain_b": b, "measure": "debiased CKA"}
                        made["similarity"].append(_row(generator, shared) | at | pair)
            if not control and site not in ("stem.hook_pool", "hook_embedding"):
                for a, b in permutations(("real", "sketch")):
                    pair = {"domain_a": a, "domain_b": b}
                    made["das"].append(_row(generator, shared) | at | pair | {"measure": "das"})
                pair = {"domain_a": "real", "domain_b": "sketch", "measure": PRIMARY_OVERLAP}
                made["overlap"].append(_row(generator, shared) | at | pair | {"level": "channel"})
        if not control:
            for a, b in permutations(("real", "sketch")):
                ends = own | {"domain_a": a, "domain_b": b, "level": "channel"}
                for band in ("early", "middle", "late", ""):
                    mean = {"measure": "circuit transfer, mean over sizes", "band": band}
                    made["circuit_transfer"].append(_row(generator, shared) | ends | mean)
    frames = {name: pd.DataFrame(rows) for name, rows in made.items()}
    return tables | frames | climb(frames)


def _row(generator: np.random.Generator, shared: float) -> dict[str, Any]:
    """A row of evidence around a planted index, every number of it drawn."""
    index, half = shared + generator.normal(0, 0.05), abs(generator.normal(0.1, 0.02))
    null, ceiling = abs(generator.normal(0.02, 0.01)), generator.uniform(0.7, 0.9)
    at = [null + (ceiling - null) * each for each in (index, index - half, index + half)]
    return {
        **EVIDENCE,
        **dict(zip(("value", "low", "high"), at, strict=True)),
        "null": null,
        "ceiling": ceiling,
        "index": index,
        "index_low": index - half,
        "index_high": index + half,
        "verdict": verdict_of_interval(index - half, index + half),
        "p": generator.uniform(),
        "seed": 0,
    }


def write_reach(folder: Path, *, checkpoints: int = CHECKPOINTS) -> Path:
    """Write the large result: its tables, its facts, and plates of every kind."""
    tables = reach_tables(checkpoints=checkpoints)
    for name, frame in tables.items():
        Table(name, frame).save(folder / "tables")
    facts = {**FACTS, "title": "A large study"}
    specification = {
        **FACTS["specification"],
        "settings": sorted(set(tables["similarity"].setting)),
    }
    (folder / "facts.json").write_text(json.dumps(facts | {"specification": specification}))
    generator = np.random.default_rng(1)
    for domain in DOMAINS:
        keys = {"domain": domain}
        Plate(f"pictures-{domain}", _noise(generator, 96, 768), domain, keys).save(
            folder / "plates"
        )
        labels = json.dumps([f"class_{n:02d}" for n in range(60)])
        sheet = keys | {"kind": "cells", "labels": labels, "columns": "8", "size": "40"}
        Plate(f"cells-{domain}", _noise(generator, 320, 320), domain, sheet).save(folder / "plates")
    for n in range(checkpoints):
        keys = {"kind": "moved", "setting": f"{n}"}
        Plate(f"moved-{n}", _noise(generator, 297, 606), f"{n}", keys).save(folder / "plates")
    return folder


def _noise(generator: np.random.Generator, height: int, width: int) -> Image.Image:
    """A picture that compresses about as badly as a photograph."""
    small = generator.integers(0, 255, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

"""Two seeds of one mixture, told apart or not: how stitching and crosscoders are calibrated.

Models that differ by their seed alone (initial weights, order and crops of pictures) are "the same"
as far as a mixture makes them so; what a comparison says of them is its error.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp.probes.dictionaries.crosscoder import STEADY
from interp.validation.standings import bound
from tests.benchmarks.judging import filled
from tests.benchmarks.recovering import markdown

ROWS = Path(__file__).with_name("seed_pairs.csv.gz")
DOCS = Path(__file__).parents[2] / "docs"
MADE = Path("interp-report") / "benchmarks" / "seed_pairs"
SETTINGS = ("leave-out-domain", "cg-high")
PICTURES = {"n_test": 16, "n_analysis": 16}
SEEDS = 5
WITHIN, ACROSS = "two seeds of one mixture", "leave-out-domain and CG high"
TEST_DOMAIN, DOMAINS = "sketch", ["real", "sketch"]
SITES = [f"layer{n}.0.hook_resid_post" for n in (2, 3, 4)]
CROSSED = SITES[1:]
STITCH_COLUMNS = [
    "kind", "way", "measure", "site", "domain", "value", "null", "ceiling", "index", "index_low",
    "index_high", "verdict",
]  # fmt: skip
FEATURE_COLUMNS = ["kind", "site", "feature", "value", "low", "high", "role", "cosine", "p"]


def planned() -> tuple[Any, dict[str, list[Any]]]:
    """The block, and the runs of each mixture, which differ by their seed alone."""
    from interp.study.grid import Grid
    from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec

    specification = Specification(
        images=ImagesSpec(**PICTURES, seed=100),
        mixtures=MixturesSpec(settings=SETTINGS),
        training=TrainingSpec(steps=1000, optimizer="muon", keep=2),
        seeds=(100,),
    )
    cells = Grid(specification).plan(MADE)
    seeds = range(int(os.environ.get("SEEDS", SEEDS)))
    runs = {
        cell.setting: [
            replace(
                cell.run, name=f"{cell.run.name}-{seed}", recipe=replace(cell.run.recipe, seed=seed)
            )
            for seed in seeds
        ]
        for cell in cells
    }
    return cells[0].block, runs


def trained() -> tuple[Any, dict[str, list[Any]]]:
    """The same, trained where they were not."""
    from interp.models.training.train import train

    block, runs = planned()
    train([run for some in runs.values() for run in some], jobs=2)
    return block, runs


def measured() -> pd.DataFrame:
    """Stitch every pair of seeds, train crosscoders of it, and keep the rows after each pair."""
    import torch

    block, runs = trained()
    torch.set_num_threads(1)
    kept = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["setting", "a", "b"])
    tasks = [  # in a ring, so that every seed takes part alike
        (setting, a, (a + 1) % len(own))
        for a in range(len(runs[SETTINGS[0]]))
        for setting, own in runs.items()
    ]
    n = len(runs[SETTINGS[0]])
    # of other seeds too, since runs of one seed begin with the same weights
    across = [(" to ".join(SETTINGS), seed, (seed + 1) % n) for seed in range(n)]
    for setting, a, b in [*tasks, *across]:
        first, second = runs[setting.split(" to ")[0]], runs[setting.split(" to ")[-1]]
        if not ((kept["setting"] == setting) & (kept["a"] == a) & (kept["b"] == b)).any():
            frame = _pair(block, first[a], second[b], twins=(first, second), numbers=(a, b))
            frame = frame.assign(setting=setting, a=a, b=b).round(4)
            kept = pd.concat([kept, frame]) if len(kept) else frame
            kept.to_csv(ROWS, index=False, compression={"method": "gzip", "mtime": 0})
    return kept


def _pair(
    block: Any, a: Any, b: Any, *, twins: tuple[Any, Any], numbers: tuple[int, int]
) -> pd.DataFrame:
    """Stitching both ways, with the next seed as twin, and crosscoders of one pair of models."""
    import interp
    from interp import circuits, probes
    from interp.data.mixtures.templates import prompts

    images = block.images.select(split=["test", "analysis"], domain=DOMAINS)
    models = [interp.load_clip(run.final) for run in (a, b)]
    spare = [
        [interp.load_clip(own[n].final) for n in _others({*numbers}, len(own))] for own in twins
    ]
    floor = [interp.load_clip(run.checkpoints / "epoch_0.pt") for run in (a, b)]
    heads = [model.zero_shot(images.labels, prompts("neutral")) for model in models]
    parts = []
    for one, other in ((0, 1), (1, 0)):
        found = circuits.stitch(
            models[one],
            models[other],
            images,
            sites=SITES,
            heads=(heads[one], heads[other]),
            controls=circuits.Controls(floor[one], spare[other]),
        ).frame
        rows = found[found["label"] == ""]
        parts.append(rows.assign(kind="stitch", way=f"{one} to {other}")[STITCH_COLUMNS])
    features = [
        probes.collect(model.visual, images, CROSSED, preprocess=model.preprocess)
        for model in models
    ]
    withheld = [(name, TEST_DOMAIN) for name in block.held_out]
    for site in CROSSED:
        found = probes.crosscoder(*features, site=site, withheld=withheld).features.frame
        parts.append(found.assign(kind="crosscoder", site=site)[FEATURE_COLUMNS])
    return pd.concat(parts, ignore_index=True)


def _others(taken: set[int], n: int) -> list[int]:
    """Two seeds that are none of the pair: the first ones after its last."""
    order = [(max(taken) + step) % n for step in range(1, n)]
    return [each for each in order if each not in taken][:2]


def seed_pairs() -> str:
    """Measure what is missing, and write the tables of the docs."""
    measured()
    page, made = DOCS / "judging_methods.md", tables()
    text = filled(page.read_text(encoding="utf-8"), {"seed pairs": made})
    page.write_text(text, encoding="utf-8")
    return made


def tables() -> str:
    """Both tables, from what is kept."""
    frame = pd.read_csv(ROWS)
    kinds = frame["setting"].str.contains(" to ").map({True: ACROSS, False: WITHIN})
    stitched, features = [], []
    answers = ("shared", "partly shared", "not shared", "unknown")
    for kind, own in frame.groupby(kinds, sort=False):
        n_pairs = len(own[["setting", "a", "b"]].drop_duplicates())
        rows = own[(own["kind"] == "stitch") & (own["measure"] == "stitched")]
        said = rows["verdict"].value_counts()
        counts = [f"{said.get(each, 0) / len(rows):.0%}" for each in answers]
        low, high = rows["index"].quantile([0.05, 0.95])
        spread = f"{rows['index'].mean():.2f} ({low:.2f} to {high:.2f})"
        stitched.append([kind, n_pairs, len(rows), *counts, spread])
        rows = own[own["kind"] == "crosscoder"]
        roles = rows["role"].value_counts()
        alone = int(roles.get("only A", 0) + roles.get("only B", 0))
        steady = int((rows["cosine"] >= STEADY).sum())  # others have no role
        made = [kind, n_pairs, len(rows), steady, roles.get("shared", 0), alone]
        features.append([*made, f"{bound(alone, steady):.1%}"])
    heads = ["stitches between", "pairs of models", "stitches", *answers, "index (5 to 95 %)"]
    other = ["crosscoders of", "pairs of models", "features", "found again by other seeds"]
    other += ["shared", "one model's alone", "of those found again at most"]
    return "\n\n".join([markdown(heads, stitched), markdown(other, features)])

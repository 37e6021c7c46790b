"""Null studies of the whole ladder: models and pictures of which nothing may be called shared.

    exchanged  planted models that share all, asked with B's class names exchanged: R2 to R6
    untrained  CLIPs with random weights, asked as they are: R4 to R6
    shuffled   CLIPs trained on captions that name the class of another picture: R4 to R6

What an untrained network does alike in two domains is its geometry, R1 to R3 may say so; a shared
mechanism of telling classes it cannot have. Rows are kept after every few models, so that a run
goes on where it was stopped.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from interp.core.images import ImageTable
from interp.core.parallel import side_by_side
from interp.core.statistics.index_of_sharing import PARTLY, SHARED, VERDICTS

ROWS = Path(__file__).with_name("null.csv.gz")
MADE = Path("interp-report") / "benchmarks" / "null"
N = 20
"""Models of each study; one false alarm among twenty is the bar."""

AT_A_TIME = 4
"""Models that are climbed before their rows are written."""

PRESETS = "resnet-small", "vit-small"
"""The CLIPs' architectures, in turn."""

KEPT = [
    *("rung", "measure", "level", "band", "site", "domain_a", "domain_b"),
    *("index", "index_low", "index_high", "verdict", "seed"),
]


class NullStudy(NamedTuple):
    """How one of its models is climbed, and the rungs on which nothing may be shared."""

    climb: Callable[[int], pd.DataFrame]
    rungs: tuple[str, ...]


def nulls() -> str:
    """Climb `N` models of every null study, and count the false alarms.

    Half a minute a model on one core, and as much to train the CLIPs.
    """
    kept = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["study", "seed"])
    known = set(zip(kept["study"], kept["seed"], strict=True))
    missing = [(name, n) for name in STUDIES for n in range(N) if (name, n) not in known]
    for name, seed in missing:
        if name != "exchanged":
            run_of(seed)  # planned here: two workers would write one mixture at once
    for first in range(0, len(missing), AT_A_TIME):
        some = side_by_side(_climb, missing[first : first + AT_A_TIME], jobs=2, what="climb")
        kept = pd.concat([part for part in (kept, *some) if len(part)], ignore_index=True)
        kept.to_csv(ROWS, index=False, compression={"method": "gzip", "mtime": 0})
    heads = ["study", "rung", "models", "with any row shared", "with a band shared", "rows"]
    lines = ["| " + " | ".join([*heads, *VERDICTS]) + " |", "|" + "---|" * 10]
    for name, study in STUDIES.items():
        rows = kept[kept["study"] == name]
        lines += alarms(name, rows[rows["rung"].isin(study.rungs)])
    return "\n".join(lines)


def _climb(asked: tuple[str, int]) -> pd.DataFrame:
    import torch

    torch.set_num_threads(1)
    name, seed = asked
    return STUDIES[name].climb(seed).round(4).assign(study=name)


def exchanged(seed: int) -> pd.DataFrame:
    """Every judged row of one planted model that shares all, asked with B's names exchanged."""
    import interp
    from interp.circuits.planted.disguises import disguise
    from interp.circuits.planted.vit import Blueprint, plant
    from interp.circuits.planted.world import as_tensor, paint
    from interp.core.seeds import rng
    from interp.models.towers.vit import HookedViT

    planted = disguise(plant(Blueprint("all shared", 100 + seed)), seed=seed)
    images = paint(planted.world, 12, seed=seed)
    names = list(planted.classifier.names)
    order = rng("exchanged names", seed).permutation(len(names))
    partner = {names[order[at]]: names[order[at - 1]] for at in range(len(names))}  # one cycle
    in_b = images.frame["domain"] == "B"
    label = images.frame["label"].where(~in_b, images.frame["label"].map(partner))
    found = interp.ladder(
        HookedViT(planted.source),
        images.with_frame(images.frame.assign(label=label)),
        domains=["A", "B"],
        classifier=planted.classifier,
        preprocess=as_tensor,
        pool="class",
        n_permutations=199,
        seed=seed,
    )
    return found.rungs.frame.assign(seed=seed)[KEPT]


def untrained(seed: int) -> pd.DataFrame:
    """Every judged row of a CLIP with random weights."""
    run, images = run_of(seed)
    _train(run)
    return _climbed(run.checkpoints / "epoch_0.pt", images, seed)


def shuffled(seed: int) -> pd.DataFrame:
    """Every judged row of a CLIP that was trained on other pictures' classes."""
    run, images = run_of(seed)
    _train(run)
    return _climbed(run.final, images, seed)


def _climbed(checkpoint: Path, images: ImageTable, seed: int) -> pd.DataFrame:
    import interp

    clip = interp.load_clip(checkpoint)
    found = interp.ladder(
        clip.visual,
        images,
        domains=["real", "sketch"],
        classifier=clip.zero_shot(images.labels, ["an image of a {}."]),
        preprocess=clip.preprocess,
        n_permutations=199,
        seed=seed,
    )
    return found.rungs.frame.assign(seed=seed)[KEPT]


@cache
def run_of(seed: int) -> tuple[Any, ImageTable]:
    """A training run whose captions are dealt anew within each domain, and analysis pictures."""
    from interp.core.seeds import rng
    from interp.core.storage.store import write_atomic
    from interp.study.grid import Grid
    from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec

    specification = Specification(
        images=ImagesSpec(n_classes=12, n_train=60, n_test=3, n_analysis=12, seed=seed, n_base=0),
        mixtures=MixturesSpec(held_out=2, settings=("cg-high",)),
        training=TrainingSpec(preset=PRESETS[seed % 2], steps=400, precision="fp32"),
        seeds=(seed,),
    )
    [cell] = Grid(specification).plan(MADE)
    rows = pd.read_csv(cell.run.tsv, sep="\t", keep_default_na=False)
    generator = rng("shuffled captions", seed)
    for _, same in rows.groupby("domain"):
        dealt = generator.permutation(same.index)
        rows.loc[same.index, ["title", "label"]] = rows.loc[dealt, ["title", "label"]].to_numpy()
    tsv = MADE.resolve() / f"shuffled-{seed}.tsv"
    write_atomic(tsv, rows.to_csv(sep="\t", index=False))
    images = cell.block.images.select(split="analysis", domain=["real", "sketch"])
    seen = [label for label in images.labels if label not in cell.block.held_out]
    return replace(cell.run, name=f"shuffled-{seed}", tsv=tsv), images.select(label=seen)


def _train(run: Any) -> None:
    from filelock import FileLock

    from interp.models.training.train import train

    with FileLock(MADE / f"{run.name}.lock"):
        train([run], jobs=1)


def alarms(name: str, rows: pd.DataFrame) -> list[str]:
    """By rung: in how many models a row, or a whole band, is called shared, and how many rows.

    Partly shared counts as shared.
    """
    lines = []
    for rung, own in rows.groupby("rung"):
        said = own["verdict"].isin([SHARED, PARTLY])
        rowwise = said.groupby(own["seed"]).any()
        bands = said.groupby([own["seed"], own["domain_a"], own["domain_b"], own["band"]]).all()
        counts = [int((own["verdict"] == each).sum()) for each in VERDICTS]
        told = [name, rung, len(rowwise), int(rowwise.sum()),
                int(bands.groupby("seed").any().sum()), len(own), *counts]  # fmt: skip
        lines.append("| " + " | ".join(map(str, told)) + " |")
    return lines


STUDIES: Mapping[str, NullStudy] = {
    "exchanged": NullStudy(exchanged, ("R2", "R3", "R4", "R5", "R6")),
    "untrained": NullStudy(untrained, ("R4", "R5", "R6")),
    "shuffled": NullStudy(shuffled, ("R4", "R5", "R6")),
}
"""Every null study by its name."""

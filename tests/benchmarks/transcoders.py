"""Circuits of transcoders' features against those of neurons and principal components.

Rows are kept in `transcoders/`, a file per model, so that a run goes on where it was stopped.
Planted models are those of seeds from 1000, which nothing was tried on.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from interp.circuits import ClassCircuits, circuit_transfer, class_circuits, overlap
from interp.circuits.planted.vit import Blueprint
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.core.classifiers import Classifier
from interp.core.images import ImageTable, Preprocess
from interp.core.parallel import side_by_side
from interp.core.seeds import rng
from interp.probes import Features, collect
from interp.probes.dictionaries.codes import Cells
from interp.validation.opened import Opened
from interp.validation.puzzles import blueprints, planted_answers
from tests.benchmarks.feature_circuits import OutputCode, OutputParts
from tests.benchmarks.judging import DOCS, path_of
from tests.benchmarks.transcoder_tables import STUDY, WITHOUT, fill, read, tables
from tests.benchmarks.transcoding import Recipe, quality, tokens_of, train_transcoder

FOLDER = Path(__file__).parent / "transcoders"
FIRST = 1000
LEARNED, ASKED = 64, 8
"""Pictures of each class and domain that transcoders see or are tried on, and circuits."""

SIZES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
"""How many parts of all MLPs together a circuit keeps."""

RANDOM_UP_TO, NEAREST = 16, 5
"""The largest random circuit, and among how many parts that move as much one is drawn."""

SHARES = (0.05, 0.1, 0.2)
"""Sizes of circuits that are taken to another domain, as shares of each MLP's parts."""

FEATURES, UNITS, PCA = "features", "neurons", "principal components"
KEPT = ", errors kept"
RANDOM = "random features"
MOST_NEURONS = 64
"""A truth of more neurons says little: in trained models it is half of each MLP."""

SAME_DIRECTION = 0.7
"""The cosine from which a part writes what a planted neuron writes. Decoys answer to the same glyph
about as loudly, and what all write for it has a cosine of about .7 with the neuron's direction."""


DEFAULT = Recipe()


@dataclass(frozen=True, eq=False)
class Subject:
    """A tower with the pictures that codes learn from, and those that circuits are asked about."""

    tower: Any
    learned: ImageTable
    asked: ImageTable
    classifier: Classifier
    preprocess: Preprocess
    domains: Sequence[str]
    withheld: Cells = ()
    recipe: Recipe = DEFAULT
    seed: int = 0

    @property
    def layers(self) -> range:
        """The blocks."""
        return range(self.tower.n_layers)


def sites_of(layer: int) -> tuple[str, str]:
    """What enters a block's MLP, as its layer norm normalises it, and what the MLP adds."""
    return f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"


def codes_of(subject: Subject) -> tuple[dict[str, OutputParts], pd.DataFrame]:
    """Every MLP's output as features, neurons and components; and how well each explains it.

    Codes are learned on one half of the artists, and judged on the other.
    """
    sites = [site for layer in subject.layers for site in sites_of(layer)]
    tokens = collect(
        subject.tower, subject.learned, sites, preprocess=subject.preprocess, pool="token"
    )
    half = pd.factorize(tokens.frame["artist"], sort=True)[0] % 2 == 0
    learned, held_out = tokens.rows(half), tokens.rows(~half)
    like = subject.classifier.embeddings
    made: dict[str, dict[str, OutputCode]] = {FEATURES: {}, UNITS: {}, PCA: {}}
    told = []
    for layer in subject.layers:
        reads, writes = sites_of(layer)
        words: dict[str, Any] = {"recipe": subject.recipe, "withheld": subject.withheld}
        found = train_transcoder(learned, reads, writes=writes, seed=subject.seed, **words)
        told.append(quality(found, learned, held_out))
        found = found.to(like.device, like.dtype)
        mean, axes = _components(learned, writes, like)
        neurons = subject.tower.W_out[layer].detach()
        made[FEATURES][writes] = OutputCode(reads, found.encode, found.decoder)
        made[UNITS][writes] = OutputCode(f"blocks.{layer}.mlp.hook_post", _same, neurons)
        made[PCA][writes] = OutputCode(writes, partial(_along, mean=mean, axes=axes), axes)
    return {
        name: OutputParts(subject.tower, codes, batch_size=64) for name, codes in made.items()
    }, pd.concat(told)


def _same(x: Tensor) -> Tensor:
    return x


def _along(y: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    return (y - mean) @ axes.T


def _components(learned: Features, site: str, like: Tensor) -> tuple[Tensor, Tensor]:
    y = tokens_of(learned, site)
    mean = y.mean(dim=0)
    axes = torch.linalg.eigh((y - mean).T @ (y - mean)).eigenvectors.T.flip(0)
    return mean.to(like), axes.to(like)


def judge(
    subject: Subject, *, one_model: bool = False
) -> tuple[pd.DataFrame, dict[str, list[ClassCircuits]]]:
    """What is known of a model: columns `measure, code, domain, n, value`, and its circuits.

    Of `one_model` alone nothing says what it shares; its intervals leave out one class at a time.
    """
    cuts, explained = codes_of(subject)
    rows = [
        (measure, row["code"], row["site"], np.nan, row[measure])
        for row in explained.to_dict("records")
        for measure in ("explained", "active", "dead")
    ]
    words = {"classifier": subject.classifier, "preprocess": subject.preprocess}
    found = {
        name: [class_circuits(cut, subject.asked, domain=domain, **words)
               for domain in subject.domains]
        for name, cut in cuts.items()
    }  # fmt: skip
    for name, each in found.items():
        for one in each:
            rows += [(*row[:2], one.domain, *row[2:]) for row in _recovered(name, one)]
        if name != PCA and not one_model:
            rows += [(measure, name, "", np.nan, value) for measure, value in _shared(each)]
    frame = pd.DataFrame(rows, columns=["measure", "code", "domain", "n", "value"])
    if not one_model:
        frame = frame[~frame["measure"].str.startswith(WITHOUT)]
    return frame.dropna(subset=["value"]), found


def _recovered(name: str, found: ClassCircuits) -> Iterator[tuple[str, str, float, float]]:
    """Of the metric: what circuits of a class keep on pictures by other artists, by their size."""
    cut: Any = found.cut
    errors, means = cut.errors, found.scores.means(found.classes)
    size = np.abs(means)
    yield "errors", name, np.nan, float(size[..., errors].sum() / size.sum())
    order = np.argsort(-np.where(errors, -1.0, size), axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    total = int((~errors).sum())
    circuits = {n: (rank < n) & ~errors for n in SIZES if n < total}
    circuits[total] = np.broadcast_to(~errors, rank.shape)
    asked = [(name, n, kept) for n, kept in circuits.items()]
    if name == FEATURES:
        moved = [cut.moved(half) for half in found.halves]
        drawn = {n: _as_lively(circuits[n], moved, cut) for n in SIZES if 0 < n <= RANDOM_UP_TO}
        asked += [(RANDOM, n, kept) for n, kept in drawn.items()]
        asked += [(of + KEPT, n, kept | errors) for of, n, kept in asked]
    values = _work(found, [kept for _, _, kept in asked])
    for (of, n, _), (value, *without) in zip(asked, values, strict=True):
        yield "recovered", of, n, value
        for label, left in zip(found.classes, without, strict=True):
            yield f"{WITHOUT}{label}", of, n, left


def _work(found: ClassCircuits, circuits: Sequence[np.ndarray]) -> np.ndarray:
    """Of the metric, what circuits `[class half part]` keep on the other half's pictures.

    `[circuit, 1 + class]`: of all classes, and without each.
    """
    work, gap = 0.0, 0.0
    for side, half in enumerate(found.halves):
        own = np.array([found.classes.index(label) for label in half.pairs.clean.label])
        values, ends = found.cut.run(half, np.stack([kept[own, 1 - side] for kept in circuits]))
        work = work + pd.DataFrame((values - ends[1]).T).groupby(own).mean().to_numpy().T
        gap = gap + pd.Series(ends[0] - ends[1]).groupby(own).mean().to_numpy()
    sums, whole = np.asarray(work), np.asarray(gap)
    without = (sums.sum(axis=1, keepdims=True) - sums) / (whole.sum() - whole)
    return np.column_stack([sums.sum(axis=1) / whole.sum(), without])


def _as_lively(kept: np.ndarray, moved: Sequence[np.ndarray], cut: OutputParts) -> np.ndarray:
    """For each circuit `[class half part]` another of parts that are not in it and move as much."""
    generator = rng("random features")
    drawn, groups = np.zeros_like(kept), cut.groups
    for number, side in np.ndindex(*kept.shape[:2]):
        own, far = kept[number, side], np.log(moved[side] + 1e-12)
        free = ~own & ~cut.errors
        for part in np.flatnonzero(own):
            rest = np.flatnonzero(free & (groups == groups[part]))
            near = rest[np.argsort(np.abs(far[rest] - far[part]), kind="stable")[:NEAREST]]
            if len(near):
                one = generator.choice(near)
                drawn[number, side, one], free[one] = True, False
    return drawn


def _shared(found: Sequence[ClassCircuits]) -> Iterator[tuple[str, float]]:
    """How alike the circuits of two domains are, and how far one does the other's work."""
    frame = overlap(*(each.scores for each in found), measures=["dice"], n_permutations=99).frame
    row = frame[frame["measure"] == "dice"].iloc[0]
    yield "overlap, index", row["index"]
    yield "overlap above another class", row["value"] - row["null"]
    told = circuit_transfer(*found, shares=SHARES, n_null=1, beside=False).frame
    whole = told[told["measure"].str.endswith("mean over sizes")]
    yield "transfer, index", whole["index"].mean()
    yield "transfer above another class", (whole["value"] - whole["null"]).mean()


def planted_subject(opened: Opened) -> Subject:
    """A planted model with its pictures; those that circuits are asked about are others."""
    planted, seed = opened.planted, opened.blueprint.seed
    return Subject(
        opened.tower,
        paint(planted.world, LEARNED, seed=seed + 1),
        paint(planted.world, ASKED, seed=seed),
        planted.classifier,
        as_tensor,
        DOMAINS,
    )


def judge_planted(blueprint: Any, opened: Opened | None = None) -> pd.DataFrame:
    """The rows of a planted model, with how well its circuits show what was planted."""
    opened = opened or Opened(blueprint)
    frame, found = judge(planted_subject(opened))
    rows = [row for name, each in found.items() for one in each
            for row in _planted_parts(name, one, opened.planted)]  # fmt: skip
    frame = pd.concat([frame, pd.DataFrame(rows, columns=frame.columns)], ignore_index=True)
    for name in ("condition", "tier", "dose", "seed"):
        frame[name] = getattr(blueprint, name)
    return frame.assign(answer=planted_answers(blueprint).get("R6", ""))


def _planted_parts(name: str, found: ClassCircuits, planted: Any) -> Iterator[tuple[Any, ...]]:
    """Do scores tell the MLPs that the circuit has, and the best parts write what neurons write?"""
    cut: Any = found.cut
    means, groups = found.scores.means(found.classes).mean(axis=1), cut.groups
    nodes = planted.truth(found.domain).nodes
    inside = [f"m{layer}" in nodes for layer in range(len(cut.codes))]
    size = np.where(cut.errors, 0, np.abs(means)).sum(axis=0)
    by_layer = [size[groups == layer].sum() for layer in range(len(cut.codes))]
    yield "layers", name, found.domain, np.nan, roc_auc_score(inside, by_layer)
    directions = [code.directions for code in cut.codes.values()]
    shares, sizes = [], []
    for label, scores in zip(found.classes, means, strict=True):
        neurons = planted.truth(found.domain, label).neurons
        if len(neurons) > MOST_NEURONS:  # trained models: half of all neurons, which is no answer
            return
        size = np.where(cut.errors, -1, np.abs(scores))
        best = np.argsort(-size, kind="stable")[: len(neurons)]
        shares.append(_written(neurons, best, groups, directions, planted))
        sizes.append(len(neurons))
    yield "directions found", name, found.domain, np.mean(sizes), np.mean(shares)


def _written(
    neurons: Collection[tuple[int, int]],
    best: np.ndarray,
    groups: np.ndarray,
    directions: Sequence[Tensor],
    planted: Any,
) -> float:
    """The share of the directions that planted neurons write which one of the best parts writes."""
    unit = torch.nn.functional.normalize
    found = []
    for layer in {layer for layer, _ in neurons}:
        weight = planted.source.transformer.resblocks[layer].mlp.c_proj.weight.T
        places = sorted(place for at, place in neurons if at == layer)
        true = unit(weight[places].detach(), dim=1)
        first = np.flatnonzero(groups == layer)[0]
        ours = unit(directions[layer][[part - first for part in best if groups[part] == layer]],
                    dim=1)  # fmt: skip
        alike = (true @ true.T).abs() > 0.99  # a threshold is two neurons that write one direction
        different = [i for i in range(len(true)) if not alike[i, :i].any()]
        near = (true[different] @ ours.T).abs() >= SAME_DIRECTION
        found += near.any(dim=1).tolist()
    return float(np.mean(found))


STUDY_DOMAINS, UNSEEN = ("real", "clipart"), "sketch"
"""What a study's transcoders learn from, and the domain that its model never saw."""

RECIPE_OF_A_STUDY = Recipe(512, 16)
"""As many features as an MLP of a study's ViT has neurons."""

STUDY_CLASSES = 8


def study_subject(path: str, recipe: Recipe) -> Subject:
    """A ViT of the embedded study that was trained without sketches, asked about seen classes."""
    import interp
    from interp.data.mixtures.templates import prompts

    clip, images = interp.load_clip(path), interp.open_images()
    asked = images.select(split="analysis", domain=["real", UNSEEN],
                          label=images.labels[:STUDY_CLASSES])  # fmt: skip
    return Subject(
        clip.visual,
        images.select(split="test", domain=list(STUDY_DOMAINS)),
        asked,
        clip.zero_shot(images.labels, prompts("neutral")),
        clip.preprocess,
        ("real", UNSEEN),
        [(label, UNSEEN) for label in images.labels],
        recipe,
    )


TWICE = {
    ("separate, accurate", None),
    ("dose", 0.0),
    *(("dose of geometry", dose) for dose in (0.0, 0.25, 0.5, 0.75)),
}
"""Conditions and doses whose MLPs are those of another one: "all separate", "late separate", and
the same geometry at dose 1."""


def models(seeds: Sequence[int]) -> list[Blueprint]:
    """Easy planted models of which R6 says "shared" or "not shared"."""
    return [
        each for each in blueprints(seeds, tiers=["easy"])
        if planted_answers(each).get("R6") in ("shared", "not shared")
        and (each.condition, each.dose) not in TWICE
    ]  # fmt: skip


def keep(blueprint: Any) -> None:
    """Judge a planted model, and write its rows."""
    torch.set_num_threads(1)
    target = path_of(blueprint, FOLDER)
    if not target.exists():
        FOLDER.mkdir(exist_ok=True)
        draft = target.with_suffix(".part")
        judge_planted(blueprint).round(4).to_csv(draft, index=False)
        draft.rename(target)


def keep_study(path: str) -> None:
    """Judge a study's ViT, and write its rows."""
    recipe = RECIPE_OF_A_STUDY
    frame, _ = judge(study_subject(path, recipe), one_model=True)
    name = f"ViT of a study, {recipe.width} features, {recipe.k} at a time"
    frame = frame.assign(condition=name, tier=STUDY, dose=np.nan, seed=0, answer="")
    frame.round(4).to_csv(FOLDER / f"study-{recipe.width}-{recipe.k}.csv", index=False)


def transcoders(n: int | None = None) -> str:
    """Draw the tables of the models that were judged, fill docs/truth.md, and return them.

    With `n` (`SEEDS`) so many seeds of planted models are judged first. `CHECKPOINTS=a.pt` judges a
    ViT of the embedded study that saw no sketches; it is read only then.
    """
    asked = n if n is not None else int(os.environ.get("SEEDS", "0"))
    if asked:
        side_by_side(keep, models(range(FIRST, FIRST + asked)), jobs=2, what="judge")
    for path in filter(None, os.environ.get("CHECKPOINTS", "").split(";")):
        keep_study(path)
    made = tables(read(FOLDER))
    fill(DOCS / "truth.md", made)
    return "\n\n".join(made.values())

"""What a study will take: models, minutes and disk, roughly, from measured numbers.

Measured once on one core, on a small ResNet at 48 pixels and the embedded study's 2,160 analysis
pictures; what costs forwards and what costs statistics scale apart. A rehearsal opens the study's
pictures and makes its mixtures as the run will, on tables without pictures in a folder that is
removed: so it counts steps, and refuses what the run would refuse.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from interp.core.errors import listed
from interp.core.images import ImageTable
from interp.declared.measures import UNTRAINED, all_measures
from interp.models.loading.presets import is_full_size, is_small_vit
from interp.study.blocks import block_numbers, check_measurable, compared_domains, open_blocks
from interp.study.grid import Grid, distinct
from interp.study.specification import Specification, TrainingSpec

PICTURES_PER_SECOND = 1500
"""Rough speed of training the small ResNet at 48 pixels, two runs side by side on two cores."""

VIT_TRAINS = 1.3
"""How many times as long as the small ResNet a small ViT takes to train by the same steps; like
`MeasureSpec.on_vits`, read off the first runs of the large study's ViT, beside other work.
"""

OF_ARMS = ("accuracy", "directions")
"""What is measured on the arms of an intervention."""

PICTURES = 40 * 6 * 12
"""Analysis pictures of the embedded study, held-out classes included."""

FORWARDS, STATISTICS = 78_000, 33.0
"""What measuring one model takes beside accuracy: forwards of a picture, seconds of one core."""

TABLES, MIXTURE, PICTURE = 2_500_000, 900_000, 7_000
"""Bytes: a model's tables twice (step and result), a mixture's list, a rendered picture."""

LINE = 130
"""Bytes of a picture in a mixture's list."""

OF_A_CARD = 1000
"""Pictures a second at which training at full size is counted: a round number, not a measurement.
"""


@dataclass(frozen=True)
class RehearsedRun:
    """A run that a study would train, and for how long.

    Args:
        architecture: Its name.
        setting: Its mixture, and the arm of an intervention.
        test_domain: The test domain.
        seed: Seed, or number of the block.
        pictures: Training pictures.
        epochs: Whole epochs.
        steps: Optimiser steps in all.
        batch_size: Pictures in a step.
    """

    architecture: str
    setting: str
    test_domain: str
    seed: int
    pictures: int
    epochs: int
    steps: int
    batch_size: int


def rehearse(
    specification: Specification,
    *,
    jobs: int = 2,
    measuring: bool = True,
    blocks: Sequence[int] | None = None,
) -> list[RehearsedRun]:
    """The runs that a study would train, each once.

    Args:
        specification: The study.
        jobs: Processes that read pictures' headers.
        measuring: Whether more than accuracy is measured, which may need more classes.
        blocks: Those of the study's blocks that are asked for, by number; None takes all.

    Returns:
        The runs in their order.

    Raises:
        InterpError: Whatever the study would raise before it trains: pictures, columns, classes or
            domains that are not there, cells too small for a mixture, fewer pictures than a batch,
            fewer classes than a measure needs.
    """
    opened = open_blocks(specification, jobs, rendered=False, numbers=blocks)
    if measuring:
        check_measurable(specification, opened)
    with TemporaryDirectory() as scratch:
        grid = Grid(specification)
        cells = grid.plan(Path(scratch), jobs=jobs, blocks=opened, written=False)
        first = {cell.run.name: cell for cell in reversed(cells)}
        return [
            RehearsedRun(
                cell.training.name,
                cell.setting,
                cell.mixture.test_domain,
                cell.block.seed,
                run.pictures,
                run.epochs,
                run.epochs * run.recipe.batches(run.pictures),
                run.recipe.batch_size,
            )
            for run in distinct(cells)
            for cell in [first[run.name]]
        ]


def in_words(runs: Sequence[RehearsedRun]) -> str:
    """A line per architecture and setting: pictures, epochs and steps, as ranges over the rest.

    >>> from dataclasses import replace
    >>> run = RehearsedRun("vit-small", "cg-low", "sketch", 0, 4000, 8, 248, 128)
    >>> print(in_words([run, replace(run, seed=1, pictures=4100, steps=256)]))
    vit-small, cg-low: 4,000 to 4,100 pictures, 8 epochs, 248 to 256 steps of 128
    """
    groups = pd.DataFrame(runs).groupby(["architecture", "setting"], sort=False)
    return "\n".join(
        f"{', '.join(names)}: {_span(own['pictures'])} pictures, {_span(own['epochs'])} epochs, "
        f"{_span(own['steps'])} steps of {own['batch_size'].iloc[0]}"
        for names, own in groups
    )


def _span(numbers: "pd.Series[int]") -> str:
    return " to ".join(dict.fromkeys(f"{end:,}" for end in (numbers.min(), numbers.max())))


@dataclass(frozen=True)
class Cost:
    """Models to train and to measure, minutes of either, bytes of disk, and `text` to read.

    A number that cannot be foretold is None. `runs` are those of a rehearsal.
    """

    models_trained: int
    models_measured: int
    training_minutes: float | None
    measuring_minutes: float | None
    disk_bytes: int | None
    text: str
    runs: tuple[RehearsedRun, ...] = ()

    @property
    def minutes(self) -> float | None:
        """Minutes of training and measuring together; None where either cannot be foretold."""
        if self.training_minutes is None or self.measuring_minutes is None:
            return None
        return self.training_minutes + self.measuring_minutes


def cost_of_study(
    specification: Specification,
    *,
    jobs: int = 2,
    measuring: bool = True,
    runs: Sequence[RehearsedRun] = (),
    blocks: Sequence[int] | None = None,
) -> Cost:
    """What a study costs that has finished nothing yet; a grid's without `measuring`.

    `blocks` are those that are asked for, by number; None counts all.

    Training is foretold from the runs of a rehearsal, else from the steps that were asked for;
    measuring for the embedded study's pictures, in any number; where pictures come from
    elsewhere, as if they were as many as its own.

    >>> cost_of_study(Specification()).text.split(":")[0]
    '4 runs of resnet-small, 2000 steps of 128 pictures'
    """
    spec = specification
    repeats = block_numbers(spec, blocks)
    places = len(repeats) * len(spec.mixtures.test_domains)
    each = places * len(spec.mixtures.settings)
    arms = places * len(spec.intervention.arms)
    plain, kinds = each * len(spec.architectures), len(spec.architectures)
    trained = plain + arms * kinds
    measured = trained + places * kinds
    large = any(is_full_size(training.preset) for training in spec.architectures)
    shown = _shown(spec, each + arms, runs)
    on_two_cores = None if large or shown is None else _training_minutes(spec, shown)
    training = on_two_cores * (2 / min(jobs, 2)) if on_two_cores is not None else None
    asked = [
        measure
        for measure in all_measures()
        if measure.wanted_by(spec.analysis) and (measuring or measure.name == "accuracy")
    ]
    paired = {"own": 0, "one model": 1, "all": each}[spec.analysis.pairs]
    times = {"pairs": paired * kinds}  # of what is taken by name alone
    vits = sum(is_small_vit(training.preset) for training in spec.architectures)
    seconds = 0.0
    for measure in asked:
        n = times.get(measure.name, 0) if measure.by_name else plain
        n += places * kinds * (UNTRAINED in measure.of and not measure.by_name)
        n += arms * kinds * (measure.name in OF_ARMS)
        seconds += n * measure.seconds * (1 + (measure.on_vits - 1) * vits / kinds)
    seconds *= spec.images.n_classes * spec.images.n_analysis / (40 * 12)
    minutes = seconds / 60 / min(jobs, 2)
    disk = _disk(spec, each + arms, jobs, len(repeats)) + _lists(runs)
    n_runs = len(runs) // kinds if runs else each + arms  # what mixtures have in common, once
    text = (
        f"{_training_in_words(spec, n_runs, on_two_cores, len(repeats))}; then"
        f" measuring {measured} models, {minutes_in_words(minutes)}; "
        f"{_size(disk)} of disk (rough: as measured on small models, two cores, nothing finished "
        "yet)"
    )
    if spec.images.source:
        text += "; measuring as for the embedded study's number of pictures"
    if large:
        text += f"; {_at_full_size(shown)}"
    if runs:
        trained = len(runs)
        text += f"\n{in_words(runs)}"
    return Cost(trained, measured, training, minutes, disk, text, tuple(runs))


def _training_minutes(spec: Specification, shown: Mapping[str, int]) -> float:
    """Minutes of training on two cores, by the pictures that each architecture is shown."""
    slower = {one.name: VIT_TRAINS for one in spec.architectures if is_small_vit(one.preset)}
    steps = sum(n * slower.get(name, 1.0) for name, n in shown.items())
    return steps / PICTURES_PER_SECOND / 60


def _shown(
    spec: Specification, n_runs: int, runs: Sequence[RehearsedRun]
) -> Mapping[str, int] | None:
    """Pictures that each architecture is shown in all its runs; None where nobody knows."""
    if runs:
        counts: Counter[str] = Counter()
        for run in runs:
            counts[run.architecture] += run.steps * run.batch_size
        return counts
    if any(training.epochs for training in spec.architectures):
        return None
    return {one.name: n_runs * one.steps * one.batch_size for one in spec.architectures}


def _training_in_words(
    spec: Specification, n_runs: int, minutes: float | None, n_blocks: int
) -> str:
    """The runs, what they are trained on, how often, and how long that takes."""
    domains = spec.mixtures.test_domains
    arms = [f"{spec.intervention.setting}, {arm.name}" for arm in spec.intervention.arms]
    names = [*spec.mixtures.names(domains[0]), *arms]
    some = f"{n_blocks} of " if n_blocks < spec.blocks else ""
    repeats = f"{some}{spec.blocks} blocks" if spec.blocks else f"seeds {listed(spec.seeds)}"
    runs = ", ".join(
        f"{n_runs} runs of {each.name}, "
        + (
            f"{each.epochs} epochs"
            if each.epochs
            else f"{each.steps} steps of {each.batch_size} pictures"
        )
        for each in spec.architectures
    )
    text = f"{runs}: {listed(names, limit=20)}; test domain {listed(domains)}; {repeats}"
    return (
        text if minutes is None else f"{text}; {minutes_in_words(minutes)} of training on two cores"
    )


def _at_full_size(by_architecture: Mapping[str, int] | None) -> str:
    """What training at full size takes at a round number of pictures a second.

    >>> _at_full_size({"RN50": 1_200_000})
    'training: 1.2 million pictures, 20 minutes at 1,000 a second (not measured: put in your own)'
    """
    if by_architecture is None:
        return "training: as long as the pictures' number says, which a rehearsal counts"
    shown = sum(by_architecture.values())
    return (
        f"training: {shown / 1e6:,.1f} million pictures, {shown / OF_A_CARD / 60:,.0f} minutes at "
        f"{OF_A_CARD:,} a second (not measured: put in your own)"
    )


def _lists(runs: Sequence[RehearsedRun]) -> int:
    """Bytes of the lists of a rehearsal's mixtures, beyond those of small ones."""
    each = {(run.setting, run.test_domain, run.seed): run.pictures for run in runs}
    return sum(max(0, LINE * pictures - MIXTURE) for pictures in each.values())


def minutes_in_words(minutes: float) -> str:
    """A forecast in whole minutes.

    >>> minutes_in_words(0.2), minutes_in_words(1.4), minutes_in_words(7.6)
    ('under a minute', 'about a minute', 'about 8 minutes')
    """
    if minutes < 0.75:
        return "under a minute"
    return "about a minute" if minutes < 1.5 else f"about {minutes:.0f} minutes"


def _disk(spec: Specification, n_runs: int, jobs: int, n_blocks: int) -> int:
    """Checkpoints of every run, mixtures, tables, and the rendered pictures."""
    total = n_runs * (MIXTURE + TABLES * len(spec.architectures))
    total += sum(_checkpoints(spec, each, n_runs, jobs) for each in spec.architectures)
    if not spec.images.source:
        images = spec.images.embedded
        cell = images.n_train + images.n_test + images.n_analysis
        pictures = images.n_classes * 6 * cell
        pictures += images.n_base * (images.n_classes + images.base_classes)
        total += (
            pictures * PICTURE * (n_blocks if spec.blocks else 1) * spec.images.size**2 // 48**2
        )
    return total


def _checkpoints(spec: Specification, training: TrainingSpec, n_runs: int, jobs: int) -> int:
    from interp.models.loading.presets import write_model_folder
    from interp.models.training.run import Run
    from interp.models.training.train import forecast_disk

    size = None if is_full_size(training.preset) else spec.images.size
    recipe = TrainingSpec(preset=training.preset, keep=training.keep, optimizer=training.optimizer)
    with TemporaryDirectory() as place:
        folder = Path(place) / "model"
        words = [f"word{number}" for number in range(spec.images.n_classes + 20)]
        write_model_folder(folder, training.preset, words=words, longest=12, image_size=size)
        run = Run("run", folder, Path(place) / "no.tsv", 1000, Path(place), recipe.recipe)
        return forecast_disk([run] * n_runs, jobs=jobs)


def cost_of_model(
    checkpoint: str,
    images: str | Path,
    *,
    architecture: str | None = None,
    domains: Sequence[str] = (),
    device: str = "cpu",
) -> Cost:
    """What measuring one model costs: opens it and its pictures, and times a forward.

    minutes = (n forwards x seconds of one + statistics) / 60, where n = pictures (accuracy) +
    78,000 x min(1, pictures / 2,880), as measured for circuits, patching and erasure. Raises what
    opening either raises, and for domains that cannot be compared.
    """
    from interp.data import open_images
    from interp.models.loading.load_encoder import load_any

    pictures = open_images(images)
    compared_domains(pictures, domains)
    clip = load_any(checkpoint, model=architecture, device=device)
    forward = _forward(clip, pictures[: min(8, len(pictures))])
    share = min(1.0, len(pictures) / PICTURES)
    minutes = ((len(pictures) + FORWARDS * share) * forward + STATISTICS * share) / 60
    text = (
        f"1 model, no training; {len(pictures)} pictures, {len(pictures.labels)} classes, domains "
        f"{listed(pictures.domains)}; {1000 * forward:.1f} ms per picture; measuring takes about "
        f"{max(1, round(minutes))} minutes and {_size(TABLES)} of disk (rough: forwards and "
        "statistics as counted on a small ResNet)"
    )
    return Cost(0, 1, 0.0, minutes, TABLES, text)


def _forward(clip: Any, pictures: ImageTable) -> float:
    """Seconds that a picture takes, after a first run that warms up."""
    import torch

    batch = pictures.tensors(clip.preprocess).to(next(clip.visual.source.parameters()).device)
    with torch.no_grad():
        clip.visual(batch)
        start = time.perf_counter()
        clip.visual(batch).sum().item()  # waits for a GPU
    return (time.perf_counter() - start) / len(batch)


def _size(n_bytes: float) -> str:
    """Bytes in words.

    >>> _size(2_500_000), _size(1.3e9)
    ('2 MB', '1.3 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"

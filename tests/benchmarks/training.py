"""What training costs: loading against the bare model, and waiting for data."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.timing import ratio, seconds


def prepared(folder: Path, *, size: int = 48) -> tuple[Any, Any, Any]:
    """The embedded study's pictures, its widest mixture, and a model folder."""
    from interp.data import open_images
    from interp.data.artwork.embedded import EmbeddedSpec
    from interp.data.mixtures.mixture import make_mixture
    from interp.data.mixtures.settings import MixtureSpec
    from interp.data.mixtures.subsampling import choose_held_out
    from interp.data.mixtures.templates import longest_caption, vocabulary
    from interp.models.loading.presets import write_model_folder

    images = open_images(spec=EmbeddedSpec(size=size))
    held_out = choose_held_out(images.labels, 10)
    tsv = make_mixture(images, MixtureSpec("cg-high", "sketch", held_out)).write(folder / "m")
    named = images.labels, images.domains
    words, longest = vocabulary(*named), longest_caption(*named)
    preset, shape = "resnet-small", {"words": words, "longest": longest, "image_size": size}
    model = write_model_folder(folder / preset, preset, **shape)
    return images, tsv, model


def train() -> None:
    """Training throughput against the bare forward and backward of the same model, one thread; and
    the share of a step that waits for data, as runs write it down."""
    import torch

    from interp.models.training.recipes import Recipe, fast_precision

    torch.set_num_threads(1)
    precision, batch = fast_precision("cpu"), Recipe().batch_size
    with tempfile.TemporaryDirectory() as name:
        _, tsv, model = prepared(Path(name))
        step, bare = _loaded_and_bare(model, tsv, precision, batch, Path(name))
        pairs = [(seconds(step), seconds(bare)) for _ in range(15)][3:]
    ours, theirs = zip(*pairs, strict=True)
    print(
        f"train: {batch / statistics.median(ours):.0f} pictures/s with loading, loss, optimizer; "
        f"bare forward and backward {batch / statistics.median(theirs):.0f}; ratio "
        f"{ratio(theirs, ours):.2f} (bar 0.70); {precision}, channels_last, one thread"
    )
    for size, workers in ((48, 0), (64, 0), (64, 1)):
        _print_waiting(size, workers)


def _print_waiting(size: int, workers: int) -> None:
    """Two runs side by side, as studies train."""
    from interp.models.training.journal import read_journal
    from interp.models.training.recipes import Recipe
    from interp.models.training.run import Run
    from interp.models.training.train import train

    with tempfile.TemporaryDirectory() as name:
        _, tsv, model = prepared(Path(name), size=size)
        rows = len(tsv.read_text().splitlines()) - 1
        recipe = Recipe(steps=2 * (rows // 128), warmup=10, workers=workers)
        runs = [Run(f"{i}", model, tsv, rows, Path(name) / "out", recipe) for i in range(2)]
        train(runs, jobs=2, device="cpu")
        frame = read_journal(runs[0].folder).frame
    later = frame[frame["epoch"] > 1]  # captions are tokenized in the first epoch
    share = later["waiting"].sum() / later["seconds"].sum()
    print(
        f"train: {share:.1%} of a step waits for data (bar 10 %), {size} pixels, {workers} workers,"
        f" two runs side by side, {later['pictures_per_second'].median():.0f} pictures/s each"
    )


def _loaded_and_bare(
    model_folder: Path, tsv: Path, precision: str, batch_size: int, out: Path
) -> tuple[Callable[[], object], Callable[[], object]]:
    """One step of the launcher's loop on open_clip's parts, and the bare model on a fixed batch."""
    import torch
    from open_clip_train.precision import get_autocast
    from open_clip_train.train import train_one_epoch

    from interp.models.training import launcher
    from interp.models.training.recipes import Recipe
    from interp.models.training.run import Run

    recipe = Recipe(precision=precision, batch_size=batch_size)
    rows = len(tsv.read_text().splitlines()) - 1
    words = Run("bench", model_folder, tsv, rows, out, recipe).command(device="cpu")
    args = launcher.prepare(words[words.index("--") + 1 :])
    args.distributed, args.world_size, args.rank, args.local_rank = False, 1, 0, 0
    args.log_every_n_steps = 1_000_000
    model, transform = launcher.build(args, torch.device("cpu"))
    model.train()
    optimizer = launcher.build_optimizer(model, args)
    target = launcher.build_target(args)
    data = {"train": launcher.feed(args, transform, target, epoch=0)}
    loader: Any = data["train"].dataloader
    for text in loader.dataset.words:  # as after the first epoch: every caption tokenized once
        target([text])
    loss, batches = launcher.build_loss(args), iter(loader)
    images, texts = next(batches)

    class One:
        """The loader, one batch an epoch."""

        num_batches, num_samples = 1, batch_size

        def __iter__(self):
            yield next(batches)

    data["train"].dataloader = One()  # type: ignore[assignment]

    def step() -> None:
        train_one_epoch(model, data, loss, 0, optimizer, None, lambda step: None, None, args)

    def bare() -> None:
        with get_autocast(precision, device_type="cpu")():
            total = torch.stack(list(loss(**model(images, texts), output_dict=True).values())).sum()
        optimizer.zero_grad()
        total.backward()

    return step, bare

"""Print the figures that the project aims at, each measured in this run.

python -m tests.benchmarks                 all of them (an hour and a half on two cores)
python -m tests.benchmarks start train     some of them
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.mixing import mix
from tests.benchmarks.opening import open_

FOLDER = Path("interp-report") / "benchmarks"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def start() -> None:
    """`interp-report --help` and `import interp`, medians of seven processes."""
    help_command = [sys.executable, "-m", "interp.cli", "--help"]
    bare = [sys.executable, "-c", "pass"]
    ours = [sys.executable, "-c", "import interp"]
    for name, command, bar in (
        ("--help", help_command, 0.5),
        ("import interp", ours, 0.3),
        ("bare python", bare, None),
    ):
        times = [
            seconds(lambda c=command: subprocess.run(c, capture_output=True, check=True))
            for _ in range(7)
        ]
        print(
            f"start: {name:14} {statistics.median(times):.2f} s"
            + (f" (bar {bar} s)" if bar else "")
        )


def train() -> None:
    """Training throughput against the bare forward and backward of the same model, one thread."""
    import torch

    from interp.data import open_images
    from interp.data.mixtures import MixtureSpec, choose_held_out, make_mixture
    from interp.models.training import Recipe, fast_precision
    from interp.study import Study

    torch.set_num_threads(1)
    images = open_images()
    held_out = choose_held_out(images.labels, 10)
    precision = fast_precision("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tsv = make_mixture(images, MixtureSpec("cg-high", "sketch", held_out)).write(folder / "m")
        model = Study()._model_folder(images, folder)
        step, bare = _loaded_and_bare(model, tsv, precision, Recipe().batch_size)
        pairs = [(seconds(step), seconds(bare)) for _ in range(15)][3:]
    ours, theirs = (128 / statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        f"train: {ours:.0f} pictures/s with loading, loss and optimizer; bare forward and backward "
        f"{theirs:.0f}; ratio {ratio:.2f} (bar 0.70); {precision}, channels_last, one thread"
    )


def _loaded_and_bare(
    model_folder: Path, tsv: Path, precision: str, batch_size: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """One step of the launcher's loop on open_clip's parts, and the bare model on a fixed batch."""
    import torch
    from open_clip import create_loss, get_tokenizer
    from open_clip_train.data import get_data
    from open_clip_train.precision import get_autocast
    from open_clip_train.train import train_one_epoch

    from interp.models import launcher

    args = launcher.prepare(
        [
            "--model",
            f"local-dir:{model_folder}",
            "--train-data",
            str(tsv),
            "--csv-separator",
            "\t",
            "--dataset-type",
            "csv",
            "--batch-size",
            str(batch_size),
            "--workers",
            "0",
            "--precision",
            precision,
            "--device",
            "cpu",
            "--log-every-n-steps",
            "1000000",
            "--name",
            "bench",
        ]
    )
    args.distributed, args.world_size, args.rank, args.local_rank = False, 1, 0, 0
    model, transforms = launcher.build(args, torch.device("cpu"))
    model.train()
    optimizer = launcher.build_optimizer(model, args)
    tokenizer = launcher.remembering(get_tokenizer(args.model))
    data = get_data(args, transforms, tokenizer=tokenizer)
    loader = data["train"].dataloader
    for text in loader.dataset.captions:  # as after the first epoch: every caption tokenized once
        tokenizer([text])
    loss, batches = create_loss(args), iter(loader)
    images, texts = next(batches)

    class One:
        """The loader, one batch an epoch."""

        num_batches, num_samples = 1, batch_size

        def __iter__(self):
            yield next(batches)

    data["train"].dataloader = One()

    def step() -> None:
        train_one_epoch(model, data, loss, 0, optimizer, None, lambda step: None, None, args)

    def bare() -> None:
        with get_autocast(precision, device_type="cpu")():
            total = torch.stack(list(loss(**model(images, texts), output_dict=True).values())).sum()
        optimizer.zero_grad()
        total.backward()

    return step, bare


def study() -> None:
    """The main job from an installed package: seconds, peak memory, and rebuilding the page."""
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "INTERP_CACHE": f"{name}/cache"}
        command = [sys.executable, "-m", "interp.cli", "run", "--quiet", "--out", f"{name}/out"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        peak: list[float] = []
        watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
        watch.start()
        taken = seconds(process.wait)
        print(
            f"study: {taken / 60:.1f} minutes (bar 15), {max(peak):.1f} GiB at most (bar 4), exit "
            f"{process.returncode}"
        )
        again = [*command[:3], "page", "--out", f"{name}/out"]
        rebuilt = seconds(
            lambda: subprocess.run(again, env=environment, check=True, stdout=subprocess.DEVNULL)
        )
        second = seconds(
            lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        )
        print(f"study: page rebuilt in {rebuilt:.1f} s (bar 20); a second run {second:.1f} s")


def _watch(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    """Proportional memory of the process and all its descendants, GiB, twice a second."""
    import psutil

    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for each in [root, *root.children(recursive=True)]:
            try:
                total += each.memory_full_info().pss
            except psutil.Error:
                continue
        peak.append(total / 2**30)
        time.sleep(0.5)


def seeds() -> None:
    """Do the paper's orderings hold, over seeds 0-2, for two test domains?"""
    from interp.study import Study

    spec = Path(__file__).with_name("seeds.toml")
    frame = Study.from_toml(spec).run(FOLDER / "seeds").tables["differences"].frame
    frame = frame[frame["candidates"] == "all"]
    for row in frame.sort_values(["prompts", "test_domain"]).itertuples():
        print(
            f"seeds: {row.test_domain:10} {row.prompts:16} {row.setting:34} "
            f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}] over {row.n_units} classes "
            f"and {int(row.n_runs) // 2} seeds"
        )


def certificates() -> None:
    """The worst site of every form of architecture in small, and of some in full size."""
    import open_clip

    from interp import load_clip
    from interp.models.certificate import certify
    from interp.models.towers import open_tower
    from tests.architectures import forms, is_hugging_face, is_timm, small

    own = (("visual", is_timm), ("text", is_hugging_face))
    for name, names in forms().items():
        config = open_clip.get_model_config(name) or {}
        model = small(name)
        for which in (which for which, foreign in own if not foreign(config)):
            _print_worst(
                f"{name} and {len(names) - 1} more, small", certify(open_tower(model, which))
            )
    for name in ("ViT-B-32", "ViT-B-16", "RN50", "RN101"):
        _print_worst(f"{name}, full size", certify(load_clip(name).visual, batch=2))


def _print_worst(name: str, frame: Any) -> None:
    """The site whose error is largest for its bar."""
    row = frame.loc[(frame["error"] / frame["bar"]).idxmax()]
    verdict = "passed" if frame["ok"].all() else f"FAILED at {(~frame['ok']).sum()} sites"
    print(
        f"certificate: {name}: {row['tower']} {verdict}, {len(frame)} rows; worst {row['site']} "
        f"({row['check']}, {row['dtype']}) {row['error']:.1e} of a bar of {row['bar']:.1e}"
    )


BENCHMARKS = {
    "certificates": certificates,
    "start": start,
    "mix": mix,
    "train": train,
    "open": open_,
    "study": study,
    "seeds": seeds,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or list(BENCHMARKS):
        BENCHMARKS[chosen]()

"""Train CLIPs by starting the launcher under torchrun, one process per run, side by side."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch

from interp.core.errors import InterpError, SampleError, SpecificationError
from interp.core.progress import Bars
from interp.core.store import writable

PRECISIONS = ("fp32", "amp_bf16", "amp")
_EPOCH = re.compile(r"Train Epoch: (\d+) \[.*\((\d+)%\)\].*?Loss: [\d.e+-]+ \(([\d.e+-]+)\)")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: optimiser steps rather than epochs, so that mixtures compare.

    The learning rate rises over `warmup` steps and falls along a cosine; `precision` "auto" is
    bfloat16 where the machine computes it fast, else float32.
    """

    steps: int = 1000
    batch_size: int = 128
    lr: float = 1e-3
    wd: float = 0.05
    warmup: int = 100
    precision: str = "auto"
    save_frequency: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision != "auto" and self.precision not in PRECISIONS:
            raise SpecificationError(
                "train a model",
                f"precision {self.precision!r}",
                f"auto or one of {', '.join(PRECISIONS)}",
                "choose one of them",
            )
        if min(self.steps, self.batch_size) < 1 or self.batch_size < 2:
            raise SpecificationError(
                "train a model",
                f"{self.steps} steps of {self.batch_size} pictures",
                "at least one step of two",
                "choose larger numbers",
            )

    def epochs(self, n_train: int) -> int:
        """The number of whole epochs nearest to `steps`, at least one."""
        batches = n_train // self.batch_size
        if batches < 1:
            raise SampleError(
                "train a model",
                f"{n_train} training pictures",
                f"at least one batch of {self.batch_size}",
                "give more pictures or a smaller batch_size",
            )
        return max(1, round(self.steps / batches))


def fast_precision(device: str) -> str:
    """bfloat16 autocast where it is fast (a GPU, or a CPU with the instructions), else float32."""
    if device.startswith("cuda"):
        return "amp_bf16" if torch.cuda.is_bf16_supported() else "amp"
    return "amp_bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


@dataclass(frozen=True)
class Run:
    """One training run: a name, its model folder, its pictures, and where the result goes."""

    name: str
    model_folder: Path
    tsv: Path
    n_train: int
    out: Path
    recipe: Recipe

    @property
    def epochs(self) -> int:
        """How many epochs the run has."""
        return self.recipe.epochs(self.n_train)

    @property
    def checkpoints(self) -> Path:
        """The folder of `epoch_k.pt`."""
        return self.out / self.name / "checkpoints"

    @property
    def final(self) -> Path:
        """The last checkpoint; it exists when the run is finished."""
        return self.checkpoints / f"epoch_{self.epochs}.pt"

    def command(self, *, device: str, processes: int = 1) -> list[str]:
        """The torchrun command that makes this run, for this machine or another."""
        recipe = self.recipe
        precision = fast_precision(device) if recipe.precision == "auto" else recipe.precision
        options = {
            "model": f"local-dir:{self.model_folder}",
            "train-data": self.tsv,
            "csv-separator": "\t",
            "dataset-type": "csv",
            "logs": self.out,
            "name": self.name,
            "epochs": self.epochs,
            "batch-size": recipe.batch_size // processes,
            "lr": recipe.lr,
            "wd": recipe.wd,
            "warmup": recipe.warmup,
            "precision": precision,
            "seed": recipe.seed,
            "workers": 0,
            "save-frequency": recipe.save_frequency,
            "device": device,
            "log-every-n-steps": 20,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            "-m",
            "interp.models.launcher",
            "--",
            *words,
            "--aug-cfg",
            "scale=(0.9, 1.0)",
        ]


def train(runs: Sequence[Run], *, jobs: int = 2, device: str | None = None) -> None:
    """Make all runs, `jobs` at a time, the cores shared evenly; finished ones are left alone.

    Each goes on from its latest checkpoint. Raises `InterpError` with the end of the log when a run
    fails; on Ctrl-C the trainers are stopped first, and what they have written stays.
    """
    waiting = [run for run in runs if not run.final.exists()]
    if not waiting:
        return
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = max(1, (os.cpu_count() or 1) // min(jobs, len(waiting)))
    stop = Event()
    with Bars("train") as bars, ThreadPoolExecutor(max_workers=jobs) as pool:
        tasks = [
            pool.submit(_supervise, run, where, threads, stop, bars.add(run.name))
            for run in waiting
        ]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            stop.set()
            for task in tasks:
                task.cancel()
            raise


def _supervise(
    run: Run, device: str, threads: int, stop: Event, progress: Callable[[float, str], None]
) -> None:
    """Start one trainer and follow its log until it ends or is to stop."""
    if stop.is_set():
        return
    writable(run.out, purpose=f"the run {run.name}")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    process = subprocess.Popen(
        run.command(device=device),
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tail: list[str] = []
    try:
        for line in _lines_until(process, stop):
            tail = [*tail[-200:], line.rstrip()]
            if found := _EPOCH.search(line):
                epoch, percent, loss = int(found[1]), int(found[2]), float(found[3])
                progress(
                    (epoch + percent / 100) / run.epochs,
                    f"epoch {epoch + 1} of {run.epochs}, loss {loss:.2f}",
                )
    finally:
        _end(process)
    if not stop.is_set() and not run.final.exists():
        raise InterpError(
            f"train {run.name}",
            f"a trainer that ended with status {process.returncode} ({_cause(tail)})",
            "a finished run",
            f"mend that and run again; its log is {run.out / run.name / 'out.log'}",
        )


def _cause(log: Sequence[str]) -> str:
    """The last exception that a trainer printed, leaving out torchrun's own about its worker."""
    raised = [line for line in log if re.match(r"(\[rank\d+\]: *)?[\w.]*(Error|Exception)\b", line)]
    own = [line for line in raised if "ChildFailedError" not in line]
    return own[-1].strip() if own else "it printed no error"


def _lines_until(process: subprocess.Popen[str], stop: Event):
    """The lines that a process prints, until it ends or `stop` is set."""
    assert process.stdout is not None
    for line in process.stdout:
        if stop.is_set():
            return
        yield line
    process.wait()


def _end(process: subprocess.Popen[str]) -> None:
    """Stop a trainer and its workers, which form a process group of their own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()

"""Training of CLIPs: one launcher for each run, under torchrun where it has several processes."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Event

import torch

from interp.core import errors
from interp.core.errors import InterpError, OutputError
from interp.core.parallel import devices_in_turn, threads_each, which_device
from interp.core.progress import Bars, say
from interp.core.storage.store import in_words, writable
from interp.models.training.lists import classes_of
from interp.models.training.resume import LATEST, refuse_another
from interp.models.training.run import TOLD, Run

STATES = {"adamw": 2, "muon": 2, "sgd": 1}
"""Tensors as large as the parameter that an optimizer keeps for it."""
COUNTERS = {"adamw": 1, "muon": 1, "sgd": 0}
"""Single numbers that it keeps beside them."""
PER_TENSOR, PER_FILE = 320, 3000
"""Bytes that a tensor takes in a file beside its values (name, place, padding), and a file."""


@dataclass(frozen=True)
class Size:
    """What a module puts into a checkpoint.

    Args:
        trained: Number of trained numbers.
        buffers: Bytes of buffers.
        n_trained: Number of parameter tensors.
        n_buffers: Number of buffers.
    """

    trained: int
    buffers: int
    n_trained: int
    n_buffers: int


def forecast_disk(runs: Sequence[Run], *, jobs: int = 1) -> int:
    """Bytes that unfinished runs take at most.

    kept epochs x weights for each run, and 2 x (weights + optimizer) for each of `jobs` at work:
    the latest state, and its successor while that is being written.

    Args:
        runs: The runs.
        jobs: How many train at a time.

    Returns:
        Bytes, without TensorBoard files and logs.
    """
    waiting = [run for run in runs if not run.final.exists()]
    sizes = [checkpoint_bytes(run) for run in waiting]
    stay = sum(
        weights * len(run.kept_epochs) for run, (weights, _) in zip(waiting, sizes, strict=True)
    )
    work = sorted((2 * (weights + states) for weights, states in sizes), reverse=True)
    return stay + sum(work[:jobs])


def checkpoint_bytes(run: Run) -> tuple[int, int]:
    """Bytes of one checkpoint's weights, and of the optimizer's state, at most.

    Args:
        run: The run.

    Returns:
        Both numbers.
    """
    recipe = run.recipe
    size, image, width = _sizes(run.model_folder)
    if recipe.objective == "supervised":
        head = (width + 1) * len(classes_of(run.tsv))
        size = replace(image, trained=image.trained + head, n_trained=image.n_trained + 2)
    number = 8 if recipe.precision == "fp64" else 4
    states, counters = STATES[recipe.optimizer], COUNTERS[recipe.optimizer]
    weights = number * size.trained + size.buffers * number // 4
    return (
        weights + PER_TENSOR * (size.n_trained + size.n_buffers) + PER_FILE,
        states * number * size.trained + PER_TENSOR * (states + counters) * size.n_trained,
    )


@lru_cache(maxsize=64)
def _sizes(folder: Path) -> tuple[Size, Size, int]:
    """A whole model, its image tower alone, and the width of the embedding."""
    from interp.models.loading.load_clip import create

    with torch.device("meta"):  # shapes without memory
        model = create(f"local-dir:{folder}", device="meta", load_weights=False)
    width = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    return _size(model), _size(model.get_submodule("visual")), int(width)


def _size(module: torch.nn.Module) -> Size:
    kept, parameters = module.state_dict(), dict(module.named_parameters())
    buffers = [value for name, value in kept.items() if name not in parameters]
    return Size(
        sum(value.numel() for value in parameters.values()),
        sum(value.numel() * value.element_size() for value in buffers),
        len(parameters),
        len(buffers),
    )


def check_room(runs: Sequence[Run], *, jobs: int = 1) -> None:
    """Say how much disk the runs will take, and refuse to start if there is less.

    Args:
        runs: The runs.
        jobs: How many train at a time.

    Raises:
        OutputError: If the disk has no room.
    """
    need = forecast_disk(runs, jobs=jobs)
    folder = runs[0].out
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < need:
        asked = f"train {len(runs)} models into {runs[0].out}"
        do = "make room, keep fewer epochs, or choose another folder"
        raise OutputError(asked, f"{in_words(free)} of free disk", f"{in_words(need)}", do)
    say(f"checkpoints: {in_words(need)} at most; {in_words(free)} are free")


_EPOCH = re.compile(r"Train Epoch: (\d+) \[.*\((\d+)%\)\].*? Loss: \S+ \((\S+)\)")


def train(
    runs: Sequence[Run],
    *,
    jobs: int = 2,
    device: str | None = None,
    processes: int = 1,
    track: bool = False,
) -> None:
    """Train all runs that are not finished, several at a time, each from its latest checkpoint.

    Args:
        runs: The runs.
        jobs: How many train at a time; they share the cores evenly.
        device: Where to train; None takes a GPU if there is one. With "cuda" each run has the next
            card.
        processes: Processes of this machine for each run.
        track: Whether to write TensorBoard files beside the checkpoints.

    Raises:
        OutputError: If the disk has no room.
        DataError: If a training list or model folder is missing.
        SpecificationError: For a folder that holds a run of another specification.
        NumericsError: When training diverges; the last good epoch is kept.
        InterpError: When a run fails otherwise, with the end of its log. Other runs continue, and
            the error is raised at the end.

    Notes:
        Disk use is forecast first. On Ctrl-C the trainers are stopped, and what they have written
        is kept.

    >>> from interp.models.training.recipes import Recipe
    >>> run = Run("cg-high-0", Path("no-model"), Path("no.tsv"), 4000, Path("runs"), Recipe())
    >>> train([run])
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot train cg-high-0: given no.tsv, which is not there, ...
    """
    waiting = [run for run in runs if not _finished(run)]
    if not waiting:
        return
    for run in waiting:
        run.check()
        run.recipe.share(processes)
    check_room(waiting, jobs=jobs)
    for run in waiting:
        run.prepare()
    where = which_device(device)
    # several processes of one run take the cards themselves
    devices = devices_in_turn(where, len(waiting)) if processes == 1 else [where] * len(waiting)
    threads = threads_each(min(jobs, len(waiting)) * processes)
    stop = Event()
    commands = [
        run.command(device=each, processes=processes, track=track)
        for run, each in zip(waiting, devices, strict=True)
    ]
    with Bars("train") as bars, ThreadPoolExecutor(max_workers=jobs) as pool:
        tasks = [
            pool.submit(_supervise, run, command, threads, stop, bars.add(run.name))
            for run, command in zip(waiting, commands, strict=True)
        ]
        try:
            failed = [error for task in tasks if (error := _outcome(task)) is not None]
        except BaseException:
            stop.set()
            for task in tasks:
                task.cancel()
            raise
    if len(failed) == 1:
        raise failed[0]
    if failed:
        given = f"{len(failed)} that failed, the first with {failed[0].given}"
        do = "mend that and run again; the others are finished"
        raise InterpError(f"train {len(waiting)} models", given, "finished runs", do)


def _outcome(task: "Future[None]") -> InterpError | None:
    """The error that a run failed with, so that others continue; a full disk stops all runs."""
    try:
        task.result()
    except OutputError:
        raise
    except InterpError as error:
        return error
    return None


def _finished(run: Run) -> bool:
    """Whether a run is done; one of another specification by the same name is refused.

    Device and precision are not compared.
    """
    if not run.final.exists():
        return False
    if (run.folder / "params.txt").is_file() and run.tsv.is_file():
        refuse_another(run.folder, run.decisive())
    (run.checkpoints / LATEST).unlink(missing_ok=True)  # a kill can leave it behind
    return True


def _supervise(
    run: Run,
    command: Sequence[str],
    threads: int,
    stop: Event,
    progress: Callable[[float, str], None],
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
        command,
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
            if match := _EPOCH.search(line):
                epoch, percent, loss = int(match[1]), int(match[2]), float(match[3])
                progress(
                    (epoch + percent / 100) / run.epochs,
                    f"epoch {epoch + 1} of {run.epochs}, loss {loss:.2f}",
                )
    finally:
        _end(process)
    if not stop.is_set() and not run.final.exists():
        _tell(tail)
        given = f"a trainer that ended with status {process.returncode} ({_cause(tail)})"
        do = f"mend that and run again; its log is {run.folder / 'out.log'}"
        raise InterpError(f"train {run.name}", given, "a finished run", do)


def _tell(log: Sequence[str]) -> None:
    """Raise the error of ours that a trainer reported, if there is one."""
    for line in log:
        if TOLD in line:
            name, *parts = json.loads(line.split(TOLD, 1)[1])
            raise getattr(errors, name)(*parts)


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
    """Stop a trainer and its workers, which form a process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()

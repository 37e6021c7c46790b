"""Train CLIPs by starting the launcher under torchrun, several runs side by side."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from interp.core import errors
from interp.core.errors import InterpError, OutputError
from interp.core.parallel import which_device
from interp.core.progress import Bars
from interp.core.store import writable
from interp.models.forecast import check_room, forecast_disk
from interp.models.identity import LATEST, refuse_another
from interp.models.recipes import RECIPES, Recipe, fast_precision, named_recipe
from interp.models.runs import TOLD, Run
from interp.models.shards import Base

__all__ = [
    "RECIPES",
    "Base",
    "Recipe",
    "Run",
    "fast_precision",
    "forecast_disk",
    "named_recipe",
    "train",
]

_EPOCH = re.compile(r"Train Epoch: (\d+) \[.*\((\d+)%\)\].*? Loss: \S+ \((\S+)\)")


def train(
    runs: Sequence[Run],
    *,
    jobs: int = 2,
    device: str | None = None,
    processes: int = 1,
    track: bool = False,
) -> None:
    """Make all runs, `jobs` at a time, the cores shared evenly; finished ones are left alone.

    Each goes on from its latest checkpoint, over `processes` of this machine; `track` writes what
    TensorBoard reads beside the checkpoints. Disk is forecast first. Raises `OutputError` where the
    disk has no room, `SpecificationError` for a folder that holds a run of another specification,
    `NumericsError` when training diverges (the last good epoch stays), and `InterpError` with the
    end of the log when a run fails otherwise; other runs go on, and the error comes at the end. On
    Ctrl-C the trainers are stopped first, and what they have written stays.
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
    threads = max(1, (os.cpu_count() or 1) // (min(jobs, len(waiting)) * processes))
    stop = Event()
    commands = [run.command(device=where, processes=processes, track=track) for run in waiting]
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
        raise InterpError(
            f"train {len(waiting)} models",
            f"{len(failed)} that failed, the first with {failed[0].given}",
            "finished runs",
            "mend that and run again; the others are finished",
        )


def _outcome(task: "Future[None]") -> InterpError | None:
    """What a run failed with, so that the others go on; a disk without room stops them all."""
    try:
        task.result()
    except OutputError:
        raise
    except InterpError as error:
        return error
    return None


def _finished(run: Run) -> bool:
    """Whether a run is done; one of another specification by the same name is refused.

    Where it was computed, and so its precision, is no matter any more.
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
            if found := _EPOCH.search(line):
                epoch, percent, loss = int(found[1]), int(found[2]), float(found[3])
                progress(
                    (epoch + percent / 100) / run.epochs,
                    f"epoch {epoch + 1} of {run.epochs}, loss {loss:.2f}",
                )
    finally:
        _end(process)
    if not stop.is_set() and not run.final.exists():
        _tell(tail)
        raise InterpError(
            f"train {run.name}",
            f"a trainer that ended with status {process.returncode} ({_cause(tail)})",
            "a finished run",
            f"mend that and run again; its log is {run.folder / 'out.log'}",
        )


def _tell(log: Sequence[str]) -> None:
    """Raise the error of ours that a trainer told, if there is one."""
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

"""The record of a run: the loss of every step, its learning rate, and time spent waiting for data.

It is fed by wrappers around the three things that open_clip's epoch loop receives: the loader, the
schedule and the loss.
"""

import csv
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp.core.errors import SpecificationError
from interp.core.storage.store import write_atomic
from interp.core.tables import Table
from interp.models.training.resume import diverged

FILE = "losses.csv"
FIELDS = ("step", "epoch", "loss", "lr", "pictures_per_second", "waiting", "seconds")
TERM = "alignment"
"""A further column of a run that aligns classes: that part of the loss, before its weight."""
Loss = Callable[..., dict[str, Tensor]]
LOOK_EVERY = 20  # steps between looks at the loss: each one makes a GPU wait


class Journal:
    """Collects the steps of an epoch; `close` appends them to `losses.csv`, on the first rank.

    Args:
        folder: The run's folder.
        args: The launcher's options.
        start: The epoch that training starts from; rows of later epochs, which an interrupted run
            left behind, are dropped.

    Notes:
        With several ranks the loss is the mean of theirs, which is the loss of the whole batch.
    """

    def __init__(self, folder: Path, args: Namespace, start: int) -> None:
        """Open the record, keeping the rows up to epoch `start`."""
        self._path, self._args = folder / FILE, args
        self._weight = getattr(args, "align", 0.0)
        self._fields = (*FIELDS, TERM) if self._weight else FIELDS
        self._clear()
        if args.rank == 0:
            text = self._path.read_text() if self._path.exists() else ""
            rows = [row for row in csv.DictReader(text.splitlines()) if int(row["epoch"]) <= start]
            write_atomic(self._path, _text(rows, self._fields))

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._terms: list[Tensor] = []
        self._rates: list[float] = []
        self._waits: list[float] = []
        self._ends: list[float] = []

    def feeding(self, loader: Any) -> "Timed":
        """Wrap the loader, recording its waits."""

        def note(seconds: float, now: float) -> None:
            self._waits.append(seconds)
            self._ends.append(now)

        return Timed(loader, note)

    def steering(self, schedule: Callable[[int], float]) -> Callable[[int], None]:
        """Wrap the schedule, recording its rates."""

        def steer(step: int) -> None:
            self._rates.append(schedule(step))

        return steer

    def judging(self, loss: Loss) -> Loss:
        """Wrap the loss, recording it; a loss that is not finite ends the run."""

        def judge(**outputs: object) -> dict[str, Tensor]:
            losses = loss(**outputs)
            self._losses.append(torch.stack([each.detach() for each in losses.values()]).sum())
            if self._weight:
                self._terms.append(losses[TERM].detach() / self._weight)
            if len(self._losses) % LOOK_EVERY == 0:
                self._look()
            return losses

        return judge

    def _look(self) -> None:
        if self._losses and not torch.isfinite(torch.stack(self._losses[-LOOK_EVERY:])).all():
            raise diverged(self._args, "a loss that is not finite")

    def close(self, epoch: int) -> None:
        """Write the steps of epoch number `epoch`, counted from 1."""
        self._look()
        every = self._args.accum_freq  # with accumulation, each part judges the whole batch
        losses = torch.stack(self._losses[every - 1 :: every]).double()
        if self._args.distributed:
            torch.distributed.all_reduce(losses)
            losses /= self._args.world_size
        if self._args.rank == 0:
            rows = self._rows(epoch, losses.tolist())
            if self._weight:  # every rank has the term of the whole batch
                terms = torch.stack(self._terms[every - 1 :: every]).tolist()
                rows = [row | {TERM: repr(term)} for row, term in zip(rows, terms, strict=True)]
            with self._path.open("a", newline="") as handle:
                handle.write(_text(rows, self._fields, header=False))
        self._clear()

    def _rows(self, epoch: int, losses: list[float]) -> list[dict[str, object]]:
        every, n = self._args.accum_freq, len(losses)
        begun = [end - wait for end, wait in zip(self._ends, self._waits, strict=True)][::every]
        begun = [*begun[:n], begun[n] if len(begun) > n else time.perf_counter()]
        return [
            {
                "step": (epoch - 1) * n + step,
                "epoch": epoch,
                "loss": repr(loss),
                "lr": repr(self._rates[step * every]),
                "pictures_per_second": f"{self._args.global_batch / took:.1f}",
                "waiting": f"{sum(self._waits[step * every : (step + 1) * every]):.6f}",
                "seconds": f"{took:.6f}",
            }
            for step, loss in enumerate(losses)
            for took in [begun[step + 1] - begun[step]]
        ]


class Timed:
    """A loader that reports how long each batch was waited for, and when it came.

    Args:
        loader: The loader.
        tell: Called with the seconds waited and the time of arrival.
    """

    def __init__(self, loader: Any, tell: Callable[[float, float], None]) -> None:
        self._loader, self._tell = loader, tell
        self.num_batches, self.num_samples = loader.num_batches, loader.num_samples

    def __iter__(self) -> Iterator[object]:
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            now = time.perf_counter()
            self._tell(now - start, now)
            yield batch


def _text(
    rows: Sequence[Mapping[str, object]], fields: Sequence[str], *, header: bool = True
) -> str:
    lines = [",".join(fields)] if header else []
    lines += [",".join(str(row[name]) for name in fields) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def tensorboard(run: Path, args: Namespace) -> object:
    """open_clip's TensorBoard writer, or None unless `--report-to tensorboard` was given.

    Args:
        run: The run's folder.
        args: The launcher's options.

    Returns:
        The writer on the first rank, else None.

    Raises:
        SpecificationError: If tensorboard is not installed.
    """
    if not (args.tensorboard and args.rank == 0):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        right = "the package tensorboard"
        do = "run pip install tensorboard"
        raise SpecificationError("report to TensorBoard", "no tensorboard", right, do) from None
    return SummaryWriter(str(run / "tensorboard"))


def read_journal(run: Path) -> Table:
    """The losses of a run, one row per step of the optimizer.

    Args:
        run: The run's folder.

    Returns:
        The table.
    """
    return Table("training", pd.read_csv(run / FILE))

"""The files of a run, and how a run continues from them; a kill costs at most one epoch.

    RUN/params.txt                 the options in open_clip's form, with those that decide results
    RUN/checkpoints/epoch_k.pt     weights of a kept epoch; epoch_0.pt is the untrained model
    RUN/checkpoints/latest.pt      the last epoch with the states of optimizer, scaler and of the
                                   loss, where it has one; deleted at the end

Every file is written under another name and renamed when it is on the disk. The last `epoch_k.pt`
exists if and only if the run is finished.
"""

import errno
import fcntl
import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from interp.core.errors import CheckpointError, NumericsError, OutputError, SpecificationError
from interp.core.storage.store import file_hash, fingerprint, write_atomic
from interp.models.loading.checkpoints import check_finite, first_line


@runtime_checkable
class Stateful(Protocol):
    """What has a state to go on from: a gradient scaler, or a term of the loss."""

    def state_dict(self) -> dict[str, object]: ...

    def load_state_dict(self, state: dict[str, object], /) -> object: ...


UNFINISHED = "writing.tmp"


def write_params(folder: Path, args: Namespace) -> None:
    """Write the options to `params.txt`, from which a checkpoint's architecture is read."""
    lines = [f"{name}: {value}\n" for name, value in sorted(vars(args).items())]
    write_atomic(folder / "params.txt", "".join(lines))


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Stateful | None,
    term: Stateful | None = None,
) -> int:
    """Load the latest epoch if there is one.

    Args:
        folder: The folder of checkpoints.
        model: The model to fill.
        optimizer: Its optimizer.
        scaler: Its gradient scaler, or None.
        term: A part of the loss with a state of its own, or None.

    Returns:
        The epoch's number; 0 without one.

    Raises:
        CheckpointError: For a file that cannot be read.
    """
    latest = folder / LATEST
    if not latest.exists():
        return 0
    try:
        content = torch.load(latest, map_location="cpu", weights_only=True)
        states = {"state_dict": model, "optimizer": optimizer, "scaler": scaler, "term": term}
        for name, part in states.items():
            if part is not None:
                part.load_state_dict(content[name])
    except Exception as error:  # readers raise classes of their own, outside every hierarchy
        given = f"a file that does not read ({first_line(error)})"
        do = "delete its folder and train again"
        raise CheckpointError(f"go on from {latest}", given, "the state of this run", do) from None
    return int(content["epoch"])


def save(
    folder: Path,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Stateful | None,
    args: Namespace,
    term: Stateful | None = None,
) -> None:
    """Save an epoch: its weights for good if it is to be kept, and the state to continue from.

    Args:
        folder: The folder of checkpoints.
        epoch: The epoch's number.
        model: The model.
        optimizer: Its optimizer.
        scaler: Its gradient scaler, or None.
        args: The launcher's options.
        term: A part of the loss with a state of its own, or None.

    Raises:
        NumericsError: For weights that are not finite.
        OutputError: For a disk that is full.
    """
    try:
        check_finite(model, f"epoch {epoch} of {args.name}")
    except NumericsError as error:
        raise diverged(args, error.given) from None
    content: dict[str, object] = {
        "epoch": epoch,
        "name": args.name,
        "state_dict": model.state_dict(),
    }
    if args.classes:
        content["classes"] = list(args.classes)
    if epoch in args.keep:
        write(folder / f"epoch_{epoch}.pt", content)
    if epoch == args.epochs:
        (folder / LATEST).unlink(missing_ok=True)
    elif epoch:
        states = {"optimizer": optimizer, "scaler": scaler, "term": term}
        parts = {name: part.state_dict() for name, part in states.items() if part is not None}
        write(folder / LATEST, {**content, **parts})


def write(path: Path, content: Mapping[str, object]) -> None:
    """Write a file whole or not at all; a full disk leaves the previous one.

    Args:
        path: The file.
        content: What `torch.save` writes.

    Raises:
        OutputError: For a disk that is full.
    """
    temporary = path.parent / UNFINISHED
    try:
        with temporary.open("wb") as handle:
            torch.save(dict(content), handle)
            handle.flush()
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer wraps what the disk says
        temporary.unlink(missing_ok=True)
        given = f"a disk that is full or does not take it ({first_line(error)})"
        do = "make room and run again; the epoch before is kept"
        raise OutputError(f"write {path}", given, "free space", do) from None


def diverged(args: Namespace, given: str) -> NumericsError:
    """The error for a run whose numbers are not finite.

    Args:
        args: The launcher's options.
        given: What was not finite.

    Returns:
        The error, to be raised.
    """
    return NumericsError(
        f"train {args.name}",
        given,
        "finite losses and weights",
        "lower the learning rate or raise warmup; the last good epoch is kept",
    )


STAMP = "made_from.txt"
"""Beside shards that were made from a list, the hash of that list."""

LATEST = "latest.pt"
"""Beside the kept epochs, the state that an unfinished run goes on from."""

DECISIVE = (
    "model_hash data_hash objective epochs global_batch lr wd beta2 eps warmup milestones "
    "optimizer precision crop augment flip colour grey seed align align_site align_classes "
    "align_cells negatives negative_cells "
).split()
"""The options that decide what weights come out. Processes, workers, paths and device do not."""


def inputs(model_folder: Path, data: str) -> dict[str, str]:
    """Hashes of a model's configuration and of its training list, independent of their paths.

    Args:
        model_folder: The model folder.
        data: The path of a TSV, or patterns of shards joined by `::`.

    Returns:
        `model_hash` and `data_hash`.

    >>> sorted(inputs(Path("no such folder"), "shards-{0..9}.tar"))
    ['data_hash', 'model_hash']
    """
    files = sorted(model_folder.glob("*.json")) if model_folder.is_dir() else []
    stamps = [path.parent / STAMP for path in map(Path, data.split("::"))]
    shards = [
        (Path(part).name, *([stamp.read_text()] if stamp.is_file() else []))
        for part, stamp in zip(data.split("::"), stamps, strict=True)
    ]
    table = Path(data)
    return {
        "model_hash": fingerprint([(path.name, file_hash(path)) for path in files]),
        "data_hash": file_hash(table) if table.is_file() else fingerprint(shards),
    }


def differing(recorded: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """The decisive options that differ between a run folder and a new specification.

    Args:
        recorded: Options of the folder.
        wanted: Options of the new run.

    Returns:
        A line per option, with both values.

    >>> differing({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    ['lr 0.1, now 0.2']
    """
    return [
        f"{name} {recorded[name]}, now {wanted[name]}"
        for name in DECISIVE
        if name in recorded and name in wanted
        if str(recorded[name]) != str(wanted[name])
    ]


def refuse_another(folder: Path, wanted: Mapping[str, object]) -> None:
    """Refuse to continue in the folder of a run with another specification.

    Args:
        folder: The run's folder.
        wanted: Options of the new run.

    Raises:
        SpecificationError: With the options that differ.
    """
    from interp.models.loading.checkpoints import run_options

    unlike = differing(run_options(folder / "checkpoints" / LATEST), wanted)
    if unlike:
        asked = f"go on with the run {folder}"
        given = f"a folder of another specification ({'; '.join(unlike)})"
        right = "the options that the run was begun with"
        raise SpecificationError(asked, given, right, "choose another name, or delete the folder")


LOCK = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a run's folder for a `with` block, waiting while another trainer holds it.

    Args:
        folder: The run's folder.

    Returns:
        A context.

    Notes:
        The system releases the lock when a process ends, however it ends, so a lock is never stale.
        On file systems without locks nothing is locked.
    """
    with (folder / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning(f"Another trainer is at work in {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield

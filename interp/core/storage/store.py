"""Folders that are either complete or not there, named by the hash of what they depend on."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor

from interp.core.errors import OutputError, SpecificationError

LATER = {"later": True}
"""Metadata of a field that a dataclass did not have from the start: see `fingerprint`."""


def fingerprint(*things: Any) -> str:
    """A hash of plain values, dataclasses and paths' names, the same in every process.

    A field with the metadata `LATER` is left out while it has its default, so that what was made
    before the field was there keeps its name.

    >>> fingerprint({"b": 1, "a": (2, 3)}) == fingerprint({"a": [2, 3], "b": 1})
    True
    """
    text = json.dumps(things, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(thing: Any) -> Any:
    if is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: getattr(thing, f.name) for f in fields(thing) if not _idle(thing, f)}
    if isinstance(thing, (set, frozenset)):
        return sorted(thing)
    return str(thing)


def _idle(thing: Any, one: "Field[Any]") -> bool:
    """Whether a later field of a dataclass says nothing yet."""
    if "later" not in one.metadata:
        return False
    made = one.default if one.default_factory is MISSING else one.default_factory()
    return getattr(thing, one.name) == made


def file_hash(path: Path) -> str:
    """A hash of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "blake2b").hexdigest()[:16]


def content_hash(content: bytes) -> str:
    """The hash that `file_hash` gives of a file with this content.

    >>> content_hash(b"")
    '786a02f742015903'
    """
    return hashlib.blake2b(content).hexdigest()[:16]


def cache_folder() -> Path:
    """Where rendered pictures are kept: `INTERP_CACHE`, else the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("INTERP_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("interp"))


def writable(folder: Path, *, purpose: str) -> Path:
    """Make a folder, or say in our own words why that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        given = error.strerror or str(error)
        right = "a folder that can be written"
        do = "choose another with --out"
        raise OutputError(f"write {purpose} to {folder}", given, right, do) from None
    return folder


@contextmanager
def complete(folder: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own name only when the block ends well.

    Interrupted work leaves the temporary folder behind for the next run to clear, never a folder
    that looks complete. Where another process has filled the folder meanwhile, its files stay:
    somebody may be reading them.
    """
    replaced = folder.exists()
    temporary = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    writable(temporary, purpose=folder.name)
    try:
        with told_when_full(folder.name):
            yield temporary
            if replaced:
                shutil.rmtree(folder, ignore_errors=True)
            try:
                temporary.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that nobody reads half of it."""
    with replacing(path) as temporary:
        temporary.write_text(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it gets its own only when the block ends well."""
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with told_when_full(path.name):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def told_when_full(name: str) -> Iterator[None]:
    """Say of a full disk what can be done about it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        do = "make room and run again; what was finished is kept"
        raise OutputError(f"write {name}", "a disk that is full", "free space", do) from None


def check_room(folder: Path, rows: int, row_bytes: int) -> None:
    """Refuse activations that the disk cannot hold.

    Args:
        folder: an existing folder on that disk.
        rows: how many examples are still to be written.
        row_bytes: what one of them takes.

    Raises:
        OutputError: less is free than they take.
    """
    needed, free = rows * row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"keep the activations of {rows} examples in {folder}",
            f"{in_words(free)} free",
            f"{in_words(needed)}, {in_words(row_bytes)} for each",
            "make room, choose another folder, keep fewer sites, positions or heads, "
            "or keep them as float16",
        )


def in_words(n_bytes: float) -> str:
    """A number of bytes as people write it.

    >>> in_words(1536), in_words(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    if n_bytes < 1024:
        return f"{n_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} TiB"


def weights_hash(tower: Any, *, asked: str, leave_out: str) -> str:
    """A hash of all parameters and buffers under their names.

    `asked` and `leave_out` are for the error where a tower has no `state_dict`: what was to be
    done, and which argument to do without.

    >>> one, two = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    >>> words = {"asked": "tell models apart", "leave_out": "folder"}
    >>> weights_hash(one, **words) == weights_hash(two, **words)
    False
    """
    if not hasattr(tower, "state_dict"):
        raise SpecificationError(
            asked,
            f"a {type(tower).__name__} without a state_dict, so that models cannot be told apart",
            "a torch module",
            f"leave {leave_out}= out, or derive the tower from torch.nn.Module",
        )
    digest = blake2b(digest_size=8)
    for name, value in sorted(tower.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(tensor_hash(value).encode())
    return digest.hexdigest()


def tensor_hash(value: Tensor) -> str:
    """A hash of a tensor's shape, format and content, wherever it is."""
    digest = blake2b(f"{value.dtype} {tuple(value.shape)}".encode(), digest_size=8)
    digest.update(tensor_bytes(value))
    return digest.hexdigest()


def tensor_bytes(value: Tensor) -> memoryview:
    """A tensor's numbers as bytes, for a hash.

    >>> len(tensor_bytes(torch.zeros(3, dtype=torch.bfloat16)))
    6
    """
    # by way of uint8, since numpy has no bfloat16
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

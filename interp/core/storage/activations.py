"""Activations on disk: one file per site, written in stretches of rows, resumable after a kill.

A folder holds one `.npy` per site and `facts.json`: whose activations these are, the shape and
format of a row of each site, and, once all rows are there, how many they are. Each process that
writes appends to a journal of its own which rows it has written, with a checksum of their bytes.
As long as the folder is not finished, rows count only if their bytes still have that checksum. So
neither a killed process nor lost pages of a crashed machine leave half a stretch that is believed.
"""

import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from interp.core.errors import DataError, OutputError, listed
from interp.core.storage.store import check_room, told_when_full, writable, write_atomic

FACTS = "facts.json"
VERSION = 2
_FIELDS = ("version", "identity", "sites", "rows")

Facts = dict[str, Any]
"""What JSON holds, by name."""

Layout = Mapping[str, Facts]
"""Per site, the `shape` of a row and its `dtype` in torch's word, and what else is to be noted."""


def begin_activations(
    folder: Path, sites: Layout, identity: Mapping[str, object], n_rows: int | None = None
) -> None:
    """Make a folder for activations, or check that the one that is there is of the same run.

    Args:
        folder: where the files are to be.
        sites: per site, the `shape` and `dtype` of a row.
        identity: all that the numbers depend on, in plain values.
        n_rows: how many rows will be written; None where nobody knows yet.

    Raises:
        OutputError: the folder cannot be written, is of another run, or the disk is too small.
        DataError: the folder's facts do not read.
    """
    writable(folder, purpose="activations")
    if (folder / FACTS).exists():
        there = StoredActivations(folder)
        known = {"sites": there.layout, **there.identity}
        mine = _plain({**identity, "sites": sites})
        other = [name for name in mine if mine[name] != known.get(name)]
        if not other:
            return
        if there.reach():
            given = f"a folder that holds those of another {' and '.join(other)}"
            right = "an empty folder, or the one where this run was interrupted"
            do = "choose another folder, or delete this one"
            raise OutputError(f"keep activations in {folder}", given, right, do)
        for path in there.files.values():  # of a run that has not written a row
            path.unlink()
    if n_rows is not None:
        check_room(folder, n_rows, sum(map(_row_bytes, sites.values())))
    with _full_disk_errors(folder):
        for path in _files(folder, sites).values():
            path.touch()  # not emptied: another process may have begun the same run
    _write_facts(folder, sites, identity, rows=None)


def numpy_format(dtype: str) -> np.dtype:
    """The numpy format that holds the numbers of a torch format, or their bits.

    >>> numpy_format("float16").name, numpy_format("bfloat16").name
    ('float16', 'uint16')
    """
    bits = f"uint{8 * getattr(torch, dtype).itemsize}"
    return np.dtype(getattr(np, dtype, bits))


class StoredActivations:
    """The activations in a folder, read where they are indexed.

    Args:
        folder: a folder that an `ActivationWriter` filled, finished or not.

    Raises:
        DataError: facts that do not read, or files that do not fit them.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        facts = _read_facts(self.folder)
        self.identity: Facts = facts["identity"]
        self.layout: Layout = facts["sites"]
        self.files = _files(self.folder, self.layout)
        self._rows: int | None = facts["rows"]
        if self.finished:
            self.matrices()

    @property
    def finished(self) -> bool:
        """Whether all rows are there."""
        return self._rows is not None

    def matrices(self) -> dict[str, np.ndarray]:
        """Every site's rows, mapped into memory, read-only."""
        return {site: self.matrix(site) for site in self.layout}

    def matrix(self, site: str) -> np.ndarray:
        """A site's rows, mapped into memory, read-only; of an unfinished folder all in its file."""
        path, about = self.files[site], self.layout[site]
        shape, dtype = tuple(about["shape"]), numpy_format(about["dtype"])
        try:
            if self._rows is not None:
                found = np.load(path, mmap_mode="r")
            else:
                start = len(_header(about, 0))
                held = (path.stat().st_size - start) // _row_bytes(about)
                found = np.empty((0, *shape), dtype)
                if held > 0:
                    found = np.memmap(path, dtype, "r", start, (held, *shape))
        except (OSError, ValueError) as error:
            raise _broken(path, f"a file that does not read ({error})") from None
        if found.dtype != dtype or found.shape != (self._rows or len(found), *shape):
            raise _broken(
                path, f"{found.dtype} of shape {found.shape}", f"{dtype} of {shape} a row"
            )
        return found

    def missing(self, rows: range) -> list[range]:
        """The stretches of `rows` that no process has written yet, or whose bytes were lost."""
        if self.finished:
            return []
        waiting = np.ones(len(rows), dtype=bool)
        stored = self.matrices()
        held = min(map(len, stored.values()))
        for done, checksum in self._journalled():
            mine = slice(max(done.start - rows.start, 0), max(done.stop - rows.start, 0))
            if done.stop <= held and waiting[mine].any() and _checksum(stored, done) == checksum:
                waiting[mine] = False
        # where waiting begins and where it ends, by turns
        edges = np.flatnonzero(np.diff(np.concatenate([[0], waiting.astype(int), [0]])))
        return [
            range(rows.start + start, rows.start + stop)
            for start, stop in edges.reshape(-1, 2).tolist()
        ]

    def reach(self) -> int:
        """One more than the last row that any process has written."""
        if self._rows is not None:
            return self._rows
        return max((done.stop for done, _ in self._journalled()), default=0)

    def _journalled(self) -> Iterator[tuple[range, int]]:
        """Rows and checksums noted in the journals; a line cut short by a crash is none."""
        for journal in sorted(self.folder.glob("rows-*.txt")):
            for line in journal.read_text().split("\n")[:-1]:
                match = re.fullmatch(r"(\d+) (\d+) ([0-9a-f]{8})", line)
                if match and int(match[1]) < int(match[2]):
                    yield range(int(match[1]), int(match[2])), int(match[3], 16)


class ActivationWriter(StoredActivations):
    """Writes rows in any order into a folder that `begin_activations` made, until it is finished.

    Several processes may write at once, each its own rows of the same files, without mapping them:
    two machines that map a page of a shared disk would overwrite one another's part of it.

    Args:
        folder: the folder.
        place: the number of this process among those that write; it names the journal.
    """

    def __init__(self, folder: Path, *, place: int = 0) -> None:
        super().__init__(folder)
        self._journal = folder / f"rows-{place}.txt"
        self._open: dict[str, BinaryIO] = {}

    def write(self, rows: range, values: Mapping[str, np.ndarray]) -> None:
        """Keep the values "row ..." of some rows, then note that they are there.

        Raises:
            OutputError: the disk is full, or does not take them.
        """
        blocks = {
            site: np.ascontiguousarray(values[site], numpy_format(about["dtype"]))
            for site, about in self.layout.items()
        }
        check_room(self.folder, len(rows), sum(map(_row_bytes, self.layout.values())))
        with _full_disk_errors(self.folder):
            for site, block in blocks.items():
                about, handle = self.layout[site], self._handle(site)
                handle.seek(len(_header(about, 0)) + rows.start * _row_bytes(about))
                handle.write(block.data)
                handle.flush()
            with self._journal.open("a") as notes:
                # a line of its own, also after one that was cut short
                checksum = _checksum(blocks, range(len(rows)))
                notes.write(f"\n{rows.start} {rows.stop} {checksum:08x}\n")

    def close(self) -> None:
        """See that what was written is on the disk, and let the files go."""
        handles, self._open = self._open, {}
        with _full_disk_errors(self.folder):
            for handle in handles.values():
                with handle:
                    os.fsync(handle.fileno())

    def finish(self, n_rows: int) -> None:
        """Declare the folder finished, once every process has closed its files.

        Raises:
            OutputError: some of the rows are not there.
        """
        self.close()
        gaps = self.missing(range(n_rows))
        if gaps:
            given = f"rows {gaps[0].start} to {gaps[0].stop - 1} that did not reach the disk"
            right = "a disk that keeps what is written to it"
            do = "run again; what was kept is used"
            raise OutputError(f"finish {self.folder}", given, right, do)
        if self.finished:
            return
        with _full_disk_errors(self.folder):
            for site, path in self.files.items():
                header = _header(self.layout[site], n_rows)
                with path.open("r+b") as handle:
                    handle.write(header)
                    handle.truncate(len(header) + n_rows * _row_bytes(self.layout[site]))
                    os.fsync(handle.fileno())
        _write_facts(self.folder, self.layout, self.identity, rows=n_rows)
        self._rows = n_rows

    def _handle(self, site: str) -> BinaryIO:
        if site not in self._open:
            self._open[site] = self.files[site].open("r+b")
        return self._open[site]


def _files(folder: Path, sites: Iterable[str]) -> dict[str, Path]:
    """A file per site: its number keeps apart what the replaced signs do not."""
    plain = {site: re.sub(r"[^\w.-]", "_", site) for site in sites}
    return {
        site: folder / f"{number:03d}-{word}.npy"
        for number, (site, word) in enumerate(plain.items())
    }


def _row_bytes(about: Facts) -> int:
    return math.prod(about["shape"]) * numpy_format(about["dtype"]).itemsize


def _header(about: Facts, n_rows: int) -> bytes:
    """What numpy reads first in a site's file: equally long for any number of rows."""
    made, dtype = BytesIO(), numpy_format(about["dtype"])
    facts = {"descr": dtype.str, "fortran_order": False, "shape": (n_rows, *about["shape"])}
    np.lib.format.write_array_header_1_0(made, facts)
    return made.getvalue()


def _checksum(values: Mapping[str, np.ndarray], rows: range) -> int:
    checksum = 0
    for matrix in values.values():
        block = np.ascontiguousarray(matrix[rows.start : rows.stop])
        checksum = zlib.crc32(block.data, checksum)
    return checksum


def _plain(facts: Mapping[str, object]) -> Facts:
    """What comes back from JSON: lists for tuples, words for the rest."""
    return json.loads(json.dumps(facts, default=str))


def _write_facts(
    folder: Path, sites: Layout, identity: Mapping[str, object], *, rows: int | None
) -> None:
    facts = {"version": VERSION, "identity": identity, "sites": sites, "rows": rows}
    write_atomic(folder / FACTS, json.dumps(_plain(facts), indent=1))


def _read_facts(folder: Path) -> Facts:
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _broken(path, f"a file that does not read ({error})") from None
    if isinstance(facts, dict) and "version" not in facts and {"rows", "sites"} <= set(facts):
        facts = _first_form(facts, finished=folder.suffix != ".part")
    if not isinstance(facts, dict) or any(name not in facts for name in _FIELDS):
        raise _broken(path, f"facts without all of {listed(_FIELDS)}")
    if facts["version"] != VERSION:
        raise _broken(path, f"format version {facts['version']}", f"version {VERSION}")
    return facts


def _first_form(facts: Facts, *, finished: bool) -> Facts:
    """Facts as they were written before they had a version: sites had widths, all in float32."""
    sites = {site: {"shape": [width], "dtype": "float32"} for site, width in facts["sites"].items()}
    identity = {name: value for name, value in facts.items() if name not in ("rows", "sites")}
    rows = facts["rows"] if finished else None
    return {"version": VERSION, "identity": identity, "sites": sites, "rows": rows}


@contextmanager
def _full_disk_errors(folder: Path) -> Iterator[None]:
    """Say in our own words that a disk does not take what is written."""
    try:
        with told_when_full(str(folder)):
            yield
    except OSError as error:
        right = "a disk that takes them"
        do = "see to the disk and run again; what was finished is kept"
        raise OutputError(f"write activations to {folder}", str(error), right, do) from None


def _broken(path: Path, given: str, right: str = "the file as it was written") -> DataError:
    do = f"delete the folder {path.parent} and run again"
    return DataError(f"read the activations {path}", given, right, do)

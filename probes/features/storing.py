"""Activations on disk: a pass that can be stopped anywhere, and goes on where it was stopped.

A pass has a folder named by the hash of all it depends on, with one `.npy` per site. While it runs
the folder's name ends in `.part`. Each process appends to a journal of its own which rows it has
written, with a checksum of their bytes; rows count as done only if their bytes still have it. So
neither a killed process nor lost pages of a crashed machine leave half a batch that is believed.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interp.core.errors import DataError, OutputError
from interp.core.parallel import gathered, once, this_rank
from interp.core.store import told_when_full, writable, write_atomic

FACTS = "facts.json"


class StoredPass:
    """One pass on disk: `missing` rows are run, `write` keeps them, `finish` makes it complete.

    `widths` says how many float32 a row has per site. Where several ranks work together each
    writes its own rows of the same files, at their places, without mapping them: two machines that
    map a page of a shared disk would overwrite one another's part of it.
    """

    def __init__(
        self, parent: Path, key: str, n_rows: int, widths: Mapping[str, int], facts: Mapping
    ) -> None:
        self.parent, self.n_rows, self.widths = parent, n_rows, dict(widths)
        self.final, self.part = parent / key, parent / f"{key}.part"
        self.facts = {**facts, "rows": n_rows, "sites": self.widths}
        self._open: dict[str, Any] = {}
        once(self._prepare)  # nobody writes before the files are there

    @property
    def complete(self) -> bool:
        """Whether a pass of this key has been finished."""
        return (self.final / FACTS).is_file()

    @property
    def bytes(self) -> int:
        """What the values of the whole pass take."""
        return 4 * self.n_rows * sum(self.widths.values())

    def missing(self, rows: range) -> list[range]:
        """The stretches of `rows` that no process has written yet, or whose bytes were lost."""
        if self.complete:
            return []
        waiting = np.zeros(self.n_rows, dtype=bool)
        waiting[rows.start : rows.stop] = True
        stored = {site: self._mapped(self.part, site) for site in self.widths}
        for journal in sorted(self.part.glob("rows-*.txt")):
            for done, checksum in _entries(journal, self.n_rows):
                mine = waiting[done.start : done.stop].any()
                if mine and _checksum(stored, done) == checksum:
                    waiting[done.start : done.stop] = False
        # where waiting begins and where it ends, by turns
        edges = np.flatnonzero(np.diff(np.concatenate([[0], waiting.astype(int), [0]])))
        return [range(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]

    def write(self, rows: range, values: Mapping[str, np.ndarray]) -> None:
        """Keep the values "row feature" of some rows, then note that they are there."""
        blocks = {site: np.ascontiguousarray(values[site], np.float32) for site in self.widths}
        checksum = _checksum(blocks, range(len(rows)))
        with told_when_full(str(self.final)):
            for site, block in blocks.items():
                handle = self._handle(site)
                handle.seek(self._start(site) + 4 * self.widths[site] * rows.start)
                handle.write(block.data)
                handle.flush()
            journal = self.part / f"rows-{this_rank().place}.txt"
            with journal.open("a") as notes:
                # a line of its own, also after one that was cut short
                notes.write(f"\n{rows.start} {rows.stop} {checksum:08x}\n")

    def finish(self) -> None:
        """Give the pass its own name, once all ranks have written and all rows are there."""
        self.close()
        gathered(None)  # until all have written
        once(self._complete)

    def close(self) -> None:
        """See that what was written is on the disk, and let the files go."""
        handles, self._open = self._open, {}
        with told_when_full(str(self.final)):
            for handle in handles.values():
                with handle:
                    os.fsync(handle.fileno())

    def values(self) -> dict[str, np.ndarray]:
        """The matrices of a finished pass, mapped into memory, read-only."""
        return {site: self._mapped(self.final, site) for site in self.widths}

    def row(self, number: int) -> dict[str, np.ndarray] | None:
        """The values of one row, if they are there."""
        if not self.complete and self.missing(range(number, number + 1)):
            return None
        folder = self.final if self.complete else self.part
        return {site: np.array(self._mapped(folder, site)[number]) for site in self.widths}

    def _complete(self) -> None:
        gaps = self.missing(range(self.n_rows))
        if gaps:
            raise OutputError(
                f"finish {self.final}",
                f"rows {gaps[0].start} to {gaps[0].stop - 1} that did not reach the disk",
                "a disk that keeps what is written to it",
                "run again; what was kept is used",
            )
        if not self.complete:
            self.part.rename(self.final)

    def _prepare(self) -> None:
        if self.complete:
            return
        writable(self.parent, purpose="activations")
        facts = json.loads(json.dumps(self.facts, default=str))
        begun = self.part / FACTS
        if begun.is_file() and json.loads(begun.read_text()) == facts:
            return
        for folder in (self.part, self.final):  # of other facts, or without any: not ours to trust
            shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(self.parent).free
        if self.bytes > free:
            raise OutputError(
                f"keep activations in {self.parent}",
                f"{free / 1e9:.1f} GB free",
                f"{self.bytes / 1e9:.1f} GB",
                "make room, choose fewer sites or another folder",
            )
        self.part.mkdir()
        for site, width in self.widths.items():
            made = np.lib.format.open_memmap(
                self.part / self._name(site), "w+", np.float32, (self.n_rows, width)
            )
            del made
        write_atomic(begun, json.dumps(facts, indent=1))

    def _name(self, site: str) -> str:
        """A file name for a site: its number keeps apart what the replaced signs do not."""
        plain = re.sub(r"[^\w.-]", "_", site)
        return f"{list(self.widths).index(site):03d}-{plain}.npy"

    def _handle(self, site: str) -> Any:
        if site not in self._open:
            self._open[site] = (self.part / self._name(site)).open("r+b")
        return self._open[site]

    def _start(self, site: str) -> int:
        """Where the values begin in a site's file."""
        file = self.part / self._name(site)
        return file.stat().st_size - 4 * self.n_rows * self.widths[site]

    def _mapped(self, folder: Path, site: str) -> np.ndarray:
        path = folder / self._name(site)
        try:
            found = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise _broken(path, str(error)) from None
        if found.shape != (self.n_rows, self.widths[site]) or found.dtype != np.float32:
            raise _broken(path, f"{found.dtype} of shape {found.shape}")
        return found


def _checksum(values: Mapping[str, np.ndarray], rows: range) -> int:
    checksum = 0
    for matrix in values.values():
        block = np.ascontiguousarray(matrix[rows.start : rows.stop])
        checksum = zlib.crc32(block.data, checksum)
    return checksum


def _entries(journal: Path, n_rows: int) -> list[tuple[range, int]]:
    """Rows and checksums noted in a journal; a line cut short by a crash is none."""
    found = []
    for line in journal.read_text().split("\n")[:-1]:
        match = re.fullmatch(r"(\d+) (\d+) ([0-9a-f]{8})", line)
        if match and int(match[1]) < int(match[2]) <= n_rows:
            found.append((range(int(match[1]), int(match[2])), int(match[3], 16)))
    return found


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"read the activations {path}",
        f"a file that does not fit its pass ({why})",
        "the file as it was written",
        f"delete the folder {path.parent} and run again",
    )

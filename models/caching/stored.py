"""Activations on disk, read back a few rows at a time."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.core.errors import DataError, SampleError, SiteError, check_known

INDEX = "index.json"
VERSION = 1
_FIELDS = ("version", "finished", "identity", "sites", "shards")


def shard_name(number: int) -> str:
    """The name of a shard's file.

    >>> shard_name(3)
    'activations-00003.safetensors'
    """
    return f"activations-{number:05d}.safetensors"


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of activations, with every shard that it lists there and whole."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _unreadable(path, f"an index that does not read ({error})") from None
    if not isinstance(index, dict) or any(name not in index for name in _FIELDS):
        raise _unreadable(path, f"an index without all of {', '.join(_FIELDS)}")
    if index["version"] != VERSION:
        raise _unreadable(path, f"format version {index['version']}", f"version {VERSION}")
    for number, shard in enumerate(index["shards"]):
        file = folder / shard_name(number)
        size = file.stat().st_size if file.exists() else None
        if size != shard["bytes"]:
            given = "no such file" if size is None else f"a file of {size} bytes"
            raise _unreadable(file, given, f"the {shard['bytes']} bytes that the index lists")
    return index


def _unreadable(path: Path, given: str, right: str = "a file as it was saved") -> DataError:
    return DataError(
        f"read the saved activations {path}", given, right, "delete the folder and save them again"
    )


@dataclass(frozen=True)
class SavedSite:
    """One site's activations, on disk; indexing reads the rows it asks for and no others."""

    site: str
    files: Sequence[Path]
    rows: Sequence[int]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | Sequence[int] | Any) -> Tensor:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            return self[list(range(start, stop, step))]
        places = torch.as_tensor(rows)
        if places.dtype == torch.bool:
            if places.shape != (len(self),):
                raise self._outside(f"a mask of shape {tuple(places.shape)}")
            places = places.nonzero()[:, 0]
        if (places.is_floating_point() and places.numel()) or places.ndim > 1:
            raise self._outside(f"{type(rows).__name__} of shape {tuple(places.shape)}")
        numbers = [self._place(int(row)) for row in places.reshape(-1)]
        if not numbers:
            return self._between(0, 0)
        parts = torch.cat([self._between(row, row + 1) for row in numbers])
        return parts if places.ndim else parts[0]

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """All rows in order, `batch_size` at a time."""
        if batch_size < 1:
            raise SampleError(
                f"read {self.site} in batches", f"batch_size {batch_size}", "1 or more", "raise it"
            )
        for start in range(0, len(self), batch_size):
            yield self._between(start, min(start + batch_size, len(self)))

    def tensor(self) -> Tensor:
        """All rows in memory."""
        return self._between(0, len(self))

    def _place(self, row: int) -> int:
        if not -len(self) <= row < len(self):
            raise self._outside(f"row {row}")
        return row % len(self)

    def _outside(self, given: str) -> SampleError:
        return SampleError(
            f"read rows of {self.site}",
            given,
            f"a row number, a slice, a list or a mask of {len(self)} rows",
            "index other axes on the tensor that this returns",
        )

    def _between(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of all shards laid end to end."""
        ends = list(accumulate(self.rows))
        parts = []
        shard = bisect_right(ends, start)
        while start < stop:
            first = ends[shard] - self.rows[shard]
            last = min(stop, ends[shard])
            parts.append(self._read(shard, start - first, last - first))
            start, shard = last, shard + 1
        if not parts:
            return torch.empty((0, *self.shape[1:]), dtype=self.dtype)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, shard: int, start: int, stop: int) -> Tensor:
        try:
            with safe_open(self.files[shard], framework="pt") as handle:
                return handle.get_slice(self.site)[start:stop]
        except (OSError, SafetensorError) as error:
            raise _unreadable(self.files[shard], f"a file that does not read ({error})") from None


class SavedActivations:
    """A folder that `save_activations` filled: sites by name, nothing read until it is indexed.

    A folder that is not finished shows the rows it has so far. What does not read is a
    `DataError`.

    >>> saved = SavedActivations("activations")  # doctest: +SKIP
    >>> saved["blocks.3.hook_resid_post"][100:200].shape  # doctest: +SKIP
    torch.Size([100, 50, 768])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._index = read_index(self.folder)

    def __repr__(self) -> str:
        state = "" if self.finished else ", not finished"
        return f"SavedActivations({len(self)} sites, {self.n_rows} rows{state})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._index["sites"])

    def __len__(self) -> int:
        return len(self._index["sites"])

    def __contains__(self, site: object) -> bool:
        return str(site) in self._index["sites"]

    def __getitem__(self, site: str) -> SavedSite:
        check_known("read saved activations", "site", [str(site)], self.sites, SiteError)
        facts, shards = self._index["sites"][str(site)], self._index["shards"]
        return SavedSite(
            str(site),
            [self.folder / shard_name(number) for number in range(len(shards))],
            [shard["rows"] for shard in shards],
            (self.n_rows, *facts["shape"]),
            getattr(torch, facts["dtype"]),
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """What was saved, in tower order."""
        return tuple(self)

    @cached_property
    def n_rows(self) -> int:
        """How many examples are on disk."""
        return sum(shard["rows"] for shard in self._index["shards"])

    @property
    def finished(self) -> bool:
        """Whether all examples are on disk."""
        return self._index["finished"]

    @property
    def identity(self) -> dict[str, Any]:
        """Of which tower and pictures these are, and what was kept."""
        return self._index["identity"]

    def axes(self, site: str) -> tuple[str, ...]:
        """The axes of a site's activation; those that were selected from are shorter."""
        return tuple(self._index["sites"][self[site].site]["axes"])

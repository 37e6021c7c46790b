"""Activations of a tower on disk, read back a few rows at a time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp.core.errors import DataError, SampleError, SiteError, check_known
from interp.core.faces.doors import door
from interp.core.storage.activations import (
    FACTS,
    ActivationWriter,
    StoredActivations,
    begin_activations,
    numpy_format,
)

SHARDS = "index.json"
"""The index of a folder of shards, the form in which activations were saved before."""


def as_array(value: Tensor) -> np.ndarray:
    """A tensor's numbers as numpy keeps them; formats that it does not know as their bits.

    >>> as_array(torch.ones(1, dtype=torch.bfloat16)).dtype.name
    'uint16'
    """
    held = numpy_format(str(value.dtype).removeprefix("torch."))
    return value.cpu().contiguous().view(getattr(torch, held.name)).numpy()


def refuse_shards(folder: Path) -> None:
    """Refuse a folder in the form before this one, and say how to convert it."""
    if (folder / SHARDS).exists() and not (folder / FACTS).exists():
        given = "shards, the form before this one"
        do = f"convert them with interp.models.convert_shards({str(folder)!r}, a new folder)"
        raise DataError(f"use the saved activations {folder}", given, "one file per site", do)


@door
def convert_shards(folder: str | Path, target: str | Path) -> "SavedActivations":
    """Write activations that were saved as safetensors shards, a form before this one, anew.

    `save_activations` goes on from the new folder as it would have from the old one.

    Args:
        folder: holds `index.json` and the shards; it stays as it is.
        target: the folder to write.

    Returns:
        The activations in `target`.

    Raises:
        DataError: an index or a shard that does not read.
        OutputError: `target` cannot be written, or holds other activations.

    >>> saved = convert_shards("activations", "activations-now")  # doctest: +SKIP
    """
    source, done = Path(folder), 0
    try:
        index = json.loads((source / SHARDS).read_text())
        n_rows = sum(shard["rows"] for shard in index["shards"])
        begin_activations(Path(target), index["sites"], index["identity"], n_rows)
        with closing(ActivationWriter(Path(target))) as writer:
            for number, shard in enumerate(index["shards"]):
                values = load_file(source / f"activations-{number:05d}.safetensors")
                rows = range(done, done + shard["rows"])
                writer.write(rows, {site: as_array(value) for site, value in values.items()})
                done = rows.stop
            if index["finished"]:
                writer.finish(done)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        asked = f"convert the saved activations {source}"
        given = f"files that do not read ({error})"
        right = f"{SHARDS} and the shards that it lists"
        raise DataError(asked, given, right, "save the activations again") from None
    return SavedActivations(target)


@dataclass(frozen=True)
class SavedSite:
    """One site's activations, on disk; indexing reads the rows it asks for and no others."""

    site: str
    matrix: np.ndarray
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first, then the site's own axes."""
        return self.matrix.shape

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: object) -> Tensor:
        places = rows if isinstance(rows, slice) else np.asarray(rows)
        try:
            if isinstance(places, np.ndarray):
                if places.ndim > 1 or (places.dtype == bool and not places.ndim):
                    raise IndexError(f"{type(rows).__name__} of shape {places.shape}")
                places = places if places.size else places.astype(int)
            found = self.matrix[places]
        except IndexError as error:
            right = f"a row number, a slice, a list or a mask of {len(self)} rows"
            do = "index other axes on the tensor that this returns"
            raise SampleError(f"read rows of {self.site}", str(error), right, do) from None
        return torch.from_numpy(np.array(found)).view(self.dtype)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """All rows in order, `batch_size` at a time."""
        if batch_size < 1:
            raise SampleError(
                f"read {self.site} in batches", f"batch_size {batch_size}", "1 or more", "raise it"
            )
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]

    def tensor(self) -> Tensor:
        """All rows in memory."""
        return self[:]


class SavedActivations(StoredActivations):
    """Activations in a folder that `save_activations` wrote, by site, read where they are indexed.

    Args:
        folder: The folder.

    Raises:
        DataError: For a folder without readable activations, or with shards of an earlier form.

    Notes:
        A folder that is not finished shows the rows it has so far. `identity` says which tower and
        examples they come from, and what was kept.

    >>> import open_clip, tempfile
    >>> from interp.models import Keep, save_activations
    >>> from interp.models.towers.open_tower import open_tower
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64).eval()
    >>> tower, x = open_tower(model, "visual"), torch.zeros(3, 3, 64, 64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_activations(tower, x, folder, Keep("blocks.*.hook_resid_post"))
    ...     saved = SavedActivations(folder)
    ...     len(saved), saved["blocks.3.hook_resid_post"][1:].shape
    (12, torch.Size([2, 5, 384]))
    """

    def __init__(self, folder: str | Path) -> None:
        refuse_shards(Path(folder))
        super().__init__(folder)

    def __repr__(self) -> str:
        state = "" if self.finished else ", not finished"
        return f"SavedActivations({len(self)} sites, {self.n_rows} rows{state})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __contains__(self, site: object) -> bool:
        return str(site) in self.layout

    def __getitem__(self, site: str) -> SavedSite:
        dtype = getattr(torch, self._about(site)["dtype"])
        return SavedSite(str(site), self.matrix(str(site))[: self.n_rows], dtype)

    @property
    def sites(self) -> tuple[str, ...]:
        """What was saved, in tower order."""
        return tuple(self)

    @cached_property
    def n_rows(self) -> int:
        """How many examples are on disk, counted from the first without a gap."""
        reach = self.reach()
        return next((gap.start for gap in self.missing(range(reach))), reach)

    def axes(self, site: str) -> tuple[str, ...]:
        """The axes of a site's activation.

        Args:
            site: The site.

        Returns:
            Names of the axes; those that were selected from are shorter than in the tower.

        Raises:
            SiteError: For a site that was not saved.
        """
        return tuple(self._about(site)["axes"])

    def _about(self, site: str) -> Mapping[str, Any]:
        check_known("read saved activations", "site", [str(site)], self.sites, SiteError)
        return self.layout[str(site)]

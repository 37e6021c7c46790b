"""Keep finished batches of cells on disk, so that an interrupted sweep goes on where it stopped."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from interp.circuits.metrics import name_of
from interp.circuits.runs import Cell, Values, measure_cells
from interp.core.identity import tensor_hash, weights_hash
from interp.core.model import Tower
from interp.core.store import fingerprint, replacing, writable

BATCH = 128
"""Cells in a batch that is kept; a batch is of one block, so that its prefix is run once."""


def measure_resumably(
    tower: Tower,
    cells: Sequence[Cell],
    *,
    base: Tensor,
    donors: Sequence[Tensor],
    metric: Callable[[Tensor], Tensor],
    rows: int,
    what: str = "patch",
    folder: str | Path,
) -> Values:
    """`measure_cells` in batches of cells, each kept in `folder` under the hash of all it hangs on.

    That is the inputs, the batch's cells, the metric and what it scores against, and the tower's
    weights; not the rows to a forward, which move the last bits alone. What does not read is
    measured again. Each batch repeats the unpatched runs, so this costs a few forwards more.

    Raises `OutputError` for a folder that cannot be written, `SpecificationError` for a tower
    without a `state_dict`.
    """
    kept = writable(Path(folder), purpose="finished cells")
    weights = weights_hash(tower, asked="resume a sweep", leave_out="resume")
    inputs = [tensor_hash(x) for x in (base, *donors)]
    common = (type(tower).__name__, weights, inputs, name_of(metric), _content(metric))
    values = Values(
        np.full((len(donors), len(cells), len(base)), np.nan),
        np.full((1 + len(donors), len(base)), np.nan),
    )
    for numbers in batches(cells):
        chosen = [cells[number] for number in numbers]
        path = kept / f"cells-{fingerprint(common, chosen)}.npz"
        found = _read(path)
        if found is None:
            found = measure_cells(
                tower, chosen, base=base, donors=donors, metric=metric, rows=rows, what=what
            )
            with replacing(path) as temporary, temporary.open("wb") as handle:
                np.savez(handle, patched=found.patched, unpatched=found.unpatched)
        values.patched[:, numbers] = found.patched
        values.unpatched[:] = found.unpatched
    return values


def batches(cells: Sequence[Cell]) -> Iterator[list[int]]:
    """Numbers of cells of one block, at most `BATCH` at a time.

    >>> list(batches([Cell("a", 1), Cell("b", 0), Cell("c", 1)]))
    [[1], [0, 2]]
    """
    order = sorted(range(len(cells)), key=lambda number: cells[number].layer)
    for _, group in groupby(order, key=lambda number: cells[number].layer):
        numbers = list(group)
        for start in range(0, len(numbers), BATCH):
            yield numbers[start : start + BATCH]


def _read(path: Path) -> Values | None:
    try:
        with path.open("rb") as handle, np.load(handle) as stored:
            return Values(stored["patched"], stored["unpatched"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):  # not there, or broken
        return None


def _content(thing: Any) -> Any:
    """What a metric scores against, as plain values; a function says nothing of itself."""
    if isinstance(thing, Tensor):
        return tensor_hash(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return {each.name: _content(getattr(thing, each.name)) for each in fields(thing)}
    return getattr(thing, "__qualname__", None) if callable(thing) else thing

"""Sweeps: patch every cell of a grid from one run into another, and measure.

A sweep is exact: it gives what one full run per cell would give, at a fraction of the cost.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Unpack
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.patching.patched_cells import (
    PatchPlace,
    RunPlan,
    Values,
    make_plan,
    measure_cells,
)
from interp.circuits.tasks.metrics import check_metric, name_of, rows_of, tried_rows
from interp.circuits.tasks.pairs import check_partners
from interp.core.arguments import Room, RoomKeywords, filled
from interp.core.errors import (
    AlikeError,
    SampleError,
    ShapeError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.images import Pairs
from interp.core.parallel import batches
from interp.core.progress import say
from interp.core.sites import find_sites
from interp.core.storage.store import fingerprint, replacing, tensor_hash, weights_hash, writable
from interp.core.tables import Table
from interp.core.tower import Tower

BATCH = 128
"""Cells in a batch that is kept; a batch is of one block, so that its prefix is run once."""


def measure_resumably(
    tower: Tower,
    cells: Sequence[PatchPlace],
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
    values = Values.empty(len(donors), len(cells), len(base))
    for numbers in cell_batches(cells):
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


def cell_batches(cells: Sequence[PatchPlace]) -> Iterator[list[int]]:
    """Numbers of cells of one block, at most `BATCH` at a time.

    >>> list(cell_batches([PatchPlace("a", 1), PatchPlace("b", 0), PatchPlace("c", 1)]))
    [[1], [0, 2]]
    """
    order = sorted(range(len(cells)), key=lambda number: cells[number].layer)
    for _, group in groupby(order, key=lambda number: cells[number].layer):
        numbers = list(group)
        for some in batches(len(numbers), BATCH):
            yield numbers[some]


def _read(path: Path) -> Values | None:
    try:
        with path.open("rb") as handle, np.load(handle) as stored:
            return Values(stored["patched"], stored["unpatched"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):  # not there, or broken
        return None


def _content(thing: object) -> object:
    """What a metric scores against, as plain values; a function says nothing of itself."""
    if isinstance(thing, Tensor):
        return tensor_hash(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return {each.name: _content(getattr(thing, each.name)) for each in fields(thing)}
    return getattr(thing, "__qualname__", None) if callable(thing) else thing


DIRECTIONS = ("denoise", "noise")
"""`denoise`: the corrupt run gets clean activations; `noise`: the clean run gets corrupt ones."""


class SweepOptionsKeywords(RoomKeywords, total=False):
    """Null donors of a sweep, where its finished cells are kept, and what it may hold."""

    null: Tensor | None
    null_kind: str
    resume: str | Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepOptions(Room):
    """Null donors of a sweep, where its finished cells are kept, and what it may hold.

    Args:
        null: Inputs whose activations say nothing of clean; None for none.
        null_kind: What they are, in words.
        resume: The folder of finished cells; None keeps none.
    """

    null: Tensor | None = None
    null_kind: str = "donors given as null"
    resume: str | Path | None = None


@door
def sweep(
    tower: Tower,
    *,
    clean: Tensor,
    corrupt: Tensor,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    axes: Sequence[str] = ("layer", "pos"),
    direction: str = "denoise",
    pairs: Pairs | None = None,
    **options: Unpack[SweepOptionsKeywords],
) -> Table:
    """Patch each cell of a grid from the clean run into the corrupt one, and measure every example.

    value[cell, example] = metric(tower(corrupt) with the cell's activation from tower(clean))

    Args:
        tower: The tower to run.
        clean: Inputs of the tower, `[batch ...]`.
        corrupt: Their partners, in the same order.
        metric: From outputs `[batch d_embed]` to `[batch]`: a `Metric`, or a function that needs
            no labels.
        sites: Names of sites or patterns.
        axes: "layer", and axes of the sites along which cells are cut: "pos", "head", "channel".
        direction: "denoise"; with "noise" clean and corrupt change places.
        pairs: What the pictures show; None for inputs of which nothing is known.
        **options: The keywords that follow.
        null: Donors that share nothing relevant with clean, such as pictures of another class.
            They are patched the same way and fill the column `null`. None for none.
        null_kind: What the null donors are, in words.
        resume: A folder that keeps finished batches of cells, from which an interrupted sweep goes
            on. None keeps none.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.

    Returns:
        One row per cell and example: `value`, and the metric of both unpatched runs.

    Raises:
        ShapeError: For inputs that differ in shape.
        AlikeError: For identical partners.
        SiteError: For unknown sites or axes.
        SpecificationError: For a metric that ignores the output, too little memory or an unknown
            keyword.
        NumericsError: For NaN.

    Notes:
        The value lies at `clean_metric` where the cell carries all that makes the difference. The
        result is that of one full run per cell (Meng et al. 2022; Heimersheim and Nanda 2024), but
        no run repeats the blocks before its patch. A sweep resumes as long as inputs, cells, metric
        and weights are the same; a function as metric is known by its name alone.

    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity(), torch.nn.Identity()])  # each block doubles the stream
    >>> clean, corrupt = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    >>> clean[0, 1] = 3.0  # only position 1 differs
    >>> table = sweep(tower, clean=clean, corrupt=corrupt, metric=lambda output: output[:, 0])
    >>> table.frame[["layer", "pos", "value"]].to_numpy().tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 6.0], [1.0, 0.0, 0.0], [1.0, 1.0, 6.0]]
    """
    how = filled(sweep, SweepOptions, options)
    check_known("sweep", "direction", [direction], DIRECTIONS, SpecificationError)
    check_inputs(clean, corrupt, how.null, pairs)
    names = find_sites(sites, tower.sites)
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    donors = [donor] if how.null is None else [donor, how.null]
    plan = make_plan(tower, names, base=base, n_donors=len(donors), room=how, axes=axes)
    started = time.perf_counter()
    rehearse(tower, clean, corrupt, metric, plan)
    keep = how.resume
    measured = measure_cells if keep is None else partial(measure_resumably, folder=keep)
    values = measured(
        tower, plan.cells, base=base, donors=donors, metric=metric, rows=plan.rows, what="patch"
    )
    frame = frame_of(tower, plan.cells, values, direction, pairs)
    frame["metric"] = name_of(metric)
    if how.null is not None:
        frame["null_kind"] = how.null_kind
    facts = {
        "axes": list(axes),
        "direction": direction,
        "dtype": str(clean.dtype),
        "forwards": plan.forwards,
        "bytes": plan.bytes,
        "rows_per_forward": plan.rows,
        "seconds": time.perf_counter() - started,
    }
    return Table("sweep", frame, facts)


def check_inputs(
    clean: Tensor, corrupt: Tensor, null: Tensor | None = None, pairs: Pairs | None = None
) -> None:
    """Refuse partners that do not fit one another, or are the same."""
    if len(clean) == 0:
        raise SampleError("sweep", "no pictures", "at least one pair", "give more pictures")
    for name, other in (("corrupt", corrupt), ("null", null)):
        if other is not None:
            check_partners(name, clean, other)
    same = (clean == corrupt).flatten(1).all(dim=1).nonzero()[:, 0].tolist()
    if same:
        given = f"identical partners (pair {listed(same)})"
        right = "two different inputs in each pair"
        do = "leave these pairs out, or pair other pictures"
        raise AlikeError("patch between clean and corrupt", given, right, do)
    if pairs is not None and len(pairs) != len(clean):
        given = f"{len(pairs)} pairs for {len(clean)} clean pictures"
        right = "the pairs that the tensors were read from"
        do = "pass the same Pairs that gave clean and corrupt"
        raise ShapeError("say what the pictures show", given, right, do)


def rehearse(
    tower: Tower, clean: Tensor, corrupt: Tensor, metric: Callable[[Tensor], Tensor], plan: RunPlan
) -> None:
    """Try the metric on a few examples, and say the cost if the sweep will be long."""
    few = tried_rows(metric, len(clean), plan.rows)
    started = time.perf_counter()
    with torch.no_grad():
        outputs = tower(clean[few]), tower(corrupt[few])
        check_metric(rows_of(metric, few), *outputs)
    seconds = (time.perf_counter() - started) / (2 * few.stop) * plan.forwards
    if seconds > 5:
        say(
            f"sweep: {len(plan.cells)} cells x {len(clean)} pairs, {plan.forwards:,.0f} forwards "
            f"of one picture, {plan.bytes / 2**20:,.0f} MiB, at most about {seconds:,.0f} s"
        )


def frame_of(
    tower: Tower, cells: Sequence[PatchPlace], values: Values, direction: str, pairs: Pairs | None
) -> pd.DataFrame:
    """One row per cell and example, with both unpatched runs' metric."""
    n_cells = len(cells)
    columns = cell_columns(tower, cells, values.patched.shape[2])
    columns |= {"measure": f"activation patching, {direction}", "value": values.patched[0].ravel()}
    if len(values.patched) > 1:
        columns["null"] = values.patched[1].ravel()
    runs = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    for run, name in enumerate(runs):
        columns[f"{name}_metric"] = np.tile(values.unpatched[run], n_cells)
    for name, column in describe(pairs).items():
        columns[name] = column if isinstance(column, str) else np.tile(column, n_cells)
    return pd.DataFrame(columns)


def cell_columns(tower: Tower, cells: Sequence[PatchPlace], n: int) -> dict[str, object]:
    """The columns that say which cell and which of `n` examples a row is of."""

    def each(column: Sequence[object]) -> np.ndarray:
        return np.repeat(np.asarray(column), n)

    places = {axis: [dict(cell.index)[axis] for cell in cells] for axis, _ in cells[0].index}
    return {
        "measure": "",
        "site": each([cell.site for cell in cells]),
        "layer": each([cell.layer for cell in cells]),
        "depth": each(depths(tower, [cell.site for cell in cells])),
        **{axis: each(column) for axis, column in places.items()},
        "example": np.tile(np.arange(n), len(cells)),
        "value": np.nan,
    }


def depths(tower: Tower, sites: Sequence[str]) -> list[float]:
    """The place of sites in their tower, 0 for the first and 1 for the last."""
    known = list(tower.sites)
    return [known.index(site) / max(1, len(known) - 1) for site in sites]


def describe(pairs: Pairs | None) -> dict[str, str | np.ndarray]:
    """The columns that say what each pair shows."""
    if pairs is None:
        return {"pairing": "as given"}
    clean, corrupt = pairs.clean.frame, pairs.corrupt.frame
    columns: dict[str, str | np.ndarray] = {
        f"{side}_{name}": frame[name].to_numpy()
        for side, frame in (("clean", clean), ("corrupt", corrupt))
        for name in ("label", "domain")
    }
    if "drawing" in clean:
        columns["drawing"] = clean["drawing"].to_numpy()
    return {**columns, "pairing": pairing(pairs)}


def pairing(pairs: Pairs) -> str:
    """What partners share and differ in, in words, and whether they are aligned."""
    clean, corrupt = pairs.clean.frame, pairs.corrupt.frame
    same = {
        name: (clean[name].to_numpy() == corrupt[name].to_numpy()) for name in ("label", "domain")
    }
    words = {
        name: f"same {name}" if hits.all() else f"other {name}" if not hits.any() else f"any {name}"
        for name, hits in same.items()
    }
    order = sorted(words.values(), reverse=True)  # what is the same comes first
    return f"{', '.join(order)}; {'aligned' if pairs.aligned else 'unaligned'}"

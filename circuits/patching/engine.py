"""Patched runs, exact and without recomputing what a patch cannot have changed.

A tower is a chain, so a patch in block l leaves the stream that enters block l as it was: the run
goes on from there. Base and donor walk down the chain together, one layer's activations are held
at a time, and where a batch is small several cells share a forward.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.tasks.metrics import measure, rows_of
from interp.core.errors import (
    NumericsError,
    ShapeError,
    SiteError,
    SpecificationError,
    listed,
    out_of_memory,
)
from interp.core.progress import say, track
from interp.core.sites import ON_DEMAND, find_sites
from interp.core.tower import Finishing, Patch, Tower, part

Activations = Mapping[str, Tensor]


@dataclass(frozen=True)
class PatchPlace:
    """One place to patch: a site, the block that computes it, an index into some of its axes."""

    site: str
    layer: int
    index: tuple[tuple[str, int], ...] = ()


def list_cells(
    tower: Tower,
    sites: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    *,
    axes: Sequence[str],
    where: Mapping[str, int] | None = None,
) -> list[PatchPlace]:
    """The cells of a sweep: for each site, every index into `axes`, at the fixed place `where`."""
    if "layer" not in axes or "batch" in axes or len(set(axes)) < len(axes):
        raise SpecificationError(
            "list the cells of a sweep",
            f"the axes {listed(axes)}",
            "'layer' and axes of the site, such as 'pos', 'head' or 'channel'",
            'write for example axes=("layer", "pos")',
        )
    fixed = dict(where or {})
    cells = []
    for site in sites:
        names = tower.axes(site)
        swept = [axis for axis in axes if axis != "layer"]
        part(dict.fromkeys([*swept, *fixed], 0), axes=names, site=site)  # refuses unknown axes
        sizes = dict(zip(names, shapes[site], strict=True))
        for axis, place in fixed.items():
            if not 0 <= place < sizes[axis]:
                raise ShapeError(
                    f"patch {site}",
                    f"{axis} {place}",
                    f"0 to {sizes[axis] - 1}",
                    "count from the start of the axis",
                )
        for places in product(*(range(sizes[axis]) for axis in swept)):
            index = (*fixed.items(), *zip(swept, places, strict=True))
            cells.append(PatchPlace(site, tower.layer(site), index))
    return cells


class _Run:
    """A run that has come as far as the stream that enters block `at` (-1: the input itself)."""

    def __init__(self, tower: Tower, x: Tensor) -> None:
        self.tower, self.stream, self.at, self.output = tower, x, -1, None
        forward = getattr(tower, "forward", tower.__call__)
        # a text tower reads its output off where the tokens end, also when it resumes
        resumes = not x.is_floating_point() and "tokens" in inspect.signature(forward).parameters
        self.tokens: Tensor | None = x if resumes else None

    def span(self, stop: int | None = None, copies: int = 1) -> dict[str, Any]:
        """Keywords that resume from here, for so many copies of the batch."""
        start = None if self.at < 0 else self.at
        words: dict[str, Any] = {"start_at_layer": start, "stop_at_layer": stop}
        if self.tokens is not None and start is not None:
            words["tokens"] = self.tokens.repeat(copies, 1)
        return words

    def forward_to(self, layer: int) -> None:
        """Walk on to the stream that enters block `layer`."""
        if layer > self.at:
            self.stream, self.at = self.tower(self.stream, **self.span(layer)), layer

    def read(self, layer: int, sites: Sequence[str]) -> Activations:
        """The activations of some sites of block `layer`; the run stands behind it afterwards."""
        self.forward_to(layer)
        stop = layer + 1 if layer < self.tower.n_layers else None
        out, cache = self.tower.run_with_cache(
            self.stream, names_filter=list(sites), **self.span(stop)
        )
        if stop is None:
            self.output = out
        else:
            self.stream, self.at = out, stop
        return cache

    def finish(self) -> Tensor:
        """The output of the run."""
        if self.output is None:
            self.output = self.go_on(self.stream)
        return self.output

    def go_on(self, stream: Tensor, copies: int = 1) -> Tensor:
        """The output from a stream at this place, which stands for so many copies of the batch."""
        words = self.span(copies=copies)
        if words["start_at_layer"] is None or not isinstance(self.tower, Finishing):
            return self.tower(stream, **words)
        return self.tower.finish(stream, **{k: v for k, v in words.items() if v is not None})


@dataclass(frozen=True)
class PatchPiece:
    """Outputs of one forward: of run 0 (the base) or a donor, patched in `cells` or not at all."""

    run: int
    cells: Sequence[int] | None
    outputs: Float[Tensor, "cell batch d_embed"]


def patched_outputs(
    tower: Tower,
    cells: Sequence[PatchPlace],
    *,
    base: Tensor,
    donors: Sequence[Tensor | Activations],
    stack: int = 1,
) -> Iterator[PatchPiece]:
    """Run `base` once per cell and donor, the cell's activation taken from the donor's own run.

    Yields a piece for every forward, then one for each unpatched run. A donor may also be given as
    activations by site. `stack` cells share a forward, so it holds `stack * batch` examples.
    """
    main = _Run(tower, base)
    runs = [_Run(tower, donor) if isinstance(donor, Tensor) else None for donor in donors]
    order = sorted(range(len(cells)), key=lambda number: cells[number].layer)
    for layer, numbers in groupby(order, key=lambda number: cells[number].layer):
        here = list(numbers)
        sites = list(dict.fromkeys(cells[number].site for number in here))
        main.forward_to(layer)
        for number, (donor, run) in enumerate(zip(donors, runs, strict=True), start=1):
            held = run.read(layer, sites) if run is not None else cast(Activations, donor)
            for site in sites:
                of_site = [cell for cell in here if cells[cell].site == site]
                for start in range(0, len(of_site), stack):
                    chosen = of_site[start : start + stack]
                    patch = _patch([cells[cell] for cell in chosen], tower, held)
                    out = _run_patched(tower, patch, main, len(chosen))
                    yield PatchPiece(number, chosen, out.unflatten(0, (len(chosen), len(base))))
    for number, run in enumerate([main, *runs]):
        if run is not None:
            yield PatchPiece(number, None, run.finish()[None])


def _patch(cells: Sequence[PatchPlace], tower: Tower, held: Activations) -> Patch:
    """One patch for several cells of a site, each in its own copy of the batch."""
    site, axes = cells[0].site, tower.axes(cells[0].site)
    if site not in held:
        raise SiteError(
            f"patch {site}",
            "a donor run that never came there",
            f"an activation that block {cells[0].layer} computes",
            "check the tower's layer() of this site",
        )
    donor = held[site]
    batch = torch.arange(len(donor), device=donor.device)
    copies = torch.arange(len(cells), device=donor.device)[:, None]
    places = {
        axis: torch.tensor([[dict(cell.index)[axis]] for cell in cells], device=donor.device)
        for axis, _ in cells[0].index
    }
    # beside one index tensor on the batch axis, the others broadcast: [cell batch] comes first
    here = part({"batch": batch[None], **places}, axes=axes, site=site)
    value = donor[here].expand(len(cells), len(donor), *donor[here].shape[2:])
    return Patch(site, value, {"batch": copies * len(donor) + batch, **places})


def _run_patched(tower: Tower, patch: Patch, run: _Run, copies: int) -> Tensor:
    fired = False

    def replace(activation: Tensor, hook: object) -> Tensor:
        nonlocal fired
        fired = True
        return patch.apply(activation, axes=tower.axes(patch.site))

    # repeat() copies even once, so that a tower that works in place leaves the kept stream alone
    stream = run.stream.repeat(copies, *[1] * (run.stream.ndim - 1))
    with tower.hooks(fwd_hooks=[(patch.site, replace)]):
        out = run.go_on(stream, copies)
    if not fired:
        raise SiteError(
            f"patch {patch.site}",
            f"a run from layer {run.at} that never came there",
            "a site that the run computes",
            "check the tower's layer() of this site",
        )
    return out


def reference_outputs(
    tower: Tower, cell: PatchPlace, *, base: Tensor, donor: Tensor
) -> Float[Tensor, "batch d_embed"]:
    """The slow second way, for tests and benchmarks: a full donor and patched run per cell."""
    _, cache = tower.run_with_cache(donor, names_filter=[cell.site])
    index = dict(cell.index)
    value = cache[cell.site][part(index, axes=tower.axes(cell.site), site=cell.site)]
    patch = Patch(cell.site, value, index)

    def replace(activation: Tensor, hook: object) -> Tensor:
        return patch.apply(activation, axes=tower.axes(cell.site))

    return tower.run_with_hooks(base, fwd_hooks=[(cell.site, replace)])


def resolve_sites(tower: Tower, sites: str | Sequence[str]) -> list[str]:
    """The tower's sites that match names or patterns, in tower order."""
    return find_sites(sites, tower.sites)


def probe(
    tower: Tower, x: Tensor, sites: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], int, Tensor]:
    """Shapes of activations, the bytes one example needs in flight, and its output, from one run.

    In flight are a donor's activations in the largest block, as much again for the patched run,
    and the two streams that enter it.
    """
    names = [name for name in tower.sites if name in sites or not name.endswith(ON_DEMAND)]
    with torch.no_grad():
        out, cache = tower.run_with_cache(x[:1], names_filter=names)
    shapes = {name: tuple(value.shape) for name, value in cache.items()}
    layers: dict[int, int] = {}
    for name, value in cache.items():
        layer = tower.layer(name)
        layers[layer] = layers.get(layer, 0) + value.nbytes
    return shapes, 2 * max([x[:1].nbytes, *layers.values()]), out


@dataclass(frozen=True)
class RunPlan:
    """The cells to patch, how many examples a forward may hold, and what the whole will cost.

    `forwards` is in full runs of one example: a patch in block l of L costs (L - l) / L.
    """

    cells: Sequence[PatchPlace]
    rows: int
    forwards: float
    bytes: int


def make_plan(
    tower: Tower,
    sites: Sequence[str],
    *,
    base: Tensor,
    n_donors: int,
    batch_size: int,
    memory: int,
    axes: Sequence[str],
    where: Mapping[str, int] | None = None,
) -> RunPlan:
    """List the cells, fit forwards into `batch_size` rows and `memory` bytes, and count them."""
    shapes, bytes_per_row, _ = probe(tower, base, sites)
    cells = list_cells(tower, sites, shapes, axes=axes, where=where)
    if batch_size < 1 or memory < bytes_per_row:
        raise SpecificationError(
            "plan a sweep",
            f"batches of {batch_size} and a budget of {memory} bytes",
            f"at least 1 example and {bytes_per_row} bytes, what one cell of one example needs",
            "raise batch_size or memory, or choose smaller sites",
        )
    rows = min(batch_size, memory // bytes_per_row)
    forwards = len(base) * forwards_of(tower, cells, n_donors=n_donors)
    return RunPlan(cells, rows, forwards, rows * bytes_per_row)


def forwards_of(tower: Tower, cells: Sequence[PatchPlace], *, n_donors: int = 1) -> float:
    """What measuring cells costs for one example, in full runs: no patch repeats its prefix."""
    depth = max(tower.n_layers, 1)
    patched = sum((depth - max(cell.layer, 0)) / depth for cell in cells)
    return n_donors * (patched + 1) + 1


@dataclass(frozen=True)
class Values:
    """A metric after patching `[donor cell example]` and on the unpatched runs `[run example]`."""

    patched: np.ndarray
    unpatched: np.ndarray


def measure_cells(
    tower: Tower,
    cells: Sequence[PatchPlace],
    *,
    base: Tensor,
    donors: Sequence[Tensor | Activations],
    metric: Callable[[Tensor], Tensor],
    rows: int,
    what: str = "patch",
) -> Values:
    """Measure every cell, donor and example, at most `rows` examples to a forward.

    A donor given as activations has no run of its own, so no unpatched number: NaN stands there.
    When memory runs out, the batch is halved and the run goes on; when one example is too much,
    the error is let through.
    """
    values = Values(
        np.full((len(donors), len(cells), len(base)), np.nan),
        np.full((1 + len(donors), len(base)), np.nan),
    )
    batches = -(-len(base) // min(rows, len(base)))
    stack = max(1, rows // min(rows, len(base)))
    per_batch = len(donors) * (len(cells) // stack) + 1 + len(donors)
    pieces = _pieces(tower, cells, base, donors, rows)
    with torch.no_grad():
        for window, piece in track(pieces, what, total=max(1, batches * per_batch)):
            for place, outputs in enumerate(piece.outputs):
                numbers = measure(rows_of(metric, window), outputs).double().cpu().numpy()
                if piece.cells is None:
                    values.unpatched[piece.run, window] = numbers
                else:
                    values.patched[piece.run - 1, piece.cells[place], window] = numbers
    _check_finite(values, cells, [isinstance(donor, Tensor) for donor in donors])
    return values


def _pieces(
    tower: Tower,
    cells: Sequence[PatchPlace],
    base: Tensor,
    donors: Sequence[Tensor | Activations],
    limit: int,
) -> Iterator[tuple[slice, PatchPiece]]:
    start = 0
    while start < len(base):
        window = slice(start, min(start + limit, len(base)))
        chosen, size = [_rows(donor, window) for donor in donors], window.stop - start
        stack = max(1, limit // size)
        try:
            for piece in patched_outputs(
                tower, cells, base=base[window], donors=chosen, stack=stack
            ):
                yield window, piece
        except (MemoryError, RuntimeError) as error:
            if limit == 1 or not out_of_memory(error):
                raise
            # pieces already given are given again, with the same numbers
            limit = max(1, size * stack // 2)
            say(f"out of memory: going on with {limit} examples per forward")
            continue
        start = window.stop


def _rows(donor: Tensor | Activations, window: slice) -> Tensor | Activations:
    if isinstance(donor, Tensor):
        return donor[window]
    return {site: value[window] for site, value in donor.items()}


def _check_finite(values: Values, cells: Sequence[PatchPlace], ran: Sequence[bool]) -> None:
    bad = [
        cell.site
        for number, cell in enumerate(cells)
        if not np.isfinite(values.patched[:, number]).all()
    ]
    if bad or not np.isfinite(values.unpatched[[True, *ran]]).all():
        raise NumericsError(
            "measure patches",
            f"NaN or infinity after patching {listed(dict.fromkeys(bad))}",
            "finite numbers",
            "check the pictures, the class embeddings and the tower's own output",
        )

"""Grids of cells: listed, costed, patched and measured, with nothing run twice.

Base and donor walk down the chain together, one layer's activations are held at a time, and where
a batch is small several cells share a forward.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import Activations, Prefix, entries, never_came
from interp.circuits.tasks.metrics import check_finite, measure, rows_of
from interp.core.arguments import Room
from interp.core.errors import ShapeError, SpecificationError, listed
from interp.core.parallel import Batching, batches
from interp.core.progress import track
from interp.core.sites import ON_DEMAND
from interp.core.tower import Patch, Tower, check_evaluation, part


@dataclass(frozen=True)
class PatchPlace:
    """One place to patch: a site, the block that computes it, an index into some of its axes."""

    site: str
    layer: int
    index: tuple[tuple[str, int], ...] = ()


def swept_axes(asked: str, axes: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """The axes of a site that a sweep indexes; refuses axes that make no grid of cells.

    `known` are those of the first site, for the message.
    """
    if "layer" not in axes or "batch" in axes or len(set(axes)) < len(axes):
        raise SpecificationError(
            f"{asked} the cells of a sweep",
            f"the axes {listed(axes)}",
            "'layer', which is always one of them, and axes of the site"
            + (f" ({listed([axis for axis in known if axis != 'batch'])})" if known else ""),
            'write for example axes=("layer", "pos")',
        )
    return [axis for axis in axes if axis != "layer"]


def list_cells(
    tower: Tower,
    sites: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    *,
    axes: Sequence[str],
    where: Mapping[str, int] | None = None,
) -> list[PatchPlace]:
    """The cells of a sweep: for each site, every index into `axes`, at the fixed place `where`."""
    swept = swept_axes("list", axes, tower.axes(sites[0]) if sites else ())
    fixed = dict(where or {})
    cells = []
    for site in sites:
        names = tower.axes(site)
        part(dict.fromkeys([*swept, *fixed], 0), axes=names, site=site)  # refuses unknown axes
        sizes = dict(zip(names, shapes[site], strict=True))
        for axis, place in fixed.items():
            if not 0 <= place < sizes[axis]:
                do = "count from the start of the axis"
                raise ShapeError(f"patch {site}", f"{axis} {place}", f"0 to {sizes[axis] - 1}", do)
        for places in product(*(range(sizes[axis]) for axis in swept)):
            index = (*fixed.items(), *zip(swept, places, strict=True))
            cells.append(PatchPlace(site, tower.layer(site), index))
    return cells


def probe(tower: Tower, x: Tensor, sites: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of activations, and the bytes one example needs in flight, from one run.

    In flight are a donor's activations in the largest block, as much again for the patched run,
    and the two streams that enter it.
    """
    names = [name for name in tower.sites if name in sites or not name.endswith(ON_DEMAND)]
    with torch.no_grad():
        _, cache = tower.run_with_cache(x[:1], names_filter=names)
    shapes = {name: tuple(value.shape) for name, value in cache.items()}
    layers: dict[int, int] = {}
    for name, value in cache.items():
        layer = tower.layer(name)
        layers[layer] = layers.get(layer, 0) + value.nbytes
    return shapes, 2 * max([x[:1].nbytes, *layers.values()])


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
    room: Room,
    axes: Sequence[str],
    where: Mapping[str, int] | None = None,
) -> RunPlan:
    """List the cells, fit forwards into the room that there is, and count them."""
    check_evaluation(tower, "patch a tower")
    shapes, bytes_per_row = probe(tower, base, sites)
    cells = list_cells(tower, sites, shapes, axes=axes, where=where)
    if room.batch_size < 1 or room.memory < bytes_per_row:
        given = f"batches of {room.batch_size} and a budget of {room.memory} bytes"
        right = f"at least 1 example and {bytes_per_row} bytes, what one cell of one example needs"
        do = "raise batch_size or memory, or choose smaller sites"
        raise SpecificationError("plan a sweep", given, right, do)
    rows = min(room.batch_size, room.memory // bytes_per_row)
    forwards = len(base) * forwards_of(tower, cells, n_donors=n_donors)
    return RunPlan(cells, rows, forwards, rows * bytes_per_row)


def forwards_of(tower: Tower, cells: Sequence[PatchPlace], *, n_donors: int = 1) -> float:
    """What measuring cells costs for one example, in full runs: no patch repeats its prefix."""
    depth = max(tower.n_layers, 1)
    patched = sum((depth - max(cell.layer, 0)) / depth for cell in cells)
    return n_donors * (patched + 1) + 1


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
    main = Prefix.of(tower, base)
    runs = {
        number: Prefix.of(tower, donor)
        for number, donor in enumerate(donors, start=1)
        if isinstance(donor, Tensor)
    }
    order = sorted(range(len(cells)), key=lambda number: cells[number].layer)
    for layer, numbers in groupby(order, key=lambda number: cells[number].layer):
        here = list(numbers)
        sites = list(dict.fromkeys(cells[number].site for number in here))
        main = main.forward_to(layer)
        entered, after = entries(main, sites)
        for number, donor in enumerate(donors, start=1):
            if isinstance(donor, Tensor):
                held, runs[number] = runs[number].forward_to(layer).read(sites)
            else:
                held = donor
            for site in sites:
                of_site = [cell for cell in here if cells[cell].site == site]
                for some in batches(len(of_site), stack):
                    chosen = of_site[some]
                    patch = _patch([cells[cell] for cell in chosen], tower, held)
                    change = partial(patch.apply, axes=tower.axes(site))
                    if site in entered:
                        out = entered[site].changed(change, len(chosen))
                    else:
                        out = main.times(len(chosen)).changed({site: change})
                    yield PatchPiece(number, chosen, out.unflatten(0, (len(chosen), len(base))))
        main = after
    for number, run in {0: main, **runs}.items():
        yield PatchPiece(number, None, run.finish()[None])


def _patch(cells: Sequence[PatchPlace], tower: Tower, held: Activations) -> Patch:
    """One patch for several cells of a site, each in its own copy of the batch."""
    site, axes = cells[0].site, tower.axes(cells[0].site)
    if site not in held:
        raise never_came(site, "a donor run")
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


@dataclass(frozen=True)
class Values:
    """A metric after patching `[donor cell example]` and on the unpatched runs `[run example]`."""

    patched: np.ndarray
    unpatched: np.ndarray

    @classmethod
    def empty(cls, n_donors: int, n_cells: int, n: int) -> "Values":
        """Nothing measured yet: NaN everywhere."""
        return cls(np.full((n_donors, n_cells, n), np.nan), np.full((1 + n_donors, n), np.nan))


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
    batching, n = Batching(rows, stacked=True), len(base)
    values = Values.empty(len(donors), len(cells), n)
    stack = batching.copies(slice(0, min(rows, n)))
    total = -(-n // rows) * (len(donors) * (len(cells) // stack) + 1 + len(donors))

    def pieces(window: slice) -> Iterator[PatchPiece]:
        chosen = [_rows(donor, window) for donor in donors]
        stack = batching.copies(window)
        return patched_outputs(tower, cells, base=base[window], donors=chosen, stack=stack)

    with torch.no_grad():
        for window, piece in track(batching.through(n, pieces), what, total=max(1, total)):
            for place, outputs in enumerate(piece.outputs):
                numbers = measure(rows_of(metric, window), outputs).double().cpu().numpy()
                if piece.cells is None:
                    values.unpatched[piece.run, window] = numbers
                else:
                    values.patched[piece.run - 1, piece.cells[place], window] = numbers
    ran = [True, *(isinstance(donor, Tensor) for donor in donors)]
    wrong = np.flatnonzero(~np.isfinite(values.patched).all(axis=(0, 2)))
    after = (
        f"runs patched at {listed(dict.fromkeys(cells[number].site for number in wrong.tolist()))}"
    )
    check_finite(
        "measure patches", {"unpatched runs": values.unpatched[ran], after: values.patched}
    )
    return values


def _rows(donor: Tensor | Activations, window: slice) -> Tensor | Activations:
    if isinstance(donor, Tensor):
        return donor[window]
    return {site: value[window] for site, value in donor.items()}

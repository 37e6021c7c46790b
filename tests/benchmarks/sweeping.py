"""What an exact sweep costs, as a share of the naive loop's one full run per cell."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.circuits.patching.patched_cells import PatchPlace, list_cells, patched_outputs, probe
from interp.core.sites import find_sites
from interp.core.tower import Patch, Tower, part
from tests.benchmarks.timing import alternate, ratio

SMALL: Any = {"layers": 6, "width": 192, "patch_size": 8, "image_size": 56, "head_width": 32}
LARGE: Any = {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224, "head_width": 64}
RESID, HEADS = "blocks.*.hook_resid_pre", "blocks.*.attn.hook_z"


@dataclass(frozen=True)
class Case:
    """A sweep to time; `places` is how many of the second axis' places each layer keeps."""

    name: str
    vision: Any
    sites: str
    axis: str
    pairs: int
    bar: float
    rounds: int
    places: int = 50


CASES = (
    Case("layer x position, small ViT, 8 pairs", SMALL, RESID, "pos", 8, 0.46, 3),
    Case("layer x position, small ViT, 1 pair", SMALL, RESID, "pos", 1, 0.36, 5),
    Case("layer x head, small ViT, 8 pairs", SMALL, HEADS, "head", 8, 0.52, 9),
    Case("layer x head, small ViT, 1 pair", SMALL, HEADS, "head", 1, 0.52, 15),
    Case("layer x position, ViT-B/32, 8 pairs", LARGE, RESID, "pos", 8, 0.50, 2, places=5),
    Case("layer x position, ViT-B/32, 1 pair", LARGE, RESID, "pos", 1, 0.50, 3, places=10),
)
ROWS = 32
"""Examples in a forward: the default of `sweep`. More cells share one where there are few pairs."""


def sweeping() -> None:
    """CPU seconds of one thread, medians over rounds in which both take their turn."""
    torch.set_num_threads(1)
    for case in CASES:
        torch.manual_seed(0)
        tower, side = _tower(case.vision), case.vision["image_size"]
        clean, corrupt = torch.randn(2, case.pairs, 3, side, side)
        with torch.no_grad():
            cells = _cells(tower, case, corrupt)
            words = {"base": corrupt, "donor": clean}
            our_sweep(tower, cells, **words)  # what libraries load once is not counted
            naive, ours = alternate(
                {
                    "naive": lambda t=tower, c=cells, w=words: naive_loop(t, c, **w),
                    "ours": lambda t=tower, c=cells, w=words: our_sweep(t, c, **w),
                },
                case.rounds,
            ).values()
            error = _error(tower, cells, corrupt, clean)
        print(
            f"sweep: {case.name}: {len(cells)} cells, {statistics.median(ours):.2f} s against "
            f"{statistics.median(naive):.2f} s, {ratio(ours, naive):.3f} of the naive loop "
            f"(bar {case.bar:.2f}); error {error:.1e} (bar 5e-6)",
            flush=True,
        )


def _tower(vision: Any) -> Any:
    from open_clip.model import CLIP

    from interp.models.towers.open_tower import open_tower

    text: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    return open_tower(CLIP(64, vision, text).eval(), "visual")


def _cells(tower: Tower, case: Case, x: Tensor) -> list[PatchPlace]:
    """All cells, or of each layer as many as the case keeps, evenly spread."""
    sites = find_sites(case.sites, tower.sites)
    shapes, _ = probe(tower, x, sites)
    cells = list_cells(tower, sites, shapes, axes=("layer", case.axis))
    step = max(1, len(cells) // len(sites) // case.places)
    return [cell for cell in cells if dict(cell.index)[case.axis] % step == 0]


def naive_loop(tower: Tower, cells: Sequence[PatchPlace], *, base: Tensor, donor: Tensor) -> Tensor:
    """The donor's run once, with the swept sites kept, then a full patched run for every cell."""
    _, cache = tower.run_with_cache(donor, names_filter=list({cell.site for cell in cells}))
    outputs = []
    for cell in cells:
        axes, index = tower.axes(cell.site), dict(cell.index)
        value = cache[cell.site][part(index, axes=axes, site=cell.site)]
        patch = Patch(cell.site, value, index)
        outputs.append(
            tower.run_with_hooks(
                base, fwd_hooks=[(cell.site, lambda x, hook, p=patch, a=axes: p.apply(x, axes=a))]
            )
        )
    return torch.stack(outputs)


def our_sweep(tower: Tower, cells: Sequence[PatchPlace], *, base: Tensor, donor: Tensor) -> Tensor:
    """The same outputs from the sweep's own engine, both unpatched runs included."""
    outputs: list[Tensor] = [torch.empty(0)] * len(cells)
    stack = max(1, ROWS // len(base))
    for piece in patched_outputs(tower, cells, base=base, donors=[donor], stack=stack):
        for cell, each in zip(piece.cells or (), piece.outputs, strict=False):
            outputs[cell] = each
    return torch.stack(outputs)


def _error(tower: Tower, cells: Sequence[PatchPlace], base: Tensor, donor: Tensor) -> float:
    """The largest difference between both, as a share of the largest value, on some cells."""
    some = cells[:: max(1, len(cells) // 12)]
    right = naive_loop(tower, some, base=base, donor=donor)
    found = our_sweep(tower, some, base=base, donor=donor)
    return float((found - right).abs().max() / right.abs().max())

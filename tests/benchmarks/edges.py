"""What scores of all edges cost, against two forwards and one backward over activations."""

import ctypes
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from interp.circuits import attribute, wire
from interp.core.tower import parameters_at_rest
from interp.models.towers.open_tower import keep_freed_memory
from interp.models.towers.vit import HookedViT
from tests.benchmarks.timing import alternate, ratio

TOWERS = {
    "small ViT": (
        {"image_size": 56, "patch_size": 8, "width": 192, "layers": 6, "heads": 3},
        {"EAP": 1.3, "EAP-IG-inputs": 6.0},
        9,
    ),
    "ViT-B/32": (
        {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12, "heads": 12},
        {"EAP": 1.5, "EAP-IG-inputs": 6.0},
        3,
    ),
}
"""Each tower with its bars, as multiples, and how often all is repeated."""


_MMAP_THRESHOLD = -3
"""The number of glibc's malloc.h."""


def edges() -> None:
    """8 pairs on one thread; processor seconds, so that other work on the machine counts less."""
    torch.set_num_threads(1)
    for name, (size, bars, repeats) in TOWERS.items():
        torch.manual_seed(0)
        tower = HookedViT(VisionTransformer(**size, mlp_ratio=4.0, output_dim=128).eval())
        side = size["image_size"]
        clean, corrupt = torch.randn(2, 8, 3, side, side)
        words = {"clean": clean, "corrupt": corrupt, "metric": difference}
        bare(tower, clean, corrupt)  # what libraries load once is not counted
        taken = peak(lambda w=words, t=tower: attribute(t, **w, method="EAP"))
        print(f"edges: {name}, EAP takes {taken:.0f} MiB at 8 pairs (bar 350)")
        with keep_freed_memory():
            _compare(name, tower, clean, corrupt, bars, repeats)


def _compare(
    name: str,
    tower: HookedViT,
    clean: Tensor,
    corrupt: Tensor,
    bars: dict[str, float],
    repeats: int,
) -> None:
    words = {"clean": clean, "corrupt": corrupt, "metric": difference}
    work: dict[str, Callable[[], object]] = {
        "two forwards, one backward": lambda: bare(tower, clean, corrupt),
        **{
            method: lambda m=method: attribute(tower, **words, method=m, steps=5) for method in bars
        },
    }
    taken = alternate(work, repeats)
    unit = taken["two forwards, one backward"]
    for each, bar in bars.items():
        print(
            f"edges: {name}, {wire(tower).n_edges:,} edges, {each:14} "
            f"{statistics.median(taken[each]):6.2f} s, {ratio(taken[each], unit):.2f} of the runs "
            f"(bar {bar})"
        )


def peak(work: Callable[[], object]) -> float:
    """MiB of buffers that one call holds at most, above what is held before it (Linux)."""
    library = ctypes.CDLL("libc.so.6")
    library.mallopt(_MMAP_THRESHOLD, 2**20)  # buffers of their own, so that holes do not count
    library.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 1024


def _resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def bare(tower: HookedViT, clean: Tensor, corrupt: Tensor) -> None:
    """The runs that any method needs: both inputs, and back from the metric to the first stream."""
    with torch.no_grad():
        tower(corrupt)
        start = tower(clean, stop_at_layer=0)
    with parameters_at_rest(tower):
        leaf = start.requires_grad_()
        difference(tower(leaf, start_at_layer=0)).sum().backward()


def difference(output: Tensor) -> Tensor:
    """A metric."""
    return output[:, 0] - output[:, 1]

"""What it costs to open a tower: idle hooks and full caches against open_clip's own forward."""

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

Arms = dict[str, Callable[[], object]]

SHAPES: dict[str, dict[str, int]] = {
    "ViT-B/32": {"layers": 12, "width": 768, "patch": 32, "side": 224, "head": 64, "embed": 512},
    "small ViT": {"layers": 6, "width": 128, "patch": 8, "side": 48, "head": 32, "embed": 64},
}
BATCH, ROUNDS = 8, {"ViT-B/32": 15, "small ViT": 60}
BARS = {"idle": 1.02, "cache without pattern": 1.05, "cache with pattern": 1.08}
PRISMA = "INTERP_BENCH_PRISMA"


def open_() -> None:
    """Idle hooks and full caches, one thread, CPU seconds, medians of alternating runs."""
    import torch

    from interp.models.allocator import keep_freed_memory

    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        x = torch.randn(BATCH, 3, shape["side"], shape["side"])
        for setting, context in (("as it is", nullcontext), ("kept memory", keep_freed_memory)):
            with torch.no_grad(), context():
                _report(f"{name}, {setting}", *_ours(shape, x, ROUNDS[name]))
                for peer, make in (("TransformerLens", _bridge),):
                    try:
                        _report(f"{name}, {setting}, {peer}", *make(shape, x, ROUNDS[name]))
                    except Exception as error:  # a peer that does not run is a result
                        reason = str(error).splitlines()[0][:200]
                        print(f"open: {name}, {peer}: left out ({type(error).__name__}: {reason})")
        _prisma(name)


def alternate(arms: Arms, rounds: int) -> dict[str, tuple[float, float, float]]:
    """CPU seconds, ratio to the first arm and page faults of each arm: medians over the rounds.

    Every arm runs once in every round, in an order that turns; a ratio is of two runs of the same
    round. One thread's CPU seconds, since other work on the machine would count in wall-clock time.
    """
    names, first = list(arms), next(iter(arms))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    faults: dict[str, list[int]] = {name: [] for name in names}
    for turn in range(rounds + 3):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            start = time.process_time()
            kept = arms[name]()
            taken = time.process_time() - start
            found = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
            del kept
            if turn >= 3:
                seconds[name].append(taken)
                faults[name].append(found)
    return {
        name: (
            statistics.median(seconds[name]),
            statistics.median(a / b for a, b in zip(seconds[name], seconds[first], strict=True)),
            statistics.median(faults[name]),
        )
        for name in names
    }


def _report(what: str, arms: Arms, rounds: int) -> None:
    for name, (seconds, ratio, faults) in alternate(arms, rounds).items():
        bar = f" (bar {BARS[name]:.2f})" if name in BARS and "Lens" not in what else ""
        print(
            f"open: {what:36} {name:28} {1e3 * seconds:8.1f} ms  {ratio:.3f}x{bar}"
            f"  {faults:.0f} page faults",
            flush=True,
        )


def _ours(shape: dict[str, int], x: Any, rounds: int) -> tuple[Arms, int]:
    from open_clip.model import CLIP

    from interp.core.sites import ON_DEMAND
    from interp.models.buffers import kept_buffers
    from interp.models.selection import Keep
    from interp.models.towers import open_tower

    vision: Any = {
        "layers": shape["layers"],
        "width": shape["width"],
        "patch_size": shape["patch"],
        "image_size": shape["side"],
        "head_width": shape["head"],
    }
    text: Any = {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1}
    model: Any = CLIP(shape["embed"], vision, text).eval()
    # two wrappers of the same weights: one has buffers and keeps its hooks between runs
    tower, other = open_tower(model, "visual"), open_tower(model, "visual")
    fused = [s for s in tower.sites if not s.endswith((*ON_DEMAND, "hook_pattern"))]
    buffered = _kept(kept_buffers(other, Keep(fused)))
    next(buffered)
    arms: Arms = {
        "encode_image": lambda: model.encode_image(x),
        "encode_image again": lambda: model.encode_image(x),
        "idle": lambda: tower(x),
        "cache without pattern": lambda: tower.run_with_cache(x, names_filter=fused),
        "cache with pattern": lambda: tower.run_with_cache(x),
        "kept buffers": lambda: (other(x), buffered)[0],
    }
    return arms, rounds


def _kept(context: Any) -> Iterator[Any]:
    """Hold a context open for as long as the iterator lives."""
    with context as value:
        yield value


@contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HF_HUB_OFFLINE") if before is None else None


def _bridge(shape: dict[str, int], x: Any, rounds: int) -> tuple[Arms, int]:
    """TransformerLens's bridge on transformers' ViTModel of the same shape."""
    raise NotImplementedError


def _prisma(name: str) -> None:
    """ViT-Prisma in its own interpreter, since it pins packages that ours cannot live with."""
    python = os.environ.get(PRISMA)
    if not python:
        print(f"open: {name}, ViT-Prisma: left out ({PRISMA} names no interpreter that has it)")
        return
    script = Path(__file__).with_name("prisma.py")
    run = subprocess.run([python, script, name], capture_output=True, text=True, check=False)
    print(run.stdout.strip() or f"open: {name}, ViT-Prisma: left out ({run.stderr[-200:]})")

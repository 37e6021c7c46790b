"""What it costs to open a tower: idle hooks and full caches against open_clip's own forward."""

import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

Arms = dict[str, Callable[[], object]]

SHAPES: dict[str, dict[str, int]] = {
    "ViT-B/32": {"layers": 12, "width": 768, "patch": 32, "side": 224, "head": 64, "embed": 512},
    "small ViT": {"layers": 6, "width": 128, "patch": 8, "side": 48, "head": 32, "embed": 64},
}
BATCH, ROUNDS = 8, {"ViT-B/32": 15, "small ViT": 60}
SETTINGS = ("allocator as it is", "freed memory kept")
BARS = {
    "idle": 1.02,
    "cache without pattern": 1.05,
    "cache with pattern": 1.08,
    "kept buffers without pattern": 1.05,
    "kept buffers with pattern": 1.08,
}
PRISMA = "INTERP_BENCH_PRISMA"


def open_() -> None:
    """Idle hooks and full caches against the bare model: CPU seconds of one thread.

    Medians of alternating runs at batch 8, ours and the peers'. Each line of figures is a process
    of its own, since what the allocator was told, and what it has learnt, belong to the process.
    """
    for shape in SHAPES:
        for setting in SETTINGS:
            for maker in MAKERS:
                python = os.environ.get(PRISMA) if maker == "ViT-Prisma" else sys.executable
                if not python:
                    print(f"open: {maker}: left out ({PRISMA} names no interpreter that has it)")
                    continue
                command = [python, "-m", "tests.benchmarks.opening", shape, setting, maker]
                run = subprocess.run(command, capture_output=True, text=True, check=False)
                reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
                print(run.stdout.strip() or f"open: {shape}, {maker}: left out ({reason})")


def _measure(shape: str, setting: str, maker: str) -> None:
    """One process of the benchmark: some arms, under one setting of the allocator."""
    import torch

    from interp.models.towers.open_tower import keep_freed_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    side = SHAPES[shape]["side"]
    x = torch.randn(BATCH, 3, side, side)
    context = keep_freed_memory() if setting == "freed memory kept" else nullcontext()
    with torch.no_grad(), context:
        measured = alternate(MAKERS[maker](SHAPES[shape], x), ROUNDS[shape])
    for name, (seconds, ratio, faults) in measured.items():
        bar = f" (bar {BARS[name]:.2f})" if maker == "ours" and name in BARS else ""
        print(
            f"open: {shape}, {setting}, {maker}: {name}: {1e3 * seconds:.1f} ms, "
            f"{ratio:.3f}x{bar}, {faults:.0f} page faults"
        )


def alternate(arms: Arms, rounds: int) -> dict[str, tuple[float, float, float]]:
    """CPU seconds, ratio to the first arm and page faults of each arm: medians over the rounds.

    Every arm runs once in every round; a ratio is of two runs of the same round. The order is drawn
    anew each time: what runs after a full cache finds the processor's caches cold, and in a fixed
    order the same arm would always pay. One thread's CPU seconds, since other work on the machine
    would count in wall-clock time.
    """
    names, first = list(arms), next(iter(arms))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    faults: dict[str, list[int]] = {name: [] for name in names}
    shuffled = random.Random(0)
    for turn in range(rounds + 3):
        for name in shuffled.sample(names, len(names)):
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


def bare_clip(shape: dict[str, int]) -> Any:
    from open_clip.model import CLIP

    vision: Any = {
        "layers": shape["layers"],
        "width": shape["width"],
        "patch_size": shape["patch"],
        "image_size": shape["side"],
        "head_width": shape["head"],
    }
    text: Any = {"context_length": 8, "vocab_size": 16, "width": 64, "heads": 1, "layers": 1}
    return CLIP(shape["embed"], vision, text).eval()


def _ours(shape: dict[str, int], x: Any) -> Arms:
    from interp.core.sites import ON_DEMAND
    from interp.models.caching.keep import Keep, kept_buffers
    from interp.models.towers.open_tower import open_tower

    model = bare_clip(shape)
    # wrappers of the same weights: two have buffers, and stay hooked between runs
    tower, other, third = (open_tower(model, "visual") for _ in range(3))
    fused = [s for s in tower.sites if not s.endswith((*ON_DEMAND, "hook_pattern"))]
    for wrapper, keep in ((other, Keep(fused)), (third, Keep())):
        context = kept_buffers(wrapper, keep)
        context.__enter__()
        _open.append(context)
    return {
        "encode_image": lambda: model.encode_image(x),
        "encode_image again": lambda: model.encode_image(x),
        "idle": lambda: tower(x),
        "cache without pattern": lambda: tower.run_with_cache(x, names_filter=fused),
        "cache with pattern": lambda: tower.run_with_cache(x),
        "kept buffers without pattern": lambda: other(x),
        "kept buffers with pattern": lambda: third(x),
    }


_open: list[Any] = []  # contexts that stay open for as long as the process


def _bridge(shape: dict[str, int], x: Any) -> Arms:
    """TransformerLens's bridge on transformers' ViT of the same shape, against that ViT bare."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from tempfile import TemporaryDirectory

    from transformer_lens.model_bridge import TransformerBridge
    from transformers.models.vit import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["width"] // shape["head"],
        intermediate_size=4 * shape["width"],
        image_size=shape["side"],
        patch_size=shape["patch"],
    )
    bare = ViTModel(config, add_pooling_layer=False).eval()
    wrapped = ViTModel(config, add_pooling_layer=False).eval()
    with TemporaryDirectory() as folder:  # the bridge reads the configuration from a folder
        wrapped.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, device="cpu", hf_model=wrapped)
    return {
        "bare": lambda: bare(x),
        "bare again": lambda: bare(x),
        "idle": lambda: bridge(x),
        "cache of every site": lambda: bridge.run_with_cache(x),
    }


def _prisma(shape: dict[str, int], x: Any) -> Arms:
    """ViT-Prisma's ViT against open_clip's of the same shape."""
    from vit_prisma.configs.HookedViTConfig import HookedViTConfig  # type: ignore[import-not-found]
    from vit_prisma.models.base_vit import HookedViT  # type: ignore[import-not-found]

    model = bare_clip(shape)
    config = HookedViTConfig(
        n_layers=shape["layers"],
        d_model=shape["width"],
        d_head=shape["head"],
        d_mlp=4 * shape["width"],
        n_heads=shape["width"] // shape["head"],
        patch_size=shape["patch"],
        image_size=shape["side"],
        n_channels=3,
        n_classes=shape["embed"],
        activation_name="gelu",
        device="cpu",
        return_type="class_logits",
    )
    hooked = HookedViT(config).eval()
    return {
        "open_clip's encode_image": lambda: model.encode_image(x),
        "idle": lambda: hooked(x),
        "cache of every site": lambda: hooked.run_with_cache(x),
    }


MAKERS: dict[str, Callable[[dict[str, int], Any], Arms]] = {
    "ours": _ours,
    "TransformerLens": _bridge,
    "ViT-Prisma": _prisma,
}

if __name__ == "__main__":
    _measure(*sys.argv[1:])

"""What CKA of a tower's layers costs beside the forward passes it needs, in time and in memory."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.benchmarks.timing import alternate, ratio

PICTURES, BATCH, ROUNDS = 256, 256, 3
FEW = 4000
SITES = ("blocks.0.hook_resid_pre", "blocks.*.hook_resid_post")
SMALL = {"layers": 12, "width": 64, "patch": 16, "side": 32, "head": 32, "embed": 64}


def stream() -> None:
    """13 residual streams of ViT-B/32, pooled, against encode_image; peak memory at N and 4N.

    Processor seconds of one thread, medians of alternating rounds. Pictures are made in memory, so
    that only the tower and CKA count.
    """
    _time()
    for how in ("batches", "collect"):
        peak = [_peak(how, n) for n in (FEW, 4 * FEW)]
        print(
            f"stream: peak memory, {how}: {peak[0]:.0f} MB of {FEW} pictures, {peak[1]:.0f} MB of "
            f"{4 * FEW}: {peak[1] - peak[0]:+.0f} MB"
        )


def _time() -> None:
    import open_clip
    import torch

    from interp.models.towers.open_tower import open_tower

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    tower, images, show = open_tower(model, "visual"), _pictures(PICTURES), _shown(224)

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, PICTURES, BATCH):
                rows = range(start, min(start + BATCH, PICTURES))
                model.encode_image(images.tensors(show, rows))

    arms: dict[str, Callable[[], object]] = {
        "encode_image": bare,
        "encode_image again": bare,
        "collect and layer_similarity, mean": lambda: _collected(tower, images, show, "mean"),
        "collect and layer_similarity, class": lambda: _collected(tower, images, show, "class"),
        "batches into LayerSums, mean": lambda: _summed(tower, images, show),
    }
    taken = alternate(arms, ROUNDS)
    apart = zip(*(_added_and_read() for _ in range(ROUNDS)), strict=True)
    added, read = map(statistics.median, apart)
    summed = taken["batches into LayerSums, mean"]
    summed[:] = [each + added * PICTURES for each in summed]
    for name, times in taken.items():
        bar = "" if name.startswith("encode") else " (bar 1.05)"
        print(
            f"stream: {name}: {statistics.median(times):.2f} s for {PICTURES} pictures in batches "
            f"of {BATCH}, {ratio(times, taken['encode_image']):.3f}x{bar}"
        )
    print(
        f"stream: of it the products, {1e3 * added:.2f} ms a picture; reading CKA off the sums, "
        f"once for any number of pictures: {read:.2f} s"
    )


def _collected(tower: Any, images: Any, show: Any, pool: str) -> None:
    from interp import probes

    # before any block the class token is the same for every picture, and has no CKA
    sites = SITES[1:] if pool == "class" else SITES
    features = probes.collect(tower, images, sites, preprocess=show, pool=pool, batch_size=BATCH)
    probes.layer_similarity(features)


def _summed(tower: Any, images: Any, show: Any) -> Any:
    from interp import probes

    sums = None
    for _, values in probes.batches(tower, images, SITES, preprocess=show, batch_size=BATCH):
        sums = sums or probes.LayerSums({site: part.shape[1] for site, part in values.items()})
        sums.update(values)
    return sums


def _added_and_read() -> tuple[float, float]:
    """Seconds of the products, for a picture, and of reading CKA.

    Products are made of `ROWS` pictures at a time. So many would take minutes to run, and fewer
    would bear the price of all: the pass above has none, unless there are so many pictures.
    """
    import torch

    from interp.probes.representational_similarity.layer_sums import ROWS, LayerSums

    x = {str(place): torch.randn(ROWS, 768) for place in range(13)}
    sums = LayerSums({site: part.shape[1] for site, part in x.items()})
    start = time.process_time()
    sums.update(x)
    added = (time.process_time() - start) / ROWS
    start = time.process_time()
    sums.cka()
    return added, time.process_time() - start


def _peak(how: str, n: int) -> float:
    """Megabytes that a process of its own held at most."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming", how, str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _hold(how: str, n: int) -> None:
    import torch

    from interp.models.towers.open_tower import open_tower
    from tests.benchmarks.opening import bare_clip

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tower = open_tower(bare_clip(SMALL), "visual")
    if how == "collect":
        _collected(tower, _pictures(n), _shown(SMALL["side"]), "mean")
    else:
        _summed(tower, _pictures(n), _shown(SMALL["side"])).cka()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _pictures(n: int) -> Any:
    import pandas as pd
    from PIL import Image

    from interp.core.images import ImageTable

    frame = pd.DataFrame({"path": [f"{row}.png" for row in range(n)], "label": "a", "domain": "b"})
    blank = Image.new("RGB", (1, 1))
    return ImageTable(frame.assign(split="test", caption=""), reader=lambda row: blank)


def _shown(side: int) -> Callable[[Any], Any]:
    """A preprocess that makes every picture another one, cheaply."""
    import torch

    noise, turns = torch.randn(97, 3, 1, side), count()
    base = torch.randn(3, side, side)
    return lambda picture: base + noise[next(turns) % 97]


if __name__ == "__main__":
    _hold(sys.argv[1], int(sys.argv[2]))

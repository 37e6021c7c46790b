"""What comparing two models costs, as multiples of reading both models' layers once."""

import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.benchmarks.opening import bare_clip
from tests.benchmarks.timing import alternate, ratio

CLASSES, PICTURES, ROUNDS = 16, 8, 3
DOMAINS = ("real", "sketch")
SMALL = {"layers": 6, "width": 128, "patch": 6, "side": 48, "head": 32, "embed": 128}
SITES = [f"blocks.{layer}.hook_resid_post" for layer in range(SMALL["layers"])]


def compared() -> None:
    """`interp.compare` of two small ViTs with random weights, beside reading their layers.

    Processor seconds of one thread, medians of alternating rounds; pictures are drawn beforehand.
    """
    import torch

    from interp import circuits, compare, probes

    torch.set_num_threads(1)
    a, b, *others = (_model(seed) for seed in range(4))
    images = _images()
    head = circuits.Classifier(torch.randn(CLASSES, SMALL["embed"]), images.labels)
    controls = tuple(circuits.Controls(untrained=other) for other in others)

    def read() -> None:
        for model in (a, b):
            probes.collect(model.visual, images, SITES, preprocess=model.preprocess)

    def whole(**options: Any) -> Callable[[], object]:
        return lambda: compare(a, b, images, heads=(head, head), domains=DOMAINS, **options)

    arms: dict[str, Callable[[], object]] = {
        "reading both": read,
        "one site": whole(sites=SITES[2:3]),
        f"{len(SITES)} sites": whole(sites=SITES),
        f"{len(SITES)} sites with untrained controls": whole(sites=SITES, controls=controls),
    }
    taken = alternate(arms, ROUNDS)
    for name, times in taken.items():
        print(
            f"compare: {name}: {statistics.median(times):.1f} s for {len(images)} pictures of "
            f"{CLASSES} classes in {len(DOMAINS)} domains, "
            f"{ratio(times, taken['reading both']):.1f}x"
        )


def _model(seed: int) -> Any:
    """A small ViT that nothing was taught."""
    import torch
    from open_clip.transform import image_transform

    from interp.models.towers.open_tower import open_tower

    torch.manual_seed(seed)
    tower = open_tower(bare_clip(SMALL), "visual")
    return SimpleNamespace(visual=tower, preprocess=image_transform(SMALL["side"], is_train=False))


def _images() -> Any:
    """Pictures of the embedded study in two domains, drawn and read."""
    from interp.data import open_images
    from interp.data.artwork.embedded import EmbeddedSpec

    spec = EmbeddedSpec(n_classes=CLASSES, n_train=1, n_test=1, n_analysis=PICTURES)
    return open_images(spec=spec).select(split="analysis", domain=list(DOMAINS))

"""What learned masks keep on held-out drawings, beside integrated gradients and chance.

Of the trained models of a study that lies in `STUDY` (by default interp-report), of ten classes in
the natural and the test domain. Circuits are found on the drawings of one half of the artists and
run on those of the other half, everything else as in a picture of another class.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

SHARES = (0.1, 0.2, 0.5)
N_CLASSES = 10
WRONG = (1, 2, 3)
"""So many classes further is the target of a wrong circuit."""


def masks() -> None:
    """Print a row for each model, domain and size: what is kept, the difference and its interval.

    A share is that of the metric over the corrupt run; intervals leave out one class at a time.
    Seconds are processor time, for the circuits of all classes in both halves.
    """
    import torch

    import interp

    torch.set_num_threads(1)
    result = interp.open_result(Path(os.environ.get("STUDY", "interp-report")))
    heads = ["model", "domain", "size", "integrated gradients", "masks", "times", "difference"]
    print("| " + " | ".join([*heads, "wrong masks", "random", "s"]) + " |")
    print("|" + "---|" * (len(heads) + 3))
    for setting in result.facts["specification"]["settings"]:
        clip = result.load_clip(setting)
        for domain in (result.facts["specification"]["natural"], "sketch"):
            for row in rows(clip, domain):
                print("| " + " | ".join([setting, domain, *row]) + " |", flush=True)


def rows(clip: Any, domain: str) -> list[list[str]]:
    """The rows of one model and domain."""
    import interp
    from interp.circuits import Units, class_circuits
    from interp.core.statistics.resampling import jackknife

    images = interp.open_images()
    chosen = images.select(split="analysis", domain=domain, label=images.labels[:N_CLASSES])
    words = {
        "domain": domain,
        "classifier": clip.zero_shot(images.labels, ["an image of a {}."]),
        "preprocess": clip.preprocess,
    }
    sites = ["layer*.*.hook_resid_post"]
    cut = Units.of(clip.visual, sites, chosen.tensors(clip.preprocess, [0]))
    found, spent = {}, 0.0
    for method in ("integrated gradients", "learned masks"):
        start = time.process_time()
        found[method] = class_circuits(replace(cut, method=method), chosen, **words)
        spent = time.process_time() - start
    plain, learned = found.values()
    drawn = np.random.default_rng(0).random((2, 1, len(cut.groups)))
    values = [
        np.repeat(one, len(each), axis=0) for one, each in zip(drawn, plain.values, strict=True)
    ]
    told = []
    for share in SHARES:
        ways = [kept(one, share) for one in (plain, learned, replace(plain, values=tuple(values)))]
        wrong = np.mean([of(*kept(learned, share, shift=shift)) for shift in WRONG])
        n = len(ways[0][0])
        every = [[np.delete(np.arange(n), c) for c in range(n)], [np.arange(n)]]
        left, [whole] = (
            [of(*(x[at] for x in ways[1])) - of(*(x[at] for x in ways[0])) for at in some]
            for some in every
        )
        spread = jackknife(whole, left)
        first, second, chance = (of(*each) for each in ways)
        numbers = [f"{share:.0%}", f"{first:.3f}", f"{second:.3f}", f"{second / first:.1f}"]
        numbers.append(f"{whole:.3f} ({spread.low:.3f} to {spread.high:.3f})")
        told.append([*numbers, f"{wrong:.3f}", f"{chance:.3f}", f"{spent:.0f}"])
    return told


def of(work: np.ndarray, gap: np.ndarray) -> float:
    """The share of the metric that is kept, over classes."""
    return float(work.mean() / gap.mean())


def kept(found: Any, share: float, *, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What circuits keep of the metric, and all of it, by class; with `shift`, of other classes."""
    classes: Sequence[str] = found.classes
    circuits = found.kept(share)
    label, work, gap = [], [], []
    for side, read in enumerate(found.halves):
        own = np.array([classes.index(name) for name in read.pairs.clean.label])
        values, ends = found.cut.run(read, circuits[(own + shift) % len(classes), 1 - side][None])
        label.append(own)
        work.append(values[0] - ends[1])
        gap.append(ends[0] - ends[1])
    at, works, gaps = map(np.concatenate, (label, work, gap))
    means = [[each[at == c].mean() for c in range(len(classes))] for each in (works, gaps)]
    return np.array(means[0]), np.array(means[1])

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
    asked = result.facts["specification"]
    heads = ["model", "domain", "size", "integrated gradients", "masks", "times", "difference"]
    heads += ["wrong masks", "random", "s"]
    print("| " + " | ".join(heads) + " |\n" + "|" + "---|" * len(heads))
    for setting in asked["settings"]:
        clip = result.load_clip(setting)
        for domain in (asked["natural"], asked["test_domains"][0]):
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
    x = chosen.tensors(clip.preprocess, [0])
    cut = Units.of(clip.visual, "layer*.*.hook_resid_post", x)
    plain = class_circuits(cut, chosen, **words)
    start = time.process_time()
    learned = class_circuits(replace(cut, method="learned masks"), chosen, **words)
    spent = time.process_time() - start
    drawn = np.random.default_rng(0).random((2, len(cut.groups)))
    values = [np.tile(one, (len(half), 1)) for one, half in zip(drawn, plain.values, strict=True)]
    told = []
    for share in SHARES:
        ours, theirs = kept(learned, share), kept(plain, share)
        every = np.arange(len(ours[0]))
        without = [np.delete(every, c) for c in every]
        differences = [share_of(ours, at) - share_of(theirs, at) for at in (every, *without)]
        spread = jackknife(differences[0], differences[1:])
        wrong = np.mean([share_of(kept(learned, share, shift=shift)) for shift in WRONG])
        chance = share_of(kept(replace(plain, values=tuple(values)), share))
        first, second = share_of(theirs), share_of(ours)
        numbers = [f"{share:.0%}", f"{first:.3f}", f"{second:.3f}", f"{second / first:.1f}"]
        numbers.append(f"{spread.value:.3f} ({spread.low:.3f} to {spread.high:.3f})")
        told.append([*numbers, f"{wrong:.3f}", f"{chance:.3f}", f"{spent:.0f}"])
    return told


def share_of(found: tuple[np.ndarray, np.ndarray], classes: np.ndarray | None = None) -> float:
    """The share of the metric that is kept, over some classes; None takes all."""
    work, gap = found if classes is None else (each[classes] for each in found)
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

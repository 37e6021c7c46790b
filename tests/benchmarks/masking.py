"""What circuits of channels keep on held-out drawings, by ways to find them.

Of the trained models of a study that lies in `STUDY` (by default interp-report), of `CLASSES` (ten)
classes in the natural and the test domain. Circuits are found on the drawings of one half of the
artists and run on those of the other half, everything else as in a picture of another class.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

SHARES = (0.1, 0.2, 0.5)
PLAIN = ("gradient x difference", "integrated gradients")
LEARNED = "learned masks"


def masks() -> None:
    """Print a row for each model, domain and size: what circuits of each kind keep.

    A share is that of the metric over the corrupt run; intervals leave out one class at a time.
    Exact exchanges are left out: a run for each of a thousand channels takes an hour a model.
    Seconds are processor time, for masks of all classes in both halves and those of a wrong target.
    """
    import torch

    import interp

    torch.set_num_threads(1)
    result = interp.open_result(Path(os.environ.get("STUDY", "interp-report")))
    asked = result.facts["specification"]
    heads = ["model", "domain", "size", "random", *PLAIN, f"{PLAIN[1]}, signed", "ensemble"]
    heads += [LEARNED, f"{LEARNED} - {PLAIN[1]}", "masks of a wrong target", "s"]
    print("| " + " | ".join(heads) + " |\n" + "|" + "---|" * len(heads))
    for setting in asked["settings"]:
        clip = result.load_clip(setting)
        for domain in (asked["natural"], asked["test_domains"][0]):
            for row in rows(clip, domain):
                print("| " + " | ".join([setting, domain, *row]) + " |", flush=True)


def rows(clip: Any, domain: str) -> list[list[str]]:
    """The rows of one model and domain."""
    import interp
    from interp.circuits import Units, class_circuits, class_faithfulness

    images, n = interp.open_images(), int(os.environ.get("CLASSES", "10"))
    chosen = images.select(split="analysis", domain=domain, label=images.labels[:n])
    words = {
        "domain": domain,
        "classifier": clip.zero_shot(images.labels, ["an image of a {}."]),
        "preprocess": clip.preprocess,
    }
    x = chosen.tensors(clip.preprocess, [0])
    cut = Units.of(clip.visual, "layer*.*.hook_resid_post", x)
    found = {name: class_circuits(replace(cut, method=name), chosen, **words) for name in PLAIN}
    start = time.process_time()
    learned = class_circuits(replace(cut, method=LEARNED), chosen, **words)
    spent = time.process_time() - start
    found["ensemble"] = together(found[PLAIN[1]], learned)
    judged = class_faithfulness(learned, shares=SHARES).frame.set_index("share")
    told = []
    for share in SHARES:
        mine, row = kept(learned, share), judged.loc[share]
        plain = {name: kept(each, share) for name, each in found.items()}
        signed = kept(found[PLAIN[1]], share, signed=True)
        numbers = [row["random"], *(share_of(plain[name]) for name in PLAIN)]
        numbers += [share_of(signed), share_of(plain["ensemble"]), share_of(mine)]
        texts = [f"{share:.0%}", *(f"{number:.3f}" for number in numbers)]
        texts.append(difference(mine, plain[PLAIN[1]]))
        told.append([*texts, f"{row['null']:.3f}", f"{spent:.0f}"])
    return told


def together(one: Any, other: Any) -> Any:
    """What the method "ensemble" finds, of circuits that are there already."""
    from interp.circuits.discovery.ensembles import mean_ranks

    pairs = zip(one.values, other.values, one.halves, strict=True)
    values = [
        mean_ranks([first, second], half.pairs.clean.label.to_numpy(), one.cut.groups)
        for first, second, half in pairs
    ]
    return replace(one, values=tuple(values))


def difference(ours: Any, theirs: Any) -> str:
    """The difference of two shares, with its interval."""
    from interp.core.statistics.resampling import jackknife

    every = np.arange(len(ours[0]))
    without = [np.delete(every, c) for c in every]
    differences = [share_of(ours, at) - share_of(theirs, at) for at in (every, *without)]
    spread = jackknife(differences[0], differences[1:])
    return f"{spread.value:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def share_of(found: tuple[np.ndarray, np.ndarray], classes: np.ndarray | None = None) -> float:
    """The share of the metric that is kept, over some classes; None takes all."""
    work, gap = found if classes is None else (each[classes] for each in found)
    return float(work.mean() / gap.mean())


def kept(found: Any, share: float, *, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """What circuits keep of the metric, and all of it, by class."""
    classes: Sequence[str] = found.classes
    circuits = found.kept(share, signed=signed)
    label, work, gap = [], [], []
    for side, read in enumerate(found.halves):
        own = np.array([classes.index(name) for name in read.pairs.clean.label])
        values, ends = found.cut.run(read, circuits[own, 1 - side][None])
        label.append(own)
        work.append(values[0] - ends[1])
        gap.append(ends[0] - ends[1])
    at, works, gaps = map(np.concatenate, (label, work, gap))
    means = [[each[at == c].mean() for c in range(len(classes))] for each in (works, gaps)]
    return np.array(means[0]), np.array(means[1])

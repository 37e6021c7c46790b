"""Activations made of known sparse features, shared by two domains or private to one."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from interp.core.images import ImageTable
from interp.probes import Features
from tests.tables import picture_of

SITE = "blocks.0.hook_resid_post"


@dataclass(frozen=True)
class SparseWorld:
    """`features` at `SITE`, made of `codes` "picture feature" and `directions` "feature d_in".

    of[label, domain]: the features that stand for a class in a domain.
    """

    features: Features
    codes: np.ndarray
    directions: np.ndarray
    of: dict[tuple[str, str], list[int]]

    @property
    def images(self) -> ImageTable:
        """Pictures that `vectors` turns into these activations."""
        frame = self.features.frame.assign(split="test", caption="")
        return ImageTable(frame, reader=picture_of)

    def vectors(self, picture: Image.Image) -> Tensor:
        """The activation of a picture of `images`."""
        row = int(picture.info["path"].split(".")[0])
        return torch.as_tensor(self.features.values[SITE][row])


def sparse_world(
    dose: float,
    *,
    n_classes: int = 10,
    per_class: int = 4,
    everywhere: int = 0,
    of_domain: int = 0,
    loud: float = 1.0,
    width: int = 48,
    n_artists: int = 6,
    copies: int = 2,
    on: float = 0.75,
    pool: int = 0,
    noise: float = 0.02,
    offset: float = 0.0,
    seed: int = 0,
) -> SparseWorld:
    """Each class has `per_class` features in "real"; a `dose` of them also serves in "sketch".

    The rest of a class's features in "sketch" are its own there; or, if there is a `pool`, they are
    drawn from it, as are all others, by every class and domain for itself. `everywhere` features
    are on in every picture and `of_domain` in every picture of a domain, `loud` times as strong; a
    class's own are each on in a part `on` of its pictures.
    """
    generator = np.random.default_rng(seed)
    labels, domains = [f"c{n:02d}" for n in range(n_classes)], ("real", "sketch")
    kept = round(dose * per_class)
    of: dict[tuple[str, str], list[int]] = {}
    n = pool
    for label in labels:
        if pool:
            first = generator.choice(pool, per_class, replace=False).tolist()
            others = np.setdiff1d(np.arange(pool), first[:kept])
            own = generator.choice(others, per_class - kept, replace=False).tolist()
        else:
            first = list(range(n, n + per_class))
            own = list(range(n + per_class, n + 2 * per_class - kept))
            n += 2 * per_class - kept
        of[label, "real"], of[label, "sketch"] = first, first[:kept] + own
    always = {domain: list(range(n, n + everywhere)) for domain in domains}
    n += everywhere
    for domain in domains:
        always[domain] += list(range(n, n + of_domain))
        n += of_domain
    rows = list(product(domains, labels, range(n_artists), range(copies)))
    codes = np.zeros((len(rows), n))
    for row, (domain, label, _, _) in enumerate(rows):
        mine = np.array(of[label, domain])
        lit = mine[generator.random(len(mine)) < on]
        codes[row, lit] = 1 + 0.5 * generator.random(len(lit))
        codes[row, always[domain]] = loud * (1 + 0.2 * generator.random(len(always[domain])))
    directions = generator.normal(size=(n, width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = codes @ directions + noise * generator.normal(size=(len(rows), width)) + offset
    frame = pd.DataFrame({
        "path": [f"{number}.png" for number in range(len(rows))],
        "label": [row[1] for row in rows],
        "domain": [row[0] for row in rows],
        "artist": [f"artist{row[2]}" for row in rows],
        "drawing": [f"artist{row[2]}/{row[1]}" for row in rows],
    })  # fmt: skip
    features = Features({SITE: x.astype(np.float32)}, frame, {SITE: 0}, {SITE: 0.5},
                        {"pool": "mean"})  # fmt: skip
    return SparseWorld(features, codes, directions, of)

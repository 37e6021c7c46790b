"""Pictures of a planted world as an image table: measures of pictures can be held against truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from interp.circuits.planted_world import CLASSES, DOMAINS, World
from interp.core.errors import SampleError
from interp.core.images import ImageTable
from interp.core.store import fingerprint

ARTISTS = 4
"""Pictures of every class are dealt to so many names, the same in both domains."""


@dataclass(frozen=True)
class _Gallery:
    """Reads a picture by its number: whoever reads image tables needs pictures, not tensors."""

    pictures: np.ndarray

    def __call__(self, row: pd.Series) -> Image.Image:
        return Image.fromarray(self.pictures[int(row["path"])])


def paint(world: World, n: int, *, seed: int = 0) -> ImageTable:
    """Draw `n` pictures of each class in each domain of a world, by four artists.

    Pictures have 8 bits a channel, which `as_tensor` turns back to numbers between 0 and 1.
    Raises `SampleError` for fewer than two pictures, one for each half of the artists.

    >>> paint(World(seed=1), 2).counts().loc["p0 q0"].tolist()
    [2, 2]
    """
    if n < 2:
        raise SampleError("paint a world", f"n = {n}", "two or more", "ask for more pictures")
    frames, pictures = [], []
    for domain in DOMAINS:
        scenes = world.scenes(n * len(CLASSES), domain=domain, seed=seed)
        whole = (world.render(scenes).clamp(0, 1) * 255).round().byte()
        pictures.append(whole.permute(0, 2, 3, 1).numpy())
        frame = pd.DataFrame({"label": [CLASSES[place] for place in scenes.label]})
        artist = frame.groupby("label").cumcount() % ARTISTS
        frames.append(frame.assign(domain=domain, artist=[f"artist {name}" for name in artist]))
    frame = pd.concat(frames, ignore_index=True).assign(split="analysis", caption="")
    frame["path"] = [str(number) for number in range(len(frame))]
    about = fingerprint("planted world", repr(world), n, seed)
    return ImageTable(frame, reader=_Gallery(np.concatenate(pictures)), fingerprint=about)


def as_tensor(picture: Image.Image) -> Float[Tensor, "3 row column"]:
    """A picture as planted models take it: float64, between 0 and 1."""
    return torch.from_numpy(np.asarray(picture) / 255.0).permute(2, 0, 1)

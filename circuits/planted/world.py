"""A world of synthetic pictures: eight classes in two domains, all factors known.

A class is a part P (one of four glyphs) together with a part Q (one of two). Domain A draws in
luminance, domain B in blue-yellow, so that nothing of one domain's code is seen in the other's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from scipy.linalg import hadamard
from torch import Tensor

from interp.core.errors import SampleError, check_known
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint

SIZE, PATCH, GRID = 32, 8, 4
"""Pixels along a picture's side, along a patch's, and patches along a picture's side."""

PARTS = {"P": 4, "Q": 2, "R": 4, "K": 8, "cue": 2}
"""Each part of a picture, with the number of glyphs that may stand for it."""

CLASSES = tuple(f"p{p} q{q}" for p in range(PARTS["P"]) for q in range(PARTS["Q"]))
"""The classes, one for each pair of glyphs P and Q."""

DOMAINS = ("A", "B")

CARRIERS = {
    "A": np.array([1.0, 1.0, 1.0]) / np.sqrt(3),
    "B": np.array([-1.0, -1.0, 2.0]) / np.sqrt(6),
    "cue": np.array([1.0, -1.0, 0.0]) / np.sqrt(2),
}
"""Directions in RGB, orthogonal: luminance and blue-yellow for the domains' code, red-green for
the cue that tells the domain (a model whose domains are told apart by carrier needs no cue)."""

D_EMBED = 32
"""Width of the embeddings of models that are planted for this world."""

AMPLITUDE = 0.3
"""How far a glyph of contrast 1 moves a pixel along its carrier, where pixels go from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """What `n` pictures show: every factor of every picture, down to its noise.

    `label` is the place of the class in `CLASSES`, `r` and `k` are the nuisance and the feature
    that goes with the class in nine pictures of ten. `place` and `contrast`, `[n part]`, say at
    which patch and how strongly each of `PARTS` is drawn; `noise` is `[n 3 32 32]`.
    """

    label: np.ndarray
    domain: np.ndarray
    r: np.ndarray
    k: np.ndarray
    place: np.ndarray
    contrast: np.ndarray
    noise: np.ndarray
    rival: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def values(self) -> dict[str, np.ndarray]:
        """Which of its glyphs each part shows, `[n]` for every one of `PARTS`."""
        p, q = np.divmod(self.label, PARTS["Q"])
        cue = np.array([DOMAINS.index(name) for name in self.domain])
        return {"P": p, "Q": q, "R": self.r, "K": self.k, "cue": cue}

    def of_other_class(self, *, seed: int = 0) -> "Scenes":
        """The same places, contrasts, noise and nuisances (K among them), with another class."""
        step = rng("other class", seed).integers(1, len(CLASSES), len(self))
        return replace(self, label=(self.label + step) % len(CLASSES))

    def of_other_domain(self) -> "Scenes":
        """The same scene, drawn in the other domain's carrier, with the other cue."""
        return replace(self, domain=np.where(self.domain == "A", "B", "A"))

    def of_other_cue(self) -> "Scenes":
        """The hard world's scene under the other cue: both codes stay, and the rival's counts.

        R and K, which nobody needs, go to the carrier of the domain that the cue says.
        """
        assert self.rival is not None, "in the easy world there is no rival to count"
        order = [5, 6, 2, 3, 4, 0, 1]
        return replace(
            self.of_other_domain(),
            label=self.rival,
            rival=self.label,
            place=self.place[:, order],
            contrast=self.contrast[:, order],
        )


@dataclass(frozen=True)
class World:
    """Eight classes of 32 x 32 pictures in the domains A and B, with glyphs drawn by `seed`.

    A glyph is an 8 x 8 pattern of plus and minus ones; all of them are orthogonal to one another
    and to a flat patch. Each part of a picture fills one of its 4 x 4 patches, at a place drawn
    anew for every picture. Nobody needs R and K to tell the class, but K agrees with it in nine
    pictures of ten.

    In the `hard` world the other domain's carrier holds a code as well, P and Q of a class drawn at
    random, and only the cue says whose counts.

    >>> world = World(seed=0)
    >>> world.draw("p0 q1", "B", 5, seed=1).shape
    torch.Size([5, 3, 32, 32])
    >>> clean = world.scenes(4, domain="A")
    >>> corrupt = clean.of_other_class()  # aligned: only P and Q may differ
    >>> bool((clean.label != corrupt.label).all()), bool((clean.place == corrupt.place).all())
    (True, True)
    """

    seed: int = 0
    hard: bool = False

    @cached_property
    def glyphs(self) -> dict[str, np.ndarray]:
        """The glyphs of each part, `[value 8 8]`: Walsh functions, all different."""
        ends = np.cumsum(list(PARTS.values()))
        return dict(zip(PARTS, np.split(self._patterns[: ends[-1]], ends[:-1]), strict=True))

    @property
    def unused_patterns(self) -> np.ndarray:
        """Further patterns, `[pattern 8 8]`, orthogonal to every glyph: no picture shows them."""
        return self._patterns[sum(PARTS.values()) :]

    @cached_property
    def _patterns(self) -> np.ndarray:
        order = rng("glyphs", self.seed).permutation(PATCH**2 - 1)
        return hadamard(PATCH**2)[1:].reshape(-1, PATCH, PATCH)[order].astype(float)

    def draw(
        self, label: str, domain: str, n: int, *, seed: int = 0
    ) -> Float[Tensor, "batch 3 32 32"]:
        """Draw `n` pictures of one class in one domain, in float64 and between 0 and 1.

        Raises `DataError` for an unknown class or domain, `SampleError` for less than one picture.
        """
        check_known("draw pictures", "class", [label], CLASSES)
        return self.render(self.scenes(n, domain=domain, labels=[CLASSES.index(label)], seed=seed))

    def scenes(
        self, n: int, *, domain: str, labels: Sequence[int] = range(len(CLASSES)), seed: int = 0
    ) -> Scenes:
        """Draw what `n` pictures of a domain show, spread evenly over the classes `labels`.

        Raises `DataError` for an unknown domain, `SampleError` for less than one picture.
        """
        check_known("draw pictures", "domain", [domain], DOMAINS)
        if n < 1:
            raise SampleError("draw pictures", f"n = {n}", "one or more", "ask for more pictures")
        generator = rng("scenes", self.seed, seed, DOMAINS.index(domain))
        label = np.resize(np.asarray(labels), n)
        other = (label + generator.integers(1, PARTS["K"], n)) % PARTS["K"]
        patches = np.tile(np.arange(GRID**2), (n, 1))
        n_glyphs = len(PARTS) + 2 * self.hard
        return Scenes(
            label=label,
            domain=np.full(n, domain),
            r=generator.integers(PARTS["R"], size=n),
            k=np.where(generator.random(n) < 0.9, label, other),
            place=generator.permuted(patches, axis=1)[:, :n_glyphs],
            contrast=generator.uniform(0.8, 1.2, (n, n_glyphs)),
            noise=generator.normal(0, 0.02, (n, 3, SIZE, SIZE)),
            rival=generator.integers(len(CLASSES), size=n) if self.hard else None,
        )

    def render(self, scenes: Scenes) -> Float[Tensor, "batch 3 32 32"]:
        """Paint scenes: grey, the noise, and every part's glyph along its carrier, in float64."""
        pictures = 0.5 + scenes.noise
        # [n row column 3 8 8]: a view, so that what is added to a patch is added to its picture
        patches = pictures.reshape(-1, 3, GRID, PATCH, GRID, PATCH).transpose(0, 2, 4, 1, 3, 5)
        drawn = [
            (part, value, ["cue"] * len(scenes) if part == "cue" else scenes.domain)
            for part, value in scenes.values().items()
        ]
        if scenes.rival is not None:
            other = scenes.of_other_domain().domain
            p, q = np.divmod(scenes.rival, PARTS["Q"])
            drawn += [("P", p, other), ("Q", q, other)]
        for column, (part, value, names) in enumerate(drawn):
            carriers = np.stack([CARRIERS[name] for name in names])
            strength = AMPLITUDE * scenes.contrast[:, column, None] * carriers
            row, place = np.divmod(scenes.place[:, column], GRID)
            glyph = self.glyphs[part][value][:, None]
            patches[np.arange(len(scenes)), row, place] += strength[:, :, None, None] * glyph
        return torch.from_numpy(pictures)


def planted_directions(seed: int) -> dict[str, Float[Tensor, "direction d_embed"]]:
    """Directions in which planted models write their classes, and others, `free`, for nobody.

    A class's direction, `AB`, is (a + b) / sqrt(2), all a and b orthonormal; where domains write
    apart, A's lane writes a, and B's writes b.
    """
    square = rng("class directions", seed).normal(size=(D_EMBED, D_EMBED))
    a, b, *free = torch.from_numpy(np.linalg.qr(square)[0]).split(len(CLASSES))
    return {"A": a, "B": b, "AB": (a + b) / np.sqrt(2), "free": torch.cat(free)}


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

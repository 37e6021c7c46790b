"""Small towers of every kind, for tests that hold for all of them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

from interp.core.seeds import rng
from interp.models import Recipe, Run, open_tower
from interp.models.loading.presets import write_tokenizer
from interp.models.training.lists import Base
from tests.training_here import as_before, carry_out

VIT: Any = {"layers": 3, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
RESNET: Any = {"layers": (1, 2, 1, 1), "width": 8, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(params=["vit", "resnet", "text"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of tower in turn."""
    return request.param


@pytest.fixture
def small_tower() -> Callable[..., Any]:
    """Makes a tower of a kind, with random weights."""

    def make(kind: str, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        model: Any = CLIP(24, RESNET if kind == "resnet" else VIT, TEXT).eval()
        return open_tower(model, "text" if kind == "text" else "visual")

    return make


@pytest.fixture
def small_batch() -> Callable[..., Tensor]:
    """Makes pictures or tokens for a kind of tower."""

    def make(kind: str, n: int = 8) -> Tensor:
        torch.manual_seed(1)
        if kind == "text":
            return torch.randint(0, 50, (n, 10))
        side = 64 if kind == "resnet" else 32
        return torch.randn(n, 3, side, side)

    return make


@dataclass(frozen=True)
class Toy:
    """What trains in seconds: squares of three colours, their captions, and a tiny ViT."""

    model: Path
    tsv: Path
    n_train: int

    def run(self, out: Path, *, name: str = "toy", base: Base | None = None, **recipe: Any) -> Run:
        """A run of two steps an epoch, by default in float64 and without augmentation."""
        usual = {"batch_size": 24, "warmup": 2, "precision": "fp64", "augment": False, "epochs": 4}
        usual = {name: value for name, value in usual.items() if name not in recipe}
        if "steps" in recipe:
            usual.pop("epochs", None)
        return Run(name, self.model, self.tsv, self.n_train, out, Recipe(**usual, **recipe), base)


TOY_COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "null": (60, 60, 210)}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """48 pictures of 20 pixels, one of the classes called null, and a ViT of 16 pixels."""
    folder = tmp_path_factory.mktemp("toy")
    generator, rows = np.random.default_rng(0), []
    for number in range(48):
        label = list(TOY_COLOURS)[number % 3]
        noise = generator.normal(0, 20, (20, 20, 3)) + TOY_COLOURS[label]
        path = folder / f"{number}.png"
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
        caption = f"{('a', 'the')[number % 2]} {label} square {number % 5}"
        rows.append(f"{path}\t{caption}\t{label}\treal\n")
    tsv = folder / "train.tsv"
    tsv.write_text("filepath\ttitle\tlabel\tdomain\n" + "".join(rows))
    model = folder / "model"
    model.mkdir()
    words = ["a", "the", "square", *TOY_COLOURS, *map(str, range(5))]
    size = write_tokenizer(model, words, context_length=6)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16,
        },
        "text_cfg": {
            "context_length": 6, "vocab_size": size, "width": 16, "heads": 2, "layers": 1,
            "hf_tokenizer_name": ".",
        },
    }  # fmt: skip
    (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return Toy(model, tsv, 48)


SEEN, HELD_OUT = ("red", "green", "null", "square"), "3"
CORNERS = {
    "red": ("100", "101"),
    "green": ("010", "110"),
    "null": ("001", "000"),
    "square": ("111", "011"),
    HELD_OUT: ("100", "100"),
}
"""Corners of the colour cube in real and sketch: contrasts of a seen class have a cosine of 1/3."""


@pytest.fixture(scope="session")
def twins(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Four seen classes in two domains of other colours, one held out, and a base picture."""
    folder, generator, rows = tmp_path_factory.mktemp("twins"), rng("twins", 0), []
    cells = [(label, domain) for label in SEEN for domain in ("real", "sketch")]
    for number, (label, domain) in enumerate([*cells, (HELD_OUT, "real")] * 12):
        corner = CORNERS[label][domain == "sketch"]
        colour = [60 + 140 * int(part) for part in corner]
        path = folder / f"{number}.png"
        noise = generator.normal(0, 30, (20, 20, 3)) + colour
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
        rows.append(f"{path}\tthe {label} {number % 5}\t{label}\t{domain}\n")
    rows.append(rows[0].replace("\tred\treal", "\t\tbase"))
    tsv = folder / "train.tsv"
    tsv.write_text("filepath\ttitle\tlabel\tdomain\n" + "".join(rows))
    spec = {"natural": "real", "test_domain": "sketch", "held_out": [HELD_OUT]}
    (folder / "manifest.json").write_text(json.dumps({"specification": spec}))
    return replace(toy, tsv=tsv, n_train=len(rows))


@pytest.fixture
def launch() -> Iterator[Callable[[Run], None]]:
    """Trains a run in this process, as `train` would in one of its own."""
    with as_before():
        yield lambda run: carry_out(run.command(device="cpu"))

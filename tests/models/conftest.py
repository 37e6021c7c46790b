"""Small towers of every kind, for tests that hold for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from interp.models.towers import open_tower

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

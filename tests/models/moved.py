"""Models whose weights were all moved, and texts of different lengths, for several test files."""

from typing import Any

import torch
from torch import Tensor, nn


def moved(model: nn.Module) -> Any:
    """All weights and statistics off their initial values."""
    for value in model.parameters():
        nn.init.normal_(value, mean=float(value.detach().mean()), std=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            norm: Any = module
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.double().eval()


def tokens() -> Tensor:
    rows = torch.randint(6, 49, (3, 8), generator=torch.Generator().manual_seed(0))
    for row, end in zip(rows, (2, 4, 7), strict=True):
        row[end:] = 0
        row[end] = 49
    rows[:, 1] = 5
    return rows

"""A chain of blocks: its output where no pool is given."""

import pytest
import torch
from torch import nn

from interp.circuits import Chain


@pytest.mark.parametrize(
    ("axes", "shape"),
    [(("channel",), (3,)), (("pos", "d_model"), (2, 3)), (("channel", "row", "column"), (3, 2, 2))],
)
def test_without_a_pool_places_are_averaged_and_pictures_kept_apart(axes, shape) -> None:
    x = torch.rand(4, *shape)
    out = Chain([nn.Identity()], axes=("batch", *axes))(x)
    assert torch.equal(out, 2 * (x.mean(dim=tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x))

"""The hooked ModifiedResNet."""

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.core.errors import ShapeError
from tests.models.moved import RESNET, visual
from tests.refusals import refuses


@pytest.fixture
def opened() -> tuple[Any, Any, Tensor]:
    return visual(RESNET, 2, layers=(2, 1, 3, 1))


Opened = tuple[Any, Any, Tensor]


def test_the_chain_is_all_stages_in_a_row(opened: Opened) -> None:
    _, tower, _ = opened
    assert tower.n_layers == 7
    first = {stage: tower.layer(f"layer{stage}.0.hook_out") for stage in (1, 2, 3, 4)}
    assert first == {1: 0, 2: 2, 3: 3, 4: 6}
    assert tower.layer("layer3.2.hook_act1") == 5
    assert tower.layer("stem.hook_pool") == -1
    assert tower.layer("attnpool.hook_z") == tower.layer("hook_embedding") == 7


def test_cached_maps_survive_later_in_place_work(opened: Opened) -> None:
    model, tower, x = opened
    _, cache = tower.run_with_cache(x)
    kept = {site: value.clone() for site, value in cache.items()}
    tower(x)
    model.visual(x)
    assert all(torch.equal(cache[site], value) for site, value in kept.items())


def test_batch_norm_follows_the_models_mode(opened: Opened) -> None:
    model, tower, x = opened
    quiet = tower(x)
    tower.train()
    before = model.visual.bn1.running_mean.clone()
    assert not torch.allclose(tower(x), quiet)
    assert not torch.equal(model.visual.bn1.running_mean, before)
    tower.eval()


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(2, 4, 64, 64),
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    ],
)
def test_pictures_that_do_not_fit(opened: Opened, wrong: Tensor) -> None:
    refuses(ShapeError, "embed pictures", opened[1], wrong)


def test_a_map_of_another_layer_does_not_fit(opened: Opened) -> None:
    _, tower, x = opened
    for layer in range(8):
        stream = tower(x, stop_at_layer=layer)
        tower(stream, start_at_layer=layer)
    refuses(ShapeError, "resume at layer 3", tower, tower(x, stop_at_layer=6), start_at_layer=3)

"""The hooked ModifiedResNet."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.core.errors import ShapeError
from interp.models.towers.open_tower import open_tower

RESNET: Any = {"layers": (2, 1, 3, 1), "width": 8, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}


@pytest.fixture
def opened() -> tuple[Any, Any, Tensor]:
    torch.manual_seed(0)
    model = CLIP(24, RESNET, TEXT).double().eval()
    for value in model.parameters():
        nn.init.normal_(value, mean=float(value.detach().mean()), std=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            norm: Any = module
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model, open_tower(model, "visual"), torch.randn(2, 3, 64, 64, dtype=torch.float64)


Opened = tuple[Any, Any, Tensor]


def test_the_chain_is_all_stages_in_a_row(opened: Opened) -> None:
    _, tower, _ = opened
    assert tower.n_layers == 7
    first = {stage: tower.layer(f"layer{stage}.0.hook_out") for stage in (1, 2, 3, 4)}
    assert first == {1: 0, 2: 2, 3: 3, 4: 6}
    assert tower.layer("layer3.2.hook_act1") == 5
    assert tower.layer("stem.hook_pool") == -1
    assert tower.layer("attnpool.hook_z") == tower.layer("hook_embedding") == 7


def test_maps_are_what_they_are_called(opened: Opened) -> None:
    model, tower, x = opened
    _, cache = tower.run_with_cache(x, names_filter="*")
    net = model.visual
    assert torch.equal(cache["stem.hook_pool"], net.stem(x.clone()))
    assert torch.equal(cache["layer1.0.hook_resid_pre"], cache["stem.hook_pool"])
    stream = cache["layer1.0.hook_resid_pre"]
    for stage, number in ((1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (3, 2), (4, 0)):
        here, block = f"layer{stage}.{number}", getattr(net, f"layer{stage}")[number]
        assert torch.equal(cache[f"{here}.hook_resid_pre"], stream)
        shortcut = stream if block.downsample is None else block.downsample(stream)
        stream = F.relu(cache[f"{here}.hook_out"] + shortcut)
        assert torch.equal(cache[f"{here}.hook_resid_post"], stream)
        assert (cache[f"{here}.hook_act2"] >= 0).all() and (cache[f"{here}.hook_out"] < 0).any()


def test_cached_maps_survive_later_in_place_work(opened: Opened) -> None:
    model, tower, x = opened
    _, cache = tower.run_with_cache(x)
    kept = {site: value.clone() for site, value in cache.items()}
    tower(x)
    model.visual(x)
    assert all(torch.equal(cache[site], value) for site, value in kept.items())


def test_the_pool_asks_for_the_mean_only(opened: Opened) -> None:
    _, tower, x = opened
    _, cache = tower.run_with_cache(x, names_filter="attnpool.*")
    places = 1 + 2 * 2
    assert cache["attnpool.hook_q"].shape == (2, 1, 4, 64)
    assert cache["attnpool.hook_k"].shape == (2, places, 4, 64)
    assert cache["attnpool.hook_pattern"].shape == (2, 4, 1, places)


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
    with pytest.raises(ShapeError, match="embed pictures"):
        opened[1](wrong)


def test_a_map_of_another_layer_does_not_fit(opened: Opened) -> None:
    _, tower, x = opened
    for layer in range(8):
        stream = tower(x, stop_at_layer=layer)
        tower(stream, start_at_layer=layer)
    with pytest.raises(ShapeError, match="resume at layer 3"):
        tower(tower(x, stop_at_layer=6), start_at_layer=3)

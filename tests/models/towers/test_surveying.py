"""Which modules of a traced network are its blocks, held against names written by hand."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from interp.models import open_tower
from interp.models.towers.surveying import repeated_modules


def within(stage: str, *counts: int, start: int = 0, first: int = 0) -> list[str]:
    """`layer{s}.{b}` for stages that have so many blocks, counted from `start` and `first`."""
    return [stage.format(s=start + s, b=first + b) for s, n in enumerate(counts) for b in range(n)]


BLOCKS: dict[str, list[str]] = {
    "resnet18": within("layer{s}.{b}", 2, 2, 2, 2, start=1),
    "resnet50d": within("layer{s}.{b}", 3, 4, 6, 3, start=1),
    "seresnet18": within("layer{s}.{b}", 2, 2, 2, 2, start=1),
    "legacy_seresnet18": within("layer{s}.{b}", 2, 2, 2, 2, start=1),
    "convnext_atto": within("stages.{s}.blocks.{b}", 2, 2, 6, 2),
    # of blocks.0.0 and of the last blocks there is one each, without a sum
    "efficientnet_b0": within("blocks.{s}.{b}", 2, 2, 3, 3, 4, 1, start=1),
    "mobilenetv3_small_050": within("blocks.{s}.{b}", 2, 3, 2, 3, start=1),
    "regnety_002": within("s{s}.b{b}", 1, 1, 4, 7, start=1, first=1),
    "nfnet_l0": within("stages.{s}.{b}", 1, 2, 6, 3),
    "densenet121": within("features.denseblock{s}.denselayer{b}", 6, 12, 24, 16, start=1, first=1),
    "swin_tiny_patch4_window7_224": within("layers.{s}.blocks.{b}", 2, 2, 6, 2),
    "vit_tiny_patch16_224": within("blocks.{b}", 12),
    "edgenext_xx_small": within("stages.{s}.blocks.{b}", 2, 2, 6, 2),
    "fastvit_t8": within("stages.{s}.blocks.{b}", 2, 2, 4, 2),
    "ghostnet_050": within("blocks.{s}.{b}", 1, 1, 1, 1, 1, 1, 5, 1, 4),
    "nextvit_small": within("stages.{s}.blocks.{b}", 3, 4, 10, 3),
    "repvit_m1": within("stages.{s}.blocks.{b}", 2, 2, 14, 2),
    "starnet_s1": within("stages.{s}.{b}", 2, 2, 8, 3, first=1),  # the first of each is no block
    # a block of its later stages is two, attention and a convolution, each with a sum
    "efficientvit_b0": [
        "stem.res0",
        *within("stages.{s}.blocks.{b}", 2, 2),
        *(
            f"stages.{s}.blocks.{b}"
            for s in (2, 3)
            for b in (
                "0",
                *(f"{n}.{part}" for n in (1, 2) for part in ("context_module", "local_module")),
            )
        ),
    ],
}
OF_TORCHVISION: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "convnext_tiny": (
        torchvision.models.convnext_tiny,
        [f"features.{2 * s + 1}.{b}" for s, n in enumerate((3, 3, 9, 3)) for b in range(n)],
    ),
    "mobilenet_v3_small": (
        torchvision.models.mobilenet_v3_small, [f"features.{n}" for n in range(1, 12)]
    ),
    "efficientnet_b0": (
        torchvision.models.efficientnet_b0,
        within("features.{s}.{b}", 1, 2, 2, 3, 3, 4, 1, start=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_the_residual_blocks(name: str) -> None:
    with torch.device("meta"):  # the tree is enough
        net = timm.create_model(name, num_classes=0)
    assert repeated_modules(net) == BLOCKS[name]


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_blocks_of_torchvision_too(name: str) -> None:
    make, blocks = OF_TORCHVISION[name]
    with torch.device("meta"):
        net = make()
    assert repeated_modules(net) == blocks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seresnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_blocks_are_sites(name: str) -> None:
    net = timm.create_model(name, num_classes=0).eval()
    tower = open_tower(net, example=torch.rand(1, 3, 64, 64))
    assert list(tower.block_sites) == BLOCKS[name]  # type: ignore[attr-defined]


def test_rows_of_a_map_its_norm_and_an_activation_are_blocks_where_nothing_else_is() -> None:
    """Beside other blocks they are layers: a stem, a part of a ghost module."""

    def layer() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = layer()

    assert repeated_modules(nn.Sequential(layer(), layer(), layer())) == ["0", "1", "2"]
    assert repeated_modules(nn.Sequential(Residual(), Residual())) == ["0", "1"]
    deep = nn.ModuleDict({"stem": layer(), "blocks": nn.Sequential(block(), block(), block())})
    assert repeated_modules(deep) == ["blocks.0", "blocks.1", "blocks.2"]


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def test_a_numbered_row_of_two_kinds_is_one_block() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(3, 9), nn.Linear(3, 3)

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3, 3), nn.Linear(3, 3)

    rows = nn.ModuleList([nn.Sequential(Attention(), Mlp()) for _ in range(3)])
    assert repeated_modules(nn.ModuleDict({"blocks": rows})) == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_network_that_repeats_nothing_has_no_blocks() -> None:
    with torch.device("meta"):
        assert repeated_modules(timm.create_model("vgg11", num_classes=0)) == []


class Gated(nn.Module):
    """A block with a gate of two layers, which also stands alone before the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(4, 4), Gate()


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(4, 2), nn.Linear(2, 4)


class Between(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.down = nn.LayerNorm(4), nn.Linear(4, 4)


def test_gates_and_what_stands_between_stages_are_no_blocks() -> None:
    def stage() -> nn.Module:
        return nn.Sequential(Gated(), Gated())

    net = nn.Sequential(Gate(), stage(), Between(), stage(), Between(), stage())
    assert repeated_modules(net) == ["1.0", "1.1", "3.0", "3.1", "5.0", "5.1"]
    # the twin: where nothing holds them, the same modules are blocks
    assert repeated_modules(nn.Sequential(Gate(), Gate())) == ["0", "1"]
    assert repeated_modules(nn.Sequential(Between(), Between())) == ["0", "1"]

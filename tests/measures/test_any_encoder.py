"""The ladder and every measure of pictures, on models without text, by the same calls."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

from interp import ladder
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.measures.known_sites import causal_sites, stream_sites, unit_sites
from interp.models import load_clip, load_encoder, taught_head
from interp.models.loading.supervised import LinearHead, SupervisedModel
from interp.verdicts.rungs import RUNGS

PAIR = ("real", "sketch")
BRIEF: dict[str, Any] = {"n": 4, "n_permutations": 19, "n_splits": 1}


@pytest.fixture(scope="module")
def pictures(small_images: ImageTable) -> ImageTable:
    return small_images.select(split="analysis")


def taught(small_images: ImageTable) -> ImageTable:
    return small_images.select(split="train", domain="real")


def check_climbs(model: Any, pictures: ImageTable) -> None:
    """Every rung has rows between the two domains, with a verdict or a reason."""
    found = ladder(
        model.visual, pictures, domains=PAIR, preprocess=model.preprocess,
        classifier=model.zero_shot(list(pictures.labels)), **BRIEF,
    )  # fmt: skip
    rows = found.rungs.frame
    assert set(rows["rung"]) == set(RUNGS)
    for rung, own in rows.groupby("rung"):
        assert ((own["verdict"] != "") | (own["reason"] != "")).all(), rung
    assert len(set(rows[rows["rung"] == "R2"]["site"])) == len(stream_sites(model.visual))
    for name in ("R4", "R5", "R6"):  # a circuit of some site speaks, and says what it rests on
        assert (
            rows[rows["rung"] == name]["n_pictures"].notna().any()
            or (rows[rows["rung"] == name]["reason"] != "").all()
        )


def test_a_supervised_resnet_climbs_the_ladder(
    trained_checkpoint: Path, small_images: ImageTable, pictures: ImageTable
) -> None:
    clip = load_clip(trained_checkpoint)
    shown = taught(small_images)
    head = taught_head(clip.embed(shown).relu(), shown.label)
    model = SupervisedModel(clip, LinearHead(head.embeddings, head.names, bias=head.bias))
    check_climbs(model, pictures)
    assert model.certify().frame["ok"].all()


def vit() -> nn.Module:
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(
        image_size=48, patch_size=12, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48
    ).eval()
    net.heads = nn.Identity()
    return net


def reads(image: Any) -> torch.Tensor:
    sized = v2.functional.resize(v2.functional.to_image(image), [48, 48])
    return v2.functional.to_dtype(sized, torch.float32, scale=True) - 0.5


def test_a_torchvision_vit_climbs_the_ladder(
    small_images: ImageTable, pictures: ImageTable
) -> None:
    encoder = load_encoder(vit(), preprocess=reads).teach(taught(small_images))
    layers = [f"encoder.layers.encoder_layer_{n}" for n in range(3)]
    assert stream_sites(encoder.visual) == [*layers, "hook_embedding"]
    assert causal_sites(encoder.visual) == layers
    assert unit_sites(encoder.visual) == {"feature": [f"{each}.mlp.1" for each in layers]}
    check_climbs(encoder, pictures)


def test_a_torchvision_resnet_has_its_blocks_and_channels() -> None:
    tower = load_encoder("torchvision:resnet18").visual
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert stream_sites(tower) == [*blocks, "hook_embedding"]
    assert unit_sites(tower) == {"channel": blocks}


def test_blocks_whose_axes_have_no_names_are_left_out_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    net = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=[4, 4]
    ).eval()
    net.head = nn.Identity()
    encoder = load_encoder(net, preprocess=reads)
    assert encoder.visual.block_sites  # type: ignore[attr-defined]
    set_quiet(False)
    try:
        sites = stream_sites(encoder.visual)
    finally:
        set_quiet(True)
    known = {"channel", "feature", "d_embed"}
    assert sites[-1] == "hook_embedding"
    assert all(known & set(encoder.visual.axes(site)) for site in sites)
    assert len(sites) > len(encoder.visual.block_sites) or "open_tower" in capsys.readouterr().err

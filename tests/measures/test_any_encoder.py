"""The ladder and every measure of pictures, on models without text, by the same calls."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.transforms import v2

from interp import Patch, circuits, ladder
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.core.seeds import rng
from interp.core.sites import causal_sites, stream_sites, unit_sites
from interp.measures.catalogue import circuits_within, patched_sites, transplanted
from interp.measures.subject import AnalysisSpec, Subject
from interp.models import Encoder, load_clip, load_encoder, taught_head
from interp.models.loading.load_classifier import LinearHead, SupervisedModel
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


@pytest.mark.slow
@pytest.mark.long
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


@pytest.mark.slow
@pytest.mark.long
def test_a_torchvision_vit_climbs_the_ladder(
    small_images: ImageTable, pictures: ImageTable
) -> None:
    encoder = load_encoder(vit(), preprocess=reads).teach(taught(small_images))
    stream = [f"blocks.{n}.hook_resid_post" for n in range(3)]
    assert stream_sites(encoder.visual) == [*stream, "hook_embedding"]
    assert causal_sites(encoder.visual) == stream
    neurons = [f"blocks.{n}.mlp.hook_post" for n in range(3)]
    assert unit_sites(encoder.visual) == {"d_mlp": neurons}
    check_climbs(encoder, pictures)


@pytest.mark.long
@pytest.mark.slow
def test_a_traced_vit_climbs_the_ladder(small_images: ImageTable, pictures: ImageTable) -> None:
    torch.manual_seed(0)
    net = VisionTransformer(
        img_size=48, patch_size=12, embed_dim=24, depth=3, num_heads=2, mlp_ratio=2, num_classes=0,
        reg_tokens=2,
    )  # fmt: skip
    encoder = load_encoder(net, preprocess=reads).teach(taught(small_images))
    blocks = [f"blocks.{n}" for n in range(3)]
    assert "register tokens" in encoder.traced
    assert stream_sites(encoder.visual) == [*blocks, "hook_embedding"]
    assert causal_sites(encoder.visual) == blocks
    assert unit_sites(encoder.visual) == {"feature": [f"{each}.mlp.act" for each in blocks]}
    check_climbs(encoder, pictures)


COLOURS = {"lime": 90, "red": 0, "blue": 240, "cyan": 180, "pink": 320, "gold": 45}


@pytest.fixture(scope="module")
def patches() -> ImageTable:
    """Pictures of a coloured patch somewhere on grey, whose classes a small ViT learns at once."""
    generator = rng("coloured patches", 0)
    rows = [
        (label, domain, f"artist {n % 8}", "train" if n % 8 > 3 else "analysis")
        for label in COLOURS for domain in PAIR for n in range(24)
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist", "split"])
    frame = frame.assign(caption="", path=[f"{n}.png" for n in range(len(rows))],
                         place=generator.integers(0, 24, len(rows)))  # fmt: skip

    def draw(row: Any) -> Image.Image:
        hue, light = COLOURS[row["label"]], 50 if row["domain"] == PAIR[0] else 70
        picture = Image.new("RGB", (48, 48), "grey")
        place = int(row["place"])
        picture.paste(
            f"hsl({hue}, 90%, {light}%)", (place, place // 2, place + 24, place // 2 + 24)
        )
        return picture

    return ImageTable(frame, reader=draw)


@pytest.fixture(scope="module")
def learned(patches: ImageTable) -> Encoder:
    """A torchvision ViT that was taught the patches, so that there is something to find."""
    net, shown = vit(), patches.select(split="train")
    x = torch.stack([reads(shown.picture(n)) for n in range(len(shown))])
    places = torch.tensor([list(COLOURS).index(label) for label in shown.label])
    head = nn.Linear(24, len(COLOURS))
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(40):
        loss = F.cross_entropy(head(net(x)), places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder = load_encoder(net, preprocess=reads).teach(shown)
    asked = patches.select(split="analysis")
    assert encoder.zero_shot(list(COLOURS)).score(encoder.embed(asked), asked.label) > 0.9
    return encoder


@pytest.mark.slow
def test_heads_and_edges_of_a_torchvision_vit_are_found(
    learned: Encoder, patches: ImageTable
) -> None:
    tower, shown = learned.visual, patches.select(split="analysis", domain="real")
    how: Any = {"classifier": learned.zero_shot(list(COLOURS)), "preprocess": reads}
    pairs = shown.pairs(same="domain", differ="label", n=12)
    site = "blocks.2.attn.hook_z"
    rows = circuits.localise(
        tower, pairs, sites="blocks.*.attn.hook_z", axes=("layer", "head"), **how
    ).frame
    assert set(zip(rows["layer"], rows["head"], strict=True)) == set(product(range(3), range(2)))
    read = circuits.read_pairs(tower, pairs, **how)
    with torch.no_grad():  # a head put from one run into the other by hand
        _, clean = tower.run_with_cache(read.clean, names_filter=site)
        patch = Patch(site, clean[site][:, :, 1], {"head": 1})
        by_hand = read.metric(tower.run_with_hooks(read.corrupt, patches=[patch]))
    swept = rows.query("layer == 2 and head == 1").sort_values("example")["value"]
    np.testing.assert_allclose(swept, by_hand, atol=1e-4)
    exact, scores, chance = (
        circuits.attribute(tower, **read.words, method=method)
        for method in ("exact", "EAP-IG-inputs", "random")
    )
    to_exact = np.corrcoef([each.values.mean(0) for each in (exact, scores, chance)])[0]
    print(to_exact)
    assert to_exact[1] > 0.9 and abs(to_exact[2]) < 0.4
    assert len(circuits.discover(scores, n=20)) == 20


@pytest.mark.slow
def test_parts_of_a_torchvision_vit_are_measured_as_a_clips(
    learned: Encoder, patches: ImageTable
) -> None:
    asked = AnalysisSpec(n_pairs=12, n_transplants=24, n_circuit_pairs=12)
    opened = Subject(learned, patches, PAIR, (), asked)
    frames = patched_sites.measure(opened) | transplanted.measure(opened)
    frames |= circuits_within.measure(opened)
    assert set(frames["patching"]["site"]) >= {f"blocks.{n}.hook_resid_pre" for n in range(3)}
    assert any("hook_attn_out" in site for site in frames["transplant"]["site"])
    assert set(frames["circuits"]["domain"]) == set(PAIR)
    alone = frames["faithfulness"].query("measure == 'circuit alone'")
    for _, own in alone.groupby("domain"):
        by_share = own.set_index("share")["value"]
        assert by_share[1.0] == pytest.approx(1, abs=1e-3)
        assert abs(by_share[0.5] - 1) < 0.5  # half of the edges do most of the work


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

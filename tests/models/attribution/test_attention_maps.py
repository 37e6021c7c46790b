"""Attention maps: their numbers against PyTorch's own, and their pictures against the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from torch import Tensor

from interp.core.errors import InterpError, ShapeError, SpecificationError
from interp.core.illustrations import Plate
from interp.models import AttentionMaps, attention_maps, attention_rollout
from interp.models.attribution.overlays import PALETTE, SMALLEST, colours, enlarged, laid_over
from tests.models.moved import QUERIES, VIT, text, visual
from tests.refusals import refuses

THREE = VIT | {"layers": 3}
MAPS: Any = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 96, "head_width": 64}


def pictures(n: int = 2, size: tuple[int, int] = (32, 32)) -> list[Image.Image]:
    dice = np.random.default_rng(0)
    return [
        Image.fromarray(dice.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
        for _ in range(n)
    ]


def test_pattern_is_pytorchs_own() -> None:
    model, tower, x = visual(THREE, 2)
    seen: list[Tensor] = []
    blocks = model.visual.transformer.resblocks
    handles = [
        block.ln_1.register_forward_hook(lambda *args: seen.append(args[2])) for block in blocks
    ]
    model.visual(x)
    maps = attention_maps(tower, x)
    for layer, (block, normed) in enumerate(zip(blocks, seen, strict=False)):
        _, right = block.attn(normed, normed, normed, average_attn_weights=False)
        torch.testing.assert_close(maps.pattern[layer], right.detach())
    for handle in handles:
        handle.remove()
    assert maps.pattern.shape == (3, 2, 2, 17, 17) and maps.grid == (4, 4)
    assert maps.layers == ("blocks.0", "blocks.1", "blocks.2")
    assert not maps.pattern.requires_grad
    assert not any(point.fwd_hooks for point in tower.hook_dict.values())


def test_the_class_token_is_the_query_unless_another_is_named() -> None:
    _, tower, x = visual(THREE, 2)
    maps = attention_maps(tower, x)
    torch.testing.assert_close(maps.rows(), maps.pattern[:, :, :, 0])
    for query in (None, 0, 6):
        drawn, place = maps.maps(query), query or 0
        for key in range(16):
            right = maps.pattern[:, :, :, place, 1 + key]
            torch.testing.assert_close(drawn[..., key // 4, key % 4], right)
        whole = drawn.sum(dim=(-1, -2)) + maps.off_grid(query)
        torch.testing.assert_close(whole, torch.ones_like(whole))
        torch.testing.assert_close(maps.off_grid(query), maps.pattern[:, :, :, place, 0])


def test_mean_pooling_asks_from_every_patch() -> None:
    _, tower, x = visual(THREE, 2, pool_type="avg")
    maps = attention_maps(tower, x)
    torch.testing.assert_close(maps.rows(), maps.pattern[:, :, :, 1:].mean(dim=3))
    assert "all patches" in maps.over(pictures(), layer=0, head=0)[0].caption


def test_learned_queries_ask_through_their_own_attention() -> None:
    model, tower, x = visual(THREE, 2, **QUERIES)
    maps = attention_maps(tower, x)
    normed = model.visual.attn_pool.ln_k(tower(x, stop_at_layer=tower.n_layers))
    asked = model.visual.attn_pool.ln_q(model.visual.attn_pool.query).expand(len(x), -1, -1)
    _, pool = model.visual.attn_pool.attn(asked, normed, normed)  # the mean over heads
    right = torch.einsum("bk,lbhkn->lbhn", pool[:, 0].detach(), maps.pattern)
    torch.testing.assert_close(maps.rows(), right)
    assert "what the pooling reads" in maps.over(pictures(), layer=0, head=0)[0].caption


def test_oblong_grids_keep_rows_and_columns_apart() -> None:
    _, tower, x = visual(THREE, 2, image_size=(32, 16))
    maps = attention_maps(tower, x)
    assert maps.maps().shape == (3, 2, 2, 4, 2) and maps.grid == (4, 2)
    torch.testing.assert_close(maps.maps()[..., 3, 0], maps.pattern[:, :, :, 0, 1 + 6])
    plate = maps.over(pictures(size=(16, 32)), layer=2, head=1)[0]
    assert plate.image.height > SMALLEST


def test_the_resnets_pool_is_one_layer() -> None:
    model, tower, x = visual(MAPS, 2)
    maps = attention_maps(tower, x)
    stream = tower(x, stop_at_layer=tower.n_layers).flatten(2).permute(2, 0, 1)
    pool = model.visual.attnpool
    places = torch.cat([stream.mean(0, keepdim=True), stream]) + pool.positional_embedding[:, None]
    q, k = pool.q_proj(places[:1]), pool.k_proj(places)
    for head in range(4):
        part = slice(64 * head, 64 * (head + 1))
        scores = torch.einsum("qbd,kbd->bqk", q[..., part], k[..., part]) / 8
        right = scores.softmax(-1)
        torch.testing.assert_close(maps.pattern[0, :, head], right.detach())
        torch.testing.assert_close(maps.maps()[0, :, head].flatten(1), right[:, 0, 1:].detach())
    assert maps.grid == (3, 3) and maps.layers == ("attnpool",)
    assert "mean of the map" in maps.over(pictures(), layer=0, head=3)[1].caption
    refuses(SpecificationError, "roll attention out", attention_rollout, maps)


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_texts_have_rows_and_no_grid(kind: Any) -> None:
    _, tower, x = text(kind)
    maps = attention_maps(tower, x)
    for example, end in enumerate((2, 4, 7)):
        torch.testing.assert_close(maps.rows()[:, example], maps.pattern[:, example, :, end])
        assert (maps.rows()[:, example, :, end + 1 :] == 0).all()
    refuses(SpecificationError, "text tower", maps.maps)
    refuses(SpecificationError, "text tower", maps.over, pictures(), layer=0, head=0)


def test_rollout() -> None:
    _, tower, x = visual(THREE, 2)
    maps = attention_maps(tower, x)
    rolled = attention_rollout(maps)
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 17, dtype=torch.float64))
    for example in range(2):
        right = np.eye(17)
        for layer in range(3):
            mean = maps.pattern[layer, example].mean(0).numpy()
            mixed = mean + np.eye(17)
            right = mixed / mixed.sum(1, keepdims=True) @ right
        np.testing.assert_allclose(rolled[example].numpy(), right)
    assert maps.on_grid(rolled[:, 0]).shape == (2, 4, 4)
    refuses(ShapeError, "lay keys on the grid", maps.on_grid, rolled[:, 0, 1:])


def planted(row: int, column: int, *, off: float = 0.25) -> AttentionMaps:
    """One head that looks at one patch of 4 x 4, and otherwise at the class token."""
    pattern = torch.zeros(1, 1, 1, 17, 17)
    pattern[..., 0], pattern[..., 1 + 4 * row + column] = off, 1 - off
    reads = torch.zeros(1, 17)
    reads[:, 0] = 1
    return AttentionMaps(pattern, ("blocks.0",), reads, (4, 4))


@pytest.mark.parametrize("row, column", [(0, 3), (2, 1)])
def test_the_map_is_drawn_where_the_head_looks(row: int, column: int) -> None:
    grey = Image.new("RGB", (48, 48), (128, 128, 128))
    plate = planted(row, column).over([grey], layer=0, head=0)[0]
    page = np.asarray(plate.image).astype(int)
    overlay = page[40 : 40 + SMALLEST, 14 + SMALLEST + 10 : 14 + 2 * SMALLEST + 10]
    brightest = np.unravel_index(overlay.sum(2).argmax(), overlay.shape[:2])
    patch = SMALLEST // 4
    assert (brightest[0] // patch, brightest[1] // patch) == (row, column)
    # and the picture itself stands beside it, untouched
    assert (page[40 : 40 + SMALLEST, 14 : 14 + SMALLEST] == 128).all()
    bar = page[40 : 40 + SMALLEST, 14 + 2 * SMALLEST + 25]
    assert (bar[0] == PALETTE[-1]).all() and (bar[-1] == PALETTE[0]).all()  # bright is above
    assert "blocks.0, head 0, from the class token" in plate.caption
    assert "0.75" in plate.caption and "25% of the attention is on the class token" in plate.caption
    assert plate.keys == {"layer": "0", "head": "0", "query": "pooled", "example": "0"}


def test_the_sheet_holds_every_head(tmp_path: Path) -> None:
    _, tower, x = visual(THREE, 2)
    maps = attention_maps(tower, x)
    plate = maps.sheet(pictures(), example=1)
    assert "3 layers down and 2 heads" in plate.caption and plate.keys["example"] == "1"
    cell = 120
    left, head = 34 + 7 * len("blocks.0"), 14 + cell + 32
    page = np.asarray(plate.image).astype(int)
    values = maps.maps()[:, 1].float().numpy()
    top = float(np.quantile(values, 0.99))
    small = enlarged(pictures()[1])
    small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    for layer in range(3):
        for number in range(2):
            upper, start = head + layer * (cell + 3), left + number * (cell + 3)
            there = page[upper : upper + cell, start : start + cell]
            right = laid_over(small, values[layer, number], top=top)
            assert np.array_equal(there, np.asarray(right))
    back = Plate.load(plate.save(tmp_path))
    assert back.caption == plate.caption and back.image.size == plate.image.size


def test_tensors_are_taken_for_intensities() -> None:
    maps = planted(1, 1)
    shade = torch.rand(1, 3, 32, 32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    normed = (shade - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    plain = maps.over(shade, layer=0, head=0)[0].image
    undone = maps.over(normed, layer=0, head=0, mean=mean, std=std)[0].image
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(undone)).max() <= 1
    told_nothing = maps.over(normed, layer=0, head=0)[0].image
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(told_nothing)).max() > 50
    bytes_ = (255 * shade[0]).round().byte().permute(1, 2, 0).numpy()
    assert maps.over([Image.fromarray(bytes_)], layer=0, head=0)[0].image == plain


def test_the_range_of_colours_ends_at_the_top() -> None:
    grey, flat = Image.new("RGB", (4, 4), (100, 100, 100)), np.full((2, 2), 0.02)
    for top, step in ((0.02, 255), (0.01, 255), (0.04, 128)):
        right = 0.62 * PALETTE[step].astype(float) + 0.38 * 100
        drawn = np.asarray(laid_over(grey, flat, top=top)).astype(float)
        assert np.abs(drawn - right).max() <= 1
    nothing = np.asarray(laid_over(grey, 0 * flat, top=0.0)).astype(float)
    assert np.abs(nothing - (0.62 * PALETTE[0] + 38)).max() <= 1


def test_pictures_are_enlarged_and_cut_to_the_middle() -> None:
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste("blue", (20, 0, 40, 20))
    square = enlarged(wide, shape=(4, 4))
    assert square.size == (SMALLEST, SMALLEST)
    assert square.getcolors() == [(SMALLEST * SMALLEST, (0, 0, 255))]
    large = Image.new("RGB", (500, 500))
    assert enlarged(large).size == (500, 500)


def test_equal_steps_of_the_palette_look_equal() -> None:
    srgb = PALETTE / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).mean() > 0.99  # but for rounding to bytes
    assert (colours(np.array([-1.0, 0, 1, 2])) == PALETTE[[0, 0, 255, 255]]).all()


def test_what_is_refused() -> None:
    model, tower, x = visual(THREE, 2)
    maps = attention_maps(tower, x)
    for wrong in ({"layer": 3, "head": 0}, {"layer": 0, "head": 2}, {"layer": -1, "head": 0}):
        refuses(SpecificationError, "Count from the beginning", maps.over, pictures(), **wrong)
    refuses(SpecificationError, "query 17", maps.maps, 17)
    refuses(SpecificationError, "example 2", maps.sheet, pictures(), example=2)
    refuses(ShapeError, "2 pictures, one for each", maps.over, pictures(3), layer=0, head=0)
    refuses(ShapeError, "four axes", maps.over, torch.zeros(2, 32, 32), layer=0, head=0)
    refuses(InterpError, r"clip\.visual", attention_maps, model, x)
    _, dropping, x = visual(THREE, 2, patch_dropout=0.5)
    assert attention_maps(dropping, x).grid == (4, 4)
    dropping.train()
    refuses(SpecificationError, r"tower\.eval", attention_maps, dropping, x)

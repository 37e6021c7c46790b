"""The renderer: one pose for all domains, a style of its own for each, nothing left to chance."""

from functools import cache

import numpy as np
import pytest

from interp.core.errors import DataError, ShapeError
from interp.data.artwork.packages import Drawing, drawings, ink
from interp.data.artwork.rendering import DOMAINS, render

WARP = {"rotation", "scale", "shear", "shift_x", "shift_y", "flip", "elastic"}


def pixels(label: str = "anchor") -> np.ndarray:
    """The ink of the first drawing of a class."""
    return ink(next(drawing for drawing in drawings() if drawing.label == label))


def silhouette(image: np.ndarray) -> np.ndarray:
    """What differs from the ground, where the ground is plain: taken from the corners' colour."""
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]].astype(float).mean(0)
    return np.abs(image.astype(float) - corners).max(-1) > 60


@cache
def statistics(domain: str) -> np.ndarray:
    """Simple pixel statistics of 40 pictures: `[40, 5]`."""
    chosen: list[Drawing] = drawings()[::16][:40]
    rows = []
    for seed, drawing in enumerate(chosen):
        image, _ = render(ink(drawing), domain, warp_seed=seed, style_seed=seed)
        image = image / 255.0
        grey = image.mean(-1)
        rows.append(
            [
                grey.mean(),
                (image.max(-1) - image.min(-1)).mean(),
                np.abs(np.diff(grey, axis=0)).mean(),
                np.median(np.abs(np.diff(grey, axis=1))),
                np.mean(image.reshape(-1, 3).max(0) - np.median(image.reshape(-1, 3), 0)),
            ]
        )
    return np.array(rows)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [32, 48, 64])
def test_a_picture_is_what_it_says(domain: str, size: int) -> None:
    image, factors = render(pixels(), domain, warp_seed=0, style_seed=0, size=size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert image.std() > 10
    assert all(type(value) is float and np.isfinite(value) for value in factors.values())


@pytest.mark.parametrize("domain", DOMAINS)
def test_seeds_are_all_there_is(domain: str) -> None:
    first, factors = render(pixels(), domain, warp_seed=3, style_seed=4)
    again, same = render(pixels(), domain, warp_seed=3, style_seed=4)
    assert np.array_equal(first, again) and factors == same
    for seeds in ({"warp_seed": 5, "style_seed": 4}, {"warp_seed": 3, "style_seed": 5}):
        assert not np.array_equal(first, render(pixels(), domain, **seeds)[0])


def test_the_warp_is_shared_by_all_domains() -> None:
    warps = []
    for seed, domain in enumerate(DOMAINS):
        _, factors = render(pixels(), domain, warp_seed=7, style_seed=seed)
        warps.append({key: factors[key] for key in WARP})
    assert all(warp == warps[0] for warp in warps)
    _, other = render(pixels(), "real", warp_seed=8, style_seed=0)
    assert all(other[key] != warps[0][key] for key in WARP - {"flip"})


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_style_does_not_hang_on_warp_or_drawing(domain: str) -> None:
    styles = []
    for label, warp in (("anchor", 1), ("anchor", 2), ("cat", 3)):
        _, factors = render(pixels(label), domain, warp_seed=warp, style_seed=11)
        styles.append({key: factors[key] for key in factors if key not in WARP})
    assert styles[0] == styles[1] == styles[2] and styles[0]


def test_the_silhouette_is_the_same_in_two_domains() -> None:
    def agreement(other_warp: int) -> float:
        found = []
        for warp in range(12):
            x, _ = render(pixels("star"), "clipart", warp_seed=warp, style_seed=warp)
            y, _ = render(pixels("star"), "clipart", warp_seed=warp + other_warp, style_seed=99)
            z, _ = render(pixels("star"), "quickdraw", warp_seed=warp + other_warp, style_seed=5)
            drawn = z.mean(-1) < 128  # strokes lie on the outline: within the dilated silhouette
            a, b = silhouette(x), silhouette(y)
            found.append((a & b).sum() / (a | b).sum() * (drawn & a).sum() / drawn.sum())
        return float(np.mean(found))

    assert agreement(0) > agreement(100) + 0.15


def test_factors_mean_what_they_say() -> None:
    dot = np.zeros((128, 128), np.float32)
    dot[56:72, 86:102] = 1  # right of the middle by 30 / 128 of the frame
    for seed in range(40):
        image, factors = render(dot, "clipart", warp_seed=seed, style_seed=seed, hue=0.6)
        rows, columns = np.nonzero(silhouette(image))
        turn, side = np.deg2rad(factors["rotation"]), 1 - 2 * factors["flip"]
        reach = 30 / 128 * factors["scale"] * side
        x = factors["shift_x"] + reach * np.cos(turn)
        y = factors["shift_y"] - reach * np.sin(turn)
        assert abs(columns.mean() / 47 - 0.5 - x) < 0.06, seed
        assert abs(rows.mean() / 47 - 0.5 - y) < 0.06, seed


@pytest.mark.parametrize("domain", ["real", "painting", "clipart"])
def test_the_hue_knob_turns_the_hue_and_nothing_else(domain: str) -> None:
    own, factors = render(pixels(), domain, warp_seed=1, style_seed=2)
    red, fixed = render(pixels(), domain, warp_seed=1, style_seed=2, hue=0.0)
    blue, _ = render(pixels(), domain, warp_seed=1, style_seed=2, hue=0.66)
    assert fixed["hue"] == 0.0
    assert {k: v for k, v in fixed.items() if k != "hue"} == {
        k: v for k, v in factors.items() if k != "hue"
    }
    assert red[..., 0].mean() > blue[..., 0].mean() + 5
    assert blue[..., 2].mean() > red[..., 2].mean() + 5
    assert not np.array_equal(own, red)


def test_line_domains_have_no_hue_to_turn() -> None:
    for domain in ("quickdraw", "sketch", "infograph"):
        own, _ = render(pixels(), domain, warp_seed=1, style_seed=2)
        asked, factors = render(pixels(), domain, warp_seed=1, style_seed=2, hue=0.3)
        assert np.array_equal(own, asked) and "hue" not in factors


def test_domains_are_told_apart_by_simple_statistics() -> None:
    train = {domain: statistics(domain)[::2] for domain in DOMAINS}
    spread = np.concatenate(list(train.values())).std(0)
    centres = np.array([train[domain].mean(0) for domain in DOMAINS]) / spread
    right = []
    for index, domain in enumerate(DOMAINS):
        points = statistics(domain)[1::2] / spread
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        right.append(np.mean(nearest == index))
    assert np.mean(right) > 0.8, dict(zip(DOMAINS, right, strict=True))


def test_filled_and_outlined_artwork_give_alike_line_art() -> None:
    solid, outline = Drawing("heart", "phosphor", "heart-fill"), Drawing("heart", "lucide", "heart")
    shares = []
    for drawing in (solid, outline):
        image, _ = render(ink(drawing), "quickdraw", warp_seed=0, style_seed=0)
        shares.append(float(np.mean(image < 128)))
    assert 0.6 < shares[0] / shares[1] < 1.7


def test_nothing_drawn_is_a_picture_too() -> None:
    for domain in DOMAINS:
        empty, _ = render(np.zeros((64, 64), np.float32), domain, warp_seed=0, style_seed=0)
        full, _ = render(pixels(), domain, warp_seed=0, style_seed=0)
        assert empty.shape == full.shape and not np.array_equal(empty, full)


def test_a_wrong_domain_or_shape_is_said_clearly() -> None:
    with pytest.raises(DataError, match=r"watercolour.*real, clipart"):
        render(pixels(), "watercolour", warp_seed=0, style_seed=0)
    with pytest.raises(ShapeError, match=r"\(8, 9\)"):
        render(np.zeros((8, 9), np.float32), "real", warp_seed=0, style_seed=0)

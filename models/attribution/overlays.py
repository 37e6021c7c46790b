"""Drawing of maps over pictures: colours, lettering, a colour bar, and sheets of many maps."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from interp.core.errors import ShapeError

Pictures = Sequence[Image.Image]

INK, PAPER, FAINT = (34, 34, 38), (255, 255, 255), (110, 110, 118)
SMALLEST = 336
"""A picture whose longer side is shorter than this many pixels is enlarged to it."""

_MARGIN = 14


def _palette(n: int = 256) -> UInt8[np.ndarray, "step rgb"]:
    """A perceptually uniform scale from near black over violet and orange to pale yellow.

    It is a path through Oklab (Ottosson 2020) with rising lightness, in steps of equal length:
    equal differences in a map look alike everywhere in the scale.
    """
    t = np.linspace(0, 1, 4001)
    lightness = 0.16 + 0.79 * t
    chroma = 0.02 + 0.165 * np.sin(np.pi * t**0.92) ** 0.9
    hue = np.radians(285 + 180 * t)  # violet, over red, to yellow
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    walked = np.concatenate([[0], np.linalg.norm(np.diff(lab, axis=0), axis=1).cumsum()])
    even = np.linspace(0, walked[-1], n)
    lab = np.stack([np.interp(even, walked, axis) for axis in lab.T], axis=1)
    to_cones = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728]]
    to_cones.append([1, -0.0894841775, -1.2914855480])
    to_linear = [[4.0767416621, -3.3077115913, 0.2309699292]]
    to_linear.append([-1.2684380046, 2.6097574011, -0.3413193965])
    to_linear.append([-0.0041960863, -0.7034186147, 1.7076147010])
    linear = (lab @ np.array(to_cones).T) ** 3 @ np.array(to_linear).T
    linear = linear.clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * srgb).round().astype(np.uint8)


PALETTE = _palette()


def colours(share: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape rgb"]:
    """Map values from 0 (dark) to 1 (bright) to colours.

    Args:
        share: The values; those beyond 0 and 1 are clipped.

    Returns:
        Red, green and blue of each value.
    """
    return PALETTE[(np.clip(share, 0, 1) * (len(PALETTE) - 1)).round().astype(int)]


def enlarged(picture: Image.Image, *, shape: tuple[int, int] | None = None) -> Image.Image:
    """Enlarge a picture to at least `SMALLEST` pixels, cropped to a shape if one is given.

    Args:
        picture: The picture.
        shape: (rows, columns) whose proportion the picture is cropped to, as open_clip's default
            transform does; None crops nothing.

    Returns:
        An RGB picture.
    """
    image = picture.convert("RGB")
    if shape is not None:
        rows, columns = shape
        unit = min(image.width / columns, image.height / rows)
        width, height = unit * columns, unit * rows
        left, top = (image.width - width) / 2, (image.height - height) / 2
        image = image.crop((round(left), round(top), round(left + width), round(top + height)))
    times = max(1.0, SMALLEST / max(image.size))
    size = (round(image.width * times), round(image.height * times))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def square(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, as a model sees it, at a size.

    Args:
        picture: The picture.
        side: Pixels of its side.

    Returns:
        A square RGB picture.

    >>> square(Image.new("L", (90, 60)), 20).size
    (20, 20)
    """
    return enlarged(picture, shape=(1, 1)).resize((side, side))


def drawable(
    pictures: Pictures | Tensor,
    n: int,
    *,
    shape: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[Image.Image]:
    """Convert the pictures of a batch to a form over which maps are drawn.

    Args:
        pictures: Pictures, or a tensor `batch 3 row column` of intensities from 0 to 1.
        n: How many there must be.
        shape: (rows, columns) whose proportion they are cropped to.
        mean: Mean per channel to add back to a normalised tensor.
        std: Standard deviation per channel to multiply a normalised tensor by.

    Returns:
        RGB pictures, enlarged and cropped.

    Raises:
        ShapeError: If there are not `n` pictures, or the tensor has not four axes.
    """
    if len(pictures) != n or (isinstance(pictures, Tensor) and pictures.ndim != 4):
        given = (
            f"shape {tuple(pictures.shape)}"
            if isinstance(pictures, Tensor)
            else f"{len(pictures)} pictures"
        )
        right = f"{n} pictures, one for each example, in a list or a tensor with four axes"
        raise ShapeError("draw maps over pictures", given, right, "pass the batch that was run")
    if isinstance(pictures, Tensor):
        pictures = _from_tensor(pictures, mean, std)
    return [enlarged(picture, shape=shape) for picture in pictures]


def _from_tensor(
    pictures: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> list[Image.Image]:
    shade = pictures.detach().float().cpu()
    if std is not None:
        shade = shade * torch.tensor(std)[:, None, None]
    if mean is not None:
        shade = shade + torch.tensor(mean)[:, None, None]
    bytes_ = (shade.clamp(0, 1) * 255).round().byte()
    laid = rearrange(bytes_, "batch channel row column -> batch row column channel").numpy()
    return [Image.fromarray(picture) for picture in laid]


def laid_over(
    picture: Image.Image,
    values: Float[np.ndarray, "row column"],
    *,
    top: float,
    strength: float = 0.62,
) -> Image.Image:
    """Draw a map in colour over a greyscale picture.

    Args:
        picture: The picture, which gives the size.
        values: The map; between the centres of its patches it is interpolated linearly.
        top: The value of the brightest colour; 0 is dark.
        strength: The share of the colours in the mixture.

    Returns:
        A picture of the same size.
    """
    size = picture.size
    field = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    colour = colours(np.asarray(field, dtype=float) / (top or 1.0)).astype(float)
    grey = np.asarray(picture.convert("L"), dtype=float)[..., None]
    mixed = strength * colour + (1 - strength) * grey
    return Image.fromarray(mixed.round().astype(np.uint8))


def write(
    image: Image.Image,
    place: tuple[float, float],
    text: str,
    *,
    size: float = 13,
    anchor: str = "lm",
    ink: tuple[int, int, int] = INK,
) -> None:
    """Write text into a picture, in Pillow's own typeface.

    Args:
        image: The picture, changed in place.
        place: Position of the anchor in pixels, (x, y).
        text: What to write.
        size: Height of the letters in pixels.
        anchor: Pillow's two letters for horizontal and vertical alignment.
        ink: Colour of the letters.
    """
    ImageDraw.Draw(image).text(
        place, text, fill=ink, font=ImageFont.load_default(size), anchor=anchor
    )


def _draw_bar(
    image: Image.Image, box: tuple[int, int, int, int], *, top: float, beyond: bool
) -> None:
    """An upright colour bar with its range; with `beyond`, the brightest colour means "or more"."""
    left, upper, right, lower = box
    ramp = colours(np.linspace(1, 0, lower - upper)[:, None].repeat(right - left, axis=1))
    image.paste(Image.fromarray(ramp), (left, upper))
    ticks = ((1.0, f"{top:.2g} +" if beyond else f"{top:.2g}"), (0.5, f"{top / 2:.2g}"), (0.0, "0"))
    for share, word in ticks:
        height = lower - share * (lower - upper)
        ImageDraw.Draw(image).line((right, height, right + 4, height), fill=FAINT)
        write(image, (right + 8, min(max(height, upper + 5), lower - 5)), word, size=12)


def framed(
    picture: Image.Image, overlay: Image.Image, *, title: str, note: str, top: float
) -> Image.Image:
    """Set a picture, its overlay and a colour bar side by side, between a title and a note.

    Args:
        picture: The plain picture.
        overlay: The same picture under its map.
        title: The line above.
        note: The line below.
        top: The value of the brightest colour.

    Returns:
        The page.
    """
    width, height = overlay.size
    gap, head, foot, side = 10, 40, 34, 76
    page = Image.new("RGB", (2 * _MARGIN + 2 * width + gap + side, head + height + foot), PAPER)
    page.paste(picture, (_MARGIN, head))
    page.paste(overlay, (_MARGIN + width + gap, head))
    write(page, (_MARGIN, head / 2), title, size=16)
    write(page, (_MARGIN, head + height + foot / 2), note, ink=FAINT)
    left = _MARGIN + 2 * width + 2 * gap
    _draw_bar(page, (left, head, left + 14, head + height), top=top, beyond=False)
    return page


def sheet(
    picture: Image.Image,
    maps: Float[np.ndarray, "layer head row column"],
    *,
    names: Sequence[str],
    title: str,
    note: str,
    top: float,
) -> Image.Image:
    """Draw every map over one picture, layers down and heads across, in one colour scale.

    Args:
        picture: The picture under all maps.
        maps: The maps.
        names: The name of each layer.
        title: The first line above.
        note: The second line above.
        top: The value of the brightest colour; larger values have the same colour.

    Returns:
        The page.
    """
    n_layers, n_heads = maps.shape[:2]
    cell = int(np.clip(1500 // n_heads, 56, 120))
    small = picture.copy()
    small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    width, height = small.size
    gap, side, left = 3, 76, 34 + 7 * max(map(len, names))
    head = _MARGIN + height + 32
    body, across = n_layers * (height + gap) - gap, n_heads * (width + gap) - gap
    # the picture and the words beside it need some width, however few heads there are
    right = left + max(across, width + 16 + 7 * len(note))
    page = Image.new("RGB", (right + side + _MARGIN, head + body + _MARGIN), PAPER)
    page.paste(small, (left, _MARGIN))
    write(page, (left + width + 16, _MARGIN + 14), title, size=16)
    write(page, (left + width + 16, _MARGIN + 40), note, ink=FAINT)
    write(page, (left - 8, head - 12), "head", anchor="rm", ink=FAINT)
    for number in range(n_heads):
        middle = left + number * (width + gap) + width / 2
        write(page, (middle, head - 12), str(number), anchor="mm")
    for layer, name in enumerate(names):
        upper = head + layer * (height + gap)
        write(page, (left - 8, upper + height / 2), name, anchor="rm")
        for number in range(n_heads):
            drawn = laid_over(small, maps[layer, number], top=top)
            page.paste(drawn, (left + number * (width + gap), upper))
    bar = left + across + 12
    box = (bar, head, bar + 14, head + min(body, 320))
    _draw_bar(page, box, top=top, beyond=bool(maps.max() > top))
    return page

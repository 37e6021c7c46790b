"""Drawings as ink: glyphs of fonts and SVG files, cropped, scaled and centred."""

import io
import json
import re
import unicodedata
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from interp.core.errors import DataError
from interp.data.artwork.packages import ARTISTS, MANIFEST, Artist, Drawing, missing_artists

FILL = 0.86  # share of the frame that a drawing's longer side takes


@lru_cache(maxsize=4096)
def ink(drawing: Drawing, size: int = 128) -> np.ndarray:
    """Rasterise a drawing.

    Args:
        drawing: The drawing.
        size: Side in pixels.

    Returns:
        float32 `[size, size]`, 1 = ink; read-only, since it is cached.

    Raises:
        DataError: For a missing artist or an empty glyph.

    Notes:
        The drawing is cropped to its bounding box, scaled until its longer side fills `FILL` of the
        frame, and centred, so that an artist's usual margins give no cue to the artist.

    >>> heart = Drawing("heart", "noto", "black heart")
    >>> ink(heart, 64).shape, float(ink(heart, 64).max())
    ((64, 64), 1.0)
    """
    artist = ARTISTS[drawing.artist]
    reason = missing_artists(edition=artist.editions[-1]).get(drawing.artist)
    if reason:
        raise DataError(
            f"draw {drawing.name}",
            f"an artist whose package is amiss: {reason}",
            "the pinned package",
            f"install {artist.distribution}",
        )
    raw = _raster(artist, drawing.glyph, 4 * size)
    box = raw.point([255 * (value > 16) for value in range(256)]).getbbox()
    if box is None:
        raise DataError(
            f"draw {drawing.name}",
            "an empty glyph",
            "one with ink in it",
            f"check its line in {MANIFEST.name}",
        )
    zoom = FILL * size / max(box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round(zoom * (box[i + 2] - box[i]))) for i in (0, 1))
    frame = Image.new("L", (size, size))
    small = raw.resize((width, height), Image.Resampling.BILINEAR, box=box)
    frame.paste(small, ((size - width) // 2, (size - height) // 2))
    pixels = np.asarray(frame, dtype=np.float32)
    pixels = pixels / max(float(pixels.max()), 1.0)
    pixels.setflags(write=False)
    return pixels


def _raster(artist: Artist, glyph: str, size: int) -> Image.Image:
    """Draw a glyph unchanged in a large frame: grey image, 255 = ink."""
    if artist.kind.startswith("svg"):
        return _of_svg(artist, glyph, size)
    font, character = _character(artist, glyph)
    canvas = Image.new("L", (size, size))
    drawn = _font(font, size // 2, variable=artist.kind == "font, unicode")
    ImageDraw.Draw(canvas).text(
        (size // 2, size // 2), character, fill=255, font=drawn, anchor="mm"
    )
    return canvas


def _of_svg(artist: Artist, glyph: str, size: int) -> Image.Image:
    from resvg_py import svg_to_bytes

    [place] = artist.paths()
    name = f"{glyph}.svg"
    stored = _zipped(place)[name] if artist.kind == "svg, zip" else (place / name).read_bytes()
    svg = stored.decode().replace("currentColor", "black")
    png = svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA").getchannel("A")


@lru_cache(maxsize=8)
def _zipped(place: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(place) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".svg")}


@lru_cache(maxsize=64)
def _font(place: Path, size: int, *, variable: bool) -> ImageFont.FreeTypeFont:
    engine = ImageFont.Layout.BASIC
    font = ImageFont.truetype(io.BytesIO(place.read_bytes()), size, layout_engine=engine)
    if variable:  # it opens at its lightest weight
        font.set_variation_by_axes([400])
    return font


def _character(artist: Artist, glyph: str) -> tuple[Path, str]:
    """The font that has a glyph, and the glyph's character there."""
    places = artist.paths()
    if artist.kind == "font, unicode":
        return places[0], unicodedata.lookup(glyph)
    read = _of_css if artist.kind == "font, css" else _of_json
    for font, names in zip(places[::2], map(read, places[1::2]), strict=True):
        if glyph in names:
            return font, names[glyph]
    raise DataError(
        f"draw {artist.key}/{glyph}",
        "a name that its font does not have",
        "a glyph of the font",
        f"check its line in {MANIFEST.name}",
    )


@lru_cache(maxsize=32)
def _of_json(place: Path) -> dict[str, str]:
    """The character of every name; codepoints are numbers, or hexadecimal text."""
    codes = json.loads(place.read_text(encoding="utf-8"))
    return {
        name: chr(code if isinstance(code, int) else int(code, 16)) for name, code in codes.items()
    }


@lru_cache(maxsize=32)
def _of_css(place: Path) -> dict[str, str]:
    """The same of `.name:before{content:"\\e900"}`; a character may stand as it is."""
    rules = re.findall(
        r"([^{}]+)\{\s*content:\s*[\"']([^\"']+)[\"'];?\s*\}", place.read_text(encoding="utf-8")
    )
    names = {}
    for selectors, text in rules:
        character = chr(int(text[1:], 16)) if text.startswith("\\") else text
        names.update(dict.fromkeys(re.findall(r"\.([\w-]+):{1,2}before", selectors), character))
    return names

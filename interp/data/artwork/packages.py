"""The drawings of the embedded study, read from the packages of the artists who made them.

No drawing is stored here. The manifest beside this file (`drawings.csv`, chosen by eye) says which
glyph of which artist shows which thing. The glyphs stay in packages installed by pip, are read as
files without importing those packages, and are used only if their hash is the one that the manifest
was curated on. An artist whose package is missing or changed is left out and named by
`missing_artists`; the study uses the others.
"""

import csv
import hashlib
import io
import json
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from interp.core.errors import DataError

MANIFEST = Path(__file__).with_name("drawings.csv")
FILL = 0.86  # share of the frame that a drawing's longer side takes


@dataclass(frozen=True)
class Artist:
    """One artist: all families and weights of one icon set count as the same artist.

    Args:
        key: Short name.
        name: Name and version of the icon set.
        licence: Its licence.
        credit: Its web address.
        distribution: The pip package that holds it.
        package: The Python package within.
        sources: Files inside the package, each with the SHA-256 that the manifest was curated on: a
            font with its name -> codepoint JSON, a font alone (glyphs then have their Unicode
            names), or a zip of SVG files.
    """

    key: str
    name: str
    licence: str
    credit: str
    distribution: str
    package: str
    sources: tuple[tuple[str, str], ...]


_QTAWESOME = ("QtAwesome==1.4.2", "qtawesome")

ARTISTS: dict[str, Artist] = {
    artist.key: artist
    for artist in (
        Artist(
            "elusive",
            "Elusive Icons 2.0",
            "OFL-1.1",
            "http://elusiveicons.com",
            *_QTAWESOME,
            (
                (
                    "fonts/elusiveicons-webfont-2.0.ttf",
                    "29b93f3fe666bf73dcc857869aee47532f710c0a16959c6275dc5bc2e3be4c9e",
                ),
                (
                    "fonts/elusiveicons-webfont-charmap-2.0.json",
                    "be05507fc31c47f89910983b030fec906ee86861a79b8e03b1f24029699679e8",
                ),
            ),
        ),
        Artist(
            "fontawesome",
            "Font Awesome Free 6.7.2 (solid)",
            "OFL-1.1 (font), CC-BY-4.0 (icons)",
            "https://fontawesome.com",
            *_QTAWESOME,
            (
                (
                    "fonts/fontawesome6-solid-webfont-6.7.2.ttf",
                    "220d6d592b543eb991b8c11137ef0082c27d6ff6fdaa25e4335945f57a487c6c",
                ),
                (
                    "fonts/fontawesome6-solid-webfont-charmap-6.7.2.json",
                    "48607f738a71763a3557abe077133ff36b48b1bfa27d2f0d25b5a5c1f8a89127",
                ),
            ),
        ),
        Artist(
            "lucide",
            "Lucide 0.575.0",
            "ISC",
            "https://lucide.dev",
            "justmyresource-lucide==0.575.0",
            "justmyresource_lucide",
            (("icons.zip", "ae6aa719b37a6d72870525132f9e947052af968315542e14e39164b5139a1af3"),),
        ),
        Artist(
            "mdi",
            "Material Design Icons 6.9.96",
            "Apache-2.0",
            "https://pictogrammers.com/library/mdi",
            *_QTAWESOME,
            (
                (
                    "fonts/materialdesignicons6-webfont-6.9.96.ttf",
                    "be825c1294d3c4f046c8e496b18f8f0c7d2864e339c81bdab9297f17ffac1938",
                ),
                (
                    "fonts/materialdesignicons6-webfont-charmap-6.9.96.json",
                    "6317242191c4c889dec2c174f98dda0f309745d28c23c50a19bbbaf02df930a9",
                ),
            ),
        ),
        Artist(
            "noto",
            "Noto Emoji (monochrome)",
            "OFL-1.1",
            "https://github.com/googlefonts/noto-emoji",
            "manimgx-fonts==2026.9.26.post1",
            "manimgx_fonts",
            (
                (
                    "NotoEmoji[wght].ttf",
                    "de6c18832938afc99caf132b39d6a30a19bac7f2e812e28db2535b4608d27551",
                ),
            ),
        ),
        Artist(
            "phosphor",
            "Phosphor 1.3.0",
            "MIT",
            "https://phosphoricons.com",
            *_QTAWESOME,
            (
                (
                    "fonts/phosphor-1.3.0.ttf",
                    "351874de64758f3b7fb405cd078ac0ed5ffb9717fb5b9b10013ac03d4c13680b",
                ),
                (
                    "fonts/phosphor-charmap-1.3.0.json",
                    "cfb725868f72d741422002f1ed4f870bdddebc32344a6407b8becb6c841b92ca",
                ),
            ),
        ),
        Artist(
            "remix",
            "Remix Icon 2.5.0",
            "Apache-2.0",
            "https://remixicon.com",
            *_QTAWESOME,
            (
                (
                    "fonts/remixicon-2.5.0.ttf",
                    "0ac8bc3ccea26ed47e96844ef26675969c669714d723c081101e51799d501520",
                ),
                (
                    "fonts/remixicon-charmap-2.5.0.json",
                    "b90a112e76fc5f7f64d20bb5ec422fc9c7511d1f32be61c0f7d3b7a3933d4c0a",
                ),
            ),
        ),
    )
}


@dataclass(frozen=True, order=True)
class Drawing:
    """One artist's picture of one thing.

    Args:
        label: The class.
        artist: The artist's key.
        glyph: The artist's own name for it.
    """

    label: str
    artist: str
    glyph: str

    @property
    def name(self) -> str:
        """The drawing's name, unique within the set.

        >>> Drawing("cat", "noto", "cat face").name
        'noto/cat face'
        """
        return f"{self.artist}/{self.glyph}"


def drawings(*, min_artists: int = 4) -> list[Drawing]:
    """List the curated drawings of all available artists, sorted by label, artist and glyph.

    Args:
        min_artists: Classes drawn by fewer artists are left out; four, because a ceiling compares
            two halves of at least two artists each.

    Returns:
        The drawings.

    >>> all(a < b for a, b in zip(drawings(), drawings()[1:], strict=False))
    True
    """
    missing = missing_artists()
    available = [drawing for drawing in _manifest() if drawing.artist not in missing]
    n_artists = Counter(label for label, _ in {(d.label, d.artist) for d in available})
    return [drawing for drawing in available if n_artists[drawing.label] >= min_artists]


def missing_artists() -> dict[str, str]:
    """The artists whose drawings cannot be read, and why.

    Returns:
        A reason in words by artist key.

    >>> sorted(set(missing_artists()) - set(ARTISTS))
    []
    """
    reasons = {key: _problem(artist) for key, artist in ARTISTS.items()}
    return {key: reason for key, reason in reasons.items() if reason}


def artwork_fingerprint() -> str:
    """Hash what pictures are drawn from: the manifest, and every source file of available artists.

    Returns:
        The SHA-256 in hexadecimal.

    >>> len(artwork_fingerprint())
    64
    """
    whole = hashlib.sha256(MANIFEST.read_bytes().replace(b"\r\n", b"\n"))
    missing = missing_artists()
    for key, artist in sorted(ARTISTS.items()):
        if key not in missing:
            whole.update(
                "".join(f"{key} {path} {sha256}\n" for path, sha256 in artist.sources).encode()
            )
    return whole.hexdigest()


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

    >>> heart = next(d for d in drawings() if d.label == "heart")
    >>> ink(heart, 64).shape, float(ink(heart, 64).max())
    ((64, 64), 1.0)
    """
    reason = missing_artists().get(drawing.artist)
    if reason:
        raise DataError(
            f"draw {drawing.name}",
            f"an artist whose package is amiss: {reason}",
            "the pinned package",
            f"install {ARTISTS[drawing.artist].distribution}",
        )
    raw = _raster(ARTISTS[drawing.artist], drawing.glyph, 4 * size)
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


@lru_cache(maxsize=1)
def _manifest() -> tuple[Drawing, ...]:
    with MANIFEST.open(encoding="utf-8", newline="") as lines:
        return tuple(sorted(Drawing(**row) for row in csv.DictReader(lines)))


@lru_cache(maxsize=64)
def _problem(artist: Artist) -> str | None:
    folder = _folder(artist.package)
    if folder is None:
        return f"{artist.package} is not installed; pip install {artist.distribution}"
    for name, expected in artist.sources:
        path = folder / name
        if not path.is_file():
            return f"{artist.package} has no {name}; pip install {artist.distribution}"
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != expected:
            return (
                f"{artist.package}/{name} has SHA-256 {actual[:12]}, expected {expected[:12]}; "
                f"pip install {artist.distribution}"
            )
    return None


def _folder(package: str) -> Path | None:
    """Find a package's folder without importing it (one of them would start a GUI toolkit)."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _raster(artist: Artist, glyph: str, size: int) -> Image.Image:
    """Draw a glyph unchanged in a large frame: grey image, 255 = ink."""
    if artist.sources[0][0].endswith(".zip"):
        return _svg(artist, glyph, size)
    font = _font(artist, size // 2)
    canvas = Image.new("L", (size, size))
    text = _character(artist, glyph)
    ImageDraw.Draw(canvas).text((size // 2, size // 2), text, fill=255, font=font, anchor="mm")
    return canvas


def _svg(artist: Artist, glyph: str, size: int) -> Image.Image:
    from resvg_py import svg_to_bytes

    svg = _icons(artist)[f"{glyph}.svg"].decode().replace("currentColor", "black")
    png = svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA").getchannel("A")


@lru_cache(maxsize=8)
def _icons(artist: Artist) -> dict[str, bytes]:
    with zipfile.ZipFile(_path(artist, 0)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".svg")}


@lru_cache(maxsize=32)
def _font(artist: Artist, size: int) -> ImageFont.FreeTypeFont:
    engine = ImageFont.Layout.BASIC
    font = ImageFont.truetype(io.BytesIO(_path(artist, 0).read_bytes()), size, layout_engine=engine)
    if len(artist.sources) == 1:  # the variable font opens at its lightest weight
        font.set_variation_by_axes([400])
    return font


@lru_cache(maxsize=32)
def _charmap(artist: Artist) -> dict[str, str]:
    return json.loads(_path(artist, 1).read_text(encoding="utf-8"))


def _character(artist: Artist, glyph: str) -> str:
    if len(artist.sources) == 1:
        return unicodedata.lookup(glyph)
    return chr(int(_charmap(artist)[glyph], 16))


def _path(artist: Artist, index: int) -> Path:
    folder = _folder(artist.package)
    if folder is None:
        raise DataError(
            f"draw from {artist.name}",
            f"{_problem(artist)}",
            "the pinned package",
            f"install {artist.distribution}",
        )
    return folder / artist.sources[index][0]

"""The drawings of the embedded study as ink, from the packages of the artists who made them.

No drawing is stored here. The manifest beside this file (`drawings.csv`, chosen by eye) says which
glyph of which artist shows which thing; `artists.toml` says where an artist's glyphs are. They stay
in packages installed by pip, are read as files without importing those packages, and are used only
if their hash is the one that the manifest was curated on. An artist whose package is missing or
changed is left out and named by `missing_artists`; the study uses the others.

There are two editions: 1 has seven artists, 2 has sixteen, and no drawing that is near to another
artist's of the same thing.
"""

import csv
import hashlib
import io
import json
import re
import tomllib
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from interp.core.errors import DataError
from interp.core.images import ImageTable

MANIFEST = Path(__file__).with_name("drawings.csv")
EDITIONS = 1, 2
LATEST = EDITIONS[-1]
RASTERISER = "resvg-py"
"""The pip package that SVG files are drawn with."""


@dataclass(frozen=True)
class Artist:
    """One artist: all families and weights of one icon set count as the same artist.

    Args:
        key: Short name.
        name: Name and version of the icon set.
        licence: Its licence.
        credit: Its web address.
        distribution: The pip package that holds it, pinned.
        package: The Python package within.
        kind: How glyphs are found in its files; see `artists.toml`.
        editions: The editions of the study that draw on it.
        files: Files (or a folder) inside the package, each with the SHA-256 that the manifest was
            curated on.
    """

    key: str
    name: str
    licence: str
    credit: str
    distribution: str
    package: str
    kind: str
    editions: tuple[int, ...]
    files: tuple[tuple[str, str], ...]

    def paths(self) -> list[Path]:
        """Where its files are.

        Raises:
            DataError: If the package is not installed.
        """
        folder = _folder(self.package)
        if folder is None:
            do = f"install {self.distribution}"
            raise DataError(f"draw from {self.name}", f"{_problem(self)}", "the pinned package", do)
        return [folder / name for name, _ in self.files]


def _read_artists() -> dict[str, Artist]:
    told = tomllib.loads(Path(__file__).with_name("artists.toml").read_text(encoding="utf-8"))
    return {
        key: Artist(
            key,
            **about
            | {"editions": tuple(about["editions"]), "files": tuple(map(tuple, about["files"]))},
        )
        for key, about in told.items()
    }


ARTISTS: dict[str, Artist] = _read_artists()


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


def drawings(*, min_artists: int = 4, edition: int = LATEST) -> list[Drawing]:
    """List the curated drawings of all available artists, sorted by label, artist and glyph.

    Args:
        min_artists: Classes drawn by fewer artists are left out; four, because a ceiling compares
            two halves of at least two artists each.
        edition: 1 or 2.

    Returns:
        The drawings.

    >>> all(a < b for a, b in zip(drawings(), drawings()[1:], strict=False))
    True
    """
    missing = missing_artists(edition=edition)
    available = [drawing for drawing in _manifest(edition) if drawing.artist not in missing]
    n_artists = Counter(label for label, _ in {(d.label, d.artist) for d in available})
    return [drawing for drawing in available if n_artists[drawing.label] >= min_artists]


def missing_artists(*, edition: int = LATEST) -> dict[str, str]:
    """The artists of an edition whose drawings cannot be read, and why.

    Args:
        edition: 1 or 2.

    Returns:
        A reason in words by artist key.

    >>> sorted(set(missing_artists()) - set(ARTISTS))
    []
    """
    own = {key: artist for key, artist in ARTISTS.items() if edition in artist.editions}
    reasons = {key: _problem(artist) for key, artist in own.items()}
    return {key: reason for key, reason in reasons.items() if reason}


def to_install(missing: Mapping[str, str]) -> str:
    """What brings the artists that are missing, as pip takes it.

    >>> to_install({"noto": "...", "remix": "...", "mdi": "..."})
    'pip install QtAwesome==1.4.2 manimgx-fonts==2026.9.26.post1'
    >>> to_install({"heroicons": "..."})
    'pip install justmyresource-heroicons==2.2.0.post1 resvg-py'
    """
    artists = [ARTISTS[key] for key in missing]
    named = {artist.distribution for artist in artists}
    named |= {RASTERISER for artist in artists if artist.kind.startswith("svg")}
    return f"pip install {' '.join(sorted(named))}"


def artwork_fingerprint(*, edition: int = LATEST) -> str:
    """Hash what pictures are drawn from: an edition's drawings, and the files of its artists.

    Args:
        edition: 1 or 2.

    Returns:
        The SHA-256 in hexadecimal; artists that are missing do not count.

    >>> len(artwork_fingerprint())
    64
    """
    whole = hashlib.sha256(repr(_manifest(edition)).encode())
    missing = missing_artists(edition=edition)
    for key, artist in sorted(ARTISTS.items()):
        if edition in artist.editions and key not in missing:
            whole.update(
                "".join(f"{key} {path} {digest}\n" for path, digest in artist.files).encode()
            )
    return whole.hexdigest()


@lru_cache(maxsize=len(EDITIONS))
def _manifest(edition: int) -> tuple[Drawing, ...]:
    with MANIFEST.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if str(edition) in row.pop("editions").split()]
    return tuple(sorted(Drawing(**row) for row in rows))


@lru_cache(maxsize=64)
def _problem(artist: Artist) -> str | None:
    folder = _folder(artist.package)
    if folder is None:
        return f"{artist.package} is not installed; pip install {artist.distribution}"
    if artist.kind.startswith("svg") and find_spec("resvg_py") is None:
        return f"{RASTERISER} is not installed, which draws its files; pip install {RASTERISER}"
    for name, expected in artist.files:
        actual = _digest(folder / name)
        if actual is None:
            return f"{artist.package} has no {name}; pip install {artist.distribution}"
        if actual != expected:
            return (
                f"{artist.package}/{name} has SHA-256 {actual[:12]}, expected {expected[:12]}; "
                f"pip install {artist.distribution}"
            )
    return None


def _digest(place: Path) -> str | None:
    """SHA-256 of a file, or of a folder's pictures by name; None if there is nothing."""
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()
    if not place.is_dir():
        return None
    lines = (f"{file.name} {_digest(file)}\n" for file in sorted(place.glob("*.svg")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folder(package: str) -> Path | None:
    """Find a package's folder without importing it (one of them would start a GUI toolkit)."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


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
        given = f"an artist whose package is amiss: {reason}"
        right = "the pinned package"
        raise DataError(f"draw {drawing.name}", given, right, f"install {artist.distribution}")
    raw = _raster(artist, drawing.glyph, 4 * size)
    box = raw.point([255 * (value > 16) for value in range(256)]).getbbox()
    if box is None:
        do = f"check its line in {MANIFEST.name}"
        raise DataError(f"draw {drawing.name}", "an empty glyph", "one with ink in it", do)
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
    given = "a name that its font does not have"
    do = f"check its line in {MANIFEST.name}"
    raise DataError(f"draw {artist.key}/{glyph}", given, "a glyph of the font", do)


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


def credit(images: ImageTable) -> list[dict[str, object]]:
    """The artists whose drawings the pictures are made from, with their licences."""
    if "artist" not in images.frame.columns:
        return []
    drawn = images.frame.groupby("artist")["drawing"].nunique()
    return [
        {
            "artist": ARTISTS[key].name,
            "licence": ARTISTS[key].licence,
            "url": ARTISTS[key].credit,
            "drawings": int(n),
        }
        for key, n in drawn.items()
        if key in ARTISTS
    ]

"""Tables, pictures and figures embedded in the page, so that it needs no network."""

import base64
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from interp.core.illustrations import GAP, Plate
from interp.report.grammar.pieces import Figure
from interp.report.loaded import LoadedResult
from interp.report.naming import ordered_settings

PAGE_BYTES = 14_500_000
"""What a page may weigh: plotly has 4.8 MB of it, and tables what figures and pictures leave."""

FRAME_BYTES = 6_200_000
"""Of these, what plotly, words, the map and the beginnings of tables take at least."""

TABLE_BYTES = 6_000_000
"""What all embedded tables may weigh at most."""

PLATE_BYTES, SHEET_BYTES, STRIP_BYTES = 3_500_000, 2_000_000, 1_500_000
"""What plates may weigh together, what sheets of all classes may, and what strips of nodes."""

WIDEST_PLATE = 1200
PREVIEW_ROWS = 200


@dataclass(frozen=True)
class Download:
    """A table in the page: its CSV compressed, whole or (`cut`) its first rows only."""

    name: str
    rows: int
    size: int
    payload: str
    cut: bool


def downloads(result: LoadedResult, room: int = PAGE_BYTES) -> dict[str, Download]:
    """Every table's CSV, byte for byte; the largest only begin here if all would not fit.

    `room` is what the rest of the page leaves, in bytes.
    """
    raw = {name: result.csv(name) for name in result.tables}
    found: dict[str, Download] = {}
    left = min(TABLE_BYTES, room)
    packed = {name: _packed(data) for name, data in raw.items()}
    for name in sorted(packed, key=lambda name: len(packed[name])):
        payload, cut = packed[name], len(packed[name]) > left
        if cut:
            frame = result.tables[name].frame.head(PREVIEW_ROWS)
            payload = _packed(frame.to_csv(index=False))
        left -= len(payload)
        found[name] = Download(name, len(result.tables[name]), len(raw[name]), payload, cut)
    return found


def _packed(data: bytes | str) -> str:
    """gzip, without the clock in its header, as base64."""
    raw = data.encode() if isinstance(data, str) else data
    return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()


def script_json(thing: object) -> str:
    """JSON that can stand inside a script element, whatever text it holds.

    >>> script_json({"name": "</script>"})
    '{"name": "\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(thing, ensure_ascii=False, allow_nan=False)
    unsafe = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    for sign, escape in {**unsafe, "\u2029": "\\u2029"}.items():
        text = text.replace(sign, escape)
    return text


def figure_data(figures: Sequence[Figure], first: Figure | None) -> dict[str, str]:
    """Each figure by name, as page.js reads it when it comes into view.

    The first one, which is drawn before the page is there, as JSON; the others compressed.
    """
    return {
        figure.name: _figure_json(figure) if figure is first else _packed(_figure_json(figure))
        for figure in figures
    }


def _figure_json(figure: Figure) -> str:
    return script_json(
        {
            "data": _short(list(figure.data)),
            "layout": figure.layout,
            "selected": [choice.selected for choice in figure.choices],
        }
    )


def _short(thing: object) -> object:
    """The same with five significant digits: more cannot be seen, and weighs three times as much.

    >>> _short({"x": [0.123456789, 12345678, None]})
    {'x': [0.12346, 12345678, None]}
    """
    if isinstance(thing, float):
        return float(f"{thing:.5g}")
    if isinstance(thing, Mapping):
        return {name: _short(value) for name, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [_short(value) for value in thing]
    return thing


def compressed(thing: object) -> str:
    """JSON, compressed: what is unpacked only when it is looked at."""
    return _packed(json.dumps(thing, ensure_ascii=False, allow_nan=False))


@dataclass(frozen=True)
class Thumbnail:
    """A plate in the page."""

    name: str
    source: str
    caption: str
    keys: Mapping[str, str]
    width: int
    height: int


SHEET = "cells"
"""The `kind` of a plate that holds a picture of every class in a domain."""


UNITS = "units"
"""The `kind` of a plate of what units respond to."""

NODES = "nodes"
"""The `kind` of a plate of strips, one for each node of a model's circuits."""

KEYED = ("setting", "test_domain", "seed")
"""What tells the models of one result apart."""

CUT = (SHEET, NODES)
"""Plates that the page cuts into pieces, and does not show as they are."""


EXAMPLES = {
    "patching": "Which pictures patching moves most and least",
    UNITS: "What activates them, domains side by side",
}
"""What stands above the pictures of a section, by its anchor."""


@dataclass(frozen=True)
class SectionPictures:
    """The pictures of a section, and how many did not fit."""

    title: str
    plates: Sequence[Thumbnail]
    left_out: int


@dataclass(frozen=True)
class PagePictures:
    """Pictures of a page: of domains, of sections by anchor, of every class, of circuits' nodes."""

    domains: Sequence[Thumbnail]
    examples: Mapping[str, SectionPictures]
    sheets: Sequence[str]
    strips: Sequence[str]


def page_pictures(plates: Sequence[Plate], natural: str, taken: int) -> PagePictures:
    """Embed the plates of a result that fit beside what the figures take, in bytes."""
    order = ordered_settings(plate.keys.get("setting", "") for plate in plates)
    plates = sorted(plates, key=lambda p: (order.index(p.keys.get("setting", "")), p.name))
    every, nodes = sheets(plates, natural), strips(plates)
    left = PAGE_BYTES - FRAME_BYTES - taken - sum(map(len, [*every, *nodes]))
    shown = embedded_thumbnails(plates, natural, left)
    examples = {
        anchor: SectionPictures(title, own, n - len(own))
        for anchor, title in EXAMPLES.items()
        for own in [[plate for plate in shown if _section(plate) == anchor]]
        for n in [sum(_section(plate) == anchor for plate in plates)]
        if n
    }
    domains = [plate for plate in shown if "kind" not in plate.keys]
    return PagePictures(domains, examples, every, nodes)


def _section(plate: Plate | Thumbnail) -> str:
    """The section of a plate, by its kind; those of unknown kinds stand under patching."""
    kind = plate.keys.get("kind")
    if kind is None or kind in CUT:
        return ""
    return kind if kind in EXAMPLES else "patching"


def embedded_thumbnails(
    given: Sequence[Plate], natural: str, room: int = PLATE_BYTES
) -> list[Thumbnail]:
    """The plates of domains, natural domain first, then all others, as long as they fit.

    Units come last: theirs are the largest, and shall push out no other. `room` is what figures
    and other pictures leave, in bytes.
    """
    found, left = [], min(PLATE_BYTES, room)
    plates = [plate for plate in given if plate.keys.get("kind") not in CUT]
    plates.sort(key=lambda plate: _rank(plate, natural))  # within a rank they stay by setting
    for plate in plates:
        kind, data = encoded(plate.image, small=plate.keys.get("kind") == UNITS)
        source = f"data:{kind};base64,{data}"
        left -= len(source)
        if left < 0:
            break
        size = plate.image.size
        name = f"{len(found)}"  # plates are files, and their names may hold anything
        found.append(Thumbnail(name, source, plate.caption or plate.name, plate.keys, *size))
    return found


def _rank(plate: Plate, natural: str) -> int:
    """Domains first, the natural one before all, and units last."""
    kind = plate.keys.get("kind")
    return int(plate.keys.get("domain") != natural) if kind is None else 2 + (kind == UNITS)


def sheets(given: Sequence[Plate], natural: str) -> list[str]:
    """A picture of every class, one sheet a domain, natural first; none where they do not fit."""
    plates = [plate for plate in given if plate.keys.get("kind") == SHEET]
    plates.sort(key=lambda p: (p.keys.get("domain") != natural, p.name))
    names = ["labels", "size", "columns"]
    found = [_cut_plate(p, names, domain=p.keys.get("domain", "")) for p in plates]
    found = [one for one in found if one]
    return found if sum(map(len, found)) < SHEET_BYTES else []


def strips(given: Sequence[Plate]) -> list[str]:
    """The pictures of every node of a model's circuits, a strip each, as many models as fit."""
    names = ["nodes", "domains", "each", "size"]
    found = [
        _cut_plate(plate, names, model=node_key(plate.keys), gap=GAP, width=plate.image.width)
        for plate in given
        if plate.keys.get("kind") == NODES
    ]
    sizes = accumulate(map(len, found))
    return [one for one, size in zip(found, sizes, strict=True) if one and size <= STRIP_BYTES]


def _cut_plate(plate: Plate, names: Sequence[str], **words: object) -> str:
    """A picture as JSON, with what the page cuts it by; "" where another version wrote it."""
    try:
        by = {name: json.loads(plate.keys[name]) for name in names}
    except (KeyError, ValueError):
        return ""
    kind, data = encoded(plate.image, small=True)
    return script_json({**by, **words, "type": kind, "data": data})


def node_key(place: Mapping[str, Any]) -> str:
    """How a model is named where the pictures of its nodes are looked up.

    >>> node_key({"setting": "cg-high", "test_domain": "sketch", "seed": 0.0, "epoch": 9})
    'cg-high|sketch|0'
    """
    setting, test_domain, seed = (place.get(name, "") for name in KEYED)
    return f"{setting}|{test_domain}|{int(float(seed or 0))}"


def encoded(image: Image.Image, *, small: bool = False) -> tuple[str, str]:
    """A picture's type and base64: PNG, or as JPEG where that is large or `small` is asked."""
    stored, kind = _stored(image, "PNG"), "png"
    if small or len(stored) > 60_000:
        shrunk = image.copy()
        shrunk.thumbnail((WIDEST_PLATE, image.height), Image.Resampling.LANCZOS)
        other = _stored(shrunk, "JPEG", quality=70 if small else 88, optimize=True)
        if len(other) < len(stored):
            stored, kind = other, "jpeg"
    if kind == "png":  # packed again as small as can be: much slower, so once it is known to stay
        stored = _stored(image, "PNG", optimize=True)
    return f"image/{kind}", base64.b64encode(stored).decode()


def _stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def glossary_terms() -> list[tuple[str, list[tuple[str, str]]]]:
    """The glossary of the docs: each group with its terms and their meanings, as plain text."""
    text = (Path(__file__).parent / "glossary.md").read_text()
    groups = re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return [
        (
            name,
            [
                (term, re.sub(r"[`*]|<[^>]+>", "", meaning.replace("\n", " ")).strip())
                for term, meaning in re.findall(
                    r"^\*\*(.+?)\*\*: (.+?)(?=\n\n|\Z)", words, re.M | re.S
                )
            ],
        )
        for name, words in groups
    ]

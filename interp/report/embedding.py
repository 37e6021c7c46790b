"""How tables, pictures and figures are put into the page itself, so that it needs no network."""

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from interp.core.plates import Plate
from interp.report.figures import Figure
from interp.report.reading import Result

TABLE_BYTES = 6_000_000
"""What all embedded tables may weigh; with plotly's 4.8 MB the page stays below 15 MB."""

PLATE_BYTES = 2_000_000
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


def downloads(result: Result) -> dict[str, Download]:
    """Every table's CSV, byte for byte; the largest only begin here if all would not fit."""
    raw = {name: (result.folder / "tables" / f"{name}.csv").read_bytes() for name in result.tables}
    found: dict[str, Download] = {}
    left = TABLE_BYTES
    packed = {name: _packed(data) for name, data in raw.items()}
    for name in sorted(packed, key=lambda name: len(packed[name])):
        payload, cut = packed[name], len(packed[name]) > left
        if cut:
            frame = result.tables[name].frame.head(PREVIEW_ROWS)
            payload = _packed(frame.to_csv(index=False).encode())
        left -= len(payload)
        found[name] = Download(name, len(result.tables[name]), len(raw[name]), payload, cut)
    return found


def _packed(data: bytes) -> str:
    """gzip, without the clock in its header, as base64."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def script_json(thing: Any) -> str:
    """JSON that can stand inside a script element, whatever text it holds.

    >>> script_json({"name": "</script>"})
    '{"name": "\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(thing, ensure_ascii=False, allow_nan=False)
    unsafe = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    for sign, escape in {**unsafe, "\u2029": "\\u2029"}.items():
        text = text.replace(sign, escape)
    return text


def figure_json(figures: Sequence[Figure]) -> str:
    """The figures as page.js reads them."""
    return script_json(
        [
            {
                "name": figure.name,
                "data": list(figure.data),
                "layout": figure.layout,
                "selected": [choice.selected for choice in figure.choices],
            }
            for figure in figures
        ]
    )


@dataclass(frozen=True)
class Thumbnail:
    """A plate in the page."""

    source: str
    caption: str
    keys: Mapping[str, str]
    width: int
    height: int


def thumbnails(result: Result) -> list[Thumbnail]:
    """The plates, natural domain first, as long as they fit."""
    found, left = [], PLATE_BYTES
    natural = result.natural
    order = sorted(result.plates, key=lambda p: (p.keys.get("domain") != natural, p.name))
    for plate in order:
        source = _data_uri(plate)
        left -= len(source)
        if left < 0:
            break
        size = plate.image.size
        found.append(Thumbnail(source, plate.caption or plate.name, plate.keys, *size))
    return found


def _data_uri(plate: Plate) -> str:
    """A picture as PNG, or, where that is large, as a smaller JPEG."""
    buffer = io.BytesIO()
    plate.image.save(buffer, "PNG", optimize=True)
    kind = "png"
    if buffer.tell() > 150_000:
        image, buffer, kind = plate.image.copy(), io.BytesIO(), "jpeg"
        image.thumbnail((WIDEST_PLATE, WIDEST_PLATE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""Pictures from WebDataset shards: tars read by seeking, never unpacked.

A shard holds a few files per example, one after the other, under one key: `0001.jpg`, `0001.txt`
(its caption), `0001.json` (columns) or `0001.cls` (its class). Where each picture begins is found
out once and kept in the cache, after which any picture is one seek and one read away.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from braceexpand import braceexpand
from PIL import Image

from interp.core.errors import DataError, listed
from interp.core.images import ImageTable
from interp.core.pictures import UNREADABLE
from interp.core.progress import track
from interp.core.store import cache_folder, fingerprint, writable, write_atomic
from interp.data.rows import Opening, complete_rows
from interp.data.strays import DECODED, SUFFIXES, Strays

_BLOCK = 512
_INDEX = 1
"""Raise when an index holds anything else, so that old ones are not taken for new."""


@dataclass(frozen=True)
class ShardReader:
    """Reads the picture of a row from its tar: `tar_size` bytes from `tar_offset` on."""

    root: Path

    def __call__(self, row: pd.Series) -> Image.Image:
        """The picture in the row."""
        _, data = self.stored(row)
        with Image.open(BytesIO(data)) as image:
            return image.convert("RGB")

    def stored(self, row: pd.Series) -> tuple[str, bytes]:
        """The suffix (".jpg") and the bytes."""
        tar, _, member = str(row["path"]).rpartition(".tar/")
        with (self.root / f"{tar}.tar").open("rb") as handle:
            handle.seek(int(row["tar_offset"]))
            data = handle.read(int(row["tar_size"]))
        if len(data) < int(row["tar_size"]):
            raise OSError("the shard is cut short")
        return Path(member).suffix.lower(), data


def holds_shards(folder: Path) -> bool:
    """Whether a folder is one of shards: tars, and no folders that they were unpacked to."""
    return any(folder.glob("*.tar")) and not any(each.is_dir() for each in folder.iterdir())


def find_shards(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The tars of a folder, of a pattern `shards-{000000..000003}.tar`, or of a list of either.

    >>> [path.name for path in _expand("a-{08..10}.tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar']

    Raises `DataError` for tars that are not there, with count and first names.
    """
    many = [source] if isinstance(source, (str, Path)) else list(source)
    shards = [path for one in many for path in _expand(one)]
    gone = [path for path in shards if not path.is_file()]
    if gone or not shards:
        raise DataError(
            f"read shards from {listed(many, limit=2)}",
            f"{len(gone)} of {len(shards)} tars that are not there ({listed(gone, limit=3)})",
            "a folder of tars, or a pattern such as shards-{000000..000003}.tar",
            "check the path and the numbers",
        )
    return shards


def _expand(source: str | Path) -> list[Path]:
    if Path(source).is_dir():
        return sorted(Path(source).glob("*.tar"))
    try:
        return [Path(each) for each in braceexpand(str(source))]
    except ValueError:  # braces that do not close
        raise DataError(
            f"read shards from {source}",
            "braces that do not close",
            "a pattern such as shards-{000000..000003}.tar",
            "close them",
        ) from None


def open_shards(
    source: str | Path | Sequence[str | Path], opening: Opening | None = None
) -> ImageTable:
    """The image table of WebDataset shards, in the order of tars and of their members.

    Columns come from each example's JSON; a class from its `cls` and a caption from its `txt` where
    the JSON has none. Numbered classes are named by `Opening.labels`. Examples without a picture,
    and up to `DECODED` pictures that cannot be decoded, are skipped, counted and named.

    Raises `DataError` for tars that are missing, cut short, compressed, or hold no picture.
    """
    chosen, shards = opening or Opening(), find_shards(source)
    root = Path(commonpath([path.resolve().parent for path in shards]))
    asked = f"read shards in {root}"
    limit = max(1, DECODED // len(shards))
    found = [_index(path, limit) for path in track(shards, "index shards")]
    strays = Strays()
    rows: list[dict[str, Any]] = []
    for path, index in zip(shards, found, strict=True):
        inside = path.resolve().relative_to(root).as_posix()
        rows += [{**row, "path": f"{inside}/{row['path']}"} for row in index["rows"]]
        for kind, names in index["strays"].items():
            for name in names:
                strays.add(kind, Path(name))
    strays.report(root)
    if not rows:
        raise DataError(
            asked,
            f"no picture in {len(shards)} tars",
            f"members that end in {listed(SUFFIXES)}",
            "check what was packed",
        )
    frame = complete_rows(pd.DataFrame(rows), chosen, asked)
    key = fingerprint([(path.name, path.stat().st_size) for path in shards], rows, chosen.plain())
    return ImageTable(frame, root, root.name, key, ShardReader(root))


def _index(path: Path, limit: int) -> dict[str, Any]:
    """What a tar holds, read from the cache or found out and kept there."""
    state = path.stat()
    key = fingerprint(_INDEX, str(path.resolve()), state.st_size, state.st_mtime_ns, limit)
    kept = cache_folder() / "shards" / f"{key}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    strays: dict[str, list[str]] = {}
    rows = list(_examples(path, limit, strays))
    index = {"rows": rows, "strays": strays}
    write_atomic(writable(kept.parent, purpose="an index of shards") / kept.name, json.dumps(index))
    return index


def _examples(path: Path, limit: int, strays: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """One row per example; the first `limit` pictures are decoded to see that they are whole."""
    with path.open("rb") as handle:
        for key, members in _grouped(path):
            pictures = [m for m in members if Path(m.name).suffix.lower() in SUFFIXES]
            if not pictures:
                strays.setdefault("without a picture", []).append(key)
                continue
            picture, limit = pictures[0], limit - 1
            if limit >= 0 and not _decodes(_bytes(handle, picture)):
                strays.setdefault("broken", []).append(picture.name)
                continue
            yield {
                **_said(handle, members, path),
                "path": picture.name,
                "tar_offset": picture.offset_data,
                "tar_size": picture.size,
            }


def _grouped(path: Path) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """The members of each example: neighbours whose names agree up to the first dot."""
    asked = f"read the shard {path}"
    again = "copy or pack it again"
    group: list[tarfile.TarInfo] = []
    key, end = "", 0
    try:
        # "r:" reads plain tars only: nothing can be sought in a compressed one
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                own = f"{folder}/{name.split('.', 1)[0]}"
                if own != key and group:
                    yield key, group
                    group = []
                key = own
                group.append(member)
    except tarfile.ReadError as error:
        right = "a whole tar, not compressed"
        raise DataError(asked, f"a file that is none ({error})", right, again) from None
    if group:
        yield key, group
    # a tar that was cut between two members reads well to its end: the closing block tells
    with path.open("rb") as handle:
        handle.seek(end)
        if handle.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(asked, "a tar cut short", "one that ends in an empty block", again)


def _bytes(handle: Any, member: tarfile.TarInfo) -> bytes:
    handle.seek(member.offset_data)
    return handle.read(member.size)


def _decodes(data: bytes) -> bool:
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except UNREADABLE:
        return False
    return True


def _said(handle: Any, members: Sequence[tarfile.TarInfo], path: Path) -> dict[str, Any]:
    """The columns of an example: what its JSON says, then its class and its caption."""
    text: dict[str, str] = {}
    for member in members:
        kind = Path(member.name).suffix.lower()
        if kind in (".json", ".cls", ".txt"):
            text[kind] = _bytes(handle, member).decode("utf-8", errors="replace").strip()
    try:
        given = json.loads(text.get(".json", "{}"))
    except ValueError as error:
        raise DataError(
            f"read the shard {path}",
            f"JSON that does not read, beside {members[0].name} ({error})",
            "an object of columns",
            "pack it again",
        ) from None
    said = {k: v for k, v in given.items() if np.isscalar(v)} if isinstance(given, dict) else {}
    if ".cls" in text and not {"label", "class"} & set(said):
        said["label"] = text[".cls"]
    if ".txt" in text and "caption" not in said:
        said["caption"] = text[".txt"]
    return said

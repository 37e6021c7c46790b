"""Pictures from WebDataset shards, read by seeking in the tars without unpacking them.

A shard holds a few files per example, one after the other, under one key: `0001.jpg`, `0001.txt`
(its caption), `0001.json` (columns) or `0001.cls` (its class). The position of each picture is
indexed once and cached, after which any picture is one seek and one read.
"""

import io
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

from interp.core.errors import DataError, OutputError, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.storage.pictures import UNREADABLE, Stored
from interp.core.storage.store import cache_folder, fingerprint, replacing, writable, write_atomic
from interp.data.sources.rows import DECODED, SUFFIXES, Opening, Strays, complete_rows

_BLOCK = 512
_INDEX = 1
"""Raise when an index holds anything else, so that old ones are not taken for new."""


@dataclass(frozen=True)
class ShardReader:
    """Reads the picture of a row from its tar, `tar_size` bytes from `tar_offset` on.

    Args:
        root: The folder that paths are relative to.
    """

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
    """Whether a folder holds tars, and no folders that they were unpacked to.

    Args:
        folder: Any folder.

    Returns:
        True for a folder of shards.
    """
    return any(folder.glob("*.tar")) and not any(each.is_dir() for each in folder.iterdir())


def find_shards(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the tars of a folder or of a pattern such as `shards-{000000..000003}.tar`.

    Args:
        source: A folder, a pattern, or a list of either.

    Returns:
        The tars in order.

    Raises:
        DataError: For tars that are missing, with count and first names.

    >>> [path.name for path in _expand("a-{08..10}.tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    many = [source] if isinstance(source, (str, Path)) else list(source)
    shards = [path for one in many for path in _expand(one)]
    gone = [path for path in shards if not path.is_file()]
    if gone or not shards:
        given = f"{len(gone)} of {len(shards)} tars that are not there ({listed(gone, limit=3)})"
        right = "a folder of tars, or a pattern such as shards-{000000..000003}.tar"
        do = "check the path and the numbers"
        raise DataError(f"read shards from {listed(many, limit=2)}", given, right, do)
    return shards


def _expand(source: str | Path) -> list[Path]:
    if Path(source).is_dir():
        return sorted(Path(source).glob("*.tar"))
    try:
        return [Path(each) for each in braceexpand(str(source))]
    except ValueError:  # braces that do not close
        given = "braces that do not close"
        right = "a pattern such as shards-{000000..000003}.tar"
        raise DataError(f"read shards from {source}", given, right, "close them") from None


def open_shards(
    source: str | Path | Sequence[str | Path], opening: Opening | None = None
) -> ImageTable:
    """Open WebDataset shards, in the order of tars and of their members.

    Args:
        source: A folder of tars, a pattern, or a list of either.
        opening: What the source does not say itself; `labels` names numbered classes.

    Returns:
        The image table.

    Raises:
        DataError: For tars that are missing, cut short, compressed, or hold no picture.

    Notes:
        Columns come from each example's JSON, and where that is silent the class from its `cls` and
        the caption from its `txt`. Examples without a picture, and those of the first `DECODED`
        pictures that cannot be decoded, are skipped, counted and named.
    """
    chosen, shards = opening or Opening(), find_shards(source)
    root = Path(commonpath([path.resolve().parent for path in shards]))
    asked = f"read shards in {root}"
    limit = max(1, DECODED // len(shards))
    indexes = [_index(path, limit) for path in track(shards, "index shards")]
    strays = Strays()
    rows: list[dict[str, Any]] = []
    for path, index in zip(shards, indexes, strict=True):
        inside = path.resolve().relative_to(root).as_posix()
        rows += [{**row, "path": f"{inside}/{row['path']}"} for row in index["rows"]]
        for kind, names in index["strays"].items():
            for name in names:
                strays.add(kind, Path(name))
    strays.report(root)
    if not rows:
        right = f"members that end in {listed(SUFFIXES)}"
        raise DataError(asked, f"no picture in {len(shards)} tars", right, "check what was packed")
    frame = complete_rows(pd.DataFrame(rows), chosen, asked)
    key = fingerprint([(path.name, path.stat().st_size) for path in shards], rows, chosen.plain())
    return ImageTable(frame, root, root.name, key, ShardReader(root))


def _index(path: Path, limit: int) -> dict[str, Any]:
    """The contents of a tar, read from the cache or from the tar and then cached."""
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
    """A row per example; the first `limit` pictures are decoded to see that they are whole."""
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
                **_example_columns(handle, members, path),
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


def _example_columns(handle: Any, members: Sequence[tarfile.TarInfo], path: Path) -> dict[str, Any]:
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
    columns = {k: v for k, v in given.items() if np.isscalar(v)} if isinstance(given, dict) else {}
    if ".cls" in text and not {"label", "class"} & set(columns):
        columns["label"] = text[".cls"]
    if ".txt" in text and "caption" not in columns:
        columns["caption"] = text[".txt"]
    return columns


AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".webp")
"""Files that go into a shard unchanged: those that open_clip looks for."""


@door
def write_shards(
    images: ImageTable,
    folder: str | Path,
    *,
    per_shard: int = 1000,
    captions: Sequence[str] | None = None,
    seed: int | None = None,
) -> list[Path]:
    """Write pictures as `shards-000000.tar` and so on.

    Args:
        images: The pictures.
        folder: Where to write.
        per_shard: Pictures per tar.
        captions: A caption per row; None takes the column.
        seed: Shuffles the rows first, as training from shards needs; None keeps their order.

    Returns:
        The tars.

    Raises:
        DataError: For captions that do not fit the rows.
        OutputError: For a folder that holds shards of other pictures.

    Notes:
        Each example is a picture (the file as it is, or PNG), its caption and a JSON of the other
        columns, so that `open_images` gives the table back. `sizes.json` counts the examples of
        each tar for open_clip, `shards.json` describes what was packed. A shard gets its name when
        it is whole, so an interrupted call can be repeated and continues.

    >>> from tempfile import TemporaryDirectory
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": "cat", "domain": "real",
    ...                       "split": "train", "caption": "a cat"})
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (8, 8)))
    >>> with TemporaryDirectory() as folder:
    ...     [shard.name for shard in write_shards(images, folder, per_shard=1)]
    ['shards-000000.tar', 'shards-000001.tar']
    """
    words = list(images.caption) if captions is None else list(captions)
    if len(words) != len(images) or per_shard < 1 or not len(images):
        given = f"{len(images)} pictures, {len(words)} captions, per_shard = {per_shard}"
        right = "a caption for each of at least one picture, and at least one picture in a shard"
        raise DataError("write shards", given, right, "correct them")
    target = writable(Path(folder), purpose="shards")
    order = np.arange(len(images)) if seed is None else rng("shards", seed).permutation(len(images))
    starts = range(0, len(images), per_shard)
    _claim(target, images, words, {"per_shard": per_shard, "seed": seed})
    shards = [target / f"shards-{number:06d}.tar" for number in range(len(starts))]
    parts = [order[start : start + per_shard] for start in starts]
    for shard, rows in track(list(zip(shards, parts, strict=True)), "write shards"):
        if not shard.exists():
            with replacing(shard) as temporary:
                _write(temporary, images, rows, words)
    sizes = {shard.name: len(rows) for shard, rows in zip(shards, parts, strict=True)}
    write_atomic(target / "sizes.json", json.dumps(sizes, indent=1))
    return shards


def _claim(target: Path, images: ImageTable, words: list[str], how: dict[str, Any]) -> None:
    """Describe the folder in `shards.json`, or refuse one that is for other pictures."""
    content = images.frame.astype(str).to_csv(index=False)
    facts = {
        "pictures": len(images),
        "source": images.source,
        "source_hash": images.fingerprint,
        **how,
        "hash": fingerprint(images.fingerprint, content, words, how),
    }
    kept = target / "shards.json"
    there = json.loads(kept.read_text()) if kept.is_file() else None
    if there is not None and there.get("hash") != facts["hash"]:
        raise OutputError(
            f"write shards to {target}",
            f"a folder that holds {there.get('pictures')} pictures of {there.get('source')}, packed"
            " from other rows or in another way",
            "an empty folder, or the one of an interrupted call",
            "choose another folder, or remove this one",
        )
    write_atomic(kept, json.dumps(facts, indent=1))


def _write(path: Path, images: ImageTable, rows: np.ndarray, words: list[str]) -> None:
    """Write one shard; the same rows always give the same bytes."""
    with tarfile.open(path, "w") as tar:
        for row in map(int, rows):
            suffix, data = _encoded(images, row)
            columns = images.frame.iloc[row].to_dict()
            about = {k: _plain(v) for k, v in columns.items() if k not in ("path", "caption")}
            about = {k: v for k, v in about.items() if k not in ("tar_offset", "tar_size", "item")}
            text = json.dumps({**about, "original": str(columns["path"])})
            members = {suffix: data, ".txt": words[row].encode(), ".json": text.encode()}
            for kind, content in members.items():
                member = tarfile.TarInfo(f"{row:08d}{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _encoded(images: ImageTable, row: int) -> tuple[str, bytes]:
    """A picture as bytes: as it is stored where possible, else as PNG."""
    if not images.preparations:
        path = Path(str(images.path.iloc[row]))
        if images.reader is None and path.suffix.lower() in AS_THEY_ARE:
            images.picture(row)  # what is broken is refused here, not by whoever trains
            return path.suffix.lower(), (images.root / path).read_bytes()
        if isinstance(images.reader, Stored):
            suffix, data = images.reader.stored(images.frame.iloc[row])
            if suffix in AS_THEY_ARE:
                return suffix, data
    buffer = io.BytesIO()
    images.picture(row).save(buffer, format="PNG", compress_level=1)
    return ".png", buffer.getvalue()


def _plain(value: Any) -> Any:
    """A number as JSON writes it; what is missing as nothing."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain

"""Base sets: mostly natural image-text pairs that are added whole to every mixture of a study.

A base set is a TSV with the columns `filepath` and `title`, whose rows go into the mixture's own
TSV, or WebDataset shards, which the trainer reads beside it.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from interp.core.errors import DataError, listed
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.storage.store import cache_folder, file_hash, fingerprint, writable, write_atomic

PICTURES = ("jpg", "jpeg", "png", "webp")
CHUNK = 500_000
"""Rows of a TSV that are in memory at a time."""


@dataclass(frozen=True)
class BaseSet:
    """A base set: its path or pattern, `tsv`, `shards` or `split`, its number of pictures, a hash.

    A `split` is that of the pictures themselves. The hash of a TSV covers its content. That of
    shards covers their names, sizes and counts, since reading hundreds of gigabytes to hash them
    would take too long.
    """

    path: str
    kind: str
    pictures: int
    hash: str


@door
def open_base(source: str) -> BaseSet:
    """Look at a base set once, and keep what was found in the cache until its files change.

    Args:
        source: A TSV with the columns `filepath` and `title`, or WebDataset shards as one name or a
            pattern such as "cc3m/{00000..00331}.tar".

    Returns:
        The base set: its path, kind, number of pictures and hash.

    Raises:
        DataError: For files that are missing or do not read, a TSV without its columns, or no
            picture.

    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp()) / "captions.tsv"
    >>> _ = table.write_text("filepath" + chr(9) + "title" + chr(10) + "a.jpg" + chr(9) + "a cat")
    >>> open_base(str(table)).kind, open_base(str(table)).pictures
    ('tsv', 1)
    """
    files = _files(source)
    times = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    kept = cache_folder() / "bases" / f"{fingerprint(source, times)}.json"
    if kept.exists():
        return BaseSet(**json.loads(kept.read_text()))
    if is_shards(source):
        counts = [sum(1 for _ in _samples(path)) for path in track(files, "count the base set")]
        names = [path.name for path in files]
        sizes = [path.stat().st_size for path in files]
        found = BaseSet(source, "shards", sum(counts), fingerprint(names, sizes, counts))
    else:
        n = sum(len(chunk) for chunk in read_base(source))
        found = BaseSet(source, "tsv", n, file_hash(files[0]))
    if not found.pictures:
        raise DataError(
            f"add the base set {source}", "no picture in it", "at least one", "check the path"
        )
    writable(kept.parent, purpose="what is known of base sets")
    write_atomic(kept, json.dumps(asdict(found)))
    return found


def is_shards(source: str) -> bool:
    """Whether a base set is one of shards.

    >>> is_shards("cc3m/{00000..00331}.tar"), is_shards("imagenet.tsv")
    (True, False)
    """
    return source.endswith(".tar")


def read_base(source: str) -> Iterator[pd.DataFrame]:
    """The rows of a base TSV in chunks: `filepath` (made absolute) and `title`.

    Relative paths are those beside the TSV.
    """
    path = _files(source)[0]
    folder = f"{path.parent.resolve()}/"
    options = {"sep": "\t", "keep_default_na": False, "dtype": str, "chunksize": CHUNK}
    try:
        with pd.read_csv(path, **options) as chunks:
            for chunk in chunks:
                _check_columns(source, chunk)
                paths = [p if p.startswith("/") else folder + p for p in chunk["filepath"]]
                yield pd.DataFrame({"filepath": paths, "title": chunk["title"].to_numpy()})
    except (ValueError, OSError) as error:  # pandas' own parser errors are ValueErrors
        given = f"a file that does not read ({error})"
        right = "a TSV with the columns filepath and title"
        raise DataError(f"add the base set {source}", given, right, "check the file") from None


def _check_columns(source: str, chunk: pd.DataFrame) -> None:
    missing = [name for name in ("filepath", "title") if name not in chunk.columns]
    if missing:
        given = f"columns {listed(chunk.columns)} without {listed(missing)}"
        right = "tab-separated columns filepath and title"
        raise DataError(f"add the base set {source}", given, right, "mend its header")


def base_captions(source: str) -> Iterator[str]:
    """The captions of a base set, one after the other; shards are read for them."""
    if not is_shards(source):
        for chunk in read_base(source):
            yield from chunk["title"]
        return
    for path in track(_files(source), "read the base set's captions"):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith((".txt", ".json")) and (file := shard.extractfile(member)):
                    text = file.read().decode(errors="replace")
                    if member.name.endswith(".json"):
                        text = _caption_of(text)
                    if text:
                        yield text


def _caption_of(text: str) -> str:
    """The caption in a sample's JSON, where it has one (else its .txt has it)."""
    try:
        content = json.loads(text)
    except ValueError:
        return ""
    return str(content.get("caption", "")) if isinstance(content, dict) else ""


def _samples(path: Path) -> Iterator[str]:
    """Keys of the samples of a shard that hold a picture: its name up to the first dot."""
    try:
        with tarfile.open(path) as shard:
            last = None
            for member in shard:
                folder, _, name = member.name.rpartition("/")
                key, _, suffix = name.partition(".")
                if suffix.lower() in PICTURES and (folder, key) != last:
                    last = (folder, key)
                    yield f"{folder}/{key}"
    except (tarfile.TarError, EOFError, OSError) as error:
        given = f"a file that is cut short or no tar ({error})"
        right = "a WebDataset shard"
        raise DataError(f"read the shard {path}", given, right, "fetch or write it again") from None


def _files(source: str) -> list[Path]:
    """The files of a base set, a pattern's braces written out; all must be there."""
    files = [Path(name) for name in _written_out(source)]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(
            f"add the base set {source}",
            f"{len(missing)} of {len(files)} files that are not there ({listed(missing, limit=3)})",
            "a TSV with filepath and title, or shards like name-{00000..00099}.tar",
            "check the path",
        )
    return files


def _written_out(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for, as WebDataset reads it.

    >>> _written_out("cc-{08..10}.tar")
    ['cc-08.tar', 'cc-09.tar', 'cc-10.tar']
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = [str(k).zfill(len(first)) for k in range(int(first), int(last) + 1)]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [name for number in numbers for name in _written_out(f"{head}{number}{tail}")]

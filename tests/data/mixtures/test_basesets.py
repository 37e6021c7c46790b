"""Base sets: TSVs and shards counted once, and wrong ones refused."""

import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from interp.core.errors import DataError
from interp.data.mixtures import basesets
from interp.data.mixtures.basesets import base_captions, open_base, read_base


def write_shards(folder: Path, n: int = 3, shards: int = 2) -> str:
    """Shards of `n` samples each: picture, caption as text or JSON, and a class."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"part-{shard:02d}.tar", "w") as tar:
            for k in range(n):
                text = f"caption {shard} {k}"
                files = {"jpg": b"not read", "png": b"of the same", "cls": b"3"}
                files |= (
                    {"txt": text.encode()}
                    if k
                    else {"json": json.dumps({"caption": text}).encode()}
                )
                for suffix, content in files.items():
                    info = tarfile.TarInfo(f"{k:05d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(folder / "part-{00..01}.tar")


def test_shards_are_counted_and_their_captions_read(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "shards")
    found = open_base(pattern)
    assert (found.kind, found.pictures, found.path) == ("shards", 6, pattern)
    assert sorted(base_captions(pattern)) == [f"caption {s} {k}" for s in (0, 1) for k in range(3)]


def test_a_base_set_is_looked_at_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = write_shards(tmp_path / "shards")
    first = open_base(pattern)
    with monkeypatch.context() as patch:
        patch.setattr(basesets, "_samples", lambda path: pytest.fail("read again"))
        assert open_base(pattern) == first
    (tmp_path / "shards" / "part-01.tar").write_bytes(
        (tmp_path / "shards" / "part-00.tar").read_bytes() + b"\0" * 512
    )
    assert open_base(pattern).hash != first.hash


def test_webdataset_counts_the_same_samples(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    pattern, n = write_shards(tmp_path / "shards"), 0
    for path in (tmp_path / "shards").glob("*.tar"):
        with path.open("rb") as shard:
            files = [{"__url__": str(path), **file} for file in tar_file_iterator(shard)]
        n += len(list(group_by_keys(files)))
    assert open_base(pattern).pictures == n > 0


def test_a_tsv_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"extra": range(7), "title": list("abcdefg"), "filepath": list("1234567")})
    rows.to_csv(tmp_path / "base.tsv", sep="\t", index=False)
    monkeypatch.setattr(basesets, "CHUNK", 3)
    chunks = list(read_base(str(tmp_path / "base.tsv")))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert pd.concat(chunks)["filepath"].tolist() == [str(tmp_path / str(k)) for k in range(1, 8)]
    assert open_base(str(tmp_path / "base.tsv")).pictures == 7
    assert list(base_captions(str(tmp_path / "base.tsv"))) == list("abcdefg")


def test_wrong_base_sets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "columns.tsv").write_text("image\tcaption\n1\tone\n")
    (tmp_path / "commas.tsv").write_text("filepath,title\n1,one\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "header.tsv").write_text("filepath\ttitle\n")
    (tmp_path / "ragged.tsv").write_text("filepath\ttitle\n1\tone\n2\ttwo\tthree\tfour\n")
    for name, words in (
        ("nowhere.tsv", "1 of 1 files that are not there"),
        ("columns.tsv", "without filepath, title"),
        ("commas.tsv", "without filepath, title"),
        ("empty.tsv", "does not read"),
        ("header.tsv", "no picture in it"),
        ("ragged.tsv", "does not read"),
    ):
        with pytest.raises(DataError, match=words):
            open_base(str(tmp_path / name))
    pattern = write_shards(tmp_path / "shards")
    with pytest.raises(DataError, match="1 of 3 files that are not there"):
        open_base(pattern.replace("{00..01}", "{00..02}"))
    shard = tmp_path / "shards" / "part-01.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match="cut short"):
        open_base(pattern)

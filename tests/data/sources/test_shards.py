"""Shards: every picture is where its index says, and a tar that is not whole is refused."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError, PictureError
from interp.data.sources.shards import find_shards
from tests.data import made


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


PNG = made.PICTURES[1].png


def test_offsets_are_those_that_tar_unpacks(tmp_path: Path) -> None:
    images = open_images(made.shards(tmp_path))
    for row in (0, 9, 10, 23):
        tar, _, member = images.path.iloc[row].partition("/")
        with tarfile.open(tmp_path / tar) as peer:
            unpacked = peer.extractfile(member)
            assert unpacked is not None
            data = unpacked.read()
        place, size = images.tar_offset.iloc[row], images.tar_size.iloc[row]
        assert (tmp_path / tar).read_bytes()[place : place + size] == data


def test_a_shard_is_indexed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, tar_open = [], tarfile.open
    made.shards(tmp_path)
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a[0]) or tar_open(*a, **k))
    first = open_images(tmp_path)
    assert len(opened) == 3
    assert open_images(tmp_path).frame.equals(first.frame) and len(opened) == 3
    pack(tmp_path / "made-000.tar", {"x.png": PNG, "x.json": json.dumps(SAID).encode()})
    opened.clear()
    changed = open_images(tmp_path)
    assert len(opened) == 1 and len(changed) == 24 - 10 + 1
    assert changed.fingerprint != first.fingerprint


SAID = {"label": "cat", "domain": "real", "split": "test"}


def test_class_and_caption_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    pack(
        tmp_path / "a.tar",
        {
            "deep/er/1.png": PNG,
            "deep/er/1.cls": b"1\n",
            "deep/er/1.txt": "ein Käuzchen ".encode(),
            "deep/er/2.PNG": made.PICTURES[2].png,
            "deep/er/2.cls": b"0",
            "deep/er/2.txt": b"a cat",
        },
    )
    images = open_images(tmp_path, domain="photo", labels=["cat", "owl"])
    assert images.label.tolist() == ["owl", "cat"]
    assert images.caption.tolist() == ["ein Käuzchen", "a cat"]
    assert images.path.tolist() == ["a.tar/deep/er/1.png", "a.tar/deep/er/2.PNG"]
    assert made.number_of(images.picture(1)) == 2


def test_json_comes_first_and_its_other_columns_are_kept(tmp_path: Path) -> None:
    said = {**SAID, "caption": "said", "artist": "ann", "boxes": [1, 2], "year": 1999}
    pack(tmp_path / "a.tar", {"1.png": PNG, "1.cls": b"owl", "1.json": json.dumps(said).encode()})
    images = open_images(str(tmp_path / "a.tar"))
    row = images.frame.iloc[0]
    assert (row.label, row.caption, row.artist, row.year) == ("cat", "said", "ann", 1999)
    assert "boxes" not in images.frame.columns


def test_tars_of_several_folders_keep_apart(tmp_path: Path) -> None:
    made.shards(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    images = open_images([tmp_path / "a", f"{tmp_path}/b/made-{{000..002}}.tar"])
    assert len(images) == 48 and images.path.is_unique
    assert images.path.iloc[24] == "b/made-000.tar/0000.png"
    assert made.number_of(images.picture(47)) == 23


def test_examples_without_a_picture_and_broken_ones_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.dumps(SAID).encode()
    pack(
        tmp_path / "a.tar",
        {
            "1.json": said,
            "2.png": PNG[:40],
            "2.json": said,
            "3.png": made.PICTURES[3].png,
            "3.json": said,
        },
    )
    progress.set_quiet(False)
    images = [open_images(tmp_path) for _ in range(2)][1]  # the second time from the cache
    progress.set_quiet(True)
    assert len(images) == 1 and made.number_of(images.picture(0)) == 3
    line = capsys.readouterr().err
    assert line.count("1 without a picture (1)") == line.count("1 broken (2.png)") == 2


@pytest.mark.parametrize("blocks", [1, 3, 8])
def test_a_tar_cut_short_is_refused(tmp_path: Path, blocks: int) -> None:
    """Cut in the middle of a member, and cleanly between two members."""
    path = made.shards(tmp_path) / "made-001.tar"
    with tarfile.open(path) as tar:
        ends = [m.offset for m in tar.getmembers()]
    whole = path.read_bytes()
    for length in (ends[blocks], ends[blocks] + 700, ends[blocks] + 100):
        path.write_bytes(whole[:length])
        with pytest.raises(
            DataError, match=r"made-001\.tar: given .*(cut short|unexpected end|tr)"
        ):
            open_images(tmp_path)
    path.write_bytes(whole)
    assert len(open_images(tmp_path)) == 24


def test_a_tar_that_shrinks_later_names_the_picture(tmp_path: Path) -> None:
    images = open_images(made.shards(tmp_path))
    (tmp_path / "made-002.tar").write_bytes(b"")
    with pytest.raises(PictureError, match=r"made-002\.tar/0023\.png.*cut short"):
        images.picture(23)
    assert made.number_of(images.picture(0)) == 0


def test_what_is_no_plain_tar_is_refused(tmp_path: Path) -> None:
    path = made.shards(tmp_path) / "made-000.tar"
    for content in (gzip.compress(path.read_bytes()), b"", b"x" * 2000):
        path.write_bytes(content)
        with pytest.raises(DataError, match="right would be a whole tar, not compressed"):
            open_images(tmp_path)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"1.txt": b"a"}, "no picture in 1 tars"),
        ({"1.png": PNG, "1.json": b"{"}, r"JSON that does not read, beside 1\.png"),
        ({"1.png": PNG}, "no label in the columns"),
        ({"1.png": PNG, "1.cls": b"cat"}, 'no domain in the columns.*domain="photo"'),
    ],
)
def test_what_is_refused(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    pack(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=words):
        open_images(tmp_path)


def test_missing_tars_are_counted_and_named(tmp_path: Path) -> None:
    made.shards(tmp_path)
    with pytest.raises(DataError, match=r"2 of 5 tars that are not there .*made-003\.tar, "):
        open_images(f"{tmp_path}/made-{{000..004}}.tar")
    with pytest.raises(DataError, match="braces that do not close"):
        open_images(f"{tmp_path}/made-{{000..004.tar")


def test_patterns_expand_as_the_peers_do(tmp_path: Path) -> None:
    from webdataset.shardlists import expand_urls

    made.shards(tmp_path)
    pattern = f"{tmp_path}/made-{{000..002}}.tar"
    assert [str(path) for path in find_shards(pattern)] == expand_urls(pattern)

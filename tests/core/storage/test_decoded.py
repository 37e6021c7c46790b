"""Decoded pictures: the same as from the file, never stale, never more than the limit."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.core.storage.pictures import Decoded


def write(path: Path, level: int, size: int = 10) -> Path:
    Image.new("RGB", (size, size), (level, 0, 0)).save(path)
    return path


def test_a_second_read_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded = write(tmp_path / "a.png", 7), Decoded()
    first = decoded.read(path)
    monkeypatch.setattr(Image, "open", None)
    again = decoded.read(path)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    again.putpixel((0, 0), (255, 255, 255))  # a caller's change stays with the caller
    assert decoded.read(path).getpixel((0, 0)) == first.getpixel((0, 0)) == (7, 0, 0)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, decoded = write(tmp_path / "a.png", 7), Decoded()
    decoded.read(path)
    write(path, 9)
    os.utime(path, ns=(1, 1))
    assert decoded.read(path).getpixel((0, 0)) == (9, 0, 0)


def test_no_more_is_kept_than_the_limit(tmp_path: Path) -> None:
    decoded = Decoded(limit=700)  # two pictures of 10 x 10
    paths = [write(tmp_path / f"{level}.png", level) for level in range(5)]
    for path in [*paths, *paths]:
        decoded.read(path)
        assert decoded.held <= 700
    assert decoded.held == 600
    large = write(tmp_path / "large.png", 1, size=20)
    assert decoded.read(large).size == (20, 20) and decoded.held == 600


def test_what_is_no_picture_raises_as_pillow_does(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    for path in (tmp_path / "a.png", tmp_path / "missing.png"):
        with pytest.raises(OSError):
            Decoded().read(path)

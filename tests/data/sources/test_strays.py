"""What is missing is found as a stat of each file would find it, and what is broken is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import DataError
from interp.data.sources import rows
from interp.data.sources.rows import Strays, missing, readable, refuse_missing
from tests.data import made


def test_missing_files_are_those_without_a_stat(tmp_path: Path) -> None:
    made.files(tmp_path)
    generator = np.random.default_rng(0)
    paths = pd.Series([each.path for each in made.PICTURES], index=range(100, 124))
    for path in generator.choice(paths, 7, replace=False):
        (tmp_path / path).unlink()
    mixed = paths.where(generator.random(24) < 0.5, [str(tmp_path / path) for path in paths])
    some = pd.concat([mixed, pd.Series(["x.png", "no/folder/x.png", "/x.png"])])
    naive = [not (tmp_path / path).is_file() for path in some]
    assert missing(tmp_path, some).tolist() == naive and 7 <= sum(naive) == 10


def test_nothing_missing_is_no_error(tmp_path: Path) -> None:
    made.files(tmp_path)
    paths = pd.Series([each.path for each in made.PICTURES])
    refuse_missing(tmp_path, paths, "look", "nothing")
    with pytest.raises(DataError, match=r"1 of 25 pictures that are not there \(a, looked for in"):
        refuse_missing(tmp_path, pd.concat([paths, pd.Series(["a"])]), "look", "mend it")


def test_many_files_are_opened_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made.large()
    contents = {"whole.png": whole, "cut.png": whole[: len(whole) // 2], "text.png": b"text"}
    paths = [tmp_path / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    found = Strays()
    assert readable(paths, found) == [True, False, False]
    assert str(found) == "2 broken (cut.png, text.png)"
    monkeypatch.setattr(rows, "DECODED", 2)
    assert readable(paths, Strays()) == [True, True, False]

"""Folders are complete or absent, tables and plates come back as they were saved."""

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.errors import DataError, OutputError, SpecificationError
from interp.core.illustrations import Plate
from interp.core.storage.store import complete, fingerprint, replacing, writable
from interp.core.tables import EVIDENCE, Table


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), complete(tmp_path / "step") as temporary:
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with complete(tmp_path / "step") as temporary:
        (temporary / "whole").write_text("whole")
        assert not (tmp_path / "step").exists()
    assert (tmp_path / "step" / "whole").read_text() == "whole"


def test_of_two_that_fill_a_folder_the_first_to_end_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    with complete(folder) as late:
        (late / "who").write_text("the last")
        folder.mkdir()  # another process's, complete before this one
        (folder / "who").write_text("the first")
    assert (folder / "who").read_text() == "the first"
    assert list(tmp_path.iterdir()) == [folder]
    with complete(folder) as again:  # a folder that was there is replaced
        (again / "who").write_text("anew")
    assert (folder / "who").read_text() == "anew"


def test_an_unwritable_folder_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--out"):
        writable(tmp_path / "file" / "folder", purpose="the study")


def test_fingerprints_tell_apart_and_agree() -> None:
    assert fingerprint({"a": 1}, [2]) == fingerprint({"a": 1}, (2,))
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_table_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"label": ["None", "nan, <b>"], "value": [0.1, np.nan], "reason": ["", "x"]}
    )
    saved = Table("accuracy", frame, {"seed": 1}).save(tmp_path)
    loaded = Table.load(saved)
    pd.testing.assert_frame_equal(loaded.frame, frame, check_dtype=False)
    assert loaded.facts["seed"] == 1


def test_evidence_may_not_be_left_out() -> None:
    with pytest.raises(SpecificationError, match="ceiling"):
        Table.with_evidence("cka", pd.DataFrame({"value": [1.0]}))
    full = pd.DataFrame({"value": [1.0], **{name: [np.nan] for name in EVIDENCE}})
    assert len(Table.with_evidence("cka", full)) == 1


def test_a_broken_table_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("value\n1\n")
    with pytest.raises(DataError, match="Run the study again"):
        Table.load(tmp_path / "x.csv")


def test_a_plate_keeps_its_caption_and_keys(tmp_path: Path) -> None:
    plate = Plate("p", Image.new("RGB", (3, 2), "red"), "a <caption> é", {"domain": "real"})
    loaded = Plate.load(plate.save(tmp_path))
    assert (loaded.caption, loaded.keys) == (plate.caption, {"domain": "real"})
    assert loaded.image.tobytes() == plate.image.tobytes()


def test_a_replaced_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with replacing(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_under_a_replaced_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a disk that is full"), replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")

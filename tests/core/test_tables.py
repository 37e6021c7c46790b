"""Tables: columns of one's own beside the declared ones."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from interp.core.errors import SpecificationError
from interp.core.tables import Table, read_frame, read_frames, stacked


def test_columns_of_ones_own_say_what_they_mean_and_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"value": [1.0, 2.0], "mood": ["007", "fine"], "speed": [3, 4]})
    own = {"mood": "how it felt", "speed": "pictures per second"}
    table = Table("mine", frame, own=own)
    again = Table.load(table.save(tmp_path))
    pd.testing.assert_frame_equal(again.frame, frame)
    assert again.own == own and again.describe()["speed"] == "pictures per second"
    with pytest.raises(SpecificationError, match="own="):
        Table("mine", frame, own={"mood": "how it felt"})


def test_a_table_loads_neither_models_nor_measures() -> None:
    """Tables are read in notebooks, where torch takes seconds to import."""
    code = """
import sys
import pandas as pd
from interp.core.tables import Table
Table("loss", pd.DataFrame({"mood": ["good"]}), own={"mood": "how it felt"}).describe()
sys.exit(any(name in sys.modules for name in ("torch", "interp.measures", "interp.declared")))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_files_read_at_once_are_what_each_gives_under_the_other(tmp_path: Path) -> None:
    """A column may be whole in one file and not in the next, or be in one alone."""
    frames = [
        pd.DataFrame({"label": ["007", "None"], "layer": [3, 4], "ok": [True, False]}),
        pd.DataFrame({"label": ["", "True"], "layer": [0.5, None], "setting": ["a", "b"]}),
        pd.DataFrame({"label": ["x"], "value": [1e-300]}),
    ]
    paths = [tmp_path / f"{number}.csv" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        frame.to_csv(path, index=False)
    for some in (paths, paths[:1]):
        found, each = read_frames(some), stacked(read_frame(path) for path in some)
        # words and flags that a file lacks are kept as objects where frames are stacked
        pd.testing.assert_frame_equal(found, each.astype(found.dtypes))
    assert read_frames(paths)["ok"].tolist() == [True, False, False, False, False]

"""Activations on disk: written in any order, by several, cut anywhere, never believed wrongly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.core.errors import DataError, OutputError
from interp.core.storage.activations import (
    FACTS,
    ActivationWriter,
    StoredActivations,
    begin_activations,
    numpy_format,
)

SITES: Any = {
    "blocks.0/a": {"shape": (2, 3), "dtype": "float32"},
    "blocks.0?a": {"shape": (1,), "dtype": "float16"},
    "half": {"shape": (4,), "dtype": "bfloat16"},
}
N = 7


def values(rows: range = range(N)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        site: generator.integers(1, 99, (N, *about["shape"])).astype(numpy_format(about["dtype"]))[
            rows.start : rows.stop
        ]
        for site, about in SITES.items()
    }


def write(folder: Path, *stretches: range, place: int = 0) -> ActivationWriter:
    begin_activations(folder, SITES, {"run": "a"}, N)
    writer = ActivationWriter(folder, place=place)
    for rows in stretches:
        writer.write(rows, values(rows))
    writer.close()
    return writer


def check_whole(folder: Path) -> None:
    for site, matrix in StoredActivations(folder).matrices().items():
        np.testing.assert_array_equal(matrix, values()[site])
        assert isinstance(matrix, np.memmap) and not matrix.flags.writeable


def test_rows_in_any_order_by_two_writers_are_a_whole(tmp_path: Path) -> None:
    write(tmp_path, range(5, 7), range(0, 2))
    stored = StoredActivations(tmp_path)
    assert not stored.finished and stored.reach() == N
    assert stored.missing(range(N)) == [range(2, 5)]
    assert stored.missing(range(3, 6)) == [range(3, 5)] and not stored.missing(range(2))
    with pytest.raises(OutputError, match="rows 2 to 4 that did not reach"):
        ActivationWriter(tmp_path).finish(N)
    writer = write(tmp_path, range(2, 4), range(4, 5), place=1)
    writer.finish(N)
    writer.finish(N)
    assert writer.finished and not writer.missing(range(N))
    check_whole(tmp_path)
    files = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert files == ["000-blocks.0_a.npy", "001-blocks.0_a.npy", "002-half.npy"]
    assert np.load(tmp_path / files[0]).shape == (N, 2, 3)  # numpy's own form


@pytest.mark.parametrize("where", ["rows-0.txt", "000-blocks.0_a.npy", "002-half.npy"])
def test_a_run_cut_at_any_byte_goes_on_to_the_same_rows(where: str, tmp_path: Path) -> None:
    write(tmp_path / "made", range(0, 3), range(3, 5), range(5, 7))
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    for length in range(0, len(made[where]) + 1, 3):
        folder = tmp_path / f"cut-{length}"
        folder.mkdir()
        for name, content in made.items():
            (folder / name).write_bytes(content[:length] if name == where else content)
        waiting = ActivationWriter(folder).missing(range(N))
        assert bool(waiting) == (length < len(made[where]) - (where == "rows-0.txt"))
        write(folder, *waiting).finish(N)
        check_whole(folder)


def test_lost_bytes_are_written_again(tmp_path: Path) -> None:
    write(tmp_path, range(0, 3), range(3, 7))
    file = tmp_path / "002-half.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    writer = ActivationWriter(tmp_path)
    assert writer.missing(range(N)) == [range(3, 7)]
    with pytest.raises(OutputError, match="did not reach the disk"):
        writer.finish(N)
    write(tmp_path, range(3, 7)).finish(N)
    check_whole(tmp_path)


def test_another_run_is_refused_once_a_row_is_written(tmp_path: Path) -> None:
    write(tmp_path)
    begin_activations(tmp_path, {"s": SITES["half"]}, {"run": "b"})
    assert [path.name for path in tmp_path.glob("*.npy")] == ["000-s.npy"]
    writer = ActivationWriter(tmp_path)
    writer.write(range(1), {"s": np.ones((1, 4))})
    writer.close()
    with pytest.raises(OutputError, match="another run and sites"):
        write(tmp_path)
    (tmp_path / FACTS).write_text("[1")
    with pytest.raises(DataError, match="does not read"):
        write(tmp_path)

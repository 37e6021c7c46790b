"""Archives: the tables of a study's models in one file, from which its result is made again.

An archive is a zip with a member for each table. A member has a line of comma-separated values for
each column: values of one kind stand together, so that they compress to a third of a CSV of rows.
Numbers have six significant digits, and the same tables are the same bytes.
"""

import csv
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO, TextIOWrapper
from pathlib import Path
from zipfile import ZIP_LZMA, BadZipFile, ZipFile, ZipInfo

import pandas as pd

from interp.core.errors import DataError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.storage.store import fingerprint, replacing, told_when_full
from interp.core.tables import Table, known_columns, typed
from interp.study.blocks import pictures_hash
from interp.study.grid import PLACE, Cell
from interp.study.specification import Specification

NAME = "archive.zip"
"""What the archive in a study's folder is called."""

RUNS, LOSSES = "runs", "losses"
"""The tables about training: a row for each run, and for each of its epochs."""

ADDED = {"steering": {"class_set": "seen"}}
"""Columns that tables had not at first, and what these would have said."""

DIGITS = 6
LAST, ALL = "last", "all"


def write_archive(path: Path, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write tables into one file, complete or not at all."""
    with told_when_full("the archive"), replacing(path) as temporary:
        with ZipFile(temporary, "w") as archive:
            for name in sorted(tables):
                text = StringIO()
                lines = csv.writer(text, lineterminator="\n")
                for column in tables[name]:
                    cells = StringIO(
                        tables[name][column].to_csv(index=False, float_format=f"%.{DIGITS}g")
                    )
                    lines.writerow([row[0] if row else "" for row in csv.reader(cells)])
                archive.writestr(ZipInfo(f"{name}.csv"), text.getvalue(), ZIP_LZMA)
    return path


def read_archive(path: str | Path, names: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """The tables of an archive (or some of them), typed as their columns are declared.

    Raises `DataError` for a file that is no archive or a part of one, and `SpecificationError` for
    a table that it lacks.
    """
    tables = {}
    try:
        with ZipFile(path) as archive:
            there = sorted(Path(member).stem for member in archive.namelist())
            if RUNS not in there:
                raise BadZipFile(f"a zip without the table {RUNS!r}")
            check_known("open an archive", "table", names, there, SpecificationError)
            for name in names or there:
                with archive.open(f"{name}.csv") as member:
                    lines = csv.reader(TextIOWrapper(member, encoding="utf-8", newline=""))
                    frame = pd.DataFrame({column: values for column, *values in lines}, dtype=str)
                tables[name] = typed(frame, known_columns(frame.columns))
                if name in ADDED and not {*ADDED[name]} & {*frame}:
                    tables[name] = tables[name].assign(**ADDED[name])
    except (OSError, EOFError, ValueError, BadZipFile, lzma.LZMAError, csv.Error) as error:
        given = "no such file" if not Path(path).exists() else f"what does not read ({error})"
        raise DataError(
            f"open the archive {path}",
            "a folder" if Path(path).is_dir() else given,
            f"a file that `interp-report run` wrote as {NAME}",
            "check the path, or copy the file again",
        ) from None
    return tables


def run_table(cells: Sequence[Cell], spec: Specification) -> pd.DataFrame:
    """A row for each run: where its results are filed, what it is, and how long it was trained."""
    rows = [
        {
            **{name: cell.place[name] for name in PLACE},
            "identity": identity(cell, spec),
            "n_pictures": cell.run.pictures,
            "epoch": cell.run.epochs,
        }
        for cell in cells
    ]
    return pd.DataFrame(rows)


def identity(cell: Cell, spec: Specification) -> str:
    """What a run is, in a hash that is the same on every machine.

    No path and no version is in it, nor how pictures come out on a machine: matrix products are
    summed in another order on processors without AVX-512, where 3 of 294 pictures in the domain
    real differed by one level of one pixel.
    """
    mixture = replace(cell.mixture, base="")  # whose path is of a machine
    return fingerprint(cell.run.recipe, cell.training, mixture, pictures_hash(spec, cell.block))


def tables_of(
    path: str | Path, cells: Sequence[Cell], spec: Specification
) -> dict[str, pd.DataFrame]:
    """The tables of an archive, of the models of some cells alone.

    Raises `DataError` where one of these runs is not in the archive, or was another.
    """
    tables = read_archive(path)
    kept = set(zip(*(tables[RUNS][name] for name in [*PLACE, "identity"]), strict=True))
    asked = run_table(cells, spec)
    missing = [
        f"{row[1]} ({row[2]}, {row[3]})"
        for row in asked[[*PLACE, "identity"]].itertuples(index=False, name=None)
        if row not in kept
    ]
    if missing:
        raise DataError(
            f"make a study's result from {path}",
            f"an archive without {len(missing)} of its {len(asked)} runs, such as "
            f"{listed(missing, limit=2)}",
            "the archive of this study, with all of its blocks",
            "name its own archive or fewer --blocks, or run the study",
        )
    block = ["architecture", "test_domain", "seed"]
    places = pd.MultiIndex.from_frame(asked[block].drop_duplicates())
    settings = {*asked["setting"], ""}  # an untrained model is of none
    own = {}
    for name, frame in tables.items():
        rows = pd.MultiIndex.from_frame(frame[block]).isin(places) & frame["setting"].isin(settings)
        if rows.any():
            own[name] = frame[rows].reset_index(drop=True)
    return own


@door
def open_runs(
    archive: str | Path, tables: Sequence[str] = (), *, epochs: str = LAST, architecture: str = ""
) -> dict[str, Table]:
    """Open the tables of a study's models, which its run wrote as one archive.

    Args:
        archive: The file: `archive.zip` in a study's folder.
        tables: Names of tables; empty takes all that there are.
        epochs: "last" takes each run's last epoch, and the untrained model where it was measured;
            "all" every kept epoch.
        architecture: Runs of this one alone ("resnet-small, supervised" are those on labels); empty
            takes all.

    Returns:
        Tables by name, the rows of all runs under one another: `setting`, `test_domain`, `seed`
        (the block), `architecture`, `epoch` and `control` tell them apart. `interp.verdict` takes
        them as they are.

    Raises:
        DataError: For a file that is no archive, or a part of one.
        SpecificationError: For a table or an architecture that no run has, or other epochs.

    >>> open_runs("no such file")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot open the archive no such file: given no such file, ...
    """
    asked = "open finished runs"
    check_known(asked, "choice of epochs", [epochs], (LAST, ALL), SpecificationError)
    runs = read_archive(archive, [RUNS])[RUNS]
    if architecture:
        known = sorted(set(runs["architecture"]))
        check_known(asked, "architecture", [architecture], known, SpecificationError)
        runs = runs[runs["architecture"] == architecture]
    last = runs.set_index(PLACE)["epoch"]
    facts = {"runs": str(archive), "n_runs": len(runs), "epochs": epochs}
    found = {}
    for name, frame in read_archive(archive, tables).items():
        if name in (RUNS, LOSSES) and name not in tables:
            continue
        rows = frame["architecture"].isin(runs["architecture"])
        if epochs == LAST and name not in (RUNS, LOSSES):
            end = last.reindex(pd.MultiIndex.from_frame(frame[PLACE])).to_numpy()
            rows &= (frame["epoch"] == 0) | (frame["epoch"] == end)
        if rows.any():
            found[name] = Table(name, frame[rows].reset_index(drop=True), facts)
    return found

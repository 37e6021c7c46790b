"""A finished study on disk: tables, plates and the facts needed to repeat it."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from interp.core.errors import DataError, check_known
from interp.core.illustrations import Plate
from interp.core.images import ImageTable
from interp.core.statistics.index_of_sharing import BARS
from interp.core.storage.store import write_atomic
from interp.core.tables import Table
from interp.data.artwork.packages import credit

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.clip import Clip

Facts: TypeAlias = dict[str, Any]
"""What is needed to repeat a result, as JSON holds it."""

PACKAGES = (
    "interp",
    "torch",
    "open_clip_torch",
    "transformer_lens",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pillow",
)


@dataclass(frozen=True)
class Result:
    """The folder of a finished study, with its tables, plates and facts.

    Args:
        folder: The folder.
        replications: Results of the study's other architectures.
    """

    folder: Path
    replications: tuple["Result", ...] = ()

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table by name."""
        return {
            path.stem: Table.load(path) for path in sorted((self.folder / "tables").glob("*.csv"))
        }

    @cached_property
    def facts(self) -> Facts:
        """What is needed to repeat it: specification, held-out classes, versions, seconds."""
        return json.loads((self.folder / "facts.json").read_text())

    @cached_property
    def figures(self) -> "dict[str, go.Figure]":
        """Every figure of the page by name, as plotly figures; see `interp.report`."""
        from interp.report import result_figures

        return result_figures(self.folder)

    def load_clip(
        self,
        setting: str,
        *,
        test_domain: str | None = None,
        seed: int | None = None,
        epoch: int | None = None,
        device: str = "cpu",
    ) -> "Clip":
        """Open a model that the study trained.

        Args:
            setting: Its mixture, as the tables call it.
            test_domain: Its test domain; None takes the first that fits.
            seed: Its seed or block; None takes the first that fits.
            epoch: One of its kept epochs, 0 for before training; None takes the last.
            device: Where it is put.

        Returns:
            The model.

        Raises:
            DataError: For a model that the study did not train or keep; the error lists the values
                that there are.
        """
        from interp.models.loading.load_clip import load_clip

        rows = pd.DataFrame(self.facts.get("checkpoints", []))
        asked = {"setting": setting, "test_domain": test_domain, "seed": seed, "epoch": epoch}
        if not len(rows):
            given = "a result that does not say where its checkpoints are"
            do = "run the study again: its finished steps are kept"
            raise DataError(f"open a model of {self.folder}", given, "a study's", do)
        for name, value in asked.items():
            if value is not None:
                check_known("open a model", name, [str(value)], sorted(set(map(str, rows[name]))))
                rows = rows[rows[name].astype(str) == str(value)]
        alike = rows[["test_domain", "seed"]].eq(rows[["test_domain", "seed"]].iloc[0]).all(axis=1)
        row = rows[alike].sort_values("epoch").iloc[-1]
        return load_clip(str(self.folder / str(row["path"])), device=device)

    def report(self, path: str | Path | None = None) -> Path:
        """Build the page of the result.

        Args:
            path: Where to write it; None is `report.html` in the result's folder.

        Returns:
            The page's path.
        """
        from interp.report import build_page

        return build_page(self.folder, Path(path) if path is not None else None)


def open_result(folder: Result | str | Path) -> Result:
    """Open the finished result in a folder, with those of its other architectures.

    Args:
        folder: The folder that a study was run into; a result that is open stays as it is.

    Returns:
        The result; its tables are read when they are asked for.

    Raises:
        DataError: For no folder, or one without readable facts or any table: a study that has not
            been carried out, or a folder of which a part was deleted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Table("losses", pd.DataFrame({"epoch": [1], "loss": [0.5]}))
    ...     _ = table.save(f"{folder}/tables")
    ...     _ = (Path(folder) / "facts.json").write_text('{"title": "A study"}')
    ...     result = open_result(folder)
    ...     list(result.tables), result.facts["title"]
    (['losses'], 'A study')
    """
    if isinstance(folder, Result):
        return folder
    source = Path(folder)
    facts, tables = source / "facts.json", source / "tables"
    given = ""
    if not source.is_dir():
        given = "a file" if source.exists() else "a folder that is not there"
    elif not facts.is_file():
        given = "a folder without a finished study (no facts.json)"
    elif not any(tables.glob("*.csv")):
        given = "a folder without tables"
    else:
        try:
            right = isinstance(json.loads(facts.read_text()), dict)
        except ValueError:  # UnicodeDecodeError is one
            right = False
        given = "" if right else "a facts.json that does not read"
    if given:
        raise DataError(
            f"open the result {source}",
            given,
            "a folder that `interp-report run` has filled",
            "run the study first, or name the folder that it went to",
        )
    others = sorted(path.parent for path in source.glob("*/facts.json"))
    return Result(source, tuple(Result(other) for other in others))


def write_result(
    folder: Path, frames: dict[str, pd.DataFrame], plates: Sequence[Plate], facts: Facts
) -> Result:
    """Write tables, plates and facts, ready for the page.

    What an earlier study left in the folder goes: its numbers would be taken for this one's. An
    audit stays, which is about pictures and no study's result.
    """
    for name, made in (("tables", {*frames, "audit"}), ("plates", {each.name for each in plates})):
        for old in (folder / name).glob("*"):
            if old.stem not in made:
                old.unlink()
    for name, frame in frames.items():
        Table(name, frame, {"spec_hash": facts["spec_hash"], "versions": facts["versions"]}).save(
            folder / "tables"
        )
    for plate in plates:
        plate.save(folder / "plates")
    write_atomic(folder / "facts.json", json.dumps(facts, indent=1, default=str))
    return Result(folder)


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def provenance(images: ImageTable, seconds: dict[str, float], device: str) -> Facts:
    """Versions, machine, seconds, and whose pictures they are."""
    return {
        "versions": {**versions(), "python": platform.python_version()},
        "bars": BARS,
        "seconds": seconds,
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "device": device},
        "source": images.source,
        "source_hash": images.fingerprint,
        "strays": "",
        "credits": credit(images),
    }

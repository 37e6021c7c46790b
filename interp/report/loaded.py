"""A result as the page reads it: facts, tables, plates, and what is missing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from interp.core.errors import DataError, InterpError
from interp.core.illustrations import Plate
from interp.core.tables import COLUMNS, Table, read_frame
from interp.declared.measures import all_measures
from interp.verdicts.judging import climb

COMPARED = ("mixtures", "losses", "differences")
"""Tables of a study's models side by side, that every study has."""

CONCLUDED = (
    *("exposure", "exposure_classes", "robustness", "epochs", "rungs", "ladder", "stability"),
    *("rungs_by_epoch", "levels", "together"),
    *("stitching", "model_similarity"),
    *("intervention", "intervention_classes", "intervention_directions"),
)
"""Tables of several models, or of several measures, that a run may do without."""

Frame: TypeAlias = pd.DataFrame
"""A table, as the page reads it: every declared column, typed."""

UNMADE = "the run did not make it"


@dataclass(frozen=True)
class LoadedResult:
    """A finished run: its `facts`, `tables` by name, `plates`, and why a table is `absent`."""

    folder: Path
    facts: Mapping[str, Any]
    tables: Mapping[str, Table]
    plates: Sequence[Plate] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    def csv(self, name: str) -> bytes:
        """A table's file, or one made of a table that was worked out when the result was read."""
        path = self.folder / "tables" / f"{name}.csv"
        if path.exists():
            return path.read_bytes()
        return self.tables[name].frame.to_csv(index=False).encode()

    @property
    def specification(self) -> Mapping[str, Any]:
        given = self.facts.get("specification")
        return given if isinstance(given, Mapping) else {}

    @property
    def one_model(self) -> bool:
        """Whether the run looked at one checkpoint, without settings to compare."""
        return self.facts.get("mode") == "model"

    @property
    def accuracy_only(self) -> bool:
        """Whether the run was a grid, which asks for accuracy and nothing else."""
        return self.facts.get("measured") == "accuracy"

    @property
    def partial(self) -> bool:
        """Whether a table may be absent without being missed."""
        return self.one_model or self.accuracy_only

    @property
    def natural(self) -> str:
        return str(self.specification.get("natural") or "real")

    @property
    def test_domains(self) -> list[str]:
        """Domains in which classes were held out, as the specification names them."""
        given = self.specification.get("test_domains") or []
        return [given] if isinstance(given, str) else [str(name) for name in given]

    @property
    def held_out(self) -> list[str]:
        """The held-out classes; none where each block has its own."""
        given = self.specification.get("held_out")
        return [str(name) for name in given] if isinstance(given, list) else []


def read_result(folder: Path) -> LoadedResult:
    """Read a result folder; a table that is not there or does not read is `absent`, with why."""
    facts = _facts(folder)
    tables: dict[str, Table] = {}
    absent: dict[str, str] = {}
    expected = expected_tables()
    for name in shown_tables():
        path = folder / "tables" / f"{name}.csv"
        if not path.exists():
            absent |= {name: UNMADE} if name in expected else {}
            continue
        try:
            tables[name] = Table(name, read_frame(path))
        except (OSError, ValueError, InterpError) as error:
            absent[name] = _why(error)
    result = LoadedResult(folder, facts, tables, _plates(folder / "plates"), absent)
    if "ladder" not in tables:  # a run of an earlier version, or one whose ladder was taken away
        frames = {name: whole(table.frame) for name, table in tables.items()}
        climbed = climb(frames, natural=result.natural)
        tables |= {name: Table(name, rows) for name, rows in climbed.items()}
    return result


def expected_tables() -> list[str]:
    """Tables that are missed where they are absent: a study's, and those a section asks for."""
    asked = [name for measure in all_measures() for one in measure.sections for name in one.tables]
    return list(dict.fromkeys([*COMPARED, *asked]))


def shown_tables() -> list[str]:
    """Every table that the page can show, those that are expected first."""
    made = [name for measure in all_measures() for name in measure.tables]
    return list(dict.fromkeys([*expected_tables(), *made, *CONCLUDED]))


def whole(frame: Frame) -> Frame:
    """A frame with every declared column: numbers as floats, and empty cells where it has none.

    >>> whole(pd.DataFrame({"layer": [3]}))[["layer", "value", "site"]].to_dict("records")
    [{'layer': 3.0, 'value': nan, 'site': ''}]
    """
    parts = []
    for holds, kind in KINDS.items():
        names = [name for name, column in COLUMNS.items() if column.holds == holds]
        cells = np.empty((len(frame), len(names)), dtype=kind)
        for place, name in enumerate(names):
            empty = COLUMNS[name].empty
            cells[:, place] = _cells(frame[name], kind, empty) if name in frame else empty
        parts.append(pd.DataFrame(cells, frame.index, names, dtype=kind))
    return pd.concat(parts, axis=1)[list(COLUMNS)]


KINDS: Mapping[str, type] = {"number": float, "text": object, "flag": bool}
"""What cells are in memory, by what a column holds."""


def _cells(given: pd.Series, kind: type, empty: object) -> np.ndarray:
    """A column's cells; words and flags of tables that were never saved may hold nothing."""
    if kind is float:
        return given.to_numpy(float)
    return given.astype(object).where(given.notna(), empty).to_numpy(kind)


def _why(error: Exception) -> str:
    if isinstance(error, pd.errors.EmptyDataError):
        return "its file is empty"
    return f"its file does not read: {error}".splitlines()[0].rstrip(".")


def _facts(folder: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads((folder / "facts.json").read_text())
    except (OSError, ValueError) as error:
        given = f"no readable facts.json ({error})"
        right = "the folder that a run wrote, with facts.json, tables/ and plates/"
        do = "name that folder, or run the study again"
        raise DataError(f"make a page from {folder}", given, right, do) from None
    if not isinstance(facts, dict):
        given = f"a facts.json that holds a {type(facts).__name__}"
        right = "an object of facts"
        raise DataError(f"make a page from {folder}", given, right, "run the study again")
    return facts


def _plates(folder: Path) -> list[Plate]:
    plates = []
    for path in sorted(folder.glob("*.png")):
        try:
            plates.append(Plate.load(path))
        except (OSError, ValueError, SyntaxError):  # Pillow says SyntaxError of a broken PNG
            continue
    return plates

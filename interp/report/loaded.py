"""A result as the page reads it: facts, tables, plates, and what is missing."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from interp.core.columns import COLUMNS
from interp.core.errors import DataError, InterpError, check_known
from interp.core.illustrations import Plate
from interp.core.tables import Table, read_frame
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

    def frame(self, name: str) -> Frame:
        """A table with every declared column, typed; without rows where the table is absent."""
        if name not in self._typed:
            check_known("read a result", "table", [name], {*shown_tables(), *self.tables})
            frame = whole(self.tables[name].frame if name in self.tables else pd.DataFrame())
            if self.one_model:  # nothing was held out from it, whatever domain it was asked about
                frame = frame.assign(test_domain="")
            self._typed[name] = frame
        return self._typed[name]

    def csv(self, name: str) -> bytes:
        """A table's file, or one made of a table that was worked out when the result was read."""
        path = self.folder / "tables" / f"{name}.csv"
        if path.exists():
            return path.read_bytes()
        return self.tables[name].frame.to_csv(index=False).encode()

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What several parts of the page work out of the tables, worked out once."""
        return {}

    @cached_property
    def _typed(self) -> dict[str, Frame]:
        """The tables that were asked for so far."""
        return {}

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

    @cached_property
    def domains(self) -> list[str]:
        """Every domain of the tables, the natural one first."""
        found: dict[str, None] = {}
        settled = {
            "mixtures": ["domain"],
            "accuracy": ["domain"],
            "similarity": ["domain_a", "domain_b"],
            "transfer": ["train_domain", "domain"],
            "transplant": ["domain_a", "domain_b"],
        }
        of_pairs = {name: ["domain_a", "domain_b"] for name in self.tables}
        for tables in (settled, of_pairs):  # a table on its own may be any
            for name, ends in tables.items():
                frame = self.frame(name)
                for column in [end for end in ends if end in frame]:
                    found |= dict.fromkeys(value for value in frame[column].unique() if value)
            if found:
                break
        return sorted(found, key=lambda name: (name != self.natural, name))

    @property
    def natural(self) -> str:
        return str(self.specification.get("natural") or "real")

    @cached_property
    def test_domains(self) -> list[str]:
        """Domains in which classes were held out; `""` alone where there are none."""
        if self.one_model:
            return [""]
        given = self.specification.get("test_domains") or []
        names = [given] if isinstance(given, str) else [str(name) for name in given]
        if not names:
            for table in ("accuracy", "similarity", "transfer"):
                names += [name for name in self.frame(table)["test_domain"].unique() if name]
        return list(dict.fromkeys(names)) or [""]


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


def _cells(given: pd.Series, kind: type, empty: Any) -> np.ndarray:
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
        raise DataError(
            f"make a page from {folder}",
            f"no readable facts.json ({error})",
            "the folder that a run wrote, with facts.json, tables/ and plates/",
            "name that folder, or run the study again",
        ) from None
    if not isinstance(facts, dict):
        raise DataError(
            f"make a page from {folder}",
            f"a facts.json that holds a {type(facts).__name__}",
            "an object of facts",
            "run the study again",
        )
    return facts


def _plates(folder: Path) -> list[Plate]:
    plates = []
    for path in sorted(folder.glob("*.png")):
        try:
            plates.append(Plate.load(path))
        except (OSError, ValueError, SyntaxError):  # Pillow says SyntaxError of a broken PNG
            continue
    return plates


def shown_commands(result: LoadedResult) -> list[tuple[str, str]]:
    """What to type: the command that measured, and the one that draws the page again.

    >>> made = LoadedResult(Path("."), {"command": "interp-report run a.toml --out 'my run'"}, {})
    >>> [command for command, _ in shown_commands(made)]
    ["interp-report run a.toml --out 'my run'", "interp-report page --out 'my run'"]
    """
    given = result.facts.get("command")
    measured = given if isinstance(given, str) and given else "interp-report"
    again = f"interp-report page --out {shlex.quote(_out(measured))}"
    return [(measured, "measures it"), (again, "draws it again from the tables")]


def _out(command: str) -> str:
    """The folder that a command names for its results."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unpaired quote
        return "interp-report"
    for place, word in enumerate(words):
        if word == "--out" and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return "interp-report"

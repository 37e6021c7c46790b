"""Tables of results: one row per measurement, declared columns, as CSV with facts beside it.

A similarity or an effect never travels alone. `EVIDENCE` lists the columns that go with it; a table
made `with_evidence` is refused without them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp.core.errors import DataError, OutputError, SpecificationError, listed
from interp.core.faces.late import late


@dataclass(frozen=True)
class Column:
    """A column of result tables.

    Args:
        meaning: What it says, with its unit.
        holds: Whether its cells are numbers, text or flags. An empty cell is nan, "" or False.
        key: Whether it says what a row is about, whatever came out: rows of two results are matched
            by these.
        last_key: Whether it tells rows apart only where the keys do not.
        of_one_model: Whether it numbers parts of a model: with other first weights, the same number
            is another part.
    """

    meaning: str
    holds: Literal["number", "text", "flag"]
    key: bool = False
    last_key: bool = False
    of_one_model: bool = False

    @property
    def empty(self) -> object:
        """What an empty cell holds."""
        return {"number": np.nan, "text": "", "flag": False}[self.holds]


def _declared() -> dict[str, Column]:
    """What `columns.csv` says of every column."""
    rows = pd.read_csv(Path(__file__).with_name("columns.csv"), keep_default_na=False)
    return {
        row.name: Column(
            row.meaning,
            row.holds,
            key=row.matching in ("key", PART),
            last_key=row.matching == "last key",
            of_one_model=row.matching == PART,
        )
        for row in rows.itertuples(index=False)
    }


PART = "part of a model"

COLUMNS = _declared()
"""Every column of the tables, in the order in which pages explain them; `columns.csv` is the list.
"""

EVIDENCE = (
    *("low", "high", "null", "null_kind", "ceiling", "ceiling_kind", "index", "p", "unit"),
    *("n_units", "n_pictures", "n_drawings", "n_runs", "estimand", "seed"),
)
"""The columns without which a similarity or an effect is not reported."""

CHANGES = ("changed beyond noise", "within noise", "no interval", "only in A", "only in B")
"""What may become of a number from one result to another, the values of `change`."""

YES = frozenset({"true", "1", "1.0"})


OLDER = {"cannot tell": "unknown"}
"""Verdicts as older files have them."""


def typed(frame: pd.DataFrame, columns: Mapping[str, Column] = COLUMNS) -> pd.DataFrame:
    """A table read as text, with every column as the schema says.

    Args:
        frame: Cells as text; an empty one is missing.
        columns: What is declared; further columns stay text.

    Returns:
        A new frame: numbers (whole where all cells are), text, flags.

    Raises:
        ValueError: Where a column of numbers holds a word.

    >>> typed(pd.DataFrame({"label": ["007", ""], "layer": ["3", "4"], "ok": ["True", ""]})).values
    array([['007', 3, True],
           ['', 4, False]], dtype=object)
    """
    made: dict[str, pd.Series] = {}
    for name, given in frame.items():
        holds = columns[name].holds if name in columns else "text"
        if holds == "number":
            try:
                made[str(name)] = pd.to_numeric(given)  # an empty cell becomes NaN
            except ValueError as error:
                raise ValueError(f"the column {name} holds a word: {error}") from None
        elif holds == "flag":
            made[str(name)] = given.fillna("").astype(str).str.lower().isin(YES)
        else:
            words = given.fillna("").astype(str)
            made[str(name)] = words.replace(OLDER) if name == "verdict" else words
    return pd.DataFrame(made, index=frame.index)


def known_columns(names: Iterable[str]) -> dict[str, Column]:
    """The columns of some names, without those that nobody declares.

    >>> list(known_columns(["site", "sight"]))
    ['site']
    """
    return {name: COLUMNS[name] for name in names if name in COLUMNS}


@dataclass(frozen=True)
class Table:
    """Tidy results, one row per measurement, with declared columns.

    Args:
        name: The table's name.
        frame: The rows; every column is one of `interp.core.tables.COLUMNS`, or of `own`.
        facts: What the rows were measured under: versions, options, seeds.
        own: Columns of your own, with what each of them means.

    Raises:
        SpecificationError: For an undeclared column.

    >>> table = Table("loss", pd.DataFrame({"epoch": [1], "loss": [0.5]}))
    >>> table.describe()["loss"]
    'training loss, nats'
    >>> Table("loss", pd.DataFrame({"epok": [1]}))
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: ... the undeclared column epok, ...
    >>> mine = Table("loss", pd.DataFrame({"mood": ["good"]}), own={"mood": "how it felt"})
    >>> mine.describe()
    {'mood': 'how it felt'}
    """

    name: str
    frame: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {*known_columns(self.frame.columns), *self.own}
        if unknown := [str(name) for name in self.frame.columns if name not in known]:
            given = f"the undeclared column {listed(unknown)}"
            right = "columns listed in interp.core.tables.COLUMNS"
            do = "say what it means: Table(name, frame, own={'column': 'what it holds'})"
            raise SpecificationError(f"make the table {self.name!r}", given, right, do)

    @classmethod
    def with_evidence(
        cls, name: str, frame: pd.DataFrame, facts: Mapping[str, Any] | None = None
    ) -> "Table":
        """A table of similarities or effects, with all columns of evidence.

        Args:
            name: The table's name.
            frame: The rows.
            facts: What the rows were measured under.

        Returns:
            The table.

        Raises:
            SpecificationError: If a column of `EVIDENCE` is missing.
        """
        missing = [column for column in EVIDENCE if column not in frame.columns]
        if missing:
            given = f"values without {listed(missing)}"
            right = f"the columns {listed(EVIDENCE, limit=20)}"
            do = "measure them, or say why not in `reason`"
            raise SpecificationError(f"report {name!r}", given, right, do)
        return cls(name, frame, facts or {})

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return (
            f"Table {self.name!r}: {len(self):,} rows of {', '.join(map(str, self.frame.columns))}"
        )

    def _repr_html_(self) -> str:
        """The frame, for notebooks."""
        return self.frame.to_html(max_rows=20, notebook=True)

    def plot(self, *, title: str = "") -> Any:
        """Draw the table as the page would, with n, interval and null in the caption.

        Args:
            title: The figure's title; empty takes the page's.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            SpecificationError: For a table that the page has no figure of.
        """
        return late("draw_table")(self, title=title)

    def describe(self) -> dict[str, str]:
        """The unit or meaning of each column."""
        known = known_columns(self.frame.columns)
        meant = {name: column.meaning for name, column in known.items()} | dict(self.own)
        return {str(name): meant[name] for name in self.frame.columns}

    def save(self, folder: str | Path) -> Path:
        """Write the table as `NAME.csv` and `NAME.json` (columns and facts).

        Args:
            folder: Where to write; it is made if need be.

        Returns:
            The path of the CSV.

        Raises:
            OutputError: If the folder cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            self.frame.to_csv(target / f"{self.name}.csv", index=False)
            facts = {"name": self.name, "columns": self.describe(), "facts": dict(self.facts)}
            if self.own:
                facts["own"] = dict(self.own)
            (target / f"{self.name}.json").write_text(json.dumps(facts, indent=1, default=str))
        except OSError as error:
            given = f"{target} ({error})"
            right = "a folder that can be written"
            do = "choose another folder"
            raise OutputError(f"save the table {self.name!r}", given, right, do) from None
        return target / f"{self.name}.csv"

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read back what `save` wrote.

        Args:
            path: The CSV; the JSON of the same name lies beside it.

        Returns:
            The table.

        Raises:
            DataError: If either file does not read.
            SpecificationError: For an undeclared column.
        """
        source = Path(path)
        try:
            frame = read_frame(source)
            facts = json.loads(source.with_suffix(".json").read_text())
        except (OSError, ValueError) as error:
            given = f"files that do not read ({error})"
            right = "a CSV and a JSON of the same name"
            do = "run the study again"
            raise DataError(f"load the table {source}", given, right, do) from None
        own = facts.get("own", {})
        for name in own:  # declared nowhere, so that only their values say what they hold
            with suppress(ValueError):
                frame[name] = pd.to_numeric(frame[name])
        return cls(facts["name"], frame, facts["facts"], own)


def stacked(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Frames under one another; a column that one of them lacks is empty there, as declared.

    >>> one, two = pd.DataFrame({"site": ["a"]}), pd.DataFrame({"layer": [3]})
    >>> stacked([one, two]).to_dict("records")
    [{'site': 'a', 'layer': nan}, {'site': '', 'layer': 3.0}]
    """
    frame = pd.concat(list(frames), ignore_index=True)
    for name, column in known_columns(frame.columns).items():
        if column.holds != "number" and frame[name].isna().any():
            frame[name] = frame[name].astype(object).where(frame[name].notna(), column.empty)
    return frame


def read_frame(path: Path) -> pd.DataFrame:
    """A table's CSV, every column as it is declared: a class may be called 007, None or True.

    Raises `OSError` or `ValueError` for a file that does not read.
    """
    return read_frames([path])


def read_frames(paths: Iterable[Path]) -> pd.DataFrame:
    """Several CSVs under one another, as `stacked` puts them; columns are typed once for all.

    Raises `OSError` or `ValueError` for a file that does not read.
    """
    read = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths]
    frame = pd.concat(read, ignore_index=True) if len(read) > 1 else read[0]
    return typed(frame, known_columns(frame.columns))


def rows_by(
    frame: pd.DataFrame, columns: Sequence[str], *, dropna: bool = True
) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """What rows agree in, and their numbers, in the order in which each first comes.

    Of hundreds of groups, arrays are read at these numbers many times faster than frames are cut.

    >>> frame = pd.DataFrame({"domain": ["sketch", "real", "sketch"], "seed": 0})
    >>> [(values, rows.tolist()) for values, rows in rows_by(frame, ["domain", "seed"])]
    [(('sketch', 0), [0, 2]), (('real', 0), [1])]
    """
    numbers = pd.Series(np.arange(len(frame)))
    asked = [frame[name].to_numpy() for name in columns]
    for values, rows in numbers.groupby(asked, sort=False, dropna=dropna):
        yield tuple(values), rows.to_numpy()

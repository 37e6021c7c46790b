"""Comparison of two results: facts first, then every table row by row, with intervals.

Rows are matched by the columns that say what was measured on what. A difference has an interval:
of its units' own differences where the result keeps them (accuracy and patching, by class), else
from the two intervals. Two results on the same pictures are not independent; intervals made from
two are then too wide, and what changed beyond them did change. Results of several blocks each, of
which none is in both, are compared over blocks: a difference of two means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.errors import InterpError
from interp.core.statistics.resampling import holm
from interp.core.tables import CHANGES, COLUMNS, Table
from interp.declared.measures import units_of_tables
from interp.study.results import Facts, Result, open_result


def match(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with what identifies a row as their index, in words: `site=x; domain=y`.

    A seed counts only where rows cannot be told apart without it, so that two studies of other
    seeds compare. Rows that nothing tells apart are left out.

    >>> one = pd.DataFrame({"site": ["a", "b"], "value": [1.0, 2.0], "seed": 0})
    >>> two = pd.DataFrame({"site": ["b", "a"], "value": [2.0, 1.0], "seed": 1})
    >>> [float(each.loc["site=a", "value"]) for each in match(one, two)]
    [1.0, 1.0]
    """
    one, two = (frame.set_index("place") for frame in _with_places((a, b)))
    twice = [*one.index[one.index.duplicated()], *two.index[two.index.duplicated()]]
    return one.drop(index=twice, errors="ignore"), two.drop(index=twice, errors="ignore")


def _with_places(
    frames: Sequence[pd.DataFrame], *, within: Sequence[str] = ()
) -> list[pd.DataFrame]:
    """Frames with what identifies a row in words, as `place`; within one of `within`, if any.

    Columns that are keys only at last join where rows cannot be told apart without them.
    """
    known = [(n, column) for n, column in COLUMNS.items() if any(n in f for f in frames)]
    names = [name for name, column in known if column.key]
    found = [frame.assign(place=_words(frame, names)) for frame in frames]
    for extra in (name for name, column in known if column.last_key and name not in within):
        if not any(frame.duplicated(["place", *within]).any() for frame in found):
            break
        names.append(extra)
        found = [frame.assign(place=_words(frame, names)) for frame in frames]
    return found


def _words(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """`name=value; ...` of every row, without empty values."""
    words = pd.Series("", index=frame.index, dtype=object)
    for name in [name for name in names if name in frame]:
        column = frame[name]
        number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        form = "{:g}".format if number else str
        text = column.map(lambda value, form=form: "" if pd.isna(value) else form(value))
        words += np.where(text != "", f"{name}=" + text.astype(object) + "; ", "")
    return words.str.removesuffix("; ")


def means_by_unit(
    name: str, rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> "pd.Series[float]":
    """The mean of every unit of a table's rows, indexed by the row's place and the unit.

    Only of rows that they give back: where the mean over units is not the row's own value, the
    row is another statistic of them, and left out.
    """
    where = units_of_tables()[name]
    if where.table not in tables or not len(rows):
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))
    examples = tables[where.table]
    others = (where.unit, "class_set", "example")
    keys = [n for n, column in COLUMNS.items() if (column.key or n == "seed") and n not in others]
    keys = [name for name in keys if name in rows and name in examples]
    numbers = examples["value"] - (examples[where.less] if where.less else 0)
    parts = examples[[*keys, where.unit]].assign(mean=numbers)
    if "class_set" in examples:
        parts = parts.assign(its_set=examples["class_set"])
    single = rows[rows["unit"] == "class"] if "unit" in rows else rows
    kept = [*keys, "value"] + (["class_set"] if "class_set" in rows else [])
    left = single[kept].reset_index(names="place")
    joined = left.merge(parts, on=keys, how="inner")
    if "its_set" in joined and "class_set" in joined:
        joined = joined[joined["class_set"].isin(["all"]) | (joined["class_set"] == joined.its_set)]
    means = joined.groupby(["place", where.unit])["mean"].mean()
    value = single["value"]
    given_back = means.groupby(level=0).mean()
    good = given_back.index[np.isclose(given_back, value.loc[given_back.index], atol=1e-9, rtol=0)]
    return means[means.index.get_level_values(0).isin(good)]


CHANGED, WITHIN, NO_INTERVAL, ONLY_A, ONLY_B = CHANGES

NUMBERS = {"value": ("low", "high"), "index": ("index_low", "index_high")}
"""What is compared, and the columns of its interval."""

LEAST = 4
"""Units below which an interval is not trusted, as for the index."""

NO_CAUSES = "command seconds credits strays title question held_out spec_hash checkpoints".split()
"""Facts that are no cause of a difference, or that the specification says as well."""


@dataclass(frozen=True)
class Difference:
    """The differences between result A and result B.

    Args:
        facts: Facts that differ: name, A's value, B's value.
        table: A row for every number that both have, and for every row that one lacks.
        rest: What was not compared, and why, by table.
    """

    facts: tuple[tuple[str, str, str], ...]
    table: Table
    rest: Mapping[str, str]

    @property
    def changed(self) -> bool:
        """Whether any number changed beyond noise."""
        return bool((self.table.frame["change"] == CHANGED).any())

    def counts(self) -> pd.DataFrame:
        """How many rows of each table changed, stayed, or stand in one result only."""
        frame = self.table.frame
        return pd.crosstab(frame["table"], frame["change"]).reindex(columns=CHANGES, fill_value=0)

    def largest(self, n: int = 10) -> pd.DataFrame:
        """The surest changes, those within noise too where fewer than `n` are beyond it."""
        rows = self.table.frame[self.table.frame["p"].notna()]
        return rows.sort_values(["p_adjusted", "p"], kind="stable").head(n)


def compare_results(
    a: Result | str | Path, b: Result | str | Path, *, alpha: float = 0.05
) -> Difference:
    """Compare two results: facts, then `value` and `index` of every row that both have.

    difference = B - A.

    Args:
        a: A result, or its folder.
        b: Another.
        alpha: Probability that two results of one truth are told apart, over all rows of all
            tables.

    Returns:
        The differences, with intervals and verdicts.

    Raises:
        DataError: For a folder that holds no finished result.

    Notes:
        Where the units are known, the difference is paired by class and its interval is Student's t
        on the classes' differences. From two intervals it is value +/- the root of the summed
        squares of their halves (Zou and Donner 2008), which holds for independent results and is
        too wide for others. p is Holm's over the rows of a table, times the number of tables.

        Noise is that of the drawn classes. Another training seed changes the model, which an
        interval of one model does not hold. Where both results have several blocks (or seeds), and
        none in common, such as two halves of a study, noise is that of blocks: rows of single runs
        are averaged over them, and the interval is Student's t of two means, spreads pooled. Single
        heads, neurons, channels and features are not compared then: which of them does some work is
        drawn with the first weights.

    >>> import tempfile
    >>> rows = pd.DataFrame({"measure": ["cka"], "site": ["a"], "value": [0.5], "low": [0.4],
    ...                      "high": [0.6], "unit": ["class"], "n_units": [20]})
    >>> def made(folder, shift):
    ...     moved = rows.assign(**{name: rows[name] + shift for name in ("value", "low", "high")})
    ...     _ = Table("similarity", moved).save(folder + "/tables")
    ...     _ = (Path(folder) / "facts.json").write_text("{}")
    ...     return folder
    >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
    ...     found = compare_results(made(one, 0.0), made(two, 0.3))
    >>> found.table.frame[["value", "low", "high", "change"]].round(2).to_numpy().tolist()
    [[0.3, 0.16, 0.44, 'changed beyond noise']]
    """
    first, second = (open_result(each) for each in (a, b))
    one, rest_a = _read(first, "A")
    two, rest_b = _read(second, "B")
    rest = {**rest_a, **rest_b}
    rest |= {name: "only in A" for name in one if name not in two and name not in rest}
    rest |= {name: "only in B" for name in two if name not in one and name not in rest}
    parts = []
    for name in sorted(set(one) & set(two)):
        if not _quantities(one[name], two[name]):
            same = one[name].equals(two[name])
            rest[name] = "the same" if same else "differs; it has no value with an interval"
            continue
        compared, left = _compared(name, one, two)
        parts.append(compared)
        rest |= {name: f"{left} rows that no column tells apart"} if left else {}
    table = Table("diff", _with_changes(_joined(parts), alpha))
    return Difference(tuple(_facts(first.facts, second.facts)), table, rest)


DIFFERENCE = (
    "table place quantity value_a value_b value low high p p_adjusted family method unit n_units "
    "change reason"
).split()
"""The columns of a table of differences."""


def _read(result: Result, side: str) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """The tables of a result that read, and why others do not."""
    found, absent = {}, {}
    for path in sorted((result.folder / "tables").glob("*.csv")):
        try:
            found[path.stem] = Table.load(path).frame
        except InterpError as error:
            absent[path.stem] = f"does not read in {side}: {error.given}"
    return found, absent


def _compared(
    name: str, one: Mapping[str, pd.DataFrame], two: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, int]:
    """Every number of one table, in A and in B, and how many rows had to be left out."""
    sides = one[name], two[name]
    if not all("seed" in frame for frame in sides):
        return _row_by_row(name, one, two)
    runs, means = zip(*(_parted(frame) for frame in sides), strict=True)
    here, there = (set(frame["seed"].dropna()) for frame in runs)
    if min(len(here), len(there)) < 2 or here & there:  # no blocks, or some in common
        return _row_by_row(name, one, two)
    over, lost = _over_blocks(name, *runs)
    if over["p"].notna().any():  # means over these runs would say it twice
        return over, lost
    rest, left = _row_by_row(name, {**one, name: means[0]}, {**two, name: means[1]})
    return _joined([over, rest]), lost + left


def _parted(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of single runs, and means over runs, which no seed belongs to."""
    several = frame["seed"].isna() | (frame.get("n_runs", 1) > 1)
    return frame[~several], frame[several].drop(columns="seed")


def _over_blocks(name: str, a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Means over blocks, in A and in B, and how many rows had to be left out."""
    sides = _with_places((a, b), within=["seed"])
    once = [side[~side.duplicated(["place", "seed"], keep=False)] for side in sides]
    common, parts = _both(name, *(pd.Index(side["place"].unique()) for side in once))
    own = [key for key, column in COLUMNS.items() if column.of_one_model and key in a]
    numbered = once[0].loc[once[0][own].notna().any(axis=1), "place"]
    for quantity in _quantities(a, b):
        grouped = (side.groupby("place")[quantity].agg(["mean", "var", "count"]) for side in once)
        first, second = (each.reindex(common) for each in grouped)
        made = _of_means(first, second)
        apart = pd.Series(made.index.isin(numbered), made.index) | (name in BOUND_TOGETHER)
        made.loc[apart, ["p", "low", "high"]] = np.nan
        otherwise = "each block's models number their parts otherwise"
        made.loc[apart, "reason"] = BOUND_TOGETHER.get(name, otherwise)
        parts.append(made.assign(table=name, quantity=quantity, place=made.index))
    lost = sum(len(side) for side in sides) - sum(len(side) for side in once)
    return _joined(parts), lost


BOUND_TOGETHER = {"robustness": "blocks of a result share one line, and do not vary apart"}
"""Tables whose numbers rest on all blocks of a result at once, whose spread thus is no noise."""


def _of_means(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Student's t of the means of two groups of blocks, with their spreads pooled."""
    n, moved = a["count"] + b["count"], b["mean"] - a["mean"]
    enough = (a["count"] > 1) & (b["count"] > 1)
    degrees = (n - 2).clip(lower=1)
    squares = a["var"].fillna(0) * (a["count"] - 1) + b["var"].fillna(0) * (b["count"] - 1)
    error = np.sqrt(squares / degrees * (1 / a["count"] + 1 / b["count"]))
    tiny = 1e-12 * (a["mean"].abs() + b["mean"].abs())
    error, moved = error.where(error > tiny, 0.0), moved.where(moved.abs() > tiny, 0.0)
    tested = _student(moved, error, degrees).where(enough)
    made = pd.DataFrame({"value_a": a["mean"], "value_b": b["mean"], "value": moved})
    made = made.join(tested).assign(n_units=n, unit="block", method="over blocks", reason="")
    made.loc[made["p"].isna(), "reason"] = "blocks without spread"
    made.loc[~enough, "reason"] = "fewer than two blocks in one of them"
    return made[(a["count"] > 0) | (b["count"] > 0)]


def _student(moved: pd.Series, error: pd.Series, degrees: pd.Series) -> pd.DataFrame:
    """p and the interval of differences by Student's t; none where all are alike and not 0."""
    p = pd.Series(2 * stats.t.sf(moved.abs() / error.where(error > 0, 1.0), degrees), moved.index)
    reach = error * stats.t.ppf(0.975, degrees)
    made = pd.DataFrame({"p": p, "low": moved - reach, "high": moved + reach})
    return made.where((error > 0) | (moved == 0))


def _row_by_row(
    name: str, one: Mapping[str, pd.DataFrame], two: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, int]:
    """Every row of one table that both have, and how many rows had to be left out."""
    a, b = match(one[name], two[name])
    left = len(one[name]) + len(two[name]) - len(a) - len(b)
    common, parts = _both(name, a.index, b.index)
    a, b = a.loc[common], b.loc[common]
    for quantity in _quantities(a, b):
        made = _from_two(a, b, quantity, NUMBERS[quantity])
        if quantity == "value" and name in units_of_tables():
            made.update(_paired(name, a, b, one, two))
        parts.append(made.assign(table=name, quantity=quantity, place=made.index))
    return _joined(parts), left


def _quantities(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """Which numbers stand in both tables with their intervals."""
    return [
        name
        for name, ends in NUMBERS.items()
        if all(column in frame for frame in (a, b) for column in (name, *ends))
    ]


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Parts of a table of differences under one another, with all of its columns."""
    parts = [part for part in parts if len(part)]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return joined.reindex(columns=DIFFERENCE)


def _both(name: str, here: pd.Index, there: pd.Index) -> tuple[pd.Index, list[pd.DataFrame]]:
    """The places that A and B both have, and the rows of those that one lacks."""
    alone = ((here.difference(there), ONLY_A), (there.difference(here), ONLY_B))
    rows = [pd.DataFrame({"table": name, "place": p, "change": which}) for p, which in alone]
    return here.intersection(there, sort=False), rows


def _from_two(
    a: pd.DataFrame, b: pd.DataFrame, quantity: str, ends: tuple[str, str]
) -> pd.DataFrame:
    """Differences with intervals made of the two results' own."""
    here, there = (frame[quantity].astype(float) for frame in (a, b))
    nan = pd.Series(np.nan, index=a.index)
    lows, highs = ([frame.get(end, nan).astype(float) for frame in (a, b)] for end in ends)
    units = pd.concat([frame.get("n_units", nan).astype(float) for frame in (a, b)], axis=1)
    n = units.min(axis=1, skipna=False)
    # a bootstrap's end may lie on the wrong side of its value, where that is biased
    down = np.hypot((there - lows[1]).clip(lower=0), (highs[0] - here).clip(lower=0))
    up = np.hypot((highs[1] - there).clip(lower=0), (here - lows[0]).clip(lower=0))
    moved = there - here
    reach = pd.Series(np.where(moved > 0, down, up), index=a.index)
    # p is below .05 exactly where the interval leaves zero out
    degrees = (n - 1).clip(lower=1)
    error = reach / stats.t.ppf(0.975, degrees)
    p = _student(moved, error, degrees)["p"].where((n >= LEAST) & reach.notna())
    made = pd.DataFrame({"value_a": here, "value_b": there, "value": moved, "p": p})
    made = made.assign(low=moved - down, high=moved + up, n_units=n, unit=a.get("unit", ""))
    made = made.assign(method="from the two intervals", reason="")
    made.loc[p.isna(), "reason"] = "no interval in one of them"
    made.loc[p.isna() & (reach == 0), "reason"] = "intervals without width"
    made.loc[n < LEAST, "reason"] = f"fewer than {LEAST} units"
    return made[here.notna() | there.notna()]


def _paired(
    name: str,
    a: pd.DataFrame,
    b: pd.DataFrame,
    one: Mapping[str, pd.DataFrame],
    two: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Rows whose units are known in both results: Student's t on the units' differences."""
    here, there = means_by_unit(name, a, one), means_by_unit(name, b, two)
    both = here.rename("a").to_frame().join(there.rename("b"), how="inner")
    apart = (both["b"] - both["a"]).groupby(level=0)
    n, mean = apart.size(), apart.mean()
    # only rows that have the same units in both: others are compared by their intervals
    sizes = [each.groupby(level=0).size().reindex(n.index) for each in (here, there)]
    whole = (n == sizes[0]) & (n == sizes[1])
    n, mean, spread = (each[whole & (n >= LEAST)] for each in (n, mean, apart.std(ddof=1)))
    made = _student(mean, spread / np.sqrt(n), n - 1).assign(n_units=n)
    made = made.assign(method="paired by class", unit="class", reason="")
    return made[made["p"].notna()]


def _with_changes(frame: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Holm over the rows of each table, times the tables; and what that says of each row."""
    words = ("change", "reason", "method", "unit", "quantity", "family")
    frame[list(words)] = frame[list(words)].astype(object).fillna("")
    tested = frame[frame["p"].notna()]
    tables = tested["table"].nunique()
    for name, rows in tested.groupby("table"):
        frame.loc[rows.index, "p_adjusted"] = np.minimum(1.0, holm(rows["p"]) * tables)
        frame.loc[rows.index, "family"] = f"{len(rows)} of {name} (Holm), times {tables} tables"
    open_rows = frame["change"] == ""
    beyond = frame["p_adjusted"] < alpha
    frame.loc[open_rows, "change"] = np.select(
        [beyond[open_rows], frame["p"].notna()[open_rows]], [CHANGED, WITHIN], NO_INTERVAL
    )
    return frame


def _facts(a: Facts, b: Facts) -> list[tuple[str, str, str]]:
    """Names of facts that differ, with both values."""
    one, two = _flat(a), _flat(b)
    values = [(name, one.get(name, "–"), two.get(name, "–")) for name in {**one, **two}]
    return [
        each for each in values if each[1] != each[2] and each[0].split(".")[0] not in NO_CAUSES
    ]


def _flat(facts: Mapping[str, object], above: str = "") -> dict[str, str]:
    """Facts by dotted names, as text."""
    flat: dict[str, str] = {}
    for name, value in facts.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{above}{name}.") if inner else {f"{above}{name}": str(value)}
    return flat

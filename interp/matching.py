"""Which row of one result is which row of another, and the units that a row is the mean of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

KEYS = (
    *("measure", "rung", "tower", "site", "site_b", "model_b", "dtype", "check", "architecture"),
    *("setting", "test_domain", "epoch", "control", "domain", "domain_a", "domain_b"),
    *("train_domain", "label", "label_b", "class_set", "candidates", "prompts", "classifier"),
    *("exposed_in", "bias", "centred", "erased", "positions", "read_at", "against", "pairing"),
    *("metric", "band", "level", "factor", "part", "kind", "code", "width", "sparsity"),
    *("reading", "ablated", "feature", "share", "pos", "head", "query", "key", "d_head", "d_mlp"),
    *("d_model", "d_embed", "channel", "row", "column", "example", "node", "node_b", "edge"),
    *("split", "component", "step", "adjusted", "arm", "weight"),
)
"""Columns that say what a row is about, whatever came out."""

BREAKERS = ("seed", "n_runs", "unit", "layer", "k", "n_edges", "ceiling_kind", "null_kind", "claim")
"""Columns that tell rows apart only where those above do not."""


def match(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with what identifies a row as their index, in words: `site=x; domain=y`.

    A seed counts only where rows cannot be told apart without it, so that two studies of other
    seeds compare. Rows that nothing tells apart are left out.

    >>> one = pd.DataFrame({"site": ["a", "b"], "value": [1.0, 2.0], "seed": 0})
    >>> two = pd.DataFrame({"site": ["b", "a"], "value": [2.0, 1.0], "seed": 1})
    >>> [float(each.loc["site=a", "value"]) for each in match(one, two)]
    [1.0, 1.0]
    """
    frames = (a, b)
    names = [name for name in KEYS if name in a or name in b]
    for extra in BREAKERS:
        if not any(_words(frame, names).duplicated().any() for frame in frames):
            break
        names += [extra] if extra in a or extra in b else []
    keyed = [frame.set_index(_words(frame, names).rename("place")) for frame in frames]
    twice = set().union(*(each.index[each.index.duplicated()] for each in keyed))
    return keyed[0].drop(index=list(twice), errors="ignore"), keyed[1].drop(
        index=list(twice), errors="ignore"
    )


def _words(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """`name=value; ...` of every row, without empty values."""
    said = pd.Series("", index=frame.index, dtype=object)
    for name in names:
        if name not in frame:
            continue
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            text = column.map(lambda number: "" if np.isnan(number) else f"{number:g}")
        else:
            text = column.map(lambda value: "" if pd.isna(value) else str(value))
        said += np.where(text != "", f"{name}=" + text.astype(object) + "; ", "")
    return said.str.removesuffix("; ")


@dataclass(frozen=True)
class Units:
    """Where the units of a table's rows are kept: a table, its unit's column, what is averaged."""

    table: str
    unit: str
    less: str = ""


BY_UNIT = {
    "accuracy": Units("accuracy_by_class", "label"),
    "patching": Units("patching_examples", "clean_label", less="corrupt_metric"),
}
"""Tables whose rows are means over classes that the result keeps."""


def means_by_unit(
    name: str, rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame]
) -> "pd.Series[float]":
    """The mean of every unit of a table's rows, indexed by the row's place and the unit.

    Only of rows that they give back: where the mean over units is not the row's own value, the
    row is another statistic of them, and left out.
    """
    where = BY_UNIT[name]
    nothing = pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))
    if where.table not in tables or not len(rows):
        return nothing
    examples = tables[where.table]
    keys = [each for each in (*KEYS, "seed") if each in rows and each in examples]
    keys = [each for each in keys if each not in (where.unit, "class_set", "example")]
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

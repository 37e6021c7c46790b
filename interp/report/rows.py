"""Which rows of a table are asked for: by subject, by question, by place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.core.sites import middle_of
from interp.declared.figures import NATURAL, OTHER, PAIR, Label, Row, Where
from interp.declared.writing import PROMPTS
from interp.report.loaded import Frame
from interp.report.naming import setting_name

EPOCH_0 = "epoch 0"
TOP_1, TEXT = "balanced top-1", "text"
QUESTION = [
    *("setting", "test_domain", "domain", "class_set"),
    *("candidates", "prompts", "classifier", "measure"),
]
"""What an accuracy is an answer to."""


def matches(rows: Frame, where: Where, one: Any = None) -> np.ndarray:
    """In which rows every column has the value asked for, or one of them.

    "natural" and "other" are the two domains of a subject.
    """
    own = np.ones(len(rows), dtype=bool)
    for column, asked in where.items():
        wanted = list(asked) if isinstance(asked, (list, tuple, set)) else [asked]
        if one is not None:
            ends = {NATURAL: one.natural, OTHER: one.domain}
            wanted = [ends.get(value, value) for value in wanted]
        own &= rows[column].isin(wanted).to_numpy()
    return own


def of_model(rows: Frame, one: Any) -> np.ndarray:
    """Which rows are of a subject's model, or of the floors that all settings have in common."""
    tested = rows["test_domain"].isin([one.test_domain, ""])
    floor = (rows["setting"] == "") & (rows["control"] != "")
    return (((rows["setting"] == one.setting) | floor) & tested).to_numpy()


def of_pair(rows: Frame, one: Any) -> np.ndarray:
    """Which rows are between a subject's two domains, in either order."""
    ends = {one.natural, one.domain}
    either = rows["domain_a"].isin(ends) & rows["domain_b"].isin(ends)
    return of_model(rows, one) & (either & (rows["domain_a"] != rows["domain_b"])).to_numpy()


def of_subject(rows: Frame, one: Any, ends: Sequence[str]) -> np.ndarray:
    """Which rows are a subject's, where the columns `ends` name its domains or none."""
    if tuple(ends) == PAIR:
        return of_pair(rows, one)
    own = of_model(rows, one)
    for column in ends:
        own = own & rows[column].isin([one.natural, one.domain, ""]).to_numpy()
    return own


def of_own_pairs(rows: Frame, subjects: Frame) -> Frame:
    """Rows of trained models between the two domains that some subject is asked about."""
    asked = set(map(frozenset, zip(subjects["natural"], subjects["domain"], strict=True)))
    ends = map(frozenset, zip(rows["domain_a"], rows["domain_b"], strict=True))
    own = np.array([pair in asked for pair in ends], dtype=bool)
    return rows[own & (rows["control"] == "").to_numpy()]


def middle_site(frame: Frame) -> str:
    """The site nearest to half depth among a model's own; fixed by its place, not its result."""
    own = frame[frame["control"] == ""].dropna(subset=["depth"])
    return middle_of(dict(zip(own["site"], own["depth"], strict=True)))


def sites_by_depth(frame: Frame) -> Sequence[str]:
    """Sites from input to output, each once."""
    order = frame.drop_duplicates("site").sort_values(["depth", "layer"], kind="stable")
    return [str(site) for site in order["site"]]


def shown_prompt_sets(frame: Frame) -> list[str]:
    """The prompt sets of a table, neutral first."""
    given = list(dict.fromkeys(frame["prompts"]))
    return [name for name in PROMPTS if name in given] + [n for n in given if n not in PROMPTS]


def top_1(frame: Frame) -> Frame:
    """Rows of balanced top-1 by the text head; a table that names neither holds nothing else."""
    return text_head(frame[frame["measure"].isin([TOP_1, ""])])


def text_head(frame: Frame) -> Frame:
    """Rows of answers that came through text."""
    return frame[frame["classifier"].isin([TEXT, ""])]


def final(frame: Frame) -> Frame:
    """Rows of the trained models, each at its last epoch; one row per setting and question.

    Where a question was also answered over all blocks at once, the rows of single blocks give way.
    """
    trained = frame[frame["control"] == ""]
    most = trained.groupby(QUESTION, sort=False)["n_runs"].transform("max")
    trained = trained[(trained["n_runs"] == most) | most.isna()]
    last = trained.groupby(["setting", "test_domain"])["epoch"].transform("max")
    return trained[(trained["epoch"] == last) | last.isna()]


def in_test_domain(frame: Frame) -> Frame:
    """Trained models' rows asked for through text, with the primary prompts, in the test domain."""
    rows = text_head(frame)
    rows = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    return rows[(rows["domain"] == rows["test_domain"]) & (rows["control"] == "")]


def contrasts(frame: Frame) -> Frame:
    """Contrasts of settings on the same question, one row each."""
    rows = text_head(frame)
    rows = rows[rows["candidates"].isin(["all", ""])]
    rows = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    return rows.drop_duplicates(["setting", "test_domain"])


FILTERS: Mapping[str, Callable[[Frame], Frame]] = {
    "top-1": top_1,
    "text head": text_head,
    "in the test domain": lambda rows: rows[rows["domain"] == rows["test_domain"]],
    "asked in the test domain": in_test_domain,
    "primary prompts": lambda rows: rows[
        rows["prompts"].isin(["", *shown_prompt_sets(text_head(rows))[:1]])
    ],
    "last epoch": final,
    "last epoch or untrained": lambda rows: pd.concat(
        [final(rows), rows[rows["control"] == EPOCH_0]]
    ),
    "contrasts": contrasts,
    "first block": lambda rows: rows[rows["seed"].eq(rows["seed"].min()) | rows["seed"].isna()],
    "same site": lambda rows: rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])],
    "a site": lambda rows: rows[rows["site"] != ""],
}
"""The filters that a specification's `keep` may name."""


def label_rows(rows: Frame, label: Label) -> list[str]:
    """What each row is called.

    Of several columns, those after the first are left out where all rows have the same value.

    >>> rows = pd.DataFrame({"setting": ["a", "b"], "test_domain": ["sketch", "sketch"]})
    >>> label_rows(rows, ("setting", "test_domain"))
    ['a', 'b']
    """
    if callable(label):
        return [label(row) for row in row_records(rows)]
    first, *others = [label] if isinstance(label, str) else label
    columns = [first, *(name for name in others if rows[name].nunique() > 1)]
    words = {
        name: _models(rows) if name == "setting" else list(map(str, rows[name])) for name in columns
    }
    return [", ".join(parts) for parts in zip(*words.values(), strict=True)]


def _models(rows: Frame) -> list[str]:
    """Settings in plain words; beside them, models that belong to none are the untrained ones.

    >>> _models(pd.DataFrame({"setting": ["cg-low", ""]})), _models(pd.DataFrame({"setting": [""]}))
    (['CG low diversity', 'untrained'], ['this model'])
    """
    several = rows["setting"].nunique() > 1
    return ["untrained" if several and not name else setting_name(name) for name in rows["setting"]]


def row_records(rows: Frame) -> list[Row]:
    """Rows as mappings, one after the other."""
    names = list(rows.columns)  # of one array: pandas' own way fetches column by column
    return [dict(zip(names, values, strict=True)) for values in rows.to_numpy(dtype=object)]

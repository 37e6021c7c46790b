"""What the figures and tables of a page are drawn from, worked out once of a result.

In a study the subjects are its settings, each with the natural domain and the test domain. For one
checkpoint they are the pairs of its natural domain with every other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd

from interp.core.sites import band_of
from interp.declared.figures import PAIR
from interp.declared.writing import plain, told_once
from interp.models.evaluation.learning import learning
from interp.report import naming
from interp.report.loaded import Frame, LoadedResult, whole
from interp.report.rows import EPOCH_0, final, of_model, of_pair, shown_prompt_sets, top_1
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import count_votes

SETTLED = (
    "mixtures accuracy similarity transfer transplant patching ladder das circuits faithfulness "
    "factorisation"
).split()
"""Tables that know the settings: any of them may be all that is left of a result."""

ENDS = {
    "mixtures": ("domain",),
    "accuracy": ("domain",),
    "similarity": PAIR,
    "transfer": ("train_domain", "domain"),
    "transplant": PAIR,
}
"""Tables that know the domains, and the columns in which they name them."""

SUBJECT = ("name", "label", "setting", "test_domain", "natural", "domain", "colour", "symbol")
VOTED = ("rung", "verdict", "index", "low", "high", "votes", "reasons", "read", "read_other")
REACHED = ("value", "low", "high", "null")


@dataclass(frozen=True)
class PageModel:
    """The subjects of a page, what was concluded of them, and the tables behind its figures.

    Attributes:
        tables: The result's tables with every declared column, typed.
        empty: A table without rows.
        natural: The natural domain.
        domains: Every domain, the natural one first.
        tests: Domains in which classes were held out; `""` alone where there are none.
        settings: Every setting that a table measured, in the order of the page.
        one_model: Whether the result is of one checkpoint, without settings to compare.
        accuracy_only: Whether it was asked for accuracy and nothing else.
        learned: A row for each model: whether it is shown to have learned, and by what.
        subjects: A row for each compared pair of domains in a model, with its `name`, its `label`
            in figures, colour and symbol, and whether it `learned`.
        verdicts: A row for each subject and rung that was measured in the middle layers.
        reached: The accuracy of trained and untrained settings on held-out classes.
    """

    tables: Mapping[str, Frame]
    empty: Frame
    natural: str
    domains: Sequence[str]
    tests: Sequence[str]
    settings: Sequence[str]
    one_model: bool
    accuracy_only: bool
    learned: Frame
    subjects: Frame
    verdicts: Frame
    reached: Frame

    def frame(self, name: str) -> Frame:
        """A table; one without rows where it is absent."""
        return self.tables.get(name, self.empty)


def page_model(result: LoadedResult) -> PageModel:
    """Work out what the figures and tables of a result have in common."""
    empty = whole(pd.DataFrame())
    tables = {name: _typed(table.frame, result) for name, table in result.tables.items()}
    tests = [""] if result.one_model else result.test_domains or _test_domains(tables)
    domains, settings = _domains(tables, result.natural), _settings(tables)
    learned = learning(
        tables.get("accuracy", empty), tables.get("mixtures", empty), natural=result.natural
    )
    subjects = (
        _pairs_of_one(settings, domains, result.natural)
        if result.one_model
        else _pairs_of_settings(settings, tests, result.natural)
    )
    models = learned.groupby(["setting", "test_domain"])["learned"].any() if len(learned) else {}
    places = zip(subjects["setting"], subjects["test_domain"], strict=True)
    subjects["learned"] = np.array([bool(models.get(place, True)) for place in places], dtype=bool)
    return PageModel(
        tables,
        empty,
        result.natural,
        domains,
        tests,
        settings,
        result.one_model,
        result.accuracy_only,
        learned,
        subjects,
        _verdicts(subjects, tables.get("ladder", empty), tables.get("transfer", empty)),
        _reached(tables.get("accuracy", empty), tests),
    )


def _typed(given: Frame, result: LoadedResult) -> Frame:
    """A table with all columns; which classes are held out may stand in the specification alone."""
    frame = whole(given)
    if result.one_model:  # nothing was held out from it, whatever domain it was asked about
        frame = frame.assign(test_domain="")
    if result.held_out and frame["label"].isin(result.held_out).any():
        if frame["class_set"].eq("").all():
            held = frame["label"].isin(result.held_out)
            frame["class_set"] = frame["class_set"].where(~held, "held-out")
    return frame


def _test_domains(tables: Mapping[str, Frame]) -> list[str]:
    known = [tables[name] for name in ("accuracy", "similarity", "transfer") if name in tables]
    names = [name for frame in known for name in frame["test_domain"].unique() if name]
    return list(dict.fromkeys(names)) or [""]


def _domains(tables: Mapping[str, Frame], natural: str) -> list[str]:
    for ends in (ENDS, dict.fromkeys(tables, PAIR)):  # a table on its own may be any
        columns = [tables[name][end] for name, own in ends.items() if name in tables for end in own]
        names = dict.fromkeys(value for column in columns for value in column.unique() if value)
        if names:
            return sorted(names, key=lambda name: (name != natural, name))
    return []


def _settings(tables: Mapping[str, Frame]) -> list[str]:
    known = [name for name in SETTLED if name in tables] or list(tables)
    every = [name for table in known for name in tables[table]["setting"].unique()]
    names = naming.ordered_settings(every)
    return [name for name in names if name] or names[:1]


def _pairs_of_settings(settings: Sequence[str], tests: Sequence[str], natural: str) -> Frame:
    rows = [
        (naming.setting_name(name), naming.setting_label(name), name, test, natural, test, *look)
        for test in tests
        for name, look in naming.setting_looks(settings).items()
    ]
    return pd.DataFrame(rows, columns=list(SUBJECT))


def _pairs_of_one(settings: Sequence[str], domains: Sequence[str], natural: str) -> Frame:
    natural = natural if natural in domains else [*domains, ""][0]
    others = [name for name in domains if name != natural]
    names = [f"{natural} and {name}" for name in others]
    setting = [*settings, ""][0]
    looks = zip(names, naming.colours(others).items(), cycle(naming.SYMBOLS), strict=False)
    rows = [
        (name, plain(name), setting, "", natural, other, tint, symbol)
        for name, (other, tint), symbol in looks
    ]
    return pd.DataFrame(rows, columns=list(SUBJECT))


def _verdicts(subjects: Frame, ladder: Frame, transfer: Frame) -> Frame:
    """What the ladder says of each subject's middle layers; seeds of one setting vote together.

    Beside it stands how well probes of the middle layers read the class in each of both domains.
    """
    middle = ladder[(ladder["band"] == "middle") & (ladder["control"] == "")]
    within = transfer[(transfer["train_domain"] == transfer["domain"]) & ~transfer["centred"]]
    within = within[(within["control"] == "") & (within["depth"].map(band_of) == "middle")]
    found = []
    for one in subjects.itertuples(index=False):
        read = within[of_model(within, one)].groupby("domain")["value"].mean()
        probed = [read.get(domain, np.nan) for domain in (one.natural, one.domain)]
        for rung, rows in middle[of_pair(middle, one)].groupby("rung", sort=True):
            if rung not in RUNGS:
                continue
            votes = count_votes(rows, by_mean=RUNGS[rung].indexed, bars=RUNGS[rung].bars)
            needed = [f"would decide: {each}" for each in rows["needed"].unique() if each]
            counted = str(rows["votes"].iloc[0]) if len(rows) == 1 else votes.verdicts
            told = "; ".join(told_once([*votes.reasons, *needed]))
            ends = (votes.index, votes.low, votes.high)
            found.append((*one, rung, votes.verdict, *ends, counted, told, *probed))
    return pd.DataFrame(found, columns=[*subjects.columns, *VOTED]).astype({"learned": bool})


def _reached(accuracy: Frame, tests: Sequence[str]) -> Frame:
    """Accuracy on held-out classes in each test domain: a row per setting, trained or not."""
    frame = top_1(accuracy)
    parts = []
    for control in ("", EPOCH_0):
        rows = frame[frame["control"] == control] if control else final(frame)
        for test in tests:
            own = rows[
                (rows["test_domain"] == test)
                & (rows["domain"] == test)
                & (rows["class_set"] == "held-out")
                & (rows["candidates"] == "all")
            ]
            first = own[own["prompts"].isin(shown_prompt_sets(own)[:1])]
            once = first.drop_duplicates("setting").set_index("setting", drop=False)
            parts.append(once.loc[naming.ordered_settings(once.index)])
    return pd.concat(parts).reset_index(drop=True)

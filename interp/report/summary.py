"""The summary above a page: at most four sentences of fixed words, and chips of verdicts."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interp.core.errors import sequence
from interp.core.sites import band_of
from interp.core.statistics.index_of_sharing import SHARED, UNKNOWN, VERDICTS
from interp.core.statistics.replication import mean_of_intervals
from interp.declared.figures import NATURAL, OTHER, GistSpec, SectionSpec
from interp.declared.writing import in_points, number, percent, percents
from interp.report.loaded import Frame
from interp.report.naming import SIGNS, setting_name
from interp.report.page_model import PageModel
from interp.report.verdict_tables import LINK_SIGNS
from interp.verdicts.rungs import RUNGS
from interp.verdicts.wording import LEVELS

ASKED = ("R2", "R3", "R4", "R6")
"""The rungs that the summary counts."""

ALL_SIGNS = {**SIGNS, **LINK_SIGNS}


@dataclass(frozen=True)
class Chip:
    """How often a verdict was given: what it is about, its word and sign, how often of how many."""

    about: str
    word: str
    sign: str
    counted: str


def summary(page: PageModel) -> list[str]:
    """Which models did not learn, what is named, known and restored, what an intervention did."""
    sentences = [
        _unlearned(page.learned),
        *_reached(page),
        _known(page.frame("decision_bias")),
        _restored(page.frame("domain_shift")),
        _intervened(page.frame("levels")),
    ]
    return [sentence for sentence in sentences if sentence][:4]


def _unlearned(models: Frame) -> str:
    failed = models[~models["learned"]] if len(models) else models
    if failed.empty:
        return ""
    names = sequence([setting_name(str(name)) for name in dict.fromkeys(failed["setting"])])
    most = percent(float(failed["value"].max()))
    return f"Not shown to have learned, and not judged: {names} (at most {most} of seen classes)."


def _reached(page: PageModel) -> list[str]:
    """The accuracies of settings that learned, a sentence for each of the first test domains."""
    failed = page.subjects[~page.subjects["learned"]]
    out = set(zip(failed["setting"], failed["test_domain"], strict=True))
    sentences = []
    for test, rows in page.reached.groupby("test_domain", sort=False):
        trained = rows[rows["control"] == ""].dropna(subset=["value"])
        keys = zip(trained["setting"], trained["test_domain"], strict=True)
        trained = trained.loc[[key not in out for key in keys]]
        if trained.empty:
            continue
        reached = percents(float(trained["value"].min()), float(trained["value"].max()))
        null = float(trained["null"].mean())
        chance = f"; chance {percent(null)}" if math.isfinite(null) else ""
        n = trained["setting"].nunique()
        sentences.append(
            f"Accuracy on classes held out in {test}: {reached} ({n} training "
            f"distribution{'' if n == 1 else 's'}{chance})."
        )
    return sentences[:2]


def _held_out(frame: Frame, **where: object) -> Frame:
    """Rows of held-out classes in the test domain, at each run's last epoch."""
    if frame.empty:
        return frame
    own = frame[(frame["domain"] == frame["test_domain"]) & (frame["class_set"] == "held-out")]
    own = own[own["control"] == ""]
    last = own.groupby(["setting", "test_domain", "seed"])["epoch"].transform("max")
    own = own[own["epoch"] == last]
    return own[(own[list(where)] == list(where.values())).all(axis=1)].dropna(subset=["value"])


def _known(biases: Frame) -> str:
    """How many of the held-out classes are told from one another."""
    rows = _held_out(biases, calibration="among held-out classes", prompts="neutral")
    if rows.empty:
        return ""
    known, chance = percents(rows["value"].min(), rows["value"].max()), rows["null"].mean()
    return f"With these classes alone to choose from: {known} (chance {percent(chance)})."


def _restored(shifts: Frame) -> str:
    """What one vector does to the setting that it does most to."""
    rows = _held_out(shifts, way="mean shift", dose=1.0)
    if rows.empty:
        return ""
    rows = rows[rows["depth"] == rows["depth"].min()]
    setting = str(rows.groupby("setting", sort=False)["value"].mean().idxmax())
    own = rows[rows["setting"] == setting]
    found = mean_of_intervals(own["value"], own["low"], own["high"])
    before, null = own["before"].mean(), own["null"].mean()
    gain, low, high = (in_points(end) for end in (found.value, found.low, found.high))
    return (
        f"Moved by one vector fitted on other classes, {setting_name(setting)} names "
        f"{percent(before + found.value)} of them, not {percent(before)}: {gain} points "
        f"({low} to {high}; by random ones {in_points(null)})."
    )


def _intervened(levels: Frame) -> str:
    """What aligning classes did to accuracy; the words are those that L4 licenses."""
    rows = foremost(levels.dropna(subset=["weight", "value", "low", "high"]))
    for row in rows.itertuples():
        value, low, high = (in_points(float(end)) for end in (row.value, row.low, row.high))
        return (
            f"Loss term of weight {row.weight:g} against wrong partners: {value} points of "
            f"accuracy on held-out classes ({low} to {high}); {row.licence}."
        )
    return ""


def foremost(rows: Frame) -> Frame:
    """The row of L4 that stands for it: of those decided, if any is, the one of largest weight."""
    own = rows[rows["level"] == "L4"]
    decided = own[own["verdict"] != UNKNOWN]
    own = decided if len(decided) else own
    return own.loc[own["weight"].abs().sort_values(na_position="first").index].tail(1)


def verdict_chips(page: PageModel, rungs: Sequence[str] = ASKED) -> list[Chip]:
    """How many models, or pairs of domains, give each answer in the middle layers."""
    own = page.verdicts[page.verdicts["learned"]]
    return [
        chip
        for rung in rungs
        for words in [list(own[own["rung"] == rung]["verdict"])]
        for chip in _chips(
            f"{rung} {RUNGS[rung].label}",
            sorted(words, key=VERDICTS.index),
            {} if RUNGS[rung].indexed else {SHARED: "yes"},
        )
    ]


def level_chips(levels: Frame) -> list[Chip]:
    """How many rungs give each answer at a level of evidence."""
    own = levels[levels["adjusted"] == ""]
    return [
        chip
        for level, where in LEVELS.items()
        for chip in _chips(f"{level} {where}", list(own[own["level"] == level]["verdict"]))
    ]


def _chips(about: str, words: Sequence[str], called: Mapping[str, str] | None = None) -> list[Chip]:
    """A chip for each word, in the order given."""
    return [
        Chip(
            about, (called or {}).get(word, word), ALL_SIGNS.get(word, "?"), f"{n} of {len(words)}"
        )
        for word, n in Counter(words).items()
    ]


def section_chips(page: PageModel, spec: SectionSpec) -> list[Chip]:
    """The verdicts of the rungs that a section's title names; of levels, and of the ladder."""
    if spec.anchor == "levels":
        return level_chips(page.frame("levels"))
    rungs = [name for name in re.findall(r"R\d", spec.title) if name in RUNGS]
    return verdict_chips(page, list(RUNGS) if spec.anchor == "ladder" else rungs)


def gist(page: PageModel, asked: GistSpec | None) -> str:
    """The fixed sentence of a section, with the range of its number over the models' own rows."""
    if asked is None:
        return ""
    ends = {NATURAL: [page.natural], OTHER: list(page.tests)}
    rows = page.frame(asked.table)
    rows = rows[rows["control"] == ""]
    for column, value in asked.where.items():
        rows = rows[rows[column].isin(ends.get(value, [value]))]
    if asked.middle:
        rows = rows[rows["depth"].map(band_of) == "middle"]
    last = rows.groupby(["setting", "test_domain"], dropna=False)["epoch"].transform("max")
    values = rows[rows["epoch"].isna() | (rows["epoch"] == last)][asked.column].dropna()
    if values.empty:
        return ""
    forms = {"percent": percent, "points": in_points, "count": lambda value: f"{value:,.0f}"}
    form = forms.get(asked.form, number)
    least, most = (form(float(end)) for end in (values.min(), values.max()))
    return asked.text.format(range=least if least == most else f"{least} to {most}", n=len(values))


def rungs_and_levels() -> tuple[str, list[tuple[str, str]]]:
    """What R1 to R6 and L1 to L4 stand for, as a group of the page's glossary.

    >>> rungs_and_levels()[1][1][1][:38]
    'same geometry, by debiased CKA; 0 is w'
    """
    rungs = [
        (rung.name, f"{rung.claim}, by {rung.judged.name}; 0 is {rung.null}, 1 {rung.ceiling}.")
        for rung in RUNGS.values()
    ]
    levels = [
        (name, f"whether generalization goes with sharing {where}.")
        for name, where in LEVELS.items()
        if name != "L4"
    ]
    by_cause = [("L4", "whether sharing causes generalization: models are trained to share more.")]
    return "Rungs and levels", [*rungs, *levels, *by_cause]

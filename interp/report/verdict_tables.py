"""The verdicts in tables of words: the ladder of rungs, and each rung with its numbers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import NOT_SHARED, SHARED, UNKNOWN, VERDICTS
from interp.data.mixtures.settings import trained_on
from interp.declared.writing import MISSING, in_points, number, percent, plural
from interp.report.figures.training import worst_of_checks
from interp.report.grammar.pieces import counts
from interp.report.loaded import Frame
from interp.report.naming import SIGNS, site_label
from interp.report.page_model import PageModel
from interp.report.rows import middle_site, of_model, of_own_pairs, of_pair, sites_by_depth
from interp.verdicts.rungs import RUNGS
from interp.verdicts.wording import AGAINST, APART, OUTCOMES, TOGETHER

UNMEASURED = "not measured"

READABLE = {SHARED: "yes", NOT_SHARED: "no"}
"""R1's verdicts: what is shared there is that the class can be read."""


@dataclass(frozen=True)
class WordTable:
    """A small table of words for the page."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Overview:
    """The answer at a glance: every subject in a line, with what the middle layers share.

    Attributes:
        caption: What is asked.
        head: The heads of the columns after the name.
        rows: Each subject: its name, its colour, what it was trained on, its accuracy, and of each
            rung the verdict.
        unmeasured: Rungs of no subject, which have no column.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[str], Sequence[str]]]
    unmeasured: Sequence[str] = ()


def _by_test_domain(page: PageModel) -> Iterator[tuple[str, Frame, Frame]]:
    """Each test domain with its subjects and their verdicts."""
    for test in page.tests:
        subjects = page.subjects[page.subjects["test_domain"] == test]
        if len(subjects):
            yield test, subjects, page.verdicts[page.verdicts["test_domain"] == test]


def _signed(word: str, signs: Mapping[str, str] = SIGNS) -> str:
    return f"{signs.get(word, '?')} {word}"


def _ends(low: float, high: float, form: Callable[[float], str] = number) -> str:
    known = math.isfinite(low) and math.isfinite(high)
    return f"{form(low)} to {form(high)}" if known else MISSING


def ladder_table(page: PageModel) -> Iterator[WordTable]:
    """Every rung for every subject, one grid per test domain; rungs not measured say so.

    A run that asked for accuracy alone has no ladder to climb.
    """
    for test, subjects, verdicts in _by_test_domain(page) if not page.accuracy_only else ():
        cells = {(row.rung, row.name): _cell(row) for row in _each(verdicts)}
        where = f"{page.natural} and {test}" if test else "the domains"
        rows = [
            [f"{rung} {RUNGS[rung].claim}"]
            + [cells.get((rung, name), UNMEASURED) for name in subjects["name"]]
            for rung in RUNGS
        ]
        caption = f"Are the middle layers shared between {where}? Every rung of the ladder"
        yield WordTable(caption, ["Rung", *subjects["name"]], rows)


def _each(rows: Frame) -> Iterator[Any]:
    return rows.rename(columns={"index": "mean"}).itertuples(index=False)


def _cell(row: Any) -> str:
    """A verdict with its index; of R1, with the accuracy of probes in each of both domains."""
    if RUNGS[row.rung].indexed:
        index = f" (index {number(row.mean)})" if math.isfinite(row.mean) else ""
        return f"{_signed(row.verdict)}{index}"
    word = READABLE.get(row.verdict, row.verdict)
    probes = f"{row.natural} {percent(row.read)}, {row.domain} {percent(row.read_other)}"
    return f"{SIGNS.get(row.verdict, '?')} {word} ({probes})"


def overviews(page: PageModel) -> Iterator[Overview]:
    """One for each test domain: mixtures in a line each, or a checkpoint's pairs of domains."""
    for test, subjects, verdicts in _by_test_domain(page) if not page.accuracy_only else ():
        words = {(row.rung, row.name): _answer(row) for row in _each(verdicts)}
        rungs = [name for name in RUNGS if name in set(verdicts["rung"])]
        trained = page.reached[page.reached["control"] == ""]
        trained = trained[trained["test_domain"] == test].set_index("setting")
        rows = [
            (
                one.name,
                one.colour,
                [] if page.one_model else _trained(one, trained),
                [words.get((r, one.name), UNMEASURED) if one.learned else FAILED for r in rungs],
            )
            for one in subjects.itertuples()
        ]
        head = [] if page.one_model else ["trained on", "held-out classes"]
        where = f"{page.natural} and {test}" if test else "pairs of domains"
        caption = f"What the middle layers of each model share between {where}"
        if page.one_model:
            caption = "What the middle layers share between each two domains"
        labels = {name: rung.label for name, rung in RUNGS.items()}
        others = [label for name, label in labels.items() if name not in rungs]
        head += [labels[name] for name in rungs]
        yield Overview(caption, head, rows, others)


FAILED = "did not learn"
"""What stands for the verdicts of a model that did not learn."""


def _trained(one: Any, reached: Frame) -> list[str]:
    """What a mixture holds, and its accuracy with the interval."""
    accuracy = MISSING
    if one.setting in reached.index and math.isfinite(reached.loc[one.setting, "value"]):
        ends = reached.loc[one.setting, ["value", "low", "high"]]
        value, low, high = (number(100 * end, 0) for end in ends)
        accuracy = f"{value} % ({low} to {high})"
    held = trained_on(one.setting) or MISSING
    return [held.replace("the test domain", one.test_domain or "the test domain"), accuracy]


def _answer(row: Any) -> str:
    """A verdict's word; R1 has its own."""
    words = READABLE if not RUNGS[row.rung].indexed else {}
    return str(words.get(row.verdict, row.verdict))


def answers_table(page: PageModel) -> list[WordTable]:
    """How many verdicts give each answer, rung by rung: of the study's own pair, and of all pairs.

    A verdict is one band of layers of one model and pair. The reason says why one is unknown.
    """
    rows = page.frame("ladder")
    rows = rows[(rows["rung"] != "") & (rows["control"] == "")]
    if rows.empty:
        return []
    own = of_own_pairs(rows, page.subjects)
    parts = [("the pairs that are asked about", own)]
    if len(own) < len(rows):
        parts.append(("all pairs of domains", rows))
    head = ["Rung", *(f"{SIGNS[word]} {word}" for word in VERDICTS)]
    return [
        WordTable(
            f"How many verdicts give each answer: {name}, every band of layers, {len(part)} in all",
            head,
            [
                [f"{rung} {RUNGS[rung].claim}", *(str((own == word).sum()) for word in VERDICTS)]
                for rung, own in part["verdict"].groupby(part["rung"])
            ],
        )
        for name, part in parts
    ]


def verdicts_table(page: PageModel, rung: str) -> Iterator[WordTable]:
    """A rung's verdict in the middle layers, with index, interval, votes and reasons."""
    for test, _, verdicts in _by_test_domain(page):
        rows = [
            (
                *(row.name, _signed(row.verdict), number(row.mean), _ends(row.low, row.high)),
                *(row.votes, row.reasons or MISSING),
            )
            for row in _each(verdicts[verdicts["rung"] == rung])
        ]
        head = ("", "Verdict", "Mean index", "95 % interval", "Sites", "Why")
        where = f", {page.natural} × {test}" if test else ""
        if rows:
            yield WordTable(f"Verdict of {rung} in the middle layers{where}", head, rows)


def by_layer_table(page: PageModel, key: str) -> Iterator[WordTable]:
    """A measure's verdict at every site, with index and interval, or the reason for none.

    Of a measure with a direction both are told, the one from the natural domain first.
    """
    measure = next(one for rung in RUNGS.values() for one in rung.measures if one.key == key)
    every = measure.select(page.frame(measure.table))
    every = every[every["control"] == ""]
    for test, subjects, _ in _by_test_domain(page):
        parts = [(one, every[of_pair(every, one)]) for one in subjects.itertuples()]
        parts = [(one, own) for one, own in parts if len(own)]
        if not parts:
            continue
        every_part = pd.concat([own for _, own in parts])
        rows = [
            [site_label(site), *(_at(own[own["site"] == site], one.natural) for one, own in parts)]
            for site in sites_by_depth(every_part)
        ]
        where = f", {page.natural} × {test}" if test else ""
        where += "; after the stroke, back" if measure.directed else ""
        counted = counts(every_part)
        head = ["Layer", *(str(one.name) for one, _ in parts)]
        yield WordTable(f"{key} layer by layer{where}. {counted}", head, rows)


def _at(rows: Frame, natural: Any) -> str:
    """One site's verdict in words, in each direction that was measured."""
    onwards = rows[rows["domain_a"] == natural]
    both = [part.iloc[0] for part in (onwards, rows.drop(onwards.index)) if len(part)]
    return " / ".join(map(_one_way, both)) or UNMEASURED


def _one_way(row: pd.Series) -> str:
    verdict = row["verdict"] or UNKNOWN
    if not math.isfinite(row["index"]):
        return f"{_signed(verdict)}: {row['reason'] or MISSING}"
    ends = f"{number(row['index_low'])} to {number(row['index_high'])}"
    return f"{_signed(verdict)}, {number(row['index'])} ({ends})"


LINK_SIGNS = {TOGETHER: "●", AGAINST: "⊖", APART: "○", UNKNOWN: "?"}


def levels_table(page: PageModel) -> list[WordTable]:
    """Every level's verdict with its number, why it is unknown, and what would decide."""
    names: dict[tuple[str, ...], list[str]] = {}
    for row in page.frame("levels").itertuples():
        held = f", {row.adjusted} held constant" if row.adjusted else ""
        outcome = getattr(row, "outcome", "")
        outcome = outcome if outcome in OUTCOMES else "accuracy"  # of older results
        what = f", {OUTCOMES[outcome]}" if outcome != "accuracy" else ""
        link, name = _link(row), f"{row.rung} {row.measure}{what}{held}".strip()
        cells = (
            str(row.level),
            name if link != MISSING else "",  # what has no number and fails alike is one row
            _signed(str(row.verdict), LINK_SIGNS),
            link,
            number(row.p_adjusted, 3),
            "none" if row.gain <= 0 else percent(row.gain),
            str(row.reason) or MISSING,
            str(row.needed) or MISSING,
        )
        names.setdefault(cells, []).append(name)
    body = []
    for (level, _, *rest), own in names.items():
        n = len(own) - 1
        more = f" and {n} more {plural('row', n)}" if n else ""
        body.append([f"{level} {own[0]}{more}", *rest])
    link = "Correlation; of L4 the difference"
    head = ("", "Verdict", link, "p (Holm)", "Gain in prediction", "Why", "Would decide")
    return [WordTable("Does accuracy go with sharing? Level by level", head, body)] if body else []


def _link(row: Any) -> str:
    """A correlation with its interval; of L4 a difference in points."""
    if row.level == "L4":
        ends = _ends(row.low, row.high, in_points)
        return MISSING if ends == MISSING else f"{in_points(row.value)} points ({ends})"
    if not math.isfinite(row.value):
        return MISSING
    ends = _ends(row.low, row.high)
    return f"{number(row.value)} ({'no interval' if ends == MISSING else ends})"


FACTOR_COLUMNS = {
    "class": "Class, in all domains",
    "domain": "Domain, in all classes",
    "interaction": "Only jointly",
    "class and domain": "Squared cosine of class and domain",
}


def angles_table(page: PageModel) -> Iterator[WordTable]:
    """Shares of class and domain at the middle site, and whether they lie along one another."""
    frame = page.frame("factorisation")
    site = middle_site(frame)
    frame = frame[(frame["control"] == "") & (frame["site"] == site)]
    for test, subjects, _ in _by_test_domain(page):
        own = {str(one.name): frame[of_model(frame, one)] for one in subjects.itertuples()}
        rows = [
            [name, *(_share(part[part["factor"] == factor], factor) for factor in FACTOR_COLUMNS)]
            for name, part in own.items()
            if len(part)
        ]
        where = f", {test} held out" if test else ""
        head = ["", *FACTOR_COLUMNS.values()]
        if rows:
            yield WordTable(f"Factors at {site_label(site)}{where}", head, rows)


def _share(rows: Frame, factor: str) -> str:
    """A factor's share with its interval; of several models their mean, from least to most."""
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return MISSING
    form = number if factor == "class and domain" else percent
    values = rows["value"]
    if len(rows) > 1:
        ends = f"{form(values.min())} to {form(values.max())}"
        return f"{form(values.mean())} ({ends}, {len(rows)} models)"
    [row] = rows.to_dict("records")
    if factor == "class and domain":
        return f"{number(row['value'])} (null {number(row['null'])})"
    return f"{percent(row['value'])} ({percent(row['low'])} to {percent(row['high'])})"


def dictionaries_table(page: PageModel) -> list[WordTable]:
    """How good the dictionaries are that features were counted in."""
    frame = page.frame("dictionaries")
    frame = frame[(frame["control"] == "") & (frame["class_set"].isin(["all", ""]))]
    rows = []
    for one in page.subjects.itertuples():
        own = frame[of_model(frame, one)]
        if own["value"].notna().any():
            name = f"{one.name}, {one.test_domain}" if len(page.tests) > 1 else str(one.name)
            rows.append([name, *_described(own, one)])
    head = "Features|Active|Explained|Dead|Accuracy recovered|Cosine over seeds".split("|")
    return [WordTable("Dictionaries at the middle site", ["", *head], rows)] if rows else []


def _described(own: Frame, one: Any) -> list[str]:
    """L0, explained variance, dead features, recovered accuracy and stability of a dictionary."""
    whole = own[own["domain"] == ""].groupby("measure")[["value", "null"]].mean()
    means = whole["value"].to_dict()
    recovered = own[own["measure"] == "recovered accuracy"]
    parts = recovered.groupby("domain")[["value", "ceiling"]].mean()
    words = [
        f"{name} {percent(parts.loc[name, 'value'])} of {percent(parts.loc[name, 'ceiling'])}"
        for name in (one.natural, one.domain)
        if name in parts.index
    ]
    width, cosine = own["width"].dropna(), "mean cosine"
    stable = whole.loc[cosine] if cosine in whole.index else {"value": math.nan, "null": math.nan}
    return [
        f"{int(width.iloc[0])}" if len(width) else MISSING,
        number(means.get("active features", math.nan), 1),
        percent(means.get("explained variance", math.nan)),
        percent(means.get("dead features", math.nan)),
        "; ".join(words) or MISSING,
        f"{number(stable['value'])} (chance {number(stable['null'])})",
    ]


def certificate_table(page: PageModel) -> list[WordTable]:
    """Passed or failed, by check."""
    rows = page.frame("certificate")
    if rows.empty:
        return []
    body = []
    for row in worst_of_checks(rows).itertuples():
        error = f"{row.error:.2g}" if math.isfinite(row.error) else MISSING
        verdict = f"✗ {row.failed} fail" if row.failed else "✓ all pass"
        cells = [f"{row.tower} {row.check}", str(row.dtype), str(row.n_sites), str(row.site)]
        body.append([*cells, error, f"{row.bar:.2g}", verdict])
    head = ("Check", "Precision", "Sites", "Nearest to its bar", "Error", "Bar", "Verdict")
    return [WordTable("Certificate", head, body)]

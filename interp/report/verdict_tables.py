"""The verdicts in tables of words: the ladder of rungs, and each rung with its numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from interp.core.sites import band_of
from interp.core.statistics.index_of_sharing import CANNOT_TELL, NOT_SHARED, SHARED, VERDICTS
from interp.data.mixtures.settings import trained_on
from interp.declared.writing import MISSING, in_points, number, percent, plural, told_once
from interp.report.figures.training import worst_of_checks
from interp.report.grammar.pieces import counts
from interp.report.grammar.subjects import (
    ComparedPair,
    compared_pairs,
    held_out_accuracy,
    middle_site,
    middle_verdict,
    own_pairs,
    sites_by_depth,
    unlearned_settings,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import SIGNS, site_label
from interp.verdicts.rungs import RUNGS, RungMeasure
from interp.verdicts.wording import AGAINST, APART, TOGETHER

UNMEASURED = "not measured"


@dataclass(frozen=True)
class WordTable:
    """A small table of words for the page."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def ladder_table(result: LoadedResult) -> list[WordTable]:
    """Every rung for every subject, one grid per test domain; rungs not measured say so.

    A run that asked for accuracy alone has no ladder to climb.
    """
    grids: list[WordTable] = []
    if result.accuracy_only:
        return grids
    for test_domain in result.test_domains:
        compared = compared_pairs(result, test_domain)
        where = f"{result.natural} and {test_domain}" if test_domain else "the domains"
        rows = [
            [f"{name} {rung.claim}", *(_cell(result, name, one) for one in compared)]
            for name, rung in RUNGS.items()
        ]
        caption = f"Are the middle layers shared between {where}? Every rung of the ladder"
        if compared:
            grids.append(WordTable(caption, ["Rung", *(one.name for one in compared)], rows))
    return grids


def _cell(result: LoadedResult, rung: str, one: ComparedPair) -> str:
    summed = middle_verdict(result, rung, one)
    if summed is None:
        return UNMEASURED
    if not RUNGS[rung].indexed:
        return _read(result, one, summed.verdict)
    index = f" (index {number(summed.index)})" if math.isfinite(summed.index) else ""
    return f"{SIGNS.get(summed.verdict, '?')} {summed.verdict}{index}"


def _read(result: LoadedResult, one: ComparedPair, verdict: str) -> str:
    """Whether the class can be read in both domains, with the accuracy of probes in each."""
    rows = one.of(result.frame("transfer"))
    own = rows[
        (rows["train_domain"] == rows["domain"]) & ~rows["centred"] & (rows["control"] == "")
    ]
    middle = own[own["depth"].map(band_of) == "middle"]
    accuracies = ", ".join(
        f"{name} {percent(middle[middle['domain'] == name]['value'].mean())}"
        for name in (one.natural, one.domain)
    )
    return f"{SIGNS.get(verdict, '?')} {READABLE.get(verdict, verdict)} ({accuracies})"


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


def overviews(result: LoadedResult) -> list[Overview]:
    """One for each test domain: mixtures in a line each, or a checkpoint's pairs of domains."""
    found = []
    for test_domain in result.test_domains:
        reached = held_out_accuracy(result, test_domain)
        compared = compared_pairs(result, test_domain)
        answers = {
            rung.label: [_answer(result, name, one) for one in compared]
            for name, rung in RUNGS.items()
        }
        measured = {name: own for name, own in answers.items() if set(own) != {UNMEASURED}}
        rows = [
            (
                one.name,
                one.colour,
                _told(one, reached, result),
                [own[place] for own in measured.values()],
            )
            for place, one in enumerate(compared)
        ]
        told = [] if result.one_model else ["trained on", "held-out classes"]
        where = f"{result.natural} and {test_domain}" if test_domain else "pairs of domains"
        caption = f"What the middle layers of each model share between {where}"
        if result.one_model:
            caption = "What the middle layers share between each two domains"
        if rows and not result.accuracy_only:
            others = [name for name in answers if name not in measured]
            found.append(Overview(caption, [*told, *measured], rows, others))
    return found


def _told(one: ComparedPair, reached: Frame, result: LoadedResult) -> list[str]:
    """What a mixture holds, and its accuracy with the interval."""
    if result.one_model:
        return []
    row = reached.loc[one.setting] if one.setting in reached.index else None
    accuracy = MISSING
    if row is not None and math.isfinite(row["value"]):
        value, low, high = (number(100 * row[end], 0) for end in ("value", "low", "high"))
        accuracy = f"{value} % ({low} to {high})"
    held = trained_on(one.setting) or MISSING
    return [held.replace("the test domain", one.test_domain or "the test domain"), accuracy]


def _answer(result: LoadedResult, rung: str, one: ComparedPair) -> str:
    """A verdict's word; R1 has its own, and of a model that did not learn nothing is said."""
    if one.setting in unlearned_settings(result, one.test_domain):
        return "did not learn"
    summed = middle_verdict(result, rung, one)
    if summed is None:
        return UNMEASURED
    words = READABLE if not RUNGS[rung].indexed else {}
    return words.get(summed.verdict, summed.verdict)


REFUSED = "no index"
ANSWERS = (*VERDICTS, REFUSED)


def answers_table(result: LoadedResult) -> list[WordTable]:
    """How many verdicts give each answer, rung by rung: of the study's own pair, and of all pairs.

    A verdict is one band of layers of one model and pair. What has no index was refused: its reason
    says what there was too little of.
    """
    rows = result.frame("ladder")
    rows = rows[(rows["rung"] != "") & (rows["control"] == "")]
    if rows.empty:
        return []
    own = own_pairs(result, rows)
    parts = [("the pairs that are asked about", own)]
    if len(own) < len(rows):
        parts.append(("all pairs of domains", rows))
    said = rows["verdict"].where(rows["index"].notna() | (rows["verdict"] != CANNOT_TELL), REFUSED)
    head = ["Rung", *(f"{SIGNS.get(word, '–')} {word}" for word in ANSWERS)]
    return [
        WordTable(
            f"How many verdicts give each answer: {name}, every band of layers, {len(part)} in all",
            head,
            [
                [f"{rung} {RUNGS[rung].claim}", *(str((own == word).sum()) for word in ANSWERS)]
                for rung, own in said[part.index].groupby(part["rung"])
            ],
        )
        for name, part in parts
    ]


READABLE = {SHARED: "yes", NOT_SHARED: "no"}
"""R1's verdicts: what is shared there is that the class can be read."""


def verdicts_table(result: LoadedResult, rung: str) -> list[WordTable]:
    """A rung's verdict in the middle layers, with index, interval, votes and reasons."""
    grids = []
    for test_domain in result.test_domains:
        rows = [
            _verdict(result, rung, one)
            for one in compared_pairs(result, test_domain)
            if middle_verdict(result, rung, one)
        ]
        if rows:
            where = f", {result.natural} × {test_domain}" if test_domain else ""
            grids.append(WordTable(f"Verdict of {rung} in the middle layers{where}", _HEAD, rows))
    return grids


_HEAD = ("", "Verdict", "Mean index", "95 % interval", "Sites", "Why")


def _verdict(result: LoadedResult, rung: str, one: ComparedPair) -> list[str]:
    summed = middle_verdict(result, rung, one)
    if summed is None:
        return [one.name, "? cannot tell", MISSING, MISSING, "0", "no site in the middle layers"]
    ends = MISSING
    if math.isfinite(summed.low) and math.isfinite(summed.high):
        ends = f"{number(summed.low)} to {number(summed.high)}"
    return [
        one.name,
        f"{SIGNS.get(summed.verdict, '?')} {summed.verdict}",
        number(summed.index),
        ends,
        summed.verdicts,
        "; ".join(told_once(summed.reasons)) or MISSING,
    ]


def by_layer_table(result: LoadedResult, key: str) -> list[WordTable]:
    """A measure's verdict at every site, with index and interval, or the reason for none.

    Of a measure with a direction both are told, the one from the natural domain first.
    """
    measure = _measure(key)
    grids = []
    for test_domain in result.test_domains:
        compared = [
            (one, own)
            for one in compared_pairs(result, test_domain)
            for rows in [one.pair(measure.select(result.frame(measure.table)))]
            for own in [rows[rows["control"] == ""]]
            if len(own)
        ]
        sites = sites_by_depth(pd.concat([own for _, own in compared])) if compared else []
        rows = [
            [site_label(site), *(_at(own[own["site"] == site], one) for one, own in compared)]
            for site in sites
        ]
        if rows:
            where = f", {result.natural} × {test_domain}" if test_domain else ""
            where += "; after the stroke, back" if measure.directed else ""
            counted = counts(pd.concat([own for _, own in compared]))
            head = ["Layer", *(one.name for one, _ in compared)]
            grids.append(WordTable(f"{key} layer by layer{where}. {counted}", head, rows))
    return grids


def _measure(key: str) -> RungMeasure:
    """A measure of the registry by its key."""
    return next(one for rung in RUNGS.values() for one in rung.measures if one.key == key)


def _at(rows: Frame, one: ComparedPair) -> str:
    """One site's verdict in words, in each direction that was measured."""
    onwards = rows[rows["domain_a"] == one.natural]
    both = [part.iloc[0] for part in (onwards, rows.drop(onwards.index)) if len(part)]
    return " / ".join(map(_one_way, both)) or "not measured"


def _one_way(row: pd.Series) -> str:
    verdict = row["verdict"] or CANNOT_TELL
    if not math.isfinite(row["index"]):
        return f"{SIGNS[verdict]} {verdict}: {row['reason'] or 'no index'}"
    ends = f"{number(row['index_low'])} to {number(row['index_high'])}"
    return f"{SIGNS[verdict]} {verdict}, {number(row['index'])} ({ends})"


def levels_table(result: LoadedResult) -> list[WordTable]:
    """Every level's verdict with its number, why it cannot be told, and what would decide."""
    rows = result.frame("levels")
    told: dict[tuple[str, ...], list[str]] = {}
    for _, row in rows.iterrows():
        held = f", {row['adjusted']} held constant" if row["adjusted"] else ""
        ends = MISSING
        if row["level"] == "L4" and math.isfinite(row["low"]):
            value, low, high = (in_points(row[each]) for each in ("value", "low", "high"))
            ends = f"{value} points ({low} to {high})"
        elif math.isfinite(row["low"]) and math.isfinite(row["high"]):
            ends = f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"
        elif math.isfinite(row["value"]):
            ends = f"{number(row['value'])} (no interval)"
        gain = row["gain"]
        name = f"{row['rung']} {row['measure']}{held}".strip()
        said = (
            row["level"],
            name if ends != MISSING else "",  # what has no number and fails alike is one row
            f"{LINK_SIGNS.get(row['verdict'], '?')} {row['verdict']}",
            ends,
            number(row["p_adjusted"], 3),
            "none" if gain <= 0 else percent(gain),
            row["reason"] or MISSING,
            row["needed"] or MISSING,
        )
        told.setdefault(said, []).append(name)
    body = []
    for (level, _, *rest), names in told.items():
        n = len(names) - 1
        more = f" and {n} more {plural('row', n)}" if n else ""
        body.append([f"{level} {names[0]}{more}", *rest])
    link = "Correlation; of L4 the difference"
    head = ("", "Verdict", link, "p (Holm)", "Gain in prediction", "Why", "Would decide")
    return [WordTable("Does accuracy go with sharing? Level by level", head, body)] if body else []


LINK_SIGNS = {TOGETHER: "●", AGAINST: "⊖", APART: "○", CANNOT_TELL: "?"}


def angles_table(result: LoadedResult) -> list[WordTable]:
    """Shares of class and domain at the middle site, and whether they lie along one another."""
    frame = result.frame("factorisation")
    site = middle_site(frame)
    grids = []
    for test_domain in result.test_domains:
        rows = []
        for one in compared_pairs(result, test_domain):
            own = one.of(frame)
            own = own[(own["control"] == "") & (own["site"] == site)].set_index("factor")
            if len(own):
                rows.append([one.name, *(_share(own, factor) for factor in FACTOR_COLUMNS)])
        if rows:
            where = f", {test_domain} held out" if test_domain else ""
            head = ["", *FACTOR_COLUMNS.values()]
            grids.append(WordTable(f"Factors at {site_label(site)}{where}", head, rows))
    return grids[:1] if result.one_model else grids


FACTOR_COLUMNS = {
    "class": "Class, in all domains",
    "domain": "Domain, in all classes",
    "interaction": "Only jointly",
    "class and domain": "Squared cosine of class and domain",
}


def _share(own: Frame, factor: str) -> str:
    """A factor's share with its interval; of several models their mean, from least to most."""
    rows = own[own.index == factor]
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


def dictionaries_table(result: LoadedResult) -> list[WordTable]:
    """How good the dictionaries are that features were counted in."""
    rows = [[name, *words] for name, words in dictionary_words(result)]
    head = (
        "",
        "Features",
        "Active",
        "Explained",
        "Dead",
        "Accuracy recovered",
        "Cosine over seeds",
    )
    return [WordTable("Dictionaries at the middle site", head, rows)] if rows else []


def certificate_verdict(result: LoadedResult) -> list[WordTable]:
    """Passed or failed, by check."""
    rows = result.frame("certificate")
    if rows.empty:
        return []
    body = []
    for row in worst_of_checks(rows).itertuples():
        error = f"{row.error:.2g}" if math.isfinite(row.error) else MISSING
        verdict = f"✗ {row.failed} fail" if row.failed else "✓ all pass"
        check = f"{row.tower} {row.check}"
        numbers = [str(row.n_sites), row.site, error, f"{row.bar:.2g}"]
        body.append([check, str(row.dtype), *numbers, verdict])
    head = ("Check", "Precision", "Sites", "Nearest to its bar", "Error", "Bar", "Verdict")
    return [WordTable("Certificate", head, body)]


def dictionary_words(result: LoadedResult) -> list[tuple[str, list[str]]]:
    """Each subject's dictionary: L0, explained variance, dead, recovered accuracy, stability."""
    frame = result.frame("dictionaries")
    found = []
    for test_domain in result.test_domains:
        for one in compared_pairs(result, test_domain):
            own = one.of(frame)
            own = own[(own["control"] == "") & (own["class_set"].isin(["all", ""]))]
            if own["value"].notna().any():
                name = f"{one.name}, {test_domain}" if len(result.test_domains) > 1 else one.name
                found.append((name, _described(own, one)))
    return found


def _described(own: Frame, one: ComparedPair) -> list[str]:
    whole = own[own["domain"] == ""]

    def mean(rows: Frame, measure: str) -> float:
        return float(rows.loc[rows["measure"] == measure, "value"].mean())

    stable, chance = (
        mean(whole, "mean cosine"),
        float(whole.loc[whole["measure"] == "mean cosine", "null"].mean()),
    )
    recovered = [
        f"{name} {percent(mean(own[own['domain'] == name], 'recovered accuracy'))} of "
        f"{percent(float(own.loc[_recovered(own, name), 'ceiling'].mean()))}"
        for name in (one.natural, one.domain)
        if _recovered(own, name).any()
    ]
    width = own["width"].dropna()
    return [
        f"{int(width.iloc[0])}" if len(width) else "–",
        number(mean(whole, "active features"), 1),
        percent(mean(whole, "explained variance")),
        percent(mean(whole, "dead features")),
        "; ".join(recovered) or "–",
        f"{number(stable)} (chance {number(chance)})",
    ]


def _recovered(own: Frame, domain: str) -> "pd.Series[bool]":
    return (own["measure"] == "recovered accuracy") & (own["domain"] == domain)

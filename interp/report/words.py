"""The answer in two to four sentences, computed from the tables, no word stronger than its level.

Geometry (R2) and directions (R3) may be called shared; only activation transplants (R4) license the
words "shared mechanism". A handful of checkpoints licenses no "goes with" at all.
"""

import math
from collections.abc import Sequence

import pandas as pd

from interp.core.links import LEVELS, disagreement
from interp.core.statistics import CANNOT_TELL, NOT_SHARED, SHARED
from interp.core.votes import Votes
from interp.report.naming import between, contrast, number, percent, sequence, setting_name
from interp.report.primary import EPOCH_0, held_out_accuracy, primary_differences
from interp.report.reading import Frame, Result
from interp.report.subjects import Subject, band, in_band, rung_rows, subjects

ENOUGH_MIXTURES = 8
"""Below this number of settings nothing across them is a test."""


def answer(result: Result) -> list[str]:
    """Two to four sentences per test domain; the first says what generalizes, the last how sure.

    Sentences whose tables are missing say so in their own words.
    """
    sentences: list[str] = []
    for test_domain in result.test_domains:
        compared = subjects(result, test_domain)
        if result.one_model:
            sentences += [_readable(result, compared)]
        else:
            sentences += [_generalizes(result, test_domain)]
        if result.accuracy_only:
            continue
        sentences += [_arranged(result, compared), _moved(result, compared)]
        if not result.one_model and result.frame("levels").empty:
            sentences += [_together(result, test_domain, compared)]
    sentences += linked(result)
    return [sentence for sentence in sentences if sentence]


def linked(result: Result) -> list[str]:
    """Whether generalization goes with sharing, level by level, and what would decide the rest.

    Where levels are decided with opposite signs, that comes first.
    """
    rows = result.frame("levels")
    if rows.empty:
        return []
    own = rows[rows["adjusted"] == ""]
    present = [level for level in LEVELS if level in set(own["level"])]
    said = "; ".join(_level(own[own["level"] == level], rows) for level in present)
    wanted = [
        f"{level} would take {needed}"
        for level in present
        for open_ in [own[(own["level"] == level) & (own["needed"] != "")]]
        for needed in open_["needed"].iloc[:1]
        if (own[own["level"] == level]["verdict"] == CANNOT_TELL).all()
    ]
    to_do = f"To decide: {'; '.join(wanted)}." if wanted else ""
    return [disagreement(rows), f"{said[:1].upper()}{said[1:]}.", to_do]


def _level(own: Frame, rows: Frame) -> str:
    """What a level licenses to say, by which rungs."""
    level = own["level"].iloc[0]
    parts = []
    for verdict, same in own[own["verdict"] != CANNOT_TELL].groupby("verdict", sort=False):
        named = sequence(list(dict.fromkeys(same["rung"])))
        held = rows[(rows["level"] == level) & (rows["adjusted"] != "")]
        held = held[held["measure"].isin(same["measure"])]
        lost = len(held) and not (held["verdict"] == verdict).any()
        but = f", but not with the {held['adjusted'].iloc[0]} held constant" if lost else ""
        parts.append(f"{same['licence'].iloc[0]} ({level}, by {named}){but}")
    open_ = own[own["verdict"] == CANNOT_TELL]
    if not parts:
        why = next((reason for reason in open_["reason"] if reason), "")
        return f"{open_['licence'].iloc[0]} ({level}{f': {why}' if why else ''})"
    if len(open_):
        parts.append(f"by {sequence(list(dict.fromkeys(open_['rung'])))} that cannot be told")
    return ", ".join(parts)


def _generalizes(result: Result, test_domain: str) -> str:
    """Accuracy on held-out classes in the test domain, and what the paired differences allow."""
    rows = held_out_accuracy(result, test_domain)
    where = f"On held-out classes in {test_domain or 'the test domain'}"
    if rows["value"].notna().sum() == 0:
        return f"{where}, accuracy was not measured: whether any setting generalizes is open."
    reached = [
        f"{percent(float(row.value))} for {setting_name(str(row.setting))}"
        for row in rows.dropna(subset=["value"]).itertuples()
    ]
    floor = _floor(result, rows, test_domain)
    differences = [
        _difference(row)
        for _, row in primary_differences(result, test_domain).iterrows()
        if len(contrast(row["setting"])) == 2
    ]
    said = sequence([words for words in differences if words])
    compared = f"; {said}" if said else ""
    return f"{where}, balanced accuracy is {sequence(reached)} ({floor}){compared}."


def _floor(result: Result, rows: Frame, test_domain: str) -> str:
    untrained = held_out_accuracy(result, test_domain, control=EPOCH_0)["value"].dropna()
    words = [f"chance {percent(float(rows['null'].mean()))}"] if rows["null"].notna().any() else []
    if len(untrained):
        words.append(f"untrained {percent(float(untrained.mean()))}")
    return ", ".join([*words, "among all classes"])


def _difference(row: Frame) -> str:
    better, worse = (setting_name(part) for part in contrast(row["setting"]))
    value, low, high = float(row["value"]), float(row["low"]), float(row["high"])
    if not math.isfinite(value):
        return ""
    interval = between(100 * low, 100 * high, 1)
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{better} and {worse} differ by {number(100 * value, 1)} points ({interval})"
    if low > 0:
        return f"{better} beats {worse} by {number(100 * value, 1)} points ({interval})"
    if high < 0:
        return f"{better} falls behind {worse} by {number(-100 * value, 1)} points " + (
            f"({between(-100 * high, -100 * low, 1)})"
        )
    return f"whether {better} beats {worse} cannot be told ({number(100 * value, 1)} points, " + (
        f"{interval})"
    )


def _readable(result: Result, compared: Sequence[Subject]) -> str:
    """R1 for one checkpoint: in which domains a probe reads the class."""
    frame = result.frame("transfer")
    own = frame[(frame["train_domain"] == frame["domain"]) & ~frame["centred"]]
    domains = dict.fromkeys(name for one in compared for name in (one.natural, one.domain))
    found = {name: readable(own[own["domain"] == name]) for name in domains}
    yes = [name for name, (verdict, _) in found.items() if verdict == "yes"]
    no = [name for name, (verdict, _) in found.items() if verdict == "no"]
    if not yes and not no:
        return "Whether the classes can be read in each domain (R1) was not measured."
    parts = [f"can be read in {sequence(yes)}"] if yes else []
    parts += [f"cannot be shown to be readable in {sequence(no)}"] if no else []
    return f"In the middle layers the class {' but '.join(parts)} (linear probes, R1)."


def readable(rows: Frame) -> tuple[str, float]:
    """Whether a probe beats its null at every middle layer ("yes", "no", "") and its accuracy."""
    middle = in_band(rows).dropna(subset=["value", "null"])
    if middle.empty:
        return "", math.nan
    sure = bool((middle["low"] > middle["null"]).all())
    return ("yes" if sure else "no"), float(middle["value"].mean())


def _arranged(result: Result, compared: Sequence[Subject]) -> str:
    """R2 and R3: are geometry and directions of the middle layers shared, per subject?"""
    parts = []
    for rung, what in (("R2", "arranged alike (debiased CKA, R2)"), ("R3", "")):
        found = _bands(result, rung, compared)
        if found:
            parts.append(_tell(found, what or "read by the same probe directions (R3)"))
    if not parts:
        return "Whether the middle layers are shared between domains was not measured."
    ends = sequence([compared[0].natural, compared[0].domain])
    where = "across each pair of domains" if result.one_model else f"between {ends}"
    return f"In the middle layers, {where}, the classes are {'; they are '.join(parts)}."


def _moved(result: Result, compared: Sequence[Subject]) -> str:
    """R4, which may speak of mechanisms."""
    found = _bands(result, "R4", compared)
    if not found:
        return ""
    shared = [one.name for one, found_band in found if found_band.verdict == SHARED]
    apart = [one.name for one, found_band in found if found_band.verdict == NOT_SHARED]
    unsure = [one.name for one, found_band in found if found_band.verdict == CANNOT_TELL]
    parts = [f"a shared mechanism for {sequence(shared)}"] if shared else []
    parts += [f"no common mechanism in the middle layers for {sequence(apart)}"] if apart else []
    parts += [f"no decision for {sequence(unsure)}"] if unsure else []
    how = "moving activations from domain to domain"
    if len(result.frame("das")):
        how = "interchanging in one domain what carries the class in the other"
    return f"The causal test, {how} (R4), finds {_join(parts)}."


def _bands(result: Result, rung: str, compared: Sequence[Subject]) -> list[tuple[Subject, Votes]]:
    found = [(one, band(rung_rows(result, rung, one))) for one in compared]
    return [(one, summed) for one, summed in found if summed is not None]


def _tell(found: Sequence[tuple[Subject, Votes]], what: str) -> str:
    """Which subjects are shared, not shared, undecided; each with its index where decided."""
    groups = {
        word: [
            f"{one.name} ({number(summed.index)})" if math.isfinite(summed.index) else one.name
            for one, summed in found
            if summed.verdict == word
        ]
        for word in (SHARED, NOT_SHARED, CANNOT_TELL)
    }
    parts = [f"{what} for {sequence(groups[SHARED])}"] if groups[SHARED] else []
    if groups[NOT_SHARED]:
        start = "not" if parts else f"not {what}"
        parts.append(f"{start} for {sequence(groups[NOT_SHARED])}")
    if groups[CANNOT_TELL]:
        subject = "" if parts else f"possibly {what}, but "
        parts.append(f"{subject}undecided for {sequence(groups[CANNOT_TELL])}")
    return _join(parts)


def _join(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _together(result: Result, test_domain: str, compared: Sequence[Subject]) -> str:
    """Accuracy beside sharing across checkpoints: always a description, and says why."""
    points = [
        (float(row["value"]), summed.index)
        for one, summed in _bands(result, "R2", compared)
        for name, row in held_out_accuracy(result, test_domain).iterrows()
        if name == one.setting
    ]
    points = [point for point in points if all(map(math.isfinite, point))]
    n = len(points)
    if n < 3:
        return (
            f"With {n} checkpoint{'' if n == 1 else 's'} that have both an accuracy and a sharing "
            "index, whether sharing and generalization go together cannot be told."
        )
    accuracies, indices = zip(*points, strict=True)
    constant = len(set(accuracies)) == 1 or len(set(indices)) == 1
    rho = math.nan if constant else pd.Series(accuracies).corr(pd.Series(indices), "spearman")
    return (
        f"Across the {n} checkpoints {_order(rho)}; this is descriptive and no test ({_least(n)}), "
        "so that sharing goes with generalization cannot be claimed from this run."
    )


def _order(rho: float) -> str:
    if not math.isfinite(rho):
        return "accuracy or sharing does not vary"
    strength = f"(Spearman {number(rho)})"
    if rho > 0.999:
        return f"accuracy and sharing have the same order {strength}"
    if rho >= 0.5:
        return f"accuracy and sharing have nearly the same order {strength}"
    if rho <= -0.5:
        return f"accuracy and sharing have opposite orders {strength}"
    return f"accuracy and sharing have no common order {strength}"


def _least(n: int) -> str:
    if n < ENOUGH_MIXTURES:
        return f"no permutation of {n} mixtures can give a p below 1/{math.factorial(n)}"
    return "the mixtures were not permuted here"

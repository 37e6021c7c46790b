"""The answer in two to four sentences, computed from the tables, no word stronger than its level.

Geometry (R2) and directions (R3) may be called shared; only activation transplants (R4) license the
words "shared mechanism". A handful of checkpoints licenses no "goes with" at all.
"""

import math
from collections.abc import Sequence

import pandas as pd

from interp.core.errors import sequence
from interp.core.statistics.index_of_sharing import (
    CANNOT_TELL,
    NOT_SHARED,
    PARTLY,
    SHARED,
    VERDICTS,
)
from interp.core.statistics.replication import ONE_BLOCK
from interp.declared.writing import between, in_points, number, percent
from interp.report.figures.levels_of_evidence import foremost
from interp.report.grammar.subjects import (
    EPOCH_0,
    ComparedPair,
    compared_pairs,
    held_out_accuracy,
    learned_pairs,
    middle_verdicts,
    models_told,
    primary_differences,
    unlearned_settings,
)
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import contrast, setting_name
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import Votes
from interp.verdicts.wording import GOES, LEVELS, disagreement

ENOUGH_MIXTURES = 8
"""Below this number of settings nothing across them is a test."""


def answer_sentences(result: LoadedResult) -> list[str]:
    """Two to four sentences per test domain; the first says what generalizes, the last how sure.

    Models that did not learn come before all else. Sentences whose tables are missing say so in
    their own words.
    """
    sentences = [unlearned(result)]
    for test_domain in result.test_domains:
        compared = learned_pairs(result, test_domain)
        if not compared and compared_pairs(result, test_domain):
            continue
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


def unlearned(result: LoadedResult) -> str:
    """Which models are not shown to have learned, by what; "" for none."""
    told = models_told(result)
    failed = told[~told["learned"]]
    if failed.empty:
        return ""
    several, named = len(result.test_domains) > 1, []
    for (setting, test_domain), own in failed.groupby(["setting", "test_domain"], sort=False):
        same = told[(told["setting"] == setting) & (told["test_domain"] == test_domain)]
        parts = [str(test_domain)] if several else []
        parts += [f"{len(own)} of {len(same)} models"] if len(own) < len(same) else []
        named.append(setting_name(str(setting)) + (f" ({', '.join(parts)})" if parts else ""))
    most = failed.loc[failed["value"].idxmax()]
    reached = f"{'at most ' if len(failed) > 1 else ''}{percent(float(most['value']))}"
    interval = between(100 * float(most["low"]), 100 * float(most["high"]), 1)
    return (
        f"Not shown to have learned, so that nothing below is judged for it: {sequence(named)}. On "
        f"seen classes in its own training domains it reaches {reached} ({interval}, by drawings); "
        f"always answering one class gets {percent(float(most['null']))}."
    )


def _judged(result: LoadedResult, rows: Frame, test_domain: str) -> Frame:
    """Rows of settings, and of contrasts of settings, some model of which learned."""
    failed = set(unlearned_settings(result, test_domain))
    keep = [failed.isdisjoint(contrast(setting)) for setting in rows["setting"]]
    return rows.loc[keep] if len(rows) else rows


def linked(result: LoadedResult) -> list[str]:
    """Whether generalization goes with sharing, level by level, and what would decide the rest.

    Where levels are decided with opposite signs, that comes first.
    """
    rows = result.frame("levels")
    if rows.empty:
        return []
    own = rows[rows["adjusted"] == ""]
    present = [level for level in LEVELS if level in set(own["level"])]
    if not present:  # an intervention alone, which has a section of its own
        return []
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


def _generalizes(result: LoadedResult, test_domain: str) -> str:
    """Accuracy on held-out classes in the test domain, and what the paired differences allow."""
    rows = _judged(result, held_out_accuracy(result, test_domain), test_domain)
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
        for _, row in _judged(
            result, primary_differences(result, test_domain), test_domain
        ).iterrows()
        if len(contrast(row["setting"])) == 2
    ]
    said = sequence([words for words in differences if words])
    compared = f"; {said}" if said else ""
    return f"{where}, balanced accuracy is {sequence(reached)} ({floor}){compared}."


def _floor(result: LoadedResult, rows: Frame, test_domain: str) -> str:
    untrained = held_out_accuracy(result, test_domain, control=EPOCH_0)["value"].dropna()
    words = [f"chance {percent(float(rows['null'].mean()))}"] if rows["null"].notna().any() else []
    if len(untrained):
        words.append(f"untrained {percent(float(untrained.mean()))}")
    return ", ".join([*words, "among all classes"])


def _difference(row: pd.Series) -> str:
    better, worse = (setting_name(part) for part in contrast(row["setting"]))
    value, low, high = float(row["value"]), float(row["low"]), float(row["high"])
    if not math.isfinite(value):
        return ""
    interval = between(100 * low, 100 * high, 1)
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{better} and {worse} differ by {number(100 * value, 1)} points ({interval})"
    interval += _runs(row)
    if low > 0:
        return f"{better} beats {worse} by {number(100 * value, 1)} points ({interval})"
    if high < 0:
        return f"{better} falls behind {worse} by {number(-100 * value, 1)} points " + (
            f"({between(-100 * high, -100 * low, 1)}{_runs(row)})"
        )
    return f"whether {better} beats {worse} cannot be told ({number(100 * value, 1)} points, " + (
        f"{interval})"
    )


def _runs(row: pd.Series) -> str:
    """Of what the interval of a contrast speaks, if of less than the settings themselves."""
    return "; of these runs alone" if row.get("unit") == ONE_BLOCK else ""


def _readable(result: LoadedResult, compared: Sequence[ComparedPair]) -> str:
    """R1 for one checkpoint: in which domains a probe reads the class."""
    found = middle_verdicts(result, "R1", compared)
    if not found:
        return "Whether the classes can be read in each domain (R1) was not measured."
    both = [one for one, votes in found if votes.verdict == SHARED]
    yes = list(dict.fromkeys(name for one in both for name in (one.natural, one.domain)))
    ends = dict.fromkeys(name for one, _ in found for name in (one.natural, one.domain))
    no = [name for name in ends if name not in yes]
    parts = [f"can be read in {sequence(yes)}"] if yes else []
    parts += [f"cannot be shown to be readable in {sequence(no)}"] if no else []
    return f"In the middle layers the class {' but '.join(parts)} (linear probes, R1)."


def _arranged(result: LoadedResult, compared: Sequence[ComparedPair]) -> str:
    """R2 and R3: are geometry and directions of the middle layers shared, per subject?"""
    parts = []
    for rung, what in (("R2", "arranged alike (debiased CKA, R2)"), ("R3", "")):
        found = middle_verdicts(result, rung, compared)
        if found:
            parts.append(_tell(found, what or "along the same directions (R3)"))
    if not parts:
        return "Whether the middle layers are shared between domains was not measured."
    ends = sequence([compared[0].natural, compared[0].domain])
    where = "across each pair of domains" if result.one_model else f"between {ends}"
    return f"In the middle layers, {where}, the classes are {'; they are '.join(parts)}."


def _moved(result: LoadedResult, compared: Sequence[ComparedPair]) -> str:
    """R4, which may speak of mechanisms."""
    found = middle_verdicts(result, "R4", compared)
    if not found:
        return ""
    what = {
        SHARED: "a shared mechanism",
        PARTLY: "a partly shared mechanism",
        NOT_SHARED: "no common mechanism in the middle layers",
        CANNOT_TELL: "no decision",
    }
    named = {word: [one.name for one, votes in found if votes.verdict == word] for word in VERDICTS}
    parts = [f"{what[word]} for {sequence(names)}" for word, names in named.items() if names]
    how = "moving activations from domain to domain"
    if len(result.frame("das")):
        how = "interchanging in one domain what carries the class in the other, against noise"
    return f"The causal test, {how} (R4), finds {_join(parts)}."


def _tell(found: Sequence[tuple[ComparedPair, Votes]], what: str) -> str:
    """Which subjects are shared, partly, not shared, undecided; each with its index."""
    groups = {
        word: [
            f"{one.name} ({number(summed.index)})" if math.isfinite(summed.index) else one.name
            for one, summed in found
            if summed.verdict == word
        ]
        for word in VERDICTS
    }
    parts = [f"{what} for {sequence(groups[SHARED])}"] if groups[SHARED] else []
    for word, start in ((PARTLY, "partly"), (NOT_SHARED, "not")):
        if groups[word]:
            subject = "" if parts else f" {what}"
            parts.append(f"{start}{subject} for {sequence(groups[word])}")
    if groups[CANNOT_TELL]:
        subject = "" if parts else f"possibly {what}, but "
        parts.append(f"{subject}undecided for {sequence(groups[CANNOT_TELL])}")
    return _join(parts)


def _join(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _together(result: LoadedResult, test_domain: str, compared: Sequence[ComparedPair]) -> str:
    """Accuracy beside sharing across checkpoints: always a description, and says why."""
    points = [
        (float(row["value"]), summed.index)
        for one, summed in middle_verdicts(result, "R2", compared)
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


ASKED = ("R2", "R3", "R4", "R6")
"""The rungs that the headline names, in its order."""

MOST_DOMAINS = 2
"""With more test domains than this, only the first ones are in the headline."""


def headline(result: LoadedResult) -> list[str]:
    """What generalizes, what is shared and how sure that is, and what an intervention did."""
    failed = [sentence for sentence in [unlearned(result)] if sentence]
    tests = result.test_domains[:MOST_DOMAINS]
    compared = {name: learned_pairs(result, name) for name in tests}
    if failed:
        compared = {name: pairs for name, pairs in compared.items() if pairs}
        if not compared:
            return failed
    if result.one_model:
        said = [_readable(result, compared[tests[0]])]
    else:
        said = [_reached(result, list(compared))]
    if not result.accuracy_only:
        said = [*said, _shared(result, compared)]
    return failed + said + _intervened(result)


def accuracy_reached(result: LoadedResult) -> str:
    """What is reached on held-out classes, in one sentence."""
    tests = [name for name in result.test_domains if learned_pairs(result, name)]
    return _reached(result, tests) if tests and not result.one_model else ""


def _reached(result: LoadedResult, tests: Sequence[str]) -> str:
    """What settings reach on held-out classes, which is clear of all, and what differences say."""
    parts = []
    for name in tests:
        rows = _judged(result, held_out_accuracy(result, name), name).dropna(subset=["value"])
        where = name or "the test domain"
        if rows.empty:
            parts.append(f"in {where} accuracy on held-out classes was not measured")
            continue
        null = float(rows["null"].mean())
        chance = f", chance {percent(null)}" if math.isfinite(null) else ""
        reached = _range(rows, chance)
        parts.append(f"on classes held out in {where}, {reached}{_decided(result, name)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _range(rows: Frame, chance: str) -> str:
    """The settings' accuracies; best and worst are those whose interval is clear of all others."""
    ordered = rows.sort_values("value")
    least, most = (percent(float(ordered["value"].iloc[place])) for place in (0, -1))
    first, last = (setting_name(str(ordered["setting"].iloc[place])) for place in (0, -1))
    if len(rows) == 1:
        return f"{last} reaches {most}{chance}"
    if least == most:
        return f"all {len(rows)} mixtures reach {most}{chance}"
    best = bool((ordered["low"].iloc[-1] > ordered["high"].iloc[:-1]).all())
    worst = bool((ordered["high"].iloc[0] < ordered["low"].iloc[1:]).all())
    if best and worst:
        return f"{last} is best ({most}{chance}), {first} worst ({least})"
    if best:
        others = percent(float(ordered["value"].iloc[-2]))
        return f"{last} is best ({most}{chance}), the others reach {least} to {others}"
    if worst:
        others = percent(float(ordered["value"].iloc[1]))
        return f"{first} is worst ({least}{chance}), the others reach {others} to {most}"
    return f"{len(rows)} mixtures reach {least} to {most}{chance}, with intervals that overlap"


def _intervened(result: LoadedResult) -> list[str]:
    """What aligning classes did, and what that licenses; L4's sentence."""
    found = foremost(result.frame("levels").dropna(subset=["weight", "value", "low", "high"]))
    if found.empty:
        return []
    row = found.iloc[0]
    value, low, high = (in_points(row[each]) for each in ("value", "low", "high"))
    done = "Aligning" if row["weight"] > 0 else "Separating"
    decided = row["licence"] if not row["reason"] else f"what causes that is open: {row['reason']}"
    return [
        f"{done} the seen classes of both domains in training (weight {abs(row['weight']):g}) "
        f"moves accuracy on held-out ones by {value} points ({low} to {high}) more than wrong "
        f"partners do; {decided}."
    ]


def _decided(result: LoadedResult, test_domain: str) -> str:
    """What the paired differences allow, in a clause."""
    rows = _judged(result, primary_differences(result, test_domain), test_domain)
    rows = rows.dropna(subset=["low", "high"])
    rows = rows[[len(contrast(setting)) == 2 for setting in rows["setting"]]]
    if rows.empty:
        return ""
    sure = [_better(row) for _, row in rows.iterrows() if row["low"] > 0 or row["high"] < 0]
    if not sure:
        return "; compared class by class, no setting surely beats another"
    alone = " in these runs" if (rows["unit"] == ONE_BLOCK).all() else ""
    return f"; compared class by class, {sequence(sure)}{alone} (interval above 0)"


def _better(row: pd.Series) -> str:
    one, other = (setting_name(part) for part in contrast(row["setting"]))
    return f"{one} beats {other}" if row["low"] > 0 else f"{other} beats {one}"


def _shared(result: LoadedResult, compared: dict[str, list[ComparedPair]]) -> str:
    """Rung by rung, what the middle layers share; then what that says of generalization."""
    said = []
    for rung in ASKED:
        every = [one for each in compared.values() for one in each]
        found = [summed.verdict for _, summed in middle_verdicts(result, rung, every)]
        if found:
            of = "" if said else " pairs of domains" if result.one_model else " models"
            said.append(f"{RUNGS[rung].label} {_tally(found, of)}")
    if not said:
        return "What the domains share was not measured."
    others = [name for name in compared if name]
    ends = f"{result.natural} and {sequence(others)}" if others else "two domains"
    return f"In the middle layers, {ends} share {', '.join(said)}{_link(result)}."


def _tally(verdicts: Sequence[str], of: str = "") -> str:
    """How many verdicts say what, of what they are.

    >>> _tally(["shared", "shared"], " models")
    'in 2 of 2 models'
    >>> _tally(["partly shared", "cannot tell", "cannot tell"])
    'partly in 1 of 3 (cannot tell in 2)'
    """
    words = {SHARED: "in", PARTLY: "partly in", NOT_SHARED: "not in", CANNOT_TELL: "cannot tell in"}
    counted = {word: verdicts.count(verdict) for verdict, word in words.items()}
    (word, n), *rest = [(word, n) for word, n in counted.items() if n]
    others = ", ".join(f"{word} {n}" for word, n in rest)
    first = f"{word} {n} of {len(verdicts)}{of}"
    if word == words[CANNOT_TELL]:
        first = f"({first})"
    return f"{first} ({others})" if others else first


def _link(result: LoadedResult) -> str:
    """What sharing is good for: the levels that are decided, or that none can be."""
    if result.one_model:
        return "; what that is good for, one model cannot say"
    rows = result.frame("levels")
    decided = rows[(rows["adjusted"] == "") & rows["verdict"].isin(GOES) & (rows["level"] != "L4")]
    if len(decided):
        return "".join(f"; {_level(own, rows)}" for _, own in decided.groupby("level"))
    n = len(held_out_accuracy(result, result.test_domains[0])["setting"].unique())
    if n < ENOUGH_MIXTURES:
        return (
            f"; whether sharing goes with generalization cannot be told from {n} training "
            f"distribution{'' if n == 1 else 's'}"
        )
    return "; whether that goes with generalization is told by the verdict below"


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

"""Accuracy in words: what every mixture reaches, the claims about it, and where errors go."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pandas as pd

from interp.core.errors import sequence
from tests.benchmarks.findings.claims import (
    ALIGNED_ABOVE_DG,
    CLAIMS,
    ENDS,
    OPPOSITE,
    SEEN_AFTERWARDS,
    Claim,
    accuracy_findings,
    claims_by_domain,
    contrasts_of,
)
from tests.benchmarks.findings.tables import N_CLASSES, RUN, asked_blocks
from tests.benchmarks.findings.writing import (
    NOT_ASKED,
    blocks_of,
    bold,
    claims_in_words,
    counted,
    points,
    spoken,
)
from tests.benchmarks.recovering import markdown


def accuracies_table(answers: Mapping[str, pd.DataFrame], *, alone: pd.DataFrame | None) -> str:
    """Accuracy of held-out classes, mixture by mixture, in each domain.

    Among all classes; or among the held-out ones alone, where the pilot's means stand in `alone`.
    """
    candidates = "all" if alone is None else "held-out"
    kept = {} if alone is None else {"pilot": alone}
    kept |= {name: own[own["candidates"] == candidates]
             for name, own in _that_asked(answers, candidates).items()}  # fmt: skip
    means = {
        (name, domain): _mean_of_blocks(part)
        for name, own in kept.items()
        for domain, part in own.groupby("test_domain", sort=False)
    }
    settings = dict.fromkeys(setting for own in means.values() for setting in own.index)
    rows = [
        [spoken(setting)]
        + [f"{100 * own[setting]:.0f} %" if setting in own else "–" for own in means.values()]
        for setting in in_order(settings)
    ]
    n = [str(_n_blocks(kept[name])) for name, _ in means]
    heads = ["mixture", *(f"{name}, {domain}" for name, domain in means)]
    return markdown(heads, [*rows, ["blocks", *n]])


def _mean_of_blocks(own: pd.DataFrame) -> pd.Series:
    """Every mixture's accuracy in a domain, blocks alike whatever classes they hold out."""
    by = [name for name in ("setting", "seed") if name in own]
    return own.groupby(by)["value"].mean().groupby("setting").mean()


def _n_blocks(own: pd.DataFrame) -> int:
    """How many blocks answers are of; of the pilot's means all three."""
    return own["seed"].nunique() if "seed" in own else asked_blocks("pilot")


def reached_table(answers: Mapping[str, pd.DataFrame]) -> str:
    """What the mixtures of the first claims reach among all classes: a row per study, the mean of
    both test domains; and over how many blocks, where a model did not learn."""
    rows = []
    for name, own in answers.items():
        asked = own[own["candidates"] == "all"]
        by_domain = [_mean_of_blocks(part) for _, part in asked.groupby("test_domain")]
        means = pd.concat(by_domain).groupby("setting").mean()
        blocks = asked.groupby("setting")["seed"].nunique()
        fewer = blocks[blocks < blocks.max()]
        few = {each: f" ({counted(n, 'block')})" for each, n in fewer.items()}
        cells = [
            f"{100 * means[each]:.0f} %{few.get(each, '')}" if each in means else "–"
            for each in REACHED
        ]
        rows.append([name, *cells])
    return markdown(["study", *map(spoken, REACHED)], rows)


REACHED = (
    "natural-only", "leave-out-domain", "cg-low", "cg-high", "cg-high, aligned captions",
    "upper-bound-high",
)  # fmt: skip


def in_order(settings: Iterable[str]) -> list[str]:
    """The four settings first, then upper bounds, then what departs from either."""
    return sorted(settings, key=lambda name: FIRST.get(name, len(FIRST) + ("," in name)))


FIRST = {"natural-only": 0, "leave-out-domain": 1, "cg-low": 2, "cg-high": 3}


def alone_table(answers: Mapping[str, pd.DataFrame]) -> str:
    """The claims about accuracy among held-out classes alone: a row each, a column per study.

    Of the pilot no answers are kept, so that its differences would have no interval.
    """
    answers = _that_asked(answers, "held-out")
    found = {name: accuracy_findings(own, candidates="held-out") for name, own in answers.items()}
    rows = [
        [
            f"{claim.number}. {claim.says}",
            *(claim_cell(own, claim.number) for own in found.values()),
        ]
        for claim in CLAIMS
    ]
    return markdown(["claim", *_study_heads(found)], rows)


def domains_table(answers: Mapping[str, pd.DataFrame], found: Mapping[str, pd.DataFrame]) -> str:
    """Claims about mixtures: over both domains as `found`, by the t of blocks, in each domain."""
    rows = []
    domains = list(dict.fromkeys(domain for own in answers.values() for domain in own["domain"]))
    for name, own in answers.items():
        for row in claims_by_domain(own).to_dict("records"):
            alone = [{end: row[f"{domain} {end}"] for end in ENDS} for domain in domains]
            paired = {"value": row["value"], "low": row["paired_low"], "high": row["paired_high"]}
            rest = [points(part | {"n_blocks": row["n_blocks"]}) for part in (paired, *alone)]
            what = f"{row['number']}. {spoken(row['contrast'])}"
            rows.append([what, name, claim_cell(found[name], row["number"]), *rest])
        for row in found[name].query("number == 6").to_dict("records"):  # compares the domains
            paired = row | {"low": row["paired_low"], "high": row["paired_high"]}
            what = f"6. {spoken(row['contrast'])}"
            rows.append([what, name, claim_cell(found[name], 6), points(paired), "–", "–"])
    heads = ["claim", "study", "both domains", "both, t of blocks", *domains]
    return markdown(heads, sorted(rows, key=lambda row: row[0]))


def claim_cell(found: pd.DataFrame, number: int) -> str:
    """A claim's difference, interval and decision in one study."""
    rows = found[found["number"] == number].to_dict("records")
    if not rows:
        return NOT_ASKED
    [row] = rows
    told = f"{points(row)} {bold(row.get('decision', ''))}{_by_blocks(row)}".strip()
    fewer = row["n_blocks"] < found["n_blocks"].max()
    return f"{told}, {counted(row['n_blocks'], 'block')}" if fewer else told


def qualified_cell(
    found: pd.DataFrame, answers: pd.DataFrame, number: int, *, mark: str = ""
) -> str:
    """The same, with what qualifies it: mixtures not above chance, a domain that may be zero.

    The mark stands where something is decided.
    """
    told = claim_cell(found, number)
    if told == NOT_ASKED:
        return told
    told += mark if "**" in told else ""
    return f"{told}{at_floor(answers, number)}{_one_domain_alone(answers, found, number)}"


def at_floor(answers: pd.DataFrame, number: int) -> str:
    """Which mixtures of a claim name held-out classes no more often than chance would."""
    [claim] = [each for each in CLAIMS if each.number == number]
    both = [claim.more, claim.less]
    means = _mean_of_blocks(answers[answers["candidates"] == "all"])
    low = [name for name in both if name in means and means[name] <= 1 / N_CLASSES]
    if not low:
        return ""
    return f" ({'neither' if low == both else f'{spoken(low[0])} not'} above chance)"


def _one_domain_alone(answers: pd.DataFrame, found: pd.DataFrame, number: int) -> str:
    """A claim that holds over both test domains and in one alone may be zero: in which."""
    if found.set_index("number")["decision"][number] != "holds":
        return ""
    own = [claim for claim in CLAIMS if claim.number == number]
    rows = claims_by_domain(answers, own).to_dict("records")
    alone = {
        domain: {end: row[f"{domain} {end}"] for end in ENDS}
        for row in rows
        for domain in dict.fromkeys(answers["test_domain"])
    }
    may_be_zero = {domain: each for domain, each in alone.items() if each["low"] <= 0}
    return "".join(f" ({domain} alone {points(each)})" for domain, each in may_be_zero.items())


def _by_blocks(row: Mapping[str, Any]) -> str:
    """A dagger where a claim that is told from zero is so by the plain t of blocks too."""
    told = row.get("decision") in ("holds", OPPOSITE)
    return "†" if told and (row["paired_low"] > 0 or row["paired_high"] < 0) else ""


def alone_in_words(answers: Mapping[str, pd.DataFrame], *, with_numbers: bool = True) -> str:
    """On which side of zero the claims are among the held-out classes alone."""
    asked = _that_asked(answers, "held-out")
    found = {name: accuracy_findings(own, candidates="held-out") for name, own in asked.items()}
    if with_numbers:
        return _sides_in_words({claim: f"claim {claim.number}" for claim in CLAIMS}, found)
    sides = _on_sides(CLAIMS, found)
    numbers = {side: [claim.number for claim in own] for side, own in sides.items()}
    return "; ".join(f"{side}: {claims_in_words(own)}" for side, own in numbers.items() if own)


def afterwards_in_words(answers: Mapping[str, pd.DataFrame]) -> str:
    """On which side of zero the differences are that nobody planned."""
    found = {name: contrasts_of(own, SEEN_AFTERWARDS) for name, own in answers.items()}
    return _sides_in_words({claim: f"*{claim.says}*" for claim in SEEN_AFTERWARDS}, found)


def captions_turn_it(answers: Mapping[str, pd.DataFrame]) -> bool:
    """Whether CG is above DG in every study once its captions leave the domain out."""
    found = {name: contrasts_of(own, [ALIGNED_ABOVE_DG]) for name, own in answers.items()}
    above, *_ = SIDES
    return ALIGNED_ABOVE_DG in _on_sides([ALIGNED_ABOVE_DG], found)[above]


def afterwards_table(answers: Mapping[str, pd.DataFrame]) -> str:
    """The differences that nobody planned: a row each, a column per study."""
    found = {name: contrasts_of(own, SEEN_AFTERWARDS) for name, own in answers.items()}
    rows = [
        [f"{claim.says} ({spoken(claim.contrast)})"]
        + [claim_cell(own, claim.number) for own in found.values()]
        for claim in SEEN_AFTERWARDS
    ]
    return markdown(["not planned", *_study_heads(found)], rows)


def _study_heads(found: Mapping[str, pd.DataFrame]) -> list[str]:
    """A study and its blocks."""
    return [f"{name}, {blocks_of(name, own['n_blocks'].max())} blocks"
            for name, own in found.items()]  # fmt: skip


Sides: TypeAlias = Mapping[str, Mapping[Claim, Mapping[str, pd.Series]]]
"""Claims by the side of zero that they are on, each with its row in every study that asks."""


def _on_sides(claims: Iterable[Claim], found: Mapping[str, pd.DataFrame]) -> Sides:
    """Which differences are above zero in each study that asks, which below, and which neither.

    By intervals of one difference alone.
    """
    sides: dict[str, dict[Claim, dict[str, pd.Series]]] = {side: {} for side in SIDES}
    everywhere, turned, neither = SIDES
    for claim in claims:
        rows = {
            name: own.set_index("number").loc[claim.number]
            for name, own in found.items()
            if claim.number in set(own["number"])
        }
        if not rows:
            continue
        above = all(row["low"] > 0 for row in rows.values())
        below = all(row["high"] < 0 for row in rows.values())
        sides[everywhere if above else turned if below else neither][claim] = rows
    return sides


SIDES = "above zero", "the other way round", "mixed, or may be zero"


def _sides_in_words(called: Mapping[Claim, str], found: Mapping[str, pd.DataFrame]) -> str:
    """Differences side by side of zero; where all studies agree each one's stands behind."""
    said = {
        side: [f"{called[claim]}{_notes(side, claim, rows)}" for claim, rows in own.items()]
        for side, own in _on_sides(called, found).items()
    }
    return "; ".join(f"{side}: {sequence(told)}" for side, told in said.items() if told)


def _notes(side: str, claim: Claim, rows: Mapping[str, pd.Series]) -> str:
    """What is to be said of a difference that is on this side of zero."""
    _, turned, neither = SIDES
    notes = [f"{points(row)} in {name}" for name, row in rows.items()]
    if side == turned:
        notes = [f"{spoken(claim.less)} is above {spoken(claim.more)}", *notes]
    if side == neither:
        above = [name for name, row in rows.items() if row["low"] > 0]
        below = [name for name, row in rows.items() if row["high"] < 0]
        apart = {"above zero": above, "below": below}
        notes = [f"{where} in {sequence(names)}" for where, names in apart.items() if names]
    return f" ({', '.join(notes)})" if notes else ""


def _that_asked(answers: Mapping[str, pd.DataFrame], candidates: str) -> dict[str, pd.DataFrame]:
    """The studies that kept answers among these classes; the pilot has those among all alone."""
    return {name: own for name, own in answers.items() if (own["candidates"] == candidates).any()}


def errors_table(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """Of the errors on held-out classes, how many are seen classes, and how many by chance."""
    shares = {name: of_errors(own) for name, own in studies.items()}
    means = {name: own.groupby(level=0)["seen"].agg(["mean", "min", "max"])
             for name, own in shares.items()}  # fmt: skip
    settings = dict.fromkeys(setting for own in means.values() for setting in own.index)
    rows = [
        [spoken(setting), *(_share(own, setting) for own in means.values())]
        for setting in in_order(settings)
    ]
    chance = [f"{100 * own['chance'].mean():.0f} %" for own in shares.values()]
    n = [str(_n_blocks(own["answers"])) for own in studies.values()]
    return markdown(["mixture", *means], [*rows, ["by chance", *chance], ["blocks", *n]])


def of_errors(own: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Of every run's errors on held-out classes in the test domain, the share that are seen ones.

    seen = pictures taken for seen classes / (1 - accuracy),

    chance = seen classes / (classes - 1).

    Args:
        own: `answers` and `errors` of a study.

    Returns:
        `seen` and `chance` by mixture, test domain and block; a run without errors has none.
    """
    answers = own["answers"].query("candidates == 'all'").groupby(RUN)["value"]
    wrong = 1 - answers.mean()
    taken = own["errors"].set_index(RUN)["value"]
    seen = (taken / wrong.where(wrong > 0)).dropna()
    chance = (N_CLASSES - answers.size()) / (N_CLASSES - 1)
    return pd.DataFrame({"seen": seen, "chance": chance}).dropna()


def _share(means: pd.DataFrame, setting: str) -> str:
    if setting not in means.index:
        return "–"
    mean, least, most = 100 * means.loc[setting]
    return f"{mean:.0f} % ({least:.0f} to {most:.0f})"

"""Words of the levels of evidence: their verdicts, and what each licenses to say.

A level is a way to ask: L1 across mixtures, L2 within a mixture, L3 among the classes of a model,
L4 by an intervention. They are never pooled, and each licenses words of its own.
"""

from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.correlations import Link
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.statistics.power import SMALL, least_visible
from interp.declared.writing import between, number, plural

TOGETHER, AGAINST, APART = "goes together", "goes against", "does not go together"

SIGNIFICANT = 0.05

LEVELS = {
    "L1": "across mixtures",
    "L2": "within a mixture",
    "L3": "among classes",
    "L4": "by intervention",
}

OUTCOMES = {
    "accuracy": "generalization",
    "knowing": "knowing held-out classes",
    "bias": "the bias against held-out classes",
}
"""What is held against sharing, in words."""

GOES = {TOGETHER: "goes with", AGAINST: "goes against", APART: "does not go with"}
CLASSES = {
    TOGETHER: "classes that are shared more are recognised better",
    AGAINST: "classes that are shared more are recognised worse",
    APART: "classes that are shared more are recognised neither better nor worse",
}
CAUSES = {
    TOGETHER: "held-out classes are recognised better in the test domain because classes lie in "
    "the same directions there as in natural pictures",
    AGAINST: "held-out classes are recognised worse in the test domain because classes lie in "
    "the same directions there as in natural pictures",
    APART: "sharing directions is not what makes held-out classes recognised in the test domain",
    UNKNOWN: "nothing about causes",
}
"""What each verdict of L4 allows to be said, of this mixture, layer and term."""


def judge_link(link: Link, p_adjusted: float) -> tuple[str, str]:
    """The verdict on a link, and the condition that keeps it from another; "" where none does.

    "does not go together" is an equivalence: the interval lies within |r| < .3, and within what
    noise leaves of that. "goes together" and "goes against" need an interval that excludes 0, p
    (after Holm) of at most .05, and a sign that no single mixture carries. All else is "unknown",
    as is whatever has too few units or a spread below two standard errors. Noise hides a link and
    makes none: a reliability below .6, or unknown, forbids "does not go together" alone.

    >>> enough = {"mixture": 10}
    >>> judge_link(Link(0.8, 0.5, 0.9, 0.001, enough, {"mixture": 8}, reliability=0.9), 0.005)
    ('goes together', '')
    >>> judge_link(Link(0.1, -0.4, 0.5, 0.7, enough, {"mixture": 8}, reliability=0.9), 1.0)[0]
    'unknown'
    """
    if link.reason:
        return UNKNOWN, link.reason
    few = [
        f"{link.n.get(unit, 0)} {plural(unit, link.n.get(unit, 0))}, at least {least} are needed"
        for unit, least in link.least.items()
        if link.n.get(unit, 0) < least
    ]
    if few:
        return UNKNOWN, "; ".join(few)
    if link.narrow:
        return UNKNOWN, link.narrow
    if not np.isfinite([link.low, link.high]).all():
        return UNKNOWN, "no interval: without one unit a number does not vary"
    if -SMALL < link.low and link.high < SMALL:
        noisy = _noisy(link)
        return (UNKNOWN, noisy) if noisy else (APART, "")
    if link.low <= 0 <= link.high:
        return UNKNOWN, (
            f"the interval {number(link.low)} to {number(link.high)} holds both 0 and |r| = {SMALL}"
        )
    if not p_adjusted <= SIGNIFICANT:
        return UNKNOWN, f"p = {p_adjusted:.3f} after Holm's adjustment is above {SIGNIFICANT}"
    if link.flips:
        return UNKNOWN, f"the sign is another without {link.flips}"
    return (TOGETHER if link.value > 0 else AGAINST), ""


def _noisy(link: Link) -> str:
    """Why the number is too noisy to say that there is no link; "" where it is not."""
    if not np.isfinite(link.reliability):
        return "reliability is not known: measure sharing on two halves of drawings"
    if max(-link.low, link.high) >= least_visible(link.reliability):
        found = f"reliability {link.reliability:.2f} ({link.reliability_kind})"
        return f"no link is seen, but at {found} noise may hide one"
    return ""


def licence(level: str, verdict: str, outcome: str = "accuracy") -> str:
    """The words that a verdict licenses at a level, no stronger ones.

    >>> licence("L2", "goes together")
    'within a mixture, generalization goes with sharing'
    >>> licence("L1", "unknown")
    'whether generalization goes with sharing across mixtures is unknown'
    >>> licence("L1", "does not go together", "bias")
    'across mixtures, the bias against held-out classes does not go with sharing'
    """
    if level == "L4":
        return CAUSES[verdict]
    if level == "L3":
        return CLASSES.get(verdict, f"whether {CLASSES[TOGETHER]} is unknown")
    if verdict not in GOES:
        return f"whether {OUTCOMES[outcome]} goes with sharing {LEVELS[level]} is unknown"
    return f"{LEVELS[level]}, {OUTCOMES[outcome]} {GOES[verdict]} sharing"


def disagreement(levels: pd.DataFrame) -> str:
    """What is said first where L1 and L2 or L3 are decided with opposite signs; else "".

    `levels` is a frame with the columns `level, rung, measure, adjusted, verdict`.

    >>> said = {"rung": "R2", "measure": "debiased CKA", "outcome": "accuracy", "adjusted": ""}
    >>> disagreement(pd.DataFrame([{"level": "L1", "verdict": "goes together", **said},
    ...                            {"level": "L2", "verdict": "goes against", **said}]))
    'By R2 (debiased CKA), accuracy goes with sharing across mixtures, but against it within a
    mixture: what differs between mixtures makes both, or hides what sharing does.'
    """
    signed = levels[levels["verdict"].isin([TOGETHER, AGAINST]) & (levels["adjusted"] == "")]
    signed = signed[signed["outcome"] != "bias"]
    first = signed[signed["level"] == "L1"]
    for row in first.itertuples():
        others = signed[(signed["level"].isin(["L2", "L3"])) & (signed["rung"] == row.rung)]
        opposed = others[others["verdict"] != row.verdict]["level"]
        if len(opposed):
            where = " and ".join(LEVELS[level] for level in dict.fromkeys(opposed))
            ends = ("with", "against") if row.verdict == TOGETHER else ("against", "with")
            return (
                f"By {row.rung} ({row.measure}), accuracy goes {ends[0]} sharing across mixtures, "
                f"but {ends[1]} it {where}: what differs between mixtures makes both, or hides "
                "what sharing does."
            )
    return ""


def level_sentence(row: Any) -> str:
    """A row of the table `levels` as a sentence: what it licenses, its number, and what is missing.

    >>> level_sentence({"level": "L1", "rung": "R2", "measure": "debiased CKA", "adjusted": "",
    ...       "value": 0.8, "low": 0.5, "high": 0.9, "p_adjusted": 0.01, "verdict": "goes together",
    ...       "licence": licence("L1", "goes together"), "reason": "", "needed": "", "gain": -0.1})
    'By R2 (debiased CKA), across mixtures, generalization goes with sharing (r = 0.80, 95 %
    interval 0.50 to 0.90, p = 0.01); it adds nothing to what else foretells accuracy.'
    """
    beyond = f", {row['adjusted']} held constant" if row["adjusted"] else ""
    ends = between(row["low"], row["high"])
    p = row["p_adjusted"]
    shown = f", p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}" if np.isfinite(p) else ""
    value = f" (r = {number(row['value'])}, {ends}{shown})" if np.isfinite(row["value"]) else ""
    why = f", because {row['reason']}" if row["verdict"] == UNKNOWN and row["reason"] else ""
    to_do = f"; {row['needed']} would decide" if row["needed"] else ""
    nothing = ""
    if row["verdict"] != UNKNOWN and row["gain"] <= 0:
        nothing = "; it adds nothing to what else foretells accuracy"
    text = f"By {row['rung']} ({row['measure']}){beyond}, {row['licence']}{value}"
    return f"{text}{why}{to_do}{nothing}."

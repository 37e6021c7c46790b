"""Words of the levels of evidence: their verdicts, and what each licenses to say.

A level is a way to ask: L1 across mixtures, L2 within a mixture, L3 among the classes of a model,
L4 by an intervention. They are never pooled, and each licenses words of its own.
"""

from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.correlations import Link
from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.core.statistics.power import SMALL
from interp.core.statistics.reliability import RELIABLE
from interp.declared.writing import between, number, plural

TOGETHER, AGAINST, APART = "goes together", "goes against", "does not go together"

SIGNIFICANT = 0.05

LEVELS = {
    "L1": "across mixtures",
    "L2": "within a mixture",
    "L3": "among classes",
    "L4": "by intervention",
}

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
    CANNOT_TELL: "nothing about causes",
}
"""What each verdict of L4 allows to be said, of this mixture, layer and term."""


def judge_link(link: Link, p_adjusted: float) -> tuple[str, str]:
    """The verdict on a link, and the condition that keeps it from another; "" where none does.

    "does not go together" is an equivalence: the interval lies within |r| < .3. "goes together" and
    "goes against" need an interval that excludes 0, p (after Holm) of at most .05, and a sign that
    no single mixture carries. All else is "cannot tell", as is whatever has too few units, a
    reliability below .6, or a spread below two standard errors.

    >>> enough = {"mixture": 10}
    >>> judge_link(Link(0.8, 0.5, 0.9, 0.001, enough, {"mixture": 8}, reliability=0.9), 0.005)
    ('goes together', '')
    >>> judge_link(Link(0.1, -0.4, 0.5, 0.7, enough, {"mixture": 8}, reliability=0.9), 1.0)[0]
    'cannot tell'
    """
    if link.reason:
        return CANNOT_TELL, link.reason
    few = [
        f"{link.n.get(unit, 0)} {plural(unit, link.n.get(unit, 0))}, at least {least} are needed"
        for unit, least in link.least.items()
        if link.n.get(unit, 0) < least
    ]
    if few:
        return CANNOT_TELL, "; ".join(few)
    if not np.isfinite(link.reliability):
        return CANNOT_TELL, "reliability is not known: measure sharing on two halves of drawings"
    if link.reliability < RELIABLE:
        return CANNOT_TELL, (
            f"reliability {link.reliability:.2f} ({link.reliability_kind}) is below {RELIABLE}"
        )
    if link.narrow:
        return CANNOT_TELL, link.narrow
    if not np.isfinite([link.low, link.high]).all():
        return CANNOT_TELL, "no interval: without one unit a number does not vary"
    if -SMALL < link.low and link.high < SMALL:
        return APART, ""
    if link.low <= 0 <= link.high:
        return CANNOT_TELL, (
            f"the interval {number(link.low)} to {number(link.high)} holds both 0 and |r| = {SMALL}"
        )
    if not p_adjusted <= SIGNIFICANT:
        return CANNOT_TELL, f"p = {p_adjusted:.3f} after Holm's adjustment is above {SIGNIFICANT}"
    if link.flips:
        return CANNOT_TELL, f"the sign is another without {link.flips}"
    return (TOGETHER if link.value > 0 else AGAINST), ""


def licence(level: str, verdict: str) -> str:
    """The words that a verdict licenses at a level, no stronger ones.

    >>> licence("L2", "goes together")
    'within a mixture, generalization goes with sharing'
    >>> licence("L1", "cannot tell")
    'whether generalization goes with sharing across mixtures cannot be told'
    """
    if level == "L4":
        return CAUSES[verdict]
    if level == "L3":
        return CLASSES.get(verdict, f"whether {CLASSES[TOGETHER]} cannot be told")
    if verdict not in GOES:
        return f"whether generalization goes with sharing {LEVELS[level]} cannot be told"
    return f"{LEVELS[level]}, generalization {GOES[verdict]} sharing"


def disagreement(levels: pd.DataFrame) -> str:
    """What is said first where L1 and L2 or L3 are decided with opposite signs; else "".

    `levels` is a frame with the columns `level, rung, measure, adjusted, verdict`.

    >>> said = {"rung": "R2", "measure": "debiased CKA", "adjusted": ""}
    >>> disagreement(pd.DataFrame([{"level": "L1", "verdict": "goes together", **said},
    ...                            {"level": "L2", "verdict": "goes against", **said}]))
    'By R2 (debiased CKA), accuracy goes with sharing across mixtures, but against it within a
    mixture: what differs between mixtures makes both, or hides what sharing does.'
    """
    signed = levels[levels["verdict"].isin([TOGETHER, AGAINST]) & (levels["adjusted"] == "")]
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
    why = f": {row['reason']}" if row["verdict"] == CANNOT_TELL and row["reason"] else ""
    to_do = f"; {row['needed']} would decide" if row["needed"] else ""
    nothing = ""
    if row["verdict"] != CANNOT_TELL and row["gain"] <= 0:
        nothing = "; it adds nothing to what else foretells accuracy"
    text = f"By {row['rung']} ({row['measure']}){beyond}, {row['licence']}{value}"
    return f"{text}{why}{to_do}{nothing}."

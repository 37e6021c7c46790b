"""The findings of the large study, by the rules of docs/large_study.md, from committed tables.

`tests.benchmarks.findings.pages` fills docs/findings.md and README.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.core.statistics.replication import mean_t
from interp.core.statistics.resampling import holm
from interp.data.mixtures.settings import is_upper_bound
from interp.models.evaluation.learned_models import trained_models
from interp.models.evaluation.overview import differences
from interp.verdicts.levels.l4_intervention import TARGET
from interp.verdicts.levels.over_training import HELD_OUT

WORTH = 0.05
"""A difference of accuracy worth having: five points."""

WORTH_CAUSED = 0.03
"""The same for an effect of shared directions: three points."""


@dataclass(frozen=True)
class Claim:
    """A claim about accuracy: one mixture above another (or one domain, in one mixture).

    Args:
        number: Its place in the family.
        says: The claim.
        more: The mixture that is claimed to be above.
        less: The other.
        of_domains: Whether both are one mixture, each in a domain that its name ends with.
    """

    number: int
    says: str
    more: str
    less: str
    of_domains: bool = False

    @property
    def contrast(self) -> str:
        """Its name in tables of differences."""
        return f"{self.more} − {self.less}"


CLAIMS = (
    Claim(1, "Diversity helps in a new domain", "leave-out-domain", "natural-only"),
    Claim(2, "Diversity helps in new combinations", "cg-high", "cg-low"),
    Claim(3, "CG is below DG", "leave-out-domain", "cg-high"),
    Claim(4, "Classes outside the label set help", "cg-high, half class overlap", "cg-high"),
    Claim(5, "Captions without the domain help", "cg-high, aligned captions", "cg-high"),
    Claim(
        6, "Quickdraw fails more than sketch in DG", "leave-out-domain, sketch",
        "leave-out-domain, quickdraw", of_domains=True,
    ),
)  # fmt: skip
"""The family of docs/large_study.md; a study asks those whose mixtures it has."""

ALIGNED_ABOVE_DG = Claim(
    2, "CG without the domain in captions is above DG", "cg-high, aligned captions",
    "leave-out-domain",
)  # fmt: skip

SEEN_AFTERWARDS = (
    Claim(1, "Quickdraw fails more than sketch in CG", "cg-high, sketch", "cg-high, quickdraw",
          of_domains=True),
    ALIGNED_ABOVE_DG,
    Claim(3, "CG with fewer pictures of the test domain is above CG",
          "cg-high, 25 % of the seen cells", "cg-high"),
    Claim(4, "CG is above photographs alone", "cg-high", "natural-only"),
)  # fmt: skip
"""Differences that nobody planned, for what they say about the claims: no rule decides them."""


def accuracy_findings(by_class: pd.DataFrame, *, candidates: str = "all") -> pd.DataFrame:
    """The claims about accuracy; among all classes each is decided.

    Args:
        by_class: Accuracy of every held-out class in its test domain, a row per run and class.
        candidates: "all" classes, or "held-out" ones alone.

    Returns:
        A row per claim whose mixtures there are: the crossed model's difference, p after Holm over
        them, the t of blocks beside it, and the decision. Among held-out classes alone, which the
        rules have beside it and not in the family, nothing is decided.
    """
    family = contrasts_of(by_class, CLAIMS, candidates=candidates)
    family["p_adjusted"] = holm(family["p"].to_numpy(dtype=float))
    family["decision"] = [
        decided(row["value"], row["low"], row["high"], row["p_adjusted"], WORTH)
        if candidates == "all"
        else ""
        for _, row in family.iterrows()
    ]
    return family[[c for c in COLUMNS if c in family]].sort_values("number", ignore_index=True)


def contrasts_of(
    by_class: pd.DataFrame, claims: Sequence[Claim], *, candidates: str = "all"
) -> pd.DataFrame:
    """The difference that each claim is about, where its mixtures are there: a row per claim.

    Args:
        by_class: As `accuracy_findings` takes it.
        claims: Of mixtures, over all test domains, and of domains.
        candidates: "all" classes, or "held-out" ones alone.
    """
    own = by_class[by_class["candidates"] == candidates].reset_index(drop=True)
    in_domain = own["setting"] + ", " + own["test_domain"]
    apart = own.assign(setting=in_domain, test_domain="either", domain="either")
    apart["run"] = apart["setting"] + own["seed"].astype(str)
    # a domain that is hard in a block is hard for all mixtures: domains are kinds of their own
    domains = dict(zip(apart["setting"], own["test_domain"], strict=True))
    of_domains = [claim for claim in claims if claim.of_domains]
    of_mixtures = [claim for claim in claims if not claim.of_domains]
    rows = [
        row | {"n_blocks": _blocks_of_both(every, row["contrast"])}
        for every, contrasts in (
            (own, _contrasts(own, of_mixtures)),
            (apart, _contrasts(apart, of_domains, domains)),
        )
        for row in contrasts
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def _blocks_of_both(answers: pd.DataFrame, contrast: str) -> int:
    """How many blocks have both mixtures of a contrast: a model that did not learn is left out."""
    more, less = (
        set(answers.loc[answers["setting"] == name, "seed"]) for name in contrast.split(" − ")
    )
    return len(more & less)


def _contrasts(
    answers: pd.DataFrame, claims: Sequence[Claim], domains: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The claims whose mixtures there are, over all test domains.

    Upper bounds are a kind of their own, and so are the mixtures of each of `domains`.
    """
    there = set(answers["setting"])
    pairs = [(claim.more, claim.less) for claim in claims if {claim.more, claim.less} <= there]
    kinds = {
        setting: f"{UPPER if is_upper_bound(setting) else ''}{(domains or {}).get(setting, '')}"
        for setting in there
    }
    found = differences(answers, pairs, kinds=kinds)
    if found.empty:
        return []
    found = found[found["test_domain"] == _averaged(answers)].set_index("setting")
    return [
        {"number": claim.number, "says": claim.says, **found.loc[claim.contrast]}
        | {"contrast": claim.contrast}
        for claim in claims
        if claim.contrast in found.index
    ]


def claims_by_domain(by_class: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """The claims about mixtures over both test domains and in each alone, among all classes.

    Args:
        by_class: As `accuracy_findings` takes it.
        claims: Which to tell; those whose mixtures are not there have no row.

    Returns:
        A row per claim: of both domains the crossed model's `value`, `low` and `high` and the plain
        t of blocks, `paired_low` and `paired_high`; of each domain its three, as in `sketch low`,
        by a crossed model of that domain's runs.
    """
    own = by_class[by_class["candidates"] == "all"].reset_index(drop=True)
    there = set(own["setting"])
    asked = [claim for claim in claims if {claim.more, claim.less} <= there]
    if not asked:
        return pd.DataFrame()
    kinds = {s: UPPER if is_upper_bound(s) else "" for s in there}
    found = differences(own, [(claim.more, claim.less) for claim in asked], kinds=kinds)
    domains = list(dict.fromkeys(own["test_domain"]))
    by = found.set_index(["setting", "test_domain"])[[*ENDS, "paired_low", "paired_high"]]
    rows = []
    for claim in asked:
        row = {"number": claim.number, "contrast": claim.contrast}
        row["n_blocks"] = own["seed"].nunique()
        row |= dict(by.loc[claim.contrast, _averaged(own)])
        for domain in domains:
            row |= {f"{domain} {end}": by.loc[(claim.contrast, domain), end] for end in ENDS}
        rows.append(row)
    return pd.DataFrame(rows)


ENDS = ("value", "low", "high")

OfStudy = TypeVar("OfStudy")


Decided: TypeAlias = Mapping[str, pd.DataFrame]
"""The claims about accuracy in every study that asks about it, by `accuracy_findings`."""


def planned(found: Mapping[str, OfStudy]) -> dict[str, OfStudy]:
    """The studies whose rules were written before they were made: all but the pilot.

    >>> planned({"pilot": 3, "weak": 4})
    {'weak': 4}
    """
    return {name: own for name, own in found.items() if name != "pilot"}


def deciding(found: Decided) -> Decided:
    """The studies that decide: those planned before they were made, with two blocks or more."""
    return {name: own for name, own in planned(found).items() if own["n_blocks"].max() > 1}


def of_resnets(found: Decided) -> Decided:
    """The deciding studies that are counted: a ViT has verdicts of its own, says the plan."""
    return {name: own for name, own in deciding(found).items() if name != "vit"}


UPPER = "upper bound "
"""Mixtures that saw the held-out classes, whose runs have a spread of their own."""

COLUMNS = (
    *("number", "says", "contrast", "value", "low", "high", "p", "p_adjusted", "degrees"),
    *("paired_low", "paired_high", "n_blocks", "n_runs", "n_units", "unit", "decision", "reason"),
)


def decided(value: float, low: float, high: float, p_adjusted: float, worth: float) -> str:
    """What becomes of a claim that a difference is above zero; without p, of one block, nothing.

    >>> decided(0.2, 0.1, 0.3, 0.01, 0.05), decided(0.01, -0.02, 0.04, 0.5, 0.05)
    ('holds', 'does not hold')
    >>> decided(0.2, -0.1, 0.5, 0.2, 0.05), decided(-0.2, -0.3, -0.1, 0.01, 0.05)
    ('open', 'the opposite holds')
    """
    if np.isnan(p_adjusted):
        return OPEN
    if p_adjusted < 0.05:
        return "holds" if value > 0 else OPPOSITE
    return DENIED if high < worth else OPEN


OPEN, DENIED, OPPOSITE = "open", "does not hold", "the opposite holds"

WITHHELD = "withheld"
"""What becomes of a cause whose seen classes are not known to be equally accurate."""


def _averaged(own: pd.DataFrame) -> str:
    """The name of all test domains together, in tables of differences."""
    return " and ".join(dict.fromkeys(own["test_domain"]))


def cause_findings(
    made: pd.DataFrame, levels: pd.DataFrame, *, weight: float = 1, tried: int = 1
) -> pd.DataFrame:
    """The intervention's contrasts at one weight, and what the level concludes.

    Args:
        made: The table `intervention`.
        levels: The table `levels`, of L4.
        weight: The weight of the term.
        tried: Weights that were tried in studies like this; p is multiplied by it.

    Returns:
        A row per measure and contrast; `decision` stands with the claim alone: own less wrong
        partners in held-out accuracy.
    """
    rows = made[made["arm"].isin(ARMS) & (made["weight"] == weight)]
    columns = ["measure", "arm", "value", "low", "high", "p", "paired_low", "paired_high", "n_runs"]
    rows = rows[columns].assign(decision="", reason="", needed="").reset_index(drop=True)
    [level] = levels[levels["weight"] == weight].to_dict("records")
    told = level["verdict"] != CANNOT_TELL
    p = min(1.0, tried * level["p_adjusted"]) if told else 1.0
    said = decided(level["value"], level["low"], level["high"], p, WORTH_CAUSED)
    if str(level["reason"]).startswith("seen classes"):
        said = WITHHELD
    reason, needed = level["reason"], level["needed"]
    if told and said == OPEN:
        reason, needed = f"p is {p:.2g} over {tried} studies that ask", "more blocks"
    own = (rows["measure"] == TARGET.name) & (rows["arm"] == ARMS[0])
    rows.loc[own, ["decision", "reason", "needed"]] = [said, reason, needed]
    return rows


def the_claim(found: pd.DataFrame) -> dict[str, Any]:
    """Of an intervention's contrasts the one that is claimed, with its decision."""
    [row] = found[found["decision"] != ""].to_dict("records")
    return row


WEIGHTS = {"cause": 1.0, "gentle": 0.1}
"""The weight of the term in each study of the large study."""

ARMS = ("aligned − shuffled", "aligned − none")


def language_findings(captions: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Labels less captions, paired by block: accuracy of held-out classes, and every rung's index.

    Args:
        captions: A row per run and quantity: `setting`, `test_domain`, `seed`, `quantity`, `value`.
        labels: The same of the runs with labels.

    Returns:
        A row per quantity: the mean difference over blocks (mixtures and domains averaged), its t,
        p after Holm over the rungs.
    """
    keys = ["setting", "test_domain", "seed", "quantity"]
    both = captions.merge(labels, on=keys, suffixes=("_captions", "_labels"))
    both["gap"] = both["value_labels"] - both["value_captions"]
    rows = []
    for quantity, own in both.groupby("quantity", sort=False):
        blocks = own.groupby("seed")["gap"].mean()
        found = mean_t(blocks.to_numpy())
        rows.append(
            {
                "quantity": quantity,
                "captions": own["value_captions"].mean(),
                "labels": own["value_labels"].mean(),
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "p": _p(found.value, found.error, len(blocks)),
                "n_blocks": len(blocks),
                "n_models": 2 * trained_models(own).nunique(),
            }
        )
    frame = pd.DataFrame(rows)
    rungs = frame["quantity"].str.startswith("R")
    frame.loc[rungs, "p_adjusted"] = holm(frame.loc[rungs, "p"].to_numpy(dtype=float))
    return frame


def same_order(captions: pd.DataFrame, labels: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The mixtures by held-out accuracy, from most to least, with captions and with labels."""
    own = (frame[frame["quantity"] == HELD_OUT] for frame in (captions, labels))
    first, second = (
        frame.groupby("setting")["value"].mean().sort_values(ascending=False) for frame in own
    )
    return list(first.index), list(second.index)


def of_quantities(runs: pd.DataFrame) -> pd.DataFrame:
    """Every run's accuracy of held-out classes and the index of every rung, one below another."""
    keys = ["setting", "test_domain", "seed"]
    accuracy = runs.drop_duplicates(keys).assign(quantity=HELD_OUT, value=lambda f: f["accuracy"])
    indices = runs.assign(quantity=runs["rung"] + " " + runs["measure"], value=runs["index"])
    parts = [part[[*keys, "quantity", "value"]] for part in (accuracy, indices)]
    return pd.concat(parts, ignore_index=True).dropna(subset=["value"])


def _p(value: float, error: float, n: int) -> float:
    return float(2 * stats.t.sf(abs(value) / error, n - 1)) if n > 1 and error > 0 else np.nan

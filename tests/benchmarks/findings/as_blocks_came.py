"""What the first blocks of a study decided, and what became of it as others came."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.verdicts.levels.across_checkpoints import verdict
from tests.benchmarks.findings.accuracy import claim_cell
from tests.benchmarks.findings.claims import CLAIMS, OPEN, accuracy_findings
from tests.benchmarks.findings.sharing import told_of
from tests.benchmarks.findings.writing import UNDECIDED, bold, claims_in_words, correlation
from tests.benchmarks.recovering import markdown


def links_as_blocks_came(runs: pd.DataFrame) -> pd.DataFrame:
    """Whether sharing went with accuracy in a study's first two blocks, in three, and so on.

    Args:
        runs: What every run shares, beside its accuracies.

    Returns:
        The rows of `interp.verdict` for L1 and L2, unadjusted, with `n_blocks`.
    """
    looks = {n: verdict(runs[runs["seed"].isin(some)]).table.frame for n, some in _looks(runs)}
    every = pd.concat(looks, names=["n_blocks"]).reset_index("n_blocks")
    return every[every["level"].isin(["L1", "L2"]) & (every["adjusted"] == "")][LINK]


LINK = ["n_blocks", "level", "rung", "measure", "value", "low", "high", "p_adjusted", "reliability",
        "verdict"]  # fmt: skip

NO_LINKS = pd.DataFrame(columns=LINK)


def _looks(frame: pd.DataFrame) -> list[tuple[int, Sequence[int]]]:
    """The first two blocks of a study, the first three, and so on."""
    numbers = sorted(frame["seed"].unique())
    return [(n, numbers[:n]) for n in range(2, len(numbers) + 1)]


def claims_as_blocks_came(answers: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The claims about accuracy by a study's first two blocks, by three, and so on."""
    return {
        n: accuracy_findings(answers[answers["seed"].isin(some)]) for n, some in _looks(answers)
    }


def open_without_last_block(own: Mapping[str, pd.DataFrame]) -> set[int]:
    """The claims, by number, that a study had open before its last block."""
    blocks = sorted(own["answers"]["seed"].unique())
    if len(blocks) < 3:
        return set()
    before = accuracy_findings(own["answers"][own["answers"]["seed"].isin(blocks[:-1])])
    return set(before.loc[before["decision"] == OPEN, "number"])


def mark_of_link(row: Mapping[str, Any] | pd.Series, own: Mapping[str, pd.DataFrame]) -> str:
    """The mark of a link that is decided and was open without its study's last block."""
    links = own.get("links", NO_LINKS)
    looks = links[(links[MEASURED] == [row[key] for key in MEASURED]).all(axis=1)]
    last = looks.sort_values("n_blocks")["verdict"].iloc[-2:-1]
    return LAST if told_of(row) not in UNDECIDED and (last == CANNOT_TELL).any() else ""


MEASURED = ["level", "rung", "measure"]

LAST = "‡"
"""Marks what is decided and was open without a study's last block."""


def blocks_table(claims: Mapping[int, pd.DataFrame], links: pd.DataFrame, measure: str) -> str:
    """The claims of a study, and L2 by one measure, as blocks came.

    Args:
        claims: `claims_as_blocks_came` of the study.
        links: Its `links_as_blocks_came`.
        measure: The rung and the measure of L2.
    """
    asked = [claim for claim in CLAIMS if claim.number in set(claims[max(claims)]["number"])]
    links = links.query("level == 'L2'")
    links = links[links["rung"] + " " + links["measure"] == measure].set_index("n_blocks")
    rows = [
        [str(n), *(claim_cell(own, claim.number) for claim in asked), _link_cell(links.loc[n])]
        for n, own in claims.items()
    ]
    heads = [f"{claim.number}. {claim.says}" for claim in asked]
    return markdown(["blocks", *heads, f"L2, {measure}"], rows)


def _link_cell(row: pd.Series) -> str:
    p = f"p {row['p_adjusted']:.2g}"
    return f"{correlation(row)} {bold(told_of(row))}, {p}"


def _decision(said: str) -> str:
    return OPEN if said == CANNOT_TELL else said


def taken_back_in_words(
    claims: Mapping[str, Mapping[int, pd.DataFrame]], links: Mapping[str, pd.DataFrame]
) -> str:
    """Claims and links whose first decision by a study's blocks did not stay: a line for each way.

    Args:
        claims: `claims_as_blocks_came` of every study.
        links: `links_as_blocks_came` of those that have them.
    """
    said: dict[str, list[str]] = {way: [] for way in TURNED}
    for name, own in claims.items():
        looks = _decisions(own, links.get(name, NO_LINKS))
        turned = {what: _turned(list(looks[what])) for what in looks}
        for way, told in said.items():
            what = [each for each, how in turned.items() if how == way]
            if what:
                told.append(f"{_spoken(what)} in {name}")
    return "\n".join(f"- **{way}**: {'; '.join(told)}." for way, told in said.items() if told)


OPEN_AGAIN = "Decided by fewer blocks, open again"
AGAIN = "Decided, then open, then decided again"
OTHERWISE = "Decided otherwise by fewer blocks"
TURNED = OPEN_AGAIN, AGAIN, OTHERWISE


def _decisions(claims: Mapping[int, pd.DataFrame], links: pd.DataFrame) -> pd.DataFrame:
    """A row per look, a column per claim (by its number) and per link."""
    every = [
        {"n_blocks": n, "what": str(row["number"]), "decision": row["decision"]}
        for n, own in claims.items()
        for row in own.to_dict("records")
    ]
    what = links["level"] + " (" + links["rung"] + " " + links["measure"] + ")"
    told = links.assign(what=what, decision=links["verdict"].map(_decision))
    every += told[["n_blocks", "what", "decision"]].to_dict("records")
    wide = pd.DataFrame(every, columns=["n_blocks", "what", "decision"])
    return wide.pivot(index="n_blocks", columns="what", values="decision").fillna(OPEN)


def _turned(looks: Sequence[str]) -> str:
    """What became of the first decision, where it did not stay."""
    first = next((word for word in looks if word != OPEN), OPEN)
    if all(word == first for word in looks[looks.index(first) :]):
        return ""
    if looks[-1] == OPEN:
        return OPEN_AGAIN
    return AGAIN if set(looks) == {first, OPEN} else OTHERWISE


def _spoken(what: Sequence[str]) -> str:
    """Claims by their numbers, then links.

    >>> _spoken(["1", "5", "L2 (R2 CKA)"]), _spoken(["1"])
    ('claims 1 and 5, L2 (R2 CKA)', 'claim 1')
    """
    numbers = [int(each) for each in what if each.isdigit()]
    links = [each for each in what if not each.isdigit()]
    return ", ".join([claims_in_words(numbers), *links] if numbers else links)

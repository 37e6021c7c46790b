"""What planned studies decide against Kempf et al. (2025), or do not find."""

from collections.abc import Iterator
from typing import TypeAlias

from interp.verdicts.wording import AGAINST, APART
from tests.benchmarks.findings.accuracy import at_floor
from tests.benchmarks.findings.as_blocks_came import LAST, open_without_last_block
from tests.benchmarks.findings.claims import DENIED, OPPOSITE, Decided, deciding, of_resnets
from tests.benchmarks.findings.links_in_short import levels_of
from tests.benchmarks.findings.tables import Tables
from tests.benchmarks.findings.transformers import is_too_weak
from tests.benchmarks.findings.writing import correlation, points, so_far

YES = "yes"
PAPER = {
    1: YES, 2: YES, 3: "it can be", 4: "they can", 5: YES, 6: "in some mixtures", "L1": YES,
}  # fmt: skip
"""What Kempf et al. (2025) find, claim by claim: that it is so, or that it can be."""


def denied(found: Decided, made: Tables) -> dict[str, list[str]]:
    """Claims and links to accuracy that planned studies deny, by what the paper says of them.

    A ViT that is too weak denies nothing.
    """
    every = deciding(found)
    studies = of_resnets(found) if "vit" in every and is_too_weak(made) else every
    said: dict[str, dict[str, list[str]]] = {CONTRADICTED: {}, MISSED: {}, OTHERS: {}}
    for key, what, where in [*_claims(studies, made), *_links(studies, made)]:
        finds = PAPER.get(key)
        place = CONTRADICTED if finds == YES else OTHERS if finds is None else MISSED
        said[place].setdefault(what, []).append(where)
    told = {
        place: [f"{what} {' and '.join(places)}" for what, places in own.items()]
        for place, own in said.items()
    }
    return told if told[CONTRADICTED] else told | {CONTRADICTED: ["nothing"]}


CONTRADICTED = "Decided against the paper, where it says yes"
MISSED = "Not found here, where the paper says that it can be"
OTHERS = "Denied, where the paper claims nothing"

Denial: TypeAlias = tuple[int | str, str, str]
"""A claim's number or a link's level, what is denied, and in which study by which effect."""


def _claims(found: Decided, made: Tables) -> Iterator[Denial]:
    for name, own in found.items():
        rows = own[own["decision"].isin([DENIED, OPPOSITE])].to_dict("records")
        before = open_without_last_block(made[name]) if rows else set()
        for row in rows:
            what = f"*{row['says']}* (claim {row['number']}) {row['decision']}"
            floor = at_floor(made[name]["answers"], row["number"])
            mark = LAST if row["number"] in before else ""
            yield row["number"], what, f"in {so_far(name)}, {points(row)}{mark}{floor}"


def _links(found: Decided, made: Tables) -> Iterator[Denial]:
    links = levels_of(found, made)
    for row in links[links["verdict"].isin([APART, AGAINST])].to_dict("records"):
        of = f"{row['level']}, {row['rung']} {row['measure']}"
        what = f"*Sharing goes with accuracy* ({of}) {row['verdict']}"
        yield row["level"], what, f"in {so_far(row['study'])}, r {correlation(row)}"

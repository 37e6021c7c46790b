"""README's table says what is decided; five lines what is against the paper, and what is open."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.benchmarks.findings.claims import CLAIMS
from tests.benchmarks.findings.five_lines import five_lines
from tests.study.findings.kept import claims, kept_tables, with_one_block


def said_of(found: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Rows of the table, and the lines."""
    table, lines = (part.splitlines() for part in five_lines(found, made).split("\n\n"))
    assert len(lines) == 5 and all(line.startswith("- **") for line in lines)
    return table[2:], lines


@pytest.mark.parametrize("decision", ["holds", "open", "does not hold", "the opposite holds"])
def test_what_is_decided_stands_in_the_table_and_first_if_against_the_paper(decision: str) -> None:
    made = kept_tables()
    own = claims("weak").assign(decision="open")
    found = {"weak": own.assign(decision=own["decision"].mask(own["number"] == 2, decision))}
    rows, (against, *_) = said_of(found, made)
    denied = decision not in ("holds", "open")
    assert decision in rows[1] and (f"*{CLAIMS[1].says}* (claim 2) {decision}" in against) == denied
    nothing = "- **Decided against the paper, where it says yes:** nothing"
    assert against.startswith(nothing) == (not denied)


def test_captions_that_turn_a_claim_round_are_named() -> None:
    """Where CG is above DG with aligned captions in every study that asks."""
    made, found = kept_tables(), {name: claims(name) for name in ("weak", "strong")}
    assert "with aligned captions CG is above DG" in said_of(found, made)[1][1]
    answers = made["strong"]["answers"]
    aligned = answers["setting"] == "cg-high, aligned captions"
    lower = answers.assign(value=answers["value"].mask(aligned, 0.0))
    made["strong"] = made["strong"] | {"answers": lower}
    assert "aligned" not in said_of(found, made)[1][1]


def test_what_is_not_finished_is_not_told() -> None:
    found, made = with_one_block()
    none = made | {"twin": {}, "cause": {}, "gentle": {}}
    _, (*_, cause, last) = said_of(found, none)
    assert cause == "- **Is sharing the cause?** No block of it is finished."
    assert "No block of it is finished. *Vit*: One block of 6 decides nothing: " in last

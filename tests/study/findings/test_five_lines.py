"""README's table says what is decided; five lines what is against the paper, and what is open."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.benchmarks.findings.causes import caused_table
from tests.benchmarks.findings.claims import CLAIMS
from tests.benchmarks.findings.five_lines import five_lines
from tests.benchmarks.findings.in_short import against
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


def test_circuits_are_untold_until_a_link_of_theirs_is_measurable() -> None:
    """In README's line on sharing, and in what docs/findings.md calls not answered."""
    made, found = kept_tables(), {name: claims(name) for name in ("weak", "strong")}
    untold, asked = "(R5, R6) to accuracy are not measurable", "models by circuits (R5, R6)"
    assert untold in said_of(found, made)[1][2] and asked in against(found, made)
    levels = made["strong"]["levels"]
    parts = (levels["rung"] == "R5") & (levels["level"] == "L2")
    better = levels["reliability"].mask(parts, 0.9)
    made["strong"] = made["strong"] | {"levels": levels.assign(reliability=better)}
    assert untold not in said_of(found, made)[1][2] and asked not in against(found, made)


def test_a_decided_link_has_its_p_and_models_and_an_open_one_none() -> None:
    made, found = kept_tables(), {"strong": claims("strong")}
    levels = made["strong"]["levels"].query("adjusted == ''").set_index(["level", "measure"])
    link = levels.loc[("L2", "cosine of mean differences")]
    cell = f"**goes together** (adjusted p {link['p_adjusted']:.2g}), 8 blocks, 72 models‡;"
    _, own, untold = said_of(found, made)[0][len(CLAIMS) :]
    assert cell in own and "adjusted p" not in untold


def test_a_withheld_cause_says_why_and_over_how_many_models() -> None:
    """By the interval that its rule is about, at 90 %; each difference is of two arms' models."""
    made = kept_tables()
    [row] = [line for line in caused_table(made).splitlines() if line.startswith("| cause")]
    runs = made["cause"]["intervention"].groupby("arm")["n_runs"].max()
    pair = runs["aligned"] + runs["shuffled"]
    assert f"11 blocks, {pair} models a difference |" in row
    assert "| withheld: seen classes differ by +7.8 points (90 %: +6.1 to +9.5) |" in row


def test_what_is_not_finished_is_not_told() -> None:
    found, made = with_one_block()
    none = made | {"twin": {}, "cause": {}, "gentle": {}}
    _, (*_, cause, last) = said_of(found, none)
    assert cause == "- **Is sharing the cause?** No block of it is finished."
    assert "No block of it is finished. *Vit*: One block of 6 decides nothing: " in last

"""README's five lines say what is decided, what of it is against the paper, and what is open."""

import pytest

from tests.benchmarks.findings.claims import CLAIMS
from tests.benchmarks.findings.five_lines import five_lines
from tests.benchmarks.findings.links_in_short import link_cell, most_reliable
from tests.study.findings.kept import claims, kept_tables, with_one_block


def lines_of(found: dict, made: dict) -> list[str]:
    lines = five_lines(found, made).splitlines()
    assert len(lines) == 5 and all(line.startswith("- **") for line in lines)
    return lines


@pytest.mark.parametrize("decision", ["holds", "open", "does not hold", "the opposite holds"])
def test_a_denied_claim_stands_first_and_any_other_among_accuracies(decision: str) -> None:
    made = kept_tables()
    own = claims("weak").assign(decision="open")
    found = {"weak": own.assign(decision=own["decision"].mask(own["number"] == 2, decision))}
    against, accuracy, *_ = lines_of(found, made)
    says = CLAIMS[1].says
    denied = decision not in ("holds", "open")
    assert (f"*{says}* (claim 2) {decision} in weak" in against) == denied
    assert (f"2. *{says}*: weak +15.7 " in accuracy) == (not denied)
    assert against.startswith("- **Decided against the paper, where it says yes**: nothing") == (
        not denied
    )


def test_a_link_has_its_number_or_is_not_measurable() -> None:
    """Of each study that could measure it, the pilot aside."""
    made = kept_tables()
    found = {name: claims(name) for name in ("pilot", "weak", "strong")}
    sharing = lines_of(found, made)[2]
    for study in ("weak", "strong"):
        assert f"{study} {link_cell(most_reliable(found, made, 'L2')[study])}‡" in sharing
    assert "; over classes of a model (L3): not measurable." in sharing and "pilot" not in sharing
    for name in found:
        made[name]["levels"] = made[name]["levels"].assign(reliability=0.9)
    every = most_reliable(found, made, "L3")
    sharing = lines_of(found, made)[2]
    assert "not measurable" not in sharing
    assert f"(L3): weak {link_cell(every['weak'])}, strong {link_cell(every['strong'])}." in sharing


def test_what_is_not_finished_is_not_told() -> None:
    found, made = with_one_block()
    none = made | {"twin": {}, "cause": {}, "gentle": {}}
    *_, cause, last = lines_of(found, none)
    assert cause == "- **Is sharing the cause?** No block of it is finished."
    assert "No twin is finished. *Vit*: One block of 6 decides nothing: " in last

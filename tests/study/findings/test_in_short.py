"""What is decided, where, and what is left open, is said as it is."""

import re

import pandas as pd
import pytest

from interp.verdicts.wording import TOGETHER
from tests.benchmarks.findings import writing
from tests.benchmarks.findings.claims import CLAIMS, accuracy_findings
from tests.benchmarks.findings.in_short import against, in_short, verdicts_table
from tests.benchmarks.findings.still_open import blocks_for, open_claims
from tests.benchmarks.findings.tables import finished_blocks
from tests.benchmarks.findings.transformers import of_vits
from tests.benchmarks.findings.writing import bold, correlation
from tests.study.findings.kept import claims, kept_tables, with_one_block

AGAINST = "Decided against the paper, where it says yes"


def test_the_most_reliable_measure_speaks_for_a_level() -> None:
    """Whatever it says: reliability is raised for another, and the row is that other's."""
    made = kept_tables()
    found = {name: claims(name) for name in ("pilot", "weak")}
    own = made["weak"]["levels"].query("level == 'L2' and adjusted == ''").set_index("measure")
    before = verdicts_table(found, made)
    assert f"{own.loc['cosine of mean differences', 'value']:.2f}"[-3:] in before
    for name in found:
        levels = made[name]["levels"]
        better = levels["reliability"].mask(levels["measure"] == "debiased CKA", 1.0)
        made[name]["levels"] = levels.assign(reliability=better)
    after = verdicts_table(found, made)
    other = f"r {own.loc['debiased CKA', 'value']:.2f}".replace("0.", ".")
    assert other in after and other not in before and other in in_short(found, made)


def test_neither_the_pilot_nor_one_block_decides() -> None:
    found, made = with_one_block()
    table = {line.split(" | ")[0].strip("| ")[:2]: line.split(" | ")[1:]
             for line in verdicts_table(found, made).splitlines()}  # fmt: skip
    for number in (1, 2, 3, 4, 5):
        decision = found["weak"].set_index("number").loc[number, "decision"]
        here, *cells, _ = table[f"{number}."]
        assert here == f"{bold(decision)} in 1 of 1" and "(one block) open" in cells[1]
    said = in_short(found, made)
    assert "vit r" not in said and "in pilot" not in said and "weak r" in said
    assert against(found, made) == against({"weak": found["weak"]}, made)


def test_a_vit_has_verdicts_of_its_own() -> None:
    """It is not counted among the ResNets, and what it denies is said."""
    made = kept_tables()
    made["vit"] = made["weak"]
    found = {"weak": claims("weak"), "vit": claims("weak")}
    rows = verdicts_table(found, made).splitlines()[2:]
    assert all("in 1 of 1" in row for row in rows if row.startswith(("| Mixtures", "| 1.", "| 4.")))
    first, *rest = in_short(found, made).splitlines()
    assert f"in {writing.so_far('vit')}" in first and not any("in vit" in line for line in rest)


@pytest.mark.parametrize(
    ("study", "decision", "denied", "confirmed"),
    [
        ("weak", "holds", False, True),
        ("weak", "does not hold", True, False),
        ("weak", "the opposite holds", True, False),
        ("pilot", "holds", False, False),
        ("pilot", "does not hold", False, False),
    ],
)
def test_planned_studies_confirm_and_contradict_and_the_pilot_does_not(
    study: str, decision: str, denied: bool, confirmed: bool
) -> None:
    made = kept_tables()
    found = {name: claims(name).assign(decision="open") for name in ("pilot", "weak")}
    own = found[study]
    found[study] = own.assign(decision=own["decision"].mask(own["number"] == 2, decision))
    told = dict(line.split("**: ") for line in against(found, made).splitlines())
    first = in_short(found, made).splitlines()[0]
    says = "Diversity helps in new combinations"
    contradicted = says in told[f"- **{AGAINST}"]
    assert contradicted == denied == (f"{says}* (claim 2)" in first)
    holds, still = (
        told.get(f"- **{where}", "")
        for where in ("Holds in all ResNet studies that ask", "Open in all")
    )
    assert (f"*{says}* (2" in holds) == confirmed
    assert (f"*{says}* (2" in still) == (not confirmed and not denied)
    nothing = first.startswith(f"**{AGAINST}**: nothing. **Seen afterwards, not planned")
    assert nothing == (not denied)


def test_what_the_paper_does_not_claim_is_not_decided_against_it() -> None:
    """CG can be below DG, says the paper, and does not ask what blocks of a mixture share.

    So neither denial contradicts it.
    """
    made = kept_tables()
    own = claims("weak").assign(decision="open")
    found = {"weak": own.assign(decision=own["decision"].mask(own["number"] == 3, "does not hold"))}
    levels = made["weak"]["levels"]
    verdict = levels["verdict"].mask(levels["level"] == "L2", "goes against")
    made["weak"]["levels"] = levels.assign(verdict=verdict)
    told = dict(line.split("**: ") for line in against(found, made).splitlines())
    assert told[f"- **{AGAINST}"] == "nothing."
    missed = told["- **Not found here, where the paper says that it can be"]
    denied = told["- **Denied, where the paper claims nothing"]
    assert "*CG is below DG* (claim 3)" in missed and "(L2, R3 cosine of mean" in denied
    assert "claim" not in denied and "L2" not in missed


def test_a_claim_that_holds_in_some_studies_is_told_apart_and_questions_stay_unanswered() -> None:
    made = kept_tables()
    found = {
        name: claims(name).assign(decision=decision)
        for name, decision in (("weak", "holds"), ("strong", "open"))
    }
    told = dict(line.split("**: ") for line in against(found, made).splitlines())
    turned = "*CG is below DG* (3, in weak; with aligned captions above it)"
    assert turned in told["- **Holds in some"]
    every = told["- **Holds in all ResNet studies that ask"]
    assert every == "*Classes outside the label set help* (4)."  # the strong study does not ask
    assert "open" not in told[f"- **{AGAINST}"]
    assert "what holds on a transformer" in told["- **Not answered"]
    assert "on average" in told["- **Language"]
    assert "language" not in told["- **Not answered"]
    few = {name: frame[frame["seed"] < 2] if "seed" in frame else frame
           for name, frame in made["twin"].items()}  # fmt: skip
    untold = against(found, made | {"twin": few})
    assert "whether it takes language" in untold and "- **Language**" not in untold
    found["vit"] = found["strong"].assign(n_blocks=6)
    undecided = made["strong"]["levels"].assign(verdict="cannot tell")
    made["vit"] = made["strong"] | {"levels": undecided}
    links = "whether mixtures (L1) or classes (L3) or models by circuits (R5, R6) that share "
    links += "more are more accurate; "
    assert f"**Not answered**: {links}whether sharing is the cause; " in against(found, made)
    assert "; on a transformer claims 1, 2, 3, 5 and 6 and L2." in against(found, made)
    assert "- **On a transformer" not in against(found, made)
    third = found["vit"]["number"] == 3
    found["vit"] = found["vit"].assign(decision=found["vit"]["decision"].mask(third, "holds"))
    said = against(found, made)
    where = writing.so_far("On a transformer", of="vit")
    assert f"- **{where}**: claim 3 holds.\n" in said
    assert "; on a transformer claims 1, 2, 5 and 6 and L2." in said
    whole = found | {"vit": found["vit"].assign(decision="holds")}
    assert "; on a transformer L2." in against(whole, made)
    made["vit"] = made["vit"] | {"levels": made["strong"]["levels"].assign(verdict=TOGETHER)}
    assert "; on a transformer" not in against(whole, made)
    assert "**: claim 3 holds; L2 goes together.\n" in against(found, made)


@pytest.mark.parametrize(
    ("left", "said"), [("goes together", "goes together"), ("cannot tell", "open")]
)
def test_a_decided_correlation_is_told_with_what_is_left_of_it(left: str, said: str) -> None:
    made = kept_tables()
    found = {"weak": claims("weak")}
    levels = made["weak"]["levels"].assign(verdict="cannot tell")
    own = (levels["level"] == "L2") & (levels["measure"] == "cosine of mean differences")
    plain = own & (levels["adjusted"] == "")

    def with_verdicts(words: str, rest: str) -> dict[str, dict[str, pd.DataFrame]]:
        verdict = levels["verdict"].mask(plain, words).mask(own & ~plain, rest)
        return made | {"weak": made["weak"] | {"levels": levels.assign(verdict=verdict)}}

    undecided, told = with_verdicts("cannot tell", left), with_verdicts("goes together", left)
    for words in (against, in_short):
        assert "at equal accuracy of seen classes:" not in words(found, undecided)
        assert f"{correlation(levels[own & ~plain].iloc[0])}, {said}" in words(found, told)
    assert "Not shown at any level" in against(found, undecided)
    cell = f"; at equal accuracy of seen classes r {correlation(levels[own & ~plain].iloc[0])}, "
    assert cell in verdicts_table(found, undecided)


def test_what_the_last_block_decided_is_marked() -> None:
    """As the table of blocks has it: open without that block, and decided with it."""
    made = kept_tables()
    for name in ("weak", "strong"):
        own = made[name]
        last = own["answers"]["seed"].max()
        fewer = own["answers"][own["answers"]["seed"] < last]
        before = accuracy_findings(fewer).set_index("number")
        table = verdicts_table({name: claims(name)}, made).splitlines()[2:]
        cells = {line.split("| ")[1][:1]: line.split(" | ")[2] for line in table[: len(CLAIMS)]}
        for row in claims(name).to_dict("records"):
            newly = row["decision"] != "open" and before.loc[row["number"], "decision"] == "open"
            assert ("‡" in cells[str(row["number"])]) == newly
        looks = own["links"].query("level == 'L2' and measure == 'cosine of mean differences'")
        link = looks.set_index("n_blocks")["verdict"][last]
        assert ("‡" in table[len(CLAIMS) + 1]) == (link == "cannot tell")


@pytest.mark.parametrize(
    ("reliability", "low", "said"), [(0.9, 0.06, True), (0.9, -0.06, False), (0.5, 0.06, False)]
)
def test_an_open_correlation_that_is_told_from_zero_alone_says_why(
    reliability: float, low: float, said: bool
) -> None:
    """By its own interval, while p over all measures of its level is too large."""
    made = kept_tables()
    levels = made["weak"]["levels"]
    plain = (levels["level"] == "L2") & (levels["adjusted"] == "")
    own = plain & (levels["measure"] == "cosine of mean differences")
    values = {"verdict": "cannot tell", "low": low, "p_adjusted": 0.071, "reliability": reliability}
    for column, value in values.items():
        levels = levels.assign(**{column: levels[column].mask(own, value)})
    others = levels["reliability"].mask(plain & ~own, 0.1)
    made["weak"]["levels"] = levels.assign(reliability=others)
    found = {"weak": claims("weak")}
    for words in (verdicts_table, in_short):
        assert ("open (adjusted p 0.071)" in words(found, made)) == said


def test_a_correlation_that_is_open_for_another_reason_names_that_reason() -> None:
    levels = kept_tables()["weak"]["levels"].query("level == 'L2'")
    row = levels.iloc[0].copy()
    row[["verdict", "low", "high", "p_adjusted"]] = "cannot tell", 0.1, 0.5, 0.01
    row[["reliability", "reason"]] = 0.9, "its sign turns with one block left out"
    made = kept_tables()
    made["weak"]["levels"] = pd.DataFrame([row])
    assert "open (its sign turns with one block left out)" in verdicts_table(
        {"weak": claims("weak")}, made
    )


def test_what_several_studies_deny_is_told_once() -> None:
    found = {name: claims(name).assign(decision="does not hold") for name in ("weak", "strong")}
    first = in_short(found, kept_tables()).splitlines()[0]
    assert first.count("Diversity helps in a new domain* (claim 1)") == 1
    assert "] and in strong" in first


def test_a_measure_too_unreliable_is_told_apart_from_an_open_question() -> None:
    found, made = with_one_block()

    def here() -> str:
        lines = verdicts_table(found, made).splitlines()
        return next(line for line in lines if "(L3)" in line).split(" | ")[1]

    assert here() == "not measurable in 1 of 1"
    said = in_short(found, made)
    assert "] not measurable, 40 classes" in said and "too few" not in said
    levels = made["weak"]["levels"]
    few = levels.assign(n_units=levels["n_units"].where(levels["level"] != "L1", 5))
    assert "too few mixtures" in in_short(found, made | {"weak": made["weak"] | {"levels": few}})
    none = levels.query("level != 'L1'")
    said = in_short(found, made | {"weak": made["weak"] | {"levels": none}})
    assert "(L1) | not asked |" in said and "too few" not in said
    levels = made["weak"]["levels"].assign(reliability=0.9)
    made["weak"] = made["weak"] | {"levels": levels}
    assert here() == "open in 1 of 1" and "not measurable" not in in_short(found, made)


def test_an_open_claim_is_adjusted_for_those_that_are_not_told_yet() -> None:
    """Holm leaves out of the count what is told: the same claim needs fewer blocks then."""
    found = claims("weak")
    row = found[found["number"] == 1].iloc[0]
    reach = (row["high"] - row["low"]) / 2
    answers = {"weak": kept_tables()["weak"]["answers"]}
    assert row["decision"] == "open"
    for told, tests in (("holds", 1), ("the opposite holds", 1), ("does not hold", 6)):
        rest = found.assign(decision=found["decision"].where(found["number"] == 1, told))
        n, then = blocks_for(row["value"], reach, row["n_blocks"], row["degrees"], tests)
        said = f"- *weak*, which has 8: claim 1 about {n} (then {then})"
        assert open_claims({"weak": rest}, answers).startswith(said)
    still = found.assign(decision=found["decision"].mask(found["number"] == 2, "open"))
    assert re.search(
        r"claim 2 about .+ \(CG low not above chance\)", open_claims({"weak": still}, answers)
    )


def test_a_decision_of_an_unfinished_study_is_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    found = claims("weak").assign(decision="holds")
    assert (
        open_claims({"weak": found}, {"weak": kept_tables()["weak"]["answers"]})
        == "No claim is open."
    )
    made = kept_tables()
    assert "| weak, 8 blocks, " in in_short({"weak": found}, made)
    monkeypatch.setattr(writing, "finished_blocks", lambda name: 7)
    said = in_short({"weak": found}, made)
    assert "weak so far r " in said  # and the heads of tables count blocks


def test_a_vit_that_does_not_know_photographs_contradicts_nothing() -> None:
    made = kept_tables()
    found = {"vit": claims("weak").assign(decision="does not hold"), "weak": claims("weak")}
    first = in_short(found, made).splitlines()[0]
    assert f"in {writing.so_far('vit')}" in first
    worse = made["vit"]["runs"].assign(accuracy_natural=0.2)
    made["vit"] = made["vit"] | {"runs": worse}
    for words in (in_short, against):
        assert f"in {writing.so_far('vit')}" not in words(found, made).splitlines()[0]


def test_a_vit_that_does_not_know_photographs_says_nothing() -> None:
    found, made = with_one_block()
    every = made["vit"]["runs"]
    blind = every["accuracy_natural"].mask(every["setting"] == "natural-only", 0.0)
    made["vit"]["runs"] = every.assign(accuracy_natural=blind)
    runs = made["vit"]["runs"].drop_duplicates(["setting", "test_domain", "seed"])
    twice = (runs["setting"] == "natural-only") & (runs["test_domain"] == "quickdraw")
    known = 100 * runs[~twice]["accuracy_natural"].mean()  # one model for both domains
    said = of_vits(found, made)
    assert f"in photographs: {known:.0f} % (" in said and "too weak" not in said
    assert said.startswith("One block of 6 decides nothing: claim 1 +") and "open" not in said
    worse = made["vit"]["runs"].assign(accuracy_natural=0.2)
    said = of_vits(found, made | {"vit": made["vit"] | {"runs": worse}})
    assert "in photographs: 20 % (" in said and "too weak to confirm or contradict anything" in said
    two = kept_tables()["weak"]["answers"].query("seed < 2")
    said = of_vits({"vit": accuracy_findings(two)}, made)
    assert said.startswith("2 of 6 blocks: claim 1 +") and "decides nothing" not in said
    assert "(neither above chance)" not in said
    assert of_vits({}, made) == f"Not known: {finished_blocks('vit')} of 6 blocks are finished."

"""The findings in short: a row each, what contradicts the paper, and what is not answered."""

from collections.abc import Iterable, Mapping

import pandas as pd

from interp.core.errors import sequence
from tests.benchmarks.findings.accuracy import (
    afterwards_in_words,
    afterwards_table,
    alone_in_words,
    at_floor,
    captions_turn_it,
    qualified_cell,
)
from tests.benchmarks.findings.against_the_paper import PAPER, denied
from tests.benchmarks.findings.as_blocks_came import LAST, mark_of_link, open_without_last_block
from tests.benchmarks.findings.causes import caused_in, gains
from tests.benchmarks.findings.claims import (
    CLAIMS,
    OPEN,
    WEIGHTS,
    Claim,
    Decided,
    deciding,
    of_resnets,
    planned,
)
from tests.benchmarks.findings.language import language_in_words, language_is_told
from tests.benchmarks.findings.links_in_short import (
    LEVELS,
    circuits_untold,
    link_cell,
    most_reliable,
    no_link,
    sharing_in_words,
    what_is_left,
)
from tests.benchmarks.findings.sharing import SEEN, shared_in_words, told_of
from tests.benchmarks.findings.tables import (
    STUDIES,
    Tables,
    asked_blocks,
    finished_blocks,
    held_out_in,
)
from tests.benchmarks.findings.transformers import of_vits
from tests.benchmarks.findings.writing import (
    NOT_ASKED,
    UNDECIDED,
    blocks_of,
    claims_in_words,
    in_studies,
    so_far,
    spoken,
)
from tests.benchmarks.recovering import markdown


def verdicts_table(found: Decided, made: Tables) -> str:
    """Every finding: what is decided here, its effect study by study, and what the paper says.

    Neither the pilot, nor a study of one block, nor the ViT counts among decisions.
    """
    shown = planned(found) | dict(found)  # the pilot last
    counting = of_resnets(found)
    chosen = {level: most_reliable(found, made, level) for level in LEVELS}
    cells = _cells(shown, chosen, made)
    rows = []
    for claim in CLAIMS:
        told = in_studies(_decisions(counting, claim).values())
        rows.append([_spoken(claim), told, *cells[claim.number], PAPER[claim.number]])
    for level, says in LEVELS.items():
        told = in_studies(told_of(row) for name, row in chosen[level].items() if name in counting)
        rows.append([says, told, *cells[level], PAPER.get(level, NOT_ASKED)])
    heads = ["finding", "here, in planned ResNets", *_heads(shown, made), "the paper"]
    return markdown(heads, rows)


def answers_table(found: Decided, made: Tables) -> str:
    """Every finding and its effect in the studies that count, as README has them."""
    shown = of_resnets(found)
    cells = _cells(shown, {level: most_reliable(found, made, level) for level in LEVELS}, made)
    says = {claim.number: _spoken(claim) for claim in CLAIMS} | LEVELS
    rows = [[what, *cells[key], PAPER.get(key, NOT_ASKED)] for key, what in says.items()]
    return markdown(["finding", *_heads(shown, made), "the paper"], rows)


def _cells(
    shown: Decided, chosen: Mapping[str, Mapping[str, pd.Series]], made: Tables
) -> dict[int | str, list[str]]:
    """By a claim's number or a link's level: its effect in every study that is shown."""
    cells: dict[int | str, list[str]] = {key: [] for key in (*range(1, len(CLAIMS) + 1), *chosen)}
    for name, own in shown.items():
        before = open_without_last_block(made[name])
        for claim in CLAIMS:
            mark = LAST if claim.number in before else ""
            told = qualified_cell(own, made[name]["answers"], claim.number, mark=mark)
            cells[claim.number].append(told)
        for level, rows in chosen.items():
            cells[level].append(_link_cell(level, rows.get(name), made[name]))
    return cells


def _link_cell(level: str, row: pd.Series | None, own: Mapping[str, pd.DataFrame]) -> str:
    """A link, and what is left of it at equal accuracy of seen classes; or why there is none."""
    if row is None:
        return no_link(own.get("levels"), level)
    left = what_is_left(own["levels"], row)
    rest = f"; at equal {SEEN} {left}" if left else ""
    return f"{link_cell(row)}{mark_of_link(row, own)}{rest}"


def _heads(shown: Decided, made: Tables) -> list[str]:
    return [
        f"{name}, {blocks_of(name, own['n_blocks'].max())} blocks, "
        f"{made[name]['answers']['run'].nunique()} models"
        for name, own in shown.items()
    ]


def _spoken(claim: Claim) -> str:
    return f"{claim.number}. {claim.says} ({spoken(claim.contrast)})"


def _decisions(found: Decided, claim: Claim) -> dict[str, str]:
    by_number = {name: own.set_index("number")["decision"] for name, own in found.items()}
    return {
        name: str(own[claim.number]) for name, own in by_number.items() if claim.number in own.index
    }


def in_short(found: Decided, made: Tables) -> str:
    """What is decided against the paper, a table of every finding, and what it leaves to ask."""
    own = of_resnets(found)
    answers = {name: made[name]["answers"] for name in own}
    first = {
        **denied(found, made),
        f"{AFTERWARDS} ({sequence(list(own))})": [afterwards_in_words(answers)],
    }
    lines = {
        "Are models that share more better?": f"{_over_mixtures(own, made)}"
        f"{'; '.join(sharing_in_words(own, made))}.",
        "Is sharing the cause?": gains(made),
        "Is language needed?": f"{language_in_words(made['twin'], made['strong'])}.",
        "On a transformer?": of_vits(found, made),
        f"{ALONE}?": f"In {sequence(list(own))}, {alone_in_words(answers)}. {NO_RULE}",
    }
    done = {name: finished_blocks(name) for name in STUDIES}
    sizes = ", ".join(f"{name}{IS.get(name, '')} {blocks_of(name, n)}" for name, n in done.items())
    whole = all(n == asked_blocks(name) for name, n in done.items())
    parts = [
        " ".join(f"**{what}**: {'; '.join(words)}." for what, words in first.items() if words),
        answers_table(found, made),
        f"{SHARED}: {shared_in_words(made['strong'])}.",
        "\n".join(f"- **{question}** {answer}" for question, answer in lines.items()),
        f"{'Blocks' if whole else SO_FAR}: {sizes}.",
    ]
    return "\n\n".join(parts)


SHARED = "Middle layers of *strong* share"
IS = {
    "twin": " (labels)", "vit": " (transformer)", "cause": " (weight 1)", "gentle": " (weight 0.1)",
}  # fmt: skip
"""What a reader of the account is to know of studies by their names."""

ALONE = "With held-out classes alone to choose from"
AFTERWARDS = "Seen afterwards, not planned"
NO_RULE = "No rule was set."
SO_FAR = "Blocks so far (what is decided with some outstanding can be taken back)"


def _over_mixtures(found: Decided, made: Tables) -> str:
    """Whether mixtures that share more are more accurate, before what is told over blocks."""
    told = in_studies(told_of(row) for row in most_reliable(found, made, "L1").values())
    return f"Over mixtures (L1) {told}. "


def studies_table() -> str:
    """Which blocks of every study are finished, and how many classes a block holds out."""
    rows = [["pilot", TRAINS["pilot"], "13 or 14", "3 of 3"]]
    for name in STUDIES:
        done = f"{finished_blocks(name)} of {asked_blocks(name)}"
        rows.append([name, TRAINS[name], held_out_in(name), done])
    return markdown(["study", "what it trains", "classes held out, of 40", "blocks finished"], rows)


TRAINS = {
    "pilot": "ten mixtures of a small ResNet, 1,000 steps; made first, with drawings by seven "
    "artists, no base set of photographs and another optimiser",
    "weak": "twelve mixtures, 1,000 steps; from here on drawings by sixteen artists",
    "strong": "six of these, 3,000 steps",
    "twin": "four of these with labels in place of captions, beside strong's own runs",
    "vit": "four mixtures of a small vision transformer, 4,000 steps",
    "cause": "CG high in sketch, 1,000 steps: classes aligned across domains, wrong partners, none",
    "gentle": "the same with a tenth of the weight, and a third of the classes held out",
}


def against(found: Decided, made: Tables) -> str:
    """What planned studies decide, claim by claim: first what they decide against the paper."""
    every, counting = deciding(found), of_resnets(found)
    lines = list(denied(found, made).items())
    answers = {name: made[name]["answers"] for name in counting}
    decisions = {claim.number: _decisions(counting, claim) for claim in CLAIMS}
    but = {3: "; with aligned captions above it"} if captions_turn_it(answers) else {}
    for says, chosen in (
        ("Holds in all ResNet studies that ask", lambda own: own == {"holds"}),
        ("Holds in some", lambda own: "holds" in own and own != {"holds"}),
        ("Open in all", lambda own: own == {OPEN}),
    ):
        told = {number: own for number, own in decisions.items() if chosen(set(own.values()))}
        lines.append(
            (says, [_held(number, own, but.get(number, "")) for number, own in told.items()])
        )
    alone = alone_in_words(answers, with_numbers=False)
    lines.append((f"{ALONE} ({sequence(list(counting))}; no rule)", [alone]))
    lines.append((SHARED, [shared_in_words(made["strong"])]))
    lines.append(("Sharing and accuracy", sharing_in_words(counting, made)))
    if language_is_told(made["twin"]):
        told = language_in_words(made["twin"], made["strong"], with_numbers=False)
        lines.append(("Language", [told]))
    if "vit" in every:
        told = every["vit"][every["vit"]["decision"] != OPEN]
        floors = [at_floor(made["vit"]["answers"], number) for number in told["number"]]
        decided = [f"claim {row.number} {row.decision}{floor}"
                   for row, floor in zip(told.itertuples(), floors, strict=True)]  # fmt: skip
        link = most_reliable(every, made, "L2").get("vit")
        if link is not None and told_of(link) not in UNDECIDED:
            decided.append(f"L2 {told_of(link)}")
        lines.append((so_far("On a transformer", of="vit"), decided))
    lines.append(("Not answered", _unanswered(found, made)))
    return "\n".join(f"- **{says}**: {'; '.join(words)}." for says, words in lines if words)


def _held(number: int, decisions: Mapping[str, str], but: str) -> str:
    """A claim, where it holds, and what was seen afterwards to turn it round."""
    [says] = [claim.says for claim in CLAIMS if claim.number == number]
    return f"*{says}* ({number}{_where(decisions)}{but})"


def _where(decisions: Mapping[str, str]) -> str:
    """In which studies a claim holds, where it does not in all."""
    holds = [name for name, decision in decisions.items() if decision == "holds"]
    return f", in {sequence(holds)}" if holds and len(holds) < len(decisions) else ""


def afterwards(found: Decided, made: Tables) -> str:
    """What was seen in planned studies and not planned."""
    answers = {name: made[name]["answers"] for name in deciding(found)}
    return afterwards_table(answers)


def _unanswered(found: Decided, made: Tables) -> list[str]:
    """The questions beside the claims that no study has answered."""
    causes = [caused_in(made[name], name)["decision"] for name in WEIGHTS if made[name]]
    links = [
        f"{who} ({level})"
        for level, who in WHO_SHARES.items()
        if _is_undecided(most_reliable(of_resnets(found), made, level).values())
    ]
    if circuits_untold(found, made):
        links.append("models by circuits (R5, R6)")
    vit = deciding(found).get("vit")
    asked = {
        f"whether {' or '.join(links)} that share more are more accurate": bool(links),
        "whether sharing is the cause": all(own.isin(["", *UNDECIDED]).all() for own in causes),
        "whether it takes language": not language_is_told(made["twin"]),
        "what holds on a transformer": vit is None,
    }
    left = [question for question, still in asked.items() if still]
    return left if vit is None else left + _unanswered_on_vit(vit, found, made)


WHO_SHARES = {"L1": "mixtures", "L2": "blocks", "L3": "classes"}
"""What shares more or less, level by level."""


def _unanswered_on_vit(vit: pd.DataFrame, found: Decided, made: Tables) -> list[str]:
    """What is open on a transformer: claims, and L2."""
    untold = list(vit.loc[vit["decision"] == OPEN, "number"])
    left = [claims_in_words(untold)] if untold else []
    link = most_reliable(deciding(found), made, "L2").get("vit")
    left += ["L2"] if link is not None and _is_undecided([link]) else []
    return [f"on a transformer {sequence(left)}"] if left else []


def _is_undecided(rows: Iterable[pd.Series]) -> bool:
    return all(told_of(row) in UNDECIDED for row in rows)

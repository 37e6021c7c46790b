"""README's findings: a line a question, each with effect, interval, n and decision."""

from tests.benchmarks.findings.accuracy import alone_in_words, captions_turn_it, qualified_cell
from tests.benchmarks.findings.against_the_paper import CONTRADICTED, denied
from tests.benchmarks.findings.as_blocks_came import LAST, mark_of_link, open_without_last_block
from tests.benchmarks.findings.causes import briefly_caused, labels_on_average
from tests.benchmarks.findings.claims import (
    CLAIMS,
    DENIED,
    OPPOSITE,
    Decided,
    of_resnets,
)
from tests.benchmarks.findings.links_in_short import link_cell, most_reliable
from tests.benchmarks.findings.sharing import shared_in_words, told_of
from tests.benchmarks.findings.tables import Tables
from tests.benchmarks.findings.transformers import of_vits
from tests.benchmarks.findings.writing import UNRELIABLE


def five_lines(found: Decided, made: Tables) -> str:
    """What planned studies say, and what of it contradicts the paper first."""
    language = labels_on_average(made["twin"]) if made["twin"] else "No twin is finished"
    lines = {
        CONTRADICTED: _against(found, made),
        "Accuracy of held-out classes": _accuracy(of_resnets(found), made),
        "Does it go with sharing?": _sharing(of_resnets(found), made),
        "Is sharing the cause?": briefly_caused(made),
        "Is language needed? On a transformer?": f"{language}. *Vit*: {of_vits(found, made)}",
    }
    return "\n".join(
        f"- **{question}**{'' if question[-1] == '?' else ':'} {said.removesuffix('.')}."
        for question, said in lines.items()
    )


def _against(found: Decided, made: Tables) -> str:
    """What contradicts the paper, then what else is denied."""
    told = denied(found, made)
    first = "; ".join(told.pop(CONTRADICTED))
    return ". ".join(
        [first, *(f"{what}: {'; '.join(said)}" for what, said in told.items() if said)]
    )


def _accuracy(found: Decided, made: Tables) -> str:
    """The claims that no study denies, and what is to be known with them."""
    answers = {name: made[name]["answers"] for name in found}
    told: dict[str, list[str]] = {}
    for name, own in found.items():
        before = open_without_last_block(made[name])
        for claim in CLAIMS:
            cell = qualified_cell(
                own, answers[name], claim.number, mark=LAST if claim.number in before else ""
            )
            told.setdefault(f"{claim.number}. *{claim.says}*", []).append(f"{name} {cell}")
    lines = [
        f"{what}: {', '.join(cells)}"
        for what, cells in told.items()
        if not any(word in cell for cell in cells for word in (DENIED, OPPOSITE))
    ]
    if captions_turn_it(answers):
        lines.append("not planned: with aligned captions CG is above DG")
    alone = alone_in_words(answers, with_numbers=False)
    return f"{'; '.join(lines)}. With held-out classes alone to choose from, {alone}"


def _sharing(found: Decided, made: Tables) -> str:
    """The links of sharing to accuracy, level by level, and how much is shared."""
    lines = []
    for level, over in OVER.items():
        rows = most_reliable(found, made, level)
        cells = [
            f"{name} {link_cell(rows[name])}{mark_of_link(rows[name], made[name])}"
            for name in found
            if name in rows and told_of(rows[name]) != UNRELIABLE
        ]
        lines.append(f"{over} ({level}): {', '.join(cells) or UNRELIABLE}")
    shared = f"Middle layers of *strong* share {shared_in_words(made['strong'])}"
    return f"{'; '.join(lines)}. {shared}"


OVER = {"L1": "Over mixtures", "L2": "over blocks of a mixture", "L3": "over classes of a model"}
"""What a correlation of sharing with accuracy is over, level by level."""

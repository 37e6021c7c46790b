"""README's findings: a table of what is decided, and a line on each question beside it."""

from interp.core.errors import sequence
from tests.benchmarks.findings.accuracy import alone_in_words, captions_turn_it
from tests.benchmarks.findings.against_the_paper import CONTRADICTED, denied
from tests.benchmarks.findings.causes import briefly_caused
from tests.benchmarks.findings.claims import Decided, of_resnets
from tests.benchmarks.findings.in_short import ALONE, answers_table
from tests.benchmarks.findings.language import language_in_words
from tests.benchmarks.findings.links_in_short import circuits_untold
from tests.benchmarks.findings.sharing import shared_in_words
from tests.benchmarks.findings.tables import Tables
from tests.benchmarks.findings.transformers import of_vits


def five_lines(found: Decided, made: Tables) -> str:
    """What planned studies decide, and what they say beside it: against the paper first."""
    answers = {name: made[name]["answers"] for name in of_resnets(found)}
    turned = ". Not planned: with aligned captions CG is above DG, among all 40 classes"
    language = language_in_words(made["twin"], made["strong"], with_numbers=False)
    language = f"{language.removesuffix('.')}. *Vit*: {of_vits(found, made)}"
    untold = "; links of circuits (R5, R6) to accuracy are not measurable"
    alone = alone_in_words(answers, with_numbers=False)
    lines = {
        f"{CONTRADICTED}:": _against(found, made),
        f"{ALONE} ({sequence(list(answers))}; no rule):": alone
        + (turned if captions_turn_it(answers) else ""),
        "How much do middle layers of *strong* share?": shared_in_words(made["strong"])
        + (untold if circuits_untold(found, made) else ""),
        "Is sharing the cause?": briefly_caused(made),
        "Is language needed? On a transformer?": language,
    }
    said = [f"- **{asked}** {told.removesuffix('.')}." for asked, told in lines.items()]
    return "\n\n".join([answers_table(found, made), "\n".join(said)])


def _against(found: Decided, made: Tables) -> str:
    """What contradicts the paper, then what else is denied."""
    told = denied(found, made)
    first = "; ".join(told.pop(CONTRADICTED))
    return ". ".join(
        [first, *(f"{what}: {'; '.join(said)}" for what, said in told.items() if said)]
    )

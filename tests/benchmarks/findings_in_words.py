"""The findings of the large study as docs/findings.md and README have them: tables, made anew.

Every study of `large/` is read from the tables of its finished runs; nothing is trained.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from interp.study.comparing.row_by_row import CHANGED, NO_INTERVAL, ONLY_A, ONLY_B
from interp.verdicts.levels.l4_intervention import AGAINST, APART, TOGETHER
from tests.benchmarks.findings import CLAIMS, DENIED, OPPOSITE, accuracy_findings
from tests.benchmarks.findings_costs import costs_table
from tests.benchmarks.findings_drawn import (
    draw_classes,
    draw_findings,
    draw_sharing,
    first_screen,
)
from tests.benchmarks.findings_on_accuracy import (
    NOT_ASKED,
    accuracies_table,
    alone_in_words,
    claim_cell,
    claims_table,
    errors_table,
)
from tests.benchmarks.findings_on_causes import (
    cause_table,
    caused_in,
    caused_in_words,
    language_in_words,
    language_table,
)
from tests.benchmarks.findings_on_sharing import (
    LEAST_MIXTURES,
    classes_table,
    epochs_table,
    foretelling_table,
    layers_table,
    levels_table,
    units_table,
)
from tests.benchmarks.findings_open import open_cause, open_claims, open_links
from tests.benchmarks.findings_written import (
    blocks_of,
    correlation,
    counted,
    points,
    short,
    spoken,
)
from tests.benchmarks.judging import filled
from tests.benchmarks.large_tables import (
    INTERVENED,
    LARGE,
    LEAST_OF_HALVES,
    STUDIES,
    asked_blocks,
    command,
    finished_blocks,
    first_block,
    halves,
    is_kept,
    keep,
    kept,
    pilot,
    read,
    tables,
)
from tests.benchmarks.recovering import markdown

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "findings.md", DOCS / "account.md", DOCS.parent / "README.md")
"""Pages that have findings; the first has all of them."""


def findings() -> str:
    """Read every study's finished blocks, keep what findings are made of, and fill the pages.

    About a minute a block. A study that was read from the runs that are there now is not read
    again. It draws with kaleido and Chromium: `pip install ".[dev]"`.
    """
    for name in STUDIES:
        if finished_blocks(name) and not is_kept(name):
            result = read(name)
            made = kept(result)
            if finished_blocks(name) >= LEAST_OF_HALVES:
                made["halves"] = halves(name)
            keep(name, made)
            if name == "strong":
                first_screen(result.report(), DOCS / "large_page.png")
    draw_findings(_answers(all_tables())).write_image(DOCS / "findings.png", scale=2)
    weak = tables("weak")
    draw_sharing(weak["runs"]).write_image(DOCS / "sharing.png", scale=2)
    classes = draw_classes(weak["classes"], first_block("weak").images)
    classes.quantize(256).save(DOCS / "classes.png", optimize=True)
    made = pages()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        own = {part: words for part, words in made.items() if f"<!-- {part} -->" in text}
        page.write_text(filled(text, own), encoding="utf-8")
    return "\n\n".join(made.values())


def pages() -> dict[str, str]:
    """Every table and list of findings by the name that it has in the pages, from what is kept."""
    made = all_tables()
    answers = _answers(made)
    asked = {name: made[name] for name in answers}
    caused = {name: caused_in(made[name], name) for name in INTERVENED if made[name]}
    return {
        "found": five_lines(answers, made),
        "verdicts": verdicts_table(answers, made),
        "studies": studies_table(),
        "against": against(answers, made),
        "accuracies": accuracies_table(answers),
        "accuracy": claims_table(answers),
        "accuracies among held-out": accuracies_table(answers, candidates="held-out"),
        "among held-out": claims_table(answers, candidates="held-out"),
        "errors": errors_table(asked),
        "levels": levels_table(asked),
        "foretelling": foretelling_table(made["weak"]),
        "layers": layers_table(made["weak"]),
        "classes": classes_table(made["weak"]),
        "units": units_table(made["strong"]),
        "epochs": epochs_table(made["strong"]),
        "cause": cause_table(caused),
        "language": language_table(made["twin"]),
        "open claims": open_claims(answers),
        "open links": open_links(asked),
        "open cause": open_cause(caused),
        "halves": halves_in_words(made),
        "commands": commands(),
        "costs": costs_table(),
        "screen": screen(),
    }


def all_tables() -> dict[str, dict[str, pd.DataFrame]]:
    """What is kept of the pilot and of every study."""
    return {"pilot": pilot()} | {name: tables(name) for name in STUDIES}


def _answers(made: Mapping[str, Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Accuracy by class of the studies that ask about it, as far as a block is finished."""
    return {name: made[name]["answers"] for name in ABOUT_ACCURACY if made[name]}


ABOUT_ACCURACY = ("pilot", "weak", "strong", "vit")
"""Studies that ask about accuracy."""


def five_lines(
    answers: Mapping[str, pd.DataFrame], made: Mapping[str, Mapping[str, pd.DataFrame]]
) -> str:
    """The findings in five lines, with the studies in the order in which they were made."""
    tried = {name: accuracy_findings(own) for name, own in answers.items()}

    def said(*numbers: int) -> list[str]:
        claims = [claim for claim in CLAIMS if claim.number in numbers]
        return [f"**{claim.says}**: {_in_studies(tried, claim.number)}." for claim in claims]

    together = [f"{words} ({level}) {_together(made, level)}" for level, words in LEVELS.items()]
    lines = [
        said(1, 2),
        said(3),
        said(5),
        [f"**Does sharing go with it?** A measure in a study is a case: {'; '.join(together)}."],
        [f"**Does sharing cause it?** {'; '.join(caused_in_words(made, brief=True).values())}."],
    ]
    numbered = [f"{place}. {' '.join(words)}" for place, words in enumerate(lines, start=1)]
    names = ["pilot", *STUDIES]
    done = {name: finished_blocks(name) if name in STUDIES else 3 for name in names}
    sizes = ", ".join(f"{name} {blocks_of(name, done[name])}" for name in names)
    return "\n".join([*numbered, "", alone_in_words(answers), "", f"Blocks so far: {sizes}."])


def _together(made: Mapping[str, Mapping[str, pd.DataFrame]], level: str) -> str:
    """A level's correlations in all studies, from least to most, and how many are decided how."""
    every = [own["levels"] for name, own in made.items() if "levels" in own and name != "twin"]
    known = pd.concat(every).query("level == @level and adjusted == ''").dropna(subset=["value"])
    if level == "L1":
        known = known[known["n_units"] >= LEAST_MIXTURES]
    if known.empty:
        return "no number yet"
    told = ", ".join(f"{word} in {n}" for word, n in known["verdict"].value_counts().items())
    told = f"{told} of {counted(len(known), 'case')}"
    ends = dict.fromkeys(short(end) for end in (known["value"].min(), known["value"].max()))
    return f"r {' to '.join(ends)}, {told}"


def verdicts_table(
    answers: Mapping[str, pd.DataFrame], made: Mapping[str, Mapping[str, pd.DataFrame]]
) -> str:
    """Every finding, what it is here, and what the paper says: a row each."""
    tried = {name: accuracy_findings(own) for name, own in answers.items()}
    rows = [[claim.says, _in_studies(tried, claim.number), PAPER[claim.number]] for claim in CLAIMS]
    rows += [
        [
            f"Sharing goes with accuracy, {words} ({level}), a measure in a study being a case",
            _together(made, level),
            paper,
        ]
        for (level, words), paper in zip(LEVELS.items(), ("yes", NOT_ASKED, NOT_ASKED), strict=True)
    ]
    rows += [
        [f"Sharing causes accuracy (L4), {name}", said, NOT_ASKED]
        for name, said in caused_in_words(made).items()
    ]
    rows += [
        ["It is language", language_in_words(made["twin"]), NOT_ASKED],
        ["It holds on a vision transformer", _of_vits(tried), NOT_ASKED],
    ]
    return markdown(["finding", "here", "in the paper"], rows)


PAPER = {1: "yes", 2: "yes", 3: "it can be", 4: "yes", 5: "yes", 6: "yes"}
"""What Kempf et al. (2025) find, claim by claim."""

LEVELS = {
    "L1": "across mixtures",
    "L2": "over blocks of a mixture",
    "L3": "among the classes of a model",
}


def _of_vits(tried: Mapping[str, pd.DataFrame]) -> str:
    """What a vision transformer says of the claims that it is asked."""
    if "vit" not in tried:
        return f"not known: {finished_blocks('vit')} of {asked_blocks('vit')} blocks are finished"
    own = tried["vit"]
    said = [f"{row['says']}: {claim_cell(own, row['number'])}" for row in own.to_dict("records")]
    return "; ".join(said)


def studies_table() -> str:
    """Which blocks of every study are finished, and how many classes a block holds out."""
    from interp.study.specification import Specification

    rows = [["pilot", TRAINS["pilot"], "13 or 14", "3 of 3"]]
    for name in STUDIES:
        spec = Specification.from_toml(LARGE / f"{name}.toml")
        n, folds = spec.images.n_classes, spec.folds or spec.blocks
        least, more = divmod(n, folds)
        held = f"{least} or {least + 1}" if more else f"{least}"
        done = f"{finished_blocks(name)} of {asked_blocks(name)}"
        rows.append([name, TRAINS[name], held, done])
    return markdown(["study", "what it trains", "classes held out, of 40", "blocks finished"], rows)


TRAINS = {
    "pilot": "ten mixtures of a small ResNet, 1,000 steps, drawings by seven artists, no base set; "
    "made first, and the power of the others is reckoned from it",
    "weak": "twelve mixtures, 1,000 steps; from here on drawings by sixteen artists",
    "strong": "six of these, 3,000 steps, all rungs asked",
    "twin": "four of these with labels in place of captions",
    "vit": "four mixtures of a small vision transformer, 4,000 steps",
    "cause": "one mixture with classes aligned between domains, with wrong partners, and without",
    "gentle": "the same with a tenth of the weight, and a third of the classes held out",
}


def _in_studies(tried: Mapping[str, pd.DataFrame], number: int) -> str:
    cells = {name: claim_cell(own, number) for name, own in tried.items()}
    return "; ".join(f"{cell} ({name})" for name, cell in cells.items() if cell != NOT_ASKED)


def against(
    answers: Mapping[str, pd.DataFrame], made: Mapping[str, Mapping[str, pd.DataFrame]]
) -> str:
    """What contradicts the paper: claims and links that are decided not to hold."""
    said = []
    for name, own in answers.items():
        for row in accuracy_findings(own).to_dict("records"):
            if row["decision"] in (DENIED, OPPOSITE):
                said.append(
                    f"- *{row['says']}*: {row['decision']} in {name}: {points(row)}, "
                    f"{spoken(row['contrast'])}, {counted(row['n_blocks'], 'block')}."
                )
        if "levels" in made[name]:
            for row in made[name]["levels"].query("adjusted == ''").to_dict("records"):
                if row["verdict"] in (APART, AGAINST):
                    what = f"{row['level']}, {row['rung']} {row['measure']}"
                    said.append(
                        f"- *Sharing goes with generalization* ({what}): {row['verdict']} in "
                        f"{name}: r = {correlation(row)}."
                    )
    unmet = [
        claim.says
        for claim in CLAIMS
        if not any(_decision(own, claim.number) == "holds" for own in answers.values())
    ]
    linked = [made[name]["levels"] for name in answers if "levels" in made[name]]
    if not any((levels["verdict"] == TOGETHER).any() for levels in linked):
        unmet.append("Sharing goes with accuracy")
    told = "\n".join(said) or "No claim of the paper is decided against so far."
    return f"{told}\n\nNot confirmed in any study so far: {'; '.join(unmet) or 'nothing'}."


def _decision(answers: pd.DataFrame, number: int) -> str:
    found = accuracy_findings(answers).set_index("number")["decision"]
    return str(found.get(number, ""))


def commands() -> str:
    """The commands that make the pages of all studies of which a block is finished."""
    lines = [command(name) for name in STUDIES if finished_blocks(name)]
    return "\n".join(["```sh", *lines, "```"])


def halves_in_words(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """What differs beyond noise between two halves of the blocks, study by study."""
    said = []
    for name, own in studies.items():
        if "halves" not in own:
            continue
        rows = own["halves"]
        n, below = int(rows["tests"].sum()), int(rows["below"].sum())
        changed, rest = (
            int(rows[CHANGED].sum()),
            int(rows[[NO_INTERVAL, ONLY_A, ONLY_B]].sum().sum()),
        )
        first, second = rows[["blocks_a", "blocks_b"]].iloc[0]
        said.append(
            f"- *{name}*, blocks {first} against {second}: {changed} of {n:,} rows of {len(rows)} "
            f"tables differ beyond noise; {100 * below / n:.1f} % have p below 5 % unadjusted; "
            f"{rest} rows have no interval or stand in one half alone."
        )
    return "\n".join(said) or "No study has four blocks yet."


def screen() -> str:
    """What the first screen of a page is of, and the command that makes the page."""
    n = counted(finished_blocks("strong"), "block")
    return (
        f"*The page of the strong study, {n}: `{command('strong')}` builds it from the committed "
        "tables, in about a minute a block and without training.*"
    )

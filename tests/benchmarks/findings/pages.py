"""The findings of the large study as docs/findings.md and README have them: tables, made anew.

Every study of `large/` is read from the tables of its finished runs; nothing is trained.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from interp.study.comparing.row_by_row import CHANGED, NO_INTERVAL, ONLY_A, ONLY_B
from tests.benchmarks.findings.accuracy import (
    accuracies_table,
    alone_table,
    domains_table,
    errors_table,
    reached_table,
)
from tests.benchmarks.findings.as_blocks_came import (
    blocks_table,
    claims_as_blocks_came,
    links_as_blocks_came,
    taken_back_in_words,
)
from tests.benchmarks.findings.causes import cause_table, caused_in, caused_table
from tests.benchmarks.findings.claims import accuracy_findings, deciding
from tests.benchmarks.findings.costs import costs_table
from tests.benchmarks.findings.figures import (
    draw_classes,
    draw_findings,
    draw_sharing,
    first_screen,
)
from tests.benchmarks.findings.five_lines import five_lines
from tests.benchmarks.findings.in_short import (
    afterwards,
    against,
    in_short,
    studies_table,
    verdicts_table,
)
from tests.benchmarks.findings.language import language_by_mixture, language_linked, language_table
from tests.benchmarks.findings.links_in_short import reliable_in_words
from tests.benchmarks.findings.sharing import (
    domains_apart_in_words,
    domains_apart_table,
    foretelling_table,
    foretold_in_words,
    levels_table,
)
from tests.benchmarks.findings.still_open import open_cause, open_claims, open_links
from tests.benchmarks.findings.tables import (
    INTERVENED,
    LEAST_OF_HALVES,
    STUDIES,
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
from tests.benchmarks.findings.transformers import vits_on_photographs
from tests.benchmarks.findings.where_and_when import (
    classes_table,
    epochs_table,
    features_table,
    layers_table,
    parting_table,
    units_table,
)
from tests.benchmarks.findings.writing import counted
from tests.benchmarks.judging import filled

DOCS = Path(__file__).parents[3] / "docs"
PAGES = (
    *(DOCS / name for name in ("findings.md", "findings_in_detail.md", "account.md")),
    DOCS.parent / "README.md",
)
"""Pages that have findings: in short, with all tables, as a short paper, and in five lines."""


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
            if name in ABOUT_ACCURACY and finished_blocks(name) > 1:
                made["links"] = links_as_blocks_came(made["runs"])
            if name == "strong":
                page = result.report()
                check_size(page)
                first_screen(page, DOCS / "large_page.png")
            keep(name, made)  # last, so that a run that was broken off is made again
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


def check_size(page: Path) -> None:
    """Refuse a page that has outgrown what the study promises of it."""
    if (size := page.stat().st_size) > LARGEST_PAGE:
        raise ValueError(f"{page} has {size:,} bytes, more than {LARGEST_PAGE:,}")


LARGEST_PAGE = 15_000_000


def pages() -> dict[str, str]:
    """Every table and list of findings by the name that it has in the pages, from what is kept."""
    made = all_tables()
    answers = _answers(made)
    found = {name: accuracy_findings(own) for name, own in answers.items()}
    asked = {name: made[name] for name in answers}
    came = {name: claims_as_blocks_came(answers[name]) for name in deciding(found)}
    links = {name: made[name]["links"] for name in came if "links" in made[name]}
    caused = {name: caused_in(made[name], name) for name in INTERVENED if made[name]}
    return {
        "found": in_short(found, made),
        "five lines": five_lines(found, made),
        "verdicts": verdicts_table(found, made),
        "reliable": reliable_in_words(found, made),
        "reached": reached_table(answers),
        "caused": caused_table(made),
        "transformer": vits_on_photographs(made),
        "studies": studies_table(),
        "against": against(found, made),
        "taken back": taken_back_in_words(came, links),
        "afterwards": afterwards(found, made),
        "accuracies": accuracies_table(answers, alone=None),
        "domains": domains_table(answers, found),
        "as blocks came": blocks_table(came["weak"], links["weak"], DIRECTIONS),
        "as blocks came, strong": blocks_table(came["strong"], links["strong"], DIRECTIONS),
        "accuracies among held-out": accuracies_table(answers, alone=made["pilot"]["alone"]),
        "among held-out": alone_table(answers),
        "errors": errors_table(asked),
        "levels": levels_table(asked),
        "foretelling": foretelling_table(made["weak"]),
        "foretold": foretold_in_words(made["weak"]),
        "domains apart": domains_apart_table(made["weak"]),
        "domains apart in words": domains_apart_in_words(made["weak"], DIRECTIONS),
        "layers": layers_table(made["weak"]),
        "classes": classes_table(made["weak"]),
        "units": units_table(made["strong"]),
        "features": features_table(made["strong"]),
        "epochs": epochs_table(made["strong"]),
        "parting": parting_table(made["strong"]),
        "cause": cause_table(caused),
        "language": language_table(made["twin"]),
        "language linked": language_linked(made["twin"]),
        "language by mixture": language_by_mixture(made["twin"], made["strong"]),
        "open claims": open_claims(found, answers),
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


DIRECTIONS = "R3 cosine of mean differences"
"""The most reliable measure of what is shared."""

ABOUT_ACCURACY = ("pilot", "weak", "strong", "vit")
"""Studies that ask about accuracy."""


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
            f"- *{name}*, blocks {first} against {second}: {100 * below / n:.1f} % of {n:,} rows "
            f"of {len(rows)} tables have p below 5 %; {changed} differ beyond noise; "
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

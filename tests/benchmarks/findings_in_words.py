"""The findings of the large study as docs/findings.md and README have them: tables, made anew.

Every study of `large/` is read from the tables of its finished runs; nothing is trained.
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.association import spearman
from interp.core.statistics.index_of_sharing import LEVEL
from interp.data.mixtures.settings import NATURAL
from interp.measures.responding_units import serves_more
from interp.report.naming import setting_name, site_label
from interp.study.comparing.row_by_row import CHANGED, NO_INTERVAL, ONLY_A, ONLY_B
from interp.verdicts.levels.over_training import HELD_OUT
from tests.benchmarks.findings import (
    ARMS,
    CLAIMS,
    DENIED,
    OPPOSITE,
    WEIGHTS,
    accuracy_findings,
    cause_findings,
    language_findings,
    layers_findings,
    of_quantities,
    same_order,
)
from tests.benchmarks.findings_costs import costs_table
from tests.benchmarks.findings_drawn import (
    draw_classes,
    draw_findings,
    draw_sharing,
    first_screen,
    most_and_least,
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
        "against": against(answers, made),
        "accuracy": accuracy_table(answers),
        "among held-out": accuracy_table(answers, candidates="held-out"),
        "errors": errors_table({name: found["errors"] for name, found in asked.items()}),
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


ABOUT_ACCURACY = ("pilot", "weak", "strong", "vit")
"""Studies that ask about accuracy."""

OPEN = "No block of it is finished."


def accuracy_table(answers: Mapping[str, pd.DataFrame], *, candidates: str = "all") -> str:
    """The claims about accuracy: a row each, a column per study."""
    answers = _that_asked(answers, candidates)
    found = {name: accuracy_findings(own, candidates=candidates) for name, own in answers.items()}
    rows = [
        [f"{claim.number}. {claim.says} ({spoken(claim.contrast)})"]
        + [_cell(own, claim.number) for own in found.values()]
        for claim in CLAIMS
    ]
    counted = ["blocks; runs"] + [
        f"{blocks_of(name, own['n_blocks'].max())}; {answers[name]['run'].nunique()}"
        for name, own in found.items()
    ]
    return markdown(["claim", *found], [*rows, counted])


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
                if row["verdict"] in ("does not go together", "goes against"):
                    what = f"{row['level']}, {row['rung']} {row['measure']}"
                    said.append(
                        f"- *Sharing goes with generalization* ({what}): {row['verdict']} in "
                        f"{name}: r = {correlation(row)}."
                    )
    return "\n".join(said) or "nothing that is decided so far."


def _that_asked(answers: Mapping[str, pd.DataFrame], candidates: str) -> dict[str, pd.DataFrame]:
    """The studies that kept answers among these classes; the pilot has those among all alone."""
    return {name: own for name, own in answers.items() if (own["candidates"] == candidates).any()}


def errors_table(studies: Mapping[str, pd.DataFrame]) -> str:
    """How many pictures of held-out classes are taken for seen classes, mixture by mixture."""
    means = {
        name: own.groupby("setting", sort=False)["value"].agg(["mean", "min", "max"])
        for name, own in studies.items()
    }
    settings = dict.fromkeys(setting for own in means.values() for setting in own.index)
    rows = [
        [setting_name(setting), *(_share(own, setting) for own in means.values())]
        for setting in settings
    ]
    return markdown(["mixture", *means], rows)


def _share(means: pd.DataFrame, setting: str) -> str:
    if setting not in means.index:
        return "–"
    mean, least, most = 100 * means.loc[setting]
    return f"{mean:.0f} % ({least:.0f} to {most:.0f})"


def layers_table(found: Mapping[str, pd.DataFrame]) -> str:
    """At which layers sharing tells mixtures apart, from the first layer to the last."""
    made = layers_findings(found["profile"]) if found else pd.DataFrame()
    if made.empty:
        return OPEN
    rows = []
    for row in made.sort_values(["rung", "measure", "depth"]).to_dict("records"):
        what, site = f"{row['rung']} {row['measure']}", site_label(row["site"])
        ends = [f"{setting_name(row[e])} {short(row[f'{e}_index'])}" for e in ("most", "least")]
        rows.append([what, site, short(row["value"]), f"{row['p_adjusted']:.2g}", *ends])
    heads = ["rung", "layer", "variance between mixtures", "p (Holm over layers)"]
    return markdown([*heads, "most shared", "least shared"], rows)


def _cell(found: pd.DataFrame, number: int) -> str:
    rows = found[found["number"] == number].to_dict("records")
    if not rows:
        return NOT_ASKED
    [row] = rows
    return f"{points(row)} {_strong(row['decision'])}".strip()


def _strong(decision: str) -> str:
    """A decision in bold, or "open"."""
    return decision if decision in ("", "open") else f"**{decision}**"


LEAST_MIXTURES = 5
"""Of fewer, a correlation of ranks says nothing, and none is shown."""


def levels_table(studies: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """Accuracy with sharing, level by level and rung by rung; below it, what has no number."""
    rows, without = [], []
    for name, found in studies.items():
        levels = found["levels"].query("level != 'L4'")
        keys = ["level", "rung", "measure"]
        for (level, rung, measure), own in levels.groupby(keys, sort=False):
            by = {row["adjusted"]: row for row in own.to_dict("records")}
            plain, adjusted = by[""], by.get("accuracy of seen classes")
            few = level == "L1" and plain["n_units"] < LEAST_MIXTURES
            if few or not np.isfinite(plain["value"]):
                without.append(f"{name}, {level}, {rung} {measure} ({_units(plain)})")
                continue
            terms = "is held by its terms" if level == "L3" else "–"
            held = correlation(adjusted) if adjusted else terms
            reliable = short(plain["reliability"]) if plain["reliability"] >= 0 else "–"
            said = [correlation(plain), held, reliable, plain["verdict"], _units(plain)]
            rows.append([name, level, f"{rung} {measure}", *said])
    heads = ["study", "level", "rung", "r", "seen accuracy held constant", "reliability"]
    table = markdown([*heads, "verdict", "n"], rows) if rows else OPEN
    return f"{table}\n\nNo number yet: {'; '.join(without)}." if without else table


def _units(row: Mapping[str, Any]) -> str:
    return f"{counted(int(row['n_units']), row['unit'])}, {counted(int(row['n_runs']), 'run')}"


def foretelling_table(found: Mapping[str, pd.DataFrame]) -> str:
    """What foretells accuracy on held-out classes, across mixtures and within them."""
    if not found:
        return OPEN
    rows = []
    for predictor, own in found["foretelling"].groupby("predictor", sort=False):
        by = {row["level"]: row for row in own.to_dict("records")}
        cells = [correlation(by[level]) if level in by else "–" for level in ("L1", "L2")]
        rows.append([predictor, *cells, f"{by['L1']['foretold']:+.2f}" if "L1" in by else "–"])
    heads = ["predictor", "across mixtures", "over blocks of a mixture", "foretold in new mixtures"]
    return markdown(heads, rows)


def classes_table(found: Mapping[str, pd.DataFrame]) -> str:
    """The classes that are shared most and least, and whether blocks agree on them."""
    if not found:
        return OPEN
    wide = found["classes"].pivot(index="label", columns="seed", values="value")
    least, most = wide.min(axis=1), wide.max(axis=1)
    rows = [
        [label, short(value), f"{short(least[label])} to {short(most[label])}"]
        for label, value in most_and_least(found["classes"]).items()
    ]
    table = markdown(["class", "shared beyond others", "over blocks"], rows)
    pairs = [
        spearman(wide[one], wide[other]) for one, other in combinations(sorted(wide.columns), 2)
    ]
    if not pairs:
        return table
    agree = pd.DataFrame([asdict(pair) for pair in pairs])[["value", "low", "high"]].mean()
    n = counted(int(np.mean([pair.n for pair in pairs])), "class")
    said = (
        f"Blocks agree on the order of classes: Spearman's r = {correlation(agree)} "
        f"({counted(len(pairs), 'pair')} of blocks, {n})."
    )
    return "\n".join([table, "", said])


def units_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How many units tell a class in either domain, by what they serve; below it, which by name.

    A unit's class is chosen in one domain and told there (p < .05), and perhaps in both.
    """
    if "units" not in found:
        return OPEN
    units = found["units"]
    test = units["role"].isin([serves_more(domain) for domain in units["test_domain"].unique()])
    own = units.assign(
        told=units["p"] < LEVEL,
        role=units["role"].mask(test, serves_more("the test domain")).replace(
            serves_more(NATURAL), serves_more("natural pictures")),
        chosen=np.where(units["domain_a"] == NATURAL, "natural", "test"),
        shown=np.where(units["domain_b"] == NATURAL, "natural", "test"),
    )  # fmt: skip
    keys = ["setting", "test_domain", "seed", "role", "feature", "chosen", "label"]
    both = own.groupby(keys, sort=False)["told"].all()
    at_home = own[own["chosen"] == own["shown"]].groupby(["role", "chosen"])["told"]
    there_too = both.groupby(["role", "chosen"])
    rows = [
        [role]
        + [
            f"{each[role, chosen].sum()} of {len(each[role, chosen])}"
            for chosen in ("natural", "test")
            for each in (_groups(at_home), _groups(there_too))
        ]
        for role in dict.fromkeys(own["role"])
    ]
    heads = ["a unit that", "tells a class of natural pictures", "and tells it in the test domain"]
    heads += ["tells a class of the test domain", "and tells it in natural pictures"]
    places = both[both].reset_index().drop_duplicates(["setting", "test_domain", "seed", "feature"])
    named = [
        f"unit {row['feature']} of {setting_name(row['setting'])}, {row['test_domain']}, block "
        f"{row['seed']} ({row['role']}): {row['label']}"
        for row in places.to_dict("records")
    ]
    more = f"; and {len(named) - MOST_UNITS} more" if len(named) > MOST_UNITS else ""
    told = "; ".join(named[:MOST_UNITS]) or "none"
    said = f"Units that tell one class in both domains: {told}{more}."
    return "\n".join([markdown(heads, rows), "", said])


MOST_UNITS = 6
"""Units that are named."""


def _groups(grouped: Any) -> dict[tuple[str, str], pd.Series]:
    return dict(iter(grouped))


def epochs_table(found: Mapping[str, pd.DataFrame]) -> str:
    """How far sharing and accuracy had come at earlier epochs, and what leads."""
    if "lead_and_lag" not in found:
        return OPEN
    rows = []
    for row in found["lead_and_lag"].dropna(subset=["lead"]).to_dict("records"):
        lead = {"value": row["lead"], "low": row["lead_low"], "high": row["lead_high"]}
        what = f"{row['rung']} {row['measure']}".strip()
        of = _units(row)
        ahead = "–" if row["measure"] == HELD_OUT else correlation(lead)
        rows.append([what, f"{100 * row['trained']:.0f} %", correlation(row), ahead, of])
    heads = ["quantity", "of training", "share of its final gain", "ahead of held-out accuracy"]
    return markdown([*heads, "n"], rows)


def caused_in(own: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """What aligned class means do in a study, at its weight."""
    weight, tried = (WEIGHTS[name], len(WEIGHTS)) if name in WEIGHTS else (1.0, 1)
    return cause_findings(own["intervention"], own["causes"], weight=weight, tried=tried)


def cause_table(studies: Mapping[str, pd.DataFrame]) -> str:
    """What aligned class means do, against wrong partners and against no term."""
    rows: dict[str, list[str]] = {}
    for made in studies.values():
        for measure, part in made.groupby("measure", sort=False):
            by = {row["arm"]: row for row in part.to_dict("records")}
            say = correlation if str(measure).startswith("index") else points
            first, second = (by[arm] for arm in ARMS)
            cells = [f"{say(first)} {_strong(first['decision'])}".strip(), say(second)]
            rows.setdefault(str(measure), [str(measure)]).extend(cells)
    controls = ("wrong partners", "no term")
    heads = [
        f"{name}, weight {WEIGHTS.get(name, 1):g}: own less {control}"
        for name in studies
        for control in controls
    ]
    return markdown(["", *heads], rows.values())


def language_table(found: Mapping[str, pd.DataFrame]) -> str:
    """Labels less captions, quantity by quantity."""
    if not found:
        return OPEN
    both = of_quantities(found["runs"]), of_quantities(found["labels_runs"])
    rows = []
    for row in language_findings(*both).to_dict("records"):
        accuracy = row["quantity"] == HELD_OUT
        ends = [f"{100 * row[k]:.1f} %" if accuracy else f"{row[k]:.2f}" for k in KINDS]
        gap = points(row) if accuracy else correlation(row)
        rows.append([row["quantity"], *ends, gap, f"{row['n_runs']:.0f}"])
    table = markdown(["", "captions", "labels", "labels less captions", "runs"], rows)
    orders = [", ".join(map(setting_name, order)) for order in same_order(*both)]
    same = "The same" if orders[0] == orders[1] else "Another"
    said = f"{same} order of mixtures: with captions {orders[0]}; with labels {orders[1]}."
    return "\n".join([table, "", said])


KINDS = ("captions", "labels")


def five_lines(
    answers: Mapping[str, pd.DataFrame], made: Mapping[str, Mapping[str, pd.DataFrame]]
) -> str:
    """The findings in five lines, with the studies in the order in which they were made."""
    tried = {name: accuracy_findings(own) for name, own in answers.items()}
    sizes = [f"{name} {blocks_of(name, own['n_blocks'].max())}" for name, own in tried.items()]

    def said(*numbers: int) -> list[str]:
        claims = [claim for claim in CLAIMS if claim.number in numbers]
        return [f"**{claim.says}**: {_in_studies(tried, claim.number)}." for claim in claims]

    levels = {name: made[name] for name in tried if "levels" in made[name]}
    together = []
    for level, words in (("L1", "Across mixtures"), ("L2", "Over blocks of a mixture")):
        cells = [f"{_level_cell(own, level)} ({name})" for name, own in levels.items()]
        together.append(f"{words}: {'; '.join(cells)}.")
    lines = [
        said(1, 2),
        said(3),
        said(5),
        [f"**Does sharing go with it?** {' '.join(together)}"],
        [f"**Does sharing cause it?** {_caused(made)}."],
    ]
    numbered = [f"{place}. {' '.join(words)}" for place, words in enumerate(lines, start=1)]
    return "\n".join([*numbered, "", f"Blocks so far: {', '.join(sizes)}."])


def _in_studies(tried: Mapping[str, pd.DataFrame], number: int) -> str:
    cells = {name: _cell(own, number) for name, own in tried.items()}
    return "; ".join(f"{cell} ({name})" for name, cell in cells.items() if cell != NOT_ASKED)


NOT_ASKED = "not asked"


def _caused(made: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """What classes aligned by a loss term gain over wrong partners, in every study that tried."""
    parts = []
    for name in INTERVENED:
        if made[name]:
            rows = caused_in(made[name], name)
            [row] = rows[rows["decision"] != ""].to_dict("records")
            blocks = blocks_of(name, row["n_runs"] // 2)  # a run of each arm
            why = f", since {row['reason']}" if row["reason"] else ""
            parts.append(
                f"{points(row)} over wrong partners in sketches, {_strong(row['decision'])}{why} "
                f"({name}, {blocks} blocks)"
            )
    return "; ".join(parts)


def _level_cell(found: Mapping[str, pd.DataFrame], level: str) -> str:
    """All rungs' correlations of a level, from least to most, and what is said of them."""
    if "levels" not in found:
        return "–"
    own = found["levels"].query("level == @level and adjusted == ''")
    told = ", ".join(f"{word} at {n}" for word, n in own["verdict"].value_counts().items())
    told = f"{told} of {counted(len(own), 'measure')}"
    known = own.dropna(subset=["value"])
    if level == "L1":
        known = known[known["n_units"] >= LEAST_MIXTURES]
    if known.empty:
        return told
    least, most = (short(end) for end in (known["value"].min(), known["value"].max()))
    return f"r {least} to {most}, {told}"

"""The findings in short: a row each, five lines for README, and what contradicts the paper."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.core.statistics.index_of_sharing import CANNOT_TELL, LEVEL
from interp.verdicts.learned_models import trained_models
from interp.verdicts.levels.l4_intervention import AMONG, BEYOND, HELD_EQUAL, SHARING
from interp.verdicts.wording import AGAINST, APART, RELIABLE, TOGETHER
from tests.benchmarks.findings.accuracy import alone_in_words, claim_cell
from tests.benchmarks.findings.causes import (
    blocks_that_intervene,
    caused_in,
    gains,
    labels_in_short,
    language_in_words,
    language_is_told,
)
from tests.benchmarks.findings.claims import (
    ARMS,
    CLAIMS,
    DENIED,
    OPEN,
    OPPOSITE,
    WEIGHTS,
    Claim,
    planned,
    the_claim,
)
from tests.benchmarks.findings.sharing import LEAST_MIXTURES, SEEN
from tests.benchmarks.findings.tables import (
    INTERVENED,
    LARGE,
    RUN,
    STUDIES,
    asked_blocks,
    finished_blocks,
)
from tests.benchmarks.findings.writing import (
    NOT_ASKED,
    UNDECIDED,
    UNRELIABLE,
    blocks_of,
    bold,
    correlation,
    counted,
    in_studies,
    points,
    short,
    so_far,
    spoken,
)
from tests.benchmarks.recovering import markdown

Tables = Mapping[str, Mapping[str, pd.DataFrame]]
"""Every study's tables, by name."""

Decided = Mapping[str, pd.DataFrame]
"""The claims about accuracy in every study that asks about it, by `accuracy_findings`."""

LEVELS = {
    "L1": "Mixtures that share more are more accurate (L1)",
    "L2": "Of one mixture, blocks that share more are more accurate (L2)",
    "L3": "Of one model, classes that are shared more are more accurate (L3)",
}

YES = "yes"
PAPER = {1: YES, 2: YES, 3: "it can be", 4: YES, 5: YES, 6: YES, "L1": YES}
"""What Kempf et al. (2025) find, claim by claim."""


def deciding(found: Decided) -> Decided:
    """The studies that decide: those planned before they were made, with two blocks or more."""
    return {name: own for name, own in planned(found).items() if own["n_blocks"].max() > 1}


def of_resnets(found: Decided) -> Decided:
    """The deciding studies that are counted: a ViT has verdicts of its own, says the plan."""
    return {name: own for name, own in deciding(found).items() if name != "vit"}


def verdicts_table(found: Decided, made: Tables) -> str:
    """Every finding: what is decided here, its effect study by study, and what the paper says.

    Neither the pilot, nor a study of one block, nor the ViT counts among decisions.
    """
    shown = planned(found) | dict(found)  # the pilot last
    counting = of_resnets(found)
    rows = []
    for claim in CLAIMS:
        what = f"{claim.number}. {claim.says} ({spoken(claim.contrast)})"
        told = in_studies(_decisions(counting, claim))
        cells = [claim_cell(own, claim.number) for own in shown.values()]
        rows.append([what, told, *cells, PAPER[claim.number]])
    for level, says in LEVELS.items():
        chosen = _most_reliable(found, made, level)
        cells = [_link(chosen.get(name)) for name in shown]
        told = in_studies(_told(row) for name, row in chosen.items() if name in counting)
        rows.append([says, told, *cells, PAPER.get(level, NOT_ASKED)])
    models = [str(made[name]["answers"]["run"].nunique()) for name in shown]
    rows.append(["models", "", *models, ""])
    heads = [f"{name}, {blocks_of(name, own['n_blocks'].max())} blocks"
             for name, own in shown.items()]  # fmt: skip
    return markdown(["finding", "here, in planned ResNets", *heads, "the paper"], rows)


def _told(row: pd.Series) -> str:
    """The verdict on a correlation, or that its measure is too unreliable for any."""
    return UNRELIABLE if row["reliability"] < RELIABLE else str(row["verdict"])


def _decisions(found: Decided, claim: Claim) -> list[str]:
    by_number = [own.set_index("number")["decision"] for own in found.values()]
    return [str(own[claim.number]) for own in by_number if claim.number in own.index]


def _levels(found: Decided, made: Tables) -> pd.DataFrame:
    """The unadjusted rows of L1 to L3 that have a number, of mixtures enough, study by study."""
    every = {name: made[name]["levels"] for name in found if "levels" in made[name]}
    rows = pd.concat(every, names=["study"]).reset_index("study")
    own = (rows["level"] != "L4") & (rows["adjusted"] == "")
    few = (rows["level"] == "L1") & (rows["n_units"] < LEAST_MIXTURES)
    return rows[own & ~few].dropna(subset=["value"])


def _most_reliable(found: Decided, made: Tables, level: str) -> dict[str, pd.Series]:
    """A level's row in every study, of the measure that is most reliable where it is decided.

    Of measures that most studies have, mean over studies.
    """
    every = _levels(found, made)
    rows = every[every["level"] == level]
    asked = rows[rows["study"].isin(of_resnets(found))]
    of_all = (asked if len(asked) else rows).groupby("measure")["reliability"].agg(["size", "mean"])
    if of_all.empty:
        return {}
    own = rows[rows["measure"] == of_all.sort_values(["size", "mean"]).index[-1]]
    return {row["study"]: row for _, row in own.iterrows()}


def _link(row: pd.Series | None) -> str:
    if row is None:
        return "too few"
    return f"{f'r {correlation(row)} {_verdict(row)}'.strip()}, {_n_units(row)}"


def _verdict(row: pd.Series) -> str:
    """The verdict on a correlation; why it is open, where its interval alone would decide it."""
    if row["verdict"] != CANNOT_TELL:
        return bold(row["verdict"])
    excludes_zero = row["low"] > 0 or row["high"] < 0
    return _still_open(row) if excludes_zero and row["reliability"] >= RELIABLE else ""


def _still_open(row: Mapping[str, Any] | pd.Series) -> str:
    by_p = row["p_adjusted"] >= LEVEL
    why = f"adjusted p {row['p_adjusted']:.2g}" if by_p else row["reason"]
    return f"{OPEN} ({why})"


def _n_units(row: pd.Series) -> str:
    """How many mixtures, blocks or classes a correlation is over."""
    return counted(int(row["n_units"]), row["unit"])


def reliable_in_words(found: Decided, made: Tables) -> str:
    """Which measure each level's row is of, how reliable it is, and how many of all are open."""
    by_measure: dict[str, list[str]] = {}
    for level in LEVELS:
        chosen = _most_reliable(found, made, level)
        if not chosen:
            continue
        values = [row["reliability"] for row in chosen.values()]
        measure = next(iter(chosen.values()))[["rung", "measure"]].str.cat(sep=" ")
        ends = dict.fromkeys(short(value) for value in (min(values), max(values)))
        by_measure.setdefault(measure, []).append(f"{level} {' to '.join(ends)}")
    said = [f"{measure}, reliability {', '.join(own)}" for measure, own in by_measure.items()]
    every = _levels(found, made)
    n = int((every["verdict"] == CANNOT_TELL).sum())
    poor = int((every["reliability"] < RELIABLE).sum())
    return (
        f"By the most reliable measure ({'; '.join(said)}). Of "
        f"{counted(len(every), 'correlation')} decided: {len(every) - n}; not measurable: {poor}."
    )


def _left(levels: pd.DataFrame, row: pd.Series) -> str:
    """What is left of a correlation at equal accuracy of seen classes, where that was asked."""
    same = (levels["level"] == row["level"]) & (levels["measure"] == row["measure"])
    adjusted = levels[same & (levels["adjusted"] == SEEN)].to_dict("records")
    said = [
        f"r {correlation(own)}, {own['verdict']}"
        if own["verdict"] != CANNOT_TELL
        else f"r {correlation(own)}, {_still_open(own)}"
        for own in adjusted
    ]
    return "; ".join(said)


def caused_table(made: Tables) -> str:
    """What classes gain where directions of seen classes are made to agree: a row per study."""
    rows = []
    for name in INTERVENED:
        if not made[name]:
            continue
        found = caused_in(made[name], name)
        row = the_claim(found)
        by = found.set_index(["measure", "arm"])
        wrong, none = ARMS
        cells = [points(by.loc[place]) for place in (
            (row["measure"], wrong), (row["measure"], none), (HELD_EQUAL.name, wrong),
            (BEYOND.name, wrong), (AMONG.name, wrong),
        )]  # fmt: skip
        shared = correlation(by.loc[SHARING.name, wrong])
        what = f"{name}, weight {WEIGHTS.get(name, 1):g}, {blocks_that_intervene(found)}"
        rows.append([what, *cells, shared, bold(row["decision"])])
    heads = [
        "study",
        "held-out classes gain over wrong partners",
        "over no term",
        "seen classes gain",
        "held-out beyond seen",
        "held-out among themselves",
        "sharing rises by",
        "because",
    ]
    return markdown(heads, rows)


def five_lines(found: Decided, made: Tables) -> str:
    """What is decided against the paper, and the findings in five lines."""
    own = of_resnets(found)
    lines = [
        f"{_said(own, 1)} {_said(own, 2)}",
        _said(own, 3),
        " ".join(_said(own, number) for number in (4, 5, 6)),
        f"**Are models that share more better?** {_linked(own, made)}",
        f"**Is sharing the cause?** {gains(made)}",
    ]
    sizes = ", ".join(f"{name} {blocks_of(name, finished_blocks(name))}" for name in STUDIES)
    alone = alone_in_words({name: made[name]["answers"] for name in own})
    denied = "; ".join(_denied(deciding(found), made)) or "no planned study contradicts it"
    rest = f"**Is it language?** {language_in_words(made['twin'], made['strong'])}"
    rest += f" **On a transformer?** {of_vits(found, made)}"
    first = [f"**Against the paper**: {denied}.", ""]
    listed = [f"- {words}" for words in lines]
    asked = f"**Named, or told apart?** {ALONE}: {alone}."
    return "\n".join([*first, *listed, "", rest, "", asked, "", f"Blocks so far: {sizes}."])


ALONE = "With held-out classes alone to choose from (no rule was set)"


def _denied(found: Decided, made: Tables, *, by_paper: bool = True) -> list[str]:
    """Claims and links to accuracy that these studies deny: what the paper finds, or what not."""
    said: dict[str, list[str]] = {}
    for name, own in found.items():
        for row in own[own["decision"].isin([DENIED, OPPOSITE])].to_dict("records"):
            if (PAPER[row["number"]] == YES) == by_paper:
                what = f"*{row['says']}* (claim {row['number']}) {row['decision']}"
                said.setdefault(what, []).append(f"in {so_far(name)}, {points(row)}")
    links = _levels(found, made)
    for row in links[links["verdict"].isin([APART, AGAINST])].to_dict("records"):
        if (PAPER.get(row["level"]) == YES) == by_paper:
            of = f"{row['level']}, {row['rung']} {row['measure']}"
            what = f"*Sharing goes with accuracy* ({of}) {row['verdict']}"
            said.setdefault(what, []).append(f"in {so_far(row['study'])}, r {correlation(row)}")
    return [f"{what} {' and '.join(places)}" for what, places in said.items()]


def _said(found: Decided, number: int) -> str:
    [claim] = [claim for claim in CLAIMS if claim.number == number]
    cells = {name: claim_cell(own, number) for name, own in found.items()}
    told = "; ".join(
        f"{cell} ({so_far(name)})" for name, cell in cells.items() if cell != NOT_ASKED
    )
    return f"**{claim.says}** (claim {number}): {told}."


def _linked(found: Decided, made: Tables) -> str:
    """What the most reliable measure says at every level, the decided ones first."""
    chosen = {level: _most_reliable(found, made, level) for level in AMONG_WHAT}
    lines = [_linked_at(level, rows, made) for level, rows in chosen.items()]
    told = " ".join(sorted(lines, key=lambda line: "**" not in line))
    every = dict.fromkeys(row["measure"] for rows in chosen.values() for row in rows.values())
    return f"{told} By the most reliable measures: {'; '.join(every)}."


def _linked_at(level: str, chosen: Mapping[str, pd.Series], made: Tables) -> str:
    """A level's correlation in every study, and what is left of it at equal seen accuracy."""
    verdicts = [_told(row) for row in chosen.values()]
    what = f"{AMONG_WHAT[level]}: {in_studies(verdicts)}"
    if set(verdicts) <= {UNRELIABLE}:
        return f"{what}."
    told = []
    for name, row in chosen.items():
        is_said = len(set(verdicts)) == 1 and row["verdict"] != CANNOT_TELL
        r = f"r {correlation(row)} {'' if is_said else _verdict(row)}".strip()
        told.append(f"{r} ({so_far(name)}, {_n_units(row)})")
    together = {name: row for name, row in chosen.items() if row["verdict"] == TOGETHER}
    left = [(_left(made[name]["levels"], row), name) for name, row in together.items()]
    rest = "; ".join(f"{words} ({name})" for words, name in left if words)
    return f"{what}, {'; '.join(told)}{f'; at equal {SEEN} {rest}' if rest else ''}."


AMONG_WHAT = {"L1": "Mixtures", "L2": "Blocks of one mixture", "L3": "Classes of one model"}


def of_vits(found: Decided, made: Tables) -> str:
    """What a vision transformer says of the claims, and how well it knows photographs at all."""
    if "vit" not in found:
        done = f"{finished_blocks('vit')} of {asked_blocks('vit')}"
        return f"Not known: {done} blocks are finished."
    own = found["vit"]
    blocks = int(own["n_blocks"].max())
    if blocks > 1:
        told = "; ".join(f"claim {number} {claim_cell(own, number)}" for number in own["number"])
        told = f"{blocks_of('vit', blocks)} blocks: {told}"
    else:  # no interval, and "open" would say that much was known
        effects = zip(own["number"], (100 * own["value"]).round(1) + 0.0, strict=True)
        told = ", ".join(f"claim {number} {value:+.1f}" for number, value in effects)
        told = f"One block of {asked_blocks('vit')} decides nothing: {told}"
    runs = {name: made[name]["runs"].drop_duplicates(RUN) for name in ("vit", "strong")}
    same = runs["strong"]["setting"].isin(runs["vit"]["setting"])
    runs["strong"] = runs["strong"][same]
    known = {name: 100 * frame["accuracy_natural"].mean() for name, frame in runs.items()}
    n = {name: counted(trained_models(frame).nunique(), "model") for name, frame in runs.items()}
    weak = known["vit"] < known["strong"] / 2
    return (
        f"{told}. Held-out classes in photographs: {known['vit']:.0f} % ({n['vit']}), the strong "
        f"study's ResNets {known['strong']:.0f} % ({n['strong']})"
        f"{': too weak to confirm or contradict anything' if weak else ''}."
    )


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
    "pilot": "ten mixtures of a small ResNet, 1,000 steps; made first, with drawings by seven "
    "artists, no base set of photographs and another optimiser",
    "weak": "twelve mixtures, 1,000 steps; from here on drawings by sixteen artists",
    "strong": "six of these, 3,000 steps",
    "twin": "four of these with labels in place of captions",
    "vit": "four mixtures of a small vision transformer, 4,000 steps",
    "cause": "one mixture with classes aligned between domains, with wrong partners, and without",
    "gentle": "the same with a tenth of the weight, and a third of the classes held out",
}


def against(found: Decided, made: Tables) -> str:
    """What planned studies decide, claim by claim: first what they decide against the paper."""
    every, counting = deciding(found), of_resnets(found)
    lines = [
        ("Decided against the paper", _denied(every, made) or ["nothing"]),
        ("Denied, where the paper claims nothing", _denied(every, made, by_paper=False)),
    ]
    decisions = {claim.says: _decisions(counting, claim) for claim in CLAIMS}
    for says, chosen in (
        ("Holds in every planned ResNet study that asks", lambda own: set(own) == {"holds"}),
        ("Holds in some", lambda own: "holds" in own and set(own) != {"holds"}),
        ("Open in all", lambda own: set(own) == {OPEN}),
    ):
        lines.append((says, [name for name, own in decisions.items() if chosen(own)]))
    links = _levels(counting, made)
    together = [
        _together(str(level), own, made)
        for level, own in links[links["verdict"] == TOGETHER].groupby("level")
    ]
    lines.append(("Sharing goes with accuracy", together or ["not shown at any level"]))
    alone = alone_in_words({name: made[name]["answers"] for name in counting}, with_numbers=False)
    lines.insert(-1, (ALONE, [alone]))
    if language_is_told(made["twin"]):
        lines.append(
            ("Labels in place of captions", [labels_in_short(made["twin"], made["strong"])])
        )
    lines.append(("Not answered", _unanswered(found, made)))
    return "\n".join(f"- **{says}**: {'; '.join(words)}." for says, words in lines if words)


def _together(level: str, links: pd.DataFrame, made: Tables) -> str:
    """The studies where sharing goes with accuracy, and what is left of it in each."""
    rows = [(row["study"], _left(made[row["study"]]["levels"], row)) for _, row in links.iterrows()]
    left = "; ".join(f"{words} ({study})" for study, words in rows if words)
    r = links.set_index("study")
    told = ", ".join(f"{so_far(study)}, r {correlation(r.loc[study])}" for study, _ in rows)
    told = f"{LEVELS[level]}: {told}"
    return f"{told}; at equal {SEEN} {left}" if left else told


def _unanswered(found: Decided, made: Tables) -> list[str]:
    """The questions beside the claims that no study has answered."""
    causes = [caused_in(made[name], name)["decision"] for name in WEIGHTS if made[name]]
    vit = deciding(found).get("vit")
    asked = {
        "whether sharing is the cause": all(own.isin(["", *UNDECIDED]).all() for own in causes),
        "whether it takes language": not language_is_told(made["twin"]),
        "whether it holds on a transformer": vit is None or (vit["decision"] == OPEN).all(),
    }
    return [question for question, still in asked.items() if still]

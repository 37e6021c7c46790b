"""Causes in words: what held-out and seen classes gain where classes are aligned."""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.verdicts.levels.l4_intervention import AMONG, BEYOND, HELD_EQUAL, SHARING
from tests.benchmarks.findings.claims import ARMS, WEIGHTS, WITHHELD, cause_findings, the_claim
from tests.benchmarks.findings.tables import INTERVENED, Tables, held_out_in
from tests.benchmarks.findings.writing import (
    NO_BLOCK,
    UNDECIDED,
    bold,
    correlation,
    counted,
    in_studies,
    points,
)
from tests.benchmarks.recovering import markdown


def caused_in(own: Mapping[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """What aligned class means do in a study, at its weight."""
    weight, tried = (WEIGHTS[name], len(WEIGHTS)) if name in WEIGHTS else (1.0, 1)
    return cause_findings(own["intervention"], own["causes"], weight=weight, tried=tried)


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
            (BEYOND.name, wrong), (BEYOND.name, none), (AMONG.name, wrong),
        )]  # fmt: skip
        shared = correlation(by.loc[SHARING.name, wrong])
        n = f"{blocks_that_intervene(found)}, {row['n_runs']:.0f} models a difference"
        what = f"{name}, weight {WEIGHTS.get(name, 1):g}, {n}"
        why = f": {row['reason'].split(' at weight')[0]}" if row["decision"] == WITHHELD else ""
        rows.append([what, *cells, shared, f"{bold(row['decision'])}{why}"])
    heads = [
        "study",
        "held-out classes gain over wrong partners",
        "held-out classes gain over no term",
        "seen classes gain over wrong partners",
        "held-out beyond seen, over wrong partners",
        "held-out beyond seen, over no term",
        "held-out among themselves, over wrong partners",
        "sharing rises over wrong partners by",
        "is sharing the cause?",
    ]
    return markdown(heads, rows)


def cause_table(studies: Mapping[str, pd.DataFrame]) -> str:
    """What aligned class means do, against wrong partners and against no term."""
    rows: dict[str, list[str]] = {}
    for made in studies.values():
        for measure, part in made.groupby("measure", sort=False):
            by = {row["arm"]: row for row in part.to_dict("records")}
            say = correlation if str(measure).startswith("index") else points
            first, second = (by[arm] for arm in ARMS)
            cells = [f"{say(first)} {bold(first['decision'])}".strip(), say(second)]
            rows.setdefault(str(measure), [str(measure)]).extend(cells)
    controls = ("wrong partners", "no term")
    heads = [
        f"{name}, weight {WEIGHTS.get(name, 1):g}, {blocks_that_intervene(made)}: "
        f"aligned − {control}"
        for name, made in studies.items()
        for control in controls
    ]
    return markdown(["", *heads], rows.values())


def blocks_that_intervene(made: pd.DataFrame) -> str:
    """How many blocks a study's intervention was in: each has a run of either arm."""
    return counted(int(made["n_runs"].max()) // 2, "block")


def briefly_caused(made: Tables) -> str:
    """What held-out and seen classes gain over wrong partners, study by study, in a line."""
    said, decisions = [], []
    for name in (each for each in WEIGHTS if made[each]):
        rows = caused_in(made[name], name)
        row, by = the_claim(rows), rows.set_index(["measure", "arm"])
        said.append(
            f"{points(row)} (over no term {points(by.loc[row['measure'], ARMS[1]])}), seen ones "
            f"{points(by.loc[HELD_EQUAL.name, ARMS[0]])} (weight {WEIGHTS[name]:g}, "
            f"{blocks_that_intervene(rows)}, {held_out_in(name)} held out)"
        )
        decisions.append(row["decision"])
    return (
        f"{_caused(decisions)}. Where photographs and sketches of seen classes were aligned "
        "rather than sketches of another class (wrong partners), held-out classes gained "
        f"{'; '.join(said)}. By rule seen ones must stay within two points (90 % interval)"
        if said
        else NO_BLOCK
    )


def _caused(decisions: Sequence[str]) -> str:
    undecided = set(decisions) <= set(UNDECIDED)
    return "Not shown" if undecided else in_studies(decisions).capitalize()


def gains(made: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """What held-out and seen classes gain over wrong partners, in every planned study of causes."""
    said, decisions = [], []
    for name in WEIGHTS:
        if not made[name]:
            continue
        rows = caused_in(made[name], name)
        row, by = the_claim(rows), rows.set_index(["measure", "arm"])
        wrong, none = ARMS
        seen, more, alone, shared = (
            by.loc[each.name, wrong] for each in (HELD_EQUAL, BEYOND, AMONG, SHARING)
        )
        said.append(
            f"at weight {WEIGHTS[name]:g} ({blocks_that_intervene(rows)}, {held_out_in(name)} "
            f"classes held out) the index of sharing rose by {correlation(shared)}, held-out "
            f"classes gained {points(row)} (over no term {points(by.loc[row['measure'], none])}), "
            f"seen ones {points(seen)}, held-out beyond seen {points(more)}, held-out among "
            f"themselves {points(alone)}"
        )
        decisions.append(row["decision"])
    if not said:
        return NO_BLOCK
    return (
        f"{_caused(decisions)}. A term in the loss aligned photographs of a seen class with its "
        f"sketches; the control aligned them with sketches of another class. Against the control, "
        f"{'; '.join(said)}. By rule sharing is a cause only where held-out classes gain and seen "
        "ones change by less than two points (90 % interval; those here are 95 %)."
    )

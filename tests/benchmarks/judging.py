"""The truth tables: the ladder, every measure of sharing, and every way to a circuit.

All are judged on planted models. What the ladder says by band of layers is in `truth/bands.csv`
(so far R5 and R6 by units alone, three models of four conditions), what its measures say site by
site in `truth/sites.csv`. The other cells in `truth/`, a file per
planted model, are of an earlier version of the measures, whose circuits had other sizes and nulls;
those of circuits are in `truth/circuits`, those of masks in its folder `learned`.
Blueprints 0 to 19 served to develop measures and thresholds; the tables are of those after.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from interp.circuits.planted.conditions import (
    CONDITIONS,
    DOSES,
    TIERS,
    TRAINED,
    common_units,
    expected,
)
from interp.circuits.planted.model import Outlook, PlantedBlueprint, PlantedModel
from interp.circuits.planted.vit import Blueprint
from interp.core.parallel import side_by_side
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import band_of, find_sites
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.tower import Tower
from interp.report.figures.planted_truth import DOSED
from interp.report.naming import SIGNS
from interp.validation.planted_ladder import ANSWER, PLACE, PlantedLadder, cells_of, outcome
from interp.validation.puzzles import one_answer, place_of, recover
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement, of_cuts
from tests.benchmarks import recovering
from tests.benchmarks.planted.resnet import DOSE_OF_NETWORKS, RESNET_DOSES, RESNETS, ResNetBlueprint
from tests.benchmarks.planted.trained import TrainedBlueprint

FOLDER = Path(__file__).parent / "truth"
CIRCUITS = FOLDER / "circuits"
BANDS, SITES = FOLDER / "bands.csv", FOLDER / "sites.csv"
MADE = Path("interp-report") / "benchmarks" / "truth"
"""Where judged models are kept, a file each, so that a run goes on where it was stopped."""

DOCS = Path(__file__).parents[2] / "docs"
TRUTH = DOCS / "tables" / "truth"
FIRST = 20
"""The first blueprint that no threshold was chosen on."""

OUTCOMES = ["right", "wrong", "abstained", "refused", "reported"]
FEW = 5
"""Of cells with an index, shared and not, an AUROC takes at least so many."""

SHORT = {
    "probe transfer": "probes",
    "cka": "CKA",
    "directions": "LDA",
    "das": "DAS",
    "transplant": "transplant",
    "node overlap": "nodes",
    "edge overlap": "edges",
    "neuron overlap": "neurons",
    "circuit transfer": "edges' work",
    "neuron transfer": "neurons' work",
}
LEARNED = CIRCUITS / "learned"
MASKED = ("all separate", "rewired")
"""Conditions in which masks are learned: that takes minutes a model, and is judged nowhere else."""

SECONDS = 200, 500
"""What judging takes on one core: a planted model, and one that is trained by interchange."""


WHOLE_TOWER = "whole tower"
"""What stands for all bands together."""
RUNG_MEASURES = {"R2": "cka", "R3": "directions", "R4": "das"}
"""The rungs whose answer is declared site by site, and their measure."""


def expected_by_band(
    planted: PlantedModel, tower: Tower, outlook: Outlook
) -> dict[tuple[str, str], list[str]]:
    """What rungs R2 to R6 must say of a planted model in each band of its layers.

    R2 to R4 are declared at the band's streams, R4 at all but the last, which is read out as it is.
    R5 and R6 are declared for the whole tower; in a band they are what true circuits share there.

    Args:
        planted: The model with its true circuits.
        tower: The same, opened.
        outlook: Where measures look.

    Returns:
        Answers, one for each site (for the whole tower, for each cut), by rung and band.
    """
    answers: dict[tuple[str, str], list[str]] = {}
    cells = expected(planted.blueprint)
    for rung, measure in RUNG_MEASURES.items():
        for cell in cells:
            last = rung == "R4" and cell.site == outlook.streams[-1]
            if cell.measure == measure and cell.site is not None and not last:
                answers.setdefault((rung, _band(tower, cell.site)), []).append(cell.answer)
    for site, rung in product(find_sites(outlook.neurons, tower.sites), ("R5", "R6")):
        answers.setdefault((rung, _band(tower, site)), []).append(common_units(planted, site))
    wholes = {"neuron overlap": "R5", "neuron transfer": "R6", "circuit transfer": "R6"}
    for cell in cells:
        if rung := wholes.get(cell.measure):
            answers.setdefault((rung, WHOLE_TOWER), []).append(cell.answer)
    return answers


def _band(tower: Tower, site: str) -> str:
    sites = list(tower.sites)
    return band_of(sites.index(site) / max(1, len(sites) - 1))


def truth(n: int | None = None) -> str:
    """Judge what is missing of `n` (`BLUEPRINTS`) blueprints of every condition and tier.

    Without a number say what thirty would take. Returns the table of rungs by bands as text.
    """
    count = n if n is not None else int(os.environ.get("BLUEPRINTS", "0"))
    missing = [each for each in blueprints(count or 30) if not path_of(each, MADE).exists()]
    hours = sum(SECONDS[isinstance(each, TrainedBlueprint)] for each in missing) / 3600 / 2
    say(
        f"truth: {len(missing)} planted models to be judged, about {hours:.1f} hours of two cores"
        + ("" if count else "; BLUEPRINTS=30 does it, and goes on where it was stopped")
    )
    if count:
        side_by_side(keep, missing, jobs=2, what="judge")
        for target, folder in ((BANDS, MADE), (SITES, MADE / "sites")):
            _write(read(folder), target)
    table = bands(read_cells(BANDS))
    (TRUTH / "bands.csv").write_text(as_csv(table), encoding="utf-8")
    return table


def bands(rows: pd.DataFrame) -> str:
    """Per rung and band: how many models, and how often the ladder is right, wrong or undecided."""
    lines = [
        [*names, *_shares("", own)[1:]] for names, own in rows.groupby(["rung", "band"], sort=False)
    ]
    return recovering.markdown(["rung", "band", "models", *SHARES], lines)


def tables(cells: pd.DataFrame, circuits: pd.DataFrame) -> dict[str, str]:
    """Every table of these cells, by the name of its file in docs/tables/truth."""
    rungs, measures = overall(cells)
    return {
        "rungs": rungs,
        "doses": by_dose(cells),
        "measures": measures,
        "conditions": table(cells),
        "methods": recovering.overall(circuits),
        "circuits": recovering.by_condition(circuits),
    }


def as_csv(table: str) -> str:
    """A table in Markdown as CSV.

    >>> as_csv("| a | b |\\n|---|---|\\n| 1 | 2, 3 |")
    'a,b\\n1,"2, 3"\\n'
    """
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    )
    return pd.DataFrame(rows, columns=head).to_csv(index=False)


def filled(page: str, made: Mapping[str, str]) -> str:
    """A page with tables between `<!-- name -->` and `<!-- end of name -->`, made anew.

    >>> filled("<!-- a --> 1 <!-- end of a -->", {"a": "2"}).split()[3:5]
    ['2', '<!--']
    """
    for name, text in made.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    return page


def blueprints(n: int) -> Iterator[PlantedBlueprint]:
    """Seed by seed, so that a table of fewer seeds is a table of all conditions."""
    for seed in range(FIRST, FIRST + n):
        for name, lanes in CONDITIONS.items():
            for tier in TIERS:
                if tier in lanes.tiers:
                    for dose in DOSES if lanes.dosed else (None,):
                        yield Blueprint(name, seed, dose, tier)
        yield from (ResNetBlueprint(name, seed) for name in RESNETS)
        yield from (ResNetBlueprint(DOSE_OF_NETWORKS, seed, dose) for dose in RESNET_DOSES)
        yield from (TrainedBlueprint(name, seed) for name in TRAINED)  # minutes each


def path_of(blueprint: PlantedBlueprint, folder: Path = FOLDER) -> Path:
    """Where a blueprint's cells are kept."""
    name = blueprint.condition.replace(", ", "-").replace(" ", "-")
    dose = "" if blueprint.dose is None else f"-{blueprint.dose:g}"
    return folder / f"{blueprint.seed}-{name}{dose}-{blueprint.tier}.csv"


def keep(blueprint: PlantedBlueprint) -> None:
    """Judge the ladder of a model, band by band and site by site, and look for its circuits."""
    import torch

    torch.set_num_threads(1)
    planted = PlantedLadder(blueprint)
    made = {MADE / "sites": cells_of(planted), MADE / "circuits": recover(blueprint)}
    if blueprint.condition in MASKED:
        made[MADE / "circuits" / "learned"] = recover(blueprint, learned=True)
    for folder, rows in (made | {MADE: by_rung(planted)}).items():
        folder.mkdir(parents=True, exist_ok=True)
        _write(rows.round(4), path_of(blueprint, folder))


def by_rung(planted: PlantedLadder) -> pd.DataFrame:
    """The declared answer and the ladder's verdict for each rung and band that has one answer."""
    declared = expected_by_band(planted.planted, planted.tower, planted.blueprint.outlook)
    rows = []
    for row in planted.ladder.table.frame.to_dict("records"):
        answers = declared.get((row["rung"], row["band"]), [])
        if right := one_answer(answers, by_cuts=RUNGS[row["rung"]].by_cuts):
            came = outcome(right, row["verdict"], row["index"])
            rows.append({**row, **place_of(planted.blueprint), "expected": right, "outcome": came})
    return pd.DataFrame(rows, columns=[*PLACE, "rung", "band", *ANSWER])


def _write(rows: pd.DataFrame, target: Path) -> None:
    draft = target.with_suffix(".part")
    rows.to_csv(draft, index=False)
    draft.rename(target)


def circuits_found() -> pd.DataFrame:
    """All circuits that were looked for, by masks too."""
    return pd.concat([read(CIRCUITS), read(LEARNED)], ignore_index=True)


def read(folder: Path = FOLDER) -> pd.DataFrame:
    """All cells that were judged."""
    return pd.concat([read_cells(path) for path in sorted(folder.glob("[0-9]*.csv"))])


def read_cells(path: Path) -> pd.DataFrame:
    """The cells of one model."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def by_dose(cells: pd.DataFrame) -> str:
    """The mean index of every rung that carries a dose, with the answers that were given.

    `.25 ◐ 2/3` says: two of three cells with an index said "partly shared".
    """
    doses = sorted(cells["dose"].dropna().unique())
    lines = [[f"{dose:g}"] for dose in doses]
    for rung in DOSED:
        own = rung.among(cells)
        for line, dose in zip(lines, doses, strict=True):
            rows = own[own["dose"] == dose]
            said = rows["verdict"].value_counts()
            signs = ", ".join(f"{SIGNS[word]} {n}/{len(rows)}" for word, n in said.items())
            line.append(f"{rows['index'].mean():.2f} {signs}" if len(rows) else "–")
    return recovering.markdown(["planted dose", *(rung.name for rung in DOSED)], lines)


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """For each condition, tier, measure and declared answer: how many cells of each outcome."""
    grouped = cells.groupby(["condition", "tier", "measure", "expected"], sort=False)
    table = grouped["outcome"].value_counts().unstack(fill_value=0)
    table = table.reindex(columns=OUTCOMES, fill_value=0)
    return table.assign(index=grouped["index"].mean()).reset_index()


def table(cells: pd.DataFrame) -> str:
    """A row for each condition and tier: what must be seen (s) or not (n), and how often it was.

    A cell `s 9/0/1 (2)` says: "shared" is right, and was said in 9 cells, another answer in 0, 1
    could not tell, and 2 more had no index; `p` is "partly shared", `n` "not shared"; `.4` is the
    mean index where any answer between the ends is right.
    """
    found = summary(cells)
    measures = [name for name in SHORT if name in set(found["measure"])]
    head = ["condition", "tier", "n", *(SHORT[name] for name in measures)]
    lines = []
    for (condition, tier), rows in found.groupby(["condition", "tier"], sort=False):
        own = cells[(cells["condition"] == condition) & (cells["tier"] == tier)]
        n = own.drop_duplicates(["seed", "dose"])
        texts = [_cell(rows[rows["measure"] == name]) for name in measures]
        lines.append([condition, tier, len(n), *texts])
    return recovering.markdown(head, lines)


LETTERS = {SHARED: "s", PARTLY: "p", NOT_SHARED: "n"}
"""The answers that are right or wrong."""
MUCH = {NOT_SHARED: 0, PARTLY: 1, SHARED: 2}
"""How much an answer says."""


def _cell(rows: pd.DataFrame) -> str:
    parts = []
    for row in rows.itertuples():
        if letter := LETTERS.get(row.expected):
            refused = f" ({row.refused})" if row.refused else ""
            parts.append(f"{letter} {row.right}/{row.wrong}/{row.abstained}{refused}")
    told = ", ".join(parts)
    between = rows[rows["expected"] == "in part"]["index"].dropna()
    if not told and len(between):
        return f"{between.mean():.2f}"
    return told or "–"


SHARES = ("no index", "right", "says too much", "says too little", "unknown", "AUROC")
"""What `_shares` gives: all but the first of those that have an index."""


def by_model(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each model and rung of cells that were judged site by site.

    Left out are models in which the declared answer differs between sites, or lies between. The
    sites of R4 must agree, else the verdict is "unknown"; those without an index have no say,
    and where they are more than half there is no verdict. Of R6's two cuts one "not shared" is
    enough, and one that cannot tell classes apart leaves verdict and index to the other. `index` is
    the mean over sites, and for R6 the smallest of the cuts.
    """
    rows = []
    for blueprint, own in cells.groupby(PLACE, dropna=False, sort=False):
        for rung in RUNGS.values():
            mine = own[own["measure"].isin(rung.judged.planted)]
            answer = one_answer(mine["expected"].tolist(), by_cuts=rung.by_cuts)
            if not answer:
                continue
            decided = mine[mine["expected"].isin([SHARED, PARTLY, NOT_SHARED])]
            known = decided[decided["index"].notna()]
            sure = known[known["verdict"] != UNKNOWN] if rung.by_cuts else known
            index = (sure if len(sure) else known).groupby("measure")["index"].mean().min()
            if 2 * len(known) < len(decided):
                verdict, index = UNKNOWN, np.nan
            else:
                verdict = (of_cuts if rung.by_cuts else agreement)(known["verdict"])
            came = outcome(answer, verdict, index)
            rows.append([*blueprint, rung.name, answer, index, verdict, came])
    return pd.DataFrame(rows, columns=[*PLACE, "rung", "expected", "index", "verdict", "outcome"])


def overall(cells: pd.DataFrame) -> tuple[str, str]:
    """Per rung and blueprint, then per measure: how often right, wrong either way, or undecided."""
    lines = []
    for name, short in SHORT.items():
        own = cells[(cells["measure"] == name) & cells["expected"].isin(list(LETTERS))]
        if len(own):
            lines.append(_shares(short, own))
    rungs = [
        [*_shares(rung, own), _false(own, NOT_SHARED, SHARED), _false(own, SHARED, NOT_SHARED)]
        for rung, own in by_model(cells).groupby("rung")
    ]
    return (
        recovering.markdown(
            ["rung", "models", *SHARES, "nothing shared, says shared", "shared, says not"], rungs
        ),
        recovering.markdown(["measure", "cells", *SHARES], lines),
    )


def _shares(name: Any, own: pd.DataFrame) -> list[object]:
    judged = own[own["outcome"] != "refused"]
    beyond = judged["verdict"].map(MUCH) - judged["expected"].map(MUCH)
    numbers = [
        (judged["outcome"] == "right").mean(),
        (beyond > 0).mean(),
        (beyond < 0).mean(),
        (judged["outcome"] == "abstained").mean(),
    ]
    shares = ["–" if np.isnan(number) else f"{number:.0%}" for number in numbers]
    return [name, len(own), len(own) - len(judged), *shares, _auroc(own)]


def _false(own: pd.DataFrame, truth: str, said: str) -> str:
    """How many models of one truth were called its opposite, with a 95 % bound from above."""
    from scipy.stats import beta

    told = own[(own["expected"] == truth) & (own["outcome"] != "refused")]["verdict"]
    n, wrong = len(told), int((told == said).sum())
    bound = beta.ppf(0.95, wrong + 1, n - wrong) if n > wrong else 1.0
    return f"{wrong} of {n} (at most {bound:.0%})"


def _auroc(own: pd.DataFrame) -> str:
    """How well the index tells what is shared from what is not, with the models drawn again.

    The interval holds 95 % of 1,000 draws of planted models (blueprints, with all their cells).
    """
    known = own[own["expected"] != PARTLY].dropna(subset=["index"]).reset_index(drop=True)
    shared = (known["expected"] == SHARED).to_numpy()
    if min(shared.sum(), (~shared).sum()) < FEW:
        return "–"
    index = known["index"].to_numpy()
    models = known.groupby(["condition", "tier", "dose", "seed"], dropna=False).indices
    rows, generator = list(models.values()), rng("auroc of the truth", 0)
    drawn = []
    for _ in range(1000):
        some = np.concatenate([rows[one] for one in generator.integers(len(rows), size=len(rows))])
        if len(set(shared[some])) == 2:
            drawn.append(_area(shared[some], index[some]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{_area(shared, index):.2f} ({low:.2f} to {high:.2f}, {len(known)})"


def _area(shared: np.ndarray, index: np.ndarray) -> float:
    """How often what is shared has the larger index; ties count half.

    >>> _area(np.array([True, False, True]), np.array([0.5, 0.5, 0.9]))
    0.75
    """
    ranks, n = rankdata(index), shared.sum()
    return float((ranks[shared].sum() - n * (n + 1) / 2) / (n * (len(shared) - n)))

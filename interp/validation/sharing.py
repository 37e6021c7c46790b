"""Measures of sharing, tested on planted models: their verdicts against the declared answers.

Verdicts are given at the thresholds, and with the defaults, of a real study.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from interp.circuits import (
    ClassCircuits,
    Edges,
    Scores,
    Units,
    circuit_transfer,
    class_circuits,
    das,
    overlap,
    transplant,
)
from interp.circuits.planted.expectations import expected
from interp.circuits.planted.model import Outlook, PlantedBlueprint
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    CANNOT_TELL,
    NOT_SHARED,
    PARTLY,
    SHARED,
    AnswerBars,
)
from interp.probes import Features, collect, directions, similarity, transfer
from interp.probes.geometry.contrasts import DISCRIMINANT
from interp.validation.opened import Opened
from interp.validation.puzzles import one_answer
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import Votes, agreement, count_votes, of_cuts

PICTURES = 12
"""Pictures of each class and domain, as a study has; circuits are found on all of them."""

COLUMNS = [
    *("condition", "tier", "dose", "seed", "measure", "site", "expected"),
    *("index", "index_low", "index_high", "verdict", "outcome", "reason"),
]
"""What is known of each cell."""


def judge(blueprint: PlantedBlueprint, measures: Collection[str] | None = None) -> pd.DataFrame:
    """One row for each measure and site: the declared answer, the verdict, and whether it is right.

    The model is planted, disguised, and asked through pictures of 8 bits, as a CLIP would be; by
    all measures that have an answer declared, or by some of them.
    `outcome` is right or wrong where sharing must or must not be seen, abstained where the measure
    has an index and cannot tell, refused where it has none (no room, no faithful circuit, the
    reader), and reported where the answer is declared in part or blind.
    """
    subject, declared = _Subject(blueprint), expected(blueprint)
    if measures is not None:
        declared = tuple(cell for cell in declared if cell.measure in measures)
    found: dict[tuple[str, str | None], Votes] = {}
    for measure in dict.fromkeys(cell.measure for cell in declared):
        said = MEASURES[measure](subject)
        found |= {(measure, site): votes for site, votes in said.items()}
    rows = []
    for cell in declared:
        votes = found.get((cell.measure, cell.site))
        if votes is None:
            continue
        rows.append(
            {
                "condition": blueprint.condition,
                "tier": blueprint.tier,
                "dose": blueprint.dose,
                "seed": blueprint.seed,
                "measure": cell.measure,
                "site": cell.site or "",
                "expected": cell.answer,
                "index": votes.index,
                "index_low": votes.low,
                "index_high": votes.high,
                "verdict": votes.verdict,
                "outcome": outcome(cell.answer, votes.verdict, votes.index),
                "reason": "; ".join(votes.reasons),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


OUTCOMES = ("right", "wrong", "abstained", "refused", "reported")
"""What may come of a verdict; all but the last two are of questions that admit an answer."""


def outcome(answer: str, verdict: str, index: float) -> str:
    """Whether a verdict is right, given the declared answer; `index` is NaN where none was given.

    >>> outcome("shared", "cannot tell", 0.4), outcome("not shared", "shared", 0.9)
    ('abstained', 'wrong')
    >>> outcome("shared", "cannot tell", float("nan"))
    'refused'
    """
    if answer not in (SHARED, PARTLY, NOT_SHARED):
        return "reported"
    if verdict == CANNOT_TELL:
        return "refused" if math.isnan(index) else "abstained"
    return "right" if verdict == answer else "wrong"


class _Subject(Opened):
    """A planted model, opened, with pictures; what several measures need is made once."""

    @cached_property
    def words(self) -> dict[str, Any]:
        """What every measure that runs the model is given."""
        return {
            "images": paint(self.planted.world, PICTURES, seed=self.blueprint.seed),
            "classifier": self.planted.classifier,
            "preprocess": as_tensor,
        }

    @property
    def outlook(self) -> Outlook:
        """Where measures look in the model."""
        return self.blueprint.outlook

    @property
    def crossing(self) -> dict[str, Any]:
        """The same, from the first domain to the second, at the place where measures look."""
        a, b = DOMAINS
        return self.words | {"domain_a": a, "domain_b": b, "where": self.outlook.place}

    @cached_property
    def features(self) -> Features:
        streams, pool = list(self.outlook.streams), self.outlook.pool
        return collect(self.tower, self.words["images"], streams, preprocess=as_tensor, pool=pool)

    @cached_property
    def neurons(self) -> list[ClassCircuits]:
        x = self.words["images"].tensors(as_tensor, [0])
        return self._circuits(Units.of(self.tower, self.outlook.neurons, x, axis=self.outlook.axis))

    @cached_property
    def edges(self) -> list[ClassCircuits]:
        return self._circuits(Edges(self.tower))

    def _circuits(self, cut: Units | Edges) -> list[ClassCircuits]:
        return [class_circuits(cut, domain=domain, **self.words) for domain in DOMAINS]


Said = dict[str | None, Votes]


def _by_site(frame: pd.DataFrame, bars: AnswerBars = AMOUNT) -> Said:
    return {str(site): count_votes(rows, bars=bars) for site, rows in frame.groupby("site")}


def _probes(subject: _Subject) -> Said:
    frame = transfer(subject.features).frame
    across = frame[(frame["train_domain"] != frame["domain"]) & frame["centred"].astype(bool)]
    return _by_site(across)


def _geometry(subject: _Subject) -> Said:
    return _by_site(similarity(subject.features).frame, RUNGS["R2"].bars)


def _directions(subject: _Subject) -> Said:
    frame = directions(subject.features).frame
    return _by_site(frame[frame["measure"] == DISCRIMINANT])


def _interchanged(subject: _Subject) -> Said:
    return _by_site(das(subject.tower, sites=subject.outlook.streams, **subject.crossing).frame)


def _transplanted(subject: _Subject) -> Said:
    frames = []
    for a, b in (DOMAINS, DOMAINS[::-1]):
        words: dict[str, Any] = {**subject.crossing, "domain_a": a, "domain_b": b}
        frames.append(transplant(subject.tower, sites=list(subject.outlook.added), **words).frame)
    return _by_site(pd.concat(frames))


def _nodes(subject: _Subject) -> Said:
    scores = [
        found.scores.leaving(found.cut.wiring)  # type: ignore[attr-defined]
        for found in subject.edges
    ]
    return _overlap(scores, "weighted jaccard")


def _edges(subject: _Subject) -> Said:
    return _overlap([found.scores for found in subject.edges], PRIMARY_OVERLAP)


def _neurons(subject: _Subject) -> Said:
    return _overlap([found.scores for found in subject.neurons], PRIMARY_OVERLAP)


def _overlap(scores: list[Scores], measure: str) -> Said:
    frame = overlap(*scores, measures=[measure], n_permutations=99).frame
    return {None: count_votes(frame[frame["measure"] == measure])}


def _circuits(subject: _Subject) -> Said:
    return _carried(subject.edges)


def _units(subject: _Subject) -> Said:
    return _carried(subject.neurons)


def _carried(found: list[ClassCircuits]) -> Said:
    frames = [circuit_transfer(*found, removed=removed).frame for removed in (False, True)]
    return {None: count_votes(RUNGS["R6"].judged.select(pd.concat(frames)))}


MEASURES: Mapping[str, Callable[[_Subject], Said]] = {
    "probe transfer": _probes,
    "cka": _geometry,
    "directions": _directions,
    "das": _interchanged,
    "transplant": _transplanted,
    "node overlap": _nodes,
    "edge overlap": _edges,
    "neuron overlap": _neurons,
    "circuit transfer": _circuits,
    "neuron transfer": _units,
}
"""Every measure of sharing by the name that `expected` has for it."""


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """For each condition, tier, measure and declared answer: how many cells of each outcome."""
    keys = ["condition", "tier", "measure", "expected"]
    grouped = cells.groupby(keys, sort=False)
    table = grouped["outcome"].value_counts().unstack(fill_value=0)
    table = table.reindex(columns=list(OUTCOMES), fill_value=0)
    table["index"] = grouped["index"].mean()
    return table.reset_index()


def by_rung(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each planted model and rung: the declared answer, the verdict, and whether right.

    Left out are models in which the declared answer differs between sites, or lies between. The
    sites of R4 must agree, else the verdict is "cannot tell"; those without an index have no say,
    and where they are more than half there is no verdict. Of R6's two cuts one "not shared" is
    enough, and one that cannot tell classes apart leaves verdict and index to the other. `index` is
    the mean over sites, and for R6 the smallest of the cuts.
    """
    rows = []
    names = ["condition", "tier", "dose", "seed"]
    for blueprint, own in cells.groupby(names, dropna=False, sort=False):
        for rung in RUNGS.values():
            found = own[own["measure"].isin(rung.judged.planted)]
            answer = one_answer(found["expected"].tolist(), by_cuts=rung.by_cuts)
            if not answer:
                continue
            decided = found[found["expected"].isin([SHARED, PARTLY, NOT_SHARED])]
            told = decided[decided["index"].notna()]
            sure = told[told["verdict"] != CANNOT_TELL] if rung.by_cuts else told
            index = (sure if len(sure) else told).groupby("measure")["index"].mean().min()
            if 2 * len(told) < len(decided):
                verdict, index = CANNOT_TELL, math.nan
            else:
                verdict = (of_cuts if rung.by_cuts else agreement)(told["verdict"])
            came = outcome(answer, verdict, index)
            rows.append([*blueprint, rung.name, answer, index, verdict, came])
    return pd.DataFrame(rows, columns=[*names, "rung", "expected", "index", "verdict", "outcome"])

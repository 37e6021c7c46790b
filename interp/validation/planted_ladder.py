"""The ladder, tested on planted models: its verdicts against the declared answers.

Verdicts are those of `ladder_tables`, at the thresholds, sample sizes and defaults of a study.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from interp.circuits import Edges, overlap, transplant
from interp.circuits.planted.conditions import expected
from interp.circuits.planted.model import PlantedBlueprint
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.core.statistics.index_of_sharing import AMOUNT, NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.tables import Table
from interp.measures.circuit_tables import REDRAWS, circuits_of
from interp.measures.ladder import CAUSAL, OF_FEATURES, Ladder, ladder_tables
from interp.measures.subject import Subject
from interp.validation.puzzles import PLACE, Opened, place_of
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import Votes, count_votes

PICTURES = 16
"""Pictures of each class and domain, as many as the embedded study analyses."""

ANSWER = ["expected", "index", "index_low", "index_high", "verdict", "outcome", "reason"]

COLUMNS = [*PLACE, "measure", "site", *ANSWER]
"""What is known of each measure at each site."""


def outcome(answer: str, verdict: str, index: float) -> str:
    """Whether a verdict is right, given the declared answer; `index` is NaN where none was given.

    >>> outcome("shared", "unknown", 0.4), outcome("not shared", "shared", 0.9)
    ('abstained', 'wrong')
    >>> outcome("shared", "unknown", float("nan"))
    'refused'
    """
    if answer not in (SHARED, PARTLY, NOT_SHARED):
        return "reported"
    if verdict == UNKNOWN:
        return "refused" if math.isnan(index) else "abstained"
    return "right" if verdict == answer else "wrong"


@dataclass(frozen=True, eq=False)
class PlantedLadder(Opened):
    """A planted model, disguised and opened, with the tables of its ladder, each made once."""

    @cached_property
    def subject(self) -> Subject:
        """The model under study, looked at where its blueprint says."""
        outlook = self.blueprint.outlook
        return Subject.of_tower(
            self.tower,
            paint(self.planted.world, PICTURES, seed=self.blueprint.seed),
            domains=DOMAINS,
            classifier=self.planted.classifier,
            preprocess=as_tensor,
            sites=outlook.streams,
            pool=outlook.pool,
        )

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        return {}

    def table(self, name: str) -> pd.DataFrame:
        """A table of the ladder; empty where the tower has none."""
        if name not in self._tables:
            made = ladder_tables(self.subject, [name])
            self._tables[name] = made.get(name, pd.DataFrame())
        return self._tables[name]

    @property
    def ladder(self) -> Ladder:
        """The ladder, as a study has it."""
        names = (name for name in (*OF_FEATURES, *CAUSAL) if name != "circuit_stability")
        return Ladder.of({name: Table(name, self.table(name)) for name in names})

    def transplants(self) -> pd.DataFrame:
        """Activations of either domain in the other, where a block's output is added."""
        subject, outlook = self.subject, self.blueprint.outlook
        frames = [
            transplant(
                subject.tower,
                subject.images,
                sites=list(outlook.added),
                domain_a=a,
                domain_b=b,
                where=outlook.place,
                **subject.task,
            ).frame
            for a, b in (DOMAINS, DOMAINS[::-1])
        ]
        return pd.concat(frames)

    def nodes(self) -> pd.DataFrame:
        """Overlap of heads and MLPs, each scored by the edges that leave it."""
        cut = Edges(self.tower)  # type: ignore[arg-type]
        scores = [
            circuits_of(self.subject, domain, cut).scores.leaving(cut.wiring) for domain in DOMAINS
        ]
        words = {"measures": ["weighted jaccard"], "n_permutations": REDRAWS}
        return overlap(*scores, **words).frame.assign(site="")


def _rows(key: str) -> Callable[[PlantedLadder], pd.DataFrame]:
    """The rows of a rung's measure, by its key."""
    [measure] = (each for rung in RUNGS.values() for each in rung.measures if each.key == key)
    return lambda planted: measure.select(planted.table(measure.table))


def _whole(rung: str, *, edges: bool) -> Callable[[PlantedLadder], pd.DataFrame]:
    """The rows of circuits of the whole tower, by edges or by units."""

    def rows(planted: PlantedLadder) -> pd.DataFrame:
        own = _rows(rung)(planted)
        return own[((own["level"] == "edge") == edges) & (own["site"] == "")]

    return rows


MEASURES: Mapping[str, Callable[[PlantedLadder], pd.DataFrame]] = {
    "probe transfer": _rows("R3 probes"),
    "cka": _rows("R2"),
    "directions": _rows("R3"),
    "das": _rows("R4"),
    "transplant": PlantedLadder.transplants,
    "node overlap": PlantedLadder.nodes,
    "edge overlap": _rows("R6 overlap"),
    "neuron overlap": _whole("R5", edges=False),
    "circuit transfer": _whole("R6", edges=True),
    "neuron transfer": _whole("R6", edges=False),
}
"""The rows of every measure of sharing, by the name that `expected` has for it."""


def by_site(measure: str, planted: PlantedLadder) -> dict[str, Votes]:
    """What a measure answers at each site; the site is empty for the whole tower."""
    bars = RUNGS["R2"].bars if measure == "cka" else AMOUNT
    rows = MEASURES[measure](planted)
    return {str(site): count_votes(own, bars=bars) for site, own in rows.groupby("site")}


def judge(blueprint: PlantedBlueprint, measures: Collection[str] | None = None) -> pd.DataFrame:
    """One row for each measure and site: the declared answer, the verdict, and whether it is right.

    The model is planted, disguised, and measured on pictures of 8 bits, as a CLIP would be; by all
    measures that have an answer declared, or by some of them. `outcome` is right or wrong where
    sharing must or must not be seen, abstained where the measure has an index and says unknown,
    refused where it has none (no room, no faithful circuit, the reader), and reported where the
    answer is declared in part or blind.
    """
    return cells_of(PlantedLadder(blueprint), measures)


def cells_of(planted: PlantedLadder, measures: Collection[str] | None = None) -> pd.DataFrame:
    """The rows of `judge` for a model at hand."""
    declared = [
        cell for cell in expected(planted.blueprint) if measures is None or cell.measure in measures
    ]
    names = dict.fromkeys(cell.measure for cell in declared)
    answers = {name: by_site(name, planted) for name in names}
    place, rows = place_of(planted.blueprint), []
    for cell in declared:
        site = cell.site or ""
        if (votes := answers[cell.measure].get(site)) is not None:
            ends = votes.index, votes.low, votes.high, votes.verdict
            came = outcome(cell.answer, votes.verdict, votes.index)
            answer = zip(ANSWER, (cell.answer, *ends, came, "; ".join(votes.reasons)), strict=True)
            rows.append({**place, "measure": cell.measure, "site": site, **dict(answer)})
    return pd.DataFrame(rows, columns=COLUMNS)

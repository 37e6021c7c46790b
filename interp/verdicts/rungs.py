"""The registry of rungs: the claim of each, the rows that judge it, and its words.

The ladder, the page, its map, the levels across checkpoints, the judging of planted models and
the documentation read this one list.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from interp.circuits.sharing.circuit_transfer import NECESSITY_OVER_SIZES, OVER_SIZES
from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    GEOMETRY,
    LEVEL,
    NOT_SHARED,
    PARTLY,
    SHARED,
    UNKNOWN,
    AnswerBars,
)
from interp.probes.geometry.directions import DISCRIMINANT, MEAN_DIFFERENCE
from interp.verdicts.votes import of_both

PLACE = ("setting", "test_domain", "architecture", "seed", "epoch", "control")
"""Columns that tell models apart, where a table has several."""

WITHIN, ACROSS = "probe within the domain", "probe transfer, each domain centred"

LEAST_HANDS = 6
"""Drawings of a class that a probe's failure takes to mean something: from fewer, by other artists,
it also fails where the class is there (.20 of 30 simulated studies with two artists of loud styles,
.07 with four, none with six)."""


def by_index(bars: AnswerBars) -> Mapping[str, str]:
    """Where a rung gives each answer by the interval of its index; elsewhere it is unknown."""
    least, low, high, most = (f"{bar:g}".removeprefix("0") for bar in astuple(bars))
    return {
        SHARED: f"the index's 95 % interval lies above {most} and reaches {high}",
        PARTLY: f"it lies between {low} and {high}",
        NOT_SHARED: f"it lies below {least}, and p finds nothing beyond the null",
    }


AMOUNT_RULE = by_index(AMOUNT)
"""The answers of most rungs, in words."""

SQUARES = (
    f"R2 goes by the squares of these bars ({GEOMETRY.partly_above:g}, {GEOMETRY.not_below:g}, "
    f"{GEOMETRY.shared_above:g}, {GEOMETRY.partly_below:g}), since CKA grows with the square of "
    "what is shared."
)
"""What sets R2's rule apart, in words."""


@dataclass(frozen=True)
class RungMeasure:
    """A measure of what two domains share, and which rows of its table count.

    Attributes:
        key: Its name on the map: the rung's, for the measure that the rung is judged by.
        name: What it measures, in a few words.
        table: The table of a study that holds its rows.
        measure: What its rows have in the column `measure`.
        directed: Whether A to B and B to A are two numbers.
        select: Its rows of that table, with the columns `domain_a` and `domain_b`.
        planted: What it is called where it is judged on planted models, cut by cut.
    """

    key: str
    name: str
    table: str
    measure: str
    directed: bool
    select: Callable[[pd.DataFrame], pd.DataFrame]
    planted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder.

    Attributes:
        name: "R1" to "R6".
        claim: What holds of two domains where the verdict is "shared".
        label: The claim in one or two words, for heads of columns.
        null: What the index counts as 0.
        ceiling: What the index counts as 1.
        judged: The measure that the verdict rests on.
        beside: Further measures, shown beside it and not judged by.
        mechanism: Whether "shared" permits to speak of a shared mechanism.
        by_cuts: Whether one cut through the tower that denies is enough for "not shared".
        indexed: Whether the index says how much is shared (R1's says how well a class is read).
        bars: Where the interval of its index must lie for each answer.
        own_rule: Where a site gives each answer, if not by these.
    """

    name: str
    claim: str
    label: str
    null: str
    ceiling: str
    judged: RungMeasure
    beside: tuple[RungMeasure, ...] = ()
    mechanism: bool = False
    by_cuts: bool = False
    indexed: bool = True
    bars: AnswerBars = AMOUNT
    own_rule: Mapping[str, str] | None = None

    @property
    def rule(self) -> Mapping[str, str]:
        """Where a site gives each answer, in words."""
        return self.own_rule or by_index(self.bars)

    @property
    def measures(self) -> tuple[RungMeasure, ...]:
        """All its measures, the one that it is judged by first."""
        return (self.judged, *self.beside)


def _readable(transfer: pd.DataFrame) -> pd.DataFrame:
    """R1 in the domain of each pair where the class is harder to read.

    index = (accuracy - null) / (1 - null). It is not the amount that is asked about, so the rung
    has a rule of its own.
    """
    own = transfer[(transfer["train_domain"] == transfer["domain"]) & ~transfer["centred"]]
    rows = own.assign(
        measure=WITHIN,
        ceiling=1.0,
        reason="",
        **{
            f"index{end}": (own[name] - own["null"]) / (1 - own["null"])
            for end, name in (("", "value"), ("_low", "low"), ("_high", "high"))
        },
    )
    verdicts = pd.Series(UNKNOWN, index=rows.index)
    few = rows.get("n_drawings", np.inf) < LEAST_HANDS * rows["n_units"]
    low = (rows["index_high"] < 0.2) & ~(rows["p"] < LEVEL)
    verdicts[low & ~few] = NOT_SHARED
    rows.loc[low & few, "reason"] = (
        f"little is read, from fewer than {LEAST_HANDS} drawings a class: other styles may be why"
    )
    verdicts[rows["low"] > rows["null"]] = SHARED
    rows["verdict"] = verdicts
    order = {NOT_SHARED: 0, UNKNOWN: 1, SHARED: 2}
    keys = [name for name in ("site", *PLACE) if name in rows]
    group = rows.groupby(keys, dropna=False, sort=False).ngroup()
    ranked = rows.assign(group=group, rank=rows["verdict"].map(order)).sort_values(
        ["rank", "index"]
    )
    worst = ranked.drop_duplicates(["group", "domain"])
    place = pd.DataFrame({"at": np.arange(len(worst)), **worst[["group", "domain"]]})
    grid = place.pivot(index="group", columns="domain", values="at")
    pairs = list(combinations(sorted(grid.columns), 2))
    if not pairs:
        return rows.assign(domain_a="", domain_b="")
    # NaN, and so left out, where a place has one of the two alone
    chosen = np.stack([grid[[a, b]].min(axis=1, skipna=False) for a, b in pairs], axis=1)
    of, pair = np.nonzero(~np.isnan(chosen))
    found = worst.iloc[chosen[of, pair].astype(int)].drop(columns=["group", "rank"])
    first, second = np.array(pairs, dtype=object)[pair].T
    return found.assign(domain_a=first, domain_b=second)


def _across(transfer: pd.DataFrame) -> pd.DataFrame:
    rows = transfer[(transfer["train_domain"] != transfer["domain"]) & transfer["centred"]]
    return rows.assign(measure=ACROSS, domain_a=rows["train_domain"], domain_b=rows["domain"])


def with_words(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Missing words of some columns as "", whether or not the table was read from a file."""
    words = {name: rows[name].astype(object) for name in names if name in rows}
    return rows.assign(**{name: own.where(own.notna(), "") for name, own in words.items()})


def _same_site(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows between two domains, each at one site."""
    rows = rows[rows["domain_a"] != rows["domain_b"]]
    if "site_b" in rows:
        rows = rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])]
    return rows.copy()


def _named(measure: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows[rows["measure"] == measure].copy()


def _parts(overlap: pd.DataFrame) -> pd.DataFrame:
    """Units by site; a cut by edges has no overlap of parts, only of wiring."""
    return _named(PRIMARY_OVERLAP)(overlap[overlap["level"] != "edge"])


def _edges(overlap: pd.DataFrame) -> pd.DataFrame:
    return _named(PRIMARY_OVERLAP)(overlap[overlap["level"] == "edge"])


def _wiring(transfer: pd.DataFrame) -> pd.DataFrame:
    """R6 site by site: A's circuit must be sufficient in B and necessary there; the weaker counts.

    Tables of sufficiency alone (of older results) are judged by it.
    """
    keys = [name for name in ("domain_a", "domain_b", "level", "site", *PLACE) if name in transfer]
    kept, lost = (
        transfer[transfer["measure"] == measure].reset_index(drop=True)
        for measure in (OVER_SIZES, NECESSITY_OVER_SIZES)
    )
    if lost.empty:
        return kept
    kept, lost = (with_words(rows, ("verdict", "reason")) for rows in (kept, lost))
    lost = kept[keys].merge(lost.drop_duplicates(keys), on=keys, how="left")
    answers = [name for name in kept if name not in (*keys, "measure")]
    found = kept.copy()
    for place in np.flatnonzero(lost["verdict"].notna()):
        kept_row, lost_row = kept.loc[place], lost.loc[place]
        told = of_both(kept_row["verdict"], lost_row["verdict"])
        if _weaker(lost_row, kept_row, told):
            found.loc[place, answers] = lost_row[answers]
            reason = lost_row["reason"]
            found.loc[place, "reason"] = f"necessity: {reason}" if reason else ""
    return found


def _weaker(row: pd.Series, other: pd.Series, told: str) -> bool:
    """Whether the answer `told` of both rests on this row rather than on the other.

    It rests on the row that gives it; of two that do, on one that has no index, else on the lower.
    """
    if row["verdict"] != other["verdict"]:
        return bool(row["verdict"] == told)
    own, others = float(row["index"]), float(other["index"])
    if np.isnan(own) or np.isnan(others):
        return not np.isnan(others)
    return own < others


_MEASURES = (
    RungMeasure("R1", "probes within a domain", "transfer", WITHIN, False, _readable),
    RungMeasure(
        *("R2", "debiased CKA", "similarity", "debiased CKA", False, _same_site), planted=("cka",)
    ),
    RungMeasure(
        *("R3", "cosine of LDA directions", "directions", DISCRIMINANT, False),
        _named(DISCRIMINANT),
        planted=("directions",),
    ),
    RungMeasure(
        *("R3 difference", "cosine of class differences", "directions", MEAN_DIFFERENCE, False),
        _named(MEAN_DIFFERENCE),
    ),
    RungMeasure(
        *("R3 probes", "probes from A tried in B, each domain centred", "transfer", ACROSS, True),
        _across,
    ),
    RungMeasure("R4", "A's subspace in B", "das", "das", True, pd.DataFrame.copy, ("das",)),
    RungMeasure(
        *("R4 transplant", "activations of A in B: transplants", "transplant", "transplant", True),
        _same_site,
    ),
    RungMeasure("R5", "overlap", "overlap", PRIMARY_OVERLAP, False, _parts, ("neuron overlap",)),
    RungMeasure(
        *("R6", "A's circuits in B, kept and knocked out", "circuit_transfer", OVER_SIZES, True),
        _wiring,
        planted=("neuron transfer", "circuit transfer"),
    ),
    RungMeasure(
        *("R6 kept", "A's circuits alone in B", "circuit_transfer", OVER_SIZES, True),
        _named(OVER_SIZES),
    ),
    RungMeasure(
        *("R6 knocked out", "B without A's circuits", "circuit_transfer"),
        *(NECESSITY_OVER_SIZES, True, _named(NECESSITY_OVER_SIZES)),
    ),
    RungMeasure("R6 overlap", "overlap of edges", "overlap", PRIMARY_OVERLAP, False, _edges),
)


def _rung(name: str, claim: str, label: str, **more: Any) -> Rung:
    judged, *beside = (one for one in _MEASURES if one.key.split()[0] == name)
    return Rung(name, claim, label, judged=judged, beside=tuple(beside), **more)


RUNGS: Mapping[str, Rung] = {
    rung.name: rung
    for rung in (
        _rung(
            *("R1", "the class can be read in both domains", "class readable"),
            null="a probe of permuted labels",
            ceiling="every picture right",
            indexed=False,
            own_rule={
                SHARED: "the 95 % interval of a probe's accuracy lies above that of permuted "
                "labels",
                NOT_SHARED: "its index lies below .2 from six drawings a class or more, and p "
                "finds nothing beyond the null",
            },
        ),
        _rung(
            *("R2", "same geometry", "geometry"),
            null="whole classes permuted",
            ceiling="halves of one domain by other artists",
            bars=GEOMETRY,
        ),
        _rung(
            *("R3", "same directions", "directions"),
            null="whole classes permuted",
            ceiling="halves of one domain by other artists",
        ),
        _rung(
            *("R4", "same causal directions", "causal directions"),
            null="the strongest of another class, a random subspace, and subspaces fitted on "
            "pictures without a class",
            ceiling="the domain's own subspace",
            mechanism=True,
        ),
        _rung(
            *("R5", "same parts", "parts"),
            null="the stronger of another class in the other domain, and the class's readout: its "
            "parts on pictures of other classes",
            ceiling="the same class, found by other artists",
        ),
        _rung(
            *("R6", "same wiring", "wiring"),
            null="another class's circuit; where circuits are knocked out, parts that are none of "
            "the class's",
            ceiling="both domains' own circuits, their geometric mean",
            mechanism=True,
            by_cuts=True,
        ),
    )
}
"""Every rung by its name, from the weakest claim to the strongest."""

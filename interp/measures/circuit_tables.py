"""Circuits of classes in several domains, compared: parts (R5) and wiring (R6).

Each domain's circuits are found once for a model, and compared as a whole and site by site.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from interp.circuits import ClassCircuits, Edges, Units, circuit_stability, class_circuits
from interp.circuits.sharing.by_site import overlap_by_site, transfer_by_site
from interp.circuits.sharing.overlap_measures import MEASURES_OF_OVERLAP
from interp.core.errors import AlikeError, SampleError
from interp.core.progress import say
from interp.core.sites import find_sites, unit_sites
from interp.core.tables import stacked
from interp.core.tower import Wired
from interp.measures.subject import PICTURES_PER_CELL, Frames, Subject
from interp.verdicts.rungs import RUNGS

PER_HALF = PICTURES_PER_CELL // 2
"""Pictures of each class that circuits are found on in each half of a domain's artists, at most."""

BATCH = 64
"""Pictures in a forward of a circuit of units."""

REDRAWS = 199
"""Permutations behind p of an overlap."""

AXES = ("d_mlp", "head", "channel", "feature")
"""Axes of units, the first that a site has: neurons, heads, channels."""

JUDGED = {rung.judged.table: rung.judged.measure for rung in (RUNGS["R5"], RUNGS["R6"])}
"""By which rows of a table its rung is judged, and where a missing pair is said to be missing."""

OF_CIRCUITS = ("overlap", "circuit_transfer", "circuit_stability")
"""Tables of circuits (R5, R6): two of pairs of domains, and how steady those of each domain are."""


@dataclass(frozen=True, kw_only=True)
class CircuitOptions:
    """How circuits are found and compared (R5, R6); the defaults are those of a study.

    Args:
        units: Names or patterns of sites whose units circuits are made of; None takes those known.
        edges: Whether circuits are made of edges, too, where the tower's stream is a sum.
        by_site: Whether circuits of units are compared at each site, too.
        n: Pictures of each class, in each half of a domain's artists, that circuits are found on.
        method: How units are scored, a name in `UNIT_METHODS`.
        steps: Its steps of integration.
        metric: What circuits are found for, a name in `METRICS`.
        corruption: A name in `CORRUPTIONS`; None pairs with pictures of another class.
        overlaps: Measures of overlap, names in `MEASURES_OF_OVERLAP`.
        share: The share of parts that overlap compares.
        shares: Sizes of circuits that are run; None takes the usual ones.
        beside: Whether random parts and sizes that no verdict rests on are run, too.
    """

    units: Sequence[str] | None = None
    edges: bool = True
    by_site: bool = True
    n: int = PER_HALF
    method: str = "integrated gradients"
    steps: int = 5
    metric: str = "margin"
    corruption: str | None = None
    overlaps: Sequence[str] = tuple(MEASURES_OF_OVERLAP)
    share: float = 0.1
    shares: Sequence[float] | None = None
    beside: bool = True


USUAL = CircuitOptions()
"""What a study does."""


def cuts_of(subject: Subject, options: CircuitOptions = USUAL) -> list[Units | Edges]:
    """How a tower is taken apart: by units where it has known ones, by edges where it is wired.

    Args:
        subject: The model under study.
        options: Which units, how they are scored, and whether by edges too.

    Returns:
        The cuts.
    """
    tower, by_axis = subject.tower, unit_sites(subject.tower)
    if options.units is not None:
        by_axis = {}
        for site in find_sites(list(options.units), tower.sites):
            axis = next((each for each in AXES if each in tower.axes(site)), "channel")
            by_axis.setdefault(axis, []).append(site)
    how: dict[str, Any] = {"steps": options.steps, "method": options.method, "batch_size": BATCH}
    cuts: list[Units | Edges] = [
        Units.of(tower, sites, subject.one, axis=axis, **how) for axis, sites in by_axis.items()
    ]
    return [*cuts, Edges(tower)] if options.edges and isinstance(tower, Wired) else cuts


def circuits_of(
    subject: Subject, domain: str, cut: Units | Edges, options: CircuitOptions = USUAL
) -> ClassCircuits:
    """The class circuits of a domain, found once for a subject.

    Args:
        subject: The model under study.
        domain: The domain.
        cut: What the tower is taken apart into.
        options: What they are found for, and on how many pictures.

    Returns:
        The circuits.

    Raises:
        SampleError: With too few classes.
        AlikeError: If the model answers all pictures alike.
    """
    key = (domain, cut.level, cut.method, cut.steps, *(options.units or ()))
    key += (options.n, options.metric, options.corruption)
    if key not in subject.circuits:
        try:
            subject.circuits[key] = class_circuits(
                cut,
                subject.intervened,
                domain=domain,
                n=options.n,
                metric=options.metric,
                corruption=options.corruption,
                **subject.task,
            )
        except (AlikeError, SampleError) as error:
            subject.circuits[key] = error
    found = subject.circuits[key]
    if isinstance(found, ClassCircuits):
        return found
    raise found


def circuit_tables(
    subject: Subject,
    tables: Collection[str],
    pairs: Sequence[tuple[str, str]],
    options: CircuitOptions = USUAL,
) -> Frames:
    """What circuits have in common, and what those of one domain do in the other (R5, R6).

    Args:
        subject: The model under study.
        tables: Names, of which those in `OF_CIRCUITS` are made.
        pairs: The pairs of domains.
        options: How circuits are found and compared.

    Returns:
        The tables by name. Units are compared site by site and for all sites, edges only as a
        whole. A pair without circuits is a row with the reason.
    """
    names = [name for name in OF_CIRCUITS if name in tables]
    if not names:
        return {}
    made: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    cuts = cuts_of(subject, options)
    if not cuts:
        say(f"circuits left out: {type(subject.tower).__name__} has neither parts nor known units")
    steady: dict[tuple[str, str], ClassCircuits] = {}
    how: dict[str, Any] = {"by_site": options.by_site, "seed": subject.seed}
    for (a, b), cut in product(pairs, cuts):
        circuits: list[ClassCircuits] = []
        reasons: list[str] = []
        for domain in (a, b):
            try:
                circuits.append(circuits_of(subject, domain, cut, options))
            except (AlikeError, SampleError) as error:
                reasons.append(str(error))
        steady |= {(each.domain, cut.level): each for each in circuits}
        if reasons:
            row = {"domain_a": a, "domain_b": b, "level": cut.level, "reason": reasons[0]}
            for name in [name for name in names if name in JUDGED]:
                made[name].append(pd.DataFrame([{"measure": JUDGED[name], **row}]))
            continue
        first, second = circuits
        if "overlap" in made:
            made["overlap"] += overlap_by_site(
                first,
                second,
                **how,
                share=options.share,
                measures=options.overlaps,
                n_permutations=REDRAWS,
            )
        if "circuit_transfer" in made:
            made["circuit_transfer"] += transfer_by_site(
                first, second, **how, shares=options.shares, beside=options.beside
            )
    if "circuit_stability" in made:
        made["circuit_stability"] = [
            circuit_stability(each, seed=subject.seed).frame for each in steady.values()
        ]
    return {name: stacked(frames) for name, frames in made.items() if frames}

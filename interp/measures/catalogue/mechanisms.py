"""What two domains share in how one opened model works: causal directions, parts, wiring (R4-R6).

Works on any tower with a classifier: a CLIP of a study, or a planted model whose answer is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import pandas as pd

from interp.circuits import (
    ClassCircuits,
    Classifier,
    Edges,
    Units,
    circuit_stability,
    circuit_transfer,
    class_circuits,
    das_among,
    overlap,
)
from interp.circuits.patching.sweep import depths
from interp.circuits.sharing.circuit_runs import SMALLEST
from interp.circuits.sharing.circuit_transfer import NECESSITY_OVER_SIZES, OVER_SIZES
from interp.circuits.subspaces.subspace import read_at
from interp.core.errors import AlikeError, SampleError
from interp.core.illustrations import Plate
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import band_of, middle_of
from interp.core.tables import stacked
from interp.core.tower import Tower, Wired
from interp.declared.figures import (
    BLUE,
    GREEN,
    GREY,
    MODEL,
    NATURAL,
    ORANGE,
    OTHER,
    PAIR,
    PICTURES,
    RAW,
    SEEN_BY,
    SETTING,
    TEST_DOMAIN,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    Look,
    Row,
    Scale,
    SectionSpec,
    SeriesSpec,
    profile_spec,
)
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.declared.writing import number, plain
from interp.measures.responding_units import (
    UNIT_GALLERIES,
    chosen_units,
    gallery_of_others,
    plate_of_units,
    told_by_units,
)
from interp.measures.sites import causal_sites, unit_sites
from interp.measures.subject import PICTURES_PER_CELL, Frames, Subject
from interp.probes.galleries.unit_selectivity import FOR_CLASS
from interp.verdicts.rungs import RUNGS

JUDGED = {rung.judged.table: rung.judged.measure for rung in (RUNGS["R5"], RUNGS["R6"])}
"""By which rows of a table its rung is judged, and where a missing pair is said to be missing."""

SITE_SHARES = (0.1, 0.2)
"""Sizes of circuits that are run at one site, where smaller ones are few units."""

BATCH = 64
"""Pictures in a forward of a circuit of units."""

REDRAWS = 199
"""Permutations behind p of an overlap."""

OTHERS = 2
"""Circuits of other classes behind each null: every class is one of them for two others."""

PER_HALF = PICTURES_PER_CELL // 2
"""Pictures of each class that circuits are found on in each half of a domain's artists, at most."""

CROSSED = ("overlap", "circuit_transfer", "circuit_stability")
"""Tables of circuits: two of pairs of domains, and how steady those of each domain are."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A tower with what it is asked about: pictures, the classes as directions, how it reads."""

    tower: Tower
    images: ImageTable
    classifier: Classifier
    preprocess: Preprocess
    n: int = PER_HALF
    seed: int = 0
    found: dict[tuple[str, str], ClassCircuits | str] = field(default_factory=dict)

    def circuits(self, domain: str, cut: Units | Edges) -> ClassCircuits | str:
        """The class circuits of a domain, found once; or why there are none."""
        key = (domain, cut.level)
        if key not in self.found:
            try:
                self.found[key] = class_circuits(
                    cut,
                    self.images,
                    domain=domain,
                    classifier=self.classifier,
                    preprocess=self.preprocess,
                    n=self.n,
                    seed=self.seed,
                )
            except (AlikeError, SampleError) as error:
                self.found[key] = str(error)
        return self.found[key]

    def cuts(self) -> list[Units | Edges]:
        """By units where the tower has known ones, and by edges where its stream is a sum."""
        made: list[Units | Edges] = []
        x = self.images.tensors(self.preprocess, [0]).to(self.classifier.embeddings)
        for axis, sites in unit_sites(self.tower).items():
            made.append(Units.of(self.tower, sites, x, axis=axis, batch_size=BATCH))
        if isinstance(self.tower, Wired):
            made.append(Edges(self.tower))
        return made


def crossing(seen: Seen, pairs: Sequence[tuple[str, str]]) -> Frames:
    """Tables `das`, `overlap`, `circuit_transfer` and `circuit_stability` for pairs of domains.

    Overlap of units is told site by site and for all sites; circuits of units are run cut at each
    site, all other sites being whole, and cut everywhere; circuits of edges only as a whole. A pair
    with too few pictures, or with pictures that the model answers alike, is a row with the reason.
    """
    return causal_directions(seen, pairs) | _crossed(seen, pairs)


def causal_directions(seen: Seen, pairs: Sequence[tuple[str, str]]) -> Frames:
    """The table `das`, site by site; the last block's stream aside: it is read out as it is."""
    found = _interchanged(seen, pairs) if pairs else []
    return {"das": stacked(found)} if found else {}


def _crossed(seen: Seen, pairs: Sequence[tuple[str, str]]) -> Frames:
    """What circuits have in common, and what those of one domain do in the other."""
    made: dict[str, list[pd.DataFrame]] = {name: [] for name in CROSSED}
    cuts = seen.cuts()
    if not cuts:
        say(f"circuits left out: {type(seen.tower).__name__} has neither parts nor known units")
    for (a, b), cut in [(pair, cut) for pair in pairs for cut in cuts]:
        found = seen.circuits(a, cut), seen.circuits(b, cut)
        ends: dict[str, Any] = {"domain_a": a, "domain_b": b, "level": cut.level}
        first, second = found
        if isinstance(first, str) or isinstance(second, str):
            reason = first if isinstance(first, str) else str(second)
            for name, measure in JUDGED.items():
                made[name].append(pd.DataFrame([{"measure": measure, **ends, "reason": reason}]))
            continue
        made["overlap"] += _overlaps(first, second, seed=seen.seed)
        made["circuit_transfer"] += _transfers(first, second, seed=seen.seed)
    for found in seen.found.values():
        if not isinstance(found, str):
            made["circuit_stability"].append(circuit_stability(found, seed=seen.seed).frame)
    return {name: stacked(found) for name, found in made.items() if found}


def _interchanged(seen: Seen, pairs: Sequence[tuple[str, str]]) -> list[pd.DataFrame]:
    """Causal directions of each domain, tried in the others."""
    sites = causal_sites(seen.tower)
    if not sites[:-1]:
        return []
    x = seen.images.tensors(seen.preprocess, [0]).to(seen.classifier.embeddings)
    return _directions_at(seen, pairs, sites[:-1], read_at(seen.tower, sites[-1], x))


def _directions_at(
    seen: Seen, pairs: Sequence[tuple[str, str]], sites: Sequence[str], where: Mapping[str, int]
) -> list[pd.DataFrame]:
    """All domains at once, so that each is fitted once; else, with too few classes, by pairs."""
    try:
        return [_das(seen, pairs, sites, where)]
    except (AlikeError, SampleError) as error:
        if len(pairs) > 1:
            return [frame for pair in pairs for frame in _directions_at(seen, [pair], sites, where)]
        [(a, b)] = pairs
        row = {"measure": "das", "domain_a": a, "domain_b": b, "reason": str(error)}
        return [pd.DataFrame([row])]


def _das(
    seen: Seen, pairs: Sequence[tuple[str, str]], sites: Sequence[str], where: Mapping[str, int]
) -> pd.DataFrame:
    frame = das_among(
        seen.tower,
        seen.images,
        domains=list(dict.fromkeys(domain for pair in pairs for domain in pair)),
        classifier=seen.classifier,
        sites=sites,
        preprocess=seen.preprocess,
        where=where,
        seed=seen.seed,
    ).frame
    asked = {frozenset(pair) for pair in pairs}
    ends = map(frozenset, zip(frame["domain_a"], frame["domain_b"], strict=True))
    return frame[[pair in asked for pair in ends]]


def _overlaps(a: ClassCircuits, b: ClassCircuits, *, seed: int) -> list[pd.DataFrame]:
    words: dict[str, Any] = {"domains": (a.domain, b.domain), "level": a.cut.level}
    words |= {"seed": seed, "n_permutations": REDRAWS}
    frames = [overlap(a.scores, b.scores, **words).frame.assign(site="", band="")]
    for site, place in _places(a).items():
        one = overlap(a.only([site]).scores, b.only([site]).scores, **words).frame
        frames.append(one.assign(site=site, **place))
    return frames


def _transfers(a: ClassCircuits, b: ClassCircuits, *, seed: int) -> list[pd.DataFrame]:
    """What A's circuits do alone in B and what is lost without them, whole and at each site."""
    frames = []
    for removed in (False, True):
        words: dict[str, Any] = {"n_null": OTHERS, "seed": seed, "removed": removed}
        frames.append(circuit_transfer(a, b, **words).frame.assign(site="", band=""))
        for site, place in _places(a).items():
            ends = a.only([site]), b.only([site])
            one = circuit_transfer(*ends, shares=SITE_SHARES, beside=False, **words).frame
            frames.append(one.assign(site=site, **place))
    return frames


def _places(found: ClassCircuits) -> dict[str, dict[str, Any]]:
    """Where the sites of a cut by units stand; nothing for a cut by edges."""
    if not isinstance(found.cut, Units):
        return {}
    tower, sites = found.cut.tower, list(found.cut.widths)
    return {
        site: {"layer": tower.layer(site), "depth": depth, "band": band_of(depth)}
        for site, depth in zip(sites, depths(tower, sites), strict=True)
    }


ALIGNED = profile_spec(
    "das",
    "Shared causal directions by depth",
    "The subspace that carries the class in A is interchanged between pictures of B.",
    "The strongest of a third class, a random subspace, and subspaces fitted on pictures without a "
    "class; index 0 stands for it.",
    SEEN_BY,
)

DAS = SectionSpec(
    "das",
    "Same causal directions? (R4)",
    "In each domain the subspace is fitted whose interchange between two pictures makes the "
    "model say the class of the other (Geiger et al. 2024). Then A's subspace is interchanged "
    "between pictures of B: index = (gain for c − null) / (gain with B's own subspace − null). The "
    "null is the strongest of another class, a random subspace, and subspaces fitted on shuffled "
    "pixels, scrambled phases and noise: what any reader of the layer would give.",
    (ALIGNED,),
    words=(("verdicts", "R4"),),
    note="Where noise does as well, the reader explains it and nothing is concluded. Only this "
    "rung and R6 allow a claim about mechanisms.",
    optional=("das",),
)

PARTS = {"channel": "channels", "d_mlp": "neurons", "feature": "neurons", "edge": "edges"}


def _way(row: Row) -> str:
    by = PARTS.get(row["level"], row["level"])
    return f"{plain(row['domain_a'])} → {plain(row['domain_b'])}, by {by}"


ABROAD = FigureSpec(
    "circuits-abroad",
    "Circuits of one domain at work in another",
    "curve",
    ("circuit_transfer",),
    method="A circuit found in A runs on pictures of B, all else as in another class's picture.",
    null="Circuits of other classes, as large; random parts are drawn beside them.",
    caption="{n}; bars are 95 % intervals of the share. Everything outside a circuit runs as in a "
    "picture of another class. The index rests on sizes at which both domains' own circuits do "
    "half of the work. {kinds}",
    alt="Lines of faithfulness by size for four kinds of circuit, {options} ways to choose from",
    where={"measure": "circuit transfer", "site": "", "band": ""},
    needs=("share", "value"),
    choices=(TEST_DOMAIN, SETTING, ChoiceSpec("From A to B", (*PAIR, "level"), named=_way)),
    across="share",
    series=(
        SeriesSpec("the class in B itself, other artists", Scale("own"), GREEN),
        SeriesSpec("the class in A", RAW, BLUE, symbol="diamond"),
        SeriesSpec("another class in A", Scale("null"), ORANGE, dash="dash", symbol="x"),
        SeriesSpec("random parts", Scale("random"), GREY, dash="dot", symbol="square"),
    ),
    x=AxisSpec(
        "size, as a share of each layer's parts",
        percent=True,
        log=True,
        ticks={size: f"{100 * size:g} %" for size in (0.02, 0.05, 0.1, 0.2, 0.5)},
    ),
    y=AxisSpec("share of the class's work in B"),
)


def _sparse(row: Row) -> str:
    by = PARTS.get(row["level"], row["level"])
    return f"{plain(row['domain_b'])}: {row['measure'].removeprefix('parts that do ')}, by {by}"


SPARSE = FigureSpec(
    "circuit-sizes",
    "How sparse the circuits of a class are",
    "forest",
    ("circuit_transfer",),
    method="A domain's circuits of each class are found on some artists' drawings and run alone on "
    "others'; the size at which they do half, and four fifths, of the work is read off.",
    null="Random parts that do as much (column null of the table).",
    caption="{n}; bars are 95 % intervals that leave out one class at a time. Size: the share of "
    "each layer's parts, the same in all. {kinds} {withheld}",
    alt="Forest of circuit sizes for {labels} and each of {subjects} models",
    where={"measure": list(SMALLEST.values())},
    scale=RAW,
    subjects="settings",
    choices=(TEST_DOMAIN,),
    labels=_sparse,
    x=AxisSpec("share of the parts", percent=True, from_zero=True),
)

WIRED = replace(
    profile_spec(
        "circuit_transfer",
        "Shared wiring by depth",
        "Circuits of one domain, cut at one site, run alone on pictures of the other, or the model "
        "runs without them; all else as in a picture of another class.",
        "Circuits of other classes, as large; of what is knocked out, parts of other classes that "
        "are none of the class's. Index 0 stands for it.",
        ChoiceSpec(
            "Circuits",
            looks=[
                Look(f"{did}, {way}", {"measure": measure, "domain_a": end})
                for measure, did in ((OVER_SIZES, "alone"), (NECESSITY_OVER_SIZES, "knocked out"))
                for end, way in ((NATURAL, "natural to the other"), (OTHER, "the other to natural"))
            ],
        ),
    ),
    name="circuits-by-depth",
    where={"measure": [OVER_SIZES, NECESSITY_OVER_SIZES]},
    keep=("a site",),
)

FOUND_AGAIN = "{n_sure:.0f} of {n_edges:.0f} parts in 95 % of draws or more"

STEADY = FigureSpec(
    "steady",
    "How steady circuits are",
    "curve",
    ("circuit_stability",),
    method="Pictures of every class are drawn again, with replacement, and the circuit anew.",
    null="As many parts of each layer, drawn by chance.",
    caption="n = {draws} draws of {pictures} pairs of pictures. A circuit is the best tenth of "
    "each layer's parts over all classes; bars are intervals that hold 95 % of the draws. 1: the "
    "same parts every time.",
    alt="A line over layers of the share of parts found again, beside chance",
    keep=("a site",),
    needs=("value",),
    choices=(TEST_DOMAIN, MODEL, PICTURES),
    across="site",
    labels=lambda row: row["site"].split(".hook")[0],
    series=(
        SeriesSpec("found again", RAW, BLUE),
        SeriesSpec("parts by chance", Scale("null"), GREY, dash="dash", mode="lines"),
    ),
    hover=lambda row: (
        f"{row['site'].split('.hook')[0]}: {number(row['value'])}, by chance "
        f"{number(row['null'])}; {FOUND_AGAIN.format(**row)}"
    ),
    x=AxisSpec("layer"),
    y=AxisSpec("share of parts found again", limits=(0, 1.05)),
    height=380,
)

CROSSING = SectionSpec(
    "crossing",
    "Same parts and wiring? (R5, R6)",
    "Parts are scored for every class in each domain, in halves of artists. Overlap compares "
    "the parts of a class in A and B with those of another class, and with those that lead to the "
    "class in pictures of other classes (null: the larger), and with those of other artists "
    "(ceiling). Then A's circuit of a class runs alone on pictures of B, all else as in a picture "
    "of another class (sufficiency), and B runs without it (necessity). Wiring is shared where "
    "both hold.",
    (WIRED, ABROAD, SPARSE, STEADY),
    words=(("verdicts", "R6"),),
    note="Where circuits of other classes do the work as well, the parts are too coarse to tell "
    "classes apart, and nothing is concluded.",
    optional=("circuit_transfer", "overlap", "circuit_stability"),
)


def shared_mechanisms(subject: Subject) -> Frames:
    """All of `crossing` for the pair; of an untrained model causal directions alone.

    These say what such a model would seem to share. Of a trained one beside it: what some of the
    units that R5 and R6 rest on respond to.
    """
    seen = _seen(subject, subject.intervened)
    if subject.control:
        return _filed(subject, causal_directions(seen, [subject.pair]))
    return _filed(subject, crossing(seen, [subject.pair]) | responding(seen, subject.pair))


def responding(seen: Seen, pair: tuple[str, str]) -> Frames:
    """The table `unit_galleries`: four units of the site nearest to half depth."""
    cut = next((cut for cut in seen.cuts() if isinstance(cut, Units)), None)
    if cut is None:
        return {}
    first, second = (seen.circuits(domain, cut) for domain in pair)
    if isinstance(first, str) or isinstance(second, str):
        return _no_units(first if isinstance(first, str) else str(second))
    places = _places(first)
    site = middle_of({name: place["depth"] for name, place in places.items()})
    words: dict[str, Any] = {"preprocess": seen.preprocess, "seed": seen.seed}
    try:
        units = chosen_units(first, second, site, seen.seed)
        shown = gallery_of_others(seen.tower, seen.images, site, pair, **words)
    except SampleError as error:
        return _no_units(str(error))
    return {"unit_galleries": told_by_units(shown, units, seen.seed).assign(**places[site])}


def _no_units(reason: str) -> Frames:
    return {"unit_galleries": pd.DataFrame([{"measure": FOR_CLASS, "reason": reason}])}


def unit_plates(subject: Subject, made: Mapping[str, pd.DataFrame]) -> list[Plate]:
    """What the units of `unit_galleries` respond to, as one plate."""
    told = made["unit_galleries"]
    if "role" not in told:  # reasons alone
        return []
    shown = gallery_of_others(
        subject.tower,
        subject.intervened,
        str(told["site"].iloc[0]),
        subject.pair,
        preprocess=subject.preprocess,
        seed=subject.seed,
    )
    return [plate_of_units(shown, told, subject.name, subject.place)]


def mechanisms_of_pairs(subject: Subject) -> Frames:
    """All of `crossing` for every other pair of domains, on some of the classes."""
    own, n = subject.analysed, subject.analysis.n_pair_classes
    chosen = rng("classes of pairs", subject.seed).permutation(own.labels)[:n]
    others = [pair for pair in combinations(own.domains, 2) if set(pair) != set(subject.pair)]
    if not others:
        return {}
    made = crossing(_seen(subject, own.select(label=sorted(chosen))), others)
    if (stable := made.get("circuit_stability")) is not None:
        # the pair's own domains have their rows over all classes already
        made["circuit_stability"] = stable[~stable["domain"].isin(subject.pair)]
    return _filed(subject, made)


def _seen(subject: Subject, images: ImageTable) -> Seen:
    head = subject.classifier
    return Seen(subject.tower, images, head, subject.preprocess, seed=subject.seed)


def _filed(subject: Subject, made: Frames) -> Frames:
    return {name: subject.file(frame) for name, frame in made.items()}


MECHANISMS = ("overlap", "circuit_transfer", "das", "circuit_stability")
"""What is measured of every pair of domains."""

MEASURE = MeasureSpec(
    "crossing",
    shared_mechanisms,
    tables=(*MECHANISMS, "unit_galleries"),
    evidence=(*MECHANISMS, "unit_galleries"),
    of=EVERY_KIND,
    option="circuits",
    seconds=58.0,
    on_vits=4.0,  # they have more edges
    sections=(DAS, CROSSING, UNIT_GALLERIES),
    plates=unit_plates,
)
PAIRS = MeasureSpec(
    "pairs",
    mechanisms_of_pairs,
    tables=MECHANISMS,
    evidence=MECHANISMS,
    option="circuits",
    by_name=True,
    seconds=170.0,
)

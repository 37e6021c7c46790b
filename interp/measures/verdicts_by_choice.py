"""The multiverse: parts and wiring of two domains (R5, R6) judged under every reasonable choice.

A verdict that hangs on how parts are scored, or on how many of them a circuit has, says more of
that than of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from interp.circuits import ClassCircuits, Units, circuit_transfer, class_circuits, overlap
from interp.circuits.sharing.circuit_transfer import (
    KNOCKED_OUT_SHARES,
    NECESSITY_OVER_SIZES,
    OVER_SIZES,
    TRANSFER_SHARES,
)
from interp.circuits.sharing.overlap_measures import MEASURES_OF_OVERLAP
from interp.core.classifiers import Classifier
from interp.core.columns import COLUMNS, EVIDENCE
from interp.core.errors import (
    AlikeError,
    NumericsError,
    ShapeError,
    SiteError,
    SpecificationError,
    check_known,
    listed,
)
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import track
from interp.core.sites import find_sites
from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.measures.catalogue.mechanisms import BATCH, OTHERS, PER_HALF, REDRAWS, Seen
from interp.measures.choices import (
    ANOTHER_CLASS,
    ASKED,
    CHOICES,
    USUAL_SIZE,
    Way,
    options_of,
    picked,
    size_label,
    warnings_of,
    ways_among,
)
from interp.measures.sites import UNITS, unit_sites
from interp.verdicts.judging import judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement_with_usual

N_WAYS = 24
"""Ways to score parts that are taken unless more are asked for."""

USUAL_SHARE = 0.1
"""The share of parts by which the ladder compares them (R5)."""

AXES = ("d_mlp", "head", "channel", "feature")
"""Axes of units, the first that a site has: neurons, heads, channels."""

REFUSALS = (AlikeError, NumericsError, ShapeError, SiteError, SpecificationError)
"""What a way may end in that others do not: a corruption that leaves pictures alike, a method that
does not take this tower. Too few classes are too few under every choice."""

ASKED_OF = {"R5": ("size", "overlap"), "R6": ("size",)}
"""What is chosen once parts are scored, by rung."""


@door
def multiverse(
    tower: Tower,
    images: ImageTable,
    *,
    domains: Sequence[str],
    classifier: Classifier,
    preprocess: Preprocess,
    sites: Sequence[str] | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    n: int = PER_HALF,
    n_ways: int = N_WAYS,
    seed: int = 0,
) -> Table:
    """Judge whether two domains share parts (R5) and wiring (R6) under every reasonable choice.

    Args:
        tower: The tower.
        images: The pictures.
        domains: The two domains.
        classifier: The classes.
        preprocess: From a picture to the tower's input.
        sites: Names or patterns of the sites whose units circuits are made of. None takes those of
            the ladder: what a ResNet's blocks hand on, a ViT's neurons.
        choices: For some choices the options to try beside the usual one. They are `method` (of
            `circuits.UNIT_METHODS`), `metric` (of `circuits.METRICS`), `corruption` (of
            `circuits.CORRUPTIONS`), `steps` of integration, `size` (shares of parts) and `overlap`
            (of `circuits.MEASURES_OF_OVERLAP`). None tries all that are quick.
        n: Pictures of each class, in each half of a domain's artists, that circuits are found on;
            at most so many.
        n_ways: Ways to score parts (combinations of method, metric, corruption and steps) that are
            taken; at most so many. Sizes and measures of overlap cross with each of them.
        seed: Seed of all draws.

    Returns:
        A row for each rung and combination of options, with a column per choice, evidence and
        verdict. `default` marks what the ladder does. `agree` is, per rung, the share of the other
        combinations with the same verdict, of those that have an index; `n_possible` counts all
        combinations there are. The facts `R5` and `R6` count refusals and opposite verdicts.

    Raises:
        DataError: For an unknown domain.
        SpecificationError: For other than two different domains, an unknown choice or option, less
            than one way, or a tower without known units where no sites are named.
        SiteError: For unknown sites, or sites without units.
        SampleError: With fewer than four classes by two artists.

    Notes:
        Where there are more ways than `n_ways`, the usual one is taken, then those that differ in
        one choice, then others; which ones is drawn.

        Circuits are those of units, of the whole tower; rungs are judged as the ladder judges them.
        Numbers of R6 are means of both directions, and p is the larger. p of one size is adjusted
        over the sizes that are run with it.

        Metrics that fall where a model does well cannot say how much of its work a circuit does,
        and are no option. Under a corruption of the picture itself, `reason` carries a warning.

    >>> import torch
    >>> from PIL import Image, ImageColor
    >>> from interp.circuits import Chain
    >>> names = ("red", "lime", "blue", "white", "yellow", "cyan")
    >>> rows = [(label, domain, artist) for label in names for domain in ("real", "sketch")
    ...         for artist in "ab"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path=range(len(rows)), split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([ImageColor.getrgb(name) for name in names]) / 255, names)
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "pos", "channel"))
    >>> table = multiverse(tower, images, domains=("real", "sketch"), classifier=head,
    ...                    preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255,
    ...                    sites=["hook_embed"], n_ways=2, choices={"size": [0.5]})
    >>> table.facts["ways"], table.facts["ways_possible"]
    (2, 80)
    >>> table.frame["rung"].value_counts().to_dict()
    {'R5': 12, 'R6': 4}
    """
    options = options_of(choices)
    _check(images, classifier, domains, n_ways)
    known = images.label.isin(classifier.class_names) & images.domain.isin(list(domains))
    seen = Seen(tower, images[known.to_numpy()], classifier, preprocess, n=n, seed=seed)
    asked = Asked(seen, (domains[0], domains[1]), options, n_ways)
    return asked.told(units_of(seen, sites))


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of one opened tower: two domains, the options of each choice, how many ways."""

    seen: Seen
    domains: tuple[str, str]
    options: Mapping[str, Sequence[Any]]
    n_ways: int = N_WAYS

    @cached_property
    def every(self) -> list[Way]:
        """Every way to score parts."""
        return ways_among(self.options)

    def told(self, cuts: Sequence[Units]) -> Table:
        """The verdicts on both rungs, by way and by what is chosen after it."""
        ways = picked(self.every, self.n_ways, self.seen.seed)
        rows = [row for way in track(ways, "choices") for row in self._rows(way, cuts)]
        frame, counts = _counted(pd.DataFrame(rows), len(self.every) / len(ways))
        facts = {"choices": dict(self.options), "ways": len(ways)}
        facts |= {"ways_possible": len(self.every), **counts}
        return Table.with_evidence("multiverse", frame, facts)

    def later(self, rung: str) -> list[dict[str, Any]]:
        """What is chosen once parts are scored, without what comes to the same."""
        usual = USUAL_SHARE if rung == "R5" else None
        sizes = [usual if size == USUAL_SIZE else size for size in self.options["size"]]
        if rung == "R6":
            return [{"size": size} for size in dict.fromkeys(sizes)]
        return [
            {"size": size, "overlap": name}
            for name in self.options["overlap"]
            for size in (dict.fromkeys(sizes) if MEASURES_OF_OVERLAP[name][1] else [None])
        ]

    def _rows(self, way: Way, cuts: Sequence[Units]) -> list[dict[str, Any]]:
        """The rows of one way; where it is refused (pictures stay alike), rows that say why."""
        later = {rung: self.later(rung) for rung in ASKED_OF}
        try:
            found = [_Scored(self._circuits(way, cut), self.seen.seed) for cut in cuts]
            told = [
                (rung, one, _told(rung, pd.concat([each.rows(rung, **one) for each in found])))
                for rung, each_one in later.items()
                for one in each_one
            ]
        except REFUSALS as error:
            told = [(rung, one, _refused(str(error))) for rung in later for one in later[rung]]
        return [self._row(rung, way, one, answer) for rung, one, answer in told]

    def _circuits(self, way: Way, cut: Units) -> list[ClassCircuits]:
        """The class circuits of both domains, scored this way."""
        seen, steps = self.seen, way.steps or CHOICES["steps"].usual
        return [
            class_circuits(
                replace(cut, method=way.method, steps=steps),
                seen.images,
                domain=domain,
                classifier=seen.classifier,
                preprocess=seen.preprocess,
                n=seen.n,
                metric=way.metric,
                corruption=None if way.corruption == ANOTHER_CLASS else way.corruption,
                seed=seen.seed,
            )
            for domain in self.domains
        ]

    def _row(
        self, rung: str, way: Way, later: Mapping[str, Any], answer: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A row of the table: what was chosen, and what is said then."""
        usual = way == self.every[0] and later == self.later(rung)[0]
        size = "" if rung == "R5" and later["size"] is None else size_label(later["size"])
        a, b = self.domains
        named = {"rung": rung, "claim": RUNGS[rung].claim, "domain_a": a, "domain_b": b}
        chosen = {**way._asdict(), "size": size, "overlap": later.get("overlap", "")}
        chosen["steps"] = np.nan if way.steps is None else way.steps
        reasons = [str(answer["reason"]), *warnings_of(way)]
        said = {"reason": "; ".join(filter(None, reasons)), "seed": self.seen.seed}
        return {**named, **chosen, "default": usual, **answer, **said}


@dataclass(frozen=True, eq=False)
class _Scored:
    """Circuits of both domains scored one way, with the tables of them that were made so far."""

    circuits: Sequence[ClassCircuits]
    seed: int
    overlaps: dict[float, pd.DataFrame] = field(default_factory=dict)
    transfers: dict[tuple[bool, float | None], pd.DataFrame] = field(default_factory=dict)

    def rows(self, rung: str, size: float | None, **more: str) -> pd.DataFrame:
        """The rows that judge a rung, named as the rung knows them."""
        rows = self._parts(size, **more) if rung == "R5" else self._wiring(size)
        return rows.assign(site="", band="")

    def _parts(self, size: float | None, overlap: str) -> pd.DataFrame:
        share = USUAL_SHARE if size is None else size
        if share not in self.overlaps:
            self.overlaps[share] = self._compared(share)
        rows = self.overlaps[share]
        return rows[rows["measure"] == overlap].assign(measure=RUNGS["R5"].judged.measure)

    def _compared(self, share: float) -> pd.DataFrame:
        a, b = self.circuits
        return overlap(
            a.scores,
            b.scores,
            share=share,
            domains=(a.domain, b.domain),
            level=a.cut.level,
            n_permutations=REDRAWS,
            seed=self.seed,
        ).frame

    def _wiring(self, size: float | None) -> pd.DataFrame:
        """Sufficiency and necessity at a size, or over sizes, in the rows that stand for these."""
        found = []
        for removed, over_sizes in ((False, OVER_SIZES), (True, NECESSITY_OVER_SIZES)):
            rows = self._transferred(size, removed)
            asked = rows["measure"] == over_sizes if size is None else rows["share"] == size
            found.append(rows[asked].assign(measure=over_sizes))
        return pd.concat(found, ignore_index=True)

    def _transferred(self, size: float | None, removed: bool) -> pd.DataFrame:
        """The table that has a size: the usual one, which has several, or one of its own."""
        alone = size not in (None, *(KNOCKED_OUT_SHARES if removed else TRANSFER_SHARES))
        key = removed, size if alone else None
        if key not in self.transfers:
            shares = None if key[1] is None else [key[1]]
            words: dict[str, Any] = {"removed": removed, "n_null": OTHERS, "seed": self.seed}
            words["beside"] = False  # no verdict rests on what is measured beside
            self.transfers[key] = circuit_transfer(*self.circuits, shares=shares, **words).frame
        return self.transfers[key]


NUMBERS = ("value", "low", "high", "null", "ceiling")
"""What is averaged where several rows judge a rung: two directions, or two kinds of units."""


def _told(rung: str, rows: pd.DataFrame) -> dict[str, Any]:
    """The verdict on a rung by its rows, as the ladder gives it, with the evidence behind it."""
    told = ladder_rows(judged_rows({RUNGS[rung].judged.table: rows})).iloc[0]
    behind = RUNGS[rung].judged.select(rows)
    first = behind.iloc[0]
    words = ("null_kind", "ceiling_kind", "unit", "n_units", "n_runs")
    ends = behind.groupby(["domain_a", "domain_b"], sort=False)
    drawings = behind.get("n_drawings", pd.Series(np.nan, behind.index))
    return {
        **{name: told[name] for name in ("verdict", "index", "index_low", "index_high", "votes")},
        **{name: behind[name].astype(float).mean() for name in NUMBERS},
        **{name: first[name] for name in words},
        "p": behind["p"].max(),
        "n_pictures": ends["n_pictures"].max().sum(),
        "n_drawings": drawings.max(),
        "estimand": first["estimand"] + (", mean of both directions" if len(ends) > 1 else ""),
        "reason": told["reason"],
    }


def _refused(reason: str) -> dict[str, Any]:
    """The answer where nothing could be measured."""
    names = ("value", *EVIDENCE, "index_low", "index_high", "votes")
    nothing = {name: COLUMNS[name].empty for name in names}
    return {**nothing, "n_runs": 1, "verdict": CANNOT_TELL, "reason": reason}


def _counted(rows: pd.DataFrame, times: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows with the share that agrees, by rung, and the counts behind it."""
    parts, counts = [], {}
    for rung, own in rows.groupby("rung", sort=False):
        told, possible = agreement_with_usual(own), round(len(own) * times)
        parts.append(own.assign(agree=told.share, n_possible=possible))
        counts[str(rung)] = {**asdict(told), "agree": told.share, "possible": possible}
    return pd.concat(parts, ignore_index=True), counts


def units_of(seen: Seen, sites: Sequence[str] | None) -> list[Units]:
    """The units that circuits are made of, a cut for each kind: those named, or the ladder's."""
    tower = seen.tower
    known = [site for own in unit_sites(tower).values() for site in own]
    names = known if sites is None else find_sites(list(sites), tower.sites)
    if not names:
        raise SpecificationError(
            ASKED,
            f"a {type(tower).__name__} with none of {listed(UNITS)}",
            "the names of sites with channels, neurons or heads",
            "pass sites=[...]",
        )
    x = seen.images.tensors(seen.preprocess, [0]).to(seen.classifier.embeddings)
    by_axis: dict[str, list[str]] = {}
    for site in names:
        axis = next((each for each in AXES if each in tower.axes(site)), "channel")
        by_axis.setdefault(axis, []).append(site)
    return [Units.of(tower, own, x, axis=axis, batch_size=BATCH) for axis, own in by_axis.items()]


def _check(images: ImageTable, classifier: Classifier, domains: Sequence[str], n_ways: int) -> None:
    check_known(ASKED, "domain", list(domains), images.domains)
    if len(domains) != 2 or len(set(domains)) != 2:
        raise SpecificationError(
            ASKED, f"the domains {listed(list(domains))}", "two different domains", "name two"
        )
    if n_ways < 1:
        raise SpecificationError(
            ASKED, f"n_ways = {n_ways}", "1 or more", "ask for the usual way at least"
        )
    if not images.label.isin(classifier.class_names).any():
        check_known(ASKED, "class", list(images.labels)[:1], classifier.class_names)

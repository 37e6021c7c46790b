"""The ladder of one model: every measure of rungs R1 to R6, made in this one place.

`ladder` is for a tower at hand. A study, the truth of planted models, the leaderboard and the
multiverse take the same tables from `ladder_tables`, with options.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from interp.circuits import das_among
from interp.circuits.subspaces.subspace import read_at
from interp.core.arguments import Resampling, ResamplingKeywords, filled
from interp.core.classifiers import Classifier
from interp.core.errors import AlikeError, SampleError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import BANDS, causal_sites
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.tables import Table, stacked
from interp.core.tower import Tower
from interp.measures.circuit_tables import (
    OF_CIRCUITS,
    PER_HALF,
    USUAL,
    CircuitOptions,
    circuit_tables,
)
from interp.measures.subject import AnalysisSpec, Frames, Subject
from interp.probes import directions, factorisation, similarity, transfer
from interp.verdicts.judging import WHOLE, judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.probes import Features

OF_FEATURES: Mapping[str, Callable[..., Table]] = {
    "transfer": transfer,
    "similarity": similarity,
    "directions": directions,
    "factorisation": factorisation,
}
"""Tables of pooled activations (R1 to R3), and what measures them."""

CAUSAL = ("das", *OF_CIRCUITS)
"""Tables for which the model is run again (R4 to R6)."""

TABLES = (*OF_FEATURES, *CAUSAL)
"""Every table of the ladder."""


@dataclass(frozen=True)
class Ladder:
    """The verdicts of one model on all rungs, with the rows they rest on and everything measured.

    Args:
        table: A row for each pair of domains, band of layers and rung.
        rungs: A row for each measurement that a verdict rests on.
        tables: All measurements, whole; the class and domain factorisation is among them.
    """

    table: Table
    rungs: Table
    tables: Mapping[str, Table]

    def plot(self, *, title: str = "") -> "go.Figure":
        """Draw the verdicts, pairs of domains and bands of layers by rungs.

        Args:
            title: The figure's title.

        Returns:
            A `plotly.graph_objects.Figure`; `rungs.plot()` draws the profile by depth.
        """
        return self.table.plot(title=title)

    def verdict(self, rung: str, band: str = "middle") -> str:
        """The verdict on a rung in a band, for the first pair of domains.

        Args:
            rung: `R1` to `R6`.
            band: `early`, `middle`, `late` or `whole tower`.

        Returns:
            `shared`, `partly shared`, `not shared` or `unknown`; the last also without such a
            row.

        Raises:
            SpecificationError: For an unknown rung or band.
        """
        check_known("read the ladder", "rung", [rung], RUNGS, SpecificationError)
        check_known("read the ladder", "band", [band], [*BANDS, WHOLE], SpecificationError)
        rows = self.table.frame
        verdicts = rows[(rows["rung"] == rung) & (rows["band"] == band)]["verdict"]
        return str(verdicts.iloc[0]) if len(verdicts) else UNKNOWN

    @classmethod
    def of(cls, tables: Mapping[str, Table]) -> "Ladder":
        """Judge what `ladder_tables` measured.

        Args:
            tables: All measurements, by name.

        Returns:
            The ladder.
        """
        rows = judged_rows({name: table.frame for name, table in tables.items()})
        return cls(Table("ladder", ladder_rows(rows)), Table("rungs", rows), tables)


@door
def ladder(
    tower: Tower,
    images: ImageTable,
    *,
    domains: Sequence[str],
    classifier: Classifier,
    preprocess: Preprocess,
    sites: Sequence[str] | None = None,
    pool: str = "mean",
    n: int = PER_HALF,
    **resampling: Unpack[ResamplingKeywords],
) -> Ladder:
    """Measure what domains share in one model, on every rung of the ladder and for every pair of
    domains.

    Args:
        tower: The tower.
        images: The pictures.
        domains: Two or more domains.
        classifier: The classes.
        preprocess: From a picture to the tower's input.
        sites: Names or patterns that rungs R1 to R3 read; those that the tower has are used. None
            takes what its blocks hand on, and the embedding.
        pool: How an activation becomes a vector, as in `interp.probes.collect`.
        n: Pictures of each class, in each half of a domain's artists, that circuits are found on;
            at most so many.
        n_splits: Deals of artists into halves behind R2 and R3.
        n_permutations: Permutations behind p of R1 to R3.
        seed: Seed of all draws.

    Returns:
        The ladder: verdicts, the rows they rest on, and all tables.

    Raises:
        DataError: For an unknown domain.
        SpecificationError: For fewer than two different domains, or an unknown keyword.
        SampleError: If no pair has enough classes by two artists.

    Notes:
        Rungs R1 to R3 read pooled activations: probes within a domain (R1), debiased CKA of class
        means (R2), class directions, beside them probes from the other domain (R3). R4 fits causal
        directions in one domain and tries them in the other. R5 and R6 cut the tower by units, and
        by edges where its stream is a sum: overlap of a class's best parts (R5), and the work that
        the circuit of one domain does in the other (R6).

        Rungs are judged by the interval of an index with null 0 and ceiling 1: not shared if it
        lies below .2, unless p finds more than nothing; partly shared if between .1 and .9; shared
        if above .5. R2 goes by the squares of these bars, since CKA grows with the square of what
        is shared. R1 is shared already where the interval of the accuracy lies above the null. A
        band of layers has the answer of all its sites; where some are unknown, that of their mean,
        and "unknown" where one site contradicts another. What is missing for one pair alone is
        a row that says so.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image, ImageColor
    >>> from interp.circuits import Chain
    >>> names = ("red", "lime", "blue", "white", "yellow", "cyan")
    >>> rows = [(label, domain, artist) for label in names for domain in ("real", "sketch")
    ...         for artist in "abcdef"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path=range(len(rows)), split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> head = Classifier(torch.tensor([ImageColor.getrgb(name) for name in names]) / 255, names)
    >>> def preprocess(image):
    ...     return torch.tensor([image.getpixel((0, 0))]) / 255
    >>> found = ladder(Chain([torch.nn.Identity()] * 3), images, domains=["real", "sketch"],
    ...                classifier=head, preprocess=preprocess, n=2, n_splits=2, n_permutations=19)
    >>> found.verdict("R1")
    'shared'
    """
    given = filled(ladder, Resampling, resampling)
    check_known("climb the ladder", "domain", list(domains), images.domains)
    if len(set(domains)) < max(2, len(domains)):
        raise SpecificationError(
            "climb the ladder",
            f"the domains {listed(list(domains))}",
            "two or more different domains",
            "name others",
        )
    subject = Subject.of_tower(
        tower,
        images,
        domains=domains,
        classifier=classifier,
        preprocess=preprocess,
        sites=sites,
        pool=pool,
        seed=given.seed,
    )
    pairs, options = list(combinations(domains, 2)), CircuitOptions(n=n)
    frames = ladder_tables(subject, pairs=pairs, resampling=given, options=options)
    return Ladder.of({name: Table(name, frame) for name, frame in frames.items()})


def ladder_tables(
    subject: Subject,
    tables: Collection[str] = TABLES,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    features: "Features | None" = None,
    resampling: Resampling | None = None,
    options: CircuitOptions = USUAL,
) -> Frames:
    """Measure the rungs of a model's ladder.

    Args:
        subject: The model under study.
        tables: Names in `TABLES`: `transfer` (R1), `similarity` (R2), `directions` and
            `factorisation` (R3), `das` (R4), `overlap` (R5), `circuit_transfer` (R6) and
            `circuit_stability`.
        pairs: The pairs of domains; None takes all of the analysed pictures.
        features: What R1 to R3 read instead of the subject's own features.
        resampling: Splits and permutations of R1 to R3; None takes those of the subject's analysis.
        options: How circuits are found and compared.

    Returns:
        The tables that could be made, by name. Causal rungs of a pair with too few pictures, or
        with pictures that the model answers alike, are a row with the reason. Units are compared
        site by site and for all sites, edges only as a whole.

    Raises:
        SampleError: If R1 to R3 are asked of too few classes.
    """
    if pairs is None:
        pairs = list(combinations(subject.analysed.domains, 2))
    frames = {
        name: _of_features(name, subject, pairs, features, resampling or subject.analysis)
        for name in OF_FEATURES
        if name in tables
    }
    if "das" in tables and (rows := _causal_directions(subject, pairs)):
        frames["das"] = stacked(rows)
    return frames | circuit_tables(subject, tables, pairs, options)


def _of_features(
    name: str,
    subject: Subject,
    pairs: Sequence[tuple[str, str]],
    features: "Features | None",
    counts: Resampling | AnalysisSpec,
) -> pd.DataFrame:
    """A table of R1 to R3; among fewer domains than were read only where pairs name fewer."""
    read = subject.features if features is None else features
    words: dict[str, Any] = {"seed": subject.seed, "control": subject.control}
    words["n_permutations"] = counts.n_permutations
    if name != "transfer":
        words["n_splits"] = counts.n_splits
    domains = list(dict.fromkeys(domain for pair in pairs for domain in pair))
    if domains and set(domains) < set(read.frame["domain"]):
        ends = ("train_domains", "test_domains") if name == "transfer" else ("domains",)
        words |= dict.fromkeys(ends, domains)
    return OF_FEATURES[name](read, **words).frame


def _causal_directions(subject: Subject, pairs: Sequence[tuple[str, str]]) -> list[pd.DataFrame]:
    """R4 site by site; the last block's stream aside: it is read out as it is.

    All domains at once, so that each is fitted once; else, with too few classes, by pairs.
    """
    sites = causal_sites(subject.tower)
    if not sites[:-1] or not pairs:
        return []
    try:
        frame = das_among(
            subject.tower,
            subject.intervened,
            domains=list(dict.fromkeys(domain for pair in pairs for domain in pair)),
            sites=sites[:-1],
            where=read_at(subject.tower, sites[-1], subject.one),
            **subject.task,
        ).frame
    except (AlikeError, SampleError) as error:
        if len(pairs) > 1:
            return [frame for pair in pairs for frame in _causal_directions(subject, [pair])]
        [(a, b)] = pairs
        row = {"measure": "das", "domain_a": a, "domain_b": b, "reason": str(error)}
        return [pd.DataFrame([row])]
    wanted = set(map(frozenset, pairs))
    ends = map(frozenset, zip(frame["domain_a"], frame["domain_b"], strict=True))
    return [frame[[pair in wanted for pair in ends]]]

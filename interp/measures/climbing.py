"""The ladder of one model: every measure of rungs R1 to R6, for every pair of domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Unpack

from interp.core.arguments import Resampling, ResamplingKeywords, filled
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import BANDS
from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.measures.catalogue.mechanisms import PER_HALF, Seen, crossing
from interp.measures.sites import present, stream_sites
from interp.probes import collect, directions, factorisation, similarity, transfer
from interp.verdicts.judging import WHOLE, judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS


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

    def plot(self, *, title: str = "") -> Any:
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
            `shared`, `partly shared`, `not shared` or `cannot tell`; the last also without such a
            row.

        Raises:
            SpecificationError: For an unknown rung or band.
        """
        check_known("read the ladder", "rung", [rung], RUNGS, SpecificationError)
        check_known("read the ladder", "band", [band], [*BANDS, WHOLE], SpecificationError)
        rows = self.table.frame
        found = rows[(rows["rung"] == rung) & (rows["band"] == band)]["verdict"]
        return str(found.iloc[0]) if len(found) else CANNOT_TELL


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
        band of layers has the answer of all its sites; where some cannot tell, that of their mean,
        and "cannot tell" where one site contradicts another. What is missing for one pair alone is
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
    of_classes = images[images.label.isin(classifier.class_names).to_numpy()]
    chosen = of_classes[of_classes.domain.isin(list(domains)).to_numpy()]
    names = stream_sites(tower) if sites is None else present(tower, sites)
    read = collect(tower, chosen, names, preprocess=preprocess, pool=pool)
    counted: dict[str, Any] = {"n_permutations": given.n_permutations, "seed": given.seed}
    split = {"n_splits": given.n_splits, **counted}
    tables = {
        "transfer": transfer(read, **counted),
        "similarity": similarity(read, **split),
        "directions": directions(read, **split),
        "factorisation": factorisation(read, **split),
    }
    seen = Seen(tower, chosen, classifier, preprocess, n=n, seed=given.seed)
    for name, frame in crossing(seen, list(combinations(domains, 2))).items():
        tables[name] = Table(name, frame)
    judged = judged_rows({name: table.frame for name, table in tables.items()})
    return Ladder(Table("ladder", ladder_rows(judged)), Table("rungs", judged), tables)

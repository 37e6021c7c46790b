"""The ladder of one model: every measure of rungs R1 to R6, for every pair of domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Unpack

from interp.circuits.tasks.metrics import Classifier
from interp.core.arguments import Resampling, ResamplingKeywords, filled
from interp.core.errors import SpecificationError, check_known, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import BANDS
from interp.core.statistics.resampling import CANNOT_TELL
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.measures.mechanisms import Seen, crossing
from interp.measures.subjects import STREAM, present
from interp.probes import collect, directions, factorisation, similarity, transfer
from interp.verdicts.judging import WHOLE, judged_rows, ladder_rows
from interp.verdicts.rungs import RUNGS


@dataclass(frozen=True)
class Ladder:
    """The answer, the rows that it was judged by, and all that was measured.

    `table` has a row for each pair of domains, band of layers and rung; `rungs` one for each
    measurement that a verdict rests on; `tables` are whole, the class and domain factorisation
    among them.
    """

    table: Table
    rungs: Table
    tables: Mapping[str, Table]

    def verdict(self, rung: str, band: str = "middle") -> str:
        """The verdict on a rung in a band, of the first pair of domains.

        Raises `SpecificationError` for an unknown rung or band.
        """
        check_known("read the ladder", "rung", [rung], RUNGS, SpecificationError)
        check_known("read the ladder", "band", [band], [*BANDS, WHOLE], SpecificationError)
        rows = self.table.frame
        found = rows[(rows["rung"] == rung) & (rows["band"] == band)]["verdict"]
        return str(found.iloc[0]) if len(found) else CANNOT_TELL


def ladder(
    tower: Tower,
    images: ImageTable,
    *,
    domains: Sequence[str],
    classifier: Classifier,
    preprocess: Preprocess,
    sites: Sequence[str] = STREAM,
    pool: str = "mean",
    n: int = 6,
    **resampling: Unpack[ResamplingKeywords],
) -> Ladder:
    """Climb the ladder R1-R6 for every pair of `domains` in one model.

    Args:
        tower: The tower to run.
        images: Pictures of all domains.
        domains: Two or more different domains.
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
        sites: Patterns of the sites that rungs R1 to R3 read; those that the tower has.
        pool: How the positions of a site become one row, a name in `interp.probes.POOLS`.
        n: Up to twice as many pictures of each class and domain are run for R5 and R6.
        **resampling: The keywords that follow.
        n_splits: Deals of the artists into halves.
        n_permutations: Draws of a null by permutation.
        seed: Seed of all draws.

    Returns:
        The verdicts, the rows that they rest on, and all that was measured.

    Raises:
        DataError: For an unknown domain.
        SpecificationError: For fewer than two different domains, or an unknown keyword.
        SampleError: Where no pair has enough classes by two artists.

    Notes:
        Rungs R1 to R3 read pooled activations: probes within a domain, debiased CKA of class means,
        probes from the other domain. R5 and R6 cut the tower by units, and by edges where its
        stream is a sum: overlap of a class's best parts, and the work that the circuit of one
        domain does in the other. Every rung is judged by an index with null 0 and ceiling 1, by
        equivalence: shared if its interval lies above .5, not shared if below .2. A band of layers
        is shared if all its sites are, and "cannot tell" where they differ. What is missing for one
        pair alone is a row that says so.

    >>> import pandas as pd
    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> names = ("red", "lime", "blue", "cyan", "magenta", "yellow")
    >>> rows = [(c, d, a) for c in names for d in ("real", "sketch") for a in "wxyz"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> read = lambda image: torch.tensor([image.getpixel((0, 0))]) / 255
    >>> ways = torch.cat([read(Image.new("RGB", (1, 1), name)) for name in names])
    >>> _ = torch.manual_seed(0)
    >>> tower = Chain([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
    >>> climbed = ladder(
    ...     tower, images, domains=["real", "sketch"], preprocess=read,
    ...     classifier=Classifier(ways, names), n=2, n_permutations=19)
    >>> climbed.verdict("R2")
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
    chosen = images.select(domain=list(domains), label=list(classifier.names))
    names = present(tower, sites)
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

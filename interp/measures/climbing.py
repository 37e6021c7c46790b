"""The ladder of one model: every measure of rungs R1 to R6, for every pair of domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from interp.circuits.tasks.metrics import Classifier
from interp.core.errors import SpecificationError, check_known, listed
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import BANDS
from interp.core.statistics.resampling import CANNOT_TELL
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.measures.catalogue.mechanisms import Seen, crossing
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
    n_splits: int = 5,
    n_permutations: int = 999,
    seed: int = 0,
) -> Ladder:
    """Climb the ladder R1-R6 for every pair of `domains` in one model.

    Rungs R1 to R3 read pooled activations at `sites` (patterns; those that the tower has): probes
    within a domain, debiased CKA of class means, probes from the other domain. R5 and R6 cut the
    tower by units, and by edges where its stream is a sum: overlap of a class's best parts, and the
    work that the circuit of one domain does in the other, on up to 2 `n` pictures of each class and
    domain. Every rung is judged by an index with null 0 and ceiling 1, by equivalence: shared if
    its interval lies above .5, not shared if below .2. A band of layers is shared if all its sites
    are, and "cannot tell" where they differ.

    Raises `DataError` for an unknown domain, `SpecificationError` for fewer than two different
    ones, `SampleError` where no pair has enough classes by two artists. What is missing for one
    pair alone is a row that says so.
    """
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
    counted: dict[str, Any] = {"n_permutations": n_permutations, "seed": seed}
    tables = {
        "transfer": transfer(read, **counted),
        "similarity": similarity(read, n_splits=n_splits, **counted),
        "directions": directions(read, n_splits=n_splits, **counted),
        "factorisation": factorisation(read, n_splits=n_splits, **counted),
    }
    seen = Seen(tower, chosen, classifier, preprocess, n=n, seed=seed)
    for name, frame in crossing(seen, list(combinations(domains, 2))).items():
        tables[name] = Table(name, frame)
    judged = judged_rows({name: table.frame for name, table in tables.items()})
    return Ladder(Table("ladder", ladder_rows(judged)), Table("rungs", judged), tables)

"""Transplants: activations of a class in one domain, put into pictures of another domain.

Rung R4 of the ladder: the only one, with transfer faithfulness, that speaks of shared mechanisms.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.circuits.patching.localisation import (
    ROUNDING,
    by_class,
    class_mean,
    index_of,
    leave_out,
    max_t_p,
    rounded,
)
from interp.circuits.patching.patched_cells import Values, make_plan, measure_cells
from interp.circuits.patching.sweeping import MEMORY, depths
from interp.circuits.tasks.metrics import Classifier, Metric, Target
from interp.circuits.tasks.pairs import Transplants, draw_transplants, embed, read
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say
from interp.core.sites import find_sites
from interp.core.statistics.resampling import CANNOT_TELL, Index, jackknife
from interp.core.tables import Table, evidence
from interp.core.tower import Tower

DONORS = ("donor", "null", "ceiling")
CUT = "a complete cut: patched whole, the site carries all of the donor's run; patch a part of it"


def transplant(
    tower: Tower,
    images: ImageTable,
    *,
    domain_a: str,
    domain_b: str,
    classifier: Classifier,
    sites: str | Sequence[str],
    preprocess: Preprocess,
    where: Mapping[str, int] | None = None,
    metric: str = "margin",
    n: int = 96,
    seed: int = 0,
    batch_size: int = 32,
    memory: int = MEMORY,
) -> Table:
    """Put activations of class c from domain A into pictures of another class in domain B.

    value = mean over classes c of [metric for c of the patched run - the same, unpatched]. The
    receiver shows class c'' in B. Three donors give their activations at a site in turn: a picture
    of c in A (value), one of c' in A, neither c nor c'' (null), another picture of c in B
    (ceiling); none of them by the receiver's artist. index = (value - null) / (ceiling - null): 1
    where A's activations say c as well as B's own do, 0 where no more than those of any class of A.

    `sites` are names or patterns, patched whole or at the place `where`, such as `{"pos": 0}` for
    the class token. A site through which the whole run passes (a residual stream, all positions)
    would merely replay the donor: it is reported without an index, and `reason` says so. Pairs are
    unaligned. The metric ("margin" or "mean_margin") is in units of the model's own contrast
    between classes. `n` receivers are spread evenly over classes. Intervals leave out a class
    wherever it plays a part (jackknife); `p` is two-sided for value = null, by sign flips of whole
    classes, adjusted over the sites (max-T).

    Device and dtype are those of the classifier's embeddings. Raises `DataError` for an unknown
    domain, `SampleError` when fewer than three classes stand in both domains, `SiteError`,
    `SpecificationError` for another metric or a memory budget below one cell.
    """
    if metric not in ("margin", "mean_margin"):
        raise SpecificationError(
            "score a transplant",
            f"the metric {metric!r}",
            "margin or mean_margin, which score a class against all others",
            "choose one of the two",
        )
    known = set(classifier.names)
    drawn = draw_transplants(
        images,
        domain_a=domain_a,
        domain_b=domain_b,
        classes=[label for label in images.labels if label in known],
        n=n,
        seed=seed,
    )
    names = find_sites(sites, tower.sites)
    values = _run(tower, drawn, classifier, names, preprocess, where, metric, batch_size, memory)
    frame = _summarise(values, drawn, seed)
    frame.insert(0, "measure", "activation transplant")
    frame = frame.assign(
        site=names,
        layer=[tower.layer(site) for site in names],
        depth=depths(tower, names),
        **{axis: place for axis, place in (where or {}).items()},
        domain_a=domain_a,
        domain_b=domain_b,
        metric=metric,
        pairing="other label, other domain; unaligned",
    )
    facts = {
        "n_examples": len(drawn),
        "left_out": drawn.left_out,
        "artists": drawn.artists,
        "where": dict(where or {}),
        "p": "sign flips of whole classes, max-T over the sites",
    }
    return Table.with_evidence("transplant", frame, facts)


def _run(
    tower: Tower,
    drawn: Transplants,
    classifier: Classifier,
    sites: Sequence[str],
    preprocess: Preprocess,
    where: Mapping[str, int] | None,
    metric: str,
    batch_size: int,
    memory: int,
) -> Values:
    """The metric for class c, for three donors and every site, `[donor site example]`."""
    like, rows = classifier.embeddings, drawn.rows
    base = read(drawn.images, rows["target"].to_numpy(), preprocess, like)
    donors = [read(drawn.images, rows[role].to_numpy(), preprocess, like) for role in DONORS]
    plan = make_plan(
        tower,
        sites,
        base=base,
        n_donors=len(DONORS),
        batch_size=batch_size,
        memory=memory,
        axes=("layer",),
        where=where,
    )
    scale = classifier.standardised(embed(tower, base, batch_size=plan.rows))
    labels = classifier.numbers(rows["label"].tolist())
    if plan.forwards * base[0].numel() > 2e9:
        say(f"transplant: {len(plan.cells)} sites, {plan.forwards:,.0f} forwards of one picture")
    return measure_cells(
        tower,
        plan.cells,
        base=base,
        donors=donors,
        metric=Metric(metric, Target(scale, labels)),
        rows=plan.rows,
        what="transplant",
    )


def _summarise(values: Values, drawn: Transplants, seed: int) -> pd.DataFrame:
    """One row per site: what the three donors did, the index, its evidence."""
    labels = drawn.rows["label"].to_numpy()
    roles = drawn.rows[["label", "target_label", "null_label"]].to_numpy()
    moved = np.moveaxis(values.patched - values.unpatched[0], 0, -1)  # site example donor
    largest = float(np.abs(values.unpatched).max())
    replay = values.patched - values.unpatched[1:, None]
    cut = np.abs(replay).max(axis=(0, 2)) <= 1e-4 * largest
    about = _about(drawn)
    table = []
    for triple, is_cut in zip(moved, cut, strict=True):
        means, left = class_mean(triple, labels), leave_out(triple, labels, roles)
        spread = jackknife(means[0], left[:, 0])
        index = index_of(means, left, rounding=ROUNDING * largest)
        if is_cut:
            index = Index(np.nan, np.nan, np.nan, CANNOT_TELL, CUT)
        table.append(
            evidence(spread, null=means[1], ceiling=means[2], index=index, seed=seed, **about)
        )
    shift = rounded((moved[..., 0] - moved[..., 1]).T, ROUNDING * largest)
    return pd.DataFrame(table).assign(p=max_t_p(by_class(shift, labels), seed=seed))


def _about(drawn: Transplants) -> dict[str, Any]:
    """What is the same at every site: how null and ceiling were made, and the counts."""
    apart = drawn.artists
    return {
        "null_kind": f"donor of another class in A, by another {apart} than the receiver's",
        "ceiling_kind": f"donor of the class in B, by another {apart} than the receiver's",
        "unit": "class",
        "n_units": drawn.rows["label"].nunique(),
        **_counts(drawn),
        "estimand": "mean over classes c of how far activations of c from domain A move "
        "pictures of another class in domain B towards c",
    }


def _counts(drawn: Transplants) -> dict[str, Any]:
    used = np.unique(drawn.rows[["target", *DONORS]].to_numpy())
    frame = drawn.images.frame
    drawings = frame["drawing"].iloc[used].nunique() if "drawing" in frame else len(used)
    return {"n_pictures": len(used), "n_drawings": drawings}

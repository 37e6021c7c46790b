"""Stitching: a linear map from one model's activation to another's, which then goes on from it.

The map is fitted to activations, never to answers, so that it cannot learn the task by itself.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits.patching.linear_maps import RIDGES
from interp.circuits.patching.stitched_runs import (
    BACK,
    KINDS,
    SHUFFLED,
    STITCHED,
    TWIN,
    UNTRAINED,
    Answers,
    Controls,
    Seeing,
    StitchedRuns,
)
from interp.circuits.patching.sweeping import depths
from interp.circuits.tasks.metrics import Classifier
from interp.core.artists import artist_column, artist_halves, halved_classes
from interp.core.errors import SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import track
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE, Table

WORDS = {
    UNTRAINED: "activations of the model before training",
    SHUFFLED: "activations of other pictures",
    "A": "accuracy of A itself",
    "B": "accuracy of B itself",
    TWIN: "accuracy of B that goes on from another seed of its mixture",
}
"""Nulls and ceilings in words."""

LEAST_CLASSES = 3


@door
def stitch(
    a: Seeing,
    b: Seeing,
    images: ImageTable,
    *,
    sites: Sequence[str | tuple[str, str]],
    heads: tuple[Classifier, Classifier],
    controls: Controls | None = None,
    domains: Sequence[str] | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Table:
    """Let one model go on from another's activations, mapped linearly, and ask it for classes.

        value   = accuracy of B that goes on from W A(x), mean over classes
        ceiling = accuracy of B that goes on from other seeds of its own (without any, B itself)
        null    = the same with activations of an untrained A (without one, of shuffled pictures)
        index   = (value - null) / (ceiling - null)

    W is fitted on the pictures of one half of the artists, A's activation to B's, and tried on the
    other's; both halves are tried. It is a ridge regression, whose penalty is chosen by four folds
    of the fitted pictures' activations.

    Args:
        a: The model whose activations are mapped: anything with `visual` and `preprocess`.
        b: The model that goes on from them.
        images: The pictures, with labels and domains.
        sites: Sites that both have, or pairs of A's and B's.
        heads: The classes as A and as B are asked for them, of the same names.
        controls: Other models whose activations are mapped to B's as A's are: A before training,
            other seeds of B.
        domains: Domains to ask in; None takes all. W is fitted on all of them together.
        batch_size: Pictures in a forward.
        seed: Seed of the halves, of exchanged classes and of shuffled pictures.

    Returns:
        A table with a row for each pair of sites, domain and `measure`: "stitched", judged as
        shared, partly, not or cannot tell; "there and back", A's own accuracy from B's side, mapped
        back; and the controls "another seed", "untrained", "classes exchanged" and "pictures
        shuffled". Rows of single classes (`label`) have no interval.

    Raises:
        SampleError: For fewer than three classes with pictures by two artists in a domain.
        SiteError: For a site that a tower does not have, or one without features.
        SpecificationError: For heads of different classes.
        DataError: For an unknown domain.

    References:
        Bansal, Nakkiran and Barak 2021, arXiv 2106.07682; matching of activations rather than
        training on the task: Csiszarik et al. 2021, arXiv 2110.14633.

    Notes:
        - Maps of different sizes are resized to B's, bilinearly; other positions must be as many.
        - "classes exchanged" fits A's pictures of class c to B's of class pi(c), pi a derangement,
          and scores pi(c): how far any linear map of this size can be made to say any class. Where
          that is as good, agreement of classes is not what a stitch shows, and late layers, where
          classes are separable, come close to it.
        - "there and back" is what B's side keeps of what A needs. A stitch can serve B while it
          loses that.

    >>> import torch
    >>> from PIL import Image
    >>> from types import SimpleNamespace
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame([(f"{c}{n}", c, "real", "test", "", f"artist {n}")
    ...                       for c in ("red", "lime", "blue") for n in range(4)],
    ...                      columns=["path", "label", "domain", "split", "caption", "artist"])
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> model = SimpleNamespace(
    ...     visual=Chain([torch.nn.Identity()]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> head = Classifier(torch.eye(3), ("red", "lime", "blue"))
    >>> table = stitch(model, model, images, sites=["blocks.0.hook_resid_post"], heads=(head, head))
    >>> table.frame.query("measure == 'stitched' and label == ''")["value"].tolist()
    [1.0]
    """
    asked = "stitch two models"
    if tuple(heads[0].names) != tuple(heads[1].names):
        raise SpecificationError(
            asked,
            "heads of different classes",
            "the same classes, in the same order",
            "make both of the same names",
        )
    names = list(images.domains if domains is None else domains)
    check_known(asked, "domain", names, images.domains)
    pairs = [(site, site) if isinstance(site, str) else (site[0], site[1]) for site in sites]
    frame = images.frame
    deal = artist_halves(frame, names, seed=seed)
    classes = [c for c in halved_classes(frame, [deal], names) if c in heads[0].names]
    if len(classes) < LEAST_CLASSES:
        raise SampleError(
            asked,
            f"{len(classes)} classes with pictures by two artists in every domain",
            f"at least {LEAST_CLASSES}",
            "give more pictures, or name fewer domains",
        )
    used = (deal >= 0) & frame["label"].isin(classes).to_numpy()
    used &= frame["domain"].isin(names).to_numpy()
    shown = images[used]
    beside = (controls or Controls()).models
    runs = StitchedRuns(a, b, beside, heads, shown, deal[used], classes, batch_size, seed)
    rows: list[dict[str, object]] = []
    for pair in track(pairs, "stitches"):
        rows += _rows(runs, *pair, names)
    facts = {"ridges": list(RIDGES), "halves by": artist_column(frame), "seed": seed}
    found = pd.DataFrame(rows)
    lacking = [name for name in EVIDENCE if name not in found]  # where nothing could be stitched
    return Table.with_evidence(
        "stitching", found.reindex(columns=[*found.columns, *lacking]), facts
    )


def _rows(
    runs: StitchedRuns, site_a: str, site_b: str, domains: Sequence[str]
) -> list[dict[str, object]]:
    """The table's rows of a pair of sites."""
    towers = runs.a.visual, runs.b.visual
    where: dict[str, object] = {"site": site_a, "site_b": site_b, "model_b": "B"}
    where["layer"] = towers[0].layer(site_a)
    where["depth"] = depths(towers[0], [site_a])[0]
    where["depth_b"] = depths(towers[1], [site_b])[0]
    try:
        answers = runs.answers(site_a, site_b)
    except ShapeError as error:
        reason = f"{error.given}; right would be {error.right}"
        return [{"measure": STITCHED, **where, "domain": "", "label": "", "reason": reason}]
    found = []
    for domain in domains:
        found += _of_domain(runs, answers, domain, where)
    return found


def _of_domain(
    runs: StitchedRuns, answers: Answers, domain: str, where: dict[str, object]
) -> list[dict[str, object]]:
    labels = runs.images.label.to_numpy()
    here = (runs.images.domain == domain).to_numpy()
    by_class = {
        kind: np.array([right[here & (labels == name)].mean() for name in runs.classes])
        for kind, right in answers.items()
    }
    nulls = {STITCHED: UNTRAINED if UNTRAINED in runs.controls else SHUFFLED, BACK: SHUFFLED}
    ceilings = {kind: "B" for kind in KINDS} | {BACK: "A"}
    ceilings |= {STITCHED: TWIN} if TWIN in runs.controls else {}
    counted = counts_of(runs.images.frame[here], len(runs.classes))
    rows = []
    for kind in (kind for kind in KINDS if kind in by_class):
        about = Evidence(
            estimand="accuracy that goes on from another model's activations",
            null_kind=WORDS[nulls[kind]] if kind in nulls else "none: it is a control",
            ceiling_kind=WORDS[ceilings[kind]],
            seed=runs.seed,
            **counted,
        )
        own, top = by_class[kind], by_class[ceilings[kind]]
        place = {"measure": kind, **where, "domain": domain, "label": ""}
        if kind in nulls:
            terms = np.column_stack(
                [leaving_out(each) for each in (own, by_class[nulls[kind]], top)]
            )
            row = about.judged(terms)
            row |= {} if kind == STITCHED else {"verdict": ""}
        else:
            spread = jackknife(float(own.mean()), leaving_out(own)[1:])
            row = about.row(spread, null=np.nan, ceiling=float(top.mean()), index=NO_VERDICT)
        rows.append(place | row)
        if kind == STITCHED:
            rows += [
                place
                | {"label": name, "value": float(value), "ceiling": float(most)}
                | {"n_pictures": int((here & (labels == name)).sum())}
                | {"reason": "a class alone has no interval"}
                for name, value, most in zip(runs.classes, own, top, strict=True)
            ]
    return rows

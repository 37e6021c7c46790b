"""Transplants: activations of a class in one domain, put into pictures of another domain.

Rung R4 of the ladder: the only one, with transfer faithfulness, that speaks of shared mechanisms.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
from torch import Tensor

from interp.circuits.patching.localise import (
    ROUNDING,
    by_class,
    class_mean,
    index_of,
    leave_out,
    max_t_p,
    rounded,
)
from interp.circuits.patching.patched_cells import Values, make_plan, measure_cells
from interp.circuits.patching.sweep import depths
from interp.circuits.tasks.metrics import Metric, Target
from interp.circuits.tasks.pairs import Crossing, CrossingKeywords, embed, read
from interp.core.arguments import filled
from interp.core.artists import artist_column, artists_of
from interp.core.errors import SampleError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.index_of_sharing import UNKNOWN, Index
from interp.core.statistics.resampling import jackknife
from interp.core.tables import Table
from interp.core.tower import Tower

DONORS = ("donor", "null", "ceiling")
CUT = "a complete cut: patched whole, the site carries all of the donor's run; patch a part of it"


@dataclass(frozen=True)
class Transplants:
    """Receivers of transplants, each with three donors, as rows of one image table.

    Args:
        images: The table.
        rows: A row per receiver, with the columns `label, target_label, null_label` (classes) and
            `target, donor, null, ceiling` (rows of `images`).
        artists: The column that says who drew a picture.
        left_out: How many receivers were asked for and not found.

    Notes:
        `target` shows class `target_label` in domain B. `donor` shows `label` in A, `null` shows
        `null_label` in A, `ceiling` shows `label` in B; all three are scored for class `label`.
        None of them is by the artist of the target.
    """

    images: ImageTable
    rows: pd.DataFrame
    artists: str
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)


@door
def draw_transplants(
    images: ImageTable,
    *,
    domain_a: str,
    domain_b: str,
    classes: Sequence[str],
    n: int,
    seed: int = 0,
) -> Transplants:
    """Draw receivers for transplants, each with its donors by other artists.

    Args:
        images: The pictures.
        domain_a: The domain that donors come from.
        domain_b: The domain of the receivers.
        classes: The classes to draw from; only those with pictures in both domains are used.
        n: How many receivers to draw, spread evenly over the classes that are scored.
        seed: Seed of the draw.

    Returns:
        The receivers with their donors; `left_out` counts those for which no donors were found.

    Raises:
        DataError: For an unknown domain.
        SampleError: With fewer than three classes in both domains, or no donors by another artist.

    >>> frame = pd.DataFrame([(f"{domain} {label} {artist}", label, domain, artist)
    ...                       for domain in ("real", "sketch") for label in ("cat", "dog", "owl")
    ...                       for artist in "ab"], columns=["path", "label", "domain", "artist"])
    >>> images = ImageTable(frame.assign(split="test", caption=""))
    >>> drawn = draw_transplants(images, domain_a="real", domain_b="sketch",
    ...                          classes=["cat", "dog", "owl"], n=3)
    >>> drawn.rows["label"].tolist(), drawn.artists, drawn.left_out
    (['cat', 'dog', 'owl'], 'artist', 0)
    """
    asked = f"transplant activations from {domain_a} to {domain_b}"
    check_known(asked, "domain", [domain_a, domain_b], images.domains)
    frame = images.frame.reset_index(drop=True)
    column, artists = artist_column(frame), artists_of(frame)
    pools = {
        key: rows.to_numpy() for key, rows in frame.groupby(["domain", "label"]).groups.items()
    }
    usable = [c for c in classes if (domain_a, c) in pools and (domain_b, c) in pools]
    if len(usable) < 3:
        given = f"{len(usable)} classes that stand in both"
        right = "three or more: one to score, one that receives, one for the null"
        do = "give more classes"
        raise SampleError(f"transplant activations from {domain_a} to {domain_b}", given, right, do)
    generator, drawn = rng("transplants", seed), []
    for turn in range(n):
        row = None
        for _ in range(20):  # chance may pick an artist who drew all that would serve
            row = row or _draw_one(
                usable[turn % len(usable)], usable, pools, artists, generator, (domain_a, domain_b)
            )
        drawn.extend([row] if row else [])
    if not drawn:
        given = f"no target whose donors are by another {column}"
        right = f"two or more of {column} in each class and domain"
        do = "give more pictures"
        raise SampleError(f"transplant activations from {domain_a} to {domain_b}", given, right, do)
    return Transplants(images, pd.DataFrame(drawn), column, n - len(drawn))


def _draw_one(
    label: str,
    classes: Sequence[str],
    pools: Mapping[Hashable, np.ndarray],
    artists: np.ndarray,
    generator: np.random.Generator,
    domains: tuple[str, str],
) -> dict[str, object] | None:
    others = [name for name in classes if name != label]
    target_label, null_label = (others[i] for i in generator.permutation(len(others))[:2])
    a, b = domains
    target = int(generator.choice(pools[b, target_label]))
    row: dict[str, object] = {
        "label": label,
        "target_label": target_label,
        "null_label": null_label,
        "target": target,
    }
    wanted = {"donor": (a, label), "null": (a, null_label), "ceiling": (b, label)}
    for role, pool in wanted.items():
        fits = pools[pool][artists[pools[pool]] != artists[target]]
        if not len(fits):
            return None
        row[role] = int(generator.choice(fits))
    return row


@door
def transplant(
    tower: Tower,
    images: ImageTable,
    *,
    domain_a: str,
    domain_b: str,
    sites: str | Sequence[str],
    where: Mapping[str, int] | None = None,
    n: int = 96,
    **task: Unpack[CrossingKeywords],
) -> Table:
    """Put activations of class c from domain A into pictures of another class in domain B.

    value = mean over classes c of [metric for c of the patched run - the same, unpatched]
    index = (value - null) / (ceiling - null)

    Args:
        tower: The tower to run.
        images: Pictures of both domains.
        domain_a: Where activations come from.
        domain_b: Where the receivers are from.
        sites: Names of sites or patterns.
        where: The place that is patched, such as `{"pos": 0}` for the class token; None patches
            sites whole.
        n: Receivers, spread evenly over classes.
        **task: The keywords that follow.
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
        metric: "margin", "mean_margin" or a function of outputs and a `Target`, in units of the
            model's own contrast between classes.
        batch_size: Examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of all draws.

    Returns:
        One row per site, with its evidence.

    Raises:
        DataError: For an unknown domain.
        SampleError: For fewer than three classes that stand in both domains.
        SiteError: For an unknown site.
        SpecificationError: For another metric, too little memory, or a keyword that is unknown or
            missing.

    Notes:
        The receiver shows class c'' in B. Three donors give their activations at a site in turn: a
        picture of c in A (value), one of c' in A, neither c nor c'' (null), another picture of c in
        B (ceiling). None of them is by the receiver's artist. The index is 1 where A's activations
        say c as well as B's own do, 0 where no more than those of any class of A.

        A site through which the whole run passes (a residual stream, all positions) would merely
        replay the donor: it is reported without an index, and `reason` says so. Pairs are
        unaligned. Intervals leave out a class wherever it plays a part (jackknife). `p` is
        two-sided for value = null, by sign flips of whole classes, adjusted over the sites (max-T).

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier
    >>> rows = [(c, d, a) for c in ("red", "lime", "blue") for d in "AB" for a in "xy"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> table = transplant(
    ...     Chain([torch.nn.Identity()]), images, domain_a="A", domain_b="B", n=6,
    ...     sites="blocks.0.hook_mlp_out",
    ...     classifier=Classifier(torch.eye(3), ["red", "lime", "blue"]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> bool((table.frame["value"] == table.frame["ceiling"]).all())
    True
    """
    crossing = filled(transplant, Crossing, task)
    known = set(crossing.classifier.names)
    drawn = draw_transplants(
        images,
        domain_a=domain_a,
        domain_b=domain_b,
        classes=[label for label in images.labels if label in known],
        n=n,
        seed=crossing.seed,
    )
    names = find_sites(sites, tower.sites)
    values = _run(tower, drawn, names, where, crossing)
    frame = _summarise(values, drawn, crossing.seed)
    frame.insert(0, "measure", "activation transplant")
    frame = frame.assign(
        site=names,
        layer=[tower.layer(site) for site in names],
        depth=depths(tower, names),
        **{axis: place for axis, place in (where or {}).items()},
        domain_a=domain_a,
        domain_b=domain_b,
        metric=crossing.metric,
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
    sites: Sequence[str],
    where: Mapping[str, int] | None,
    crossing: Crossing,
) -> Values:
    """The metric for class c, for three donors and every site, `[donor site example]`."""
    classifier, rows = crossing.classifier, drawn.rows

    def shown(role: str) -> Tensor:
        numbers = rows[role].to_numpy()
        return read(drawn.images, numbers, crossing.preprocess, classifier.embeddings)

    base, donors = shown("target"), [shown(role) for role in DONORS]
    n, axes = len(donors), ("layer",)
    plan = make_plan(tower, sites, base=base, n_donors=n, room=crossing, axes=axes, where=where)
    scale = classifier.standardised(embed(tower, base, batch_size=plan.rows))
    labels = classifier.numbers(rows["label"].tolist())
    if plan.forwards * base[0].numel() > 2e9:
        say(f"transplant: {len(plan.cells)} sites, {plan.forwards:,.0f} forwards of one picture")
    return measure_cells(
        tower,
        plan.cells,
        base=base,
        donors=donors,
        metric=Metric(crossing.metric, Target(scale, labels)),
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
    shift = rounded((moved[..., 0] - moved[..., 1]).T, ROUNDING * largest)
    tested = max_t_p(by_class(shift, labels), seed=seed)
    about = _about(drawn, seed)
    table = []
    for triple, is_cut, p in zip(moved, cut, tested, strict=True):
        means, left = class_mean(triple, labels), leave_out(triple, labels, roles)
        spread = jackknife(means[0], left[:, 0])
        index = index_of(means, left, rounding=ROUNDING * largest)
        if is_cut:
            index = Index(np.nan, np.nan, np.nan, UNKNOWN, CUT)
        table.append(about.row(spread, null=means[1], ceiling=means[2], index=index, p=p))
    return pd.DataFrame(table)


def _about(drawn: Transplants, seed: int) -> Evidence:
    """What is the same at every site: how null and ceiling were made, and the counts."""
    apart, frame = drawn.artists, drawn.images.frame
    used = np.unique(drawn.rows[["target", *DONORS]].to_numpy())
    return Evidence(
        estimand="mean over classes c of how far activations of c from domain A move "
        "pictures of another class in domain B towards c",
        null_kind=f"donor of another class in A, by another {apart} than the receiver's",
        ceiling_kind=f"donor of the class in B, by another {apart} than the receiver's",
        seed=seed,
        n_units=drawn.rows["label"].nunique(),
        n_pictures=len(used),
        n_drawings=frame["drawing"].iloc[used].nunique() if "drawing" in frame else len(used),
    )

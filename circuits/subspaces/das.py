"""Distributed alignment search between domains: subspaces fitted in one domain, tried in another.

Rung R4 of the ladder, beside `transplant`: there activations cross domains, here directions do.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Unpack

import numpy as np
import pandas as pd

from interp.circuits.patching.localise import ROUNDING, by_class, max_t_p, rounded
from interp.circuits.patching.patched_cells import make_plan
from interp.circuits.patching.sweep import depths
from interp.circuits.subspaces.interchanges import (
    DasKeywords,
    DasTask,
    Domain,
    HeldOut,
    Material,
    hold_out,
    read_class_free,
    read_domain,
)
from interp.circuits.subspaces.subspace import check_place
from interp.circuits.subspaces.trials import (
    FLOOR,
    FOREIGN,
    KINDS,
    Receivers,
    Trial,
    by_reader,
    judge_interchange,
    largest_subspaces,
    try_site,
)
from interp.core.arguments import filled
from interp.core.errors import SpecificationError, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import say, track
from interp.core.sites import find_sites
from interp.core.statistics.evidence_rows import Evidence
from interp.core.tables import Table
from interp.core.tower import Tower


@door
def das(
    tower: Tower,
    images: ImageTable,
    *,
    domain_a: str,
    domain_b: str,
    sites: str | Sequence[str],
    where: Mapping[str, int] | None = None,
    n: int = 96,
    **how: Unpack[DasKeywords],
) -> Table:
    """Fit the subspace that carries the class in domain A, interchange it in domain B; vice versa.

    value   = mean over classes c of [metric for c of a picture of another class, A's subspace
              taken from a picture of c] - [the same, unpatched]
    ceiling = the same with B's own subspace
    null    = the strongest of: the part of a third class; a random subspace as large; subspaces as
              large fitted on pictures that show no class
    index   = (value - null) / (ceiling - null)

    Args:
        tower: The tower to run.
        images: Pictures of both domains.
        domain_a: A domain.
        domain_b: Another one.
        sites: Names of sites or patterns, which need a feature axis: d_model, d_mlp, d_head,
            d_embed or channel.
        where: The place that is interchanged, such as `{"pos": 0}` for the class token. A basis
            acts alike on all places that it leaves open; None leaves all open.
        n: Receivers of each domain, and about as many pictures to fit on.
        **how: The keywords that follow.
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
        metric: "margin", "mean_margin" or a function of outputs and a `Target`, in units of the
            model's own contrast between classes.
        k: Directions; None takes the fewest that carry the class in every domain, at most one less
            than there are classes and half of the features.
        class_free: Kinds of pictures without a class that the null is fitted on: "shuffled pixels",
            "scrambled phases", "smooth noise", "white noise" (all, by default); none for inputs
            that are no pictures.
        steps: Steps of Adam, each on `batch_size` pairs.
        learning_rate: Adam's at the start; it falls as a cosine.
        span: Share of the effects that the directions searched hold; 1 leaves all free.
        batch_size: Pairs in a step, and examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of all draws.

    Returns:
        One row per site and direction, with its evidence; `domain_a` is where the basis was fitted.
        Beside it stand `in_domain` (A's basis in A, other artists' pictures), what each null does
        (`other_class`, `random`, `class_free` and the `class_free_kind` that does most), `varied`,
        `whole` (all of the site interchanged), `share_of_whole` = ceiling / whole and `k`, the
        directions that are left.

    Raises:
        DataError: For an unknown domain.
        SampleError: For fewer than three classes or too few artists.
        SiteError: For an unknown site, or one without features.
        SpecificationError: For another metric, numbers out of range, or a keyword that is unknown
            or missing.
        NumericsError: For NaN.

    Notes:
        In each domain a basis R `[d k]` is fitted (`fit_subspace`) so that the model says of a
        picture with the activation h_base + R R^T (h_source - h_base) what it says of the source, a
        picture of another class. Then pictures of B alone, by other artists, are interchanged. The
        index is 1 where A's directions carry the class in B as well as B's own do (Geiger et al.
        2024, "Finding alignments between interpretable causal variables and distributed neural
        representations").

        The layers above read certain directions whatever they are shown. A subspace of these can be
        found on pictures without a class: shuffled pixels, scrambled phases, smooth and white
        noise. What it does in B is no sharing between A and B, so the strongest of them is a null.
        Where the strongest null leaves less than three standard errors, or less than a fifth of
        B's own work, there is no index: the reader explains it, or the site is too narrow. "Not
        shared" is held against a third class alone: where A's directions do as much as any
        reader's, and that is something, nothing is told.

        "Shared" does not stand where the directions that vary in A when what its basis reads does
        (`varied`) do not carry the class in B, with an index (against the same nulls) clearly above
        .2: there one reader may take two codes. (If they do, and a loud copy that nobody reads is
        in both domains, no intervention at this site alone can tell.)

        `k` is common to all. A fitted subspace has the directions that do most first, and in each
        domain the fewest are looked for that do 95 % of what the largest subspace does.

        A basis is looked for among directions that are read and by which its own domain's variation
        has effects (`span`). Free directions also learn ways that the domain's pictures never take:
        two domains with separate ways to one output then read as a fifth shared, a read code with
        an unread copy beside it as half.

        There is no index where `in_domain` or `whole`, each less its own null, is below 3 standard
        errors: then there is no subspace to compare, or one that does what the site itself does
        not. Artists are dealt once, over all classes, into those fitted on and those tested on.
        Intervals leave out a class wherever it plays a part, with the bases as they are
        (jackknife). `p` is two-sided for value = null, by sign flips of whole classes, adjusted
        over the sites of a direction (max-T). Activations of the fitted pictures are held for one
        site at a time.

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier
    >>> rows = [(c, d, a) for c in ("red", "lime", "blue") for d in "AB" for a in "wxyz"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> table = das(
    ...     Chain([torch.nn.Identity()]), images, domain_a="A", domain_b="B", n=6, steps=5,
    ...     sites="hook_embed", classifier=Classifier(torch.eye(3), ["red", "lime", "blue"]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> table.frame[["domain_a", "domain_b"]].to_numpy().tolist()
    [['A', 'B'], ['B', 'A']]
    """
    ends = (domain_a, domain_b)
    return das_among(tower, images, domains=ends, sites=sites, where=where, n=n, **how)


@door
def das_among(
    tower: Tower,
    images: ImageTable,
    *,
    domains: Sequence[str],
    sites: str | Sequence[str],
    where: Mapping[str, int] | None = None,
    n: int = 96,
    **how: Unpack[DasKeywords],
) -> Table:
    """Run `das` for every pair of several domains, with one subspace fitted in each.

    Args:
        tower: The tower to run.
        images: Pictures of all domains.
        domains: Two or more different domains.
        sites: Names of sites or patterns, which need a feature axis: d_model, d_mlp, d_head,
            d_embed or channel.
        where: The place that is interchanged, such as `{"pos": 0}` for the class token. A basis
            acts alike on all places that it leaves open; None leaves all open.
        n: Receivers of each domain, and about as many pictures to fit on.
        **how: The keywords that follow.
        classifier: The classes as directions; its embeddings say device and dtype.
        preprocess: From a picture to what the tower takes.
        metric: "margin", "mean_margin" or a function of outputs and a `Target`, in units of the
            model's own contrast between classes.
        k: Directions; None takes the fewest that carry the class in every domain, at most one less
            than there are classes and half of the features.
        class_free: Kinds of pictures without a class that the null is fitted on: "shuffled pixels",
            "scrambled phases", "smooth noise", "white noise" (all, by default); none for inputs
            that are no pictures.
        steps: Steps of Adam, each on `batch_size` pairs.
        learning_rate: Adam's at the start; it falls as a cosine.
        span: Share of the effects that the directions searched hold; 1 leaves all free.
        batch_size: Pairs in a step, and examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of all draws.

    Returns:
        The rows and columns of `das` for every pair of domains, in both directions.

    Raises:
        SpecificationError: For fewer than two domains; `das` has the others.

    Notes:
        All domains are asked about the same classes, those that each of them has by enough artists,
        so numbers compare across pairs. The cost of fitting does not grow with the number of pairs.

    >>> import torch
    >>> from PIL import Image
    >>> from interp.circuits import Chain, Classifier
    >>> rows = [(c, d, a) for c in ("red", "lime", "blue") for d in "ABC" for a in "wxyz"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> table = das_among(
    ...     Chain([torch.nn.Identity()]), images, domains=["A", "B", "C"], n=6, steps=5,
    ...     sites="hook_embed", classifier=Classifier(torch.eye(3), ["red", "lime", "blue"]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> len(table.frame)
    6
    """
    task = filled(das_among, DasTask, how)
    if len(domains) < 2:
        given = f"one domain ({listed(list(domains))})"
        raise SpecificationError("compare subspaces", given, "two or more", "name another")
    names, place = find_sites(sites, tower.sites), dict(where or {})
    check_place(tower, names, place)
    began, known = time.perf_counter(), set(task.classifier.names)
    classes = [label for label in images.labels if label in known]
    held = hold_out(images, list(domains), classes=classes, n=n, seed=task.seed)
    opened = {name: read_domain(tower, held, name, task) for name in domains}
    floors = read_class_free(tower, held, task)
    pictures = opened[domains[0]].material.pictures
    largest = largest_subspaces(tower, names, pictures, task, n_classes=len(held.classes))
    sites_tried = _try_all(tower, largest, opened, floors, task, where=place)
    ends = [both for a, b in combinations(domains, 2) for both in ((a, b), (b, a))]
    frame = pd.concat(
        [_summarise(sites_tried, a, b, opened, held, task.seed) for a, b in ends], ignore_index=True
    )
    frame.insert(0, "measure", "distributed alignment search")
    frame = frame.assign(
        site=names * len(ends),
        layer=[tower.layer(site) for site in names] * len(ends),
        depth=depths(tower, names) * len(ends),
        **place,
        metric=task.metric,
        pairing="other label, same domain; unaligned",
        steps=task.steps,
    )
    facts = {
        "n_fitted": {name: len(domain.material.pictures) for name, domain in opened.items()},
        "n_tested": {name: len(domain.base) for name, domain in opened.items()},
        "left_out": {name: drawn.left_out for name, drawn in held.tested.items()},
        "classes": list(held.classes),
        "artists": held.artists,
        "where": place,
        "learning_rate": task.learning_rate,
        "batch_size": task.batch_size,
        "span": task.span,
        "seconds": time.perf_counter() - began,
        "p": "sign flips of whole classes, max-T over the sites of a direction",
    }
    return Table.with_evidence("das", frame, facts)


def _try_all(
    tower: Tower,
    largest: Mapping[str, int],
    domains: Mapping[str, Domain],
    floors: Mapping[str, Material],
    task: DasTask,
    *,
    where: Mapping[str, int],
) -> list[dict[str, Trial]]:
    """Every site's subspaces and what they do; `largest` has their sizes."""
    one = next(iter(domains.values())).material.pictures
    plan = make_plan(
        tower, list(largest), base=one, n_donors=1, room=task, axes=("layer",), where=where
    )
    # a backward costs about two forwards; what the site spares is left out
    fits = 3 * task.steps * task.batch_size * (len(domains) + len(floors))
    kinds = len(KINDS) + len(FOREIGN) * (len(domains) - 1) + len(FLOOR) * len(floors)
    forwards = len(largest) * (fits + kinds * sum(len(each.base) for each in domains.values()))
    if forwards * one[0].numel() > 2e9:
        say(f"das: {len(largest)} sites, at most {forwards:,} forwards of one picture")
    return [
        try_site(tower, site, domains, floors, task, k=k, where=where, rows=plan.rows)
        for site, k in track(largest.items(), "das", total=len(largest))
    ]


def _summarise(
    sites_tried: Sequence[Mapping[str, Trial]],
    a: str,
    b: str,
    domains: Mapping[str, Domain],
    held: HeldOut,
    seed: int,
) -> pd.DataFrame:
    """One row per site for the bases of `a`, tried in `b`."""
    own, home = Receivers.of(held, b), Receivers.of(held, a)
    largest = max(
        float(np.abs(effects + domains[b].before).max())
        for tried in sites_tried
        for effects in (tried[b].effects, tried[b].foreign[a])
    )
    rounding, about = ROUNDING * largest, about_interchange(held, a, b, seed)
    judged = [
        judge_interchange(tried[b], tried[a], a, own, home, rounding) for tried in sites_tried
    ]
    moved = rounded(np.stack([each.beyond for each in judged], axis=1), rounding)
    tested = max_t_p(by_class(moved, own.labels), seed=seed)
    table = []
    for tried, each, p in zip(sites_tried, judged, tested, strict=True):
        here, there = tried[b], tried[a]
        ceiling, whole = own.mean(here["own"]), own.mean(here["whole"])
        reader, does = own.strongest(here.of_floors("fitted") or {"": np.full(own.n, np.nan)})
        row = replace(about, null_kind=f"{about.null_kind}: {each.null_kind}").with_verdict(
            np.vstack([each.means, each.left]),
            index=each.index,
            p=np.nan if by_reader(each.index) else float(p),
        )
        table.append(
            row
            | {
                "domain_a": a,
                "domain_b": b,
                "in_domain": home.mean(there["own"]),
                "other_class": own.mean(here.of_other(a, "fitted null")),
                "random": own.mean(here["random"]),
                "class_free": own.mean(does),
                "class_free_kind": reader,
                "varied": own.mean(here.of_other(a, "varied")),
                "whole": whole,
                "share_of_whole": np.nan if own.weak(here, "whole") else ceiling / whole,
                "k": there.subspace.basis.shape[1],
                "loss": float(there.subspace.losses[-5:].mean()),
            }
        )
    return pd.DataFrame(table)


def about_interchange(held: HeldOut, a: str, b: str, seed: int) -> Evidence:
    """What is the same at every site: how null and ceiling were made, and the counts."""
    drawn = held.tested[b]
    apart = f"{held.artists}s"
    tested = np.unique(drawn.rows[["target", "donor", "null"]].to_numpy())
    fitted = np.concatenate([held.fitted[a], held.fitted[b]])
    frame = pd.concat([held.images.frame.iloc[fitted], drawn.images.frame.iloc[tested]])
    return Evidence(
        estimand="mean over classes c of how far the part of a picture of c in the subspace "
        "fitted in domain A moves pictures of another class in domain B towards c",
        null_kind="the strongest",
        ceiling_kind=f"subspace fitted in B on as many pictures, by other {apart} than tested",
        seed=seed,
        n_units=drawn.rows["label"].nunique(),
        n_pictures=len(frame),
        n_drawings=frame["drawing"].nunique() if "drawing" in frame else len(frame),
    )

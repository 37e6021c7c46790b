"""Two models compared: how similar their layers are, and whether one can go on from the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Unpack

import pandas as pd

from interp import circuits, probes
from interp.circuits import Controls
from interp.circuits.patching.stitch import Seeing
from interp.core.arguments import Resampling, ResamplingKeywords, filled
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import say, track
from interp.core.sites import LAST, stream_sites
from interp.core.statistics.index_of_sharing import SHARED
from interp.core.tables import Table


class Classifying(Seeing, Protocol):
    """A model of pictures that can be asked for classes by their names."""

    def zero_shot(self, class_names: list[str], /) -> Classifier:
        """The classes as it is asked for them."""
        ...


@dataclass(frozen=True)
class ComparedModels:
    """Two models side by side, as `interp.compare` makes them.

    Args:
        similarity: Debiased CKA of class means, of A's sites with B's, for every pair of domains:
            A sees `domain_a`, B `domain_b`. With its null, ceiling, index and interval.
        stitching: B that goes on from A's activations, and A from B's, with the controls of
            `interp.circuits.stitch`, domain by domain and class by class.
        subspaces: Each model's class subspace in the other's coordinates, of
            `interp.circuits.das_between`; None where it was not asked for.

    >>> rows = {"site": ["block"], "site_b": ["block"], "index": [0.5]}
    >>> alike = pd.DataFrame(rows | {"domain_a": ["real"], "domain_b": ["real"]})
    >>> made = {"measure": ["stitched"], "label": [""], "model_b": ["B"], "domain": ["real"]}
    >>> stitched = pd.DataFrame(rows | made)
    >>> found = ComparedModels(Table("similarity", alike), Table("stitching", stitched))
    >>> found.profile()["A into B"].tolist()
    [0.5]
    """

    similarity: Table
    stitching: Table
    subspaces: Table | None = None

    def profile(self) -> pd.DataFrame:
        """In each domain, A's sites with those of B that they are stitched to.

        How similar the two are there, and how far B goes on from A's activations: index of each,
        and why there is none where it is missing.
        """
        stitched = self.stitching.frame
        own = stitched[(stitched["measure"] == "stitched") & (stitched["label"] == "")]
        own = own[(own["model_b"] == "B") & (own["domain"] != "")]
        rows = self.similarity.frame
        rows = rows[rows["domain_a"] == rows["domain_b"]].rename(columns={"domain_a": "domain"})
        if "site_b" not in rows:
            rows = rows.assign(site_b=rows["site"])
        key, numbers = ["site", "site_b", "domain"], ["similarity", "A into B"]
        found, into = (
            table.assign(reason=table["reason"] if "reason" in table else "")
            .rename(columns={"index": name, "reason": f"reason {name}"})
            .loc[:, [*key, name, f"reason {name}"]]
            for table, name in zip((rows, own), numbers, strict=True)
        )
        both = into.merge(found, on=key, how="left")
        whys = both[[f"reason {name}" for name in numbers]].fillna("")
        both["reason"] = [
            "; ".join(f"{name}: {why}" for name, why in zip(numbers, row, strict=True) if why)
            for row in whys.to_numpy()
        ]
        return both[[*key, *numbers, "reason"]]


@door
def compare(
    a: Classifying,
    b: Classifying,
    images: ImageTable,
    *,
    sites: Sequence[str] | None = None,
    heads: tuple[Classifier, Classifier] | None = None,
    controls: tuple[Controls, Controls] = (Controls(), Controls()),
    domains: Sequence[str] | None = None,
    subspaces: bool = False,
    **resampling: Unpack[ResamplingKeywords],
) -> ComparedModels:
    """Compare two models of the same pictures, layer by layer.

    Args:
        a: A model of pictures: a `Clip`, a supervised baseline, an encoder.
        b: The other. It may be of another architecture and see pictures of another size.
        images: Pictures that neither was trained on, with labels and domains.
        sites: Sites that both have; None takes what their blocks hand on, and the embedding. Where
            the two differ in these, similarity is of all pairs, and each site of A is stitched to
            that of B at the nearest depth.
        heads: The classes as A and B are asked for them; None asks `zero_shot` for the labels.
        controls: Of A and of B, each before training (the null of stitching) and other seeds of its
            mixture (the ceiling): `interp.circuits.Controls`.
        domains: Domains to compare in; None takes all.
        subspaces: Whether to fit each model's class subspace and interchange it in the other, in
            the domains and at the sites where a stitch holds (is "shared") both ways; of models
            that differ in their sites, at those that are each other's nearest. It takes longer than
            the rest together.
        n_splits: Deals of artists behind similarity.
        n_permutations: Permutations behind its p.
        seed: Seed of all draws.

    Returns:
        The tables, and their profile.

    Raises:
        SpecificationError: For models without a site in common kind, or heads of other classes.
        SampleError: For too few classes by two artists.

    Notes:
        Most of the time goes into stitches: at each site, each way, all pictures run through the
        rest of the other model, once for the stitch and once more for each of its controls. Fewer
        `sites` or `domains` take less.

        Two models of one mixture that differ by their seed say what "the same" looks like here:
        give them as controls, or compare them first (docs/judging_methods.md has the rates). The
        embedding is no place to stitch at.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> from interp.circuits import Classifier, planted_vit
    >>> from interp.models import open_tower
    >>> planted = [planted_vit("all shared", seed=1, disguised=each) for each in (False, True)]
    >>> models = [SimpleNamespace(visual=open_tower(one.source), preprocess=one.preprocess,
    ...                           zero_shot=lambda names, one=one: one.classifier)
    ...           for one in planted]
    >>> found = compare(*models, planted[0].pictures(8), sites=["blocks.1.hook_resid_post"],
    ...                 n_permutations=19)
    >>> found.profile()["A into B"].round(2).tolist()
    [1.0, 1.0]
    """
    given = filled(compare, Resampling, resampling)
    names = list(images.labels)
    asked = heads or (a.zero_shot(names), b.zero_shot(names))
    own = [list(sites) if sites else stream_sites(model.visual) for model in (a, b)]
    if not own[0] or not own[1]:
        raise SpecificationError(
            "compare two models",
            "a tower of which no site is known",
            "towers with blocks, or `sites`",
            "name sites that both have",
        )
    read = [
        probes.collect(model.visual, images, chosen, preprocess=model.preprocess)
        for model, chosen in zip((a, b), own, strict=True)
    ]
    alike = own[0] == own[1]
    similarity = probes.similarity(
        read[0],
        other=read[1],
        other_name="B",
        domains=domains,
        layers="same" if alike else "all",
        n_splits=given.n_splits,
        n_permutations=given.n_permutations,
        seed=given.seed,
    )
    tables, facts = [], {}
    for turn, (first, second, ends_in) in enumerate(((a, b, "B"), (b, a, "A"))):
        pairs = _paired(read[turn], read[1 - turn])
        made = circuits.stitch(
            first,
            second,
            images,
            sites=pairs,
            heads=(asked[turn], asked[1 - turn]),
            controls=Controls(controls[turn].untrained, controls[1 - turn].twins),
            domains=domains,
            seed=given.seed,
        )
        tables.append(made.frame.assign(model_b=ends_in))
        facts = made.facts
    frame = pd.concat(tables, ignore_index=True)
    stitching = Table.with_evidence("stitching", frame, facts)
    carried = _carried((a, b), images, asked, stitching, given.seed) if subspaces else None
    return ComparedModels(similarity, stitching, carried)


def _carried(
    models: tuple[Classifying, Classifying],
    images: ImageTable,
    heads: tuple[Classifier, Classifier],
    stitching: Table,
    seed: int,
) -> Table | None:
    """Subspaces of each model in the other, where a stitch holds both ways; None for nowhere."""
    places = _held_both_ways(stitching.frame)
    parts, facts = [], {}
    for site_a, site_b, domain in track(places, "subspaces"):
        made = circuits.das_between(
            *models, images, domain=domain, site=(site_a, site_b), heads=heads, seed=seed
        )
        parts.append(made.frame)
        facts = made.facts
    if not parts:
        say("no site at which a stitch holds both ways: no subspaces are compared")
        return None
    return Table.with_evidence("das_between", pd.concat(parts, ignore_index=True), facts)


def _paired(one: "probes.Features", other: "probes.Features") -> list[tuple[str, str]]:
    """Each site with the other model's at the nearest depth; the embedding aside."""
    far = [site for site in other.sites if site != LAST]
    return [
        (site, min(far, key=lambda each: abs(other.depth(each) - one.depth(site))))
        for site in one.sites
        if site != LAST and far
    ]


def _held_both_ways(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Sites of A and of B, and the domain, where a stitch from each to the other is "shared".

    >>> ways = [("B", "a1", "b1"), ("A", "b1", "a1"), ("B", "a2", "b1")]
    >>> rows = pd.DataFrame(ways, columns=["model_b", "site", "site_b"])
    >>> _held_both_ways(rows.assign(domain="real", measure="stitched", verdict=SHARED))
    [('a1', 'b1', 'real')]
    """
    held = rows[(rows["measure"] == "stitched") & (rows["verdict"] == SHARED)]
    ways = {
        way: set(part[ends].itertuples(index=False, name=None))
        for way, part in held.groupby("model_b")
        for ends in [["site", "site_b", "domain"] if way == "B" else ["site_b", "site", "domain"]]
    }
    return sorted(ways.get("A", set()) & ways.get("B", set()))

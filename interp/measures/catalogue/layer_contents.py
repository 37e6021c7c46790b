"""What the layers hold: shares of variance of class and domain, and how far domains lie apart."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from interp import probes
from interp.core.seeds import rng
from interp.core.sites import LAST, middle_of
from interp.core.tables import Table
from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.measures.ladder import ladder_tables
from interp.measures.subject import Frames, Subject

FACTORS = figures.FigureSpec(
    "factors",
    "What the pictures' variance at each layer is about",
    "depth",
    ("factorisation",),
    method="The features' variance is split into class, domain, both jointly, and the rest.",
    null="Classes permuted within each domain.",
    caption=f"{figures.LINES} Products of two halves of the pictures by other artists hold no "
    "noise, so that a share that is not there reads 0 on average.",
    choices=(
        figures.TEST_DOMAIN,
        figures.choice(
            "Share of",
            {
                "class, in all domains alike": {"factor": "class"},
                "domain, in all classes alike": {"factor": "domain"},
                "class and domain only jointly": {"factor": "interaction"},
                "pictures within a class and domain": {"factor": "residual"},
            },
        ),
    ),
    y=figures.AxisSpec("share of variance", limits=(-0.05, 1.05)),
    lines=figures.ZERO,
)

ANGLE = figures.FigureSpec(
    "angle",
    "Do class and domain lie along the same directions?",
    "depth",
    ("factorisation",),
    method="The squared cosine between the effects of class and of domain is taken.",
    null="Random directions of the variation within a class and domain.",
    caption=f"{figures.LINES} Drawn where both effects exceed 3 standard errors.",
    where={"factor": "class and domain"},
    y=figures.AxisSpec("squared cosine (0 orthogonal)"),
    lines=figures.ZERO,
)

APART = figures.FigureSpec(
    "apart",
    "How far do domains lie apart?",
    "depth",
    ("separation", "domain_probes"),
    method="A classifier of the domain is tested on classes and artists that it never saw.",
    null="The same classifier on permuted domain labels.",
    caption=figures.LINES,
    ends=figures.PAIR,
    choices=(
        figures.TEST_DOMAIN,
        figures.ChoiceSpec(
            "Read",
            looks=(
                figures.Look(
                    "which of all domains, classes not trained on", table="domain_probes", ends=()
                ),
                figures.Look(
                    "which of the two domains, classes not trained on",
                    {"measure": "domain classifier"},
                ),
                figures.Look(
                    "squared distance of domains, in variances within a class",
                    {"measure": "squared distance of domain means"},
                ),
            ),
        ),
    ),
    y=figures.AxisSpec("accuracy, or distance"),
    lines=figures.ZERO,
)

COMPONENTS = figures.FigureSpec(
    "views",
    "Pictures by their first two principal components",
    "views",
    method="Pictures are laid out by the two directions in which their features vary most.",
    null=figures.FREE,
    caption="n = {per_view} pictures a view, of seen classes, never trained on. A view has no "
    "interval and is no evidence: how far domains lie apart is measured above, in all "
    "coordinates. Both components hold this share of the variance: {explained}.",
    alt="Scatter of pictures of {domains}, coloured by domain",
    keep=("first block",),
    needs=("x", "y"),
)

LAYERS = figures.SectionSpec(
    "layers",
    "What the layers hold",
    "A picture's features = mean + class + domain + both jointly + rest, a two-way analysis of "
    "variance at every layer. Domains lie apart where a classifier tells them on classes and "
    "artists that it never saw (Lopez-Paz and Oquab 2017).",
    (FACTORS, ANGLE, APART, COMPONENTS),
    words=(("angles",),),
    note="Compositional generalization asks for class and domain effects that add up: little that "
    "is only joint, and directions that do not meet.",
    gist=figures.GistSpec(
        "factorisation",
        "In the middle layers the class, alike in all domains, makes up {range} of the variance.",
        {"factor": "class"},
        form="percent",
        middle=True,
    ),
)

SEEN_IN_VIEWS = 60
"""Pictures of a domain in a view: enough to see by, few enough for a page."""


def measure(subject: Subject) -> Frames:
    """Tables of what pooled features say without running the model again, at every site.

    `factorisation`, `directions` and `domain_probes` are about all domains; `separation` and
    `selectivity` about the pair; `views` are pictures of the middle site and of the embedding;
    `class_sharing` says how far each class is shared.
    """
    read, two, analysis = subject.features, list(subject.pair), subject.analysis
    options: dict[str, Any] = {"seed": subject.seed, "control": subject.control}
    counted = options | {"n_permutations": analysis.n_permutations}
    made = {
        "factorisation": [partial(_rungs, subject, "factorisation")],
        "directions": [partial(_rungs, subject, "directions")],
        "separation": [
            partial(probes.domain_test, read, domains=two, **counted),
            partial(probes.domain_distance, read, domains=two, **counted),
        ],
        "domain_probes": [partial(probes.domain_probes, read, **counted)],
        "selectivity": [partial(probes.selectivity, read, domains=two, **options)],
        "views": [partial(_views, read, subject.seed)],
    }
    return subject.file_parts(made) | class_sharing_tables(subject)


def class_sharing_tables(subject: Subject) -> Frames:
    """The table `class_sharing`: how far each class, held-out ones too, is shared in the middle.

    Measured on pictures apart from those that accuracy is measured on, where there are any; those
    of a tested drawing are left out, so that no drawing counts for sharing and for accuracy.
    """
    if subject.control or subject.lacks_middle("class_sharing"):
        return {}
    read = subject.features_apart
    if read is None:
        return {}

    def cosines() -> Table:
        table = probes.class_cosines(
            read, subject.pair, n_splits=subject.analysis.n_splits, seed=subject.seed
        )
        sets = table.frame["label"].isin(subject.held_out).map({True: "held-out", False: "seen"})
        return Table(table.name, table.frame.assign(class_set=sets), table.facts)

    return subject.file_parts({"class_sharing": [cosines]})


def class_directions(subject: Subject) -> Frames:
    """The table `directions` alone: how far classes of the pair lie in the same directions."""
    return subject.file_parts(
        {"directions": [partial(_rungs, subject, "directions", [subject.pair])]}
    )


def _rungs(subject: Subject, name: str, pairs: Sequence[tuple[str, str]] | None = None) -> Table:
    return Table(name, ladder_tables(subject, [name], pairs=pairs)[name])


def _views(read: "probes.Features", seed: int) -> Table:
    """The middle site and the embedding in a plane, a few pictures of every domain."""
    order = rng("views", seed).permutation(len(read))
    turn = read.frame.iloc[order].groupby("domain").cumcount().to_numpy()
    chosen = np.zeros(len(read), dtype=bool)
    chosen[order[turn < SEEN_IN_VIEWS]] = True
    middle = middle_of({site: read.depth(site) for site in read.sites})
    sites = [site for site in (middle, LAST) if site in read.sites]
    seen = probes.pca_view(read.rows(chosen), sites)
    return Table("views", seen.frame.drop(columns="picture", errors="ignore"))


MEASURE = MeasureSpec(
    "representation",
    measure,
    tables=(
        *("factorisation", "directions", "separation", "domain_probes", "selectivity", "views"),
        "class_sharing",
    ),
    bare=("views", "class_sharing"),
    of=EVERY_KIND,
    option="representation",
    seconds=10.3,
    sections=(LAYERS,),
)
DIRECTIONS = MeasureSpec(
    "directions",
    class_directions,
    tables=("directions",),
    of=EVERY_KIND,
    by_name=True,
    seconds=10.3,  # of all of `representation`, of which it is a part
)

"""Linear factors: whether effects of class and domain add up, and foretell classes held out."""

from functools import partial
from typing import Any

from interp import probes
from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.measures.subject import Frames, Subject
from interp.probes.geometry.linear_factors import CLASS_RANK, DOMAIN_RANK, LINEARITY, WHITENED

LINEAR = figures.FigureSpec(
    "linear-factors",
    "Do effects of class and domain add up?",
    "depth",
    method="Means of each class in each domain are split into a class effect, a domain effect and "
    "what only both together give.",
    null="Linearity: classes permuted within each domain. Rank: random effects, of the pictures' "
    "variation within a class and domain.",
    caption=f"{figures.LINES} Linearity is 1 where every class has one effect in all domains. A "
    "rank of r is that of r equally strong directions.",
    choices=(
        figures.TEST_DOMAIN,
        figures.choice(
            "Number",
            {
                "linearity, in units of the spread within cells": {"measure": WHITENED},
                "linearity": {"measure": LINEARITY},
                "effective rank of class effects": {"measure": CLASS_RANK},
                "effective rank of domain effects": {"measure": DOMAIN_RANK},
            },
        ),
    ),
    y=figures.AxisSpec("share of variance, or number of directions", from_zero=True),
)

COMPOSED = figures.FigureSpec(
    "composition",
    "Held-out classes where both effects would put them",
    "depth",
    method="A picture of a held-out class gets the class whose natural mean, moved by the domain's "
    "effect on seen classes, lies nearest.",
    null=figures.PERMUTED,
    caption=f"{figures.LINES} Accuracy among all classes; the ceiling takes each class's own "
    "mean in the domain, which no model was trained on.",
    ends=figures.PAIR,
    y=figures.AxisSpec("balanced accuracy, held-out classes", percent=True, from_zero=True),
    lines=figures.ZERO,
)

FACTORS = figures.SectionSpec(
    "linear-factors",
    "Linear factors",
    "Compositional generalization needs class and domain effects that add up, along few and "
    "orthogonal directions (Uselis et al. 2026). Linearity = (class + domain) / all variance "
    "between cells; rank = (tr S)² / tr S² of effects; halves by other artists, so noise adds "
    "nothing. Orthogonality is under “What the layers hold”.",
    (LINEAR, COMPOSED),
    note="Whether this foretells accuracy better than sharing does is under “Does generalization "
    "go with sharing?”.",
    gist=figures.GistSpec(
        "linear_factors",
        "In the middle layers class and domain effects that add up make up {range} of the variance "
        "between cells.",
        {"measure": WHITENED},
        form="percent",
        middle=True,
    ),
    also="additive compositional orthogonal rank linearity",
)


def measure(subject: Subject) -> Frames:
    """The tables `linear_factors`, of all domains, and `composition`, of the pair.

    Classes are composed on pictures apart from those that accuracy is measured on, where there are
    any.
    """
    analysis = subject.analysis
    options: dict[str, Any] = {
        "n_splits": analysis.n_splits,
        "n_permutations": analysis.n_permutations,
        "seed": subject.seed,
        "control": subject.control,
    }
    made = {"linear_factors": [partial(probes.linear_factors, subject.features, **options)]}
    apart = subject.features_apart
    if apart is not None and subject.held_out:
        held = [name for name in subject.held_out if name in set(apart.frame["label"])]
        made["composition"] = [partial(probes.composition, apart, subject.pair, held, **options)]
    return subject.file_parts(made)


MEASURE = MeasureSpec(
    "linear-factors",
    measure,
    of=EVERY_KIND,
    option="representation",
    seconds=7.0,
    sections=(FACTORS,),
)

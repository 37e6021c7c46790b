"""Debiased CKA between domains at every layer: whether they have the same geometry (rung R2)."""

import pandas as pd

from interp import probes
from interp.core.statistics.index_of_sharing import GEOMETRY
from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.measures.ladder import ladder_tables
from interp.measures.subject import Frames, Subject
from interp.probes.representational_similarity.classes_needed import LEAST_CLASSES

CKA = figures.profile_spec(
    "similarity",
    "Shared geometry by depth",
    "Debiased linear CKA compares how the class means lie in two domains.",
    figures.PERMUTED,
    bars=GEOMETRY,
)

DOMAIN_MAP = figures.FigureSpec(
    "domain-map",
    "Shared geometry between all domains",
    "map",
    ("similarity",),
    method="Debiased linear CKA compares how the class means lie in each two domains.",
    null=figures.PERMUTED,
    caption="{n}; intervals are in the table below. {kinds} A cell with ? was not measured, or its "
    "ceiling is too near its null for an index.",
    alt="Heat map of {rows} by {rows} domains, {options} sites to choose from",
    where={"control": ""},
    keep=("same site",),
    scale=figures.Scale("index"),
    choices=(figures.TEST_DOMAIN, figures.SETTING, figures.SITE),
    across=figures.PAIR,
    symmetric=True,
    y=figures.AxisSpec("index"),
)

SIMILARITY = figures.SectionSpec(
    "similarity",
    "Same geometry? (R2)",
    "Debiased linear CKA = HSIC(A, B) / √(HSIC(A, A) HSIC(B, B)) of class means, paired by "
    "class, unbiased HSIC (Song et al. 2012); index = (CKA − null) / (ceiling − null).",
    (CKA, DOMAIN_MAP),
    ("similarity",),
    words=(("verdicts", "R2"), ("by layer", "R2")),
    note="CKA cannot see a rotation: orthogonal subspaces in one network read as alike.",
)


def measure(subject: Subject) -> Frames:
    """Debiased CKA of all pairs of domains at every site; of an untrained model also of pixels."""
    frames = [subject.file(ladder_tables(subject, ["similarity"])["similarity"])]
    if subject.control:
        pixels = probes.pixels(subject.analysed, subject.preprocess)
        floor = ladder_tables(subject, ["similarity"], features=pixels)["similarity"]
        frames.append(subject.file(floor).assign(control="pixels"))
    return {"similarity": pd.concat(frames, ignore_index=True)}


MEASURE = MeasureSpec(
    "similarity",
    measure,
    of=EVERY_KIND,
    seconds=3.9,
    sections=(SIMILARITY,),
    least_classes=LEAST_CLASSES,
)

"""Activations of a class put from one domain into pictures of another (beside rung R4)."""

from interp.circuits import transplant
from interp.core.sites import present
from interp.declared.figures import SEEN_BY, GistSpec, SectionSpec, profile_spec
from interp.declared.measures import MeasureSpec
from interp.measures.subject import Frames, Subject

TRANSPLANTED = profile_spec(
    "transplant",
    "Activations taken abroad, by depth",
    "An activation of a class in A takes the place of another class's in B.",
    "A donor of another class of A; index 0 stands for it.",
    SEEN_BY,
)

TRANSPLANT = SectionSpec(
    "transplant",
    "Activations taken abroad: transplants",
    "Activations of class c in domain A replace those of another class's picture in domain B: "
    "index = (gain for c − gain by another class of A) / (gain by B's own c − the same).",
    (TRANSPLANTED,),
    ("transplant",),
    words=(("by layer", "R4 transplant"),),
    note="A transplant shows that the rest of the model takes A's activations in B; where A and B "
    "have separate ways to the class that both stay open, it cannot tell them apart.",
    gist=GistSpec(
        "transplant",
        "Activations of one domain do the work of the other's with an index of {range} (0 another "
        "class, 1 the domain's own), over layers and models.",
        column="index",
    ),
)

DONATED = (
    "layer*.*.hook_out",
    "attnpool.hook_z",
    "blocks.*.hook_attn_out",
    "blocks.*.hook_mlp_out",
)
"""What is transplanted: the parts that blocks add; a whole stream would merely replay its donor."""


def measure(subject: Subject) -> Frames:
    """Activations of a class put from the first domain into the second, part by part."""
    if subject.lacks(DONATED, "transplants"):
        return {}
    images = subject.analysed
    tower = subject.tower
    table = transplant(
        tower,
        images,
        domain_a=subject.pair[0],
        domain_b=subject.pair[1],
        sites=present(tower, DONATED),
        n=subject.analysis.n_transplants,
        **subject.task,
    )
    return {"transplant": subject.file(table)}


MEASURE = MeasureSpec("transplant", measure, option="patching", seconds=1.9, sections=(TRANSPLANT,))

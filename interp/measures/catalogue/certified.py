"""The numerics certificate: every opened tower against the original, site by site."""

from interp.declared.figures import FigureSpec, SectionSpec
from interp.declared.measures import MeasureSpec
from interp.measures.subject import Frames, Subject

CERTIFIED = FigureSpec(
    "certificate",
    "Largest difference from the original model, against what may pass",
    "certificate",
    method="Every activation of our towers is held against the original's.",
    null="None: an error is compared with what may pass.",
    caption="n = {checked} sites or parameters per check; of each the one nearest to its own bar, "
    "or furthest beyond, so without interval. Left of the grey bar passes. An error of exactly 0 "
    "is drawn at {least:g}.",
    alt="{said}",
    needs=("error", "bar"),
)

CERTIFICATE = SectionSpec(
    "certificate",
    "Numerics certificate",
    "Every opened tower against the original at every site, on weights of which each was moved "
    "off its initial value: error = max |ours − theirs| / max |theirs|.",
    (CERTIFIED,),
    ("certificate",),
    part="checks",
    words=(("certificate",),),
)


def measure(subject: Subject) -> Frames:
    """The table `certificate` of both towers."""
    return {"certificate": subject.file(subject.clip.certify())}


MEASURE = MeasureSpec(
    "certificate",
    measure,
    bare=("certificate",),
    option="patching",
    seconds=0.4,
    sections=(CERTIFICATE,),
)

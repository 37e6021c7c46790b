"""Probes of the class between domains: whether they have the same directions (rungs R1 and R3)."""

from dataclasses import replace

from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.measures.catalogue.domain_geometry import DOMAIN_MAP
from interp.measures.ladder import ladder_tables
from interp.measures.subject import Frames, Subject

PROBED = figures.profile_spec(
    "transfer",
    "Shared directions by depth: probes",
    "A linear probe fitted in one domain is tested in the other, on other artists' drawings.",
    "The same probe on permuted labels; index 0 stands for it.",
    figures.choice(
        "Seen by",
        {
            f"{way}{centring}": {"train_domain": a, "domain": b, "centred": centred}
            for centring, centred in (("", False), (", each domain centred", True))
            for way, a, b in (
                ("natural to the other domain", figures.NATURAL, figures.OTHER),
                ("the other domain to natural", figures.OTHER, figures.NATURAL),
            )
        },
    ),
    ends=(),
)

COSINES = figures.profile_spec(
    "directions",
    "Shared directions by depth: cosines",
    "The direction in which a class differs from all others is compared between domains.",
    figures.PERMUTED,
    figures.choice(
        "Seen by",
        {
            kind: {"measure": kind}
            for kind in ("cosine of mean differences", "cosine of LDA directions")
        },
    ),
)

SELECTIVE = figures.FigureSpec(
    "selectivity",
    "Do probes read the class, or memorise drawings?",
    "depth",
    method="A probe of the class is compared with one of random classes given to whole groups.",
    null="The probe of random classes; 0 stands for it.",
    caption=f"{figures.LINES} Both tasks share pictures and probes; the control task gives whole "
    "groups of drawings a class at random (Hewitt and Liang 2019).",
    choices=(
        figures.TEST_DOMAIN,
        figures.choice(
            "Probes",
            {
                "in the natural domain": {"domain": figures.NATURAL},
                "in the other domain": {"domain": figures.OTHER},
            },
        ),
    ),
    y=figures.AxisSpec("accuracy beyond a control task"),
    lines=figures.ZERO,
)

PROBE_MAP = replace(
    DOMAIN_MAP,
    name="probe-map",
    title="Accuracy of probes, trained in one domain (rows), tested in another (columns)",
    tables=("transfer",),
    method="A linear probe fitted in one domain is tested in every other.",
    null="The same probe on permuted labels.",
    where={"control": "", "centred": False},
    keep=(),
    scale=figures.Scale("value"),
    across=("train_domain", "domain"),
    symmetric=False,
    y=figures.AxisSpec("balanced accuracy"),
)

PROBES = figures.SectionSpec(
    "probes",
    "Same directions? (R1, R3)",
    "Logistic probes of the class, fitted in one domain, tested on other artists' drawings in "
    "every domain; index = (accuracy − null) / (ceiling − null). On the diagonal: R1. Beside "
    "them, the cosine between domains of the directions in which a class differs from others.",
    (PROBED, COSINES, PROBE_MAP, SELECTIVE),
    ("transfer",),
    words=(("verdicts", "R3"), ("by layer", "R3")),
    note="A direction that can be read need not be one that the model reads.",
)


def measure(subject: Subject) -> Frames:
    """Class probes trained in one domain and tested in every other."""
    return {"transfer": subject.file(ladder_tables(subject, ["transfer"])["transfer"])}


MEASURE = MeasureSpec(
    "transfer",
    measure,
    tables=("transfer",),
    of=EVERY_KIND,
    option="transfer",
    seconds=4.6,
    sections=(PROBES,),
)

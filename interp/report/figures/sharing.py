"""The sections on shared geometry, directions and mechanisms: index by depth, and maps."""

from dataclasses import replace
from itertools import product

from interp.core.declarations.figures import (
    INDEX,
    NATURAL,
    OTHER,
    PAIR,
    SETTING,
    TEST_DOMAIN,
    THRESHOLDS,
    ZERO,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    Look,
    Scale,
    SectionSpec,
)

PERMUTED = "Classes permuted as wholes; index 0 stands for it."
PROFILE = (
    "{n}; shaded ribbons are 95 % intervals of the index, which leave one {unit} out at a time. "
    "{kinds} Grey: the middle layers, by which the verdict is given. Dashed: the same models "
    "untrained; dotted: raw pixels, where measured. {withheld}"
)
SITE = ChoiceSpec("Site", "site")
DIRECTIONS = ChoiceSpec(
    "Seen by",
    looks=(
        Look("from natural domain", {"domain_a": NATURAL}),
        Look("from the other domain", {"domain_a": OTHER}),
    ),
)


def profile_spec(
    name: str,
    title: str,
    method: str,
    null: str,
    seen: ChoiceSpec | None = None,
    ends: tuple[str, ...] = PAIR,
) -> FigureSpec:
    """The index of a rung by depth, a line per compared pair of domains."""
    return FigureSpec(
        name,
        f"{title}, {{pair}}",
        "depth",
        (name,),
        method,
        null,
        PROFILE,
        "Lines of the index over depth for {names}",
        scale=INDEX,
        subjects="pairs",
        ends=ends,
        choices=(TEST_DOMAIN, *((seen,) if seen else ())),
        y=AxisSpec("index (0 null, 1 ceiling)"),
        lines=THRESHOLDS,
    )


CKA = profile_spec(
    "similarity",
    "Shared geometry by depth",
    "Debiased linear CKA compares how the class means lie in two domains.",
    PERMUTED,
)
PROBED = profile_spec(
    "transfer",
    "Shared directions by depth: probes",
    "A linear probe fitted in one domain is tested in the other, on other artists' drawings.",
    "The same probe on permuted labels; index 0 stands for it.",
    ChoiceSpec(
        "Seen by",
        looks=[
            Look(f"{way}{', each domain centred' if centred else ''}",
                 {"train_domain": ends[0], "domain": ends[1], "centred": centred})
            for centred, (way, ends) in product((False, True), (
                ("natural to the other domain", (NATURAL, OTHER)),
                ("the other domain to natural", (OTHER, NATURAL)),
            ))
        ],
    ),
    ends=(),
)  # fmt: skip
COSINES = profile_spec(
    "directions",
    "Shared directions by depth: cosines",
    "The direction in which a class differs from all others is compared between domains.",
    PERMUTED,
    ChoiceSpec(
        "Seen by",
        looks=[
            Look(kind, {"measure": kind})
            for kind in ("cosine of mean differences", "cosine of LDA directions")
        ],
    ),
)
TRANSPLANTED = profile_spec(
    "transplant",
    "Activations taken abroad, by depth",
    "An activation of a class in A takes the place of another class's in B.",
    "A donor of another class of A; index 0 stands for it.",
    DIRECTIONS,
)
ALIGNED = profile_spec(
    "das",
    "Shared causal directions by depth",
    "The subspace that carries the class in A is interchanged between pictures of B.",
    "A donor of a third class; index 0 stands for it.",
    DIRECTIONS,
)
SELECTIVE = FigureSpec(
    "selectivity",
    "Do probes read the class, or memorise drawings?",
    "depth",
    ("selectivity",),
    method="A probe of the class is compared with one of random classes given to whole groups.",
    null="The probe of random classes; 0 stands for it.",
    caption="{n}; ribbons are 95 % intervals over classes. {kinds} Dashed: the same models "
    "untrained. Grey: the middle layers. Both tasks share pictures and probes; the control task "
    "gives whole groups of drawings a class at random (Hewitt and Liang 2019).",
    alt="Lines over depth for {names}",
    subjects="pairs",
    choices=(
        TEST_DOMAIN,
        ChoiceSpec(
            "Probes",
            looks=(
                Look("in the natural domain", {"domain": NATURAL}),
                Look("in the other domain", {"domain": OTHER}),
            ),
        ),
    ),
    y=AxisSpec("accuracy beyond a control task"),
    lines=ZERO,
)
DOMAIN_MAP = FigureSpec(
    "domain-map",
    "Shared geometry between all domains",
    "map",
    ("similarity",),
    method="Debiased linear CKA compares how the class means lie in each two domains.",
    null=PERMUTED,
    caption="{n}; intervals are in the table below. {kinds} A cell with ? was not measured, or its "
    "ceiling is too near its null for an index.",
    alt="Heat map of {rows} by {rows} domains, {options} sites to choose from",
    where={"control": ""},
    keep=("same site",),
    scale=Scale("index"),
    choices=(TEST_DOMAIN, SETTING, SITE),
    across=PAIR,
    symmetric=True,
    y=AxisSpec("index"),
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
    scale=Scale("value"),
    across=("train_domain", "domain"),
    symmetric=False,
    y=AxisSpec("balanced accuracy"),
)

SIMILARITY = SectionSpec(
    "similarity",
    "Same geometry? (R2)",
    "Debiased linear CKA = HSIC(A, B) / √(HSIC(A, A) HSIC(B, B)) of class means, paired by "
    "class, unbiased HSIC (Song et al. 2012); index = (CKA − null) / (ceiling − null).",
    (CKA, DOMAIN_MAP),
    ("similarity",),
    words=(("verdicts", "R2"), ("by layer", "R2")),
    note="CKA cannot see a rotation: orthogonal subspaces in one network read as alike.",
)
PROBES = SectionSpec(
    "probes",
    "Same directions? (R1, R3)",
    "Logistic probes of the class, fitted in one domain, tested on other artists' drawings in "
    "every domain; index = (accuracy − null) / (ceiling − null). On the diagonal: R1. Beside "
    "them, the cosine between domains of the directions in which a class differs from others.",
    (PROBED, COSINES, PROBE_MAP, SELECTIVE),
    ("transfer",),
    words=(("verdicts", "R3"), ("by layer", "R3")),
    note="A direction that can be read need not be one that the model reads.",
    optional=("directions", "selectivity"),
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
)
DAS = SectionSpec(
    "das",
    "Same causal directions? (R4)",
    "In each domain the subspace is fitted whose interchange between two pictures makes the "
    "model say the class of the other (Geiger et al. 2024). Then A's subspace is interchanged "
    "between pictures of B: index = (gain for c − gain by another class) / (gain with B's own "
    "subspace − the same).",
    (ALIGNED,),
    words=(("verdicts", "R4"),),
    note="Only this rung and R6 allow a claim about mechanisms.",
    optional=("das",),
)

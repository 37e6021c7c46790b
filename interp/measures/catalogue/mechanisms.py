"""What two domains share in how one opened model works: causal directions, parts, wiring (R4-R6).

Works on any tower with a classifier: a CLIP of a study, or a planted model whose answer is known.
"""

from dataclasses import replace
from itertools import combinations

from interp.circuits.sharing.circuit_runs import SMALLEST
from interp.circuits.sharing.circuit_transfer import NECESSITY_OVER_SIZES, OVER_SIZES
from interp.core.seeds import rng
from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec
from interp.declared.writing import number, plain
from interp.measures.ladder import CAUSAL, ladder_tables
from interp.measures.subject import Frames, Subject
from interp.measures.unit_galleries import UNIT_GALLERIES, unit_galleries, unit_plates

ALIGNED = figures.profile_spec(
    "das",
    "Shared causal directions by depth",
    "The subspace that carries the class in A is interchanged between pictures of B.",
    "The strongest of a third class, a random subspace, and subspaces fitted on pictures without a "
    "class; index 0 stands for it.",
    figures.SEEN_BY,
)

DAS = figures.SectionSpec(
    "das",
    "Same causal directions? (R4)",
    "In each domain the subspace is fitted whose interchange between two pictures makes the "
    "model say the class of the other (Geiger et al. 2024). Then A's subspace is interchanged "
    "between pictures of B: index = (gain for c − null) / (gain with B's own subspace − null). The "
    "null is the strongest of another class, a random subspace, and subspaces fitted on shuffled "
    "pixels, scrambled phases and noise: what any reader of the layer would give.",
    (ALIGNED,),
    words=(("verdicts", "R4"),),
    note="Where noise does as well, the reader explains it and nothing is concluded. Only this "
    "rung and R6 allow a claim about mechanisms.",
)

PARTS = {"channel": "channels", "d_mlp": "neurons", "feature": "neurons", "edge": "edges"}


def _by(row: figures.Row) -> str:
    return f"by {PARTS.get(row['level'], row['level'])}"


ABROAD = figures.FigureSpec(
    "circuits-abroad",
    "Circuits of one domain at work in another",
    "curve",
    ("circuit_transfer",),
    method="A circuit found in A runs on pictures of B, all else as in another class's picture.",
    null="Circuits of other classes, as large; random parts are drawn beside them.",
    caption="{n}; bars are 95 % intervals of the share. Everything outside a circuit runs as in a "
    "picture of another class. The index rests on sizes at which both domains' own circuits do "
    "half of the work. {kinds}",
    where={"measure": "circuit transfer", "site": "", "band": ""},
    needs=("share", "value"),
    choices=(
        figures.TEST_DOMAIN,
        figures.SETTING,
        figures.ChoiceSpec(
            "From A to B",
            (*figures.PAIR, "level"),
            named=lambda row: f"{plain(row['domain_a'])} → {plain(row['domain_b'])}, {_by(row)}",
        ),
    ),
    across="share",
    series=(
        figures.SeriesSpec(
            "the class in B itself, other artists", figures.Scale("own"), figures.GREEN
        ),
        figures.SeriesSpec("the class in A", figures.RAW, figures.BLUE, symbol="diamond"),
        figures.SeriesSpec(
            "another class in A", figures.Scale("null"), figures.ORANGE, dash="dash", symbol="x"
        ),
        figures.SeriesSpec(
            "random parts", figures.Scale("random"), figures.GREY, dash="dot", symbol="square"
        ),
    ),
    x=figures.size_axis("size, as a share of each layer's parts", (0.02, 0.05, 0.1, 0.2, 0.5)),
    y=figures.AxisSpec("share of the class's work in B"),
)


SPARSE = figures.FigureSpec(
    "circuit-sizes",
    "How sparse the circuits of a class are",
    "forest",
    ("circuit_transfer",),
    method="A domain's circuits are found on some artists' drawings and run alone on others'; the "
    "size at which they do half, and four fifths, of the work is read off.",
    null="Random parts that do as much (column null of the table).",
    caption="{n}; bars are 95 % intervals that leave out one class at a time. Size: the share of "
    "each layer's parts, the same in all. {kinds} {withheld}",
    where={"measure": list(SMALLEST.values())},
    subjects="settings",
    labels=lambda row: (
        f"{plain(row['domain_b'])}: {row['measure'].removeprefix('parts that do ')}, {_by(row)}"
    ),
    x=figures.AxisSpec("share of the parts", percent=True, from_zero=True),
)

OVER = OVER_SIZES, NECESSITY_OVER_SIZES
WIRED = replace(
    figures.profile_spec(
        "circuit_transfer",
        "Shared wiring by depth",
        "Circuits of one domain, cut at one site, run alone on pictures of the other, or the model "
        "runs without them; all else as in a picture of another class.",
        "Circuits of other classes, as large; of what is knocked out, parts of other classes that "
        "are none of the class's. Index 0 stands for it.",
        figures.choice(
            "Circuits",
            {
                f"{did}, {way}": {"measure": measure, "domain_a": end}
                for measure, did in zip(OVER, ("alone", "knocked out"), strict=True)
                for end, way in (
                    (figures.NATURAL, "natural to the other"),
                    (figures.OTHER, "the other to natural"),
                )
            },
        ),
    ),
    name="circuits-by-depth",
    where={"measure": list(OVER)},
    keep=("a site",),
)


def _layer(row: figures.Row) -> str:
    return row["site"].split(".hook")[0]


def _found_again(row: figures.Row) -> str:
    shares = f"{number(row['value'])}, by chance {number(row['null'])}"
    sure = f"{row['n_sure']:.0f} of {row['n_edges']:.0f} parts in 95 % of draws or more"
    return f"{_layer(row)}: {shares}; {sure}"


STEADY = figures.FigureSpec(
    "steady",
    "How steady circuits are",
    "curve",
    ("circuit_stability",),
    method="Pictures of every class are drawn again, with replacement, and the circuit anew.",
    null="As many parts of each layer, drawn by chance.",
    caption="n = {draws} draws of {pictures} pairs of pictures. A circuit is the best tenth of "
    "each layer's parts over all classes; bars are intervals that hold 95 % of the draws. 1: the "
    "same parts every time.",
    keep=("a site",),
    needs=("value",),
    choices=figures.OF_MODEL,
    across="site",
    labels=_layer,
    series=(
        figures.SeriesSpec("found again", figures.RAW, figures.BLUE),
        figures.null_series("parts by chance"),
    ),
    hover=_found_again,
    x=figures.AxisSpec("layer"),
    y=figures.AxisSpec("share of parts found again", limits=(0, 1.05)),
    height=380,
)

CROSSING = figures.SectionSpec(
    "crossing",
    "Same parts and wiring? (R5, R6)",
    "Parts are scored for every class in each domain, in halves of artists. Overlap compares "
    "the parts of a class in A and B with those of another class, and with those that lead to the "
    "class in pictures of other classes (null: the larger), and with those of other artists "
    "(ceiling). Then A's circuit of a class runs alone on pictures of B, all else as in a picture "
    "of another class (sufficiency), and B runs without it (necessity). Wiring is shared where "
    "both hold.",
    (WIRED, ABROAD, SPARSE, STEADY),
    words=(("verdicts", "R6"),),
    note="Where circuits of other classes do the work as well, the parts are too coarse to tell "
    "classes apart, and nothing is concluded.",
    optional=("circuit_transfer", "overlap", "circuit_stability"),
)


def shared_mechanisms(subject: Subject) -> Frames:
    """The causal rungs (R4 to R6) of the pair; of an untrained model causal directions alone.

    These say what such a model would seem to share. Of a trained one beside it: what some of the
    units that R5 and R6 rest on respond to.
    """
    tables = ("das",) if subject.control else CAUSAL
    frames = ladder_tables(subject, tables, pairs=[subject.pair])
    if not subject.control:
        frames |= unit_galleries(subject)
    return {name: subject.file(frame) for name, frame in frames.items()}


def mechanisms_of_pairs(subject: Subject) -> Frames:
    """The causal rungs of every other pair of domains, on some of the classes."""
    own, n = subject.analysed, subject.analysis.n_pair_classes
    chosen = rng("classes of pairs", subject.seed).permutation(own.labels)[:n]
    others = [pair for pair in combinations(own.domains, 2) if set(pair) != set(subject.pair)]
    if not others:
        return {}
    frames = ladder_tables(replace(subject, only=tuple(chosen)), CAUSAL, pairs=others)
    if (stable := frames.get("circuit_stability")) is not None:
        # the pair's own domains have their rows over all classes already
        frames["circuit_stability"] = stable[~stable["domain"].isin(subject.pair)]
    return {name: subject.file(frame) for name, frame in frames.items()}


MECHANISMS = ("overlap", "circuit_transfer", "das", "circuit_stability")
"""What is measured of every pair of domains."""

MEASURE = MeasureSpec(
    "crossing",
    shared_mechanisms,
    tables=(*MECHANISMS, "unit_galleries"),
    of=EVERY_KIND,
    option="circuits",
    seconds=58.0,
    on_vits=4.0,  # they have more edges
    sections=(DAS, CROSSING, UNIT_GALLERIES),
    plates=unit_plates,
)
PAIRS = MeasureSpec(
    "pairs", mechanisms_of_pairs, tables=MECHANISMS, option="circuits", by_name=True, seconds=170.0
)

"""The page's sections in their order: what each is about, how it was measured, what it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interp.report.figures.accuracies import (
    accuracy_by_class_figure,
    accuracy_by_domain_figure,
    accuracy_by_setting_figure,
    classifiers_figure,
    differences_figure,
)
from interp.report.figures.behind_accuracy import (
    epochs_figure,
    exposure_figure,
    robustness_figure,
    tradeoff_figure,
)
from interp.report.figures.circuit_graphs import circuit_graph, faithful, steady
from interp.report.figures.features import (
    ablated_features_figure,
    erasure_figure,
    shared_features_figure,
)
from interp.report.figures.ladders import abroad, ladder_map, rungs_profile
from interp.report.figures.layers import (
    angle_figure,
    apart_figure,
    factors_figure,
    selective_figure,
    views_figure,
)
from interp.report.figures.levels_of_evidence import cells, dose_response, forest
from interp.report.figures.patching_maps import patching_figure
from interp.report.figures.pieces import Figure
from interp.report.figures.sharing import domain_map, probe_map, profile
from interp.report.figures.training import certificate_figure, losses_figure, mixtures_figure
from interp.report.loaded import LoadedResult
from interp.report.naming import sequence
from interp.report.verdict_tables import (
    WordTable,
    angles_table,
    by_layer_table,
    certificate_verdict,
    dictionaries_table,
    levels_table,
    verdicts_table,
)

Draw = Callable[[LoadedResult], Figure | None]


@dataclass(frozen=True)
class SectionPlan:
    """A section before it is filled: its words, the tables it needs, the figures it draws."""

    anchor: str
    title: str
    method: str
    tables: Sequence[str]
    figures: Sequence[Draw]
    grids: Callable[[LoadedResult], list[WordTable]] = lambda result: []
    note: str = ""
    study_only: bool = False
    optional: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A section as the page shows it."""

    anchor: str
    title: str
    method: str
    tables: Sequence[str]
    figures: Sequence[Figure]
    grids: Sequence[WordTable]
    missing: Sequence[str] = field(default_factory=tuple)
    note: str = ""


PLANS = (
    SectionPlan(
        "training",
        "Training distributions",
        "Each setting is a rule on which cells (class × domain) are trained on. All but natural "
        "only are matched in size unless the specification says otherwise (Kempf et al. 2025).",
        ("mixtures", "losses"),
        (mixtures_figure, losses_figure),
        study_only=True,
    ),
    SectionPlan(
        "generalization",
        "Generalization",
        "Zero-shot: a picture gets the class whose averaged text embedding is nearest by cosine. "
        "Balanced top-1 = mean over classes of each class's accuracy. Differences are paired.",
        ("accuracy", "differences", "accuracy_by_class"),
        (
            accuracy_by_setting_figure,
            differences_figure,
            accuracy_by_domain_figure,
            classifiers_figure,
            accuracy_by_class_figure,
        ),
        note="A setting can be worse among all classes merely because it prefers seen ones; "
        "among the held-out classes only, that preference cannot play.",
    ),
    SectionPlan(
        "behind",
        "Behind the accuracy",
        "A bias against seen classes (Chao et al. 2016), training pictures per class, accuracy in "
        "natural pictures (Taori et al. 2020) and time in training: what else may move accuracy.",
        (),
        (tradeoff_figure, exposure_figure, robustness_figure, epochs_figure),
        note="None of these was drawn at random: they say what goes with accuracy, not why.",
        study_only=True,
        optional=("tradeoff", "exposure", "exposure_classes", "robustness", "epochs"),
    ),
    SectionPlan(
        "levels",
        "Does generalization go with sharing?",
        "Four levels, never pooled. L1: Spearman of mixtures' mean accuracy and sharing. L2: slope "
        "over the blocks of a mixture, cells and folds taken out. L3: accuracy of a class on its "
        "sharing, fixed effects of class and model, natural accuracy held constant. L4: a loss "
        "that aligns domains. p by Holm over the rungs of a level.",
        (),
        (cells, forest),
        levels_table,
        "L1 says “goes with” and no more: mixtures differ in much besides. L2 and L3 compare each "
        "mixture, model and class with itself. Only an intervention says “because”.",
        study_only=True,
        optional=("levels", "together"),
    ),
    SectionPlan(
        "ladder",
        "What is shared: the ladder",
        "Six rungs, from weak claims to strong: the class can be read in both domains (R1), same "
        "geometry (R2), same directions (R3), same causal directions (R4), same parts (R5), same "
        "wiring (R6). Each has an index, 0 at its null and 1 at its ceiling; a band of layers is "
        "shared where the 95 % interval lies above .5 at all its sites.",
        (),
        (rungs_profile, ladder_map),
        note="Lower rungs do not license the words of higher ones: geometry may be shared without "
        "directions, and directions without anything that reads them.",
        optional=("ladder", "rungs"),
    ),
    SectionPlan(
        "similarity",
        "Same geometry? (R2)",
        "Debiased linear CKA = HSIC(A, B) / √(HSIC(A, A) HSIC(B, B)) of class means, paired by "
        "class, unbiased HSIC (Song et al. 2012); index = (CKA − null) / (ceiling − null).",
        ("similarity",),
        (lambda result: profile(result, "R2"), domain_map),
        lambda result: [*verdicts_table(result, "R2"), *by_layer_table(result, "R2")],
        "CKA cannot see a rotation: orthogonal subspaces in one network read as alike.",
    ),
    SectionPlan(
        "probes",
        "Same directions? (R1, R3)",
        "Logistic probes of the class, fitted in one domain, tested on other artists' drawings in "
        "every domain; index = (accuracy − null) / (ceiling − null). On the diagonal: R1. Beside "
        "them, the cosine between domains of the directions in which a class differs from others.",
        ("transfer",),
        (
            lambda result: profile(result, "R3"),
            lambda result: profile(result, "cosine"),
            probe_map,
            selective_figure,
        ),
        lambda result: [*verdicts_table(result, "R3"), *by_layer_table(result, "R3")],
        "A direction that can be read need not be one that the model reads.",
        optional=("directions", "selectivity"),
    ),
    SectionPlan(
        "layers",
        "What the layers hold",
        "A picture's features = mean + class + domain + both jointly + rest, a two-way analysis of "
        "variance at every layer. Domains lie apart where a classifier tells them on classes and "
        "artists that it never saw (Lopez-Paz and Oquab 2017).",
        (),
        (factors_figure, angle_figure, apart_figure, views_figure),
        angles_table,
        "Compositional generalization asks for class and domain effects that add up: little that "
        "is only joint, and directions that do not meet.",
        optional=("factorisation", "separation", "domain_probes", "views"),
    ),
    SectionPlan(
        "features",
        "Same features? (R5)",
        "Sparse dictionaries (TopK) of the middle layer, trained without the withheld cells. A "
        "class's use of features in two domains is compared with its use by other classes as "
        "active as it (null) and by other artists (ceiling); units and components beside it.",
        (),
        (shared_features_figure, ablated_features_figure),
        dictionaries_table,
        "A dictionary's features differ from seed to seed: rows of two seeds say what of the "
        "sharing does not depend on the seed.",
        optional=("feature_sharing", "feature_ablation", "dictionaries"),
    ),
    SectionPlan(
        "erasure",
        "Does the model need to know the domain?",
        "LEACE (Belrose et al. 2023) takes the domain out of the middle layer while the model runs "
        "on; controls erase domains permuted over artists, or as much variance at random.",
        (),
        (erasure_figure,),
        note="A change beyond both controls is what the model loses, or gains, with the domain.",
        optional=("erasure",),
    ),
    SectionPlan(
        "patching",
        "Where the difference is carried: patching",
        "One activation of the clean run replaces the corrupt run's (Meng et al. 2022); index = "
        "(effect − null) / (gap − null), with the class's margin as metric, mean over classes.",
        ("patching", "patching_examples"),
        (patching_figure,),
        note="Patching says where, not whether two domains share it: it carries no verdict.",
    ),
    SectionPlan(
        "circuits",
        "Which parts make the class: circuits",
        "Edges of a transformer are scored by EAP-IG (Hanna et al. 2024), channels of a ResNet by "
        "integrated gradients. A circuit alone runs with all else as in a picture of another "
        "class; share = (m(circuit) − m(nothing)) / (m(model) − m(nothing)), where m is the logit "
        "of the picture's class less that of the other one.",
        (),
        (faithful, circuit_graph),
        note="A circuit is faithful where it does what the model does, and complete where nothing "
        "is left without it. Whether two domains have the same one is another question.",
        optional=("faithfulness", "circuits"),
    ),
    SectionPlan(
        "transplant",
        "Activations taken abroad: transplants",
        "Activations of class c in domain A replace those of another class's picture in domain B: "
        "index = (gain for c − gain by another class of A) / (gain by B's own c − the same).",
        ("transplant",),
        (lambda result: profile(result, "R4"),),
        lambda result: by_layer_table(result, "R4 transplant"),
        "A transplant shows that the rest of the model takes A's activations in B; where A and B "
        "have separate ways to the class that both stay open, it cannot tell them apart.",
    ),
    SectionPlan(
        "das",
        "Same causal directions? (R4)",
        "In each domain the subspace is fitted whose interchange between two pictures makes the "
        "model say the class of the other (Geiger et al. 2024). Then A's subspace is interchanged "
        "between pictures of B: index = (gain for c − gain by another class) / (gain with B's own "
        "subspace − the same).",
        (),
        (lambda result: profile(result, "das"),),
        lambda result: verdicts_table(result, "R4"),
        "Only this rung and R6 allow a claim about mechanisms.",
        optional=("das",),
    ),
    SectionPlan(
        "crossing",
        "Same parts and wiring? (R5, R6)",
        "Parts are scored for every class in each domain, in halves of artists. Overlap compares "
        "the parts of a class in A and B with those of another class (null) and of other artists "
        "(ceiling). Then A's circuit of a class runs on pictures of B, all else as in a picture of "
        "another class.",
        (),
        (abroad, steady),
        lambda result: verdicts_table(result, "R6"),
        "Where circuits of other classes do the work as well, the parts are too coarse to tell "
        "classes apart, and nothing is concluded.",
        optional=("circuit_transfer", "overlap", "circuit_stability"),
    ),
    SectionPlan(
        "intervention",
        "Made to be shared: the intervention (L4)",
        "At one mixture, a loss term = weight × mean over seen classes of (1 − cosine of a class's "
        "contrasts in natural pictures and in the test domain) at one layer. In the control every "
        "class has a wrong partner, the same in the whole run. Held-out classes never enter it.",
        (),
        (dose_response,),
        note="The mixture is the same and the term was put there: this comparison alone permits "
        "the word “because”, where seen classes stay equally accurate and sharing did move.",
        study_only=True,
        optional=("intervention", "intervention_classes", "intervention_directions"),
    ),
    SectionPlan(
        "certificate",
        "Numerics certificate",
        "Every opened tower against the original at every site, on weights of which each was moved "
        "off its initial value: error = max |ours − theirs| / max |theirs|.",
        ("certificate",),
        (certificate_figure,),
        certificate_verdict,
    ),
)


def filled_sections(result: LoadedResult) -> list[Section]:
    """Fill the plans: for one checkpoint, a grid, and what is optional, only what was measured."""
    filled = [
        (plan, _fill(result, plan)) for plan in PLANS if not (plan.study_only and result.one_model)
    ]
    return [
        section
        for plan, section in filled
        if section.tables or section.missing or (plan.tables and not result.partial)
    ]


def _fill(result: LoadedResult, plan: SectionPlan) -> Section:
    present = [name for name in (*plan.tables, *plan.optional) if name in result.tables]
    drawn = [figure for draw in plan.figures if present for figure in [draw(result)] if figure]
    grids = plan.grids(result) if present else []
    return Section(
        plan.anchor,
        plan.title,
        plan.method,
        present,
        drawn,
        grids,
        _missing(result, plan, bool(drawn)),
        plan.note if present else "",
    )


def _missing(result: LoadedResult, plan: SectionPlan, drawn: bool) -> list[str]:
    """What is not here and why, in a sentence for each reason."""
    found = []
    by_reason: dict[str, list[str]] = {}
    tables = (*plan.tables, *plan.optional)
    for name in tables:
        if name in result.absent and not result.partial:
            by_reason.setdefault(result.absent[name], []).append(name)
    for reason, names in by_reason.items():
        noun = "table" if len(names) == 1 else "tables"
        found.append(f"Missing: the {noun} {sequence(names)} ({reason}).")
    if not drawn and not by_reason and any(name in result.tables for name in tables):
        found.append(_nothing(result, plan))
    return found


def _nothing(result: LoadedResult, plan: SectionPlan) -> str:
    """Why tables that are there give no figure."""
    reasons = {
        reason
        for name in (*plan.tables, *plan.optional)
        if name in result.tables
        for reason in result.frame(name)["reason"]
        if reason
    }
    why = f": {sequence(sorted(reasons)[:3])}" if reasons else ""
    return f"Nothing to draw: the tables hold no number{why}."

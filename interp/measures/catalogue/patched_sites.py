"""Patching between domains and between classes: where the difference is carried."""

from collections.abc import Mapping

import pandas as pd

from interp.circuits import effects, localise
from interp.core.illustrations import Plate
from interp.core.images import ImageTable, Pairs
from interp.core.sites import present
from interp.declared import figures
from interp.declared.measures import MeasureSpec, RowUnits
from interp.measures.subject import Frames, Subject

PATCHED_SITES = figures.FigureSpec(
    "patching",
    "What patching one site does",
    "patching",
    ("patching", "patching_examples"),
    method="One activation of the corrupt run is replaced by the clean run's, pair by pair.",
    null="A donor of a third class, or no patch; index 0 stands for it.",
    caption="{n}; {bars}. Measure: {measures}. 0 is the null, 1 what replacing the whole input "
    "does. {kinds} {gaps}",
    alt="{shape}",
    where={"control": ""},
    choices=(figures.TEST_DOMAIN, figures.ChoiceSpec("Pairs", "pairing"), figures.SETTING),
)

PATCHING = figures.SectionSpec(
    "patching",
    "Where the difference is carried: patching",
    "One activation of the clean run replaces the corrupt run's (Meng et al. 2022); index = "
    "(effect − null) / (gap − null), with the class's margin as metric, mean over classes.",
    (PATCHED_SITES,),
    ("patching", "patching_examples"),
    note="Patching says where, not whether two domains share it: it carries no verdict.",
    gist=figures.GistSpec(
        "patching",
        "One layer of the other domain's run, patched in, moves {range} of the gap between the two "
        "(index, over layers and models).",
        column="index",
    ),
)

PATCHED = {"blocks.*.hook_resid_pre": ("layer", "pos"), "layer*.*.hook_out": ("layer",)}
"""Where sweeps look: token by token in a ViT's stream, and at what each ResNet stage adds."""


def measure(subject: Subject) -> Frames:
    """Sweeps between one class in two domains, and two classes in one domain; effects and examples.

    Partners are aligned where the pictures allow it: one drawing in one pose in both domains, or
    one style for both classes. The clean picture is the natural one, or of the test domain.
    """
    if subject.lacks(list(PATCHED), "patching"):
        return {}
    images, n_pairs = subject.analysed, subject.analysis.n_pairs
    drawn = {"drawing", "warp", "style"} <= set(images.frame.columns)
    within = images.select(domain=subject.pair[1]).pairs(
        same=("domain", "style") if drawn else ("domain",),
        differ="label",
        n=n_pairs,
        seed=subject.seed,
    )
    across = across_domains(images, domains=subject.pair, n_pairs=n_pairs, seed=subject.seed)
    summaries, examples = [], []
    for pairs in (across, within):
        for pattern, axes in PATCHED.items():
            if present(subject.tower, [pattern]):
                swept = localise(subject.tower, pairs, sites=pattern, axes=axes, **subject.task)
                examples.append(subject.file(swept))
                summaries.append(subject.file(effects(swept, seed=subject.seed)))
    return {
        "patching": pd.concat(summaries, ignore_index=True),
        "patching_examples": pd.concat(examples, ignore_index=True),
    }


def across_domains(
    images: ImageTable, *, domains: tuple[str, str], n_pairs: int, seed: int
) -> Pairs:
    """Pictures of the first domain with partners of their class in the second, aligned if drawn."""
    drawn = {"drawing", "warp"} <= set(images.frame.columns)
    across = images.select(domain=list(domains)).pairs(
        same=("label", "drawing", "warp") if drawn else ("label",),
        differ="domain",
        clean=domains[0],
        seed=seed,
    )
    return across.spread(n_pairs, seed=seed)


def moved_pictures(subject: Subject, made: Mapping[str, pd.DataFrame]) -> list[Plate]:
    """Pictures that patching between the two domains moves most and least."""
    from interp.measures.illustrated import pictured  # opens models: not for reading a result

    examples = made["patching_examples"]
    return pictured(
        subject,
        across_domains(
            subject.analysed,
            domains=subject.pair,
            n_pairs=subject.analysis.n_pairs,
            seed=subject.seed,
        ),
        examples[examples["pairing"].str.startswith("same label, other domain")],
    )


MEASURE = MeasureSpec(
    "patching",
    measure,
    tables=("patching", "patching_examples"),
    bare=("patching_examples",),
    option="patching",
    seconds=1.1,
    units={"patching": RowUnits("patching_examples", "clean_label", less="corrupt_metric")},
    sections=(PATCHING,),
    plates=moved_pictures,
)

"""Features of sparse dictionaries: which of them a class uses in both domains."""

from functools import partial
from typing import Any

from interp import probes
from interp.core.sites import middle_of
from interp.declared import figures
from interp.declared.measures import MeasureSpec
from interp.measures.subject import PICTURES_PER_CELL, Frames, Subject


def _code(row: figures.Row) -> str:
    return f"{row['code']}, two seeds" if "two seeds" in row["reading"] else row["code"]


MASS, TOP = {"measure": "shared mass"}, {"measure": "shared top features"}
SHARED_FEATURES = figures.FigureSpec(
    "feature-sharing",
    "Features that a class uses in both domains, at {sites}",
    "forest",
    ("feature_sharing", "dictionaries"),
    method="What a class uses of a dictionary's features in one domain is compared with the other.",
    null="Other classes that are as active; index 0 stands for them.",
    caption="{n}; bars are 95 % intervals of the index over classes. {kinds} {withheld}",
    scale=figures.INDEX,
    subjects="pairs",
    ends=figures.PAIR,
    choices=(
        figures.TEST_DOMAIN,
        figures.choice(
            "Measured by",
            {
                "share of the class's own activity": MASS | {"centred": True},
                "share of all activity": MASS | {"centred": False},
                "top features of the class": TOP | {"centred": True},
                "top features of all activity": TOP | {"centred": False},
            },
        ),
    ),
    labels=_code,
    x=figures.INDEX_AXIS,
    lines=figures.threshold_lines(),
)


def _end(row: figures.Row) -> str:
    where = row["natural"] if row["domain"] == row["natural"] else "the other domain"
    return f"{row['ablated']} features, in {where}"


ABLATED_FEATURES = figures.FigureSpec(
    "feature-ablation",
    "What the model loses without shared and without private features, at {sites}",
    "forest",
    method="Features are replaced by those of another picture while the model runs on.",
    null="No change, 0; matched features of the other kind stand beside it.",
    caption="Private features are matched one to one to shared ones in the variance they remove "
    "and in what that costs in {natural}. {n}; bars are 95 % intervals over classes. {matched}",
    subjects="pairs",
    ends=("domain",),
    choices=(
        figures.TEST_DOMAIN,
        figures.choice(
            "Drop of",
            {
                "margin of the true class": {"measure": "margin drop"},
                "balanced accuracy": {"measure": "accuracy drop"},
            },
        ),
    ),
    labels=_end,
    x=figures.AxisSpec("drop (standard deviations, or accuracy)"),
    lines=figures.NO_CHANGE,
)

FEATURES = figures.SectionSpec(
    "features",
    "Same features? (R5)",
    "Sparse dictionaries (TopK) of the middle layer, trained without the withheld cells. A "
    "class's use of features in two domains is compared with its use by other classes as "
    "active as it (null) and by other artists (ceiling); units and components beside it.",
    (SHARED_FEATURES, ABLATED_FEATURES),
    words=(("dictionaries",),),
    note="A dictionary's features differ from seed to seed: rows of two seeds say what of the "
    "sharing does not depend on the seed.",
    also=("shared features", "private features", "sparse autoencoders"),
    gist=figures.GistSpec(
        "feature_sharing",
        "Features that a class uses are shared between domains with an index of {range} (0 null, "
        "1 ceiling), by activity of one dictionary.",
        MASS | {"reading": "one code"},
        column="index",
    ),
)


def measure(subject: Subject) -> Frames:
    """Tables `dictionaries`, `feature_sharing` and `feature_ablation`, at the middle site.

    Dictionaries, units and components are fitted to training pictures outside the withheld cells
    (held-out classes in the test domain); sharing is measured on the analysed pictures, and what
    features are good for on those of the pair.
    """
    if subject.lacks_middle("features"):
        return {}
    analysis, read = subject.analysis, subject.features
    clip, seed, site = subject.clip, subject.seed, middle_of(subject.depths)
    training = subject.training or subject.analysed
    withheld = [(label, subject.pair[1]) for label in subject.held_out]
    fitted = probes.collect(
        clip.visual,
        training.few(analysis.n_dictionary_pictures, seed=seed),
        [site],
        preprocess=clip.preprocess,
    )
    width = min(2 * fitted.values[site].shape[1], len(fitted) // 4)
    sparsity = probes.TopK(min(analysis.n_active, width))
    seeds = [seed + number for number in range(analysis.dictionary_seeds)]
    several = probes.train_dictionaries(
        fitted,
        site,
        sparsity,
        width=width,
        withheld=withheld,
        seeds=seeds,
        steps=analysis.dictionary_steps,
    )
    codes = {
        "dictionary": several,
        "raw units": probes.raw_units(fitted, site, withheld=withheld),
        "principal components": probes.pca(fitted, site, withheld=withheld),
    }
    images = subject.intervened.select(domain=list(subject.pair))
    few_images = images.few(PICTURES_PER_CELL, seed=seed)
    asked: dict[str, Any] = {
        "preprocess": clip.preprocess,
        "classifier": subject.classifier,
        "class_names": subject.images.labels,
    }
    natural, other = subject.pair
    made = {
        "dictionaries": [
            partial(probes.dictionary_quality, several, read.only(site)),
            partial(probes.dictionary_stability, several, seed=seed),
            partial(probes.recovered_accuracy, several[0], clip.visual, few_images, **asked),
        ],
        "feature_sharing": [
            partial(
                probes.feature_sharing, read, site, codes, domains=list(subject.pair), seed=seed,
                n_splits=analysis.n_splits, n_permutations=analysis.n_permutations,
            )
        ],
        "feature_ablation": [
            partial(
                probes.ablate_shared, several[0], clip.visual, few_images, site, source=natural,
                target=other, seed=seed, **asked,
            )
        ],
    }  # fmt: skip
    return subject.file_parts(made)


MEASURE = MeasureSpec(
    "features",
    measure,
    tables=("dictionaries", "feature_sharing", "feature_ablation"),
    option="features",
    seconds=13.5,
    sections=(FEATURES,),
)

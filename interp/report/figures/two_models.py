"""Models of other mixtures beside those of one: stitches both ways, and similarity by layer."""

from dataclasses import replace

from interp.core.errors import sequence
from interp.declared import figures
from interp.report.grammar.figure_rows import FigureRows
from interp.report.loaded import Frame
from interp.report.naming import setting_name

INTO = {
    "into the reference": "the reference, from this model",
    "from the reference": "this model, from the reference",
}
WAY = figures.ChoiceSpec("Goes on", "way", INTO)
DEPTH = figures.AxisSpec("depth, 0 to 1", limits=(0, 1.02))


def _reference(data: FigureRows, rows: Frame) -> str:
    """The mixtures that others are compared with, in words."""
    return sequence([setting_name(str(name)) for name in dict.fromkeys(rows["model_b"])])


STITCHED = figures.FigureSpec(
    "stitches",
    "One model that goes on from another’s layers",
    "curve",
    ("stitching",),
    method="A linear map is fitted to the activations of both models and tried on other artists’ "
    "pictures; the model that goes on is asked for the class.",
    null="The same from the model before training; index 0 stands for it.",
    caption="The reference: {reference}. Index 1: as accurate as from its own layers (or from "
    "another seed of its own mixture, where the study has one). {n}; bars are 95 % intervals over "
    "classes. A stitch can make late layers say any class: see “classes exchanged”.",
    alt="Lines of {settings} over depth",
    facts={"reference": _reference},
    where={"label": [""], "measure": "stitched"},
    needs=("index", "depth"),
    scale=figures.INDEX,
    subjects="settings",
    choices=(figures.TEST_DOMAIN, WAY, figures.PICTURES),
    across="depth",
    x=DEPTH,
    y=figures.AxisSpec("index of what the stitch keeps", from_zero=True, within=(-0.5, 1.5)),
    lines=(figures.LineSpec(0), *figures.threshold_lines()),
    height=400,
)
CONTROLS = figures.FigureSpec(
    "stitch-controls",
    "What a stitch does without sharing",
    "curve",
    ("stitching",),
    method="The same maps, fitted to pictures of other classes, to shuffled pictures, to the model "
    "before training, and there and back.",
    null="Chance among the classes, in shuffled pictures.",
    caption="Accuracy of the model that goes on. {n}; bars are 95 % intervals over classes. Where "
    "“classes exchanged” is as high as the stitch itself, a linear map can say any class there.",
    alt="Lines over depth, one for each kind of stitch",
    where={"label": [""]},
    needs=("value", "depth"),
    subjects="measure",
    choices=(figures.TEST_DOMAIN, figures.ChoiceSpec("Model", "setting"), WAY, figures.PICTURES),
    across="depth",
    x=DEPTH,
    y=figures.AxisSpec("balanced accuracy", percent=True, from_zero=True),
    height=400,
)
ALIKE = figures.FigureSpec(
    "two-models-similarity",
    "How similar two models’ layers are",
    "curve",
    ("model_similarity",),
    method="Debiased CKA of class means, of one model’s layer with the same layer of the other.",
    null="Classes permuted; index 0 stands for it.",
    caption="The reference: {reference}. Index 1: as similar as two halves of the artists allow. "
    "{n}; bars are 95 % intervals over classes.",
    alt="Lines of {settings} over depth",
    facts={"reference": _reference},
    needs=("index", "depth"),
    scale=figures.INDEX,
    subjects="settings",
    choices=(
        figures.TEST_DOMAIN,
        figures.ChoiceSpec(
            "The two see",
            ("domain_a", "domain_b"),
            named=lambda row: f"{row['domain_a']} and {row['domain_b']}",
        ),
    ),
    across="depth",
    x=DEPTH,
    y=figures.AxisSpec("index of similarity", from_zero=True),
    lines=figures.ZERO,
    height=400,
)
TWO_MODELS = figures.SectionSpec(
    "two-models",
    "Do other mixtures build other layers?",
    "Every model beside the reference mixture’s of its block: one goes on from the other’s "
    "activations through a linear map (Bansal et al. 2021) that is fitted to activations, never to "
    "answers (Csiszárik et al. 2021), with the controls that such a claim needs.",
    (STITCHED, CONTROLS, ALIKE),
    note="That a stitch works says that one layer holds what the other model needs, linearly; not "
    "that both got there the same way. Models of one seed begin with the same weights; where a "
    "study has several seeds, the reference is of another.",
    study_only=True,
    optional=("stitching", "model_similarity"),
    gist=figures.GistSpec(
        "stitching",
        "In the middle layers stitches keep {range} of what the models’ own layers give.",
        {"measure": "stitched", "label": ""},
        column="index",
        form="percent",
        middle=True,
    ),
    also=("stitch", "compare models", "reference mixture"),
)

BETWEEN = "Index 1: as accurate as from its own layers. {n}; bars are 95 % intervals over classes. "
MODELS_OF_RESULTS = (
    replace(
        STITCHED,
        name="results-stitched",
        caption=BETWEEN + "A stitch can make late layers say any class: see “classes exchanged”.",
    ),
    replace(CONTROLS, name="results-stitch-controls"),
    replace(
        ALIKE,
        name="results-similar",
        caption="Index 1: as similar as two halves of the artists allow. {n}; bars are 95 % "
        "intervals over classes.",
    ),
)
"""The same figures where the models of two results are compared."""

"""The section on generalization: what each setting gets right, where, by how much they differ."""

from interp.core.declarations.figures import (
    TEST_DOMAIN,
    AxisSpec,
    ChoiceSpec,
    FigureSpec,
    LineSpec,
    Scale,
    SectionSpec,
)
from interp.report.figures.grammar import finished, read_rows
from interp.report.figures.pieces import MAP, Choice, Figure, heat, layout
from interp.report.figures.subjects import TOP_1
from interp.report.loaded import LoadedResult
from interp.report.naming import (
    CANDIDATES,
    CLASS_SETS,
    CLASSIFIERS,
    PROMPTS,
    ordered_settings,
    setting_name,
)

CHANCE = "Chance among the classes that were asked about, and the untrained model."
SHARE = AxisSpec("balanced accuracy", percent=True, from_zero=True)
CLASSES = ChoiceSpec("Classes", "class_set", CLASS_SETS)

ACCURACY = FigureSpec(
    "accuracy",
    "Balanced accuracy on held-out classes in {where}",
    "forest",
    ("accuracy",),
    method="Every picture gets the class whose text embedding is nearest, and classes count alike.",
    null=CHANCE,
    caption="Balanced top-1: mean over classes of each class's accuracy. {n}; bars are 95 % "
    "intervals over {over}. Hollow: the same model untrained; dashed: chance.",
    alt="{numbers}",
    where={"class_set": "held-out", "candidates": list(CANDIDATES)},
    keep=("top-1", "in the test domain", "last epoch or untrained"),
    choices=(
        TEST_DOMAIN,
        ChoiceSpec("Chosen", "candidates", CANDIDATES),
        ChoiceSpec("Asked with", "prompts", PROMPTS),
    ),
    labels="setting",
    floors=True,
    x=SHARE,
)
DIFFERENCES = FigureSpec(
    "differences",
    "Differences between settings on the same held-out classes",
    "forest",
    ("differences",),
    method="The accuracies of two settings are subtracted class by class, on the same pictures.",
    null="No difference, 0; p permutes signs of classes.",
    caption="Paired over classes, in percentage points. {n}; bars are 95 % intervals of the "
    "difference. An interval that reaches over 0 decides nothing.",
    alt="In percentage points: {numbers}",
    keep=("contrasts",),
    needs=("value",),
    scale=Scale("value", "low", "high", times=100),
    choices=(),
    labels=("setting", "test_domain"),
    x=AxisSpec("difference, percentage points"),
    lines=(LineSpec(0, dash="solid"),),
)
BY_DOMAIN = FigureSpec(
    "accuracy-by-domain",
    "Balanced accuracy in each domain",
    "forest",
    ("accuracy",),
    method="The same accuracy is taken in every domain.",
    null=CHANCE,
    caption=f"Balanced top-1 among all classes, {PROMPTS['neutral']}. {{n}}; bars are 95 % "
    "intervals over {over}.",
    alt="Accuracy of {subjects} settings in {labels}",
    where={"candidates": ["all", ""], "control": ""},
    keep=("top-1", "primary prompts", "last epoch"),
    needs=("value",),
    subjects="settings",
    choices=(TEST_DOMAIN, CLASSES),
    labels="domain",
    upright=True,
    x=SHARE,
    height=380,
)
BY_CLASSIFIER = FigureSpec(
    "classifiers",
    "Vision or alignment? Other classifiers on the same embeddings in {where}",
    "forest",
    ("accuracy",),
    method="The text head is replaced by class means or linear probes of training pictures.",
    null=CHANCE,
    caption="Balanced top-1 on held-out classes among all classes. A linear probe of the own "
    "domain is an oracle: it was taught these classes there. {n}; bars are 95 % intervals over "
    "{over}.",
    alt="Accuracy of {rows} settings by {names}",
    where={
        "measure": TOP_1,
        "class_set": "held-out",
        "candidates": "all",
        "classifier": list(CLASSIFIERS),
    },
    keep=("in the test domain", "primary prompts", "last epoch"),
    needs=("value",),
    subjects="classifier",
    subject_names=CLASSIFIERS,
    least=2,
    labels="setting",
    x=SHARE,
)
BY_CLASS = FigureSpec(
    "accuracy-by-class",
    "Accuracy of each held-out class",
    "classes",
    ("accuracy_by_class",),
    method="The pictures of each class that are named rightly are counted.",
    null=CHANCE,
    caption="Share of a class's pictures that are named rightly among all classes. {n}; single "
    "classes have no interval. The hardest class is at the bottom.",
    alt="Heat map of {rows} classes by {columns} settings",
    where={"control": "", "candidates": ["all", ""]},
    keep=("text head", "in the test domain", "primary prompts"),
)
GENERALIZATION = SectionSpec(
    "generalization",
    "Generalization",
    "Zero-shot: a picture gets the class whose averaged text embedding is nearest by cosine. "
    "Balanced top-1 = mean over classes of each class's accuracy. Differences are paired.",
    (ACCURACY, DIFFERENCES, BY_DOMAIN, BY_CLASSIFIER, BY_CLASS),
    ("accuracy", "differences", "accuracy_by_class"),
    note="A setting can be worse among all classes merely because it prefers seen ones; "
    "among the held-out classes only, that preference cannot play.",
)


def accuracy_by_class_figure(result: LoadedResult, spec: FigureSpec) -> Figure | None:
    """Accuracy of every held-out class in the test domain, class by setting."""
    rows = read_rows(result, spec)
    held_out = result.specification.get("held_out")
    if (rows["class_set"] == "held-out").any():  # which classes they are may differ by block
        rows = rows[rows["class_set"] == "held-out"]
    elif isinstance(held_out, list) and held_out:
        rows = rows[rows["label"].isin([str(name) for name in held_out])]
    if rows["value"].notna().sum() == 0:
        return None
    settings = ordered_settings(rows["setting"])
    traces, most = [], 0
    domains = [name for name in result.test_domains if name in set(rows["test_domain"])]
    for place, test_domain in enumerate(domains):
        here = rows[rows["test_domain"] == test_domain]
        grid = here.pivot_table(index="label", columns="setting", values="value", dropna=False)
        grid = grid.reindex(columns=settings)
        grid = grid.loc[grid.mean(axis=1).sort_values(kind="stable").index]
        names = [setting_name(name) for name in settings]
        labels = [_distinct(str(label), number) for number, label in enumerate(grid.index)]
        traces.append(heat(grid.to_numpy().tolist(), names, labels, title="accuracy", meta=[place]))
        most = max(most, len(grid))
    shape = layout(100 + 24 * most, xaxis=MAP, yaxis=MAP)
    said = {"rows": most, "columns": len(settings)}
    return finished(spec, result, rows, traces, shape, [Choice("Test domain", domains)], **said)


def _distinct(label: str, place: int) -> str:
    """A label that stays its own row when names are cut: long ones get their number."""
    return label if len(label) <= 20 else f"{label[:14]}… ({place + 1})"

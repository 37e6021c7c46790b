"""Zero-shot accuracy in every domain, by class, prompt set and classifier."""

from collections.abc import Sequence
from functools import cache

from interp import models
from interp.core.progress import say
from interp.data.mixtures.templates import PAPER, PROMPT_SETS, PromptSet
from interp.declared import figures
from interp.declared.measures import EVERY_KIND, MeasureSpec, RowUnits
from interp.declared.writing import CANDIDATES, CLASSIFIERS, PROMPTS
from interp.measures.subject import Frames, Subject

ACCURACY = figures.FigureSpec(
    "accuracy",
    "Balanced accuracy on held-out classes in {where}",
    "forest",
    method="Every picture gets the class whose text embedding is nearest, and classes count alike.",
    null=figures.CHANCE,
    caption="Balanced top-1: mean over classes of each class's accuracy. {n}; bars are 95 % "
    "intervals over {over}. Hollow: the same model untrained; dashed: chance.",
    alt="{numbers}",
    where={"class_set": "held-out", "candidates": list(CANDIDATES)},
    keep=("top-1", "in the test domain", "last epoch or untrained"),
    choices=(
        figures.TEST_DOMAIN,
        figures.ChoiceSpec("Chosen", "candidates", CANDIDATES),
        figures.ChoiceSpec("Asked with", "prompts", PROMPTS),
    ),
    labels="setting",
    floors=True,
    x=figures.SHARE,
)

DIFFERENCES = figures.FigureSpec(
    "differences",
    "Differences between settings on the same held-out classes",
    "forest",
    method="The accuracies of two settings are subtracted class by class, on the same pictures. "
    "Where there are several blocks, one crossed model of all runs (setting fixed; block, setting "
    "x block and class random; test domains averaged) gives interval and p.",
    null="No difference, 0: an interval that leaves it out has p < .05. One block has no p.",
    caption="Paired over classes, in percentage points. {n}; bars are 95 % intervals of the "
    "difference, over {over}. An interval that reaches over 0 decides nothing.",
    alt="In percentage points: {numbers}",
    keep=("contrasts",),
    needs=("value",),
    scale=figures.Scale("value", "low", "high", times=100),
    choices=(),
    labels=("setting", "test_domain"),
    x=figures.AxisSpec("difference, percentage points"),
    lines=figures.NO_CHANGE,
)

BY_DOMAIN = figures.FigureSpec(
    "accuracy-by-domain",
    "Balanced accuracy in each domain",
    "forest",
    ("accuracy",),
    method="The same accuracy is taken in every domain.",
    null=figures.CHANCE,
    caption=f"Balanced top-1 among all classes, {PROMPTS['neutral']}. {{n}}; bars are 95 % "
    "intervals over {over}.",
    where={"candidates": ["all", ""], "control": ""},
    keep=("top-1", "primary prompts", "last epoch"),
    needs=("value",),
    subjects="settings",
    choices=(figures.TEST_DOMAIN, figures.CLASSES),
    labels="domain",
    upright=True,
    x=figures.SHARE,
    height=380,
)

BY_CLASSIFIER = figures.FigureSpec(
    "classifiers",
    "Vision or alignment? Other classifiers on the same embeddings in {where}",
    "forest",
    ("accuracy",),
    method="The text head is replaced by class means or linear probes of training pictures.",
    null=figures.CHANCE,
    caption="Balanced top-1 on held-out classes among all classes. A linear probe of the own "
    "domain is an oracle: it was taught these classes there. {n}; bars are 95 % intervals over "
    "{over}.",
    where={
        "measure": "balanced top-1",
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
    x=figures.SHARE,
)

BY_CLASS = figures.FigureSpec(
    "accuracy-by-class",
    "Accuracy of each held-out class",
    "classes",
    method="The pictures of each class that are named rightly are counted.",
    null=figures.CHANCE,
    caption="Share of a class's pictures that are named rightly among all classes. {n}; single "
    "classes have no interval. The hardest class is at the bottom.",
    alt="Heat map of {rows} classes by {columns} settings",
    where={"control": "", "candidates": ["all", ""]},
    keep=("text head", "in the test domain", "primary prompts"),
)

GENERALIZATION = figures.SectionSpec(
    "generalization",
    "Generalization",
    "Zero-shot: a picture gets the class whose averaged text embedding is nearest by cosine. "
    "Balanced top-1 = mean over classes of each class's accuracy. Differences are paired.",
    (ACCURACY, DIFFERENCES, BY_DOMAIN, BY_CLASSIFIER, BY_CLASS),
    ("accuracy", "differences", "accuracy_by_class"),
    part="accuracy",
    note="A setting can be worse among all classes merely because it prefers seen ones; "
    "among the held-out classes only, that preference cannot play.",
)

EXCESS_BIAS = figures.FigureSpec(
    "decision-bias",
    "How far logits are set against held-out classes in {where}",
    "forest",
    ("decision_bias",),
    method="The bias off seen classes' logits that makes the harmonic mean of seen and held-out "
    "accuracy largest, less the same in natural pictures.",
    null="The same where random seen classes stand for held-out ones.",
    caption="In logits; above 0 the model prefers classes that it saw in this domain. {n}; bars "
    "are 95 % intervals over {over}.",
    alt="In logits: {numbers}",
    where={"measure": models.EXCESS_BIAS},
    keep=("in the test domain", "last epoch"),
    needs=("value",),
    choices=(figures.TEST_DOMAIN, figures.ChoiceSpec("Asked with", "prompts", PROMPTS)),
    labels="setting",
    x=figures.AxisSpec("excess bias, logits"),
    lines=figures.ZERO,
)

DECISION = figures.SectionSpec(
    "decision",
    "Known and not said?",
    "A class can be known in a domain and never be named there, because the model prefers classes "
    "that it saw there. A bias against these undoes it (Chao et al. 2016).",
    (EXCESS_BIAS,),
    part="accuracy",
    note="Accuracy among held-out classes alone says what is known; the bias, what is not said.",
    gist=figures.GistSpec(
        "decision_bias",
        "Logits are set against held-out classes in the test domain by {range}.",
        {"measure": models.EXCESS_BIAS, "prompts": "neutral"},
    ),
)


def prompt_sets(
    domains: Sequence[str], clip: "models.Clip | None" = None, class_names: Sequence[str] = ()
) -> dict[str, PromptSet]:
    """The named prompt sets, neutral first, each asking about pictures of a domain.

    The paper's 86 prompts are among them if `clip` is given and its tokenizer can read them; if it
    cannot (a small model of a study's own words), that is said.
    """
    sets = {name: PromptSet(name, tuple(domains)) for name in PROMPT_SETS if name != PAPER}
    if clip is None:
        return sets
    from interp.models.clip import write
    from interp.models.loading.presets import unreadable

    asked = PromptSet(PAPER, tuple(domains))
    sentences = [write(template, label) for template in asked("") for label in class_names]
    why = unreadable(clip.tokenizer, sentences)
    if why:
        _say_once(f"the prompt set {PAPER!r} is left out: {why}")
        return sets
    return sets | {PAPER: asked}


@cache
def _say_once(text: str) -> None:
    say(text)


def _sets_for(subject: Subject) -> dict[str, PromptSet]:
    domains = subject.test.domains
    if isinstance(subject.clip, models.Clip):
        return prompt_sets(domains, subject.clip, subject.images.labels)
    return {"neutral": PromptSet("neutral", tuple(domains))}


def measure(subject: Subject) -> Frames:
    """The model's tables `accuracy`, `accuracy_by_class` and `tradeoff`.

    Training pictures, where there are any, also teach classifiers that need no text. A supervised
    model has no text to ask with, and its answers stand as those to neutral prompts.
    """
    tables = models.evaluate(
        subject.clip,
        subject.test,
        _sets_for(subject),
        class_names=subject.images.labels,
        held_out=subject.held_out,
        training=subject.training,
        natural=subject.pair[0],
        seed=subject.seed,
    )
    return {name: subject.file(table) for name, table in tables.items() if len(table)}


ACCURACIES = ("accuracy", "accuracy_by_class", "tradeoff")
MEASURE = MeasureSpec(
    "accuracy",
    measure,
    tables=ACCURACIES,
    bare=ACCURACIES,
    of=EVERY_KIND,
    seconds=7.1,
    units={"accuracy": RowUnits("accuracy_by_class", "label")},
    sections=(GENERALIZATION,),
)


def measure_decision_bias(subject: Subject) -> Frames:
    """The table `decision_bias`: where something is held out in the pair's second domain."""
    if not subject.held_out:
        return {}
    test, labels = subject.test.select(domain=list(subject.pair)), subject.images.labels
    found = models.decision_bias(
        subject.clip,
        test,
        subject.held_out,
        class_names=labels,
        natural=subject.pair[0],
        prompts=_sets_for(subject),
        seed=subject.seed,
    )
    return {"decision_bias": subject.file(found.table.frame)}


DECISION_BIAS = MeasureSpec(
    "decision_bias", measure_decision_bias, seconds=3.0, sections=(DECISION,)
)

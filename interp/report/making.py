"""How every figure was made: its method in a sentence, its null, its tables and its command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from interp.report.figures.pieces import Figure
from interp.report.loaded import LoadedResult

FREE = "None: these are counts or readings, held against nothing."


@dataclass(frozen=True)
class Making:
    """What stands under a figure: `method` in a sentence, its `null`, and the tables behind it."""

    method: str
    null: str
    tables: Sequence[str]


CHANCE = "Chance among the classes that were asked about, and the untrained model."
PERMUTED = "Classes permuted as wholes; index 0 stands for it."

MADE = {
    "answer": Making(
        "Each model's zero-shot accuracy is set against the index of debiased CKA of class means, "
        "averaged over its middle layers; for one checkpoint, that index is drawn by depth.",
        f"Across, {PERMUTED[0].lower()}{PERMUTED[1:]} Up, chance and the untrained model.",
        ("accuracy", "similarity"),
    ),
    "mixtures": Making("The training pictures of each setting are counted.", FREE, ("mixtures",)),
    "losses": Making(
        "The contrastive loss of the training batches is averaged over each epoch.",
        "None is drawn; random guessing costs the logarithm of the batch size.",
        ("losses",),
    ),
    "accuracy": Making(
        "Every picture gets the class whose text embedding is nearest, and classes count alike.",
        CHANCE,
        ("accuracy",),
    ),
    "differences": Making(
        "The accuracies of two settings are subtracted class by class, on the same pictures.",
        "No difference, 0; p permutes signs of classes.",
        ("differences",),
    ),
    "accuracy-by-domain": Making(
        "The same accuracy is taken in every domain.", CHANCE, ("accuracy",)
    ),
    "classifiers": Making(
        "The text head is replaced by class means or linear probes of training pictures.",
        CHANCE,
        ("accuracy",),
    ),
    "accuracy-by-class": Making(
        "The pictures of each class that are named rightly are counted.",
        CHANCE,
        ("accuracy_by_class",),
    ),
    "tradeoff": Making(
        "A growing bias is taken off the logits of seen classes; each step gives a point.",
        "The area under the line of random logits.",
        ("tradeoff", "accuracy"),
    ),
    "exposure": Making(
        "Each class's accuracy is ranked against its number of training pictures.",
        "No rank correlation, 0.",
        ("exposure", "exposure_classes"),
    ),
    "robustness": Making(
        "A line from accuracy in natural pictures to accuracy in the test domain is fitted to "
        "reference models, and each model's distance from it is taken.",
        "The line itself, 0.",
        ("robustness",),
    ),
    "epochs": Making("The accuracy of every kept epoch is taken.", CHANCE, ("epochs",)),
    "ladder": Making(
        "Every measure between two domains is turned into an index, and a band of layers gets the "
        "verdict on which all its sites agree.",
        "Each rung's own null, at index 0.",
        ("ladder", "rungs"),
    ),
    "sharing-profile": Making(
        "Every rung's index is drawn site by site, or third by third for circuits.",
        "Each rung's own null, at index 0; the untrained model and raw pixels are further floors.",
        ("rungs",),
    ),
    "similarity": Making(
        "Debiased linear CKA compares how the class means lie in two domains.",
        PERMUTED,
        ("similarity",),
    ),
    "domain-map": Making(
        "Debiased linear CKA compares how the class means lie in each two domains.",
        PERMUTED,
        ("similarity",),
    ),
    "transfer": Making(
        "A linear probe fitted in one domain is tested in the other, on other artists' drawings.",
        "The same probe on permuted labels; index 0 stands for it.",
        ("transfer",),
    ),
    "directions": Making(
        "The direction in which a class differs from all others is compared between domains.",
        PERMUTED,
        ("directions",),
    ),
    "probe-map": Making(
        "A linear probe fitted in one domain is tested in every other.",
        "The same probe on permuted labels.",
        ("transfer",),
    ),
    "selectivity": Making(
        "A probe of the class is compared with one of random classes given to whole groups.",
        "The probe of random classes; 0 stands for it.",
        ("selectivity",),
    ),
    "factors": Making(
        "The features' variance is split into class, domain, both jointly, and the rest.",
        "Classes permuted within each domain.",
        ("factorisation",),
    ),
    "angle": Making(
        "The squared cosine between the effects of class and of domain is taken.",
        "Random directions of the variation within a class and domain.",
        ("factorisation",),
    ),
    "apart": Making(
        "A classifier of the domain is tested on classes and artists that it never saw.",
        "The same classifier on permuted domain labels.",
        ("separation", "domain_probes"),
    ),
    "views": Making(
        "Pictures are laid out by the two directions in which their features vary most.",
        FREE,
        ("views",),
    ),
    "feature-sharing": Making(
        "What a class uses of a dictionary's features in one domain is compared with the other.",
        "Other classes that are as active; index 0 stands for them.",
        ("feature_sharing", "dictionaries"),
    ),
    "feature-ablation": Making(
        "Features are replaced by those of another picture while the model runs on.",
        "No change, 0; matched features of the other kind stand beside it.",
        ("feature_ablation",),
    ),
    "erasure": Making(
        "The domain is projected out of one layer while the model runs on.",
        "Erasing permuted domains, or as much variance at random.",
        ("erasure",),
    ),
    "patching": Making(
        "One activation of the corrupt run is replaced by the clean run's, pair by pair.",
        "A donor of a third class, or no patch; index 0 stands for it.",
        ("patching", "patching_examples"),
    ),
    "faithfulness": Making(
        "The best-scored parts run alone, and the model runs without them, at every size.",
        "Random circuits as large.",
        ("faithfulness",),
    ),
    "circuit": Making(
        "Every edge is scored by the gradient along the way from one picture to another.",
        "None: whether such a circuit does the work is tested in the figure of faithfulness.",
        ("circuits",),
    ),
    "transplant": Making(
        "An activation of a class in A takes the place of another class's in B.",
        "A donor of another class of A; index 0 stands for it.",
        ("transplant",),
    ),
    "das": Making(
        "The subspace that carries the class in A is interchanged between pictures of B.",
        "A donor of a third class; index 0 stands for it.",
        ("das",),
    ),
    "circuits-abroad": Making(
        "A circuit found in A runs on pictures of B, all else as in another class's picture.",
        "Circuits of other classes, as large; random parts are drawn beside them.",
        ("circuit_transfer",),
    ),
    "steady": Making(
        "Pictures of every class are drawn again, with replacement, and the circuit anew.",
        "As many parts of each layer, drawn by chance.",
        ("circuit_stability",),
    ),
    "certificate": Making(
        "Every activation of our towers is held against the original's.",
        "None: an error is compared with what may pass.",
        ("certificate",),
    ),
}
"""Figures by name; one that is not here takes its section's method and tables."""


def how_made(
    result: LoadedResult, figure: Figure, method: str = "", tables: Sequence[str] = ()
) -> Making:
    """What stands under a figure, with those of its tables that the result has."""
    made = MADE.get(figure.name, Making(method, "See the caption.", tables))
    return Making(made.method, made.null, [name for name in made.tables if name in result.tables])


def shown_commands(result: LoadedResult) -> list[tuple[str, str]]:
    """What to type: the command that measured, and the one that draws the page again.

    >>> from pathlib import Path
    >>> made = LoadedResult(Path("."), {"command": "interp-report run a.toml --out 'my run'"}, {})
    >>> [command for command, _ in shown_commands(made)]
    ["interp-report run a.toml --out 'my run'", "interp-report page --out 'my run'"]
    """
    given = result.facts.get("command")
    measured = given if isinstance(given, str) and given else "interp-report"
    again = f"interp-report page --out {shlex.quote(_out(measured))}"
    return [(measured, "measures it"), (again, "draws it again from the tables")]


def _out(command: str) -> str:
    """The folder that a command names for its results."""
    try:
        words = shlex.split(command)
    except ValueError:  # an unpaired quote
        return "interp-report"
    for place, word in enumerate(words):
        if word == "--out" and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return "interp-report"

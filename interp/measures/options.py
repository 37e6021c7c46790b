"""What is measured on each trained model, and how often."""

from dataclasses import field
from typing import Annotated

from pydantic.dataclasses import dataclass

from interp.core.fields import Declared, Flag, Names, Text, at_least, one_of
from interp.core.storage.store import LATER

PAIRS = ("own", "one model", "all")


@dataclass(frozen=True)
class AnalysisSpec(Declared):
    """What is measured on each trained model, and how often.

    `representation` are directions, factors, separation and selectivity by layer; `erasure` takes
    the domain out at the middle site, against `n_controls` draws of each control; `features` trains
    dictionaries there, on `n_dictionary_pictures` of every class and domain; `circuits` finds the
    parts that make the class, and tests them, on `n_circuit_pairs` pairs each.

    Causal directions, parts and wiring (R4 to R6) are compared between the natural and the test
    domain in every model. `pairs` says where also between all others, on `n_pair_classes` classes:
    "own" nowhere, "one model" in the last setting's first model, "all" in every model. Of six
    domains that takes about two minutes a model of one core.

    Of more classes than `n_circuit_classes`, so many are drawn for what runs the model again:
    causal directions, circuits and replaced features. They hold all of these classes' pictures,
    circuits cost in step with classes, and intervals shrink with the square root.

    At most `n_cell_pictures` pictures of a class in a domain are analysed; 0 takes all.

    `multiverse` asks R5 and R6 of that pair again under every reasonable choice, in every trained
    model. It takes many times what they take once, so it is off.

    `epochs` names the measures that are taken on kept epochs before the last as well, such as
    "accuracy", "similarity", "transfer" and "directions" (R1 to R3).
    """

    asked = "measure models"

    n_pairs: Annotated[int, at_least(2)] = 60
    n_transplants: Annotated[int, at_least(2)] = 240
    n_circuit_pairs: Annotated[int, at_least(2)] = 30
    pairs: Annotated[Text, one_of(PAIRS)] = "one model"
    n_pair_classes: Annotated[int, at_least(4)] = 15
    n_circuit_classes: Annotated[int, at_least(4)] = field(default=60, metadata=LATER)
    n_cell_pictures: Annotated[int, at_least(0)] = field(default=0, metadata=LATER)
    n_permutations: Annotated[int, at_least(19)] = 999
    n_splits: Annotated[int, at_least(1)] = 5
    n_controls: Annotated[int, at_least(2)] = 5
    n_dictionary_pictures: Annotated[int, at_least(2)] = 30
    dictionary_seeds: Annotated[int, at_least(2)] = 2
    dictionary_steps: Annotated[int, at_least(1)] = 600
    n_active: Annotated[int, at_least(1)] = 16
    transfer: Flag = True
    patching: Flag = True
    representation: Flag = True
    erasure: Flag = True
    features: Flag = True
    circuits: Flag = True
    multiverse: Flag = field(default=False, metadata=LATER)
    epochs: Names = field(default=(), metadata=LATER)

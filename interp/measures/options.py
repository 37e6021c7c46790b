"""What is measured on each trained model, and how often."""

from dataclasses import dataclass

from interp.core.errors import SpecificationError, check_known

PAIRS = ("own", "one model", "all")


@dataclass(frozen=True)
class AnalysisSpec:
    """What is measured on each trained model, and how often.

    `representation` are directions, factors, separation and selectivity by layer; `erasure` takes
    the domain out at the middle site, against `n_controls` draws of each control; `features` trains
    dictionaries there, on `n_dictionary_pictures` of every class and domain; `circuits` finds the
    parts that make the class, and tests them, on `n_circuit_pairs` pairs each.

    Causal directions, parts and wiring (R4 to R6) are compared between the natural and the test
    domain in every model. `pairs` says where also between all others, on `n_pair_classes` classes:
    "own" nowhere, "one model" in the last setting's first model, "all" in every model. Of six
    domains that takes about two minutes a model of one core.
    """

    n_pairs: int = 60
    n_transplants: int = 240
    n_circuit_pairs: int = 30
    pairs: str = "one model"
    n_pair_classes: int = 15
    n_permutations: int = 999
    n_splits: int = 5
    n_controls: int = 5
    n_dictionary_pictures: int = 30
    dictionary_seeds: int = 2
    dictionary_steps: int = 600
    n_active: int = 16
    transfer: bool = True
    patching: bool = True
    representation: bool = True
    erasure: bool = True
    features: bool = True
    circuits: bool = True

    def __post_init__(self) -> None:
        check_known("compare domains", "choice of pairs", [self.pairs], PAIRS, SpecificationError)
        least = {
            "n_circuit_pairs": 2,
            "n_pair_classes": 4,
            "n_pairs": 2,
            "n_transplants": 2,
            "n_permutations": 19,
            "n_splits": 1,
        }
        least |= {"n_controls": 2, "n_dictionary_pictures": 2, "dictionary_seeds": 2}
        least |= {"dictionary_steps": 1, "n_active": 1}
        for name, at_least in least.items():
            if getattr(self, name) < at_least:
                raise SpecificationError(
                    "measure models",
                    f"{name} = {getattr(self, name)}",
                    f"at least {at_least}",
                    "mend [analysis]",
                )

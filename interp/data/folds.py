"""Which classes are held out: the paper's fifteen, some drawn at random, or each once in folds."""

from collections.abc import Sequence

import numpy as np

from interp.core.errors import SpecificationError
from interp.core.seeds import rng

PAPER_HELD_OUT = (
    "aircraft_carrier",
    "axe",
    "banana",
    "barn",
    "bed",
    "candle",
    "lion",
    "mountain",
    "necklace",
    "penguin",
    "pizza",
    "saxophone",
    "television",
    "tractor",
    "traffic_light",
)
"""The classes C2 of Kempf et al. (2025), under DomainNet's names."""


def choose_held_out(labels: Sequence[str], n: int, *, seed: int = 0) -> tuple[str, ...]:
    """`n` classes to withhold, drawn at random but repeatably.

    >>> choose_held_out(["cat", "dog", "owl"], 1)
    ('dog',)
    """
    if not 1 <= n < len(labels):
        raise SpecificationError(
            "hold out classes",
            f"{n} of {len(labels)}",
            f"1 to {len(labels) - 1}",
            "choose another number",
        )
    order = rng("held-out classes", seed).permutation(sorted(labels))
    return tuple(str(label) for label in np.sort(order[:n]))


def class_folds(
    labels: Sequence[str], n_folds: int, *, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Classes dealt into folds at random but repeatably: every class is held out exactly once.

    Sizes differ by one at most. With one fold per block, a finding does not hang on which classes
    happened to be held out.

    >>> class_folds(["ant", "bee", "cat", "dog", "owl"], 2)
    (('ant', 'dog', 'owl'), ('bee', 'cat'))
    """
    names = sorted(set(labels))
    if not 2 <= n_folds <= len(names):
        raise SpecificationError(
            "deal classes into folds",
            f"{n_folds} folds of {len(names)} classes",
            f"2 to {len(names)} folds",
            "choose another number",
        )
    order = rng("class folds", seed).permutation(names)
    return tuple(
        tuple(sorted(str(label) for label in order[fold::n_folds])) for fold in range(n_folds)
    )

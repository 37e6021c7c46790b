"""Search for the names of classes and domains in captions."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

GAP = r"[\s_-]*"
"""What may stand between the parts of a name: `traffic light`, `traffic_light`, `trafficlight`."""


def pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Compile one expression for any of the names as whole words, singular or plural.

    Args:
        names: The names.

    Returns:
        The expression; None without names.

    >>> found = pattern(["traffic_light", "strawberry", "bus"])
    >>> [bool(found.search(text)) for text in
    ...  ("two Traffic-lights", "strawberries", "a school bus", "busy", "a light")]
    [True, True, True, False, False]
    """
    forms = [_forms(name) for name in sorted(set(names), key=len, reverse=True)]
    if not forms:
        return None
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(forms)})(?![^\W_])", re.IGNORECASE)


def _forms(name: str) -> str:
    """An expression for the singular and the regular plurals of a name."""
    words = [re.escape(word) for word in re.split(r"[\s_-]+", name.strip()) if word]
    *first, last = words or [re.escape(name)]
    if last.endswith("y"):
        last = f"{last[:-1]}(?:y|ys|ies)"
    elif last.endswith("fe"):
        last = f"{last[:-2]}(?:fe|fes|ves)"
    elif last.endswith("f"):
        last = f"{last[:-1]}(?:f|fs|ves)"
    elif last.endswith("man"):
        last = f"{last[:-3]}(?:man|men)"
    elif last.endswith("s"):
        last = f"{last[:-1]}(?:s|ses)?"  # scissors, bus; a name in the plural also in the singular
    else:
        last = f"{last}(?:s|es)?"
    return GAP.join([*first, last])


def mentions(texts: pd.Series, names: Iterable[str]) -> np.ndarray:
    """Which of the texts contain any of the names.

    Args:
        texts: The texts; each distinct one is searched once.
        names: The names.

    Returns:
        A Boolean per text.

    >>> mentions(pd.Series(["a drawing of a lion", "a photo of a cat"]), ["lion"]).tolist()
    [True, False]
    """
    expression = pattern(names)
    if expression is None or not len(texts):
        return np.zeros(len(texts), dtype=bool)
    text_of_row, distinct = pd.factorize(texts)
    named = np.array([bool(expression.search(str(text))) for text in distinct], dtype=bool)
    return named[text_of_row]

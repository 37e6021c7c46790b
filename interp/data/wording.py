"""Find the classes and domains that a caption names, in whatever number and spelling of spaces."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

GAP = r"[\s_-]*"
"""What may stand between the parts of a name: `traffic light`, `traffic_light`, `trafficlight`."""


def pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """One expression for any of the names as whole words, singular or plural; None without names.

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
    """The singular and the regular plurals of a name."""
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
    """Which of the texts name any of the names; each distinct text is read once.

    >>> mentions(pd.Series(["a drawing of a lion", "a photo of a cat"]), ["lion"]).tolist()
    [True, False]
    """
    expression = pattern(names)
    if expression is None or not len(texts):
        return np.zeros(len(texts), dtype=bool)
    place, distinct = pd.factorize(texts)
    named = np.array([bool(expression.search(str(text))) for text in distinct], dtype=bool)
    return named[place]

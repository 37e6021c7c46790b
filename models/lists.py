"""Training lists: the rows of a mixture's TSV, and the numbers of its classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from interp.core.errors import DataError, listed


def read_tsv(tsv: Path, column: str) -> pd.DataFrame:
    """The columns `filepath` and `column` of a training TSV, as words ("null" may be a class)."""
    try:
        frame = pd.read_csv(tsv, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"train on {tsv}", f"a file that does not read ({error})", "a TSV", "check the path"
        ) from None
    missing = [name for name in ("filepath", column) if name not in frame.columns]
    if missing or frame.empty:
        given = f"no column {listed(missing)}" if missing else "no rows"
        raise DataError(
            f"train on {tsv}", given, f"rows with filepath and {column}", "make the mixture again"
        )
    return frame[["filepath", column]]


def classes_of(tsv: Path) -> tuple[str, ...]:
    """The class names of a training TSV, sorted; a label's place among them is its number."""
    labels = read_tsv(tsv, "label")["label"]
    without = int((labels == "").sum())
    if without:
        raise DataError(
            f"train on the labels of {tsv}",
            f"{without} rows without a label",
            "a class for every row",
            "leave the base set out of the mixture, or name its classes",
        )
    return tuple(sorted(set(labels)))


def numbering(classes: Sequence[str]) -> Callable[[list[str]], Tensor]:
    """From class names to their numbers.

    >>> numbering(["cat", "dog"])(["dog"])
    tensor([1])
    """
    number = {name: place for place, name in enumerate(classes)}
    return lambda names: torch.tensor([number[name] for name in names])

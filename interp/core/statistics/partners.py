"""Partners of rows: for each, another that agrees in some columns and differs in others."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from interp.core.errors import SampleError, listed
from interp.core.seeds import rng


def partners(
    frame: pd.DataFrame,
    agree: Sequence[str],
    disagree: Sequence[str],
    clean: str | None,
    n: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Clean rows and their partners, drawn at random; `n` of them, spread over the labels.

    `clean` is what the clean row has in the first column of `disagree`; None takes every row.
    Raises `SampleError` where no row has a partner.
    """
    generator = rng("pairs", seed)
    first, second = [], []
    for _, group in frame.groupby(list(agree), sort=True, observed=True):
        keys = group[list(disagree)].to_numpy(dtype=object)
        for position, drawn in enumerate(_drawn(keys, generator)):
            if drawn is not None and (clean is None or str(keys[position][0]) == clean):
                first.append(group.index[position])
                second.append(group.index[drawn])
    if not first:
        raise SampleError(
            f"pair pictures of the same {listed(agree)} and different {listed(disagree)}",
            f"{len(frame)} pictures none of which has a partner{_alone(frame, agree)}",
            "at least two such pictures",
            "give more pictures or ask for less",
        )
    chosen = spread(frame["label"].iloc[first].to_numpy(), n, generator)
    return np.asarray(first)[chosen], np.asarray(second)[chosen]


def _drawn(keys: np.ndarray, generator: np.random.Generator) -> Iterator[int | None]:
    """For each row of `keys` one at random that differs in all columns; None where there is none.

    Of one column, those that differ are counted and the one drawn is found among them. Comparing
    each row with all others would cost their square.

    >>> list(_drawn(np.array([["a"], ["a"], ["b"]], dtype=object), np.random.default_rng(0)))[:2]
    [2, 2]
    """
    code = pd.factorize(keys[:, 0])[0]
    if keys.shape[1] > 1 or (code < 0).any():  # a missing value differs from itself
        for key in keys:
            apart = np.flatnonzero((keys != key).all(axis=1))
            yield int(generator.choice(apart)) if len(apart) else None
        return
    alike = pd.Series(code).groupby(code).indices
    before = {each: rows - np.arange(len(rows)) for each, rows in alike.items()}
    for own in code:
        n = len(code) - len(alike[own])
        if n == 0:
            yield None
        else:
            place = int(generator.choice(n))
            yield place + int(np.searchsorted(before[own], place, side="right"))


def _alone(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Of columns in which every picture differs from all others, which to agree in cannot be."""
    single = [name for name in columns if len(frame) > 1 and frame[name].is_unique]
    return f" ({listed(single)} is another in every picture)" if single else ""


def spread(labels: np.ndarray, n: int | None, generator: np.random.Generator) -> np.ndarray:
    """Positions of `n` items spread evenly over labels: one of each label, then a second one."""
    order = generator.permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    ranked = order[np.argsort(turn, kind="stable")]
    return np.sort(ranked if n is None else ranked[:n])

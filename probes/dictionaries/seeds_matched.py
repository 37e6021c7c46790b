"""Stability of dictionaries over seeds: features matched one to one by their directions."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from interp.core.errors import SampleError, ShapeError
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import jackknife, permutation_p
from interp.core.tables import Table
from interp.probes.dictionaries.dictionary import Dictionary

SAME = 0.7
"""Cosine from which two features count as one (Paulo and Belrose 2025)."""


def match_features(first: Dictionary, second: Dictionary) -> tuple[np.ndarray, np.ndarray]:
    """Match the features of two dictionaries one to one by the cosines of their directions.

    Args:
        first: A dictionary.
        second: Another dictionary of the same activations.

    Returns:
        For each feature of `first` its partner in `second`, and the cosine of their directions.

    Raises:
        ShapeError: For dictionaries of activations of different width.

    Notes:
        The assignment has the largest sum of cosines (Hungarian method). Where `second` is
        narrower, features that are left over have partner -1 and cosine 0.

    >>> import torch
    >>> eye, zero = torch.eye(3), torch.zeros(3)
    >>> one = Dictionary(eye, eye, zero, zero, zero)
    >>> other = Dictionary(eye, eye[[2, 0, 1]], zero, zero, zero)
    >>> match_features(one, other)[0].tolist()
    [1, 2, 0]
    """
    if first.d_in != second.d_in:
        raise ShapeError(
            "match the features of two dictionaries",
            f"activations of {first.d_in} and {second.d_in} values",
            "dictionaries of one site",
            "train both on the same activations",
        )
    return _assigned(_directions(first), _directions(second))


@door
def dictionary_stability(
    dictionaries: Sequence[Dictionary], *, n_null: int = 20, seed: int = 0
) -> Table:
    """Measure how far dictionaries of one site, trained from other seeds, hold the same features.

        mean cosine    = mean over features of the cosine with their partner in `match_features`
        same features  = share of features whose cosine with their partner is at least .7

    averaged over pairs of dictionaries.

    Args:
        dictionaries: At least two dictionaries of the same activations.
        n_null: Draws of random directions for the null.
        seed: Seed of these draws.

    Returns:
        A table with a row per measure.

    Raises:
        SampleError: For fewer than two dictionaries.
        ShapeError: For dictionaries of activations of different width.

    References:
        The cosine of .7: Paulo and Belrose 2025.

    Notes:
        For the null, the directions of one dictionary of each pair are drawn at random with the
        second moments that they have. The ceiling is 1. The interval leaves one dictionary out at a
        time and takes at least three.

    >>> import torch
    >>> eye, zero = torch.eye(8), torch.zeros(8)
    >>> one = Dictionary(eye, eye, zero, zero, zero, facts={"site": "hook_embedding"})
    >>> dictionary_stability([one, one]).frame["value"].tolist()
    [1.0, 1.0]
    """
    if len(dictionaries) < 2:
        raise SampleError(
            "compare dictionaries over seeds",
            f"{len(dictionaries)} of them",
            "at least two",
            "train with seeds=(0, 1, 2)",
        )
    pairs = list(combinations(range(len(dictionaries)), 2))
    both = [(dictionaries[i], dictionaries[j]) for i, j in pairs]
    found = np.array([_agreement(match_features(*pair)[1]) for pair in both])
    null = np.array(
        [
            [_agreement(_by_chance(*pair, seed, draw, n)) for n, pair in enumerate(both)]
            for draw in range(n_null)
        ]
    ).mean(axis=1)
    left = [
        found[[one not in pair for pair in pairs]].mean(axis=0)
        for one in range(len(dictionaries))
        if len(dictionaries) > 2
    ]
    about = Evidence(
        estimand="features that training from another seed would find again",
        null_kind=f"directions at random with the same second moments, {n_null} times",
        ceiling_kind="the same dictionary",
        unit="dictionary",
        seed=seed,
        n_units=len(dictionaries),
        n_pictures=int(dictionaries[0].facts.get("n_rows", 0)),
    )
    rows = []
    for place, measure in enumerate(("mean cosine", "same features")):
        value, chance = float(found[:, place].mean()), float(null[:, place].mean())
        rows.append(
            {
                "measure": measure,
                "site": str(dictionaries[0].facts.get("site", "")),
                "code": "dictionary",
                "width": dictionaries[0].width,
            }
            | about.row(
                jackknife(value, [each[place] for each in left]),
                null=chance,
                ceiling=1.0,
                index=(value - chance) / (1 - chance) if chance < 1 else np.nan,
                p=permutation_p(value, null[:, place]),
                reason="" if left else "two dictionaries: an interval takes three",
            )
        )
    return Table.with_evidence("dictionary stability", pd.DataFrame(rows))


def _directions(dictionary: Dictionary) -> np.ndarray:
    rows = dictionary.decoder.detach().double().cpu().numpy()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _assigned(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosine = a @ b.T
    mine, partner = linear_sum_assignment(-cosine)
    found, value = np.full(len(a), -1), np.zeros(len(a))
    found[mine], value[mine] = partner, cosine[mine, partner]
    return found, value


def _agreement(cosine: np.ndarray) -> tuple[float, float]:
    return float(cosine.mean()), float((cosine >= SAME).mean())


def _by_chance(
    first: Dictionary, second: Dictionary, seed: int, draw: int, pair: int
) -> np.ndarray:
    """Cosines with partners among random directions of the second moments that `second` has."""
    directions = _directions(second)
    square, axes = np.linalg.eigh(directions.T @ directions / len(directions))
    root = np.sqrt(np.maximum(square, 0))[:, None] * axes.T
    drawn = rng("dictionary directions", seed, draw, pair).normal(size=directions.shape) @ root
    drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
    return _assigned(_directions(first), drawn)[1]

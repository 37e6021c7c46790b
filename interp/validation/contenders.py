"""Entries of the leaderboard: what others and we would say of a puzzle, one function each.

Each can be judged by `interp-report judge interp.validation.contenders:NAME`.
"""

from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from interp.circuits import attribute
from interp.core.seeds import rng
from interp.core.sites import BAND
from interp.probes import cka as debiased_cka
from interp.probes import collect, directions, similarity
from interp.probes.geometry.contrasts import DISCRIMINANT
from interp.validation.puzzles import CircuitPuzzle, SharingPuzzle
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement, count_votes

STREAMS = "blocks.*.hook_resid_post"
"""Where representations are read: at the class token, behind each block but the first."""


def _streams(puzzle: SharingPuzzle) -> Any:
    found = collect(
        puzzle.tower, puzzle.images, STREAMS, preprocess=puzzle.preprocess, pool="class"
    )
    return found.only(found.sites[1:])


def _class_means(puzzle: SharingPuzzle) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each site the classes' means in either domain, `class feature`, by 64 bits."""
    features = _streams(puzzle)
    frame = features.frame
    cells = [
        [(frame["domain"] == domain) & (frame["label"] == label) for label in puzzle.images.labels]
        for domain in puzzle.domains
    ]
    return [
        tuple(
            np.stack([features.values[site][own.to_numpy()].astype(float).mean(0) for own in each])
            for each in cells
        )
        for site in features.sites
    ]  # type: ignore[return-value]


def chance(puzzle: SharingPuzzle) -> float:
    """A number drawn at random, the same for the same pictures: what any method must beat."""
    first = np.asarray(puzzle.images.picture(0)).astype(int).sum()
    return float(rng("a random entry", int(first)).random())


def cka(puzzle: SharingPuzzle) -> float:
    """Debiased linear CKA of the classes' means in the two domains, mean over blocks."""
    return float(np.mean([debiased_cka(a, b) for a, b in _class_means(puzzle)]))


def rsa(puzzle: SharingPuzzle) -> float:
    """Spearman correlation of the classes' distances in the two domains, mean over blocks."""
    found = []
    for a, b in _class_means(puzzle):
        first, second = pdist(a), pdist(b)
        alike = np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9
        found.append(0.0 if alike else spearmanr(first, second).statistic)
    return float(np.mean(found))


def probe_transfer(puzzle: SharingPuzzle) -> float:
    """Accuracy in one domain of a logistic probe of the other, both ways, mean over blocks."""
    features = _streams(puzzle)
    labels, domains = (features.frame[name].to_numpy() for name in ("label", "domain"))
    found = []
    for site in features.sites:
        values = features.values[site].astype(float)
        for a, b in (puzzle.domains, puzzle.domains[::-1]):
            learned, asked = domains == a, domains == b
            probe = LogisticRegression(max_iter=1000).fit(values[learned], labels[learned])
            found.append(probe.score(values[asked], labels[asked]))
    return float(np.mean(found))


def _middle(puzzle: SharingPuzzle) -> Any:
    """The streams of the middle layers, by which the ladder answers."""
    found = _streams(puzzle)
    inside = [site for site in found.sites if BAND[0] <= found.depth(site) <= BAND[1]]
    return found.only(inside or found.sites)


def our_geometry(puzzle: SharingPuzzle) -> dict[str, Any]:
    """R2 as the ladder climbs it: CKA of middle layers with null, ceiling and interval."""
    return _of_sites(similarity(_middle(puzzle)).frame, RUNGS["R2"].bars, "R2")


def our_directions(puzzle: SharingPuzzle) -> dict[str, Any]:
    """R3 as the ladder climbs it: cross-fitted LDA directions of middle layers."""
    frame = directions(_middle(puzzle)).frame
    return _of_sites(frame[frame["measure"] == DISCRIMINANT], RUNGS["R3"].bars, "R3")


def _of_sites(frame: Any, bars: Any, rung: str) -> dict[str, Any]:
    votes = [count_votes(rows, bars=bars) for _, rows in frame.groupby("site")]
    told = [each for each in votes if not np.isnan(each.index)]
    if not told:
        return {rung: "cannot tell"}
    verdict = agreement([each.verdict for each in told])
    return {rung: {"verdict": verdict, "index": float(np.mean([each.index for each in told]))}}


def _attributed(puzzle: CircuitPuzzle, method: str) -> np.ndarray:
    return attribute(puzzle.tower, **puzzle.task, method=method, batch_size=16).scores


eap = partial(_attributed, method="EAP")
eap_ig = partial(_attributed, method="EAP-IG-inputs")
relp = partial(_attributed, method="RelP")
path_patching = partial(_attributed, method="exact")


def random_edges(puzzle: CircuitPuzzle) -> np.ndarray:
    """Scores drawn at random, others for other pictures: what any method must beat."""
    seed = int(1000 * float(puzzle.clean.sum()))
    return rng("random scores of edges", seed).random(len(puzzle.parts))

"""Entries of the leaderboard: what others and we would say of a puzzle, one function each.

Each can be judged by `interp-report judge interp.validation.contenders:NAME`.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from interp.circuits import (
    Edges,
    Runs,
    Units,
    attribute,
    circuit_transfer,
    class_circuits,
    das,
    discover,
    overlap,
)
from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import StitchSource
from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.artists import artist_halves
from interp.core.seeds import rng
from interp.core.sites import BAND, find_sites
from interp.core.statistics.index_of_sharing import CANNOT_TELL
from interp.probes import cka as debiased_cka
from interp.probes import collect, directions, similarity
from interp.probes.geometry.contrasts import DISCRIMINANT
from interp.validation.puzzles import CircuitPuzzle, SharingPuzzle
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import agreement, count_votes, of_cuts

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


def stitching(puzzle: SharingPuzzle) -> float:
    """Accuracy that goes on from one domain's activations, mapped linearly to the other's.

    The map is fitted to pictures of the same classes of half of the artists; mean over blocks and
    both ways.
    """
    tower, images = puzzle.tower, puzzle.images
    frame = images.frame.reset_index(drop=True)
    half = artist_halves(frame, list(puzzle.domains))
    x = images.tensors(puzzle.preprocess).to(puzzle.classifier.embeddings)
    wanted = puzzle.classifier.numbers(frame["label"].tolist()).numpy()
    found = []
    for site in find_sites(STREAMS, tower.sites)[1:]:
        held = hold(tower, site, x, rows=len(x))
        for a, b in (puzzle.domains, puzzle.domains[::-1]):
            rows = [
                frame[(frame["domain"] == domain) & (half == 0)].sort_values("label").index
                for domain in (a, b)
            ]
            fit = StitchSource(held.activation[rows[0]]).fit(held.activation[rows[1]])
            asked = np.flatnonzero((frame["domain"] == a) & (half == 1))
            outputs = held[torch.from_numpy(asked)].finish(
                fit(held.activation[asked]).to(held.activation)
            )
            said = puzzle.classifier.logits(outputs).argmax(dim=-1).cpu().numpy()
            found.append(float((said == wanted[asked]).mean()))
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


def _asked(puzzle: SharingPuzzle) -> dict[str, Any]:
    """What every measure that runs the model is given."""
    given = {"images": puzzle.images, "classifier": puzzle.classifier}
    return {**given, "preprocess": puzzle.preprocess}


def our_subspaces(puzzle: SharingPuzzle) -> dict[str, Any]:
    """R4 as the ladder climbs it: DAS at the class token of middle layers, tried across domains."""
    a, b = puzzle.domains
    sites = list(_middle(puzzle).sites)
    made = das(
        puzzle.tower, domain_a=a, domain_b=b, sites=sites, where={"pos": 0}, **_asked(puzzle)
    )
    return _of_sites(made.frame, RUNGS["R4"].bars, "R4")


def our_circuits(puzzle: SharingPuzzle) -> dict[str, Any]:
    """R5 and R6 as the ladder climbs them: circuits of neurons and of edges, class by class."""
    sites = find_sites("blocks.*.mlp.hook_post", puzzle.tower.sites)
    first = puzzle.images.tensors(puzzle.preprocess, [0])
    cuts: tuple[Any, ...] = (
        Units.of(puzzle.tower, sites, first, axis="d_mlp"),
        Edges(puzzle.tower),
    )
    found = [
        [class_circuits(cut, domain=domain, **_asked(puzzle)) for domain in puzzle.domains]
        for cut in cuts
    ]
    parts = overlap(*(one.scores for one in found[0]), measures=[PRIMARY_OVERLAP]).frame
    votes = count_votes(parts[parts["measure"] == PRIMARY_OVERLAP])
    carried = [
        count_votes(
            RUNGS["R6"].judged.select(
                pd.concat([circuit_transfer(*own, removed=out).frame for out in (False, True)])
            )
        )
        for own in found
    ]
    told = [each for each in carried if not np.isnan(each.index)]
    sure = [each for each in told if each.verdict != CANNOT_TELL] or told
    wiring: Any = "cannot tell"
    if told:
        index = min(each.index for each in sure)
        wiring = {"verdict": of_cuts([each.verdict for each in told]), "index": float(index)}
    return {"R5": _said(votes), "R6": wiring}


def _said(votes: Any) -> Any:
    known = not np.isnan(votes.index)
    return {"verdict": votes.verdict, "index": float(votes.index)} if known else "cannot tell"


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

THRESHOLDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Of ACDC, as shares of what corrupting everything does to the metric."""


def acdc(puzzle: CircuitPuzzle) -> np.ndarray:
    """How many of ACDC's thresholds each edge survives (Conmy et al. 2023), weakest EAP first."""
    scores = attribute(puzzle.tower, **puzzle.task, method="EAP", batch_size=16)
    runs = Runs(puzzle.tower, puzzle.clean, puzzle.corrupt, puzzle.metric)
    with torch.no_grad():
        whole, none = (
            puzzle.metric(puzzle.tower(x)).mean() for x in (puzzle.clean, puzzle.corrupt)
        )
    kept = np.zeros(len(puzzle.parts))
    for share in THRESHOLDS:
        threshold = share * float((whole - none).abs())
        found = discover(scores, how="ACDC", threshold=threshold, runs=runs, prune=False)
        kept += found.kept
    return kept


def random_edges(puzzle: CircuitPuzzle) -> np.ndarray:
    """Scores drawn at random, others for other pictures: what any method must beat."""
    seed = int(1000 * float(puzzle.clean.sum()))
    return rng("random scores of edges", seed).random(len(puzzle.parts))

"""Entries of the leaderboard: what others and we would say of a puzzle, one function each.

Each can be judged, from a checkout, by `interp-report judge tests.benchmarks.contenders:NAME`.
"""

from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from interp.circuits import Runs, attribute, discover
from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import StitchSource
from interp.core.artists import artist_halves
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.statistics.index_of_sharing import UNKNOWN
from interp.core.tables import Table
from interp.measures.ladder import Ladder, ladder_tables
from interp.measures.subject import Subject
from interp.probes import Features, collect
from interp.probes import cka as debiased_cka
from interp.validation.puzzles import CircuitPuzzle, SharingPuzzle
from interp.verdicts.judging import WHOLE
from interp.verdicts.rungs import RUNGS

Answer: TypeAlias = str | dict[str, object]
"""A verdict in words, or with its index."""

STREAMS = "blocks.*.hook_resid_post"
"""Where representations are read: at the class token, behind each block but the first."""


def _streams(puzzle: SharingPuzzle) -> Features:
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


def _by_ladder(puzzle: SharingPuzzle, band: str, *rungs: str) -> dict[str, Answer]:
    """What the ladder says of some rungs in a band of layers."""
    subject = Subject.of_tower(
        puzzle.tower,
        puzzle.images,
        domains=puzzle.domains,
        classifier=puzzle.classifier,
        preprocess=puzzle.preprocess,
        pool="class",
    )
    frames = ladder_tables(subject, [RUNGS[rung].judged.table for rung in rungs])
    table = Ladder.of({name: Table(name, frame) for name, frame in frames.items()}).table.frame
    rows = table[table["band"] == band].set_index("rung")
    known = [rung for rung in rungs if rung in rows.index and np.isfinite(rows["index"][rung])]
    answers: dict[str, Answer] = dict.fromkeys(rungs, UNKNOWN)
    for rung in known:
        answers[rung] = {"verdict": rows["verdict"][rung], "index": float(rows["index"][rung])}
    return answers


def our_geometry(puzzle: SharingPuzzle) -> dict[str, Answer]:
    """R2 by the ladder: CKA of middle layers with null, ceiling and interval."""
    return _by_ladder(puzzle, "middle", "R2")


def our_directions(puzzle: SharingPuzzle) -> dict[str, Answer]:
    """R3 by the ladder: cross-fitted LDA directions of middle layers."""
    return _by_ladder(puzzle, "middle", "R3")


def our_subspaces(puzzle: SharingPuzzle) -> dict[str, Answer]:
    """R4 by the ladder: DAS in middle layers, tried across domains."""
    return _by_ladder(puzzle, "middle", "R4")


def our_circuits(puzzle: SharingPuzzle) -> dict[str, Answer]:
    """R5 and R6 by the ladder: circuits of neurons and edges of the whole tower."""
    return _by_ladder(puzzle, WHOLE, "R5", "R6")


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

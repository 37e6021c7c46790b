"""How much of the match of pictures and captions a circuit of two towers keeps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits.cross_modal.matches import TEXT, VISUAL, Matches
from interp.circuits.discovery.curves import curve_table, units_of
from interp.circuits.patching.localisation import by_class
from interp.circuits.sharing.circuit_runs import shuffled_in_groups
from interp.circuits.sharing.components import Cut
from interp.core.errors import ShapeError, SpecificationError
from interp.core.faces.doors import door
from interp.core.seeds import rng
from interp.core.tables import Table

MATCH_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits, as shares of each tower's parts."""

BOTH = "both"
"""What a row is called whose circuit spans both towers."""


@door
def match_faithfulness(
    matches: Matches,
    scores: Sequence[np.ndarray],
    *,
    shares: Sequence[float] = MATCH_SHARES,
    n_random: int = 3,
    seed: int = 0,
) -> Table:
    """Measure how much of the match of pictures and captions the best parts of two towers keep.

    value = match(circuit) / match(model); index = (value - null) / (ceiling - null)

    Args:
        matches: The pairs to test with.
        scores: For each tower its parts' scores, `example part` or `part`, such as
            `other_matches.scores()` of other pictures.
        shares: Sizes of circuits as shares of each tower's parts, rounded up; those with the
            largest |mean score| over examples are kept.
        n_random: Random circuits for each, which have as many parts in each group (layer).
        seed: Seed of the random circuits.

    Returns:
        The rows, areas and evidence of `faithfulness`, three times, told apart by `tower`: circuits
        of both towers; of the image tower while captions are whole; of the text tower while
        pictures are whole. `n_edges` counts what is kept, `share` is of all parts.

    Raises:
        ShapeError: For scores that are not one per part.
        SpecificationError: For a share outside (0, 1], or no random circuit.

    Notes:
        What is left out runs on as in the partner's picture and caption: their match is 0. The
        match is bilinear, so a circuit of both towers that keeps a share a of what the picture
        tells and b of what the caption tells keeps about a b.

    >>> import torch
    >>> from interp.circuits import Chain, Edges
    >>> cuts = Edges(Chain([torch.nn.Identity()])), Edges(Chain([torch.nn.Identity()]))
    >>> here, there = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    >>> matches = Matches(cuts, (here, there), (here, there))
    >>> table = match_faithfulness(matches, matches.scores(), shares=[1.0])
    >>> table.frame[["tower", "measure", "value"]].to_numpy().tolist()[0]
    ['both', 'circuit alone', 1.0]
    """
    if not len(shares) or not all(0 < share <= 1 for share in shares) or n_random < 1:
        raise SpecificationError(
            "test circuits of two towers",
            f"shares {list(shares)} and {n_random} random circuits",
            "shares above 0, up to 1, and one random circuit or more",
            "leave them at their defaults",
        )
    labels = units_of(matches.pairs, len(matches))[0]
    generator = rng("random circuits of two towers", seed)
    masks, moved = {}, {}
    for tower, cut, own in zip((VISUAL, TEXT), matches.cuts, scores, strict=True):
        kept = _best(cut, np.asarray(own), shares)
        drawn = shuffled_in_groups(np.repeat(kept, n_random, axis=0), cut.groups, generator)
        masks[tower] = np.concatenate([kept, ~kept, drawn, ~drawn])
        moved[tower] = matches.moved(tower, masks[tower])
    whole = {tower: matches.moved(tower, None) for tower in moved}
    made = {
        BOTH: (moved[VISUAL], moved[TEXT]),
        VISUAL: (moved[VISUAL], whole[TEXT]),
        TEXT: (whole[VISUAL], moved[TEXT]),
    }
    ends = np.stack([matches.whole.double().cpu().numpy(), np.zeros(len(matches))])
    n = len(shares)
    counts = {tower: masks[tower][:n].sum(axis=1) for tower in masks}
    totals = {tower: masks[tower].shape[1] for tower in masks}
    frames = []
    for name, (a, b) in made.items():
        inside = [tower for tower in masks if name in (BOTH, tower)]
        table = curve_table(
            (matches.scale * (a * b).sum(dim=-1)).double().cpu().numpy(),
            ends,
            np.sum([counts[tower] for tower in inside], axis=0),
            matches.of(inside[0]),
            total=sum(totals[tower] for tower in inside),
            n_random=n_random,
            null_kind=f"mean of {n_random} random circuits with as many parts in each group",
            seed=seed,
            facts={},
        )
        frames.append(table.frame.assign(tower=name))
    facts = {
        "parts": {tower: int(total) for tower, total in totals.items()},
        "match": float(by_class(ends[0], labels).mean()),
    }
    return Table.with_evidence("match_faithfulness", pd.concat(frames, ignore_index=True), facts)


def _best(cut: Cut, scores: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Which parts each circuit keeps, `share part`."""
    n = len(cut.names)
    if scores.shape[-1] != n or scores.ndim > 2:
        raise ShapeError(
            "test circuits of two towers",
            f"scores of shape {scores.shape}",
            f"one for each of the {n} parts, of any number of examples",
            "take the scores from matches of the same towers",
        )
    mean = scores.mean(axis=0) if scores.ndim == 2 else scores
    order = np.argsort(-np.abs(mean), kind="stable")
    kept = np.zeros((len(shares), n), dtype=bool)
    for row, share in zip(kept, shares, strict=True):
        row[order[: int(np.ceil(share * n - 1e-9))]] = True
    return kept

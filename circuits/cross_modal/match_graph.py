"""The circuit of a match as a graph: the strongest parts of both towers, which meet in one node."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.circuits.cross_modal.matches import TEXT, VISUAL, Matches, match_parts
from interp.circuits.edges.wire import OUTPUT, node_of
from interp.circuits.sharing.cuts import Cut, Edges

MATCH = "match"
"""The node in which the two towers' circuits meet."""


def match_graph(matches: Matches, scores: Sequence[np.ndarray], *, most: int = 12) -> pd.DataFrame:
    """The strongest parts of both towers as edges that lead to one node, `match`.

    The image tower's nodes stand left of it and the text tower's right, from their inputs at the
    far ends. Channels, between which no edge is scored, lead to the match at once.

    Args:
        matches: Pictures and their captions.
        scores: Their `matches.scores()`.
        most: Parts of each tower.

    Returns:
        A row for each `edge`, with its two nodes, their columns (`layer`, `layer_b`) and `score`.
    """
    found = match_parts(matches, scores, most=max(len(cut.names) for cut in matches.cuts)).frame
    sides = []
    for tower, cut in zip((VISUAL, TEXT), matches.cuts, strict=True):
        own = found[found["tower"] == tower]
        wired = isinstance(cut, Edges)
        side = _edges(cut, own.head(most)) if wired else _channels(cut, own, most)
        if tower == TEXT:
            side = side.assign(layer=-side["layer"], layer_b=-side["layer_b"])
        named = "text " if tower == TEXT else "image " if wired else ""
        for name in ("node", "node_b"):
            side[name] = [each if each == MATCH else f"{named}{each}" for each in side[name]]
        sides.append(side)
    rows = pd.concat(sides, ignore_index=True)
    edge = rows["node"] + "->" + rows["node_b"]
    return rows.assign(edge=edge, n_pictures=len(matches))


def _edges(cut: Edges, parts: pd.DataFrame) -> pd.DataFrame:
    """Edges between nodes, those into one head's query, key and value together."""
    wiring = cut.wiring
    layer = dict(zip(wiring.nodes, wiring.layers.tolist(), strict=True))
    before = -len(set(wiring.layers)) - 1  # the match stands at 0, what is before it below
    ends = [part.split("->") for part in parts["part"]]

    def placed(name: str) -> tuple[str, int]:
        if name == OUTPUT:
            return MATCH, 0
        block = layer[name]
        return f"{'input' if block < 0 else f'block {block}'}:{name}", before + block + 2

    rows = [
        (*placed(first), *placed(node_of(second)), score)
        for (first, second), score in zip(ends, parts["value"], strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["node", "layer", "node_b", "layer_b", "score"])
    return frame.groupby(["node", "layer", "node_b", "layer_b"], as_index=False)["score"].sum()


def _channels(cut: Cut, parts: pd.DataFrame, most: int) -> pd.DataFrame:
    """The best channels of each site, each with an edge to the match."""
    split = parts["part"].str.rpartition(".")
    rows = parts.assign(site=split[0], channel=split[2])
    sites = list(dict.fromkeys(name.rpartition(".")[0] for name in cut.names))
    rows = rows.groupby("site", sort=False).head(-(-most // len(sites)))
    return pd.DataFrame(
        {
            "node": rows["site"] + ":" + rows["channel"],
            "layer": [sites.index(site) - len(sites) for site in rows["site"]],
            "node_b": MATCH,
            "layer_b": 0,
            "score": rows["value"],
        }
    )

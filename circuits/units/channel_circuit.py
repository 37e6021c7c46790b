"""Channel circuits of a ResNet as in the paper: the strongest channels of each site and their
edges.

Overlap of such circuits is no evidence that they do anything; `unit_faithfulness` tests whether
they do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple, Unpack

import pandas as pd
from torch import Tensor

from interp.circuits.patching.mean_activations import Baseline
from interp.circuits.tasks.metrics import name_of
from interp.circuits.units.channel_edges import MEMORY, check_adjacent, score_edges, want
from interp.circuits.units.channel_scores import channel_scores
from interp.core.arguments import Room, RoomKeywords, check_counts, filled
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower

PAPER_SITES = (
    "stem.hook_act1",
    "stem.hook_act2",
    "stem.hook_act3",
    "stem.hook_pool",
    "layer*.*.hook_resid_post",
    "hook_embedding",
)
"""What the paper takes for the layers of a ResNet: stem, residual blocks, attention pool."""


class Edge(NamedTuple):
    """An edge from a channel of one site to a channel of the next.

    Args:
        upstream: The sending site.
        channel_u: Its channel.
        downstream: The receiving site.
        channel_d: Its channel.
        score: Mean score over examples.
    """

    upstream: str
    channel_u: int
    downstream: str
    channel_d: int
    score: float


@dataclass(frozen=True)
class ChannelCircuit:
    """Channels and edges of a tower that were kept, with their scores.

    Args:
        nodes: For each site, the score of each channel that was kept.
        edges: The edges that were kept, each between channels of two sites.
        facts: How they were scored.

    Notes:
        Sites, and the edges between them, stand in the order of the tower. Within a site, channels
        stand strongest first, as do the edges into one channel.

    >>> circuit = ChannelCircuit({"a": {3: 1.0}, "b": {0: -2.0}}, (Edge("a", 3, "b", 0, 0.5),), {})
    >>> circuit.nodes["b"], circuit.edges[0].score
    ({0: -2.0}, 0.5)
    """

    nodes: Mapping[str, Mapping[int, float]]
    edges: tuple[Edge, ...]
    facts: Mapping[str, object]

    def to_table(self) -> Table:
        """A table with a row per node and per edge.

        Returns:
            The table; `node_b`, the receiver, is empty where the row is a node.

        >>> edge = Edge("a", 3, "b", 0, 0.5)
        >>> circuit = ChannelCircuit({"a": {3: 1.0}, "b": {0: -2.0}}, (edge,), {})
        >>> circuit.to_table().frame[["node", "node_b", "value"]].to_numpy().tolist()
        [['a:3', '', 1.0], ['b:0', '', -2.0], ['a:3', 'b:0', 0.5]]
        """
        rows = [
            ("node", site, channel, node_name(site, channel), "", score)
            for site, channels in self.nodes.items()
            for channel, score in channels.items()
        ]
        rows += [
            ("edge", up, u, node_name(up, u), node_name(down, d), score)
            for up, u, down, d, score in self.edges
        ]
        columns = ["measure", "site", "channel", "node", "node_b", "value"]
        return Table("channel_circuit", pd.DataFrame(rows, columns=columns), self.facts)


def node_name(site: str, channel: int) -> str:
    """What a channel is called as a node: `layer1.0.hook_resid_post:12`."""
    return f"{site}:{channel}"


@door
def channel_circuit(
    tower: Tower,
    x: Tensor,
    *,
    metric: Callable[[Tensor], Tensor],
    sites: str | Sequence[str] = PAPER_SITES,
    baseline: Baseline = "zero",
    keep: float = 0.1,
    fan_in: int = 3,
    steps: int = 10,
    **room: Unpack[RoomKeywords],
) -> ChannelCircuit:
    """Keep the strongest channels of each site, and into each of them its strongest edges.

    nodes = the `keep` share of a site's channels with the largest |mean over examples of
    `channel_scores`|; edges = into each, the `fan_in` nodes of the site before with the largest
    |mean of `channel_edges`|

    Args:
        tower: The tower to run.
        x: Inputs of the tower of one class in one domain, `[batch ...]`.
        metric: From outputs `[batch d_embed]` to `[batch]`, differentiable.
        sites: Names of sites or patterns, each of the same block as the last or of the next.
        baseline: Where activations are moved to, as in `channel_scores`: "zero", inputs, or
            activations by site.
        keep: Share of a site's channels, rounded up.
        fan_in: Edges into each channel.
        steps: Steps of the integrals.
        **room: The keywords that follow.
        batch_size: Examples in a forward.
        memory: Bytes that derivatives may take beside the result, 2^28 by default.

    Returns:
        The circuit.

    Raises:
        SpecificationError: For a share that keeps nothing or more than there is, no incoming edges
            or an unknown keyword; `channel_scores` and `channel_edges` have the others.

    Notes:
        The defaults are the paper's (Kempf et al. 2025): on RN50 1,644 nodes and 4,920 edges. Its
        zero baseline is kept in this preset alone; at `hook_embedding` a cosine's gradient explodes
        at the zero vector, so that there the order is that of each coordinate's product with the
        class direction.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> tower = Chain([torch.nn.Identity()], axes=("batch", "channel", "row", "column"),
    ...               pool=torch.nn.Flatten())
    >>> circuit = channel_circuit(tower, torch.tensor([[[[1.0]], [[3.0]]]]), keep=0.5,
    ...                           metric=lambda out: out[:, 1], sites=["hook_embed", "*_post"])
    >>> circuit.nodes
    {'hook_embed': {1: 6.0}, 'blocks.0.hook_resid_post': {1: 6.0}}
    >>> [edge[:4] for edge in circuit.edges]
    [('hook_embed', 1, 'blocks.0.hook_resid_post', 1)]
    """
    given = filled(channel_circuit, Room, {"memory": MEMORY, **room})
    asked = "find a channel circuit"
    check_counts(asked, least=2, steps=steps)
    check_counts(asked, fan_in=fan_in)
    if not 0 < keep <= 1:
        right = "a share above 0, up to 1, and one incoming edge or more"
        do = "keep 0.1, as the paper did"
        raise SpecificationError(asked, f"keep={keep} and fan_in={fan_in}", right, do)
    names = find_sites(sites, tower.sites)
    for up, down in pairwise(names):
        check_adjacent(asked, tower, up, down)
    scores = channel_scores(
        tower,
        x,
        metric=metric,
        sites=names,
        baseline=baseline,
        steps=steps,
        batch_size=given.batch_size,
    )
    nodes = {site: _strongest(scores[site].mean(dim=1), share=keep) for site in names}
    edges: list[Edge] = []
    wanted = [
        want(asked, tower, x, (up, down), list(nodes[up]), list(nodes[down]))
        for up, down in pairwise(names)
    ]
    found = score_edges(tower, x, wanted, given, baseline=baseline, steps=steps)
    for each, scored in zip(wanted, found, strict=True):
        for d, into in zip(each.receivers, scored.mean(dim=-1).T, strict=True):
            edges += [
                Edge(each.upstream, each.senders[u], each.downstream, d, score)
                for u, score in _strongest(into, count=fan_in).items()
            ]
    facts = {
        "metric": name_of(metric),
        "baseline": baseline if isinstance(baseline, str) else "activations of other inputs",
        "keep": keep,
        "fan_in": fan_in,
        "steps": steps,
        "n_pictures": len(x),
        "dtype": str(x.dtype),
    }
    return ChannelCircuit(nodes, tuple(edges), facts)


def _strongest(means: Tensor, *, share: float = 1.0, count: int | None = None) -> dict[int, float]:
    """Places of the largest absolute values, strongest first; of equals, the first."""
    # 0.1 * 70 is 7.000000000000001, which must not keep eight
    kept = ceil(share * len(means) - 1e-9) if count is None else count
    order = means.abs().argsort(descending=True, stable=True)[:kept].tolist()
    return {place: float(means[place]) for place in order}

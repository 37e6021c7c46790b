"""Edges between channels: how much each channel of one site drives each channel of the next.

Edges between two sites need derivatives of the block between them and of no other. One backward
pass of that block scores all edges into a channel, one forward-mode pass all edges out of a
channel; whichever side has fewer channels is walked, many channels to a batch.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from interp.circuits.patching.engine import Held, walk
from interp.circuits.patching.mean_activations import Baseline, check_baseline, with_baselines
from interp.circuits.units.channel_scores import by_unit, check_finite, unit_axis
from interp.core.arguments import Room, RoomKeywords, check_counts, filled
from interp.core.errors import ShapeError, SiteError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.parallel import Batching, batches
from interp.core.tower import Tower

MEMORY = 2**28
"""Bytes that derivatives in flight may take unless told otherwise."""

IN_FLIGHT = 6
"""Maps of either site's size that one channel's derivative holds within a block, generously."""

Edges = Float[Tensor, "channel new_channel batch"]


@dataclass(frozen=True)
class Wanted:
    """Channels of two adjacent sites between which edges are scored."""

    upstream: str
    downstream: str
    senders: Sequence[int]
    receivers: Sequence[int]


@door
def channel_edges(
    tower: Tower,
    x: Tensor,
    *,
    upstream: str,
    downstream: str,
    baseline: Baseline,
    senders: Sequence[int] | None = None,
    receivers: Sequence[int] | None = None,
    steps: int = 10,
    **room: Unpack[RoomKeywords],
) -> Edges:
    r"""Score the edge from each channel of a site to each channel of the next site.

    $$L_d(a') = \operatorname{mean}_\mathrm{space} \big(g_d(a') - g_d(a)\big)^2, \qquad
    e_{ud} = \sum_\mathrm{space} (a^0 - a)_u \cdot \frac{1}{m} \sum_{k=0}^{m-1}
    \frac{\partial L_d}{\partial a_u}(a^{k/m})$$

    Args:
        tower: The tower to run.
        x: Inputs of the tower, `[batch ...]`.
        upstream: A site with channels, or the embedding.
        downstream: Another one, of the same block or the next.
        baseline: Where activations are moved to, as in `channel_scores`: "zero", inputs, or
            activations by site.
        senders: Channels of the upstream site; None takes all.
        receivers: Channels of the downstream site; None takes all.
        steps: Steps m of the integral.
        **room: The keywords that follow.
        batch_size: Examples in a forward.
        memory: Bytes that derivatives may take beside the result, 2^28 by default.

    Returns:
        Edges `[channel new_channel batch]`, in squared units of the downstream activation.

    Raises:
        SiteError: For sites that are unknown, without channels, in the wrong order or not adjacent,
            or that do not reach one another.
        SpecificationError: For fewer than two steps (one alone is zero everywhere), no channels,
            too little memory or an unknown keyword.
        ShapeError: For a channel that is not there or a baseline that does not fit.
        NumericsError: For NaN.

    Notes:
        $a$ is the upstream activation, $a^0$ its baseline, $a^\alpha = a + \alpha (a^0 - a)$, and
        $g_d$ what the block between the sites makes of an activation in downstream channel d. So an
        edge is the integrated gradients of the mean squared change of d while the whole upstream
        site moves to its baseline. With `baseline="zero"`, upstream is scaled to (1 - alpha), which
        is the paper's edge (Kempf et al. 2025); with the inputs of a corrupt run it is contrastive.

        A positive edge says that moving u moves d; a negative one, that it undoes what other
        channels do to d. Edges into d sum to L_d at the baseline as the steps m grow (Sundararajan
        et al. 2017); where the block is linear, to (m - 1) / m of it, because the sum is on the
        left and L starts flat.

        No run of the whole tower is repeated for a channel: a step costs the block between the
        sites once, and once more for each channel of the smaller side. Attention runs unfused here.

    >>> from interp.circuits import Chain
    >>> _ = torch.manual_seed(0)
    >>> mix = torch.nn.Conv2d(2, 2, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = mix.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0]])[:, :, None, None])
    >>> tower = Chain([mix], axes=("batch", "channel", "row", "column"))  # 0 is added 3 x to 1
    >>> edges = channel_edges(tower, torch.ones(1, 2, 1, 1), upstream="hook_embed",
    ...                       downstream="blocks.0.hook_mlp_out", baseline="zero", steps=100)
    >>> edges[:, :, 0].round().tolist()
    [[0.0, 9.0], [0.0, 0.0]]
    """
    given = filled(channel_edges, Room, {"memory": MEMORY, **room})
    asked = f"score edges from {upstream} to {downstream}"
    check_known(asked, "site", [upstream, downstream], tower.sites, SiteError)
    wanted = [want(asked, tower, x, (upstream, downstream), senders, receivers)]
    check_baseline(asked, tower, x, baseline, sites=[upstream], batch_size=given.batch_size)
    return score_edges(tower, x, wanted, given, baseline=baseline, steps=steps)[0]


def want(
    asked: str,
    tower: Tower,
    x: Tensor,
    sites: tuple[str, str],
    senders: Sequence[int] | None = None,
    receivers: Sequence[int] | None = None,
) -> Wanted:
    """The channels asked for at two sites, refused where they or the sites do not fit."""
    check_adjacent(asked, tower, *sites)
    sizes = {
        held.site: held.activation.shape[unit_axis(tower, held.site)]
        for held in walk(tower, x[:1], sites)
    }
    chosen = []
    for site, channels in zip(sites, (senders, receivers), strict=True):
        every = list(range(sizes[site])) if channels is None else [int(c) for c in channels]
        strange = [c for c in every if not 0 <= c < sizes[site]]
        if strange or len(set(every)) < len(every):
            given = f"channels {listed(strange or every)} of {site}"
            do = "count from the start of the axis, and name each once"
            raise ShapeError(asked, given, f"different ones from 0 to {sizes[site] - 1}", do)
        if not every:
            raise SpecificationError(
                asked, f"no channels of {site}", "at least one", "name some, or leave it to all"
            )
        chosen.append(every)
    return Wanted(*sites, *chosen)


def check_adjacent(asked: str, tower: Tower, upstream: str, downstream: str) -> None:
    """Refuse two sites between which there is more than one block, or the wrong order."""
    order = list(tower.sites)
    for site in (upstream, downstream):
        unit_axis(tower, site)
    if order.index(upstream) >= order.index(downstream):
        given = "a downstream site that is not computed after the upstream one"
        right = "two sites in the order of the computation"
        raise SiteError(asked, given, right, f"exchange them, or choose a site behind {upstream}")
    layers = tower.layer(upstream), tower.layer(downstream)
    if layers[1] - layers[0] > 1:
        given = f"sites of the blocks {layers[0]} and {layers[1]}"
        right = "sites of the same block or of neighbouring ones"
        raise SiteError(asked, given, right, "score the sites between them too, one pair at a time")


def score_edges(
    tower: Tower, x: Tensor, wanted: Sequence[Wanted], room: Room, *, baseline: Baseline, steps: int
) -> list[Tensor]:
    """Edges `[sender receiver batch]` of several pairs of sites, upstream to downstream.

    One walk down the tower serves all of them.
    """
    asked = "score channel edges"
    check_counts(asked, least=2, steps=steps)
    names = [each.upstream for each in wanted]

    def window_edges(window: slice) -> list[Tensor]:
        runs = with_baselines(tower, x, baseline, window, names)
        return [
            _Pair(held.latest(), zero, each, room.memory).integrate(steps)
            for each, (held, zero) in zip(wanted, runs, strict=True)
        ]

    windows = Batching(room.batch_size).each(len(x), window_edges)
    edges = [torch.cat(parts, dim=-1) for parts in zip(*windows, strict=True)]
    labels = [f"{each.upstream} to {each.downstream}" for each in wanted]
    check_finite(asked, dict(zip(labels, edges, strict=True)))
    return edges


class _Pair:
    """One pair of sites and some examples: the derivatives between them, summed along the path."""

    def __init__(self, held: Held, zero: Tensor, wanted: Wanted, memory: int) -> None:
        self.segment = partial(held.go_on, until=wanted.downstream)
        self.wanted, self.start = wanted, held.activation
        self.move = zero - self.start
        tower = held.start.tower
        self.axis_u, self.axis_d = (
            unit_axis(tower, site) for site in (wanted.upstream, wanted.downstream)
        )
        self.end = self._end()
        each = IN_FLIGHT * (self.start.nbytes + self.end.nbytes)
        self.chunk = memory // max(1, each)
        if self.chunk < 1:
            given = f"a budget of {memory} bytes"
            right = f"at least {each}, what one channel of {len(zero)} examples needs"
            do = "raise memory, or lower batch_size"
            raise SpecificationError(f"score edges into {wanted.downstream}", given, right, do)

    def _end(self) -> Tensor:
        """The downstream activation of the run itself; refused if the upstream one is not in it."""
        at = self.start.detach().requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            end = self.segment(at)
        none = torch.zeros_like(end)
        if (
            not end.requires_grad
            or torch.autograd.grad(end, at, none, allow_unused=True)[0] is None
        ):
            raise SiteError(
                f"score edges from {self.wanted.upstream} to {self.wanted.downstream}",
                "a downstream site that does not depend on the upstream one",
                "two sites with a path between them",
                "choose another pair",
            )
        return end.detach()

    def integrate(self, steps: int) -> Tensor:
        """Edges `[sender receiver batch]`. The first step has no change, so it is not computed."""
        senders, receivers = self.wanted.senders, self.wanted.receivers
        sums = self._push if len(senders) < len(receivers) else self._pull
        shape = (len(senders), len(receivers), len(self.start))
        total = torch.zeros(shape, dtype=self.start.dtype, device=self.start.device)
        # the fused kernels have no forward mode, and batch no gradients
        with sdpa_kernel(SDPBackend.MATH):
            for step in range(1, steps):
                sums(self.start + step / steps * self.move, total)
        return total / steps

    def _slope(self, end: Tensor) -> Tensor:
        """Derivative of every L_d by its own activation."""
        space = end[0].numel() // end.shape[self.axis_d]
        return 2 / space * (end.detach() - self.end)

    def _pull(self, at: Tensor, total: Tensor) -> None:
        """Reverse mode: one pass for each receiver, and all senders of it at once."""
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            end = self.segment(at)
        slope, move = self._slope(end), by_unit(self.move, self.axis_u)[:, self.wanted.senders]
        for some in batches(len(self.wanted.receivers), self.chunk):
            hot = _one_hot(slope, self.axis_d, self.wanted.receivers[some])
            (pulled,) = torch.autograd.grad(end, at, hot, retain_graph=True, is_grads_batched=True)
            pulled = by_unit(pulled, self.axis_u + 1, 2)[:, :, self.wanted.senders]
            total[:, some] += einsum(move, pulled, "batch u space, d batch u space -> u d batch")

    def _push(self, at: Tensor, total: Tensor) -> None:
        """Forward mode: one pass for each sender, and all receivers of it at once."""

        def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
            # two backward passes would do it too, but torch's for a convolution costs two of them
            found = torch.func.jvp(self.segment, (at,), (tangent,))
            return found[0], found[1]

        for some in batches(len(self.wanted.senders), self.chunk):
            hot = _one_hot(self.move, self.axis_u, self.wanted.senders[some])
            with torch.no_grad(), warnings.catch_warnings():
                # torch's forward mode loads what it deprecates itself (torch.jit)
                warnings.simplefilter("ignore", DeprecationWarning)
                ends, pushed = torch.func.vmap(push)(hot)
            slope = by_unit(self._slope(ends[0]), self.axis_d)[:, self.wanted.receivers]
            pushed = by_unit(pushed, self.axis_d + 1, 2)[:, :, self.wanted.receivers]
            total[some] += einsum(slope, pushed, "batch d space, u batch d space -> u d batch")


def _one_hot(values: Tensor, axis: int, channels: Sequence[int]) -> Tensor:
    """A copy of the activation for each channel, zero in all the others, `[channel batch ...]`."""
    hot = values.new_zeros((len(channels), *values.shape))
    places = torch.arange(len(channels), device=values.device)
    chosen = torch.tensor(channels, device=values.device)
    hot.movedim(axis + 1, 1)[places, chosen] = values.movedim(axis, 0)[chosen]
    return hot

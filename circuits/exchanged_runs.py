"""Runs in which edges and neurons carry what they carry in runs on other pictures, with gradients.

For vision transformers that are trained: `interp.circuits.flows` has the runs that measure.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.wiring import parts_of, wire
from interp.core.model import Hook, Tower


class Exchange(NamedTuple):
    """For each picture of a batch: what it takes over, from which picture, and its class then.

    Place 0 is the class token, place 1 are the patches.
    """

    edges: Bool[Tensor, "batch place edge"]
    neurons: Bool[Tensor, "batch layer place neuron"]
    donor: Int[Tensor, "batch"]
    label: Int[Tensor, "batch"]


class Run(NamedTuple):
    """A run with what others may take over from it; gradients flow through all of it.

    `streams` are those before each component and at the end, `[batch pos d_model]`.
    """

    output: Float[Tensor, "batch d_embed"]
    streams: Sequence[Tensor]
    written: Float[Tensor, "batch writer pos d_model"]
    neurons: Float[Tensor, "batch layer pos neuron"]


def keep_run(tower: Any, x: Tensor) -> Run:
    """Run a transformer as it is, and keep what an exchange needs."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> tuple[str, Hook]:
        return name, lambda activation, hook: kept.__setitem__(name, activation)

    components, last = parts_of(tower), f"blocks.{tower.n_layers - 1}.hook_resid_post"
    sites = [site for part in components for site in (part.reads, part.writes)]
    output = tower.run_with_hooks(
        x, fwd_hooks=[keep(site) for site in (*sites, last, *_posts(tower))]
    )
    streams = [kept[site] for site in (*(part.reads for part in components), last)]
    written = [part.write(kept[part.writes]) for part in components]
    neurons = torch.stack([kept[site] for site in _posts(tower)], dim=1)
    return Run(output, streams, torch.cat([streams[0][:, None], *written], dim=1), neurons)


def run_exchanged(
    tower: Any, x: Tensor, donor: Run, exchange: Exchange
) -> Float[Tensor, "batch d_embed"]:
    """The output of a run in which edges and neurons carry what they carry in other runs.

    As in `interp.circuits.flows.run_masked` a reader's stream is the donor's, and along every edge
    that is not exchanged the writer's part in this run takes the place of its part in the donor's;
    here at class token and patches apart, with single neurons, and with gradients.
    """
    wiring, rows = wire(tower), exchange.donor
    own, other = tower(x, stop_at_layer=0), donor.written[rows]
    kept = (~exchange.edges).to(own.dtype)
    differences = [own[:, None] - other[:, :1]]

    def mixed(number: int, first: int, n: int) -> Float[Tensor, "batch reader pos d_model"]:
        """The streams of n readers from the `first` on, which belong to one component."""
        here = wiring.offsets[first], wiring.offsets[first + n]
        weights = kept[:, :, here[0] : here[1]].unflatten(2, (n, -1))
        shift = torch.cat(differences, dim=1)
        at_class = weights[:, 0] @ shift[:, :, 0]
        at_patches = weights[:, 1] @ shift[:, :, 1:].flatten(2)
        at_patches = at_patches.unflatten(2, (-1, own.shape[2]))
        shift = torch.cat([at_class[:, :, None], at_patches], dim=2)
        return donor.streams[number][rows][:, None] + shift

    hooks = [
        (site, _taking(donor.neurons[rows, layer], exchange.neurons[:, layer]))
        for layer, site in enumerate(_posts(tower))
    ]
    with tower.hooks(fwd_hooks=hooks):
        reader, writer = 0, 1
        for number, component in enumerate(parts_of(tower)):
            parts = component.run(mixed(number, reader, len(component.readers)))
            differences.append(parts - other[:, writer : writer + parts.shape[1]])
            reader, writer = reader + len(component.readers), writer + parts.shape[1]
    return tower(mixed(-1, reader, 1)[:, 0], start_at_layer=tower.n_layers)


def _posts(tower: Tower) -> list[str]:
    return [f"blocks.{layer}.mlp.hook_post" for layer in range(tower.n_layers)]


def _taking(donor: Tensor, taken: Bool[Tensor, "batch place neuron"]) -> Hook:
    """A hook by which neurons, `[batch reader pos neuron]`, take over the donor's activations."""
    where = torch.cat([taken[:, :1], taken[:, 1:].expand(-1, donor.shape[1] - 1, -1)], dim=1)
    return lambda activation, hook: torch.where(where[:, None], donor[:, None], activation)

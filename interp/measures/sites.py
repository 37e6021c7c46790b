"""Where every measure looks in a tower: its stream, its units, and where causal directions lie."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from interp.core.errors import InterpError, listed
from interp.core.progress import say
from interp.core.sites import LAST, find_sites
from interp.core.tower import Tower

BLOCKS = ("layer*.*.hook_resid_post", "blocks.*.hook_resid_post")
"""What a ResNet's and a ViT's blocks hand on."""

STREAM = ("stem.hook_pool", *BLOCKS, LAST)
"""The stream through a tower, stage by stage, and the embedding at its end."""

UNITS: Mapping[str, str] = {
    "layer*.*.hook_resid_post": "channel",
    "blocks.*.mlp.hook_post": "d_mlp",
}
"""Where circuits are cut unit by unit: what a ResNet's blocks hand on, and a ViT's neurons."""


@runtime_checkable
class Repeating(Protocol):
    """A tower whose blocks are known by what it repeats, as `TracedTower` knows them."""

    @property
    def block_sites(self) -> Sequence[str]:
        """What each block hands on."""
        ...

    @property
    def activation_sites(self) -> Sequence[str]:
        """What is behind the activation functions within blocks."""
        ...


def present(tower: Tower, patterns: Sequence[str]) -> list[str]:
    """The sites of a tower that any of the patterns names, in tower order; patterns may be absent.

    >>> from interp.circuits import Chain
    >>> import torch
    >>> present(Chain([torch.nn.Identity()]), ["blocks.*.hook_resid_pre", "layer*.*.hook_out"])
    ['blocks.0.hook_resid_pre']
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            found.update(find_sites(pattern, tower.sites))
        except InterpError:
            continue
    return [site for site in tower.sites if site in found]


def stream_sites(tower: Tower) -> list[str]:
    """What the blocks of a tower hand on, one after the other, and its embedding.

    A traced tower's blocks are the modules that it repeats.

    >>> from interp.circuits import Chain
    >>> import torch
    >>> stream_sites(Chain([torch.nn.Identity()]))
    ['blocks.0.hook_resid_post', 'hook_embedding']
    """
    named = present(tower, STREAM)
    if named not in ([], [LAST]):
        return named
    return [*_with_features(tower), *named]


def unit_sites(tower: Tower) -> dict[str, list[str]]:
    """Where circuits are cut unit by unit, by the axis of the units.

    In a traced tower, the channels that its blocks hand on, where these are maps; else the features
    behind the activation functions within its blocks.
    """
    found = {axis: present(tower, [pattern]) for pattern, axis in UNITS.items()}
    found = {axis: sites for axis, sites in found.items() if sites}
    if found or not isinstance(tower, Repeating):
        return found
    maps = [site for site in tower.block_sites if "channel" in tower.axes(site)]
    neurons = [site for site in tower.activation_sites if "feature" in tower.axes(site)]
    by_axis = {"channel": maps, "feature": neurons}
    return {axis: sites for axis, sites in by_axis.items() if sites}


def causal_sites(tower: Tower) -> list[str]:
    """Where causal directions are looked for: what the blocks hand on, but for the last one's.

    That of the last block is read out as it is.
    """
    for pattern in BLOCKS:
        if sites := present(tower, [pattern]):
            return sites
    return _with_features(tower)


def _with_features(tower: Tower) -> list[str]:
    """What the blocks of a traced tower hand on, where it is known which axis is the features'."""
    if not isinstance(tower, Repeating):
        return []
    known = [s for s in tower.block_sites if {"channel", "feature"} & set(tower.axes(s))]
    if len(known) < len(tower.block_sites):
        left = [site for site in tower.block_sites if site not in known]
        say(f"axes without names (open_tower gives them), left out: {listed(left, limit=3)}")
    return known

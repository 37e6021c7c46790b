"""Sites: the names of activations, in TransformerLens's words, and one table of their axes.

A name is a path (`blocks.3.attn.hook_z`). Its *kind* has `{}` in place of the numbers. `AXES` maps
every kind to its axes; shape checks, indexing, help texts and tests all read that table. A tower's
stream, its units and where causal directions lie are found by their names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from interp.core.errors import InterpError, SiteError, listed, nearest
from interp.core.progress import say

if TYPE_CHECKING:
    from interp.core.tower import Tower

_RESID = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_PATTERN = ("batch", "head", "query", "key")
_MAP = ("batch", "channel", "row", "column")

AXES: dict[str, tuple[str, ...]] = {
    # every tower
    "hook_embedding": ("batch", "d_embed"),
    # transformers
    "hook_embed": _RESID,
    "hook_pos_embed": _RESID,
    "hook_full_embed": _RESID,
    "ln_pre.hook_scale": ("batch", "pos", "one"),
    "ln_pre.hook_normalized": _RESID,
    "blocks.{}.hook_resid_pre": _RESID,
    "blocks.{}.ln1.hook_scale": ("batch", "pos", "one"),
    "blocks.{}.ln1.hook_normalized": _RESID,
    "blocks.{}.attn.hook_q": _HEADS,
    "blocks.{}.attn.hook_k": _HEADS,
    "blocks.{}.attn.hook_v": _HEADS,
    "blocks.{}.attn.hook_attn_scores": _PATTERN,
    "blocks.{}.attn.hook_pattern": _PATTERN,
    "blocks.{}.attn.hook_z": _HEADS,
    "blocks.{}.attn.hook_result": ("batch", "pos", "head", "d_model"),
    "blocks.{}.hook_attn_out": _RESID,
    "blocks.{}.hook_resid_mid": _RESID,
    "blocks.{}.ln2.hook_scale": ("batch", "pos", "one"),
    "blocks.{}.ln2.hook_normalized": _RESID,
    "blocks.{}.mlp.hook_pre": ("batch", "pos", "d_mlp"),
    "blocks.{}.mlp.hook_post": ("batch", "pos", "d_mlp"),
    "blocks.{}.hook_mlp_out": _RESID,
    "blocks.{}.hook_resid_post": _RESID,
    "ln_final.hook_scale": ("batch", "pos", "one"),
    "ln_final.hook_normalized": _RESID,
    "hook_pooled": ("batch", "d_model"),
    # ModifiedResNet; attention pooling also in a VisionTransformer
    "stem.hook_act1": _MAP,
    "stem.hook_act2": _MAP,
    "stem.hook_act3": _MAP,
    "stem.hook_pool": _MAP,
    "layer{}.{}.hook_resid_pre": _MAP,
    "layer{}.{}.hook_act1": _MAP,
    "layer{}.{}.hook_act2": _MAP,
    "layer{}.{}.hook_out": _MAP,
    "layer{}.{}.hook_resid_post": _MAP,
    "attnpool.hook_q": _HEADS,
    "attnpool.hook_k": _HEADS,
    "attnpool.hook_v": _HEADS,
    "attnpool.hook_attn_scores": _PATTERN,
    "attnpool.hook_pattern": _PATTERN,
    "attnpool.hook_z": _HEADS,
    # where queries are learned (CoCa), the tokens are normalised first
    "attnpool.ln_k.hook_scale": ("batch", "pos", "one"),
    "attnpool.ln_k.hook_normalized": _RESID,
}

_NUMBER = re.compile(r"(?:(?<=\.)|(?<=\blayer))\d+(?=\.)")  # the 1 of `layer1`, but not of `ln1`

ON_DEMAND = ("hook_attn_scores", "hook_result")
"""Sites that cost more than the run itself: computed only when asked for by name."""


@dataclass(frozen=True)
class Site:
    """The name of an activation, with its kind and axes.

    Args:
        name: The name, with `visual.` or `text.` in front where there are two towers.

    >>> Site("blocks.3.attn.hook_z").axes
    ('batch', 'pos', 'head', 'd_head')
    >>> Site("blocks.3.attn.hook_z").numbers
    (3,)
    >>> Site("visual.blocks.3.hook_resid_pre").tower
    'visual'
    """

    name: str

    @property
    def tower(self) -> str | None:
        """The tower that the name says, `visual` or `text`, else None."""
        head = self.name.split(".", 1)[0]
        return head if head in ("visual", "text") else None

    @property
    def path(self) -> str:
        """The name within its tower."""
        return self.name.removeprefix(f"{self.tower}.") if self.tower else self.name

    @property
    def kind(self) -> str:
        """The name with its numbers replaced by `{}`."""
        return _NUMBER.sub("{}", self.path)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in the name: a block, or a stage and a block."""
        return tuple(int(word) for word in _NUMBER.findall(self.path))

    @property
    def axes(self) -> tuple[str, ...]:
        """The activation's axes in order.

        Raises:
            SiteError: If no kind of site has this name.
        """
        if self.kind not in AXES:
            do = f"try {nearest(self.kind, AXES)}"
            raise SiteError("look up the axes of a site", repr(self.name), "a kind of site", do)
        return AXES[self.kind]

    def __str__(self) -> str:
        return self.name


def find_sites(patterns: str | Iterable[str], known: Sequence[str]) -> list[str]:
    """Names among `known` that match the patterns, in tower order.

    Args:
        patterns: Names, or patterns with `*` and `?` as in a shell.
        known: The sites of the tower.

    Returns:
        The matching sites.

    Raises:
        SiteError: For a pattern that matches nothing, or no pattern.

    >>> find_sites("blocks.*.hook_resid_pre", ["blocks.0.hook_resid_pre", "hook_embed"])
    ['blocks.0.hook_resid_pre']
    >>> find_sites("blocks.0.hook_residpre", ["blocks.0.hook_resid_pre", "ln"])
    Traceback (most recent call last):
    ...
    interp.core.errors.SiteError: ... Try blocks.0.hook_resid_pre.
    """
    wanted = [patterns] if isinstance(patterns, str) else [str(pattern) for pattern in patterns]
    matched: set[str] = set()
    for pattern in wanted:
        matches = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not matches:
            given = f"a tower of {len(known)} sites"
            right = "a name or pattern that matches one of them"
            do = f"try {nearest(pattern, known)}"
            raise SiteError(f"find the site {pattern!r}", given, right, do)
        matched.update(matches)
    if not matched:
        raise SiteError(
            "find sites", "no pattern", "at least one name", f"name some of {listed(known)}"
        )
    return [name for name in known if name in matched]


BAND = (1 / 3, 2 / 3)
"""Depth from a third to two thirds."""

BANDS = {"early": (0.0, BAND[0]), "middle": BAND, "late": (BAND[1], 1.0)}
"""The bands of depth; a site on a border counts as middle."""

LAST = "hook_embedding"
"""The final embedding, never part of the band."""


def middle_of(depths: Mapping[str, float]) -> str:
    """The site nearest to half depth, without the final embedding.

    Args:
        depths: Depth from 0 to 1 by site.

    Returns:
        The site; empty if there is none.

    >>> middle_of({"blocks.0.hook_resid_post": 0.4, "hook_embedding": 0.5})
    'blocks.0.hook_resid_post'
    """
    own = {site: depth for site, depth in depths.items() if site != LAST}
    return min(own, key=lambda site: abs(own[site] - 0.5)) if own else ""


def band_of(depth: float) -> str:
    """The name of the band that a depth lies in.

    Args:
        depth: Depth from 0 to 1.

    Returns:
        `early`, `middle` or `late`; empty for a depth that is not known.

    >>> band_of(0.2), band_of(1 / 3), band_of(0.9), band_of(float("nan"))
    ('early', 'middle', 'late', '')
    """
    if not 0 <= depth <= 1:
        return ""
    if BAND[0] - 1e-9 <= depth <= BAND[1] + 1e-9:
        return "middle"
    return "early" if depth < BAND[0] else "late"


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


def present(tower: "Tower", patterns: Sequence[str]) -> list[str]:
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


def stream_sites(tower: "Tower") -> list[str]:
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


def unit_sites(tower: "Tower") -> dict[str, list[str]]:
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


def causal_sites(tower: "Tower") -> list[str]:
    """Where causal directions are looked for: what the blocks hand on, but for the last one's.

    That of the last block is read out as it is.
    """
    for pattern in BLOCKS:
        if sites := present(tower, [pattern]):
            return sites
    return _with_features(tower)


def _with_features(tower: "Tower") -> list[str]:
    """What the blocks of a traced tower hand on, where it is known which axis is the features'."""
    if not isinstance(tower, Repeating):
        return []
    known = [s for s in tower.block_sites if {"channel", "feature"} & set(tower.axes(s))]
    if len(known) < len(tower.block_sites):
        left = [site for site in tower.block_sites if site not in known]
        say(f"axes without names (open_tower gives them), left out: {listed(left, limit=3)}")
    return known

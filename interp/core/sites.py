"""Sites: the names of activations, in TransformerLens's words, and one table of their axes.

A name is a path (`blocks.3.attn.hook_z`). Its *kind* has `{}` in place of the numbers. `AXES` maps
every kind to its axes; shape checks, indexing, help texts and tests all read that table.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from interp.core.errors import SiteError, listed, nearest

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

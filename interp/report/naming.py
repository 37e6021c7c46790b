"""What things are called and how they look on the page: words and colours."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.declared.writing import plain

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c8c8c", "#a69a00")
"""Okabe and Ito's colours, told apart by colour-blind readers; black and yellow made mid-tones, so
that they stand on white and on black."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")

SETTINGS: Mapping[str, tuple[str, str, str]] = {
    "natural-only": ("natural only", "#8c8c8c", "circle"),
    "leave-out-domain": ("leave-out-domain", "#0072B2", "square"),
    "cg-low": ("CG low diversity", "#E69F00", "triangle-up"),
    "cg-high": ("CG high diversity", "#009E73", "diamond"),
    "upper-bound-low": ("upper bound, low diversity", "#CC79A7", "triangle-down"),
    "upper-bound-high": ("upper bound, high diversity", "#56B4E9", "star"),
}
"""Training distributions, in the order of the page: name in plain words, colour, marker."""

MORE_COLOURS = ("#D55E00", "#a69a00", "#7d5bd0", "#8a5a2b", "#c2185b", "#00908f")
MORE_SYMBOLS = ("cross", "hexagon", "x", "pentagon", "triangle-left", "triangle-right", "star")
"""For settings beyond those, told apart on white and on black.

There is one symbol more than colours, so that the seventh setting has another pair.
"""

OWN_LOOKS = (OKABE_ITO, SYMBOLS)
"""For settings none of which the page knows."""

SIGNS = {SHARED: "●", PARTLY: "◐", NOT_SHARED: "○", UNKNOWN: "?"}
"""A sign beside each verdict, so that no reader depends on colour."""

CHECKPOINT = "this model"
"""What a model that belongs to no setting is called."""


def setting_name(setting: str) -> str:
    """A training distribution, or a contrast of two of them, in plain words.

    >>> setting_name("cg-high − cg-low")
    'CG high diversity − CG low diversity'
    >>> setting_name("cg-high, 2 domains")
    'CG high diversity, 2 domains'
    """
    if not setting:
        return CHECKPOINT
    parts = [part.partition(",") for part in contrast(setting)]
    return " − ".join(
        (SETTINGS[kind][0] if kind in SETTINGS else kind) + comma + rest
        for kind, comma, rest in parts
    )


def contrast(setting: str) -> list[str]:
    """The settings that a contrast subtracts from one another; one, where it is none.

    >>> contrast("leave-out-domain − natural-only")
    ['leave-out-domain', 'natural-only']
    """
    return re.split(r"\s+[−–-]\s+", setting.strip())


def ordered_settings(settings: Iterable[str]) -> list[str]:
    """Each setting once, those that the page knows first and in its order, variants after each.

    >>> ordered_settings(["other", "cg-high, 2 domains", "cg-high", "cg-low"])
    ['cg-low', 'cg-high', 'cg-high, 2 domains', 'other']
    """
    places = {name: place for place, name in enumerate(SETTINGS)}
    given = sorted(dict.fromkeys(settings), key=lambda name: name not in places)
    return sorted(given, key=lambda name: places.get(name.partition(",")[0], len(places)))


Looks: TypeAlias = Mapping[str, tuple[str, str]]
"""Colour and marker by setting."""


def setting_looks(settings: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each setting: its own where the page knows it, else a pair not taken.

    >>> setting_looks(["cg-high", "cg-high, 2 domains"])
    {'cg-high': ('#009E73', 'diamond'), 'cg-high, 2 domains': ('#D55E00', 'cross')}
    """
    given = list(dict.fromkeys(settings))
    others = [name for name in given if name not in SETTINGS]
    tints, symbols = (MORE_COLOURS, MORE_SYMBOLS) if len(others) < len(given) else OWN_LOOKS
    looks = {
        name: (tints[place % len(tints)], symbols[place % len(symbols)])
        for place, name in enumerate(others)
    }
    return {name: looks.get(name) or SETTINGS[name][1:] for name in given}


def looks_of(settings: Sequence[str], names: Iterable[str]) -> Looks:
    """Colour and marker of some settings, the same in every figure of a result."""
    names = ordered_settings(names)
    looks = setting_looks([*settings, *names])
    return {name: looks[name] for name in names}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, such as the domains."""
    return {name: OKABE_ITO[place % len(OKABE_ITO)] for place, name in enumerate(names)}


def faded(colour: str, opacity: float) -> str:
    """A colour made see-through.

    >>> faded("#0072B2", 0.15)
    'rgba(0,114,178,0.15)'
    """
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def setting_label(setting: str) -> str:
    """A setting's name as plotly may show it: what it changes stands on lines of its own.

    >>> setting_label("cg-high, 2 domains")
    'CG high diversity<br>2 domains'
    """
    return "<br>".join(plain(part) for part in setting_name(setting).split(", "))


def site_label(site: str) -> str:
    """A site's name without its hooks' common prefix.

    >>> site_label("blocks.3.hook_resid_post")
    'blocks.3.resid_post'
    """
    return site.replace("hook_", "")

"""Names and looks of things on the page: words, colours, numbers, safe text."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

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

CHECKPOINT = "this model"
"""What a model that belongs to no setting is called."""

MISSING = "–"

PROMPTS = {
    "neutral": "neutral prompts",
    "domain-averaged": "prompts averaged over domain words",
    "domain-specific": "prompts with the domain's own words",
    "paper": "the paper's 86 prompts",
}
CLASSIFIERS = {
    "text": "text head",
    "prototype (natural)": "class means of natural pictures",
    "linear (natural)": "linear probe of natural pictures",
    "linear (own domain)": "linear probe of the own domain",
}
CANDIDATES = {"all": "among all classes", "held-out": "among the held-out classes only"}
CLASS_SETS = {"held-out": "held-out classes", "seen": "seen classes", "all": "all classes"}


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


def setting_look(setting: str, place: int = 0) -> tuple[str, str]:
    """Colour and marker of a setting; `place` picks them for settings not listed here."""
    if setting in SETTINGS:
        return SETTINGS[setting][1:]
    return OKABE_ITO[place % len(OKABE_ITO)], SYMBOLS[place % len(SYMBOLS)]


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


def percent(value: float) -> str:
    """A share as a percentage.

    >>> percent(0.1234), percent(float("nan"))
    ('12.3 %', '–')
    """
    return f"{minus(f'{100 * value:.1f}')} %" if math.isfinite(value) else MISSING


def percents(low: float, high: float) -> str:
    """The range of some shares, or one percentage where that is all there is.

    >>> percents(0.08, 0.0801), percents(0.08, 0.2)
    ('8.0 %', '8.0 % to 20.0 %')
    """
    least, most = percent(low), percent(high)
    return least if least == most else f"{least} to {most}"


def number(value: float, digits: int = 2) -> str:
    """A number with so many decimals, and a real minus sign.

    >>> number(-0.126), number(float("nan"))
    ('−0.13', '–')
    """
    return minus(f"{value:.{digits}f}") if math.isfinite(value) else MISSING


def minus(text: str) -> str:
    """Typeset a hyphen as a minus, and no minus before zero."""
    bare = text.removeprefix("-")
    return text if bare == text else bare if not float(bare) else f"−{bare}"


def between(low: float, high: float, digits: int = 2) -> str:
    """An interval in words.

    >>> between(-0.08, 0.182)
    '95 % interval −0.08 to 0.18'
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"95 % interval {number(low, digits)} to {number(high, digits)}"


def sequence(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> sequence(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def short(text: str, limit: int = 28) -> str:
    """A long name cut in the middle, where names of one set differ least.

    >>> short("abcdefghij", limit=7)
    'abc…hij'
    """
    if len(text) <= limit:
        return text
    head = (limit - 1 + 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def plain(text: str, limit: int = 28) -> str:
    """Text from data as plotly may show it: its labels read HTML, so that is escaped here.

    >>> plain("<b>cat</b>")
    '&lt;b&gt;cat&lt;/b&gt;'
    """
    return html.escape(short(text, limit), quote=False)


def some(said: Sequence[str], table: str, *, limit: int = 6) -> str:
    """Statements for a caption: the first few, and where the others stand.

    >>> some(["a", "b", "c"], "accuracy", limit=2)
    'a; b; and 1 more in the table accuracy'
    """
    more = len(said) - limit
    rest = [f"and {more} more in the table {table}"] if more > 0 else []
    return "; ".join([*said[:limit], *rest])


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

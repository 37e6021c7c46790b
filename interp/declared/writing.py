"""Numbers, intervals and names as a reader sees them, in captions, labels and verdicts."""

import html
import math
import re
from collections.abc import Iterable, Sequence

MISSING = "–"
"""What stands where a number is missing."""

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


def in_points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign.

    >>> in_points(0.073), in_points(-0.044)
    ('+7.3', '−4.4')
    """
    return minus(f"{100 * difference:+.1f}")


def between(low: float, high: float, digits: int = 2) -> str:
    """An interval in words.

    >>> between(-0.08, 0.182)
    '95 % interval −0.08 to 0.18'
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"95 % interval {number(low, digits)} to {number(high, digits)}"


def told_once(reasons: Iterable[str]) -> list[str]:
    """Statements, each once, and of those that differ in numbers alone the first.

    >>> told_once(["room is 0.2", "too few", "room is 0.3", "room is 1", "too few"])
    ['room is 0.2 (and others with other numbers)', 'too few']
    >>> told_once([*told_once(["room is 0.2", "room is 0.3"]), "room is 0.4"])
    ['room is 0.2 (and others with other numbers)']
    """
    alike: dict[str, str] = {}
    for reason in dict.fromkeys(reasons):
        pattern = re.sub(r"\d+(\.\d+)?", "0", reason.removesuffix(_ALIKE))
        first = alike.get(pattern)
        alike[pattern] = first.removesuffix(_ALIKE) + _ALIKE if first else reason
    return [*alike.values()]


_ALIKE = " (and others with other numbers)"


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


def plural(unit: str, n: float) -> str:
    """A unit's name for so many of it.

    >>> plural("class", 2), plural("block", 1), plural("class within block", 40)
    ('classes', 'block', 'classes, each in its own block')
    """
    usual = f"{unit}es" if unit.endswith("s") else f"{unit}s"
    return unit if n == 1 else _PLURALS.get(unit, usual)


_PLURALS = {
    "class x block": "classes in every block",
    "class within block": "classes, each in its own block",
    "class in some blocks": "classes, each in some of the blocks",
}
"""Units of replication whose plural is not made with an s."""

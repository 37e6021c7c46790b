"""Captions that pictures are trained with, and the prompts that classes are asked for with.

The six templates and the domain words are those of Kempf et al. (2025): TERM is a neutral word or,
half the time, a word for the domain, and the final stop is dropped half the time.
"""

import re
from collections.abc import Sequence

import numpy as np

from interp.core.errors import SpecificationError, check_known

TEMPLATES = (
    "a TERM of a CLASS",
    "a CLASS TERM",
    "a TERM depicting a CLASS",
    "a CLASS depicted in a TERM",
    "a TERM showing a CLASS",
    "a CLASS is visible in a TERM",
)
NEUTRAL_WORDS = ("image", "picture")
DOMAIN_WORDS = {
    "real": ("photo", "snapshot"),
    "clipart": ("clipart", "illustration"),
    "infograph": ("infograph", "informational chart"),
    "painting": ("painting", "art"),
    "quickdraw": ("quickdraw", "doodle"),
    "sketch": ("sketch", "drawing"),
}
"""Words for a domain; a domain that is not listed here is called by its own name."""

OTHER_DOMAINS = {
    "photo": DOMAIN_WORDS["real"],
    "real world": DOMAIN_WORDS["real"],
    "art painting": DOMAIN_WORDS["painting"],
    "art": ("painting", "artwork"),
    "cartoon": ("cartoon", "comic"),
    "product": ("product photo", "catalogue picture"),
}
"""Words for the domains of PACS and OfficeHome, by name in small letters and with spaces."""

PROMPT_SETS = ("neutral", "domain-averaged", "domain-specific")
"""Named prompt sets, the primary one first: all models have seen the neutral words."""


def sentence(template: str, term: str, label: str) -> str:
    """Fill a template, mending the articles; underscores become spaces.

    >>> sentence("a TERM of a CLASS", "image", "ice_cream")
    'an image of an ice cream'
    """
    text = template.replace("TERM", term).replace("CLASS", label.replace("_", " "))
    return re.sub(r"\ba(?= [aeiou])", "an", text)


def caption(
    label: str, domain: str, stream: np.random.Generator, *, domain_words: bool = True
) -> str:
    """One training caption; `domain_words=False` aligns captions over domains.

    >>> caption("cat", "sketch", np.random.default_rng(0), domain_words=False)
    'a cat is visible in a picture.'
    """
    template = TEMPLATES[stream.integers(len(TEMPLATES))]
    named = stream.random() < 0.5 and domain_words
    words = words_for(domain) if named else NEUTRAL_WORDS
    stop = "." if stream.random() < 0.5 else ""
    return sentence(template, words[stream.integers(len(words))], label) + stop


def words_for(domain: str) -> tuple[str, ...]:
    """The words for a domain, whichever collection spells its name.

    >>> words_for("Real World"), words_for("Clipart"), words_for("stained_glass")
    (('photo', 'snapshot'), ('clipart', 'illustration'), ('stained glass',))
    """
    spoken = domain.replace("_", " ")
    known = {**OTHER_DOMAINS, **DOMAIN_WORDS}
    return known.get(domain) or known.get(spoken.lower()) or (spoken,)


def prompts(name: str, *, domain: str = "", domains: Sequence[str] = ()) -> list[str]:
    """The templates of a prompt set, with CLASS in place of the class name.

    `neutral` uses neutral words; `domain-averaged` the words of all `domains`; `domain-specific`
    those of `domain` alone.

    >>> prompts("neutral")[0]
    'a image of a CLASS'
    >>> len(prompts("domain-averaged", domains=["real", "sketch"]))
    24
    """
    check_known("make prompts", "prompt set", [name], PROMPT_SETS, SpecificationError)
    words = {
        "neutral": NEUTRAL_WORDS,
        "domain-specific": words_for(domain),
        "domain-averaged": tuple(word for each in domains for word in words_for(each)),
    }[name]
    if not words or (name == "domain-specific" and not domain):
        raise SpecificationError(
            f"make {name} prompts",
            "no domain",
            "the domains to speak of",
            "pass domain= or domains=",
        )
    return [template.replace("TERM", word) for template in TEMPLATES for word in words]


def fill(prompt: str, label: str) -> str:
    """A prompt with a class name in it."""
    return sentence(prompt, "", label)


def vocabulary(labels: Sequence[str], domains: Sequence[str]) -> list[str]:
    """Every word that a caption or prompt about these classes and domains may hold, sorted."""
    terms = [*NEUTRAL_WORDS, *(word for domain in domains for word in words_for(domain))]
    text = " ".join([*TEMPLATES, *terms, *labels, "an"])
    return sorted(
        set(
            re.findall(
                r"\w+|[^\w\s]",
                text.replace("TERM", "").replace("CLASS", "").replace("_", " ").lower(),
            )
        )
        | {"."}
    )

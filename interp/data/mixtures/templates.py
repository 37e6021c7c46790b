"""Captions that pictures are trained with, and the prompts that classes are asked for with.

The six templates and the domain words are those of Kempf et al. (2025): TERM is a neutral word or,
half the time, a word for the domain, and the final stop is dropped half the time. `mentions` finds
names of classes and domains in captions.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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

PROMPT_SETS = ("neutral", "domain-averaged", "domain-specific", "paper")
"""Named prompt sets, the primary one first: all models have seen the neutral words."""

PAPER = "paper"
PAPER_ADDED = tuple(
    f"{article} {word} of {which} CLASS"
    for article, word in (("a", "clipart"), ("an", "infograph"), ("a", "quickdraw"))
    for which in ("the", "a")
)
"""What Kempf et al. (2025) add to OpenAI's 80 ImageNet templates, for 86 in all."""


def sentence(template: str, term: str, label: str) -> str:
    """Fill a template, mending the articles; underscores become spaces.

    >>> sentence("a TERM of a CLASS", "image", "ice_cream")
    'an image of an ice cream'
    """
    text = template.replace("TERM", term).replace("CLASS", label.replace("_", " "))
    return re.sub(r"\ba(?= [aeiou])", "an", text)


def caption(
    label: str, domain: str, generator: np.random.Generator, *, domain_words: bool = True
) -> str:
    """One training caption; `domain_words=False` aligns captions over domains.

    >>> caption("cat", "sketch", np.random.default_rng(0), domain_words=False)
    'a cat is visible in an image.'
    """
    texts, _ = captions([label], [domain], generator, domain_words=domain_words)
    return str(texts[0])


def captions(
    labels: Sequence[str] | pd.Series,
    domains: Sequence[str] | pd.Series,
    generator: np.random.Generator,
    *,
    domain_words: bool = True,
    words_share: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """A training caption for each picture, and whether it has a word for the picture's domain.

    Four draws each: one of the six templates; a domain word, so often as `words_share`
    says, or a neutral one; which of those words; a final stop half the time. `domain_words=False`
    makes the same draws and says the neutral word in all of them. Each distinct sentence is written
    once, so that half a million captions take half a second.

    >>> texts, named = captions(["cat", "dog"], ["sketch"] * 2, np.random.default_rng(1))
    >>> list(texts), named.tolist()
    (['a picture depicting a cat.', 'a dog depicted in a sketch'], [False, True])
    """
    n = len(labels)
    template, named = generator.integers(len(TEMPLATES), size=n), generator.random(n)
    which, stop = generator.random(n), generator.random(n) < 0.5
    named = (named < words_share) & domain_words
    label, label_names = pd.factorize(pd.Series(labels, dtype=None if n else object))
    domain, domain_names = pd.factorize(pd.Series(domains, dtype=None if n else object))
    own, said = [words_for(str(name)) for name in domain_names], [str(c) for c in label_names]
    n_own = np.array([len(words) for words in own], dtype=int)[domain] if n else domain
    word = (which * np.where(named, n_own, len(NEUTRAL_WORDS))).astype(int)
    draws = (domain, label, template, named, word, stop)
    sizes = [int(draw.max()) + 1 if n else 1 for draw in draws]
    codes, place = np.unique(np.ravel_multi_index(draws, sizes), return_inverse=True)
    written = np.empty(len(codes), dtype=object)
    for row, (d, c, t, is_named, w, dot) in enumerate(
        zip(*np.unravel_index(codes, sizes), strict=True)
    ):
        term = own[d][w] if is_named else NEUTRAL_WORDS[w]
        written[row] = sentence(TEMPLATES[t], term, said[c]) + ("." if dot else "")
    return written[place], named


def words_for(domain: str) -> tuple[str, ...]:
    """The words for a domain, whichever collection spells its name.

    >>> words_for("Real World"), words_for("Clipart"), words_for("stained_glass")
    (('photo', 'snapshot'), ('clipart', 'illustration'), ('stained glass',))
    """
    spoken = domain.replace("_", " ")
    known = {**OTHER_DOMAINS, **DOMAIN_WORDS}
    return known.get(domain) or known.get(spoken.lower()) or (spoken,)


def prompts(name: str, *, domain: str = "", domains: Sequence[str] = ()) -> list[str]:
    """Give the templates of a prompt set, with CLASS in place of the class name.

    Args:
        name: `neutral` uses neutral words; `domain-averaged` the words of all `domains`;
            `domain-specific` those of `domain` alone; `paper` the 86 templates of the paper, for
            models whose tokenizer knows their words.
        domain: The domain, for `domain-specific`.
        domains: The domains, for `domain-averaged`.

    Returns:
        The templates.

    Raises:
        SpecificationError: For an unknown prompt set, or one without its domains.

    References:
        Kempf et al. 2025, arXiv 2502.09507.

    Notes:
        Templates of `paper` are put as they are, without mending articles: write "a CLASS" with
        `interp.models.clip.write`, not `fill`.

    >>> prompts("neutral")[0]
    'a image of a CLASS'
    >>> len(prompts("domain-averaged", domains=["real", "sketch"]))
    24
    >>> len(prompts("paper")), prompts("paper")[0]
    (86, 'a bad photo of a CLASS.')
    """
    check_known("make prompts", "prompt set", [name], PROMPT_SETS, SpecificationError)
    if name == PAPER:
        return paper_prompts()
    words = {
        "neutral": NEUTRAL_WORDS,
        "domain-specific": words_for(domain),
        "domain-averaged": tuple(word for each in domains for word in words_for(each)),
    }[name]
    if not words or (name == "domain-specific" and not domain):
        do = "pass domain= or domains="
        raise SpecificationError(f"make {name} prompts", "no domain", "the domains to speak of", do)
    return [template.replace("TERM", word) for template in TEMPLATES for word in words]


def paper_prompts() -> list[str]:
    """OpenAI's 80 ImageNet templates, as open_clip has them, and six for other domains."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES  # seconds, and only this set needs them

    return [template("CLASS") for template in OPENAI_IMAGENET_TEMPLATES] + list(PAPER_ADDED)


def fill(prompt: str, label: str) -> str:
    """A prompt with a class name in it."""
    return sentence(prompt, "", label)


@dataclass(frozen=True)
class PromptSet:
    """The templates of a named prompt set for pictures of a domain."""

    name: str
    domains: tuple[str, ...]

    def __call__(self, domain: str) -> list[str | Callable[[str], str]]:
        if self.name == PAPER:  # as published: articles are not mended
            return list(prompts(PAPER))
        return [
            lambda label, prompt=prompt: fill(prompt, label)
            for prompt in prompts(self.name, domain=domain, domains=self.domains)
        ]


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


def longest_caption(labels: Sequence[str], domains: Sequence[str]) -> int:
    """Words in the longest caption or prompt that these classes and domains can make."""
    template = max(len(each.split()) for each in TEMPLATES)
    label = max(len(each.replace("_", " ").split()) for each in labels)
    term = max(
        len(word.split()) for domain in (*domains, *DOMAIN_WORDS) for word in words_for(domain)
    )
    return template - 2 + label + term + 1  # TERM and CLASS make way; the final stop is a word


GAP = r"[\s_-]*"
"""What may stand between the parts of a name: `traffic light`, `traffic_light`, `trafficlight`."""


def pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Compile one expression for any of the names as whole words, singular or plural.

    Args:
        names: The names.

    Returns:
        The expression; None without names.

    >>> found = pattern(["traffic_light", "strawberry", "bus"])
    >>> [bool(found.search(text)) for text in
    ...  ("two Traffic-lights", "strawberries", "a school bus", "busy", "a light")]
    [True, True, True, False, False]
    """
    forms = [_forms(name) for name in sorted(set(names), key=len, reverse=True)]
    if not forms:
        return None
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(forms)})(?![^\W_])", re.IGNORECASE)


def _forms(name: str) -> str:
    """An expression for the singular and the regular plurals of a name."""
    words = [re.escape(word) for word in re.split(r"[\s_-]+", name.strip()) if word]
    *first, last = words or [re.escape(name)]
    if last.endswith("y"):
        last = f"{last[:-1]}(?:y|ys|ies)"
    elif last.endswith("fe"):
        last = f"{last[:-2]}(?:fe|fes|ves)"
    elif last.endswith("f"):
        last = f"{last[:-1]}(?:f|fs|ves)"
    elif last.endswith("man"):
        last = f"{last[:-3]}(?:man|men)"
    elif last.endswith("s"):
        last = f"{last[:-1]}(?:s|ses)?"  # scissors, bus; a name in the plural also in the singular
    else:
        last = f"{last}(?:s|es)?"
    return GAP.join([*first, last])


def mentions(texts: pd.Series, names: Iterable[str]) -> np.ndarray:
    """Which of the texts contain any of the names.

    Args:
        texts: The texts; each distinct one is searched once.
        names: The names.

    Returns:
        A Boolean per text.

    >>> mentions(pd.Series(["a drawing of a lion", "a photo of a cat"]), ["lion"]).tolist()
    [True, False]
    """
    expression = pattern(names)
    if expression is None or not len(texts):
        return np.zeros(len(texts), dtype=bool)
    text_of_row, distinct = pd.factorize(texts)
    named = np.array([bool(expression.search(str(text))) for text in distinct], dtype=bool)
    return named[text_of_row]

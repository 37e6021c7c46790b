"""Captions and prompts: every template, every word, right articles, one vocabulary."""

import re
from collections import Counter

import pytest

from interp.core.errors import SpecificationError
from interp.core.seeds import rng
from interp.data.mixtures.templates import (
    DOMAIN_WORDS,
    NEUTRAL_WORDS,
    PAPER,
    PROMPT_SETS,
    TEMPLATES,
    caption,
    captions,
    fill,
    prompts,
    sentence,
    vocabulary,
    words_for,
)

LABELS = ["ice_cream", "umbrella", "cat"]


def test_captions_use_every_template_and_drop_half_the_stops() -> None:
    generator = rng("captions", 0)
    made = [caption("cat", "sketch", generator) for _ in range(2000)]
    assert 0.45 < sum(text.endswith(".") for text in made) / 2000 < 0.55
    for template in TEMPLATES:
        pattern = re.escape(template).replace("CLASS", "cat").replace("TERM", r"[\w ]+")
        pattern = re.sub(r"\ba\\ ", r"an?\\ ", pattern)
        assert any(re.fullmatch(pattern, text.rstrip(".")) for text in made), template


def test_captions_are_drawn_as_the_paper_says() -> None:
    """Templates, words and stops are independent and even; four standard errors are allowed."""
    n = 24_000
    domains = ["sketch", "elsewhere"] * (n // 2)
    texts, named = captions(["cat"] * n, domains, rng("captions", 1))
    words = {
        ("sketch", True): DOMAIN_WORDS["sketch"],
        ("elsewhere", True): ("elsewhere",),
        ("sketch", False): NEUTRAL_WORDS,
        ("elsewhere", False): NEUTRAL_WORDS,
    }
    expected = {
        (domain, is_named, sentence(template, word, "cat") + stop): 1 / (2 * 2 * 6 * len(own) * 2)
        for (domain, is_named), own in words.items()
        for word in own
        for template in TEMPLATES
        for stop in (".", "")
    }
    seen = Counter(zip(domains, named.tolist(), texts, strict=True))
    assert set(seen) == set(expected)
    for what, share in expected.items():
        assert abs(seen[what] - n * share) < 4 * (n * share) ** 0.5, what
    for share, found in ((0.5, named.mean()), (0.5, sum(t.endswith(".") for t in texts) / n)):
        assert abs(found - share) < 4 * 0.5 / n**0.5


def test_aligned_captions_make_the_same_draws_and_name_no_domain() -> None:
    given = (["cat", "ice_cream"] * 200, ["sketch", "real"] * 200)
    texts, named = captions(*given, rng("captions", 2))
    aligned, none = captions(*given, rng("captions", 2), domain_words=False)
    assert not none.any() and named.any() and not named.all()
    assert [a == b for a, b in zip(texts, aligned, strict=True)] == [not n for n in named]


def test_no_pictures_have_no_captions() -> None:
    texts, named = captions([], [], rng("captions", 0))
    assert len(texts) == len(named) == 0


def test_articles_are_right() -> None:
    assert sentence("a TERM of a CLASS", "infograph", "umbrella") == "an infograph of an umbrella"
    assert sentence("a CLASS TERM", "photo", "ice_cream") == "an ice cream photo"


def test_prompt_sets_hold_their_own_words_only() -> None:
    neutral = {fill(p, "cat") for p in prompts("neutral")}
    assert len(neutral) == len(TEMPLATES) * len(NEUTRAL_WORDS)
    own = prompts("domain-specific", domain="sketch")
    assert all(any(word in prompt for word in DOMAIN_WORDS["sketch"]) for prompt in own)
    averaged = prompts("domain-averaged", domains=tuple(DOMAIN_WORDS))
    assert len(averaged) == len(TEMPLATES) * sum(map(len, DOMAIN_WORDS.values()))


def test_the_vocabulary_holds_every_word_of_every_caption_and_prompt() -> None:
    words = set(vocabulary(LABELS, list(DOMAIN_WORDS)))
    generator = rng("vocabulary", 0)
    texts = [caption(c, d, generator) for c in LABELS for d in DOMAIN_WORDS for _ in range(100)]
    texts += [
        fill(prompt, label)
        for name in PROMPT_SETS
        if name != PAPER  # which is for tokenizers that know every word
        for label in LABELS
        for prompt in prompts(name, domain="real", domains=tuple(DOMAIN_WORDS))
    ]
    spoken = {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    assert spoken <= words


def test_the_papers_prompts_are_openais_and_six_more() -> None:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    found = prompts(PAPER)
    assert len(set(found)) == len(found) == 86 and all(p.count("CLASS") == 1 for p in found)
    theirs = [template("owl") for template in OPENAI_IMAGENET_TEMPLATES]
    assert [prompt.replace("CLASS", "owl") for prompt in found[:80]] == theirs
    assert set(found[80:]) == {
        f"{start} of {article} CLASS"
        for start in ("a clipart", "an infograph", "a quickdraw")
        for article in ("the", "a")
    }


def test_words_of_other_collections_are_in_the_vocabulary_too() -> None:
    names = ["photo", "Real World", "art_painting", "Art", "cartoon", "Product", "stained_glass"]
    assert words_for("Real World") == words_for("real") == words_for("photo")
    words = set(vocabulary(LABELS, names))
    generator = rng("vocabulary", 1)
    texts = [caption("cat", domain, generator) for domain in names for _ in range(100)]
    assert {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())} <= words
    assert any("comic" in text for text in texts) and any("stained glass" in text for text in texts)


def test_an_unknown_prompt_set_and_a_missing_domain_are_errors() -> None:
    with pytest.raises(SpecificationError, match="neutral"):
        prompts("nuetral")
    with pytest.raises(SpecificationError, match="domain="):
        prompts("domain-specific")

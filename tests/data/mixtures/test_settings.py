"""Specifications: names that tell them apart, and impossible ones refused with what is right."""

from dataclasses import asdict, replace
from itertools import product
from typing import Any

import pytest

from interp.core.errors import DataError, SpecificationError
from interp.data.mixtures.settings import SETTINGS, MixtureSpec, base_name

HIGH = MixtureSpec("cg-high", "sketch", ("b",))
BOUND = MixtureSpec("upper-bound-high", "sketch", ("b",))
KNOWN = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]


def test_names_and_slugs_tell_all_variants_apart() -> None:
    variants = [
        replace(HIGH, domains=domains, seen_dose=dose, hold=hold, domain_words=words, rule=rule)
        for domains, dose, hold, words, rule in product(
            (None, 0, 1, 2, ("clipart",), ("clipart", "painting")),
            (0.0, 0.025, 0.25, 0.5, 1.0),
            ("size", "natural", "exposure", "steps"),
            (True, False),
            ("random", "first"),
        )
    ]
    variants += [replace(BOUND, held_out_dose=dose) for dose in (0.05, 0.1, 0.5, 1.0)]
    variants += [replace(HIGH, foreign=("z",), overlap=dose) for dose in (0.0, 0.2, 0.8)]
    variants += [replace(HIGH, base=path) for path in ("a.tsv", "b.tsv", "cc3m/{0..3}.tar")]
    variants += [MixtureSpec(name, "sketch", ("b",)) for name in SETTINGS if name != "cg-high"]
    # a dose of 1 is an upper bound as it stands
    assert len({spec.name for spec in variants}) == len(variants) - 1
    assert len({spec.slug for spec in variants}) == len(variants) - 1
    assert all(spec.slug.replace("-", "").isalnum() for spec in variants)


def test_a_name_is_the_setting_unless_something_differs_from_its_defaults() -> None:
    assert {MixtureSpec(name, "sketch", ("b",)).name for name in SETTINGS} == set(SETTINGS)
    assert replace(HIGH, held_out=("c",), seed=3, test_domain="clipart").name == "cg-high"
    assert replace(HIGH, domains=2).name == "cg-high, 2 domains"
    assert replace(HIGH, seen_dose=0.5).name == "cg-high, half of the seen cells"
    assert replace(BOUND, held_out_dose=0.05).name == "upper-bound-high, 5 % of the held-out cells"
    assert MixtureSpec("natural-only", "sketch", (), hold="steps").name == "natural-only"
    assert base_name("sets/imagenet-captions.tsv") == "imagenet-captions"


def test_a_manifest_gives_the_specification_back_an_older_one_too() -> None:
    spec = replace(HIGH, domains=("clipart",), seen_dose=0.25, foreign=("z",))
    written = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(spec).items()
    }
    assert MixtureSpec.from_manifest(written) == spec
    old = {"setting": "cg-low", "test_domain": "sketch", "held_out": ["b"]}
    assert MixtureSpec.from_manifest({**old, "size_matched": False}).hold == "steps"
    assert MixtureSpec.from_manifest({**old, "size_matched": True}).hold == "size"
    with pytest.raises(DataError, match="seen_dose"):
        MixtureSpec.from_manifest({**old, "sen_dose": 1.0})


def test_domains_join_in_one_order_whatever_the_setting_and_the_test_domain() -> None:
    one, two, three = (replace(HIGH, domains=n).other_domains(KNOWN) for n in (1, 2, 3))
    assert three[:2] == two and two[:1] == one and len(set(three)) == 3
    assert replace(BOUND, domains=3).other_domains(KNOWN) == three
    for seed in range(5):
        four = replace(HIGH, domains=4, seed=seed).other_domains(KNOWN)
        elsewhere = replace(HIGH, test_domain="clipart", domains=4, seed=seed).other_domains(KNOWN)
        assert [d for d in elsewhere if d != "sketch"] == [d for d in four if d != "clipart"]
    assert replace(HIGH, seed=0, domains=4).other_domains(KNOWN[::-1])[:3] == three
    orders = {replace(HIGH, seed=seed, domains=4).other_domains(KNOWN) for seed in range(6)}
    assert len(orders) > 1
    assert replace(HIGH, domains=("painting", "clipart")).other_domains(KNOWN) == (
        "painting",
        "clipart",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": "cg-hihg"}, "cg-high"),
        ({"hold": "sizes"}, "size"),
        ({"rule": "frist"}, "first"),
        ({"test_domain": "real"}, "other than the natural"),
        ({"test_domain": "base"}, "base set"),
        ({"seen_dose": 1.5}, "share from 0 to 1"),
        ({"seen_dose": -0.1}, "share from 0 to 1"),
        ({"seen_dose": float("nan")}, "share from 0 to 1"),
        ({"setting": "upper-bound-low", "held_out_dose": 2.0}, "share from 0 to 1"),
        ({"overlap": 1.2, "foreign": ("z",)}, "share from 0 to 1"),
        ({"held_out_dose": 0.5}, "an upper-bound setting"),
        ({"setting": "leave-out-domain", "seen_dose": 0.5}, "leave it out"),
        ({"setting": "natural-only", "overlap": 0.5, "foreign": ("z",)}, "leave it out"),
        ({"overlap": 0.5}, "name them in foreign"),
        ({"foreign": ("b",)}, "in the label set"),
        ({"foreign": ("z",), "labels": ("z", "b")}, "in the label set"),
        ({"labels": ("a",)}, "add them to labels"),
        ({"held_out": ("b", "b")}, "b twice"),
        ({"setting": "cg-low", "domains": 1}, "leave domains out"),
        ({"domains": ("clipart", "clipart")}, "clipart twice"),
        ({"domains": ("sketch",)}, "mend the list"),
        ({"domains": ("real",)}, "mend the list"),
        ({"domains": -1}, "how many"),
    ],
)
def test_impossible_specifications_say_what_is_right(change: dict[str, Any], words: str) -> None:
    values = {"setting": "cg-high", "test_domain": "sketch", "held_out": ("b",), **change}
    with pytest.raises(SpecificationError, match=f"(?i){words}"):
        MixtureSpec(**values)


def test_domains_that_are_not_there_are_named() -> None:
    with pytest.raises(DataError, match="clipart"):
        replace(HIGH, domains=("clipatr",)).other_domains(KNOWN)
    with pytest.raises(DataError, match="at most 4"):
        replace(HIGH, domains=5).other_domains(KNOWN)

"""Words in captions: plural, spacing, case, and no word inside another."""

import re

import pandas as pd
import pytest

from interp.data.mixtures.templates import mentions, pattern


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("lion", ["a lion.", "Lions", "the LION's den", "lion-like"], ["dandelion", "lionel"]),
        ("traffic_light", ["traffic light", "traffic_lights", "traffic-light", "trafficlight"],
         ["traffic", "light traffic", "traffic in the light"]),
        ("axe", ["an axe", "two axes"], ["axel", "axis", "taxes"]),
        ("bench", ["benches", "a bench"], ["benched"]),
        ("strawberry", ["strawberries", "strawberry"], ["straw"]),
        ("knife", ["knives", "a knife"], ["kni"]),
        ("leaf", ["leaves", "a leaf"], ["leavened"]),
        ("bus", ["a bus", "buses"], ["busy", "abuse"]),
        ("scissors", ["scissors", "a scissor"], ["scissored"]),
        ("snowman", ["snowmen", "a snowman"], ["snow"]),
        ("informational chart", ["an informational chart", "informational charts"], ["chart"]),
        ("t-shirt", ["a t-shirt", "t shirts", "tshirt"], ["shirt"]),
        ("The_Eiffel_Tower", ["the Eiffel Tower"], ["a tower"]),
        ("a+b", ["a+b"], ["aab", "ab"]),
    ],
)  # fmt: skip
def test_a_name_is_found_in_its_forms_only(name: str, yes: list[str], no: list[str]) -> None:
    found = mentions(pd.Series([*yes, *no]), [name])
    assert found.tolist() == [True] * len(yes) + [False] * len(no)


def test_texts_are_read_once_and_answers_are_those_of_the_expression() -> None:
    texts = pd.Series(["a drawing of a lion", "a photo", "a drawing of a lion", ""] * 50)
    expression = pattern(["sketch", "drawing"])
    assert expression is not None
    naive = [bool(re.search(expression, text)) for text in texts]
    assert mentions(texts, ["sketch", "drawing"]).tolist() == naive
    assert mentions(texts.astype("category"), ["drawing"]).sum() == 100


def test_no_names_and_no_texts_find_nothing() -> None:
    assert pattern([]) is None
    assert not mentions(pd.Series(["a lion"]), []).any()
    assert len(mentions(pd.Series([], dtype=object), ["lion"])) == 0

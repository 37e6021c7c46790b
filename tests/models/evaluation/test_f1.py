"""Macro-F1: scikit-learn's number, a jackknife done by hand, and the score of guessing."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife
from interp.models.evaluation.accuracy import confusion, guessing_f1, macro_f1

CLASSES = ["a", "b", "c", "d"]


@pytest.fixture
def choices() -> tuple[np.ndarray, np.ndarray]:
    """Unequal classes, right two times in three, and sometimes a class from outside."""
    generator = rng("f1", 0)
    true = generator.choice(CLASSES, 120, p=[0.4, 0.3, 0.2, 0.1])
    guess = generator.choice([*CLASSES, "outside"], 120)
    return true, np.where(generator.random(120) < 0.66, true, guess)


def sklearns(true: np.ndarray, chosen: np.ndarray, classes: list[str]) -> float:
    return float(f1_score(true, chosen, labels=classes, average="macro", zero_division=0.0))


def test_it_is_scikit_learns(choices: tuple[np.ndarray, np.ndarray]) -> None:
    true, chosen = choices
    assert macro_f1(true, chosen, CLASSES).value == pytest.approx(sklearns(true, chosen, CLASSES))
    some = ["b", "d"]
    keep = np.isin(true, some)
    found = macro_f1(true[keep], chosen[keep], some)
    assert found.value == pytest.approx(sklearns(true[keep], chosen[keep], some))


def test_the_interval_is_the_jackknife_that_leaves_out_whole_classes(
    choices: tuple[np.ndarray, np.ndarray],
) -> None:
    true, chosen = choices
    left_out = [
        sklearns(true[true != c], chosen[true != c], [k for k in CLASSES if k != c])
        for c in CLASSES
    ]
    found = macro_f1(true, chosen, CLASSES)
    expected = jackknife(found.value, left_out)
    assert found.error == pytest.approx(expected.error)
    assert found.low == pytest.approx(max(expected.low, 0))
    assert found.high == pytest.approx(min(expected.high, 1))


def test_a_class_never_shown_nor_chosen_counts_as_nought() -> None:
    assert macro_f1(["a", "a"], ["a", "a"], ["a", "b"]).value == 0.5
    assert np.isnan(macro_f1(["a"], ["a"], ["a"]).low)
    assert macro_f1([0, 0, 1], [0, 1, -1], [0, 1]) == macro_f1(list("aab"), list("ab?"), list("ab"))
    assert confusion(["a", "b"], ["b", "zebra"], ["a", "b"]).tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(("shown", "n"), [([16] * 10, 40), ([3, 5, 9], 3), ([2, 2, 2, 30], 12)])
def test_guessing_scores_what_it_is_said_to(shown: list[int], n: int) -> None:
    generator = rng("guessing", 0)
    true = np.repeat([f"c{k}" for k in range(len(shown))], shown)
    names = [f"c{k}" for k in range(len(shown))]
    drawn = [
        macro_f1(true, generator.choice([f"c{k}" for k in range(n)], len(true)), names).value
        for _ in range(600)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert guessing_f1(shown, n) == pytest.approx(np.mean(drawn), abs=4 * error)
    assert error < 0.01  # so that the line above can fail


def test_a_random_classifier_is_at_the_null_and_a_good_one_above() -> None:
    generator = rng("f1 null", 0)
    names = [f"c{k}" for k in range(12)]
    true = np.repeat(names, 16)
    null = guessing_f1([16] * 12, 12)
    random = macro_f1(true, generator.choice(names, len(true)), names)
    assert random.low < null < random.high
    good = np.where(generator.random(len(true)) < 0.5, true, generator.choice(names, len(true)))
    assert macro_f1(true, good, names).low > null

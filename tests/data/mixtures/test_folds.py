"""Held-out classes: repeatable, and in folds every class exactly once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.core.errors import SpecificationError
from interp.data.mixtures.subsampling import PAPER_HELD_OUT, choose_held_out, class_folds
from tests.data.domainnet import counts

LABELS = list("abcdefgh")


def test_held_out_classes_are_repeatable_and_leave_some() -> None:
    assert choose_held_out(LABELS, 3, seed=1) == choose_held_out(LABELS, 3, seed=1)
    assert len({choose_held_out(LABELS, 3, seed=seed) for seed in range(10)}) > 1
    with pytest.raises(SpecificationError, match="1 to 7"):
        choose_held_out(LABELS, len(LABELS))


@given(n=st.integers(2, 40), folds=st.integers(2, 40), seed=st.integers(0, 5))
def test_every_class_is_held_out_exactly_once(n: int, folds: int, seed: int) -> None:
    labels = [f"class {k}" for k in range(n)]
    if folds > n:
        with pytest.raises(SpecificationError, match=f"2 to {n} folds"):
            class_folds(labels, folds, seed=seed)
        return
    dealt = class_folds(labels, folds, seed=seed)
    assert Counter(label for fold in dealt for label in fold) == Counter(labels)
    sizes = [len(fold) for fold in dealt]
    assert len(dealt) == folds and max(sizes) - min(sizes) <= 1


def test_folds_move_with_the_seed_and_not_with_the_order_of_classes() -> None:
    assert class_folds(LABELS, 3, seed=1) == class_folds(LABELS[::-1], 3, seed=1)
    assert class_folds(LABELS, 3, seed=1) != class_folds(LABELS, 3, seed=2)


def test_the_papers_classes_are_fifteen_of_domainnets() -> None:
    assert len(set(PAPER_HELD_OUT)) == 15 and set(PAPER_HELD_OUT) < set(counts().index)

"""Keywords that travel in groups: filled with defaults, and refused where they are wrong."""

from dataclasses import dataclass

import pytest

from interp.core.arguments import Budget, Room, filled
from interp.core.errors import SpecificationError


@dataclass(frozen=True, kw_only=True)
class Fit(Budget):
    k: int
    steps: int = 5


def fit(tower: object, *, where: int = 0, **how: object) -> Fit:
    return filled(fit, Fit, how)


def test_defaults_fill_what_is_not_given() -> None:
    assert fit(None, k=3, seed=7) == Fit(k=3, seed=7, steps=5, batch_size=32)
    assert filled(fit, Room, {}) == Room()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"k": 1, "stepps": 2}, "Cannot call fit: given keyword 'stepps'.*did you mean steps"),
        ({"k": 1, "whre": 2}, "keyword 'whre', right would be one of tower, where,.*mean where"),
        ({"seed": 1}, "Cannot call fit: given no k, right would be the keywords k.*[Pp]ass k="),
    ],
)
def test_errors_name_the_function_and_suggest(given: dict[str, object], wanted: str) -> None:
    with pytest.raises(SpecificationError, match=wanted.replace("did", "[Dd]id")):
        fit(None, **given)

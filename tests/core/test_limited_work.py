"""Work that fails, hangs or dies is a reason; the rest goes on, in order."""

import os
import time

import pytest

from interp.core.limited_work import Failure, time_limited


def odd(item: object) -> object:
    if item == "raise":
        raise ValueError("no\nsecond line")
    if item == "hang":
        time.sleep(600)
    if item == "die":
        os._exit(3)
    if item == "unsendable":
        return lambda: None
    return item


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_rest_goes_on(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.core.limited_work.FIRST", 20.0)
    items = ["a", "raise", "die", "unsendable", "b"]
    found = list(time_limited(odd, items, seconds=20, jobs=jobs))
    assert [item for item, _ in found] == items
    assert [outcome for _, outcome in found] == [
        "a",
        Failure("ValueError: no"),
        Failure("its process died (exit status 3)"),
        Failure("an answer that cannot be sent (AttributeError)"),
        "b",
    ]


def test_who_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit counts from when its process has begun, not from the time it had to begin."""
    monkeypatch.setattr("interp.core.limited_work.FIRST", 300.0)
    start = time.monotonic()
    found = dict(time_limited(odd, ["hang", "a", "b"], seconds=1.0, jobs=1))
    assert found["hang"] == Failure("no answer within 1 s")
    assert found["a"] == "a" and found["b"] == "b"
    assert time.monotonic() - start < 150


def test_nothing_to_do() -> None:
    assert list(time_limited(odd, [], seconds=1, jobs=2)) == []

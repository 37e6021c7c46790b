"""Memory that runs out halves the batch, for good, and every row is still worked on."""

from collections.abc import Iterator

import pytest

from interp.core import parallel as batching
from interp.core.errors import SpecificationError
from interp.core.parallel import Batching


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(batching, "say", lines.append)
    return lines


def test_memory_that_runs_out_halves_the_batch(said: list[str]) -> None:
    def work(rows: slice) -> slice:
        if rows.stop - rows.start > 2:
            raise MemoryError
        return rows

    within = Batching(8)
    assert within.each(5, work) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert said == ["out of memory: the batch is halved to 2"]
    assert within.each(3, work) == [slice(0, 2), slice(2, 3)]  # for good
    assert len(said) == 1
    with pytest.raises(MemoryError):
        Batching(1).each(1, lambda rows: 1 / 0 if rows.stop > 5 else work(slice(0, 9)))
    with pytest.raises(ZeroDivisionError):  # another error is no reason to halve
        Batching(8).each(5, lambda rows: 1 / 0)


def test_items_given_before_memory_ran_out_are_given_again(said: list[str]) -> None:
    def work(rows: slice) -> Iterator[int]:
        yield rows.start
        if rows.stop - rows.start > 2:
            raise RuntimeError("CUDA out of memory")
        yield rows.stop

    assert list(Batching(4).through(4, work)) == [
        (slice(0, 4), 0),
        (slice(0, 2), 0),
        (slice(0, 2), 2),
        (slice(2, 4), 2),
        (slice(2, 4), 4),
    ]


def test_a_stacked_batch_is_halved_by_what_a_forward_held(said: list[str]) -> None:
    within, tried = Batching(8, stacked=True), []

    def work(rows: slice) -> None:
        tried.append(within.copies(rows))
        if within.copies(rows) > 2:
            raise MemoryError

    within.each(1, work)
    assert tried == [8, 4, 2] and within.size == 2
    with pytest.raises(SpecificationError, match="at least 1 row"):
        Batching(0)

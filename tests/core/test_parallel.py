"""Threads: cores shared evenly, and no more of them than the environment allows."""

import pytest

from interp.core.parallel import threads_each


@pytest.mark.parametrize(
    ("allowed", "jobs", "threads"), [("8", 2, 4), ("1", 2, 1), ("3", 1, 3), ("", 1, 6), ("x", 3, 2)]
)
def test_cores_are_shared_evenly(
    monkeypatch: pytest.MonkeyPatch, allowed: str, jobs: int, threads: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads_each(jobs) == threads

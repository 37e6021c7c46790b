"""Threads: cores shared evenly, and no more of them than the environment allows."""

import pytest

from interp.core.parallel import devices_in_turn, threads_each


@pytest.mark.parametrize(
    ("allowed", "jobs", "threads"), [("8", 2, 4), ("1", 2, 1), ("3", 1, 3), ("", 1, 6), ("x", 3, 2)]
)
def test_cores_are_shared_evenly(
    monkeypatch: pytest.MonkeyPatch, allowed: str, jobs: int, threads: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads_each(jobs) == threads


def test_runs_take_the_cards_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices_in_turn("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_in_turn("cuda:1", 2) == ["cuda:1"] * 2
    assert devices_in_turn("cpu", 2) == ["cpu"] * 2
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert devices_in_turn("cuda", 2) == ["cuda"] * 2

"""A run's folder has one trainer at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from interp.models.training.launcher import alone

ORPHAN = """
import subprocess, sys
worker = "import signal; from interp.models.training.launcher import end_with_parent as end; end(); print(flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""  # noqa: E501


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with alone(tmp_path):
            order.append("second")

    waiting = Thread(target=second)
    with alone(tmp_path):
        waiting.start()
        waiting.join(timeout=0.2)
        assert waiting.is_alive() and not order
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_folders_do_not_wait_for_one_another(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with alone(tmp_path), alone(tmp_path / "other"):
        assert (tmp_path / "lock").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel, in Linux's words")
def test_a_worker_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = _runs(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"

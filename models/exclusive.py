"""One trainer at a time on a run's folder, and none that outlives the torchrun that started it."""

import ctypes
import errno
import fcntl
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
_PARENT_DIED = 1  # Linux's PR_SET_PDEATHSIG
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; wait while another trainer holds it.

    The system lets go of it when a process ends, however it ends, so that a lock is never stale.
    File systems without locks are used without.
    """
    with (folder / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning(f"Another trainer is at work in {folder}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends: a torchrun that is killed outright
    cannot end its workers itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)

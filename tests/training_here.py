"""Training in the test's own process: a trainer of its own imports for seconds before it begins."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import pytest
import torch

from interp.models.training import launcher
from interp.models.training import train as supervisor
from interp.models.training.run import Run


@contextmanager
def training_here() -> Iterator[None]:
    """Let `train`, and every study, call the launcher's main function instead of starting it.

    One run trains at a time, whatever `jobs` says: seeds and logs are those of the process.
    """
    lock = Lock()

    def supervise(run: Run, command: Sequence[str], *_: object) -> None:
        assert "torch.distributed.run" not in command
        with lock, as_before(), warnings.catch_warnings():  # a trainer's own are ignored
            warnings.simplefilter("ignore")
            carry_out(command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "_supervise", supervise)
        yield


def carry_out(command: Sequence[str]) -> None:
    """Carry out a run's command in this process."""
    launcher.main(list(command[command.index("--") + 1 :]))


@contextmanager
def as_before() -> Iterator[None]:
    """Leave logging and the number of threads as they were before what a trainer sets up."""
    logging.debug("")  # pytest's handlers stand first
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in root.manager.loggerDict}
    level, threads = root.level, torch.get_num_threads()
    try:
        yield
    finally:
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        torch.set_num_threads(threads)

"""Every test and doctest begins at the same random state; `INTERP_TEST_SEED` chooses another."""

import os
import random

import numpy as np
import pytest
import torch

SEED = int(os.environ.get("INTERP_TEST_SEED", "0"))


def seed_everything() -> None:
    """Begin the streams of those who name none: weights of a new module, above all."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


def pytest_collectstart() -> None:
    """Before a module is imported, which may make a model."""
    seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before fixtures that a test is the first to ask for."""
    seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Before the test itself, whoever made its fixtures."""
    seed_everything()

"""What a wrong call must meet: an error of ours, which says what was wrong."""

from collections.abc import Callable

import pytest


def refuses(error: type[Exception], words: str, call: Callable, /, *given: object, **how: object):
    """The call must raise the error, whose message matches the words."""
    with pytest.raises(error, match=words or None):
        call(*given, **how)

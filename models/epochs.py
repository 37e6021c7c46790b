"""How accuracy grows over training: the answers of one run's checkpoints, epoch by epoch."""

from collections.abc import Callable, Iterable

import pandas as pd

from interp.core.errors import SampleError
from interp.core.progress import track
from interp.models.accuracy import accuracy
from interp.models.answers import Answers


def by_epoch(
    checkpoints: Iterable[tuple[int, Callable[[], Answers]]],
    *,
    measure: Callable[..., pd.DataFrame] = accuracy,
    seed: int = 0,
) -> pd.DataFrame:
    """The `accuracy` table of every checkpoint of a run, with its `epoch`.

    `checkpoints` are pairs of an epoch (0: untrained) and a function that opens that checkpoint and
    asks it, called one after another, so that one model is in memory at a time. The same classes
    are resampled alike in every epoch (`seed`), so that curves differ by their models alone; an
    interval is of one epoch, and says nothing of the step from one to the next. Raises
    `SampleError` without checkpoints.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real", "prompts": "neutral",
    ...     "classifier": "text", "candidates": "all", "chosen": ["cat", "cat"],
    ...     "correct": [1.0, 0.0], "rank": [1, 2], "margin": float("nan")})
    >>> answers = Answers(frame, (), 2)
    >>> by_epoch([(0, lambda: answers), (4, lambda: answers)])["epoch"].unique().tolist()
    [0, 4]
    """
    known = sorted(checkpoints, key=lambda pair: pair[0])
    if not known:
        raise SampleError(
            "draw a curve over epochs", "no checkpoint", "at least one", "keep some of the epochs"
        )
    parts = [
        measure(answer(), seed=seed).assign(epoch=epoch)
        for epoch, answer in track(known, "evaluate epochs")
    ]
    return pd.concat(parts, ignore_index=True)

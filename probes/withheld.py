"""Which pictures features may be fitted to: those of cells that the model was trained on.

A cell (class x domain) that the model never saw must not shape the features it is judged by.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp.core.errors import LeakError, listed

Cells = Sequence[tuple[str, str]]
"""Cells of class and domain, such as `[("axe", "sketch")]`."""


def training_rows(frame: pd.DataFrame, withheld: Cells | None) -> np.ndarray:
    """Rows of the frame that no withheld cell holds: what a dictionary or code may be fitted to.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": ["sketch", "sketch"]})
    >>> training_rows(frame, [("cat", "sketch")]).tolist()
    [1]
    """
    marked = np.zeros(len(frame), dtype=bool)
    if "withheld" in frame.columns:
        marked = frame["withheld"].to_numpy(dtype=bool)
    elif withheld is None:
        raise LeakError(
            "fit features to these pictures", "nothing that says which cells are withheld",
            "the cells (class, domain) that the model was not trained on",
            'pass withheld=[("class", "domain"), ...], or withheld=() if there are none',
        )  # fmt: skip
    if withheld is None:
        return np.flatnonzero(~marked)
    cells = pd.MultiIndex.from_frame(frame[["label", "domain"]])
    named = cells.isin(list(withheld)) if len(withheld) else np.zeros(len(frame), dtype=bool)
    leaked = sorted({f"{label} x {domain}" for label, domain in cells[marked & ~named]})
    if leaked:
        raise LeakError(
            "fit features to these pictures", f"pictures of the withheld {listed(leaked)}",
            "no picture of a cell that the frame withholds",
            "name those cells in `withheld` too; to use them, drop the column `withheld`",
        )  # fmt: skip
    return np.flatnonzero(~named)

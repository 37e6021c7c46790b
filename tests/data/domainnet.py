"""A list of pictures with DomainNet's counts, 586,575 rows without a picture behind them.

The counts come from the train and test lists that the data set's authors published, class by
class. The training list of `real` was not at hand: its counts are those of its test list scaled to
the published total of 120,906. `painting` has no t-shirt, as in the lists.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from interp.core.images import ImageTable

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


def counts() -> pd.DataFrame:
    """Pictures per class, in the lists' order of classes; a column `domain_split` each."""
    return pd.read_csv(Path(__file__).with_name("domainnet_counts.csv"), index_col="label")


def listed_pictures(*, part: int = 1) -> ImageTable:
    """The image table of the lists, domain by domain and class by class, or one in `part` of it."""
    table = counts()
    frames = []
    for domain in DOMAINS:
        for split in ("train", "test"):
            n = -(-table[f"{domain}_{split}"].to_numpy() // part)
            place = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
            label = np.repeat(table.index.to_numpy(dtype=object), n)
            path = [
                f"{domain}/{name}/{domain}_{split}_{k:06d}.jpg"
                for name, k in zip(label, place.tolist(), strict=True)
            ]
            frames.append(
                pd.DataFrame({"path": path, "label": label, "domain": domain}).assign(
                    split=split, caption=""
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    kinds = {name: "category" for name in ("label", "domain", "split")}
    return ImageTable(frame.astype(kinds), Path("/domainnet"), "lists", f"lists-{part}")

"""Sharing class by class: planted per class, the same as a naive loop, refused when too small."""

import numpy as np
import pandas as pd
import pytest

from interp.core.artists import artist_halves
from interp.core.errors import SampleError, SpecificationError
from interp.probes import Features, class_cosines
from tests.refusals import refuses

CLASSES = tuple("abcdefgh")
SITE = "blocks.1.hook_resid_post"


def made(shared: int = 4, noise: float = 0.2, depth: float = 0.5) -> Features:
    """The first `shared` classes point the same way in both domains, the others do not."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(c, d, a) for c in CLASSES for d in ("real", "sketch") for a in "uvwxyz"],
        columns=["label", "domain", "artist"],
    )
    ways = generator.normal(size=(2, len(CLASSES), 64))
    ways[1, :shared] = ways[0, :shared]
    rows = [ways[int(d == "sketch"), CLASSES.index(c)] for c, d, _ in frame.to_numpy()]
    x = np.array(rows) + noise * generator.normal(size=(len(frame), 64))
    return Features({SITE: x.astype(np.float32)}, frame, depths={SITE: depth})


def test_the_shared_classes_are_those_planted() -> None:
    table = class_cosines(made(), ["real", "sketch"]).frame.set_index("label")
    assert table["beyond"][list(CLASSES[:4])].min() > 0.6
    assert table["beyond"][list(CLASSES[4:])].abs().max() < 0.45
    assert table["ceiling"].min() > 0.8 and (table["band"] == "middle").all()
    assert table["half_1"].to_numpy() == pytest.approx(table["half_2"], abs=0.2)


def test_a_naive_loop_gives_the_same() -> None:
    read = made(noise=0.8)
    found = class_cosines(read, ["real", "sketch"], n_splits=1, seed=3).frame.set_index("label")
    half = artist_halves(read.frame, ["real", "sketch"], seed=3, split=0)
    x, label, domain = (read.values[SITE].astype(float), *read.frame[["label", "domain"]].T.values)

    def contrast(c: str, where: str, side: int) -> np.ndarray:
        means = [x[(label == k) & (domain == where) & (half == side)].mean(axis=0) for k in CLASSES]
        return means[CLASSES.index(c)] - np.mean(means, axis=0)

    def cosine(c: str, d: str, side: int) -> float:
        one, two = contrast(c, "real", side), contrast(d, "sketch", 1 - side)
        return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))

    for c in CLASSES[:2]:
        others = [k for k in CLASSES if k != c]
        null = np.mean([cosine(c, k, s) + cosine(k, c, s) for k in others for s in (0, 1)]) / 2
        assert found["value"][c] == pytest.approx((cosine(c, c, 0) + cosine(c, c, 1)) / 2)
        assert found["null"][c] == pytest.approx(null)
        first = np.mean([cosine(c, k, 0) + cosine(k, c, 0) for k in others]) / 2
        assert found["half_1"][c] == pytest.approx(cosine(c, c, 0) - first)


def test_what_cannot_be_measured_is_refused() -> None:
    refuses(SpecificationError, "two", class_cosines, made(), ["real"])
    refuses(SampleError, "middle", class_cosines, made(depth=0.9), ["real", "sketch"])
    few = made()
    with pytest.raises(SampleError, match="3 classes"):
        class_cosines(few.rows(few.frame["label"].isin(list("abc"))), ["real", "sketch"])

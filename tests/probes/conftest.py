"""Features of known sharing, for all tests of probes: classes seen by artists in two domains."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from interp.probes import Features


def make_frame(
    n_classes: int,
    domains: tuple[str, ...] = ("real", "sketch"),
    n_artists: int = 6,
    copies: int = 2,
) -> pd.DataFrame:
    """The same artists, drawings and counts in every domain."""
    rows = [
        (f"c{c:02d}", domain, f"artist{a}", f"artist{a}/c{c:02d}", f"{domain}-{c}-{a}-{k}.png")
        for domain in domains
        for c in range(n_classes)
        for a in range(n_artists)
        for k in range(copies)
    ]
    return pd.DataFrame(rows, columns=["label", "domain", "artist", "drawing", "path"])


def plant(
    sharing: float,
    *,
    n_classes: int = 20,
    width: int = 48,
    seed: int = 0,
    noise: float = 1.0,
    rotate: bool = True,
    drawing: float = 0.0,
    offset: float = 0.0,
    sites: int = 1,
    domains: tuple[str, ...] = ("real", "sketch"),
    pictures: pd.DataFrame | None = None,
) -> Features:
    """Class means share a `sharing` part of their variance with those of the first domain.

    Each site is a view of its own. The later domains are rotated; pictures vary by `noise`, and by
    `drawing` in a way that is the same in every domain (rotated along).
    """
    generator = np.random.default_rng(seed)
    frame = make_frame(n_classes, domains) if pictures is None else pictures
    label, hand = pd.factorize(frame["label"])[0], pd.factorize(frame["drawing"])[0]
    values = {}
    for site in range(sites):
        common = generator.normal(size=(n_classes, width))
        marks = drawing * generator.normal(size=(hand.max() + 1, width))
        x = np.empty((len(frame), width))
        for place, domain in enumerate(domains):
            private = generator.normal(size=(n_classes, width))
            means = np.sqrt(sharing) * common + np.sqrt(1 - sharing) * private
            means = common if place == 0 else means
            turn = np.linalg.qr(generator.normal(size=(width, width)))[0]
            rows = (frame["domain"] == domain).to_numpy()
            seen = means[label[rows]] + marks[hand[rows]]
            seen = seen @ turn if rotate and place else seen
            x[rows] = seen + noise * generator.normal(size=seen.shape) + place * offset
        values[f"site{site}"] = x.astype(np.float32)
    return Features(values, frame)


@pytest.fixture(scope="session")
def planted() -> Callable[..., Features]:
    """`plant`, which makes features of known sharing."""
    return plant


@pytest.fixture(scope="session")
def frame_of() -> Callable[..., pd.DataFrame]:
    """`make_frame`, which lists the pictures of such features."""
    return make_frame

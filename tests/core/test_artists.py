"""Who drew a picture, and that nothing by one hand stands in both halves of anything."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from interp.circuits.subspaces.interchanges import hold_out
from interp.core.artists import artist_halves, artist_sides, artists_of, dealt_artists
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.measures.catalogue.circuits_within import _halves

DOMAINS, CLASSES = ["A", "B"], ["ant", "bee", "cat", "dog"]
DEALS: dict[str, Callable[[pd.DataFrame], np.ndarray]] = {
    "artist_halves": lambda frame: artist_halves(frame, DOMAINS),
    "dealt_artists": lambda frame: dealt_artists(frame, DOMAINS),
    "artist_sides": artist_sides,
}


def drawings(n: int, *, seed: int = 0, artists: bool = False) -> pd.DataFrame:
    """Pictures of `n` drawings, each in both domains and in several pictures; artists unknown."""
    generator = rng("drawings", seed)
    rows = [
        {"label": CLASSES[drawing % 4], "domain": domain, "drawing": f"drawing {drawing}"}
        for drawing in range(n)
        for domain in DOMAINS
        for _ in range(generator.integers(1, 4))
    ]
    frame = pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)
    frame["path"] = [f"{row}.png" for row in range(len(frame))]
    return frame.assign(split="test", caption="", **({"artist": None} if artists else {}))


@pytest.mark.parametrize("name", DEALS)
@pytest.mark.parametrize("artists", [False, True], ids=["no column", "an empty column"])
@settings(deadline=None, max_examples=25)
@given(n=st.integers(8, 40), seed=st.integers(0, 5))
def test_no_drawing_is_in_both_halves(name: str, artists: bool, n: int, seed: int) -> None:
    frame = drawings(n, seed=seed, artists=artists)
    half = DEALS[name](frame)
    used = half >= 0
    assert set(half[used]) == {0, 1}
    assert (pd.Series(half[used]).groupby(frame["drawing"][used].to_numpy()).nunique() == 1).all()


@pytest.mark.parametrize("artists", [False, True], ids=["no column", "an empty column"])
def test_circuits_are_found_and_tested_on_different_drawings(artists: bool) -> None:
    images = ImageTable(drawings(24, artists=artists), reader=lambda row: Image.new("RGB", (1, 1)))
    halves = [
        {*pairs.clean.frame["drawing"], *pairs.corrupt.frame["drawing"]}
        for pairs in zip(*(_halves(images, domain, 20, 0) for domain in DOMAINS), strict=True)
        for pairs in pairs
    ]
    find, test = halves[0] | halves[1], halves[2] | halves[3]
    assert find and test and not find & test
    held = hold_out(images, DOMAINS, classes=CLASSES, n=12)
    drawn = images.frame["drawing"].to_numpy()
    fitted = {name for rows in held.fitted.values() for name in drawn[rows]}
    tested = {
        name
        for each in held.tested.values()
        for role in ("target", "donor", "ceiling")
        for name in each.images.frame["drawing"].to_numpy()[each.rows[role]]
    }
    assert fitted and tested and not fitted & tested


def test_an_unknown_artist_is_known_by_the_drawing() -> None:
    frame = pd.DataFrame({"artist": ["ann", None, None], "drawing": ["x", "y", "y"]})
    assert artists_of(frame).tolist() == ["ann", "drawing y", "drawing y"]

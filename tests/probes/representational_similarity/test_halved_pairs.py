"""Pairs of domains in halves: what artists are dealt to, by plain loops."""

import pandas as pd
import pytest

from interp.core.artists import artist_halves
from interp.core.errors import SampleError
from interp.probes.representational_similarity.halved_pairs import HalvedPair, refuse_few_classes
from tests.refusals import refuses


@pytest.fixture
def frame(frame_of) -> pd.DataFrame:
    """Three domains; of one class the second has a single artist."""
    frame = frame_of(5, ("ink", "real", "sketch"), 4, 2)
    alone = (frame["label"] == "c03") & (frame["domain"] == "sketch")
    return frame[~alone | (frame["artist"] == "artist0")].reset_index(drop=True)


def test_halves_are_those_of_the_two_domains_alone(frame: pd.DataFrame) -> None:
    pair = HalvedPair.of(frame, "real", "sketch", n_splits=2, seed=1)
    here = frame["domain"].isin(["real", "sketch"]).to_numpy()
    part = frame[here].reset_index(drop=True)
    for split in range(2):
        dealt = artist_halves(part, ["real", "sketch"], seed=1, split=split)
        assert (pair.deals[split, here] == dealt).all() and (pair.deals[split, ~here] == -1).all()
    assert pair.classes == ["c00", "c01", "c02", "c04"]
    assert pair.fewer.startswith("1 classes left out") and "5 are needed" in pair.too_few(5)
    assert pair.too_few(4) == ""


def test_artists_of_other_domains_can_be_dealt_along(frame: pd.DataFrame) -> None:
    pair = HalvedPair.of(frame, "real", "sketch", n_splits=1, seed=1, among=["ink"])
    assert (pair.deals[0] == artist_halves(frame, ["real", "sketch"], seed=1)).all()


def test_a_domain_may_meet_itself(frame: pd.DataFrame) -> None:
    pair = HalvedPair.of(frame, "real", "real", n_splits=1, seed=0)
    assert pair.classes == [f"c{n:02d}" for n in range(5)] and pair.meetings == [(0, 1), (1, 0)]


def test_too_few_classes_in_every_pair_are_refused() -> None:
    refuse_few_classes([2, 5], 5, "compare")
    refuses(SampleError, r"4 classes .* at least 5", refuse_few_classes, [2, 4], 5, "compare")
    refuses(SampleError, "0 classes", refuse_few_classes, [], 4, "compare")

"""The drawings: curated, independent, centred, and there even when an artist is not."""

from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from interp.core.errors import DataError
from interp.data.artwork import packages as artwork
from interp.data.artwork.packages import (
    ARTISTS,
    FILL,
    Drawing,
    artwork_fingerprint,
    drawings,
    ink,
    missing_artists,
)


def by_label() -> dict[str, list[Drawing]]:
    """Group the drawings by class."""
    groups: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings():
        groups[drawing.label].append(drawing)
    return groups


def overlap(a: Drawing, b: Drawing) -> float:
    """Intersection over union of two drawings' ink."""
    x, y = ink(a, 64) > 0.5, ink(b, 64) > 0.5
    return float((x & y).sum() / (x | y).sum())


def test_all_pinned_artists_are_installed() -> None:
    assert missing_artists() == {}


def test_at_least_forty_classes_with_four_artists_each() -> None:
    groups = by_label()
    assert len(groups) >= 40
    for label, group in groups.items():
        assert len({drawing.artist for drawing in group}) >= 4, label


def test_an_artist_shows_a_class_at_most_three_times() -> None:
    for label, group in by_label().items():
        hands = [drawing.artist for drawing in group]
        assert max(map(hands.count, hands)) <= 3, label


def test_a_glyph_shows_one_class_only() -> None:
    names = [drawing.name for drawing in drawings()]
    assert len(names) == len(set(names))


def test_labels_are_plain_nouns_and_sorted() -> None:
    listed = drawings()
    assert listed == sorted(listed)
    assert all(d.label.replace(" ", "").isalpha() and d.label.islower() for d in listed)


def test_more_artists_asked_for_leave_fewer_classes() -> None:
    strict = {drawing.label for drawing in drawings(min_artists=7)}
    assert strict and strict < set(by_label())


def test_ink_is_centred_fills_its_share_and_stays_in_range() -> None:
    for drawing in drawings():
        pixels = ink(drawing, 64)
        assert pixels.shape == (64, 64) and pixels.dtype == np.float32, drawing.name
        assert pixels.min() == 0 and pixels.max() == 1, drawing.name
        spans = [np.flatnonzero((pixels > 0.2).any(axis)) for axis in (0, 1)]
        sides = [span[-1] - span[0] + 1 for span in spans]
        assert abs(max(sides) - FILL * 64) <= 2.5, drawing.name
        assert all(abs(span[0] + span[-1] - 63) <= 3 for span in spans), drawing.name
        assert 0.02 < pixels.mean() < 0.75, drawing.name


def test_no_drawing_is_another_artists() -> None:
    for group in by_label().values():
        for a, b in combinations(group, 2):
            limit = 0.97 if a.artist != b.artist else 0.999
            assert overlap(a, b) < limit, (a.name, b.name)


def test_the_nearest_drawing_by_another_artist_shows_the_same_thing() -> None:
    listed = drawings()
    blurred = np.array([ink(d, 24).ravel() for d in listed])
    blurred = (blurred - blurred.mean(1, keepdims=True)) / blurred.std(1, keepdims=True)
    likeness = blurred @ blurred.T
    artists = np.array([d.artist for d in listed])
    likeness[artists[:, None] == artists] = -np.inf
    nearest = likeness.argmax(1)
    right = np.mean([listed[i].label == listed[n].label for i, n in enumerate(nearest)])
    assert right > 0.6  # chance is about 1 in 78


def test_ink_is_read_only_and_repeats() -> None:
    drawing = drawings()[0]
    first = ink(drawing, 32).copy()
    ink.cache_clear()
    assert np.array_equal(first, ink(drawing, 32))
    with pytest.raises(ValueError, match="read-only"):
        ink(drawing, 32)[0, 0] = 1


def test_an_artist_not_installed_is_named_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full, print_full = drawings(), artwork_fingerprint()
    monkeypatch.setitem(ARTISTS, "noto", replace(ARTISTS["noto"], package="no_such_package"))
    assert set(missing_artists()) == {"noto"}
    assert "not installed" in missing_artists()["noto"]
    left = drawings()
    assert left and all(drawing.artist != "noto" for drawing in left)
    assert {d.label for d in left} < {d.label for d in full}
    assert artwork_fingerprint() != print_full
    with pytest.raises(DataError, match="not installed"):
        ink(next(d for d in full if d.artist == "noto"), 20)


def test_an_artist_whose_file_changed_is_named_with_both_hashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lucide = ARTISTS["lucide"]
    other = replace(lucide, sources=((lucide.sources[0][0], "0" * 64),))
    monkeypatch.setitem(ARTISTS, "lucide", other)
    reason = missing_artists()["lucide"]
    assert "000000000000" in reason and lucide.sources[0][1][:12] in reason
    assert all(drawing.artist != "lucide" for drawing in drawings())


def test_a_file_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(ARTISTS["remix"], sources=(("fonts/gone.ttf", "0" * 64),))
    monkeypatch.setitem(ARTISTS, "remix", gone)
    assert "fonts/gone.ttf" in missing_artists()["remix"]


def test_the_fingerprint_hangs_on_the_manifest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = artwork_fingerprint()
    assert before == artwork_fingerprint()
    text = artwork.MANIFEST.read_text(encoding="utf-8")
    shorter = tmp_path / "drawings.csv"
    shorter.write_text("\n".join(text.splitlines()[:-1]) + "\n", encoding="utf-8")
    monkeypatch.setattr(artwork, "MANIFEST", shorter)
    assert artwork_fingerprint() != before

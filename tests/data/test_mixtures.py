"""Mixtures hold the cells they should, in the numbers they should, and never a withheld one."""

import json
from pathlib import Path

import pandas as pd
import pytest

from interp.core.errors import DataError, LeakError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.data.mixtures import (
    SETTINGS,
    MixtureSpec,
    check_manifest,
    check_mixture,
    choose_held_out,
    make_mixture,
)

DOMAINS = ("real", "clipart", "infograph", "painting", "quickdraw", "sketch")
LABELS = tuple("abcdefgh")
HELD_OUT = ("b", "e")


def pictures(n: int = 10) -> ImageTable:
    rows = [
        (f"{domain}/{label}/{split}{k}.png", label, domain, split, "", f"{split}-{label}-{k % 3}")
        for domain in DOMAINS
        for label in LABELS
        for split, count in (("train", n), ("test", 2))
        for k in range(count)
    ]
    columns = ["path", "label", "domain", "split", "caption", "drawing"]
    return ImageTable(pd.DataFrame(rows, columns=columns))


def spec(setting: str, **changes: object) -> MixtureSpec:
    return MixtureSpec(setting, "sketch", HELD_OUT, **changes)  # type: ignore[arg-type]


EXPECTED_CELLS = {
    # counted by hand: 8 classes, 2 of them held out, 6 domains
    "natural-only": 8,
    "cg-low": 8 + 6,
    "cg-high": 8 * 5 + 6,
    "leave-out-domain": 8 * 5,
    "upper-bound-low": 16,
    "upper-bound-high": 48,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_holds_just_its_cells(setting: str) -> None:
    frame = make_mixture(pictures(), spec(setting, hold="steps")).images.frame
    cells = frame.groupby(["domain", "label"]).size()
    assert len(cells) == EXPECTED_CELLS[setting] and (cells == 10).all()
    withheld = (frame["domain"] == "sketch") & frame["label"].isin(HELD_OUT)
    assert withheld.any() == setting.startswith("upper-bound")
    assert (frame["domain"] == "sketch").any() == (
        setting not in ("natural-only", "leave-out-domain")
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_size_matching_is_exact_and_even(setting: str) -> None:
    frame = make_mixture(pictures(), spec(setting)).images.frame
    assert len(frame) == (80 if setting == "natural-only" else 140)
    if SETTINGS[setting].size_matched:
        counts = frame.groupby(["domain", "label"]).size()
        assert counts.max() - counts.min() <= 1
        assert len(counts) == EXPECTED_CELLS[setting]


def test_only_training_pictures_and_each_once() -> None:
    frame = make_mixture(pictures(), spec("cg-high")).images.frame
    assert (frame["split"] == "train").all() and frame["path"].is_unique


def test_mixtures_are_repeatable_and_move_with_the_seed() -> None:
    made = [make_mixture(pictures(), spec("cg-high", seed=seed)).images.frame for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(made[0], made[1])
    assert set(made[0]["path"]) != set(made[2]["path"])


def test_captions_name_the_domain_half_the_time_or_never() -> None:
    images = pictures(60)
    words = make_mixture(images, spec("leave-out-domain", hold="steps")).images
    named = words.select(domain="painting").caption.str.contains("painting|art")
    assert 0.4 < named.mean() < 0.6
    aligned = make_mixture(images, spec("leave-out-domain", domain_words=False)).images
    assert not aligned.caption.str.contains("painting|art|photo|clipart|doodle").any()


@pytest.mark.parametrize("setting", ["cg-low", "cg-high", "leave-out-domain", "natural-only"])
def test_a_manifest_with_a_withheld_cell_is_refused(setting: str) -> None:
    manifest = make_mixture(pictures(), spec(setting)).manifest()
    check_manifest(manifest)
    manifest["counts"]["sketch/b"] = 1
    with pytest.raises(LeakError, match="b in sketch"):
        check_manifest(manifest)


def test_an_edited_tsv_is_refused_even_with_its_manifest_untouched(tmp_path: Path) -> None:
    folder = make_mixture(pictures(), spec("cg-low")).write(tmp_path / "mixture").parent
    assert check_mixture(folder)["pictures"] == 140
    tsv = pd.read_csv(folder / "train.tsv", sep="\t")
    tsv.loc[0, ["label", "domain"]] = ["b", "sketch"]
    tsv.to_csv(folder / "train.tsv", sep="\t", index=False)
    with pytest.raises(LeakError, match="b in sketch"):
        check_mixture(folder)


def test_a_swapped_picture_is_refused_by_hash(tmp_path: Path) -> None:
    folder = make_mixture(pictures(), spec("cg-low")).write(tmp_path / "mixture").parent
    text = (folder / "train.tsv").read_text()
    (folder / "train.tsv").write_text(text.replace("train3.png", "train4.png", 1))
    with pytest.raises(LeakError, match="does not describe"):
        check_mixture(folder)


def test_a_test_picture_among_the_training_pictures_is_refused() -> None:
    images = pictures()
    frame = images.frame.assign(hash=images.frame["path"])
    train, test = (
        frame.index[frame["split"] == "train"][0],
        frame.index[frame["split"] == "test"][0],
    )
    frame.loc[test, "hash"] = frame.loc[train, "hash"]
    with pytest.raises(LeakError, match="also kept for testing"):
        make_mixture(ImageTable(frame), spec("natural-only"))


def test_the_manifest_counts_what_was_written(tmp_path: Path) -> None:
    tsv = make_mixture(pictures(), spec("cg-high")).write(tmp_path / "mixture")
    manifest = json.loads((tsv.parent / "manifest.json").read_text())
    rows = pd.read_csv(tsv, sep="\t")
    assert manifest["pictures"] == len(rows) == sum(manifest["counts"].values())
    assert manifest["counts"]["sketch/a"] == ((rows.domain == "sketch") & (rows.label == "a")).sum()
    assert manifest["share_natural"] == pytest.approx((rows.domain == "real").mean())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"setting": "cg-hihg"}, SpecificationError, "cg-high"),
        ({"test_domain": "real"}, SpecificationError, "other than the natural"),
        ({"test_domain": "skecth"}, DataError, "sketch"),
        ({"held_out": ("zebra",)}, DataError, "zebra"),
    ],
)
def test_bad_specifications_say_what_is_right(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    values = {"setting": "cg-low", "test_domain": "sketch", "held_out": HELD_OUT, **change}
    with pytest.raises(error, match=words):
        make_mixture(pictures(), MixtureSpec(**values))  # type: ignore[arg-type]


def test_too_few_pictures_to_match_is_an_error() -> None:
    images = pictures()
    keep = images.domain.isin(["real", "sketch"]) | (images.split == "test")
    keep |= (images.domain == "clipart") & (images.label == "a")
    with pytest.raises(SampleError, match="hold = "):
        make_mixture(images[keep.to_numpy()], spec("leave-out-domain"))


def test_held_out_classes_are_repeatable_and_leave_some() -> None:
    assert choose_held_out(list(LABELS), 3, seed=1) == choose_held_out(list(LABELS), 3, seed=1)
    with pytest.raises(SpecificationError):
        choose_held_out(list(LABELS), len(LABELS))

"""Mixtures hold the cells they should, in the numbers they should, and never a withheld one."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from interp.core.errors import DataError, LeakError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.data.artwork.embedded import EmbeddedSpec, open_embedded, planned, study_classes
from interp.data.mixtures.manifest import check_mixture, diff_manifests
from interp.data.mixtures.mixture import _rows, make_mixture, make_mixtures
from interp.data.mixtures.settings import SETTINGS, MixtureSpec

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


def test_many_mixtures_at_once_are_those_made_one_by_one() -> None:
    images = pictures()
    specs = [spec(name, seed=seed) for seed in (0, 1) for name in SETTINGS]
    for one, mixture in zip(specs, make_mixtures(images, specs), strict=True):
        alone = make_mixture(images, one)
        pd.testing.assert_frame_equal(mixture.images.frame, alone.images.frame)
        assert mixture.manifest() == alone.manifest()


def test_columns_of_categories_make_the_same_mixture() -> None:
    images = pictures()
    kinds = {name: "category" for name in ("label", "domain", "split")}
    compact = ImageTable(images.frame.astype(kinds))
    for one in (spec("cg-high"), spec("leave-out-domain", rule="first")):
        a, b = make_mixture(images, one), make_mixture(compact, one)
        assert a.manifest() == b.manifest()
        assert a.images.caption.tolist() == b.images.caption.tolist()


@pytest.mark.parametrize(
    "odd", ['a "quoted" name', "tab\there", "line\nbreak", "return\rhere", "plain"]
)
def test_the_tsv_reads_as_it_was_written_whatever_the_names(odd: str, tmp_path: Path) -> None:
    frame = pictures().frame.assign(path=lambda f: f["path"].str.replace("train3", odd))
    images = ImageTable(frame, Path("/somewhere"))
    mixture = make_mixture(images, spec("cg-low"))
    written = mixture.write(tmp_path / "mixture")
    chosen = mixture.images.frame
    expected = pd.DataFrame(
        {
            "filepath": [str(images.root / path) for path in chosen["path"]],
            "title": chosen["caption"],
            "label": chosen["label"],
            "domain": chosen["domain"],
        }
    )
    if odd == "plain":
        expected.to_csv(tmp_path / "expected.tsv", sep="\t", index=False, lineterminator="\n")
        assert written.read_bytes() == (tmp_path / "expected.tsv").read_bytes()
    pd.testing.assert_frame_equal(
        pd.read_csv(written, sep="\t"), expected.astype(object), check_dtype=False
    )


@pytest.mark.parametrize("root", ["", "/data", "relative/place", "/"])
def test_paths_are_joined_as_pathlib_joins_them(root: str) -> None:
    frame = pictures().frame
    frame.loc[0, "path"] = "/absolute/picture.png"
    images = ImageTable(frame, Path(root))
    assert _rows(images)[0] == [str(Path(root) / path) for path in frame["path"]]


def test_duplicated_rows_are_refused() -> None:
    frame = pictures().frame
    twice = pd.concat([frame, frame.iloc[[3, 5]]], ignore_index=True)
    with pytest.raises(DataError, match="2 rows that stand there before"):
        make_mixture(ImageTable(twice), spec("cg-low"))


def base_tsv(folder: Path) -> Path:
    rows = [("pictures/1.jpg", "a lion in the sun"), ("/elsewhere/2.jpg", 'an axe, and a "bed"')]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["filepath", "title"]).to_csv(
        folder / "captions.tsv", sep="\t", index=False
    )
    return folder / "captions.tsv"


def test_a_base_tsv_is_added_whole_and_counted_apart(tmp_path: Path) -> None:
    base = base_tsv(tmp_path / "base")
    plain = check_mixture(make_mixture(pictures(), spec("cg-high")).write(tmp_path / "a").parent)
    tsv = make_mixture(pictures(), spec("cg-high", base=str(base))).write(tmp_path / "b")
    manifest = check_mixture(tsv.parent)
    assert manifest["name"] == "cg-high, base captions"
    assert (
        manifest["counts"] == plain["counts"]
        and manifest["share_natural"] == plain["share_natural"]
    )
    assert manifest["base"]["pictures"] == 2 and manifest["base"]["kind"] == "tsv"
    assert manifest["pictures"] == plain["pictures"] + 2
    rows = pd.read_csv(tsv, sep="\t", keep_default_na=False)
    assert len(rows) == manifest["pictures"]
    added = rows[rows["domain"] == "base"]
    assert added["filepath"].tolist() == [str(base.parent / "pictures/1.jpg"), "/elsewhere/2.jpg"]
    assert added["title"].tolist() == ["a lion in the sun", 'an axe, and a "bed"']
    assert (added["label"] == "").all()
    assert "base set none → " in diff_manifests(plain, manifest)


def with_base(n: int = 4, domain: str = "real") -> ImageTable:
    """Pictures, and a base set of their classes and of one more."""
    table = pictures()
    rows = [
        (f"base/{c}/{k}.png", c, domain, "base", "", "") for c in (*LABELS, "z") for k in range(n)
    ]
    own = pd.DataFrame(rows, columns=table.frame.columns)
    return table.with_frame(pd.concat([table.frame, own], ignore_index=True))


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_tables_own_base_set_is_added_whole_to_every_mixture(
    setting: str, tmp_path: Path
) -> None:
    made, without = (make_mixture(table, spec(setting)) for table in (with_base(), pictures()))
    assert made.spec.name == without.spec.name
    assert made.images.frame.equals(without.images.frame)  # captions too
    manifest = made.manifest()
    assert manifest["pictures"] == len(without.images) + 36
    assert manifest["base_counts"] == dict.fromkeys([*LABELS, "z"], 4)
    assert manifest["counts"] == without.manifest()["counts"]
    assert manifest["base"]["kind"] == "split" and manifest["base"]["pictures"] == 36
    made.write(tmp_path / "mixture")
    assert check_mixture(tmp_path / "mixture")["base"] == manifest["base"]
    tsv = pd.read_csv(tmp_path / "mixture" / "train.tsv", sep="\t")
    own = tsv[tsv["domain"] == "base"]
    assert own["label"].value_counts().eq(4).all() and own["title"].str.contains("photo|snap").any()
    assert len(tsv) == manifest["pictures"]


def test_pictures_that_are_drawn_when_asked_for_make_the_same_mixture() -> None:
    asked = EmbeddedSpec(
        n_classes=3, n_train=2, n_test=1, n_analysis=1, size=16, n_base=2, base_classes=1
    )
    for seed in (0, 1):  # a second plan has paths of the same names
        each = replace(asked, seed=seed)
        asks = MixtureSpec("natural-only", "sketch", (min(study_classes(each.n_classes)),))
        drawn, rendered = (
            make_mixture(images, asks).files() for images in (planned(each), open_embedded(each))
        )
        assert drawn.all_files and drawn.domain.tolist() == rendered.domain.tolist()
        assert drawn.domain.tolist() == ["real"] * 6 + ["base"] * 8
        for row in range(len(drawn)):
            assert drawn.picture(row).tobytes() == rendered.picture(row).tobytes()


def test_a_share_of_the_base_set_is_part_of_a_larger_one() -> None:
    table = with_base(20)
    some, more = (make_mixture(table, spec("cg-low", base_dose=dose)) for dose in (0.25, 0.5))
    assert some.own_base is not None and more.own_base is not None
    first, second = set(some.own_base.path), set(more.own_base.path)
    assert (len(first), len(second)) == (45, 90) and first < second
    assert some.spec.name.endswith(", 25 % of the base set")
    for dose, words in ((0.0, ", no base set"), (0.001, ", 0.1 % of the base set")):
        none = make_mixture(table, spec("cg-low", base_dose=dose))
        assert none.own_base is None and none.manifest()["base"] is None
        assert none.spec.name.endswith(words)


def test_a_base_set_that_would_leak_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="pictures of sketch in the split 'base'"):
        make_mixture(with_base(domain="sketch"), spec("cg-low"))
    table = with_base()
    twice = table.frame.assign(hash=table.frame["path"])
    twice.loc[twice["path"] == "base/a/0.png", "hash"] = "real/a/test0.png"
    with pytest.raises(LeakError, match="1 that are also kept for testing"):
        make_mixture(table.with_frame(twice), spec("cg-low"))
    (tmp_path / "other.tsv").write_text("filepath\ttitle\nx.png\ta cat\n")
    with pytest.raises(SpecificationError, match="n_base = 0"):
        make_mixture(table, spec("cg-low", base=str(tmp_path / "other.tsv")))


def test_withheld_rows_cannot_hide_in_the_base_set(tmp_path: Path) -> None:
    spec_ = spec("cg-low", base=str(base_tsv(tmp_path / "base")))
    folder = make_mixture(pictures(), spec_).write(tmp_path / "mixture").parent
    with (folder / "train.tsv").open("a") as tsv:
        tsv.write("sketch/b/train1.png\ta drawing of a b\t\tbase\n")
    with pytest.raises(LeakError, match="does not describe"):
        check_mixture(folder)


def test_a_domain_called_base_is_refused() -> None:
    frame = pictures().frame
    frame["domain"] = frame["domain"].replace("clipart", "base")
    with pytest.raises(DataError, match="Rename the domain"):
        make_mixture(ImageTable(frame), spec("cg-high"))

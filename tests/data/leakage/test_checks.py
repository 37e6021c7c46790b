"""The audit finds each leak that is planted, and finds nothing where nothing is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.data.leakage import hashing as hashes
from interp.data.leakage.checks import Audit, audit
from interp.data.leakage.hashing import picture_hashes
from interp.data.mixtures.mixture import Mixture, make_mixture
from interp.data.mixtures.settings import MixtureSpec
from tests.data.leakage.test_hashing import scene
from tests.data.mixtures.test_basesets import write_shards

DOMAINS = ("real", "sketch", "clipart")
LABELS = ("axe", "bed", "lion", "zebra")
LOW = MixtureSpec("cg-low", "sketch", ("lion",), hold="steps")
HIGH = replace(LOW, setting="cg-high")
OUT = replace(LOW, setting="leave-out-domain")


@pytest.fixture
def images(tmp_path: Path) -> ImageTable:
    """Smooth random pictures, none like another: three for training and one for testing a cell."""
    rows = []
    for domain in DOMAINS:
        for label in LABELS:
            for k in range(4):
                path = f"{domain}/{label}/{k}.png"
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                scene(len(rows)).save(tmp_path / path)
                rows.append((path, label, domain, "train" if k else "test", ""))
    columns = ["path", "label", "domain", "split", "caption"]
    return ImageTable(pd.DataFrame(rows, columns=columns), tmp_path, "scenes", str(tmp_path))


def checks(report: Audit) -> dict[str, int]:
    return report.frame["check"].value_counts().to_dict()


def captioned(mixture: Mixture, captions: dict[int, str]) -> Mixture:
    frame = mixture.images.frame.copy()
    for row, text in captions.items():
        frame.loc[row, "caption"] = text
    return replace(mixture, images=ImageTable(frame, mixture.images.root))


@pytest.mark.parametrize("spec", [LOW, HIGH, OUT, replace(LOW, setting="natural-only"), None])
def test_nothing_is_found_where_nothing_is(images: ImageTable, spec: MixtureSpec | None) -> None:
    report = audit(images, make_mixture(images, spec) if spec else None)
    assert not len(report.frame) and report.verdict.startswith("No leak was found. Looked at ")
    assert report.looked["test pictures"] == 12


def test_copies_of_training_pictures_are_found(images: ImageTable) -> None:
    root = images.root
    picture = Image.open(root / "real/axe/1.png")
    picture.save(root / "sketch/lion/0.bmp")  # another format, the same pixels
    (root / "sketch/lion/0.bmp").rename(root / "sketch/lion/0.png")
    picture.resize((128, 128)).save(root / "real/axe/0.png")
    report = audit(images, make_mixture(images, LOW))
    assert checks(report) == {"same pixels": 1, "looks alike": 1}
    same, alike = report.frame.set_index("check").loc[["same pixels", "looks alike"]].itertuples()
    assert (same.picture, same.other, same.label_b, same.ok, same.n) == (
        "sketch/lion/0.png", "real/axe/1.png", "axe", False, 1,
    )  # fmt: skip
    assert (alike.picture, alike.other, alike.ok) == ("real/axe/0.png", "real/axe/1.png", True)
    assert 0 <= alike.distance <= 4
    assert "Leaks: 1 test pictures have the very pixels" in report.verdict
    assert "(1 of them one of their own class)" in report.verdict
    assert checks(audit(images, make_mixture(images, LOW), bits=0))["same pixels"] == 1


def test_a_copy_outside_the_mixture_is_no_leak_of_it(images: ImageTable) -> None:
    Image.open(images.root / "clipart/axe/1.png").save(images.root / "sketch/axe/0.png")
    assert checks(audit(images, make_mixture(images, LOW))) == {}
    assert checks(audit(images, make_mixture(images, HIGH))) == {"same pixels": 1}
    assert checks(audit(images)) == {"same pixels": 1}


@pytest.mark.parametrize(
    ("spec", "caption", "found"),
    [
        (LOW, "two drawings of a Lion", True),
        (LOW, "a photo of a lion", False),
        (LOW, "a drawing of an axe", False),
        (OUT, "a pencil sketch", True),
        (OUT, "sketches of two beds", True),
        (OUT, "a sketchy photo of a lion", False),
        (LOW, "a piece of clipart", True),
        (HIGH, "a piece of clipart", False),
        (replace(HIGH, domains=()), "an illustration of an axe", True),
        (replace(LOW, setting="upper-bound-low"), "a drawing of a lion", False),
        (replace(LOW, setting="upper-bound-low", held_out_dose=0.0), "a drawing of a lion", True),
    ],
)
def test_captions_that_name_what_is_withheld(
    images: ImageTable, spec: MixtureSpec, caption: str, found: bool
) -> None:
    mixture = captioned(make_mixture(images, spec), {0: caption, 1: caption})
    report = audit(images, mixture)
    assert checks(report) == ({"withheld in words": 1} if found else {})
    if found:
        assert report.frame["n"].tolist() == [2] and caption in report.frame["detail"].iloc[0]
        assert "2 captions name what the mixture withholds" in report.verdict


def test_a_withheld_class_in_the_caption_of_a_test_domain_picture(images: ImageTable) -> None:
    mixture = make_mixture(images, LOW)
    row = int(np.flatnonzero(mixture.images.domain == "sketch")[0])
    report = audit(images, captioned(mixture, {row: "a bed beside a lion"}))
    assert "lion beside a picture of sketch" in report.leaks["detail"].iloc[0]


def test_aligned_captions_that_name_a_domain(images: ImageTable) -> None:
    mixture = make_mixture(images, replace(HIGH, domain_words=False))
    assert checks(audit(images, mixture)) == {}
    assert checks(audit(images, captioned(mixture, {0: "a photo"}))) == {"words not aligned": 1}


def base(folder: Path, rows: list[tuple[str, str]]) -> str:
    frame = pd.DataFrame(rows, columns=["filepath", "title"])
    frame.to_csv(folder / "base.tsv", sep="\t", index=False)
    return str(folder / "base.tsv")


@pytest.mark.parametrize("whole", [False, True])
def test_the_tables_own_base_set_is_looked_at(images: ImageTable, whole: bool) -> None:
    root = images.root
    (root / "base").mkdir()
    scene(900).save(root / "base/new.png")
    Image.open(root / "sketch/lion/0.png").save(root / "base/copy.png")
    rows = [(f"base/{name}.png", "axe", "real", "base", "") for name in ("new", "copy")]
    own = pd.DataFrame(rows, columns=images.frame.columns)
    table = images.with_frame(pd.concat([images.frame, own], ignore_index=True))
    report = audit(table, None if whole else make_mixture(table, LOW))
    assert checks(report) == {"same pixels": 1}
    assert report.frame.iloc[0]["other"] == "base/copy.png"
    assert report.looked["base pictures"] == 2 and report.looked["test pictures"] == 12


def test_a_base_set_is_read_and_looked_at(images: ImageTable, tmp_path: Path) -> None:
    scene(900).save(tmp_path / "new.png")
    rows = [("new.png", "a lion asleep"), ("sketch/lion/0.png", "a drawing of a lion")]
    mixture = make_mixture(images, replace(LOW, base=base(tmp_path, rows)))
    report = audit(images, mixture)
    assert checks(report) == {
        "same pixels": 1, "withheld in words": 1, "held-out class in the base set": 1,
    }  # fmt: skip
    note = report.frame.set_index("check").loc["held-out class in the base set"]
    assert (note["n"], note["label"], note["ok"]) == (2, "lion", True)
    assert (
        report.looked["base captions"] == 2 and "2 base captions name a held-out" in report.verdict
    )
    harmless = make_mixture(images, replace(LOW, base=base(tmp_path, [("new.png", "a cat")])))
    assert checks(audit(images, harmless)) == {}


def test_captions_of_shards_are_read_and_their_pictures_if_given(
    images: ImageTable, tmp_path: Path
) -> None:
    pattern = write_shards(tmp_path / "shards")
    mixture = make_mixture(images, replace(LOW, base=pattern))
    report = audit(images, mixture)
    assert checks(report) == {} and report.looked["base captions"] == 6
    given = images.select(split="test", label="axe", domain="real")
    assert checks(audit(images, mixture, base=given)) == {"same pixels": 1}
    shard = tmp_path / "shards" / "part-01.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match="cut short"):
        audit(images, mixture)


def test_empty_cells_and_classes_without_a_test_are_named(images: ImageTable) -> None:
    gone = (images.domain == "clipart") & (images.label == "bed")
    gone |= (images.domain == "sketch") & (images.label == "lion") & (images.split == "test")
    fewer = images[(~gone).to_numpy()]
    report = audit(fewer, make_mixture(fewer, HIGH))
    assert checks(report) == {"empty cell": 1, "nothing to test on": 1}
    cell = report.frame[report.frame["check"] == "empty cell"].iloc[0]
    assert (cell["label"], cell["domain"]) == ("bed", "clipart")
    # what the setting leaves out is not missing
    assert "empty cell" not in checks(audit(fewer, make_mixture(fewer, LOW)))


def test_a_picture_that_does_not_read_is_named(images: ImageTable) -> None:
    (images.root / "real/bed/0.png").write_bytes(b"no picture")
    report = audit(images)
    assert checks(report) == {"does not read": 1}
    assert report.frame["picture"].tolist() == ["real/bed/0.png"]


def test_findings_are_a_table_that_is_read_back(images: ImageTable, tmp_path: Path) -> None:
    Image.open(images.root / "real/axe/1.png").save(images.root / "sketch/axe/0.png")
    report = audit(images, make_mixture(images, LOW))
    back = Table.load(report.table.save(tmp_path / "tables"))
    assert back.facts["verdict"] == report.verdict and len(back) == 1


def test_hashes_are_kept_part_by_part_and_made_again_for_changed_files(
    images: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "PART", 10)
    hashed = []
    real = hashes._both

    def failing(table: ImageTable, row: int) -> Any:
        if len(hashed) == 25:
            raise KeyboardInterrupt
        hashed.append(table.frame["path"].iloc[row])
        return real(table, row)

    monkeypatch.setattr(hashes, "_both", failing)
    with pytest.raises(KeyboardInterrupt):
        picture_hashes(images)
    monkeypatch.setattr(
        hashes, "_both", lambda table, row: hashed.append("again") or real(table, row)
    )
    made = picture_hashes(images)
    assert hashed.count("again") == len(images) - 20  # two parts were complete
    hashed.clear()
    pd.testing.assert_frame_equal(picture_hashes(images), made)
    assert hashed == []
    scene(901).save(images.root / images.path.iloc[3])
    changed = picture_hashes(images)
    assert hashed == ["again"]
    assert (changed["pixels"] != made["pixels"]).to_numpy().nonzero()[0].tolist() == [3]


def test_two_processes_hash_as_one(images: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = picture_hashes(images)
    elsewhere = ImageTable(images.frame, images.root, images.source, "another cache")
    monkeypatch.setattr(hashes, "PART", 10)
    pd.testing.assert_frame_equal(picture_hashes(elsewhere, jobs=2), alone)


def test_a_table_without_test_pictures_is_refused(images: ImageTable) -> None:
    with pytest.raises(SampleError, match="some of both"):
        audit(images.select(split="train"))
    with pytest.raises(DataError, match="not there"):
        audit(images, make_mixture(images, replace(LOW, base="nowhere.tsv")))

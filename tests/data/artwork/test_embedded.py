"""The embedded study: repeatable, apart by artist, and aligned where it says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.core.storage.store import cache_folder, file_hash
from interp.data.artwork import embedded, packages
from interp.data.artwork.embedded import (
    EmbeddedSpec,
    open_embedded,
    plan_cell,
    planned,
    study_classes,
)
from interp.data.artwork.packages import Drawing, drawings


def test_train_and_test_share_no_artist_within_a_class(small_images: ImageTable) -> None:
    for _, rows in small_images.frame.groupby("label"):
        artists = {split: set(part["artist"]) for split, part in rows.groupby("split")}
        assert not artists["train"] & artists["test"]
        assert artists["analysis"] <= artists["train"] | artists["test"]
        assert len(artists["analysis"]) == 8 and len(artists["test"]) >= 2
        assert (rows["held_back"] == rows["artist"].isin(artists["test"])).all()


def test_every_cell_has_its_number_of_pictures(small_images: ImageTable) -> None:
    counts = small_images.frame.groupby(["domain", "label", "split"]).size().unstack()
    assert (counts == [8, 6, 24]).all().all() and len(counts) == 48


def test_each_class_takes_artists_in_an_order_of_its_own() -> None:
    """Cells of few pictures would otherwise hold the same few artists of every class."""
    for edition, least, most in ((2, 6, 8), (1, 1, 1)):
        made = [Drawing("cat", artist, "glyph") for artist in "abcdefghijkl"]
        spec = EmbeddedSpec(artwork=edition, n_train=1, n_test=1, n_analysis=4)
        firsts = {
            tuple(cell["artist"][cell["split"] == "analysis"])
            for cell in (plan_cell(label, made, "real", spec) for label in map(str, range(8)))
        }
        assert least <= len(firsts) <= most


def test_analysis_pictures_are_aligned(small_images: ImageTable) -> None:
    analysis = small_images.select(split="analysis").frame
    poses = analysis.groupby(["label", "drawing", "warp"])["domain"].nunique()
    assert (poses == 6).all()
    assert (analysis.groupby(["label", "drawing", "warp"])["style"].nunique() == 1).all()
    styles = analysis[analysis["domain"] == "real"].groupby("style")["label"].nunique()
    assert (styles > 1).sum() >= 5  # a style serves several classes ...
    own = analysis[analysis["domain"] == "real"].groupby("label")["style"].agg(frozenset)
    assert own.nunique() == 8  # ... but no two classes have the same set of them
    assert (analysis.groupby(["label", "drawing", "warp"])["rotation"].nunique() == 1).all()


def test_training_pictures_are_not_aligned(small_images: ImageTable) -> None:
    train = small_images.select(split="train").frame
    assert train["warp"].is_unique and train["style"].is_unique


def test_rendering_is_the_same_anywhere(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    spec = EmbeddedSpec(n_classes=8, n_train=24, n_test=6, n_analysis=8)
    label = small_images.labels[0]
    cell = embedded._render_cell((tmp_path, label, study_classes(8)[label], "sketch", spec))
    first = small_images.select(label=label, domain="sketch").frame
    assert cell["hash"].tolist() == first["hash"].tolist()
    assert cell["hash"].iloc[0] == file_hash(tmp_path / cell["path"].iloc[0])


def test_a_base_set_is_natural_pictures_of_these_classes_and_of_others() -> None:
    spec = EmbeddedSpec(n_classes=5, n_train=6, n_test=2, n_analysis=2, n_base=7, base_classes=3)
    table = planned(spec).frame
    base, own = table[table["split"] == "base"], table[table["split"] != "base"]
    assert set(base["domain"]) == {"real"} and not base["held_back"].any()
    assert base["label"].value_counts().eq(7).all() and base["label"].nunique() == 8
    assert own.equals(planned(replace(spec, n_base=0)).frame.set_axis(own.index))
    assert not set(base["warp"]) & set(own["warp"])  # pictures of their own
    tested = own[own["split"] == "test"].groupby("label")["artist"].agg(set)
    for label, artists in base.groupby("label")["artist"].agg(set).items():
        assert not artists & tested.get(label, set())
    most = planned(replace(spec, n_base=1, base_classes=5000))
    assert most.label.nunique() == len({drawing.label for drawing in drawings()})


@pytest.mark.parametrize("prior", [False, True])
def test_a_picture_on_demand_is_the_rendered_one(
    prior: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    spec = EmbeddedSpec(n_classes=3, n_train=2, n_test=1, n_analysis=1, colour_prior=prior)
    rendered, asked = open_embedded(spec, jobs=1), planned(spec)
    assert len(rendered) == len(asked)
    for row in range(0, len(asked), 5):
        assert asked.frame["path"].iloc[row] == rendered.frame["path"].iloc[row]
        assert np.array_equal(asked.picture(row), rendered.picture(row))


def test_an_interrupted_rendering_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    spec = EmbeddedSpec(n_classes=2, n_train=4, n_test=2, n_analysis=2)
    drawn: list[str] = []
    real = embedded._render_cell

    def stop_after_three(task: tuple, **options: bool) -> object:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(f"{task[3]}/{task[1]}")
        return real(task, **options)

    monkeypatch.setattr(embedded, "_render_cell", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        open_embedded(spec, jobs=1)
    (root,) = cache_folder().iterdir()
    assert not (root / "index.csv").exists()
    kept = {cell: (root / cell / "cell.csv").stat().st_mtime_ns for cell in drawn}
    monkeypatch.setattr(embedded, "_render_cell", real)
    assert len(open_embedded(spec, jobs=1)) == 2 * 6 * 8
    assert kept == {  # untouched
        cell: (root / cell / "cell.csv").stat().st_mtime_ns for cell in drawn
    }


def test_the_colour_prior_gives_a_class_one_hue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    spec = EmbeddedSpec(n_classes=2, n_train=6, n_test=2, n_analysis=2, colour_prior=True)
    frame = open_embedded(spec, jobs=1).frame
    real = frame[frame["domain"] == "real"]
    assert (real.groupby("label")["hue"].std() < 0.15).all()
    free = embedded.EmbeddedSpec(n_classes=2, n_train=6, n_test=2, n_analysis=2)
    hues = open_embedded(free, jobs=1).frame.query("domain == 'real'")["hue"]
    assert np.std(hues) > 0.15


def test_too_many_classes_is_an_error_in_words() -> None:
    with pytest.raises(SpecificationError, match="2 to"):
        study_classes(10_000)


def test_without_artwork_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `pip install .`: no artist's package, nor what draws SVG files."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    packages._problem.cache_clear()
    set_quiet(False)
    try:
        with pytest.raises(
            SpecificationError,
            match=r"drawings by four artists. Run pip install .*QtAwesome.* resvg-py",
        ):
            open_embedded(EmbeddedSpec(n_classes=2), jobs=1)
    finally:
        set_quiet(True)
        packages._problem.cache_clear()
    told = capsys.readouterr().err
    assert "boxicons, lineicons and typicons: drawings are left out, since iconipy" in told

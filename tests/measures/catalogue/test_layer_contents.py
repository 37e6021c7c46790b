"""What the study measures of layers: which pictures, which sites, and what becomes of too few."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interp import probes
from interp.circuits import Chain
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.measures.catalogue import dictionary_features, layer_contents
from interp.measures.subject import AnalysisSpec, Subject
from interp.models import load_clip
from interp.probes import Features

PAIR = ("real", "sketch")

BRIEF = AnalysisSpec(n_permutations=19, n_splits=1, dictionary_steps=5, n_dictionary_pictures=4)


@pytest.fixture(scope="module")
def subject(trained_checkpoint: Path, small_images: ImageTable) -> Subject:
    place = {"setting": "cg-high", "seed": 0}
    clip = load_clip(trained_checkpoint)
    return Subject(clip, small_images, PAIR, analysis=BRIEF, place=place)


def test_too_few_classes_are_rows_that_say_so(subject: Subject, small_images: ImageTable) -> None:
    one = small_images.select(split="analysis", label=list(small_images.labels[:3]))
    frames = layer_contents.measure(replace(subject, images=one))
    for name in ("factorisation", "directions", "domain_probes"):
        (row,) = frames[name].to_dict("records")
        assert "at least" in row["reason"] or "classes" in row["reason"]
        assert row["setting"] == "cg-high" and "value" not in row


def test_dictionaries_are_fitted_without_withheld_cells(
    subject: Subject, small_images: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    original = probes.train_dictionaries

    def watched(read: Features, site: str, *args: Any, **options: Any) -> Any:
        seen.update(frame=read.frame, site=site, **options)
        return original(read, site, *args, **options)

    monkeypatch.setattr(probes, "train_dictionaries", watched)
    labels = list(small_images.labels)
    held = [(labels[0], "sketch")]
    opened = replace(subject, held_out=(labels[0],))
    frames = dictionary_features.measure(opened)
    assert seen["withheld"] == held and seen["site"] == "layer2.0.hook_resid_post"
    assert seen["frame"].groupby(["label", "domain"]).size().max() == 4
    assert set(frames) == {"dictionaries", "feature_sharing", "feature_ablation"}
    recovered = frames["dictionaries"].query("measure == 'recovered accuracy'")
    assert set(recovered["domain"]) == {"real", "sketch"}


def test_views_take_the_same_pictures_at_every_site(
    subject: Subject, small_images: ImageTable
) -> None:
    some = small_images.select(split="analysis")
    frames = layer_contents.measure(replace(subject, images=some))
    views = frames["views"]
    assert list(views["site"].unique()) == ["layer2.0.hook_resid_post", "hook_embedding"]
    counts = views.groupby(["site", "domain"]).size()
    assert counts.nunique() == 1 and counts.max() <= layer_contents.SEEN_IN_VIEWS
    assert views["explained"].between(0, 1).all()


@pytest.mark.parametrize(
    "changes",
    [{"n_controls": 1}, {"dictionary_seeds": 1}, {"dictionary_steps": 0}, {"n_active": 0}],
)
def test_analysis_has_bounds(changes: dict[str, int]) -> None:
    with pytest.raises(SpecificationError, match="at least"):
        replace(BRIEF, **changes)


def test_a_tower_without_middle_sites_is_known(small_images: ImageTable) -> None:
    def opened(depths: dict[str, float]) -> Subject:
        model = Subject(SimpleNamespace(visual=Chain([])), small_images, PAIR)
        read = SimpleNamespace(sites=list(depths), depth=depths.__getitem__)
        vars(model)["features"] = read
        return model

    assert opened({"hook_embedding": 0.5, "stem.hook_pool": 0.1}).lacks_middle("erasure")
    assert not opened({"blocks.1.hook_resid_post": 0.5}).lacks_middle("erasure")

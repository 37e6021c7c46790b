"""The multiverse as a measure of a study: of the model's own pair, and only where it is asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from interp.circuits.sharing.choices import CHOICES, options_of
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.data.mixtures.templates import fill, prompts
from interp.measures.catalogue import multiverse
from interp.measures.subject import AnalysisSpec, Subject
from interp.models.loading.load_clip import load_clip
from interp.models.loading.presets import write_model_folder
from interp.report.loaded import LoadedResult
from interp.report.page_model import page_model
from tests.report.conftest import figure_of


@pytest.fixture
def opened(small_images: ImageTable, tmp_path: Path) -> Subject:
    """An untrained ResNet, asked about real pictures and sketches."""
    asked = prompts("neutral", domain="real", domains=small_images.domains)
    sentences = [fill(prompt, label) for prompt in asked for label in small_images.labels]
    words = sorted({word for sentence in sentences for word in sentence.split()})
    longest = max(len(sentence.split()) for sentence in sentences)
    folder = write_model_folder(tmp_path / "model", "resnet-small", words=words, longest=longest)
    clip, held_out = load_clip(f"local-dir:{folder}"), tuple(small_images.labels[:2])
    place = {"setting": "cg-high", "seed": 0}
    return Subject(clip, small_images, ("real", "sketch"), held_out, place=place)


def test_it_is_asked_where_a_study_says_so() -> None:
    assert not multiverse.MEASURE.wanted_by(AnalysisSpec())
    assert multiverse.MEASURE.wanted_by(AnalysisSpec(multiverse=True))


@pytest.mark.slow
def test_the_pair_of_a_model_is_asked_about(
    opened: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = options_of({name: [] for name in CHOICES} | {"size": [0.2], "steps": [1]})
    monkeypatch.setattr(multiverse, "options_of", lambda given: few)
    frame = multiverse.measure(opened)["multiverse"]
    Table.with_evidence("multiverse", frame)
    assert frame.groupby("rung").size().to_dict() == {"R5": 4, "R6": 4}
    assert set(frame["domain_a"]) == {"real"} and set(frame["setting"]) == {"cg-high"}
    facts = {"mode": "study", "specification": {"natural": "real", "test_domains": ["sketch"]}}
    told = frame.assign(test_domain="sketch", index=0.5, index_low=0.4, index_high=0.6)
    result = LoadedResult(Path(), facts, {"multiverse": Table("multiverse", told)})
    page = page_model(result)
    assert figure_of(page, "choices-r6") and figure_of(page, "choices-r5")


@pytest.mark.slow
def test_too_few_classes_are_a_reason(opened: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = opened.images.labels
    few = replace(opened, held_out=tuple(labels[:-3]))
    frame = multiverse.measure(few)["multiverse"]
    assert len(frame) == 1 and "four or more" in frame["reason"].iloc[0]

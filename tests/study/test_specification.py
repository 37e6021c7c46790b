"""Specifications: read from files, refused in four parts, and named by the same hash for good."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.core.errors import DataError, SpecificationError
from interp.core.storage.store import fingerprint
from interp.data.mixtures.intervention_arms import InterventionSpec
from interp.data.mixtures.settings import MixtureSpec
from interp.measures.subject import AnalysisSpec
from interp.models.training.recipes import RECIPES
from interp.study.blocks import open_blocks
from interp.study.specification import (
    ImagesSpec,
    MixturesSpec,
    Specification,
    TrainingSpec,
    Variation,
)
from interp.study.study import Study

GRIDS = Path(__file__).parents[1] / "benchmarks" / "grid"


def test_hashes_stay_so_that_finished_studies_resume() -> None:
    """Step folders are named by them."""
    resnet = Specification.from_toml(GRIDS / "resnet.toml")
    assert fingerprint(resnet) == "f2385f5728b4dfba"
    assert fingerprint(Specification.from_toml(GRIDS / "vit.toml")) == "3980508f7b49796b"
    assert fingerprint(Specification.from_toml(GRIDS / "intervention.toml")) == "170d4c588cbc54ab"
    assert fingerprint(Specification()) == "84a3386eb95772ee"
    assert fingerprint(RECIPES["supervised"]) == "dd635697fdc90984"


def test_a_study_has_a_base_set_that_it_is_not_asked_about() -> None:
    images = ImagesSpec(n_classes=4, n_train=5, n_test=2, n_analysis=2, foreign=1)
    spec = Specification(images=images, mixtures=MixturesSpec(held_out=1))
    [block] = open_blocks(spec, rendered=False)
    base = block.pool.frame[block.pool.split == "base"]
    assert base["label"].value_counts().eq(5).all() and base["label"].nunique() == 4 + 1 + 4
    assert len(block.images.labels) == 4 and "base" not in set(block.images.split)
    assert len(block.foreign) == 1 and not set(block.foreign) & set(block.images.labels)
    for none in (replace(images, artwork=1), replace(images, n_base=0)):
        [without] = open_blocks(replace(spec, images=none), rendered=False)
        assert "base" not in set(without.pool.split)


def test_classes_are_dealt_anew_when_every_fold_was_held_out() -> None:
    small = ImagesSpec(n_classes=9, n_train=4, n_test=2, n_analysis=2, size=16)
    spec = Specification(images=small, blocks=5, folds=3)
    blocks = open_blocks(spec, rendered=False)
    first, second = (
        Counter(label for block in blocks[deal : deal + 3] for label in block.held_out)
        for deal in (0, 3)
    )
    assert [len(block.held_out) for block in blocks] == [3] * 5
    assert set(first.values()) == {1} and len(first) == 9  # all, each once
    assert set(second.values()) == {1} and len(second) == 6
    assert {block.held_out for block in blocks[:3]}.isdisjoint({b.held_out for b in blocks[3:]})
    as_blocks = open_blocks(replace(spec, blocks=3, folds=0), rendered=False)
    assert [b.held_out for b in as_blocks] == [b.held_out for b in blocks[:3]]
    assert spec.with_seed(3).folds == 0  # seeds have no folds
    [alone] = open_blocks(replace(spec, blocks=1), rendered=False)
    assert alone.held_out == blocks[0].held_out


def test_a_whole_number_is_not_made_a_fraction() -> None:
    """1 and 1.0 have different hashes."""
    assert isinstance(TrainingSpec(lr=1).lr, int)
    assert isinstance(MixtureSpec("cg-high", "sketch", (), seen_dose=1).seen_dose, int)


def test_specifications_are_values() -> None:
    spec, same = (Specification(seeds=[1, 2], mixtures=MixturesSpec(["sketch"])) for _ in range(2))
    assert spec == same and hash(spec) == hash(same) and spec.seeds == (1, 2)
    assert spec != replace(spec, title="another")
    with pytest.raises(AttributeError):
        spec.title = "another"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "kind", [InterventionSpec, ImagesSpec, MixturesSpec, MixtureSpec, TrainingSpec, AnalysisSpec]
)
def test_every_field_says_what_would_be_right(kind: Any) -> None:
    assert [name for name, one in kind.__pydantic_fields__.items() if not one.description] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mixtures]\nsettings = ['cg-high', 'cg-high']", "more than once"),
        ("[mixtures]\nsettings = [{setting = 'cg-high', dose = 1}]", "seen_dose"),
        ("[mixtures]\nsettings = [{domains = 2}]", "setting = NAME"),
        ("[mixtures]\nsettings = [{setting = 'cg-high', seen_dose = 2.0}]", "0 to 1"),
        ("blocks = 2\nseeds = [1, 2]", "one of them"),
        ("[[replications]]\npreset = 'resnet-small'", "each preset and objective once"),
        ("replications = 3", "array of sections"),
        ("seeds = []", "at least one"),
        ("seeds = [0, 0]", "each once"),
        ("blocks = -1", "two or more"),
        ("blocks = 1", "set folds, or name the held-out"),
        ("folds = 3", "in a study with blocks"),
        ("blocks = 3\nfolds = 1", "two or more"),
        ("blocks = 3\nfolds = -2", "two or more"),
        ("blocks = 3\nfolds = 3\n[mixtures]\nheld_out = ['cat']", "names no held-out classes"),
        ("[mixtures]\ntest_domains = ['sketch', 'sketch']", "each once"),
        (
            "[mixtures]\nsettings = [{setting = 'cg-high', seen_dose = 'half'}]",
            "seen_dose = 'half'",
        ),
        ("[mixtures]\nsettings = [{setting = 'cg-high', domains = 'sketch'}]", "a list of names"),
        ("[mixtures]\nsettings = [{setting = 'cg-high', domain_words = 'no'}]", "true or false"),
        ("[mixtures]\nsettings = [{setting = 'cg-high', base = 3}]", "text"),
        ("[training]\nrecipe = 'small'\nsteps = 'x'", "steps = 'x'"),
        ("[training]\nrecipe = 'smal'", "small"),
        ("[training]\nseed = 3", "seeds = "),
        ("[images]\nsource = 'x'\nn_classes = 7", "n_classes for"),
        ("[images]\ntest_share = 0.5", "test_share without a source"),
        ("[analysis]\nn_permutations = 0", "at least 19"),
        ("[images]\nn_clases = 3", "n_classes"),
        ("[mixtures]\nsettings = ['cg-hihg']", "cg-high"),
        ("[training]\nsteps = 'many'", "steps = 'many'"),
        ("[training]\npreset = 'vit-smal'", "vit-small"),
        ("[mixtures]\ntest_domains = []", "at least one"),
        ("nonsense", "no TOML"),
        ("images = 3", r"a section \[images\]"),
        ("[training]\nprecision = 'fp8'", "amp_bf16"),
    ],
)
def test_bad_files_say_what_is_right(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(SpecificationError, match=words):
        Specification.from_toml(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("text", "asked", "given", "right", "advice"),
    [
        ("seeds = [-1]", "the study FILE", "-1 in seeds", "numbers from 0", "mend seeds"),
        ("seeds = [3, 3]", "the study FILE", "3 twice in seeds", "each once", "mend seeds"),
        ("tilte = 'x'", "the study FILE", "entry 'tilte'", "one of title", "mean title"),
        ("images = 3", "the study FILE", "images = 3", "a section [images]", "mend images"),
        ("[[replications]]\nlr = 0", "[replications]", "lr = 0", "more than 0", "mend lr"),
        ("[mixtures]\nheld_out = 'x'", "[mixtures]", "held_out = 'x'", "names", "mend held_out"),
        ("[images]\nlabels = [1]", "[images]", "1 in labels", "a list of names", "mend labels"),
        ("[analysis]\nn_pairs = 2.5", "[analysis]", "n_pairs = 2.5", "at least 2", "mend n_pairs"),
        ("[analysis]\nerasure = 1", "[analysis]", "erasure = 1", "true or false", "mend erasure"),
        ("[training]\npreset = 'RN5'", "[training]", "preset = 'RN5'", "one of", "mean RN50"),
    ],
)
def test_a_refusal_has_four_parts(
    tmp_path: Path, text: str, asked: str, given: str, right: str, advice: str
) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(SpecificationError) as refused:
        Specification.from_toml(file)
    assert refused.value.asked == f"read {asked.replace('FILE', str(file))}"
    assert refused.value.given == given
    assert right in refused.value.right and advice in refused.value.do


def test_a_constructor_refuses_as_a_file_does() -> None:
    with pytest.raises(SpecificationError, match=r"Cannot measure models: given n_pairs = 1, .* 2"):
        AnalysisSpec(1)
    with pytest.raises(SpecificationError, match=r"make a mixture: given entry 'dose'.*seen_dose"):
        MixtureSpec("cg-high", "sketch", (), dose=1)
    with pytest.raises(SpecificationError, match="given no held_out"):
        MixtureSpec("cg-high", "sketch")


def test_a_choice_of_pairs_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecificationError, match="one model"):
        replace(AnalysisSpec(), pairs="one-model")


def test_a_study_file_is_its_specification(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        "title = 'x'\nseeds = [1, 2]\n[images]\nsource = 'pictures'\n"
        "[mixtures]\nheld_out = ['cat']\n[training]\nlr = 1\n"
    )
    read = Study.from_toml(tmp_path / "study.toml").specification
    assert read.seeds == (1, 2) and read.mixtures.held_out == ("cat",)
    assert read.images.source == str(tmp_path / "pictures")
    assert read == replace(
        Specification(),
        title="x",
        seeds=(1, 2),
        images=read.images,
        mixtures=read.mixtures,
        training=read.training,
    )
    with pytest.raises(DataError, match="does not exist"):
        Study.from_toml(tmp_path / "study.toml").run(tmp_path / "out")


def test_paths_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        "[mixtures]\nbase = 'a.tsv'\nsettings = ['cg-low', { setting = 'cg-high', base = 'b.tsv' }]"
    )
    made = Specification.from_toml(tmp_path / "study.toml").mixtures.mixture_specs("sketch", ())
    assert [spec.base for spec in made] == [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")]


def test_a_file_says_what_varies(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        "[mixtures]\nsettings = ['cg-low', { setting = 'cg-high', domains = ['painting'] }]\n"
        "[[replications]]\npreset = 'vit-small'\nsteps = 7\n"
    )
    spec = Specification.from_toml(tmp_path / "study.toml")
    assert spec.mixtures.settings == (
        Variation("cg-low"),
        Variation("cg-high", (("domains", ("painting",)),)),
    )
    assert [(each.preset, each.steps) for each in spec.architectures] == [
        ("resnet-small", 2000),
        ("vit-small", 7),
    ]
    assert fingerprint(spec) != fingerprint(Specification())

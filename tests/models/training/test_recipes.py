"""Recipes: one length, whole batches, the paper's numbers, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from interp.core.errors import SampleError, SpecificationError
from interp.models.training.recipes import RECIPES, STEPS, Recipe, named_recipe
from interp.study.specification import Specification, TrainingSpec
from tests.refusals import refuses


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"precision": "fp8"}, "amp_bf16"),
        ({"objective": "supervized"}, "Did you mean supervised"),
        ({"optimizer": "adam"}, "Did you mean adamw"),
        ({"steps": 0}, "at least one"),
        ({"steps": -2}, "at least one"),
        ({"batch_size": 1}, "two"),
        ({"steps": 10, "epochs": 2}, "one of the two"),
        ({"epochs": -1}, "at least one"),
        ({"batch_size": 10, "accumulate": 3}, "equal size"),
        ({"lr": 0.0}, "more than 0"),
        ({"lr": float("nan")}, "more than 0"),
        ({"crop": 1.5}, "a share"),
        ({"keep": 1}, "epoch 0 and the last"),
        ({"workers": -1}, "at least 0"),
    ],
)
def test_bad_recipes_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        Recipe(**values)  # type: ignore[arg-type]


def test_steps_become_whole_epochs() -> None:
    assert Recipe(steps=100, batch_size=10).epochs_for(205) == 5
    assert Recipe(epochs=3, batch_size=10).epochs_for(205) == 3
    refuses(SampleError, "smaller batch_size", Recipe(batch_size=64).epochs_for, 63)


def test_a_recipe_without_a_length_has_the_usual_steps_and_can_be_changed() -> None:
    assert (Recipe().steps, Recipe().epochs) == (STEPS, 0)
    assert dataclasses.replace(Recipe(), seed=3).steps == STEPS
    in_epochs = dataclasses.replace(Recipe(epochs=5), seed=3)
    assert (in_epochs.steps, in_epochs.epochs) == (0, 5)


@pytest.mark.parametrize(
    ("keep", "every", "expected"),
    [(2, 0, {0, 8}), (3, 0, {0, 4, 8}), (5, 0, {0, 2, 4, 6, 8}), (2, 3, {0, 3, 6, 8})],
)
def test_kept_epochs_are_spread_and_hold_both_ends(keep, every, expected) -> None:
    assert set(Recipe(keep=keep, save_frequency=every).kept_epochs(8)) == expected
    assert Recipe(keep=keep, save_frequency=1).kept_epochs(8) == tuple(range(9))
    assert Recipe(keep=50).kept_epochs(3) == (0, 1, 2, 3)


def test_processes_share_the_batch_evenly_or_not_at_all() -> None:
    assert Recipe(batch_size=12, accumulate=2).share(3) == 2
    refuses(SpecificationError, r"Choose batch_size = 10\.", Recipe(batch_size=12).share, 5)


def test_the_papers_recipes_have_the_papers_numbers() -> None:
    """Kempf et al. 2025, as the study's page has them: batch, rate, warm-up, epochs, decay."""
    for name, numbers in {
        "imagenet-captions": (1024, 1e-3, 500, 32, 0.2),
        "imagenet-captions-vit": (1024, 1e-3, 500, 32, 0.2),
        "cc": (2048, 5e-4, 2000, 32, 0.2),
        "supervised": (256, 0.01, 0, 90, 1e-4),
    }.items():
        recipe = RECIPES[name]
        given = (recipe.batch_size, recipe.lr, recipe.warmup, recipe.epochs, recipe.wd)
        assert given == numbers and recipe.crop == 0.9
    assert RECIPES["supervised"].milestones == (30, 50, 70)


@pytest.mark.parametrize(
    ("model", "recipe"), [("RN50", "imagenet-captions"), ("ViT-S-32", "imagenet-captions-vit")]
)
def test_betas_are_those_open_clip_takes_for_the_architecture(model: str, recipe: str) -> None:
    from open_clip_train.params import get_default_params

    usual = get_default_params(model)
    assert (RECIPES[recipe].beta2, RECIPES[recipe].eps) == (usual["beta2"], usual["eps"])


def test_a_named_recipe_can_be_shortened_either_way() -> None:
    assert named_recipe("cc", steps=10).epochs == 0
    assert named_recipe("small", epochs=2).steps == 0
    refuses(SpecificationError, "one of the two", named_recipe, "cc", steps=10, epochs=2)


def test_a_study_file_fills_a_recipe(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("[training]\nepochs = 3\nmilestones = [1, 2]\naugment = false\nkeep = 3\n")
    training = Specification.from_toml(study).training
    assert isinstance(training, TrainingSpec)
    asked = {"epochs": 3, "milestones": (1, 2), "augment": False, "keep": 3}
    assert training.recipe == Recipe(**asked, optimizer="muon")  # a study's own default

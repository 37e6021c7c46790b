"""What was imported in 0.1 still imports, with a warning that says from where it should be."""

import csv
from importlib import import_module
from pathlib import Path

import pytest

import interp
from interp import probes
from interp.core.faces import old_names

ROWS = [
    (module, now, name)
    for module, now, names in list(
        csv.reader(Path(old_names.__file__).with_suffix(".csv").read_text().splitlines())
    )[1:]
    for name in names.split()
]
BARE_NAMES = {module for module, _, name in ROWS if module.rpartition(".")[2] == name}


@pytest.mark.parametrize("module", sorted({module for module, _, _ in ROWS} - BARE_NAMES))
def test_names_of_a_module_that_moved_are_the_same_objects(module: str) -> None:
    home = import_module(module)
    for place, name in [(now, name) for old, now, name in ROWS if old == module]:
        said = rf"{module}\.{name} moved: say `from {place} import {name}`"
        with pytest.warns(DeprecationWarning, match=said):
            found = getattr(home, name)
        assert found is getattr(import_module(place), name)


@pytest.mark.parametrize("module", sorted(BARE_NAMES))
def test_a_module_that_bore_a_functions_name_says_what_to_import(module: str) -> None:
    package, _, name = module.rpartition(".")
    with pytest.raises(ModuleNotFoundError, match=f"say `from {package} import {name}`"):
        import_module(module)
    assert callable(getattr(import_module(package), name))


def test_what_never_was_is_no_module() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        import_module("interp.models.hats")
    with pytest.raises(AttributeError, match="has no 'build_hat'"):
        import_module("interp.models.heads").build_hat  # noqa: B018
    with pytest.raises(AttributeError):
        interp.models.evaluation.build_hat  # noqa: B018  # pyright: ignore


@pytest.mark.parametrize(
    ("old", "new"), [("units", probes.raw_units), ("Measure", probes.SimilarityMeasure)]
)
def test_renamed_names_work_and_warn(old: str, new: object) -> None:
    with pytest.warns(DeprecationWarning, match=f"interp.probes.{old} is now"):
        assert getattr(probes, old) is new

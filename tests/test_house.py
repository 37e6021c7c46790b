"""The shape of the house: folders, links, names and what an import costs."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WINGS = ("models", "probes", "circuits")
HEAVY = ("torch", "open_clip", "transformer_lens", "nnsight", "plotly", "pandas", "sklearn")


@pytest.mark.parametrize("wing", WINGS)
def test_each_wing_is_linked_into_the_package(wing: str) -> None:
    assert (ROOT / "interp" / wing).resolve() == ROOT / wing


def test_every_folder_with_code_is_declared() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folder = {
        name: config["package-dir"].get(name, name.replace(".", "/")) for name in config["packages"]
    }
    found = {
        str(path.parent.relative_to(ROOT))
        for top in ("interp", *WINGS)
        for path in (ROOT / top).rglob("*.py")
    }
    through_links = tuple(f"interp/{wing}" for wing in WINGS)
    assert {path for path in found if not path.startswith(through_links)} == set(folder.values())


def test_every_data_file_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = declared["package-data"]
    for folder in ("interp/data", "interp/report"):
        files = [p for p in (ROOT / folder).iterdir() if p.is_file() and p.suffix != ".py"]
        globs = patterns[folder.replace("/", ".")]
        assert files and all(any(path.match(glob) for glob in globs) for path in files)


@pytest.mark.parametrize("module", ["interp", "interp.cli"])
def test_import_is_light(module: str) -> None:
    code = f"import {module}, sys; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_lightness_test_can_fail() -> None:
    code = f"import torch, sys; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 1


@pytest.mark.parametrize("package", ["interp", "interp.probes", "interp.circuits"])
def test_public_names_are_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_unknown_public_name_is_an_attribute_error() -> None:
    interp = importlib.import_module("interp")
    with pytest.raises(AttributeError, match="load_clip"):
        _ = interp.load_clap

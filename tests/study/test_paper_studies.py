"""The paper's studies as files: what is asked, dry runs on folders of their sizes, refusals."""

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.study.specification import Specification
from tests.study import paper_counts as counts

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
FOLDERS: Mapping[str, tuple[str, Mapping[str, int], list[str], bool]] = {
    "domainnet": ("DOMAINNET", counts.DOMAINNET, counts.classes(345), True),
    "pacs": ("PACS", counts.PACS, list(counts.PACS_CLASSES), False),
    "officehome": ("OFFICEHOME", counts.OFFICEHOME, counts.classes(65), False),
}
MODELS = {"domainnet": (1 + 5 * 5) * 3 * 3, "pacs": (1 + 3 * 3) * 7, "officehome": (1 + 3 * 3) * 5}
"""Models trained: natural-only is one for all test domains of a seed or block."""


def dry_run(name: str, tmp_path: Path, *, shrink: int) -> dict[str, object]:
    """Make the folder and the captions that a study asks for, and dry-run it."""
    folder, domains, names, lists = FOLDERS[name]
    made = counts.make_folder(tmp_path / folder, domains, names, lists=lists, shrink=shrink)
    assert shrink > 1 or made == sum(domains.values())
    counts.make_captions(tmp_path / "IMAGENET_CAPTIONS.tsv", counts.IMAGENET_CAPTIONS // shrink)
    study = tmp_path / f"{name}.toml"
    study.write_text((STUDIES / study.name).read_text())
    command = [sys.executable, "-m", "interp.cli", "run", str(study), "--dry-run", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["cost"]


def test_domainnet_is_asked_for_as_in_the_paper() -> None:
    study = Specification.from_toml(STUDIES / "domainnet.toml")
    assert [each.name for each in study.architectures] == ["RN50", "ViT-S-32", "Swin-T"]
    assert study.mixtures.held_out == counts.HELD_OUT
    assert (study.seeds, study.mixtures.rule, study.mixtures.natural) == (
        (0, 1, 2),
        "first",
        "real",
    )
    for training in study.architectures:
        sizes = training.batch_size, training.epochs, training.lr, training.warmup, training.wd
        assert sizes == (1024, 32, 1e-3, 500, 0.2)
    assert sum(counts.DOMAINNET.values()) == 586_575
    assert sum(counts.PACS.values()) == 9_991 and sum(counts.OFFICEHOME.values()) == 15_588


@pytest.mark.parametrize("name", FOLDERS)
def test_a_path_that_is_not_filled_in_is_named(name: str, tmp_path: Path) -> None:
    study = tmp_path / f"{name}.toml"
    study.write_text((STUDIES / study.name).read_text())
    run = CliRunner().invoke(app, ["run", str(study), "--dry-run"])
    assert run.exit_code == 2
    assert FOLDERS[name][0] in run.output and "Traceback" not in run.output


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shrink"),
    [
        ("domainnet", 16),
        pytest.param("pacs", 8, marks=pytest.mark.long),
        pytest.param("officehome", 4, marks=pytest.mark.long),
    ],
)
def test_a_smaller_folder_of_the_same_cells_is_counted(
    name: str, shrink: int, tmp_path: Path
) -> None:
    found = dry_run(name, tmp_path, shrink=shrink)
    assert found["models_trained"] == MODELS[name]
    assert str(found["text"]).count("million pictures") == 1
    assert found["disk_bytes"] and found["measuring_minutes"]


@pytest.mark.long
def test_domainnet_whole_is_counted_in_little_memory(tmp_path: Path) -> None:
    found = dry_run("domainnet", tmp_path, shrink=1)
    assert found["models_trained"] == MODELS["domainnet"]
    runs = found["runs"]
    assert isinstance(runs, list)
    most = max(run["pictures"] for run in runs)
    assert most > counts.IMAGENET_CAPTIONS + 120_000
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < 8 * 2**20  # kilobytes; where it was measured, 1 GiB

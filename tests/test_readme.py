"""README says what is so: its snippets run, its numbers stand in tables, its commands exist."""

import json
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.main import get_group

import interp
from interp.cli import app
from interp.core.images import ImageTable
from interp.data.artwork import embedded
from interp.models.loading.load import load_clip
from interp.study.specification import Specification

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def small_words(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The snippets' words, where ViT-B-32 is small and the embedded study has eight classes."""
    folder = tmp_path / "small"
    folder.mkdir()
    vision = {"image_size": 64, "layers": 12, "width": 48, "patch_size": 16, "head_width": 12}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 64}})
    )
    small = f"local-dir:{folder}"

    def loaded(source: str, **more: Any) -> Any:
        return load_clip(small if source == "ViT-B-32" else source, **more)

    monkeypatch.setattr(interp, "load_clip", loaded, raising=False)
    monkeypatch.setattr(embedded, "open_embedded", lambda spec=None, jobs=2: small_images)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(blocks("toml")[0])
    return {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_every_python_snippet_runs_as_it_stands(small_words: dict[str, Any]) -> None:
    snippets = blocks("python")
    assert len(snippets) == README.count("```python") > 5
    for snippet in snippets:  # one after another, in one session, as one reads them
        exec(compile(snippet, "README.md", "exec"), small_words)
    assert Path("sae/cfg.json").is_file() and Path("features").is_dir()


def test_the_study_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(blocks("toml")[0])
    study = Specification.from_toml(tmp_path / "study.toml")
    assert study.blocks == 3 and len(study.architectures) == 2


def test_the_numbers_of_what_was_found_stand_in_the_committed_tables() -> None:
    said = README.split("## What was found")[1].split("\n## ")[0]
    grids = ROOT / "tests/benchmarks/grid"
    table = pd.concat(
        [
            pd.read_csv(grids / f"{name}.csv")
            for name in ("resnet/differences", "intervention/intervention")
        ]
    )
    known = {
        f"{row.value * 100:+.1f} [{row.low * 100:.1f}, {row.high * 100:.1f}]"
        for row in table.itertuples()
    }
    given = re.findall(r"[+-]\d+\.\d \[-?[\d.]+, -?[\d.]+\]", said)
    assert len(given) == 10 and set(given) <= known
    open_ones = {text for text in given if float(text.split("[")[1].split(",")[0]) < 0
                 < float(text.split(", ")[1].rstrip("]"))}  # fmt: skip
    for item in map(" ".join, map(str.split, re.split(r"\n(?=\d\. )", said))):
        for text in [each for each in given if each in item]:  # "open" is said of zero inside
            before, _, after = item.partition(text)
            clause = re.split(r"[;.] ", after)[0]
            assert (text in open_ones) == ("open" in clause or "Open" in before), text


@pytest.mark.parametrize("module", ["interp", "interp.probes", "interp.circuits"])
def test_every_name_in_the_text_exists(module: str) -> None:
    short = module.rpartition(".")[2]
    names = re.findall(rf"(?<![\w./]){short}\.([A-Za-z_]+)", README)
    assert len(names) > 5
    for name in names:
        there = hasattr(import_module(module), name)
        assert there or (ROOT / "interp" / name).is_dir() or (ROOT / f"interp/{name}.py").exists()


@pytest.mark.slow
def test_a_traced_tower_has_the_sites_that_readme_names() -> None:
    assert "trunk.stages.0.input" in load_clip("convnext_tiny").visual.sites


def test_every_command_that_readme_types_exists() -> None:
    typed = {
        words.split()[1]
        for block in blocks("sh")
        for words in block.splitlines()
        if words.startswith("interp-report ") and not words.split()[1].startswith("#")
    }
    assert typed == set(get_group(app).commands)


def test_links_lead_somewhere_and_the_page_is_short() -> None:
    for text in (README, (ROOT / "docs/measured.md").read_text()):
        base = ROOT if text is README else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#h][^)#]*)", text):
            assert (base / target).exists(), target
    unfolded = re.sub(r"<details>.*?</details>", "", README, flags=re.DOTALL)
    assert len(unfolded.splitlines()) < 375


def test_the_citation_names_this_package_and_its_version() -> None:
    cited = (ROOT / "CITATION.cff").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"version: {project['version']}" in cited and "2502.09507" in cited

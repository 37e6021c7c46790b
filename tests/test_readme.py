"""README and docs say what is so: snippets run, numbers stand in tables, names exist."""

import json
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

import interp
from interp import models
from interp.cli import app
from interp.core.images import ImageTable
from interp.data.artwork import embedded
from interp.models.loading.load_clip import load_clip
from interp.study.specification import Specification
from interp.verdicts.rungs import RUNGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {"README": README} | {
    path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))
}
TOGETHER = "\n".join(PAGES.values())


def blocks(language: str, text: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SNIPPETS = {page: blocks("python", text) for page, text in PAGES.items()}
STUDY = blocks("toml", PAGES["bringing_your_own_data"])[0]


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

    for face in (interp, models):
        monkeypatch.setattr(face, "load_clip", loaded, raising=False)
    monkeypatch.setattr(embedded, "open_embedded", lambda spec=None, jobs=2: small_images)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    return {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("page", [page for page, snippets in SNIPPETS.items() if snippets])
def test_every_python_snippet_runs_as_it_stands(page: str, small_words: dict[str, Any]) -> None:
    assert len(SNIPPETS[page]) == PAGES[page].count("```python")
    for snippet in SNIPPETS[page]:  # one after another, in one session, as one reads them
        exec(compile(snippet, f"{page}.md", "exec"), small_words)
    if page == "coming_from_other_tools":
        assert Path("sae/cfg.json").is_file()
    if page == "in_python":
        assert Path("features").is_dir()


def test_there_are_snippets_and_readme_has_one_of_about_twenty_lines() -> None:
    assert sum(map(len, SNIPPETS.values())) > 10
    (example,) = SNIPPETS["README"]
    assert len([line for line in example.splitlines() if line]) <= 25


def test_the_study_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    study = Specification.from_toml(tmp_path / "study.toml")
    assert study.blocks == 3 and len(study.architectures) == 2


@pytest.mark.parametrize("module", ["interp", "probes", "circuits", "models", "data"])
def test_every_name_in_the_text_exists(module: str) -> None:
    names = re.findall(rf"(?<![\w./]){module}\.(?!png)([A-Za-z_]+)", TOGETHER)
    assert len(names) > (5 if module in ("interp", "probes", "circuits") else 1)
    package = import_module("interp" if module == "interp" else f"interp.{module}")
    for name in names:
        there = hasattr(package, name)
        assert there or (ROOT / "interp" / name).is_dir() or (ROOT / f"interp/{name}.py").exists()


def test_the_map_names_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [
        project["package-dir"].get(name, name.replace(".", "/")) for name in project["packages"]
    ]
    rooms = re.findall(r"^\| `([\w/]+)` \|", PAGES["adding_things"], re.MULTILINE)
    assert set(folders) - {"interp"} <= set(rooms) and all((ROOT / room).is_dir() for room in rooms)


def test_paths_in_the_text_exist() -> None:
    text = PAGES["adding_things"] + (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:interp|models|probes|circuits|tests|docs)/[\w/.]+)`", text)
    assert len(paths) > 40
    assert all((ROOT / path).exists() for path in paths if path != "docs/site")  # that is built


@pytest.mark.slow
def test_a_traced_tower_has_the_sites_that_the_docs_name() -> None:
    assert "trunk.stages.0.input" in load_clip("convnext_tiny").visual.sites


def test_every_command_that_the_docs_type_exists() -> None:
    typed = {
        words.split()[1]
        for block in blocks("sh", TOGETHER)
        for words in block.splitlines()
        if words.startswith("interp-report ") and not words.split()[1].startswith("#")
    }
    assert typed == set(get_group(app).commands)


def test_the_table_of_rungs_is_the_registry() -> None:
    rows = re.findall(r"^\| (R\d) \| ([^|]+) \|", PAGES["evidence"], re.MULTILINE)
    assert dict(rows) == {name: rung.claim for name, rung in RUNGS.items()}


def words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def test_pages_are_short() -> None:
    assert words(README) <= 1300 and len(README.splitlines()) <= 200
    assert words(PAGES["findings"]) <= 1500 and words(PAGES["truth"]) <= 800
    assert words((ROOT / "CONTRIBUTING.md").read_text(), *PAGES.values()) <= 26_000


def test_what_changed_since_the_last_version_is_short() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    recent = changes.split("## [Unreleased]\n")[1].split("\n## [")[0]
    assert len(recent.splitlines()) <= 60


def test_every_term_stands_once_in_the_glossary() -> None:
    terms = re.findall(r"^\*\*(.+?)\*\*: ", PAGES["glossary"], re.MULTILINE)
    each = [term for entry in terms for term in entry.split(", ")]
    assert len(each) == len(set(each)) and "docs/glossary.md" in README
    wanted = (
        "site patch table band block rung level index ceiling null cell stream head arm drawing"
    )
    assert set(wanted.split()) <= set(each) | set(re.findall(r"\*\*(\w+)\*\*", PAGES["glossary"]))


def test_the_citation_names_this_package_and_its_version() -> None:
    cited = (ROOT / "CITATION.cff").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"version: {project['version']}" in cited and "2502.09507" in cited
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()

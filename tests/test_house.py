"""The shape of the house: folders, links, names and what an import costs."""

import ast
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

from interp.core.faces.late import LATE

ROOT = Path(__file__).parent.parent
WINGS = ("models", "probes", "circuits")
FACES = ("interp", *(f"interp.{wing}" for wing in (*WINGS, "data", "report", "validation")))
MODULES = sorted(
    path for top in ("interp", *WINGS) for path in (ROOT / top).rglob("*.py")
    if not any(ROOT / "interp" / wing in path.parents for wing in WINGS)
)  # fmt: skip
WITH_DATA = ("interp/core", "interp/data/artwork", "interp/report", "interp/circuits/planted")
MOST_FILES = 15
MOST_LATE_ARROWS = 7
LISTS_OF_ONE_KIND: tuple[str, ...] = ("interp/measures/catalogue",)
"""Folders that may hold more files than one keeps in the head: each file is of the same kind."""

HEAVY = (
    "torch", "open_clip", "transformer_lens", "nnsight", "plotly", "pandas", "sklearn", "pydantic"
)  # fmt: skip


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
    for folder in WITH_DATA:
        files = [
            p for p in (ROOT / folder).iterdir() if p.is_file() and p.suffix not in (".py", ".pyi")
        ]
        globs = patterns[folder.replace("/", ".")]
        assert files and all(any(path.match(glob) for glob in globs) for path in files)


@pytest.mark.parametrize("module", ["interp", "interp.cli"])
def test_import_is_light(module: str) -> None:
    code = f"import {module}, sys; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_lightness_test_can_fail() -> None:
    code = f"import torch, sys; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 1


def test_every_stub_is_declared() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    names = {
        ".".join(("interp", *path.parent.relative_to(ROOT).parts)).replace(
            "interp.interp", "interp"
        )
        for top in ("interp", *WINGS)
        for path in (ROOT / top).rglob("*.pyi")
    }
    assert {"interp", "interp.circuits", "interp.report"} <= names
    for name in names:
        assert "*.pyi" in patterns["package-data"][name]


def test_no_folder_is_too_full_to_hold_in_the_head() -> None:
    folders: dict[Path, int] = {}
    for path in MODULES:
        folders[path.parent] = folders.get(path.parent, 0) + 1
    full = {str(folder.relative_to(ROOT)) for folder, n in folders.items() if n > MOST_FILES}
    assert full <= set(LISTS_OF_ONE_KIND)


def _public(kind: type[ast.FunctionDef] | type[ast.ClassDef]) -> list[tuple[str, Path]]:
    return [
        (node.name, path)
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, kind) and not node.name.startswith("_")
    ]


def test_no_subpackage_bears_the_name_of_a_public_function_of_its_wing() -> None:
    """A lazy face would find the folder where the function is asked for."""
    for package in FACES:
        module = importlib.import_module(package)
        folder = Path(str(module.__file__)).parent
        folders = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
        functions = [name for name in module.__all__ if inspect.isroutine(getattr(module, name))]
        assert not folders & {*functions}


def test_no_two_public_classes_share_a_name() -> None:
    names = [name for name, _ in _public(ast.ClassDef)]
    assert sorted(set(names)) == sorted(names)


MOST_PARAMETERS = 9
LONG_LISTS = 8
"""How many functions may have more parameters: such as commands, where a person types them."""


def _parameters(node: ast.FunctionDef) -> int:
    """How many parameters a function has; a group of keywords counts as one."""
    parts = node.args
    named = [each.arg for each in (*parts.posonlyargs, *parts.args, *parts.kwonlyargs)]
    starred = [each for each in (parts.vararg, parts.kwarg) if each]
    return len([name for name in named if name not in ("self", "cls")]) + len(starred)


def test_few_functions_have_many_parameters() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and _parameters(node) > MOST_PARAMETERS
    ]
    assert len(long) <= LONG_LISTS, long


def test_parameters_are_counted() -> None:
    [node] = ast.parse("def f(self, a, /, b, *rest, c=1, **group): ...").body
    assert isinstance(node, ast.FunctionDef) and _parameters(node) == 5


def test_nothing_imports_in_a_circle() -> None:
    circles = networkx.strongly_connected_components(_arrows())
    assert not [sorted(each) for each in circles if len(each) > 1]


@pytest.mark.parametrize("wing", WINGS)
def test_rooms_of_a_wing_import_in_no_circle(wing: str) -> None:
    within = re.compile(rf"interp\.{wing}\.(\w+)\.\w+")
    ends = [(within.match(start), within.match(end)) for start, end in _arrows().edges]
    arrows = {(start[1], end[1]) for start, end in ends if start and end and start[1] != end[1]}
    assert len(arrows) > 5 and networkx.is_directed_acyclic_graph(networkx.DiGraph(arrows))


def test_what_is_called_late_stands_in_one_file_and_closes_few_circles() -> None:
    """`late` alone imports by name; without its arrows there would be no circle."""
    callers = {(start, end) for start, end in _called_late() if start != "interp.core.faces.late"}
    assert {start: end for start, end in callers if end not in LATE.values()} == {}
    graph = _arrows()
    graph.add_edges_from(callers)
    circles = [each for each in networkx.strongly_connected_components(graph) if len(each) > 1]
    assert all(any(start in each and end in each for start, end in callers) for each in circles)
    assert len(callers) <= MOST_LATE_ARROWS and set(LATE.values()) == {end for _, end in callers}


def _arrows() -> networkx.DiGraph:
    """Which module imports which, wherever in it the statement stands; or by a name of `interp`."""
    graph = networkx.DiGraph()
    names = {_dotted(path) for path in MODULES}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interp"):
                for each in node.names:
                    inner = f"{node.module}.{each.name}"
                    graph.add_edge(_dotted(path), inner if inner in names else node.module)
            elif isinstance(node, ast.Import):
                own = [each.name for each in node.names if each.name.startswith("interp")]
                graph.add_edges_from((_dotted(path), name) for name in own)
    return graph


def _called_late() -> list[tuple[str, str]]:
    """The arrows of modules that `late` or `import_module` finds by a name in the text."""
    return [
        (_dotted(path), LATE.get(name, name))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _called(node) in ("late", "import_module", "__import__")
        for name in (each.value for each in node.args if isinstance(each, ast.Constant))
    ]


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "id", getattr(node.func, "attr", "")))


def test_an_import_by_name_is_seen() -> None:
    call = ast.parse('importlib.import_module("interp.report").draw_table(1)').body[0]
    calls = [node for node in ast.walk(call) if isinstance(node, ast.Call)]
    assert "import_module" in map(_called, calls)


def _dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("interp") else f"interp.{name}"


@pytest.mark.parametrize("package", FACES)
def test_public_names_are_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


BUDGETS: dict[str, tuple[float, float]] = {
    "lines of code in wings, data and core": (34_490, 33_500),
    "lines of code above them": (14_190, 12_500),
    "modules": (349, 340),
    "files of more than 420 lines": (0, 0),
    "lines of a function, 90th percentile": (30, 30),
    "fmt: skip": (10, 10),
    "Any": (400, 400),
    "short private functions called once": (120, 120),
    "names that are participles": (0, 0),
    "lines of tests": (49_850, 45_000),
    "words of documentation": (26_000, 26_000),
    "files of the repository": (1_450, 1_700),
    "megabytes of the repository": (45, 45),
}
"""The most that a figure of the house may be, and its goal.

A limit comes down, but for what a new feature needs: decision biases and domain shifts, 1,030
lines and nine modules, seven of them packages and files of two rooms; both parts of accuracy held
against sharing, 50 lines; eight blocks of 17 models measured whole, eight megabytes; the answers to
nine predictions, 190 lines of tests."""

SHORT = 6
PARTICIPLE = re.compile(r"(^|_)(told|said|asked|found|kept|seen|judged|given|made)$")
SPACE = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
)


@pytest.mark.parametrize("figure", BUDGETS)
def test_the_house_stays_within_its_budgets(figure: str) -> None:
    limit, _ = BUDGETS[figure]
    assert _figures()[figure] <= limit


@cache
def _figures() -> dict[str, float]:
    """What `BUDGETS` holds: of the product's modules, of tests, and of all that git keeps."""
    texts = {path: path.read_text() for path in MODULES}
    lines = {path: _lines_of_code(text) for path, text in texts.items()}
    below = ("models/", "probes/", "circuits/", "interp/core/", "interp/data/")
    low = sum(n for path, n in lines.items() if str(path.relative_to(ROOT)).startswith(below))
    nodes = [node for text in texts.values() for node in ast.walk(ast.parse(text))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    named = [*functions, *(node for node in nodes if isinstance(node, ast.ClassDef))]
    lengths = {node: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    words = Counter(word for text in texts.values() for word in re.findall(r"\b_[a-z]\w+\b", text))
    tests = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [path for name in listing.stdout.split("\0") if (path := ROOT / name).is_file()]
    pages = [path for path in files if path.suffix == ".md" and not path.is_symlink()]
    return {
        "lines of code in wings, data and core": low,
        "lines of code above them": sum(lines.values()) - low,
        "modules": len(MODULES),
        "files of more than 420 lines": sum(text.count("\n") > 420 for text in texts.values()),
        "lines of a function, 90th percentile": sorted(lengths.values())[int(len(lengths) * 0.9)],
        "fmt: skip": sum(text.count("# fmt" + ": skip") for text in texts.values()),
        "Any": sum(len(re.findall(r"\bAny\b", text)) for text in texts.values()),
        "short private functions called once": sum(
            re.match("_[a-z]", node.name) is not None and n <= SHORT and words[node.name] == 2
            for node, n in lengths.items()
        ),
        "names that are participles": sum(bool(PARTICIPLE.search(node.name)) for node in named),
        "lines of tests": sum(text.count("\n") for text in tests),
        "words of documentation": sum(
            len(path.read_text().split()) for path in pages if path.name != "CHANGELOG.md"
        ),
        "files of the repository": len(files),
        "megabytes of the repository": sum(path.stat().st_size for path in files) / 1e6,
    }


def _lines_of_code(text: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    coded = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in SPACE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(coded - documented)


def test_lines_of_code_are_counted() -> None:
    assert _lines_of_code('"""One.\n\nTwo."""\n\n# why\nx = (\n    1\n)\n') == 3


def test_every_test_begins_at_the_same_seed() -> None:
    seed = int(os.environ.get("INTERP_TEST_SEED", "0"))
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(seed)))
    assert np.random.rand() == np.random.RandomState(seed).rand()


def test_unknown_public_name_is_an_attribute_error() -> None:
    interp = importlib.import_module("interp")
    with pytest.raises(AttributeError, match="load_clip"):
        _ = interp.load_clap

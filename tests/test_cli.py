"""What a person types: help at once, errors in a line or two, exit statuses, and going on."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
from PIL import Image

from interp.cli import main
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.study.results import Result

COMMAND = [sys.executable, "-m", "interp.cli"]


def call(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command in this process: its status and what it prints."""
    errors, status = io.StringIO(), 0
    heard, kept = signal.getsignal(signal.SIGTERM), os.dup(1)
    with TemporaryFile("w+") as out:
        os.dup2(out.fileno(), 1)  # JSON goes past what Python takes for standard output
        try:
            with (
                patch.dict(os.environ, environment),
                patch.object(sys, "argv", ["interp-report", *words]),
                redirect_stdout(out),
                redirect_stderr(errors),
            ):
                main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            signal.signal(signal.SIGTERM, heard)
            set_quiet(True)
        out.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), errors.getvalue())


def call_apart(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['interp-report', '--help']\n"
        "from interp.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'open_clip', 'transformer_lens', 'plotly', 'pandas', 'numpy'}\n"
        "sys.exit(len(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("run", "grid", "audit", "page", "diff", "export", "clean"):
        assert f"  {command} " in done.stdout
    for status in ("  0  ", "  1  ", "  2  ", "  130  "):
        assert status in done.stdout


@pytest.mark.parametrize("command", ["run", "grid", "audit", "page", "diff", "export", "clean"])
def test_every_commands_help_has_examples_and_statuses(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0 and f"  interp-report {command}" in done.stdout
    assert "Example" in done.stdout and "Exit status:" in done.stdout and "--json" in done.stdout


def test_the_version_is_the_packages() -> None:
    assert call("--version").stdout == f"interp-report {version('interp')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(shell: str) -> None:
    done = call_apart("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and "_INTERP_REPORT_COMPLETE" in done.stdout


def test_completion_is_installed_and_completes_commands(tmp_path: Path) -> None:
    done = call_apart(
        "--install-completion", "bash", HOME=str(tmp_path),
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )  # fmt: skip
    assert done.returncode == 0
    (script,) = (tmp_path / ".bash_completions").glob("*.sh")
    assert script.name == "interp-report.sh" and str(script) in (tmp_path / ".bashrc").read_text()
    asked = {"_INTERP_REPORT_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert call_apart(COMP_WORDS="interp-report ex", **asked).stdout.split() == ["export"]
    asked["COMP_CWORD"] = "2"
    assert "--dry-run" in call_apart(COMP_WORDS="interp-report run --dry", **asked).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "no-such.toml"], "no-such.toml"),
        (["run", "--checkpoint", "x.pt"], "--images"),
        (["run", "--checkpoint", "x.pt", "--images", "no-such-folder"], "no-such-folder"),
        (["run", "--checkpoint", "x.pt", "--images", "y", "--blocks", "0"], "what is of a study"),
        (["page", "--out", "no-such-folder"], "Run the study first"),
        (["run", "--device", "gpu", "--dry-run"], "Cannot compute on gpu"),
        (["grid", "x.toml", "--tabulate", "--commands"], "one of --commands"),
        (["grid", "x.toml", "--tabulate", "--processes", "2"], "--processes"),
        (["run", "."], "read the study"),
        (["run", "--checkpoint", "x.pt", "--images", __file__], "test_cli.py"),
        (["page", "--out", __file__], "a file"),
        (["diff", "no-such-folder", "."], "no-such-folder"),
        (["export", __file__], "a file"),
        (["export", "no-such-folder", "--what", "docx"], "no-such-folder"),
    ],
)
def test_mistakes_are_a_line_or_two_with_status_2(words: list[str], message: str) -> None:
    done = call(*words)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        len([line for line in done.stderr.splitlines() if line.startswith("interp-report:")]) == 1
    )


def test_an_unknown_option_is_status_2() -> None:
    assert call_apart("run", "--colour").returncode == 2


def test_an_unwritable_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("run", "--out", str(tmp_path / "file" / "out"), INTERP_CACHE=str(tmp_path / "c"))
    assert done.returncode == 2 and "--out" in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("run",), ()], ids=["run", "no command"])
def test_a_dry_run_says_the_cost_and_does_nothing(tmp_path: Path, command: tuple[str]) -> None:
    done = call(*command, "--dry-run", "--out", str(tmp_path / "out"))
    assert done.returncode == 0 and "4 runs" in done.stdout
    steps = "cg-high: 30,000 pictures, 9 epochs, 2,106 steps of 128"
    for word in ("minutes of training", "measuring 5 models", "MB of disk", "rough", steps):
        assert word in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_refuses_what_the_run_would(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("[mixtures]\ntest_domains = ['skech']\n")
    done = call("run", str(study), "--dry-run")
    assert done.returncode == 2 and "sketch" in done.stderr and "Traceback" not in done.stderr


def test_a_mistaken_checkpoint_is_answered_in_options(
    trained_checkpoint: Path, tmp_path: Path
) -> None:
    lonely = tmp_path / "epoch_1.pt"
    shutil.copy(trained_checkpoint, lonely)
    for domain in ("real", "sketch"):
        (tmp_path / "pictures" / domain / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / domain / "cat" / "1.png")
    asked = ["run", "--checkpoint", str(lonely), "--images", str(tmp_path / "pictures")]
    done = call(*asked, "--dry-run")
    assert done.returncode == 2 and "--model RN50" in done.stderr and "model=" not in done.stderr
    done = call(*asked, "--dry-run", "--domains", "real,skech")
    assert done.returncode == 2 and "sketch" in done.stderr


def hear_ctrl_c() -> None:
    """In a child of tests that were started with Ctrl-C ignored, as `nohup` and `&` do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished_cells(cache: Path) -> list[Path]:
    """Those under their final name: a folder that is being written has another one."""
    return [path for path in cache.glob("*/*/*/cell.csv") if ".part-" not in path.parent.name]


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_while_rendering_is_130_and_the_next_run_goes_on(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("[images]\nn_classes = 20\nn_train = 60\n")
    environment = {**os.environ, "INTERP_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        [*COMMAND, "run", str(study), "--out", str(tmp_path / "out")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and len(finished_cells(tmp_path / "cache")) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on" in errors and "Traceback" not in errors
    cells = finished_cells(tmp_path / "cache")
    assert len(cells) >= 3
    for cell in cells:
        n = len(list(cell.parent.glob("*.png")))
        assert n == len(cell.read_text().splitlines()) - 1 and n in (60, 92, 152)


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_while_training_keeps_checkpoints_and_leaves_no_process(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        "[images]\nn_classes = 8\nn_train = 24\nn_test = 4\nn_analysis = 8\n"
        "[mixtures]\nheld_out = 2\nsettings = ['cg-high']\n"
        "[training]\nsteps = 100000\nbatch_size = 32\nwarmup = 5\nprecision = 'fp32'\n"
    )
    with subprocess.Popen(
        [*COMMAND, "run", str(study), "--out", str(tmp_path / "out")],
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not list(
            (tmp_path / "out").glob("steps/train-*/checkpoints/latest.pt")
        ):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.returncode == 1
    assert list((tmp_path / "out").glob("steps/train-*/checkpoints/epoch_*.pt"))


def test_page_rebuilds_from_tables_alone(small_study: Result) -> None:
    page = small_study.folder / "report.html"
    page.unlink(missing_ok=True)
    done = call("page", "--out", str(small_study.folder))
    assert done.returncode == 0 and page.exists() and str(page) in done.stdout


def answer(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """What `--json` prints, which must be all that standard output holds."""
    return json.loads(done.stdout)


def test_json_is_one_object_with_paths_verdicts_and_seconds(small_study: Result) -> None:
    found = answer(call("page", "--out", str(small_study.folder), "--json"))
    assert found["command"] == "page" and found["exit"] == 0 and found["seconds"] > 0
    assert [Path(path).is_file() for path in found["pages"]] == [True]
    ladder = small_study.tables["ladder"].frame
    assert {rung: len(rows) for rung, rows in found["verdicts"].items()} == (
        ladder.groupby("rung").size().to_dict()
    )
    told = [row["verdict"] for rows in found["verdicts"].values() for row in rows]
    assert sorted(told) == sorted(ladder["verdict"])


def test_json_of_a_mistake_is_an_object_too() -> None:
    done = call("page", "--out", "no-such-folder", "--json")
    assert done.returncode == 2
    found = answer(done)
    assert found["exit"] == 2 and "no-such-folder" in found["error"]


@pytest.mark.slow
def test_a_dry_run_in_json_counts_models_minutes_and_bytes(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("seeds = [0, 1]\n[mixtures]\nsettings = ['cg-low', 'cg-high']\n")
    cost = answer(call("run", str(study), "--dry-run", "--json"))["cost"]
    assert (cost["models_trained"], cost["models_measured"]) == (4, 6)
    assert cost["training_minutes"] > 0 < cost["measuring_minutes"] and cost["disk_bytes"] > 10**7
    grid = answer(call("grid", str(study), "--dry-run", "--json"))["cost"]
    assert grid["measuring_minutes"] < cost["measuring_minutes"]


@pytest.mark.slow
def test_blocks_are_a_range(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("blocks = 4\n[mixtures]\nsettings = ['cg-low']\n")
    for command in ("run", "grid"):
        words = [command, str(study), "--dry-run", "--json"]
        whole, half = (answer(call(*words, *more))["cost"] for more in ((), ("--blocks", "2-3")))
        assert (whole["models_trained"], half["models_trained"]) == (4, 2)
        assert {run["seed"] for run in half["runs"]} == {2, 3}
        assert half["training_minutes"] == pytest.approx(whole["training_minutes"] / 2, rel=0.1)
        assert "2 of 4 blocks" in half["text"]
    for asked, why in (("4", "numbers from 0 to 3"), ("3-2", "FIRST-LAST"), ("", "FIRST-LAST")):
        done = call("run", str(study), "--dry-run", "--blocks", asked)
        assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr


def test_a_dry_run_of_a_checkpoint_opens_it_and_says_its_cost(
    small_images: ImageTable, trained_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    for row in range(0, len(small_images), 40):
        picture = small_images[row : row + 1]
        place = folder / picture.domain.iloc[0] / picture.label.iloc[0]
        place.mkdir(parents=True, exist_ok=True)
        picture.picture(0).save(place / f"{row}.png")
    words = ["run", "--checkpoint", str(trained_checkpoint), "--images", str(folder), "--dry-run"]
    cost = answer(call(*words, "--json", "--out", str(tmp_path / "out")))["cost"]
    assert cost["models_trained"] == 0 and cost["models_measured"] == 1
    assert cost["measuring_minutes"] > 0 and not (tmp_path / "out").exists()


def test_diff_tells_the_same_from_the_changed_by_its_status(
    small_study: Result, tmp_path: Path
) -> None:
    same = call("diff", str(small_study.folder), str(small_study.folder))
    assert same.returncode == 0 and same.stdout.rstrip().endswith("within noise")
    moved = tmp_path / "moved"
    shutil.copytree(small_study.folder / "tables", moved / "tables")
    facts = small_study.facts | {"source_hash": "another"}
    (moved / "facts.json").write_text(json.dumps(facts))
    path = moved / "tables" / "similarity.csv"
    frame = pd.read_csv(path)
    for name in ("value", "low", "high"):
        frame[name] += 100
    frame.to_csv(path, index=False)
    kept = ["--out", str(tmp_path / "d"), "--page", str(tmp_path / "both.html"), "--json"]
    done = call("diff", str(small_study.folder), str(moved), *kept)
    found = answer(done)
    assert done.returncode == 1 and found["changed"]
    assert [each["name"] for each in found["facts"]] == ["source_hash"]
    changed = {name: row["changed beyond noise"] for name, row in found["tables"].items()}
    assert changed.pop("similarity") > 0 and not any(changed.values())
    assert (tmp_path / "d" / "diff.csv").is_file()
    assert found["page"] == str(tmp_path / "both.html")
    assert "What changed from A to B?" in (tmp_path / "both.html").read_text()


def test_export_writes_tables_and_says_where(small_study: Result, tmp_path: Path) -> None:
    done = call("export", str(small_study.folder), "--to", str(tmp_path), "--what", "csv", "--json")
    paths = answer(done)["files"]["csv"]
    assert done.returncode == 0 and str(tmp_path / "csv" / "columns.csv") in paths


@pytest.mark.long
def test_quiet_leaves_standard_error_empty(small_study: Result) -> None:
    loud = call("page", "--out", str(small_study.folder))
    done = call("page", "--out", str(small_study.folder), "--quiet")
    assert done.stderr == "" and loud.stderr and done.stdout == loud.stdout


@pytest.mark.parametrize("gone", ["facts.json", "tables"])
def test_a_half_deleted_result_is_said(small_study: Result, tmp_path: Path, gone: str) -> None:
    half = tmp_path / "half"
    shutil.copytree(small_study.folder, half, ignore=shutil.ignore_patterns("steps", gone))
    for command in (["page", "--out"], ["export"], ["diff", str(small_study.folder)]):
        done = call(*command, str(half))
        assert done.returncode == 2 and "Traceback" not in done.stderr and gone[:5] in done.stderr


def test_clean_shows_and_empties_the_cache(tmp_path: Path) -> None:
    (tmp_path / "artwork-1").mkdir()
    (tmp_path / "artwork-1" / "x").write_bytes(bytes(2**20))
    shown = call("clean", INTERP_CACHE=str(tmp_path))
    assert "1.0 MiB" in shown.stdout and (tmp_path / "artwork-1").exists()
    call("clean", "--yes", INTERP_CACHE=str(tmp_path))
    assert not (tmp_path / "artwork-1").exists()


def test_an_audit_writes_nothing_unasked(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        "[images]\nn_classes = 8\nn_train = 24\nn_test = 6\nn_analysis = 8\n"
        "[mixtures]\nheld_out = 2\nsettings = ['natural-only', 'cg-high']\n"
    )
    monkeypatch.chdir(tmp_path)
    done = call("audit", str(study), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] and sorted(tmp_path.iterdir()) == [study]
    done = call("audit", str(study), "--json", "--out", "found")
    assert Path(json.loads(done.stdout)["table"]).exists()
    assert sorted(path.name for path in Path("found").iterdir()) == ["tables"]


@pytest.mark.slow
def test_a_method_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_method.py").write_text("def shared(puzzle):\n    return 'shared'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ("--seeds", "0", "--condition", "all shared", "--tier", "easy", "--jobs", "1")
    places = ("--out", "judged", "--write", "models")
    done = call("judge", "a_method:shared", *chosen, *places, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {row["rung"] for row in told["standing"]} == {"R2", "R3", "R4", "R5", "R6"}
    assert all(row["right"] == 1 for row in told["standing"]) and told["written"] == 1
    assert Path(told["page"]).exists() and (tmp_path / "models" / "0000" / "answers.json").exists()
    assert len(pd.read_csv(tmp_path / "judged" / "judged.csv")) == 5


@pytest.mark.slow
def test_a_method_that_fails_everywhere_is_a_mistake_and_its_tables_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("def shared(puzzle):\n    return puzzle.no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ("--seeds", "0", "--condition", "all shared", "--tier", "easy", "--jobs", "1")
    done = call("judge", "broken:shared", *chosen, "--out", "judged")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "failed on every model" in done.stderr and "no_such_thing" in done.stderr
    assert (tmp_path / "judged" / "judged.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "MODULE:FUNCTION"),
        (("no_such_module_at_all:f",), "cannot be imported"),
        (("json:dumps", "--seeds", "x"), "FIRST-LAST"),
        (("json:dumps", "--ask", "neurons"), "sharing"),
        (("json:dumps", "--condition", "all share"), "all shared"),
    ],
)
def test_what_cannot_be_judged_is_said(words: tuple[str, ...], said: str) -> None:
    done = call("judge", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr

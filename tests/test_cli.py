"""What a person types: help at once, errors in a line or two, exit statuses, and going on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interp.result import Result

COMMAND = [sys.executable, "-m", "interp.cli"]


def call(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
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
    for command in ("run", "grid", "audit", "page", "clean"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "no-such.toml"], "no-such.toml"),
        (["run", "--checkpoint", "x.pt"], "--images"),
        (["run", "--checkpoint", "x.pt", "--images", "no-such-folder"], "no-such-folder"),
        (["page", "--out", "no-such-folder"], "Run the study first"),
        (["run", "--device", "gpu", "--dry-run"], "Cannot compute on gpu"),
        (["grid", "x.toml", "--tabulate", "--commands"], "one of --commands"),
        (["grid", "x.toml", "--tabulate", "--processes", "2"], "--processes"),
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
    assert call("run", "--colour").returncode == 2


def test_an_unwritable_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("run", "--out", str(tmp_path / "file" / "out"), INTERP_CACHE=str(tmp_path / "c"))
    assert done.returncode == 2 and "--out" in done.stderr
    assert not (tmp_path / "c").exists()


def test_a_dry_run_says_the_cost_and_does_nothing(tmp_path: Path) -> None:
    done = call("run", "--dry-run", "--out", str(tmp_path / "out"))
    assert done.returncode == 0 and "4 runs" in done.stderr and "minutes" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_rendering_is_130_and_the_next_run_goes_on(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text("[images]\nn_classes = 20\nn_train = 60\n")
    environment = {**os.environ, "INTERP_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        [*COMMAND, "run", str(study), "--out", str(tmp_path / "out")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while (
            time.monotonic() < deadline
            and len(list((tmp_path / "cache").glob("*/*/*/cell.csv"))) < 3
        ):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on" in errors and "Traceback" not in errors
    cells = list((tmp_path / "cache").glob("*/*/*/cell.csv"))
    assert len(cells) >= 3
    for cell in cells:
        assert len(list(cell.parent.glob("*.png"))) == 60 + 16 + 12


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
    ) as process:
        deadline = time.monotonic() + 120
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


def test_clean_shows_and_empties_the_cache(tmp_path: Path) -> None:
    (tmp_path / "artwork-1").mkdir()
    (tmp_path / "artwork-1" / "x").write_bytes(bytes(2**20))
    shown = call("clean", INTERP_CACHE=str(tmp_path))
    assert "1.0 MiB" in shown.stdout and (tmp_path / "artwork-1").exists()
    call("clean", "--yes", INTERP_CACHE=str(tmp_path))
    assert not (tmp_path / "artwork-1").exists()

"""The launcher in this process: what it learns, what it writes down, and how it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from interp.core.errors import NumericsError, SpecificationError
from interp.models import Run, load_clip
from interp.models.loading.checkpoints import run_options
from interp.models.training import launcher
from interp.models.training.journal import read_journal
from interp.models.training.resume import alone
from tests.refusals import refuses

Launch = Callable[[Run], None]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def losses(run: Run) -> list[float]:
    return read_journal(run.folder).frame["loss"].tolist()


def same(a: Run, b: Run) -> bool:
    ours, theirs = weights(a.final), weights(b.final)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_learns_and_keeps_what_was_asked_for(toy: Any, launch: Launch, tmp_path: Path) -> None:
    run = toy.run(tmp_path, epochs=16, keep=3, lr=5e-3)
    launch(run)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "epoch_0.pt", "epoch_16.pt", "epoch_8.pt",
    ]  # fmt: skip
    frame = read_journal(run.folder).frame
    assert frame["step"].tolist() == list(range(32))
    assert frame["epoch"].tolist() == [1 + step // 2 for step in range(32)]
    assert frame["loss"].iloc[-4:].mean() < 0.8 * frame["loss"].iloc[:4].mean()
    assert (frame[["waiting", "seconds", "pictures_per_second"]] > 0).all(axis=None)
    assert set(torch.load(run.final, weights_only=True)) == {"epoch", "name", "state_dict"}


def test_attention_of_a_cpu_is_plain_while_it_trains_and_as_it_was_after(
    toy: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash, train = [], launcher.train

    def watched(*args: Any) -> None:
        flash.append(torch.backends.cuda.flash_sdp_enabled())
        train(*args)

    before = torch.backends.cuda.flash_sdp_enabled()
    monkeypatch.setattr(launcher, "train", watched)
    launch(toy.run(tmp_path, epochs=1))
    assert flash == [False] and torch.backends.cuda.flash_sdp_enabled() == before


def test_the_first_loss_is_the_one_computed_by_hand(toy, launch, tmp_path) -> None:
    """Whole data in one batch, so that its order does not matter."""
    run = toy.run(tmp_path, epochs=1, batch_size=48)
    launch(run)
    clip = load_clip(run.checkpoints / "epoch_0.pt", dtype=torch.float64)
    rows = pd.read_csv(toy.tsv, sep="\t", keep_default_na=False)
    pictures = torch.stack([clip.preprocess(Image.open(path)) for path in rows["filepath"]])
    images = F.normalize(clip.model.encode_image(pictures.double()), dim=-1).detach().numpy()
    texts = F.normalize(clip.encode_text(rows["title"].tolist()), dim=-1).detach().numpy()
    logits = clip.logit_scale * images @ texts.T
    total = 0.0
    for row in range(48):
        for line in (logits[row], logits[:, row]):
            total -= line[row] - np.log(np.exp(line).sum())
    assert losses(run)[0] == pytest.approx(total / 96, abs=1e-12)


def test_the_rate_is_open_clips_cosine_over_all_epochs(toy, launch, tmp_path) -> None:
    run = toy.run(tmp_path, epochs=3, lr=0.01)
    launch(run)
    expected = [0.005, 0.01] + [0.01 * 0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    assert read_journal(run.folder).frame["lr"].tolist() == pytest.approx(expected)


def test_accumulated_parts_come_to_the_whole_batch(toy, launch, tmp_path) -> None:
    """To 1e-8: open_clip adds the scale's gradient once a part, and only Adam's eps sees that."""
    whole, parts = (toy.run(tmp_path / str(n), epochs=2, accumulate=n) for n in (1, 3))
    launch(whole)
    launch(parts)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-8)
    other = toy.run(tmp_path / "other", epochs=2, seed=1)
    launch(other)
    assert losses(other) != pytest.approx(losses(whole), abs=1e-4)


class Killed(BaseException):
    """What stands for a kill in this process."""


def killing(at: int) -> Callable[..., Any]:
    """A loss that lives for so many steps."""
    steps: list[int] = []

    def build(args: Any) -> Any:
        loss = open_clip.create_loss(args)

        def judge(**outputs: Any) -> Any:
            if len(steps) == at:
                raise Killed
            steps.append(0)
            return loss(**outputs)

        return judge

    return build


@pytest.mark.parametrize("augment", [True, False])
def test_a_broken_run_ends_where_an_unbroken_one_does(
    toy: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: bool
) -> None:
    whole, broken = (toy.run(tmp_path / name, augment=augment) for name in ("whole", "broken"))
    launch(whole)
    for at in (1, 2, 3):  # 2 steps an epoch: within an epoch, at its end, within the next
        monkeypatch.setattr(launcher, "build_loss", killing(at))
        refuses(Killed, "", launch, broken)
        (broken.checkpoints / "writing.tmp").write_bytes(b"half a checkpoint")
    monkeypatch.undo()
    launch(broken)
    assert same(broken, whole) and losses(broken) == losses(whole)
    assert "Resuming from epoch 2" in (broken.folder / "out.log").read_text()
    assert not (broken.checkpoints / "latest.pt").exists()


def test_another_specification_is_refused_by_name(toy, launch, tmp_path, monkeypatch) -> None:
    run = toy.run(tmp_path)
    monkeypatch.setattr(launcher, "build_loss", killing(3))
    refuses(Killed, "", launch, run)
    before = (run.folder / "params.txt").read_text()
    with pytest.raises(SpecificationError, match=r"lr 0\.001, now 0\.002"):
        launch(replace(run, recipe=replace(run.recipe, lr=0.002)))
    assert (run.folder / "params.txt").read_text() == before
    monkeypatch.undo()
    launch(replace(run, recipe=replace(run.recipe, workers=1, keep=5)))  # these decide nothing
    assert run.final.exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_epoch(
    toy: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(args: Any) -> Any:
        loss, steps = open_clip.create_loss(args), []

        def judge(**outputs: Any) -> Any:
            steps.append(0)
            good = float("nan") if len(steps) == 6 else 1.0
            return {name: good * value for name, value in loss(**outputs).items()}

        return judge

    run = toy.run(tmp_path)
    monkeypatch.setattr(launcher, "build_loss", build)
    refuses(NumericsError, "the last good epoch is kept", launch, run)
    state = torch.load(run.checkpoints / "latest.pt", weights_only=True)
    assert state["epoch"] == 2
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_without_augmentation_pictures_are_those_of_evaluation(toy: Any, tmp_path: Path) -> None:
    words = toy.run(tmp_path).command(device="cpu")
    args = launcher.prepare(words[words.index("--") + 1 :])
    args.rank = args.local_rank = 0
    model, transform = launcher.build(args, torch.device("cpu"))
    picture = Image.open(pd.read_csv(toy.tsv, sep="\t")["filepath"][0])
    _, _, evaluation = open_clip.create_model_and_transforms(f"local-dir:{toy.model}")
    assert torch.equal(transform(picture), evaluation(picture).double())
    assert {value.dtype for value in model.parameters()} == {torch.float64}


def test_tensorboard_reads_what_open_clip_writes(toy: Any, launch: Launch, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = toy.run(tmp_path, epochs=1)
    words = run.command(device="cpu", track=True)
    launcher.main(words[words.index("--") + 1 :])
    read = events.EventAccumulator(str(run.folder / "tensorboard")).Reload()
    written = [event.value for event in read.Scalars("train/loss")]
    assert written == pytest.approx([losses(run)[0], losses(run)[1]])


def test_options_are_kept_in_open_clips_form(toy: Any, launch: Launch, tmp_path: Path) -> None:
    run = toy.run(tmp_path, epochs=1)
    launch(run)
    options = run_options(run.final)
    assert options["model"] == f"local-dir:{toy.model}" and options["keep"] == [0, 1]
    assert {name: options[name] for name in run.decisive()} == run.decisive()


@pytest.mark.slow
def test_two_processes_train_as_one(toy: Any, launch: Launch, tmp_path: Path) -> None:
    """Same global batches, float64: losses to 1e-6. open_clip's own main cannot do DDP on a CPU."""
    one, two = (toy.run(tmp_path / name, epochs=3) for name in ("one", "two"))
    launch(one)
    torchrun(two.command(device="cpu", processes=2))
    assert losses(two) == pytest.approx(losses(one), abs=1e-9) and len(losses(two)) == 6
    ours, theirs = weights(two.final), weights(one.final)
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-8, rtol=0), name

    apart = toy.run(tmp_path / "apart", epochs=3)
    command = apart.command(device="cpu", processes=2)
    torchrun([word for word in command if word not in ("--local-loss", "--gather-with-grad")])
    assert losses(apart)[0] == pytest.approx(losses(one)[0], abs=1e-9)
    assert losses(apart)[5] != pytest.approx(losses(one)[5], abs=1e-6)  # gradients were not shared


def torchrun(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_train_a_resnet_on_labels(toy: Any, tmp_path: Path) -> None:
    run = toy.run(tmp_path, epochs=2, objective="supervised", optimizer="sgd", augment=True)
    torchrun(run.command(device="cpu", processes=2))
    assert not any(name.startswith("module.") for name in weights(run.final))


ORPHAN = """
import subprocess, sys
worker = "import signal; from interp.models.training.launcher import end_with_parent as end; end(); print(flush=True); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""  # noqa: E501


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with alone(tmp_path):
            order.append("second")

    waiting = Thread(target=second)
    with alone(tmp_path):
        waiting.start()
        waiting.join(timeout=0.2)
        assert waiting.is_alive() and not order
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_folders_do_not_wait_for_one_another(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with alone(tmp_path), alone(tmp_path / "other"):
        assert (tmp_path / "lock").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel, in Linux's words")
def test_a_worker_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = _runs(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"

"""Training: resumable, repeatable, atomic, with the untrained model kept."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from interp.core.errors import InterpError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.data.mixtures import MixtureSpec, make_mixture
from interp.data.prompts import vocabulary
from interp.models.launcher import build_optimizer, prepare, save
from interp.models.presets import PRESETS, write_model_folder
from interp.models.training import Recipe, Run, train
from interp.study import longest_caption


@pytest.fixture(scope="module")
def model_folder(small_images: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = vocabulary(small_images.labels, small_images.domains)
    folder = tmp_path_factory.mktemp("model") / "resnet-small"
    return write_model_folder(folder, "resnet-small", words=words, longest=10)


@pytest.fixture(scope="module")
def tsv(small_images: ImageTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MixtureSpec("natural-only", "sketch", tuple(small_images.labels[:2]))
    return make_mixture(small_images, spec).write(tmp_path_factory.mktemp("mixture") / "m")


def run_of(name: str, model_folder: Path, tsv: Path, out: Path, steps: int = 12) -> Run:
    recipe = Recipe(steps=steps, batch_size=64, warmup=2, precision="fp32")
    return Run(name, model_folder, tsv, 192, out, recipe)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_keeps_epoch_0_and_the_last_and_learns(
    model_folder: Path, tsv: Path, tmp_path: Path
) -> None:
    run = run_of("whole", model_folder, tsv, tmp_path)
    train([run], jobs=1, device="cpu")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["epoch_0.pt", "epoch_4.pt"]
    first, last = weights(run.checkpoints / "epoch_0.pt"), weights(run.final)
    assert all(torch.isfinite(value).all() for value in last.values())
    assert not torch.equal(first["visual.conv1.weight"], last["visual.conv1.weight"])
    assert (run.out / run.name / "params.txt").read_text().count("model: local-dir:") == 1


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_does(
    model_folder: Path, tsv: Path, tmp_path: Path
) -> None:
    whole = run_of("whole", model_folder, tsv, tmp_path / "a")
    train([whole], jobs=1, device="cpu")
    part = run_of("whole", model_folder, tsv, tmp_path / "b")
    command = part.command(device="cpu")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and not (part.checkpoints / "epoch_2.pt").exists():
            time.sleep(0.05)
        process.kill()
    (part.checkpoints / "writing.tmp").write_bytes(b"half a checkpoint")
    assert not part.final.exists()
    train([part], jobs=1, device="cpu")
    assert "Resuming from epoch" in (part.out / part.name / "out.log").read_text()
    mended, unbroken = weights(part.final), weights(whole.final)
    assert all(torch.equal(mended[key], unbroken[key]) for key in unbroken)


def test_a_finished_run_is_left_alone(model_folder: Path, tsv: Path, tmp_path: Path) -> None:
    run = run_of("done", model_folder, tsv, tmp_path)
    run.checkpoints.mkdir(parents=True)
    run.final.write_bytes(b"finished")
    train([run], jobs=1)
    assert run.final.read_bytes() == b"finished"


def test_a_failing_trainer_shows_the_end_of_its_log(tsv: Path, tmp_path: Path) -> None:
    run = run_of("broken", tmp_path / "no such model", tsv, tmp_path)
    with pytest.raises(InterpError, match="no such model"):
        train([run], jobs=1, device="cpu")


@pytest.mark.slow
def test_two_ranks_train_on_the_cpu(model_folder: Path, tsv: Path, tmp_path: Path) -> None:
    """open_clip's own main crashes here: DDP is told a device id on the CPU."""
    run = run_of("two", model_folder, tsv, tmp_path, steps=3)
    done = subprocess.run(
        run.command(device="cpu", processes=2), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert run.final.exists()
    assert not any(key.startswith("module.") for key in weights(run.final))


def test_checkpoints_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    args = prepare(["--lr", "0.1", "--train-data", "x.tsv", "--model", "RN50", "--name", "n"])
    args.rank, args.local_rank = 0, 0
    optimizer = build_optimizer(model, args)
    save(tmp_path, 1, model, optimizer, None, args)

    def cut(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, model, optimizer, None, args)
    assert (tmp_path / "epoch_1.pt").exists() and not (tmp_path / "epoch_2.pt").exists()


def test_gains_and_biases_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    args = prepare(["--wd", "0.3", "--train-data", "x.tsv", "--model", "RN50"])
    plain, decayed = build_optimizer(model, args).param_groups
    assert [p.ndim for p in decayed["params"]] == [2] and decayed["weight_decay"] == 0.3
    assert len(plain["params"]) == 3 and plain["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"precision": "fp8"}, "amp_bf16"),
        ({"steps": 0}, "at least one"),
        ({"batch_size": 1}, "two"),
    ],
)
def test_bad_recipes_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        Recipe(**values)  # type: ignore[arg-type]


def test_steps_become_whole_epochs() -> None:
    assert Recipe(steps=100, batch_size=10).epochs(205) == 5
    with pytest.raises(SampleError, match="smaller batch_size"):
        Recipe(batch_size=64).epochs(63)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_opens_in_open_clip(
    preset: str, small_images: ImageTable, tmp_path: Path
) -> None:
    import open_clip

    longest = longest_caption(small_images)
    words = vocabulary(small_images.labels, small_images.domains)
    folder = write_model_folder(tmp_path / preset, preset, words=words, longest=longest)
    model = open_clip.create_model(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    tokens = tokenizer(["a light bulb is visible in an informational chart.", "xyzzy"])
    end = len(tokenizer.tokenizer) - 1
    assert (tokens == end).sum(dim=1).tolist() == [1, 1] and int(tokens.max()) == end
    assert tokens[1].tolist()[:3] == [end - 1, 1, end]
    assert model.encode_text(tokens).shape == (2, 128)


def test_the_command_is_torchruns() -> None:
    command = Run("n", Path("m"), Path("t.tsv"), 99, Path("o"), Recipe(batch_size=9)).command(
        device="cpu", processes=3
    )
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[command.index("--batch-size") + 1] == "3"

"""Opening a CLIP: every source, and every way in which a file can be wrong."""

import pickle
from pathlib import Path

import pytest
import torch

from interp import load_clip
from interp.core.errors import CheckpointError, NumericsError, SpecificationError
from interp.core.images import ImageTable
from interp.data.prompts import fill, prompts


def test_a_trainers_checkpoint_opens_by_its_path_alone(trained_checkpoint: Path) -> None:
    clip = load_clip(trained_checkpoint)
    saved = torch.load(trained_checkpoint, weights_only=True)["state_dict"]
    own = clip.model.state_dict()
    assert all(torch.equal(own[key], saved[key]) for key in saved)
    assert clip.encode_text(["a cat"]).shape == (1, 128)
    assert not clip.model.training


def test_towers_are_the_models_own(trained_checkpoint: Path, small_images: ImageTable) -> None:
    clip = load_clip(trained_checkpoint)
    batch = small_images[:4].tensors(clip.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(clip.visual(batch), clip.model.encode_image(batch))
        tokens = clip.tokenizer(["a cat", "an image of a dog"])
        torch.testing.assert_close(clip.text(tokens), clip.model.encode_text(tokens))
        torch.testing.assert_close(clip.embed(small_images[:4]), clip.visual(batch))


def test_a_head_is_the_renormalised_mean_of_normalised_prompts(trained_checkpoint: Path) -> None:
    clip = load_clip(trained_checkpoint)
    head = clip.zero_shot(["bell", "car"], ["an image of a {}", "a CLASS picture"])
    rows = []
    for name in ("bell", "car"):
        each = clip.encode_text([f"an image of a {name}", f"a {name} picture"]).detach()
        mean = (each / each.norm(dim=-1, keepdim=True)).mean(dim=0)
        rows.append(mean / mean.norm())
    torch.testing.assert_close(head.weight, torch.stack(rows))
    picture = torch.randn(3, 128)
    expected = picture / picture.norm(dim=-1, keepdim=True) @ torch.stack(rows).T
    torch.testing.assert_close(head(picture), expected * clip.logit_scale)


def test_our_prompts_and_open_clips_templates_both_serve(trained_checkpoint: Path) -> None:
    clip = load_clip(trained_checkpoint)
    by_text = clip.zero_shot(["bell"], ["an image of a {}"]).weight
    assert prompts("neutral")[0] == "a image of a CLASS"
    by_call = clip.zero_shot(["bell"], [lambda label: fill("a image of a CLASS", label)]).weight
    torch.testing.assert_close(by_text, by_call)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_and_prefixes(trained_checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    content = torch.load(trained_checkpoint, weights_only=True)
    wrapped = {f"module.{key}": value for key, value in content["state_dict"].items()}
    torch.save({"state_dict": wrapped}, tmp_path / "ddp.pt")
    architecture = load_clip(trained_checkpoint).architecture
    clip = load_clip(tmp_path / "ddp.pt", model=architecture, dtype=dtype)
    assert clip.dtype == dtype


def test_safetensors_open(trained_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = torch.load(trained_checkpoint, weights_only=True)["state_dict"]
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    architecture = load_clip(trained_checkpoint).architecture
    assert load_clip(tmp_path / "w.safetensors", model=architecture).logit_scale > 1


class Foreign:
    """What a malicious pickle would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a checkpoint ran')",)


def test_foreign_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    path.write_bytes(pickle.dumps({"state_dict": Foreign()}))
    with pytest.raises(CheckpointError):
        load_clip(path, model="RN50")


def test_a_missing_file_and_a_missing_architecture_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_clip(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_clip(tmp_path / "none.pt", model="RN50")
    torch.save({}, tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="model="):
        load_clip(tmp_path / "bare.pt")


def test_a_truncated_file_is_refused(trained_checkpoint: Path, tmp_path: Path) -> None:
    whole = trained_checkpoint.read_bytes()
    for share in (0.0, 0.3, 0.9):
        (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            load_clip(tmp_path / "cut.pt", model="RN50")


def test_another_architecture_is_refused_with_its_keys(trained_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"into RN50.*without.*shaped"):
        load_clip(trained_checkpoint, model="RN50")


def test_nan_weights_are_refused(trained_checkpoint: Path, tmp_path: Path) -> None:
    weights = torch.load(trained_checkpoint, weights_only=True)["state_dict"]
    weights["visual.conv1.weight"][0] = float("nan")
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(NumericsError, match=r"visual\.conv1\.weight"):
        load_clip(tmp_path / "nan.pt", model=load_clip(trained_checkpoint).architecture)


def test_unknown_names_suggest_known_ones() -> None:
    with pytest.raises(CheckpointError, match="ViT-B-32"):
        load_clip("ViT-B-23")
    with pytest.raises(CheckpointError, match="local-dir"):
        load_clip("local-dir:/no/such/folder")


def test_a_certificate_is_a_table_and_passes(trained_checkpoint: Path) -> None:
    table = load_clip(trained_checkpoint).certify()
    assert set(table.frame["tower"]) == {"visual", "text"}
    assert table.frame["ok"].all()
    with pytest.raises(SpecificationError):
        type(table)("x", table.frame.assign(undeclared=1))

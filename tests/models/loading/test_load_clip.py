"""Opening a CLIP: every source, and every way in which a file can be wrong."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP

from interp import load_clip
from interp.core import progress
from interp.core.errors import CheckpointError, NumericsError, SpecificationError
from interp.core.images import ImageTable
from interp.models.clip import Clip
from tests.refusals import refuses


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
    head = clip.zero_shot(["book", "fire"], ["an image of a {}", "a CLASS picture"])
    rows = []
    for name in ("book", "fire"):
        each = clip.encode_text([f"an image of a {name}", f"a {name} picture"]).detach()
        mean = (each / each.norm(dim=-1, keepdim=True)).mean(dim=0)
        rows.append(mean / mean.norm())
    torch.testing.assert_close(head.weight, torch.stack(rows))
    picture = torch.randn(3, 128)
    expected = picture / picture.norm(dim=-1, keepdim=True) @ torch.stack(rows).T
    torch.testing.assert_close(head(picture), expected * clip.logit_scale)


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
    refuses(CheckpointError, "", load_clip, path, model="RN50")


def test_a_missing_file_and_a_missing_architecture_say_what_to_do(tmp_path: Path) -> None:
    refuses(CheckpointError, "does not exist", load_clip, tmp_path / "none.pt")
    refuses(CheckpointError, "does not exist", load_clip, tmp_path / "none.pt", model="RN50")
    torch.save({}, tmp_path / "bare.pt")
    refuses(CheckpointError, "model=", load_clip, tmp_path / "bare.pt")


def test_a_truncated_file_is_refused(trained_checkpoint: Path, tmp_path: Path) -> None:
    whole = trained_checkpoint.read_bytes()
    for share in (0.0, 0.3, 0.9):
        (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
        refuses(CheckpointError, r"cut\.pt", load_clip, tmp_path / "cut.pt", model="RN50")


def test_another_architecture_is_refused_with_its_keys(trained_checkpoint: Path) -> None:
    words = r"into RN50.*without.*shaped"
    refuses(CheckpointError, words, load_clip, trained_checkpoint, model="RN50")


def test_nan_weights_are_refused(trained_checkpoint: Path, tmp_path: Path) -> None:
    weights = torch.load(trained_checkpoint, weights_only=True)["state_dict"]
    weights["visual.conv1.weight"][0] = float("nan")
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(NumericsError, match=r"visual\.conv1\.weight"):
        load_clip(tmp_path / "nan.pt", model=load_clip(trained_checkpoint).architecture)


def test_unknown_names_suggest_known_ones() -> None:
    refuses(CheckpointError, "ViT-B-32", load_clip, "ViT-B-23")
    refuses(CheckpointError, "local-dir", load_clip, "local-dir:/no/such/folder")


def test_a_certificate_is_a_table_and_passes(trained_checkpoint: Path) -> None:
    table = load_clip(trained_checkpoint).certify()
    assert set(table.frame["tower"]) == {"visual", "text"}
    assert table.frame["ok"].all()
    refuses(SpecificationError, "", type(table), "x", table.frame.assign(undeclared=1))


TINY: Any = {
    "embed_dim": 16,
    "vision_cfg": {
        "layers": 1, "width": 64, "patch_size": 8, "image_size": 16, "head_width": 64,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}  # fmt: skip


@pytest.fixture
def configured(tmp_path: Path) -> str:
    """A tiny architecture by name of its folder."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    content = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return f"local-dir:{folder}"


def trained(run: Path, model: CLIP, /, **options: object) -> Path:
    """A checkpoint as open_clip's trainer leaves it."""
    (run / "checkpoints").mkdir(parents=True)
    lines = [f"{name}: {value}\n" for name, value in options.items()]
    (run / "params.txt").write_text("".join(lines))
    torch.save({"state_dict": model.state_dict()}, run / "checkpoints" / "epoch_1.pt")
    return run / "checkpoints" / "epoch_1.pt"


def same_embeddings(clip: Clip, model: CLIP) -> None:
    size: Any = clip.visual.source.image_size
    pictures, tokens = torch.randn(2, 3, *size), torch.randint(1, 9, (2, 12))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(clip.visual(pictures), model.encode_image(pictures))
        torch.testing.assert_close(clip.text(tokens), model.encode_text(tokens))


def test_the_overrides_of_a_run_are_honoured(configured: str, tmp_path: Path) -> None:
    larger = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 24}}
    model = CLIP(**larger, quick_gelu=True)
    path = trained(
        tmp_path / "run", model, model=configured, force_quick_gelu=True, force_image_size=[24],
        image_mean=[0.5, 0.5, 0.5], image_std=None,
    )  # fmt: skip
    clip = load_clip(path)
    same_embeddings(clip, model)
    assert clip.visual.cfg.act_fn == "quick_gelu"
    assert clip.visual.source.preprocess_cfg["mean"] == [0.5, 0.5, 0.5]


def test_a_bias_of_the_loss_is_loaded(configured: str, tmp_path: Path) -> None:
    model = CLIP(**TINY, init_logit_bias=-10)
    clip = load_clip(trained(tmp_path / "run", model, model=configured))
    assert clip.model.state_dict()["logit_bias"] == -10


def test_a_contradiction_about_gelu_is_refused(tmp_path: Path) -> None:
    path = trained(tmp_path / "run", CLIP(**TINY), model="RN50-quickgelu")
    with pytest.raises(CheckpointError, match="GELU for weights of RN50-quickgelu, trained with Q"):
        load_clip(path, model="RN50")
    with pytest.raises(CheckpointError, match=r"[Pp]ass model=.*RN50-quickgelu"):
        load_clip(tmp_path / "run" / "checkpoints" / "epoch_1.pt", model="ViT-B-32")


def test_a_tag_that_was_trained_with_another_gelu_is_refused() -> None:
    with pytest.raises(CheckpointError, match="Open ViT-B-32-quickgelu instead"):
        load_clip("ViT-B-32", pretrained="openai")
    refuses(CheckpointError, r"Try .*openai", load_clip, "RN50-quickgelu", pretrained="open_ai")


def test_weights_as_a_file_beside_a_name(configured: str, tmp_path: Path) -> None:
    model = CLIP(**TINY)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    same_embeddings(load_clip(configured, pretrained=tmp_path / "bare.pth"), model)
    more = tmp_path / "more.pth"
    torch.save(model.state_dict() | {"visual.more": torch.ones(2)}, more)
    refuses(CheckpointError, r"with visual\.more", load_clip, configured, pretrained=more)


def test_weights_of_the_other_kind_of_model(configured: str, tmp_path: Path) -> None:
    model = CLIP(**TINY)
    path = trained(tmp_path / "run", model, model=configured, force_custom_text=True)
    clip = load_clip(path)
    assert type(clip.model).__name__ == "CustomTextCLIP"
    same_embeddings(clip, model)


def test_a_folder_without_weights_says_that_they_are_random(
    configured: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_quiet", False)
    load_clip(configured)
    assert "weights are random" in capsys.readouterr().err
    model = CLIP(**TINY)
    folder = Path(configured.removeprefix("local-dir:"))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    clip = load_clip(folder)  # a bare path serves as well
    assert "random" not in capsys.readouterr().err
    same_embeddings(clip, model)


def archived(state: dict[str, torch.Tensor]) -> Any:
    """A TorchScript archive with these weights, as OpenAI's are."""
    root = torch.nn.Module()
    for name, value in state.items():
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner.get_submodule(part)
        owner.register_buffer(leaf, value)
    return torch.jit.script(root)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_openai_archives_open_without_a_name(tmp_path: Path) -> None:
    model = CLIP(**TINY, quick_gelu=True)
    sizes = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(16))
    archive = archived({**model.state_dict(), **sizes})
    archive.save(str(tmp_path / "ViT-T-8.pt"))
    clip = load_clip(tmp_path / "ViT-T-8.pt")
    assert clip.visual.cfg.act_fn == "quick_gelu" and clip.dtype == torch.float32
    pictures = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(
        clip.visual(pictures), model.encode_image(pictures), atol=2e-3, rtol=0
    )
    assert clip.tokenizer(["a cat"]).shape == (1, 12)
    archived({"weight": torch.zeros(2)}).save(str(tmp_path / "other.pt"))
    refuses(CheckpointError, "not OpenAI's", load_clip, tmp_path / "other.pt")


@pytest.mark.parametrize(("act", "end"), [("quick_gelu", 2), ("gelu", 7)])
def test_hugging_face_folders(tmp_path: Path, act: str, end: int) -> None:
    from transformers.models.clip import CLIPConfig, CLIPModel

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "hidden_act": act}
    torch.manual_seed(0)
    theirs: Any = CLIPModel(
        CLIPConfig(
            text_config={**shape, "vocab_size": 50, "max_position_embeddings": 12,
                         "eos_token_id": end, "layer_norm_eps": 1e-3},
            vision_config={**shape, "image_size": 16, "patch_size": 8},
            projection_dim=24,
        )
    ).eval()  # fmt: skip
    for value in theirs.parameters():
        torch.nn.init.normal_(value, std=0.2)
    theirs.save_pretrained(tmp_path / "hf")
    clip = load_clip(tmp_path / "hf")
    pictures, tokens = torch.randn(2, 3, 16, 16), torch.randint(8, 50, (3, 12))
    tokens[:, 5], tokens[0, 9] = end if end != 2 else 49, 49
    with torch.no_grad():
        picture = theirs.get_image_features(pixel_values=pictures).pooler_output
        text = theirs.get_text_features(input_ids=tokens).pooler_output
        torch.testing.assert_close(clip.visual(pictures), picture, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(clip.text(tokens), text, atol=1e-5, rtol=1e-5)
    assert clip.logit_scale == pytest.approx(float(theirs.logit_scale.detach().exp()))
    assert clip.certify().frame.ok.all()


def test_folders_that_hold_no_clip(tmp_path: Path) -> None:
    refuses(CheckpointError, "a folder without open_clip_config", load_clip, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    refuses(CheckpointError, "transformers refuses", load_clip, tmp_path)

"""Files of ViT-Prisma and overcomplete, written by hand, against their formulas in numpy."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.errors import CheckpointError, SpecificationError
from interp.probes import Dictionary, feature_sharing, gallery, read_dictionary, write_saelens
from tests.probes.sparse_world import SITE, sparse_world
from tests.refusals import refuses

D_IN, D_SAE, K = 5, 10, 3

PRISMA: dict[str, Any] = {
    "model_name": "open-clip:some/model", "hook_point_layer": 0, "layer_subtype": "hook_resid_post",
    "hook_point_head_index": None, "architecture": "standard", "d_in": D_IN, "expansion_factor": 2,
    "is_transcoder": False, "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "normalize_activations": "layer_norm", "cls_token_only": True, "_dtype": "float64",
}  # fmt: skip


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(30, D_IN))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def prisma_weights(architecture: str = "standard") -> dict[str, Tensor]:
    rows = drawn(D_SAE, D_IN)
    weights = {"W_enc": drawn(D_IN, D_SAE, seed=1), "W_dec": rows / rows.norm(dim=1)[:, None],
               "b_enc": drawn(D_SAE, seed=2), "b_dec": drawn(D_IN, seed=3)}  # fmt: skip
    if architecture == "gated":
        weights |= {n: drawn(D_SAE, seed=4 + i) for i, n in enumerate(("b_gate", "r_mag", "b_mag"))}
    return weights


def prisma_formula(x: np.ndarray, said: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """ViT-Prisma's features and outputs, row by row."""
    w = {name: value.numpy() for name, value in prisma_weights(said["architecture"]).items()}
    codes, outputs = [], []
    for row in x:
        mean, spread, least = 0.0, 1.0, 0.0
        if said["normalize_activations"] == "layer_norm":
            mean, spread, least = row.mean(), row.std(ddof=1), 1e-5
        pre = ((row - mean) / (spread + least) - w["b_dec"]) @ w["W_enc"]
        if said["architecture"] == "gated":
            f = np.maximum(pre * np.exp(w["r_mag"]) + w["b_mag"], 0) * (pre + w["b_gate"] > 0)
        else:
            f = np.maximum(pre + w["b_enc"], 0)
        if said["activation_fn_str"] == "topk":
            f[np.argsort(f)[: D_SAE - said["activation_fn_kwargs"]["k"]]] = 0
        codes.append(f)
        outputs.append((f @ w["W_dec"] + w["b_dec"]) * spread + mean)
    return np.array(codes), np.array(outputs)


def prisma_folder(folder: Path, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    said = PRISMA | changed
    torch.save(prisma_weights(said["architecture"]), folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(said))
    return folder


PRISMA_FORMS: dict[str, dict[str, Any]] = {
    "relu of standardised rows": {},
    "relu": {"normalize_activations": "none"},
    "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}},
    "gated": {"architecture": "gated"},
    "layers in a list": {"hook_point_layer": [0]},
}


@pytest.mark.parametrize("form", PRISMA_FORMS)
def test_what_is_read_of_vit_prisma_is_its_formula(form: str, x: np.ndarray, tmp_path) -> None:
    folder = prisma_folder(tmp_path / "sae", **PRISMA_FORMS[form])
    codes, outputs = prisma_formula(x, PRISMA | PRISMA_FORMS[form])
    assert 0 < (codes > 0).sum() < codes.size
    for place in (folder, folder / "weights.pt", folder / "config.json"):
        one = read_dictionary(place)
        np.testing.assert_allclose(one(x), codes, atol=1e-12)
        np.testing.assert_allclose(one.reconstruct(torch.as_tensor(x)), outputs, atol=1e-12)
    assert one.facts["site"] == "blocks.0.hook_resid_post" and one.facts["cls_token_only"]


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules named as those libraries'."""
    names = ("vit_prisma", "vit_prisma.sae", "vit_prisma.sae.config", "overcomplete",
             "overcomplete.sae", "overcomplete.sae.topk_sae", "overcomplete.sae.dictionary",
             "overcomplete.sae.modules", "elsewhere")  # fmt: skip
    made = {name: ModuleType(name) for name in names}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def belongs(libraries: dict[str, ModuleType], name: str, thing: Any) -> Any:
    """Put a class or function into a library, so that it is pickled as the library's."""
    thing.__module__ = name
    thing.__qualname__ = thing.__name__
    setattr(libraries[name], thing.__name__, thing)
    return thing


def test_a_pickled_configuration_is_read_and_its_class_never_made(libraries, x, tmp_path) -> None:
    def made(self: Any) -> None:
        raise AssertionError("code of a file was run")

    kind = type("VisionModelSAERunnerConfig", (), {})
    held = belongs(libraries, "vit_prisma.sae.config", kind)()
    vars(held).update(PRISMA)
    torch.save({"cfg": held, "state_dict": prisma_weights()}, tmp_path / "sae.pt")
    kind.__init__ = kind.__setstate__ = made  # type: ignore[misc, attr-defined]
    one = read_dictionary(tmp_path / "sae.pt")
    np.testing.assert_allclose(one(x), prisma_formula(x, PRISMA)[0], atol=1e-12)


def overcomplete_state(*, norm: bool = False, multiplier: float = 0.3) -> dict[str, Tensor]:
    weights = {
        "encoder.final_block.0.weight": drawn(D_SAE, D_IN, seed=1),
        "encoder.final_block.0.bias": drawn(D_SAE, seed=2),
        "dictionary._weights": drawn(D_SAE, D_IN, seed=3),
        "dictionary.multiplier": torch.tensor(multiplier, dtype=torch.float64),
    }
    if norm:
        names = ("weight", "bias", "running_mean")
        weights |= {f"encoder.final_block.1.{n}": drawn(D_SAE, seed=9 + i) for i, n in
                    enumerate(names)}  # fmt: skip
        weights["encoder.final_block.1.running_var"] = drawn(D_SAE, seed=20).exp()
        weights["encoder.final_block.1.num_batches_tracked"] = torch.tensor(4)
    return weights


def overcomplete_formula(
    x: np.ndarray, state: dict[str, Tensor], kind: str, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """overcomplete's codes, at directions of norm 1, and what it makes of them."""
    w = {name.replace("encoder.final_block.", ""): value.numpy() for name, value in state.items()}
    rows = w["dictionary._weights"]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.exp(w["dictionary.multiplier"])
    pre = x @ w["0.weight"].T + w["0.bias"]
    if "1.running_var" in w:
        pre = (pre - w["1.running_mean"]) / np.sqrt(w["1.running_var"] + 1e-5)
        pre = pre * w["1.weight"] + w["1.bias"]
    codes = np.maximum(pre, 0)
    if kind == "TopKSAE":
        for row in codes:
            row[np.argsort(row)[: D_SAE - K]] = 0
    elif kind == "BatchTopKSAE":
        codes = codes * (codes >= threshold)
    elif kind == "JumpSAE":
        codes = codes * (codes > np.exp(w["thresholds"]))
    return codes * np.exp(w["dictionary.multiplier"]), codes @ rows


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE"])
def test_what_is_read_of_overcomplete_is_its_formula(kind, norm, x, tmp_path) -> None:
    state, words = overcomplete_state(norm=norm), {"TopKSAE": {"k": K}}.get(kind, {})
    threshold = 0.0
    if kind == "JumpSAE":
        state["thresholds"] = drawn(D_SAE, seed=7)
    elif kind == "BatchTopKSAE":  # one code stands at the threshold, and counts
        codes, _ = overcomplete_formula(x, state, "SAE", 0.0)
        threshold = float(np.median(codes[codes > 0]))
        words = {"threshold": threshold}
    torch.save(state, tmp_path / "model.pth")
    one = read_dictionary(tmp_path / "model.pth", kind=kind, **words)
    codes, outputs = overcomplete_formula(x, state, kind, threshold)
    assert 0 < (codes > 0).sum() < codes.size
    np.testing.assert_allclose(one(x), codes, atol=1e-7)  # their norms have 1e-8 added
    np.testing.assert_allclose(one.reconstruct(torch.as_tensor(x)), outputs, atol=1e-7)


def test_a_whole_model_says_everything_itself(libraries, x, tmp_path) -> None:
    def normalize_identity(rows: Tensor) -> Tensor:
        raise AssertionError("code of a file was run")

    belongs(libraries, "overcomplete.sae.dictionary", normalize_identity)
    make = {
        name: belongs(libraries, place, type(name, (nn.Module,), {}))
        for name, place in (
            ("TopKSAE", "overcomplete.sae.topk_sae"), ("MLPEncoder", "overcomplete.sae.modules"),
            ("DictionaryLayer", "overcomplete.sae.dictionary"),
        )
    }  # fmt: skip
    state = overcomplete_state(multiplier=0.0)
    rows = state["dictionary._weights"]
    rows /= rows.norm(dim=1, keepdim=True)
    model, model.encoder, model.dictionary = (make[name]() for name in make)
    linear = nn.Linear(D_IN, D_SAE).double()
    linear.load_state_dict({n: state[f"encoder.final_block.0.{n}"] for n in ("weight", "bias")})
    model.encoder.final_block = nn.Sequential(linear, nn.Identity())
    model.dictionary._weights = nn.Parameter(rows)
    model.dictionary.normalization = normalize_identity
    model.top_k = K
    torch.save(model, tmp_path / "model.pt")
    one = read_dictionary(tmp_path / "model.pt")
    assert one.k == K
    codes, outputs = overcomplete_formula(x, state, "TopKSAE", 0.0)
    np.testing.assert_allclose(one(x), codes, atol=1e-12)
    np.testing.assert_allclose(one.reconstruct(torch.as_tensor(x)), outputs, atol=1e-12)
    refuses(SpecificationError, "k=4", read_dictionary, tmp_path / "model.pt", k=4)


def test_a_tied_encoder_reads_with_its_dictionary(x: np.ndarray, tmp_path: Path) -> None:
    rows = overcomplete_state()["dictionary._weights"]
    rows /= rows.norm(dim=1, keepdim=True)
    state = {"encoder.bias": drawn(D_SAE), "encoder.tied_to._weights": rows,
             "dictionary._weights": rows}  # fmt: skip
    torch.save(state, tmp_path / "model.pt")
    one = read_dictionary(tmp_path / "model.pt", kind="SAE")
    right = np.maximum(x @ rows.numpy().T + state["encoder.bias"].numpy(), 0)
    np.testing.assert_allclose(one(x), right, atol=1e-7)


def test_features_and_galleries_of_a_read_dictionary(tmp_path: Path) -> None:
    world = sparse_world(1.0, n_classes=6, per_class=2, width=24, n_artists=8)
    rows = torch.as_tensor(world.directions).float()
    weights = {"W_enc": torch.linalg.pinv(rows), "W_dec": rows,
               "b_enc": torch.full((len(rows),), -0.3), "b_dec": torch.zeros(24)}  # fmt: skip
    torch.save(weights, tmp_path / "weights.pt")
    said = {"d_in": 24, "expansion_factor": len(rows) / 24, "normalize_activations": "none"}
    (tmp_path / "config.json").write_text(json.dumps(PRISMA | said))
    one = read_dictionary(tmp_path)
    x = world.features.values[SITE]
    assert ((one(x) > 0) == (world.codes > 0)).mean() > 0.99
    shared = feature_sharing(
        world.features, SITE, {"read": one, "planted": lambda x: world.codes}, n_permutations=9
    )
    values = shared.frame.groupby("code")["value"].mean()
    assert values["read"] == pytest.approx(values["planted"], abs=0.05)
    nothing = nn.Linear(24, 24, bias=False)  # the block adds nothing to the stream
    nn.init.zeros_(nothing.weight)
    tower = Chain([nothing], pool=nn.Identity(), axes=("batch", "d_embed"))
    found = gallery(tower, world.images, SITE, of=one, preprocess=world.vectors)
    assert len(found) == one.width
    feature = world.of["c02", "real"][0]
    np.testing.assert_allclose(found.values(feature), one(x)[:, feature], atol=1e-5)
    assert set(found.shown(feature, "sketch", most=2, least=0, quantiles=())["label"]) == {"c02"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a transcoder": ({"is_transcoder": True}, "reads one site and writes another"),
    "jumprelu without thresholds": ({"architecture": "jumprelu"}, "threshold of shape nothing"),
    "another activation": ({"activation_fn_str": "tanh-relu"}, "standard with tanh-relu"),
    "gated by k": ({"architecture": "gated", "activation_fn_str": "topk"}, "gated with topk"),
    "no k": ({"activation_fn_str": "topk"}, "k=None"),
    "another width": ({"expansion_factor": 3}, "W_enc of shape"),
    "an average norm": ({"normalize_activations": "expected_average_only_in"}, "layer_norm"),
}


@pytest.mark.parametrize("case", BAD)
def test_configurations_of_vit_prisma_that_are_refused(case: str, tmp_path: Path) -> None:
    changed, match = BAD[case]
    refuses(CheckpointError, match, read_dictionary, prisma_folder(tmp_path / "sae", **changed))


def test_files_that_do_not_read_are_named(tmp_path: Path) -> None:
    folder = prisma_folder(tmp_path / "sae")
    whole = (folder / "weights.pt").read_bytes()
    (folder / "weights.pt").write_bytes(whole[:-200])
    refuses(CheckpointError, "does not read", read_dictionary, folder)
    (folder / "weights.pt").unlink()
    refuses(CheckpointError, r"0 files of weights.*weights\.pt", read_dictionary, folder)
    torch.save(prisma_weights(), tmp_path / "alone.pt")
    refuses(CheckpointError, r"config\.json", read_dictionary, tmp_path / "alone.pt")
    prisma_folder(folder)
    (folder / "config.json").write_text("{")
    refuses(CheckpointError, "configuration that does not read", read_dictionary, folder)
    (folder / "config.json").write_text('{"d_in": 5}')
    refuses(CheckpointError, "without expansion_factor, activation_fn_str", read_dictionary, folder)
    torch.save(torch.zeros(3), tmp_path / "other.pt")
    refuses(CheckpointError, "unknown format", read_dictionary, tmp_path / "other.pt")
    refuses(CheckpointError, "nowhere", read_dictionary, tmp_path / "nowhere.pt")
    refuses(CheckpointError, "nowhere", read_dictionary, tmp_path / "nowhere")


def test_pickled_objects_of_other_libraries_are_refused(libraries, tmp_path) -> None:
    thing = belongs(libraries, "elsewhere", type("Thing", (), {}))
    torch.save({"W_enc": thing()}, tmp_path / "model.pt")
    refuses(CheckpointError, r"elsewhere\.Thing", read_dictionary, tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({}, "a state dict alone"),
        ({"kind": "MpSAE"}, "MpSAE, which finds its codes by a search"),
        ({"kind": "RATopKSAE"}, "a mixture of points"),
        ({"kind": "TopKSAE"}, "k=None"),
        ({"kind": "BatchTopKSAE"}, "running_threshold"),
        ({"kind": "JumpSAE"}, "without thresholds"),
    ],
)
def test_state_dicts_that_leave_something_open_are_refused(words, match, tmp_path) -> None:
    torch.save(overcomplete_state(), tmp_path / "model.pt")
    refuses(CheckpointError, match, read_dictionary, tmp_path / "model.pt", **words)


@pytest.mark.parametrize("inner", ["mlp_blocks.0.0.weight", "final_block.1.weight"])
def test_encoders_of_several_layers_are_refused(inner: str, tmp_path: Path) -> None:
    torch.save(overcomplete_state() | {f"encoder.{inner}": torch.ones(3)}, tmp_path / "model.pt")
    refuses(CheckpointError, "several layers", read_dictionary, tmp_path / "model.pt", kind="SAE")


def test_a_folder_of_saelens_reads_by_the_same_call(x: np.ndarray, tmp_path: Path) -> None:
    eye, zero = torch.eye(D_IN).double(), torch.zeros(D_IN).double()
    one = Dictionary(eye, eye, zero, zero, zero, standard_rows=True)
    folder = write_saelens(one, tmp_path / "sae")
    for place in (folder, folder / "cfg.json"):
        other = read_dictionary(place)
        assert other.standard_rows
        np.testing.assert_allclose(other(x), one(x), atol=1e-12)
    refuses(SpecificationError, "k=2", read_dictionary, folder, k=2)

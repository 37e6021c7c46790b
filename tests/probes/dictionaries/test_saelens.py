"""SAELens's files: a round trip, and every option against the formula it stands for in numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp import probes
from interp.core.errors import CheckpointError, NumericsError, OutputError
from tests.probes.sparse_world import SITE, sparse_world
from tests.refusals import refuses

D_IN, D_SAE = 5, 9


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(30, D_IN))


def made(folder: Path, *, unit: bool = False, drop: str = "", **said) -> Path:
    """Files as SAELens writes them, in float64, with random weights."""
    generator = np.random.default_rng(0)
    decoder = generator.normal(size=(D_SAE, D_IN))
    if unit:
        decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weights = {
        "W_enc": generator.normal(size=(D_IN, D_SAE)), "W_dec": decoder,
        "b_enc": generator.normal(size=D_SAE), "b_dec": generator.normal(size=D_IN),
    }  # fmt: skip
    architecture = said.get("architecture")
    if architecture == "jumprelu":
        weights["threshold"] = generator.normal(size=D_SAE)
    elif architecture == "gated":
        del weights["b_enc"]
        weights |= {n: generator.normal(size=D_SAE) for n in ("b_gate", "r_mag", "b_mag")}
    elif architecture in ("batchtopk", "matryoshka_batchtopk"):
        weights["topk_threshold"] = np.array(0.7)
    weights.pop(drop, None)
    folder.mkdir(exist_ok=True)
    save_file(
        {n: torch.as_tensor(w) for n, w in weights.items()}, folder / "sae_weights.safetensors"
    )
    configuration = {
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "float64", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none", "architecture": "standard",
        "metadata": {"sae_lens_version": "6.21.0", "hook_name": "blocks.0.hook_resid_post"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(configuration | said))
    return folder


def formula(folder: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What SAELens documents of its inference, row by row in numpy; features at rows of norm 1."""
    cfg = json.loads((folder / "cfg.json").read_text())
    w = {
        n: t.numpy().astype(float) for n, t in load_file(folder / "sae_weights.safetensors").items()
    }
    norms = np.linalg.norm(w["W_dec"], axis=1)
    k = cfg.get("k") or (cfg.get("activation_fn_kwargs") or {}).get("k")
    features, outputs = [], []
    for row in x:
        size = np.linalg.norm(row) / np.sqrt(len(row))
        size = size if cfg["normalize_activations"] == "constant_norm_rescale" else 1.0
        mean, spread = 0.0, 1.0
        if cfg["normalize_activations"] == "layer_norm":
            mean, spread = row.mean(), row.std(ddof=1)
        taken = (row - mean) / (size if spread == 1.0 else spread + 1e-5)
        pre = (taken - cfg["apply_b_dec_to_input"] * w["b_dec"]) @ w["W_enc"]
        gate = np.ones(len(norms))
        if cfg["architecture"] == "gated":
            gate = pre + w["b_gate"] > 0
            pre = pre * np.exp(w["r_mag"]) + w["b_mag"]
        else:
            pre = pre + w["b_enc"]
        if cfg.get("rescale_acts_by_decoder_norm"):
            pre = pre * norms
        f = np.maximum(pre, 0) * gate
        if "threshold" in w:
            f = f * (pre > np.maximum(w["threshold"], 0))
        if "topk_threshold" in w:
            f = f * (pre > w["topk_threshold"])
        if k and cfg["architecture"] in ("topk", "standard"):
            f[np.argsort(pre)[: len(f) - k]] = 0
        share = f / norms if cfg.get("rescale_acts_by_decoder_norm") else f
        outputs.append((share @ w["W_dec"] + w["b_dec"]) * size * spread + mean)
        features.append(share * norms)
    return np.array(features), np.array(outputs)


FORMS = {
    "standard": {},
    "bias not taken from the input": {"apply_b_dec_to_input": False},
    "jumprelu": {"architecture": "jumprelu"},
    "jumprelu without bias": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
    "topk": {"architecture": "topk", "k": 3, "unit": True},
    "topk by rescaled strength": {
        "architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True,
    },
    "gated": {"architecture": "gated"},
    "gated without bias": {"architecture": "gated", "apply_b_dec_to_input": False},
    "batchtopk while it trains": {"architecture": "batchtopk", "k": 3.5},
    "matryoshka, by rescaled strength": {
        "architecture": "matryoshka_batchtopk", "k": 3, "rescale_acts_by_decoder_norm": True,
    },
    "rows of mean 0 and spread 1": {"normalize_activations": "layer_norm"},
    "gated, of such rows": {"architecture": "gated", "normalize_activations": "layer_norm"},
    "rows of one norm": {"normalize_activations": "constant_norm_rescale"},
    "topk of before 6": {
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}, "unit": True,
        "metadata": None, "hook_name": "blocks.0.hook_resid_post",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_the_formula(form, x, tmp_path) -> None:
    folder = made(tmp_path / "sae", **FORMS[form])
    one = probes.read_saelens(folder)
    features, outputs = formula(folder, x)
    scale = np.sqrt(D_IN) if one.unit_rows else 1.0
    assert 0 < (features > 0).sum() < features.size
    np.testing.assert_allclose(one(x) * scale, features, atol=1e-12)
    np.testing.assert_allclose(one.reconstruct(torch.as_tensor(x)).numpy(), outputs, atol=1e-12)
    np.testing.assert_allclose(one.decoder.norm(dim=1), 1.0, atol=1e-12)
    assert one.facts["site"] == "blocks.0.hook_resid_post"


@pytest.mark.parametrize(
    "sparsity", [probes.L1(0.05), probes.TopK(2), probes.BatchTopK(2), None], ids=str
)
def test_a_round_trip_keeps_features_and_facts(sparsity, tmp_path) -> None:
    world = sparse_world(1.0, n_classes=6, width=12, offset=3.0)
    cells = [("c00", "sketch")]
    if sparsity is None:
        one = probes.paper_dictionary(world.features, SITE, withheld=cells, steps=20)
    else:
        (one,) = probes.train_dictionaries(
            world.features, SITE, sparsity, width=16, withheld=cells, steps=60
        )
    folder = probes.write_saelens(one, tmp_path / "a" / "dictionary")
    other = probes.read_saelens(folder)
    x = world.features.values[SITE]
    assert (one.k, one.unit_rows, one.width) == (other.k, other.unit_rows, other.width)
    assert dict(other.facts) == dict(one.facts)
    np.testing.assert_allclose(other(x), one(x), atol=1e-5)
    assert ((other(x) > 0) == (one(x) > 0)).mean() > 0.999
    rows = torch.as_tensor(x)
    torch.testing.assert_close(other.reconstruct(rows), one.reconstruct(rows), rtol=0, atol=1e-5)
    features, outputs = formula(folder, x.astype(float))  # what SAELens would make of our file
    scale = np.sqrt(12) if one.unit_rows else 1.0
    np.testing.assert_allclose(one(x) * scale, features, atol=2e-5)
    np.testing.assert_allclose(one.reconstruct(rows).numpy(), outputs, atol=2e-5)


def test_written_configurations_say_what_saelens_needs(tmp_path) -> None:
    eye, zero = torch.eye(4), torch.zeros(4)
    said = {}
    for name, one in {
        "standard": probes.Dictionary(eye, eye, zero, zero, zero),
        "topk": probes.Dictionary(eye, eye, zero, zero, zero, k=2),
        "jumprelu": probes.Dictionary(eye, eye, zero, zero, zero + 0.1),
    }.items():
        folder = probes.write_saelens(one, tmp_path / name)
        said[name] = json.loads((folder / "cfg.json").read_text())
        stored = load_file(folder / "sae_weights.safetensors")
        assert said[name]["architecture"] == name and ("threshold" in stored) == (
            name == "jumprelu"
        )
        assert {n: tuple(t.shape) for n, t in stored.items() if n != "threshold"} == {
            "W_enc": (4, 4), "W_dec": (4, 4), "b_enc": (4,), "b_dec": (4,)
        }  # fmt: skip
        assert said[name]["metadata"]["sae_lens_version"] >= "6" and said[name]["d_sae"] == 4
    assert said["topk"]["k"] == 2 and said["topk"]["rescale_acts_by_decoder_norm"] is False


class TestRefusals:
    @pytest.mark.parametrize(
        ("said", "match"),
        [
            ({"architecture": "transcoder"}, "transcoder, which reads one site and writes another"),
            ({"architecture": "jumprelu_skip_transcoder"}, "writes another"),
            ({"architecture": "temporal"}, "which attends to earlier tokens"),
            ({"architecture": "matching_pursuit"}, "one after the other"),
            ({"architecture": "abstopk"}, "keeps negative strengths"),
            ({"architecture": "next"}, "given the architecture next, right"),
            ({"architecture": "gated", "activation_fn": "topk"}, "gated with topk"),
            ({"architecture": "gated", "drop": "r_mag"}, "r_mag of shape nothing"),
            ({"architecture": "batchtopk", "drop": "topk_threshold"}, "topk_threshold of shape"),
            ({"activation_fn": "tanh-relu"}, "standard with tanh-relu"),
            ({"normalize_activations": "expected_average_only_in"}, "Fold the scaling in"),
            ({"normalize_activations": True}, "normalize_activations=True"),
            ({"reshape_activations": "other"}, "hook_z"),
            ({"architecture": "topk"}, "k=None"),
            ({"architecture": "topk", "k": 10}, "k=10"),
            ({"architecture": "topk", "k": 3}, "unequal decoder norms"),
            ({"d_sae": 8}, "W_enc of shape"),
            ({"drop": "b_enc"}, "b_enc of shape nothing"),
        ],
    )
    def test_name_what_cannot_be_said(self, said, match, tmp_path) -> None:
        refuses(CheckpointError, match, probes.read_saelens, made(tmp_path / "sae", **said))

    def test_name_files_that_do_not_read(self, tmp_path) -> None:
        refuses(
            CheckpointError, r"cfg\.json and sae_weights", probes.read_saelens, tmp_path / "nowhere"
        )
        folder = made(tmp_path / "sae")
        whole = (folder / "sae_weights.safetensors").read_bytes()
        (folder / "sae_weights.safetensors").write_bytes(whole[:-8])
        refuses(CheckpointError, "do not read", probes.read_saelens, folder)
        (made(folder) / "cfg.json").write_text("[1, 2]")
        refuses(CheckpointError, "no table", probes.read_saelens, folder)

    def test_name_scalings_learnt_afterwards_and_numbers_that_are_none(self, tmp_path) -> None:
        folder = made(tmp_path / "sae")
        weights = load_file(folder / "sae_weights.safetensors")
        ones = torch.ones(D_SAE).double()
        save_file(weights | {"scaling_factor": ones}, folder / "sae_weights.safetensors")
        assert probes.read_saelens(folder).width == D_SAE
        save_file(weights | {"scaling_factor": 2 * ones}, folder / "sae_weights.safetensors")
        refuses(CheckpointError, "scaling_factor", probes.read_saelens, folder)
        save_file(weights | {"b_enc": ones * torch.nan}, folder / "sae_weights.safetensors")
        refuses(NumericsError, "encoder_bias", probes.read_saelens, folder)

    def test_name_what_cannot_be_written(self, tmp_path) -> None:
        eye, zero = torch.eye(4), torch.zeros(4)
        for one in (
            probes.Dictionary(eye, eye, zero, zero, zero + 0.1, k=2),
            probes.Dictionary(eye, eye, zero, zero, zero - 0.1),
        ):
            refuses(CheckpointError, "threshold", probes.write_saelens, one, tmp_path / "a")
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            probes.write_saelens(probes.Dictionary(eye, eye, zero, zero, zero), tmp_path / "file")

"""What a step's hash covers, and what is measured on towers that lack the usual sites."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interp.core.images import ImageTable
from interp.core.statistics.index_of_sharing import AMOUNT, BARS, GEOMETRY, verdict_of_interval
from interp.declared.measures import MeasureSpec
from interp.measures.catalogue import mechanisms
from interp.measures.catalogue.mechanisms import mechanisms_of_pairs
from interp.measures.subject import AnalysisSpec, Subject
from interp.study import checkpoint
from interp.study.checkpoint import Checkpoint, checkpoint_hash, exact_convolutions, measure

pytestmark = pytest.mark.slow

TIMM = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "convnext_atto", "timm_model_pretrained": False,
        "timm_pool": "", "timm_proj": "linear", "image_size": 32,
    },
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of a tower that nobody wrote hooks for, without weights."""
    place = tmp_path / "timm"
    place.mkdir()
    (place / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TIMM, "preprocess_cfg": {}})
    )
    return place


def asked(
    path: Path,
    images: ImageTable,
    steps: Path,
    *,
    setting: str = "cg-high",
    epoch: int = 1,
    analysis: AnalysisSpec | None = None,
    **options: Any,
) -> Checkpoint:
    """A model with the place of a study's, and what is measured on it."""
    place = {"setting": setting, "test_domain": "sketch", "seed": 0, "epoch": epoch}
    pair = "real", "sketch"
    return Checkpoint(path, place, images, pair, (), analysis or AnalysisSpec(), steps, **options)


def test_a_model_is_identified_by_its_content(folder: Path, tmp_path: Path) -> None:
    name = Path(f"local-dir:{folder}")
    first = checkpoint_hash(name)
    assert checkpoint_hash(name) == checkpoint_hash(folder) == first
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"weights")
    assert checkpoint_hash(name) != first
    file = tmp_path / "epoch_1.pt"
    file.write_bytes(b"one")
    before = checkpoint_hash(file)
    file.write_bytes(b"two")
    assert checkpoint_hash(file) != before
    assert checkpoint_hash(Path("hf-hub:org/model")) != checkpoint_hash(Path("hf-hub:org/other"))


def test_other_bars_are_measured_anew(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer is kept under the bars that it was given by."""
    weights = tmp_path / "epoch_1.pt"
    weights.write_bytes(b"weights")
    model = asked(weights, small_images, tmp_path / "steps")
    before = model.key
    assert model.key == before
    for bars, name in ((AMOUNT, "index"), (GEOMETRY, "CKA")):
        assert verdict_of_interval(BARS[name]["shared_above"] + 0.01, 1.0, bars) == "shared"
        assert verdict_of_interval(-1.0, BARS[name]["not_below"] - 0.01, bars) == "not shared"
        some = BARS[name]["partly_above"] + 0.01, BARS[name]["partly_below"] - 0.01
        assert verdict_of_interval(*some, bars) == "partly shared"
    monkeypatch.setitem(BARS["index"], "shared_above", 0.6)
    assert model.key != before


def test_convolutions_are_exact_while_a_model_is_measured_and_as_before_after() -> None:
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before


def test_models_take_the_cards_in_turn_and_are_measured_exactly(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def look(device: str) -> dict[str, pd.DataFrame]:
        seen.append((device, torch.backends.cudnn.allow_tf32))
        return {"transplant": pd.DataFrame({"value": [0.5]})}

    table = "transplant"
    looking = MeasureSpec("looking", look, tables=(table,), bare=(table,), seconds=0.0)
    monkeypatch.setattr(checkpoint, "all_measures", lambda: (looking,))
    monkeypatch.setattr(Checkpoint, "opened", property(lambda model: model.device))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    models = []
    for place in range(3):
        weights = tmp_path / f"epoch_{place}.pt"
        weights.write_bytes(bytes([place]))
        models.append(asked(weights, small_images, tmp_path / "steps", device="cuda"))
    found = measure(models, jobs=1)
    assert seen == [("cuda:0", False), ("cuda:1", False), ("cuda:0", False)]
    assert found["transplant"]["value"].tolist() == [0.5] * 3  # read back, not measured again
    assert measure([], jobs=1) == {}


def test_models_that_take_longest_are_measured_first(
    small_images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run's kept epochs the last comes last, and is asked for everything."""
    begun: list[object] = []

    def fill(model: Checkpoint, *, threads: int) -> None:
        begun.append(model.place["epoch"])

    monkeypatch.setattr(checkpoint, "_fill", fill)
    monkeypatch.setattr(Checkpoint, "tables", lambda model: {})
    chosen = [(1, ("accuracy",), ()), (2, (), ()), (3, ("accuracy",), ()), (4, (), ("pairs",))]
    models = [
        asked(tmp_path, small_images, tmp_path, epoch=epoch, only=only, also=also)
        for epoch, only, also in chosen
    ]
    measure(models, jobs=1)
    assert begun == [4, 2, 1, 3]


def test_a_traced_tower_is_measured_where_it_can_be(
    folder: Path, small_images: ImageTable, tmp_path: Path
) -> None:
    brief = AnalysisSpec(n_permutations=19, n_splits=1, transfer=False, circuits=False)
    some = small_images.select(split="analysis", domain=["real", "sketch"])
    pictures = ImageTable(some.frame.assign(split="test"), some.root, some.source, some.fingerprint)
    name = Path(f"local-dir:{folder}")
    model = asked(name, pictures, tmp_path / "steps", setting="", analysis=brief)
    frames = model.tables()
    sites = set(frames["similarity"].site)
    assert "hook_embedding" in sites and len(sites) > 2  # what its blocks hand on as well
    assert "patching" not in frames and "transplant" not in frames
    visual = frames["certificate"].query("tower == 'visual'")
    assert {"read", "patch with itself"} <= set(visual.check) and visual.ok.any()
    assert set(model.tables()) == set(frames)  # read back


def test_pairs_leave_the_studys_own_domains_as_steady_as_they_were_found(
    small_images: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their circuits have been drawn again over all classes; pairs take fewer of these."""
    asked: list[list[tuple[str, str]]] = []

    def ladder_tables(
        subject: Subject, tables: object, pairs: list[tuple[str, str]]
    ) -> dict[str, pd.DataFrame]:
        asked.append(pairs)
        domains = sorted({domain for pair in pairs for domain in pair})
        return {
            "overlap": pd.DataFrame(pairs, columns=["domain_a", "domain_b"]),
            "circuit_stability": pd.DataFrame({"domain": domains, "value": 0.5}),
        }

    monkeypatch.setattr(mechanisms, "ladder_tables", ladder_tables)
    place = {"setting": "cg-high", "test_domain": "sketch", "seed": 0}
    subject = Subject(None, small_images, ("real", "sketch"), place=place)
    frames = mechanisms_of_pairs(subject)
    assert len(frames["overlap"]) == len(asked[0]) and {"real", "sketch"} < set(
        frames["overlap"][["domain_a", "domain_b"]].to_numpy().ravel()
    )
    others = set(small_images.domains) - {"real", "sketch"}
    assert set(frames["circuit_stability"]["domain"]) == others

"""A study end to end in small: resumable, repeatable, and every number where it should be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from interp import Study
from interp.core.errors import DataError, LeakError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.core.statistics.index_of_sharing import BARS
from interp.core.tables import EVIDENCE
from interp.models.loading.load_clip import load_clip
from interp.study.examine import examine
from interp.study.grid import Grid
from interp.study.results import Result
from interp.study.study import cells_of_pairs
from tests.conftest import SMALL

pytestmark = pytest.mark.slow

EXPECTED = (
    "stitching model_similarity accuracy accuracy_by_class differences tradeoff exposure "
    "exposure_classes mixtures losses similarity transfer patching patching_examples transplant "
    "certificate factorisation linear_factors composition directions separation domain_probes "
    "selectivity views erasure dictionaries feature_sharing feature_ablation faithfulness "
    "circuits das overlap circuit_transfer circuit_stability unit_galleries rungs ladder "
    "class_sharing levels together steering steered_answers match_faithfulness match_circuits "
    "caption_words caption_patching decision_bias domain_shift shift_by_class shift_parts"
).split()
WITH_EVIDENCE = (
    "similarity transfer patching transplant factorisation directions separation domain_probes "
    "erasure feature_sharing faithfulness overlap circuit_transfer circuit_stability "
    "unit_galleries steering match_faithfulness caption_words caption_patching stitching "
    "model_similarity decision_bias domain_shift shift_by_class shift_parts"
).split()


def steps(result: Result) -> dict[str, int]:
    folder = result.folder / "steps"
    return {
        p.name: p.stat().st_mtime_ns for p in folder.iterdir() if not p.name.startswith("train")
    }


@pytest.fixture(scope="module")
def last_checkpoint(small_study: Result) -> Path:
    """The last checkpoint of the small study's CG high-diversity model."""
    found = (small_study.folder / "steps").glob("train-cg-high-*/checkpoints/epoch_*.pt")
    return max(found, key=lambda path: int(path.stem.split("_")[1]))


def test_every_table_is_there(small_study: Result) -> None:
    # two settings, no contrast of them
    assert set(small_study.tables) == set(EXPECTED) - {"differences"}
    for name in WITH_EVIDENCE:
        assert set(EVIDENCE) <= set(small_study.tables[name].frame.columns), name
    # eight pictures by seven artists: nobody drew a class twice, and the table says so
    selectivity = small_study.tables["selectivity"].frame
    assert selectivity["reason"].str.contains("two pictures").all()


def test_a_domains_circuits_are_steady_once(small_study: Result) -> None:
    rows = small_study.tables["circuit_stability"].frame
    place = ["setting", "test_domain", "seed", "control", "domain", "level", "site"]
    assert not rows.duplicated([name for name in place if name in rows]).any()
    assert set(rows["domain"]) == {"real", "sketch"}


def test_pictures_are_kept(small_study: Result) -> None:
    kinds = [path.stem.split("-")[0] for path in (small_study.folder / "plates").glob("*.png")]
    assert (
        kinds.count("moved") == kinds.count("units") == 2
        and kinds.count("cells") == kinds.count("pictures") == 6
    )


def test_every_model_and_floor_is_measured(small_study: Result) -> None:
    accuracy = small_study.tables["accuracy"].frame.fillna({"setting": "", "control": ""})
    assert set(zip(accuracy["setting"], accuracy["control"], strict=True)) == {
        ("natural-only", ""),
        ("cg-high", ""),
        ("", "epoch 0"),
    }
    similarity = small_study.tables["similarity"].frame.fillna({"control": ""})
    assert set(similarity["control"]) == {"", "epoch 0", "pixels"}


def test_layers_are_measured_where_sharing_is(
    small_study: Result, last_checkpoint: Path, small_images: ImageTable
) -> None:
    """A table of the study is what the measure says of the study's own pictures and model."""
    from interp import probes
    from interp.core.sites import STREAM, present

    clip, held_out = load_clip(last_checkpoint), small_study.facts["held_out"]
    seen = small_images.select(split="analysis")
    seen = seen[(~seen.label.isin(held_out)).to_numpy()]
    sites = present(clip.visual, STREAM)
    read = probes.collect(clip.visual, seen, sites, preprocess=clip.preprocess)
    fresh = probes.directions(read, n_splits=2, n_permutations=99)
    stored = small_study.tables["directions"].frame.query("setting == 'cg-high' and control == ''")
    assert stored["value"].to_numpy() == pytest.approx(fresh.frame["value"].to_numpy(), abs=1e-4)
    middle = small_study.tables["feature_sharing"].frame["site"].unique()
    assert middle.tolist() == ["layer2.0.hook_resid_post"]


def test_dictionaries_never_saw_the_withheld_cells(small_study: Result) -> None:
    quality = small_study.tables["dictionaries"].frame
    held = quality[quality["class_set"] == "held-out"]
    assert held.empty  # features are read on seen classes, in which nothing is withheld
    assert (quality.loc[quality["measure"] == "active features", "value"] <= 16).all()


def test_the_untrained_model_answers_at_chance(small_study: Result) -> None:
    frame = small_study.tables["accuracy"].frame
    floor = frame[(frame["control"] == "epoch 0") & (frame["class_set"] == "all")]
    floor = floor[floor["measure"] == "balanced top-1"]
    assert abs(floor["value"].mean() - 1 / 8) < 0.08


def test_accuracy_is_what_the_model_answers(
    small_study: Result, last_checkpoint: Path, small_images: ImageTable
) -> None:
    """Recomputed with open_clip alone: its own transform, tokenizer and encoders."""
    import open_clip
    import torch

    clip = load_clip(last_checkpoint)
    model, _, transform = open_clip.create_model_and_transforms(clip.architecture)
    model.load_state_dict(torch.load(last_checkpoint, weights_only=True)["state_dict"])
    model.eval()
    tokenizer = open_clip.get_tokenizer(clip.architecture)
    test = small_images.select(split="test", domain="clipart")
    from interp.data.mixtures.templates import fill, prompts

    with torch.no_grad():
        pictures = torch.stack([transform(test.picture(row)) for row in range(len(test))])
        seen = torch.nn.functional.normalize(model.encode_image(pictures), dim=-1)
        rows = []
        for label in small_images.labels:
            texts = tokenizer([fill(prompt, label) for prompt in prompts("neutral")])
            each = torch.nn.functional.normalize(model.encode_text(texts), dim=-1)
            rows.append(torch.nn.functional.normalize(each.mean(dim=0), dim=-1))
    chosen = (seen @ torch.stack(rows).T).argmax(dim=-1)
    right = [small_images.labels[c] == label for c, label in zip(chosen, test.label, strict=True)]
    expected = pd.Series(right).groupby(test.label.to_numpy()).mean()
    by_class = (
        small_study.tables["accuracy_by_class"]
        .frame.query(
            "setting == 'cg-high' and domain == 'clipart' and prompts == 'neutral' "
            "and candidates == 'all'"
        )
        .set_index("label")["value"]
    )
    pd.testing.assert_series_equal(by_class, expected, check_names=False)


def test_mixture_counts_are_those_of_the_tsv(small_study: Result) -> None:
    table = small_study.tables["mixtures"].frame.set_index(["setting", "domain"])["n_pictures"]
    for folder in (small_study.folder / "steps").glob("mixture-*"):
        setting = json.loads((folder / "manifest.json").read_text())["specification"]["setting"]
        rows = pd.read_csv(folder / "train.tsv", sep="\t")["domain"].value_counts()
        assert rows.to_dict() == table[setting].to_dict()


def test_a_second_run_repeats_nothing_and_gives_the_same_tables(small_study: Result) -> None:
    before = steps(small_study)
    again = Study(SMALL).run(small_study.folder, jobs=1)
    assert steps(again) == before
    read = Result(again.folder).tables
    for name, table in small_study.tables.items():
        pd.testing.assert_frame_equal(read[name].frame, table.frame)


def test_a_lost_step_is_measured_again_and_comes_out_the_same(small_study: Result) -> None:
    import shutil

    before = small_study.tables["similarity"].frame
    lost = next((small_study.folder / "steps").glob("similarity-*"))
    shutil.rmtree(lost)
    again = Study(SMALL).run(small_study.folder, jobs=1)
    assert lost.exists()
    pd.testing.assert_frame_equal(Result(again.folder).tables["similarity"].frame, before)


def test_the_facts_tell_how_to_repeat_it(small_study: Result) -> None:
    facts = json.loads((small_study.folder / "facts.json").read_text())
    assert facts["specification"]["images"]["n_classes"] == 8
    assert {"torch", "open_clip_torch"} <= set(facts["versions"]) and len(facts["held_out"]) == 2
    assert facts["bars"] == BARS
    assert sum(c["drawings"] for c in facts["credits"]) > 30
    assert all(c["licence"] for c in facts["credits"])


def test_every_model_opens_by_its_setting(small_study: Result, last_checkpoint: Path) -> None:
    clip = small_study.load_clip("cg-high")
    same = load_clip(last_checkpoint)
    for ours, theirs in zip(clip.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    first = small_study.load_clip("cg-high", epoch=0, seed=0, test_domain="sketch")
    assert any(
        not torch.equal(a, b)
        for a, b in zip(clip.model.parameters(), first.model.parameters(), strict=True)
    )
    with pytest.raises(DataError, match="cg-high"):
        small_study.load_clip("cg-hihg")
    with pytest.raises(DataError, match=r"open a model: .*seed"):
        small_study.load_clip("cg-high", seed=7)


def test_figures_are_the_pages(small_study: Result) -> None:
    assert {"answer", "ladder", "accuracy"} <= set(small_study.figures)


def test_a_study_is_made_of_sections(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "images": {"n_classes": 6}, "mixtures": {"settings": ["cg-low", "cg-high"]},
        "training": {"preset": "vit-small", "steps": 20}, "seeds": [0, 3],
    }  # fmt: skip
    (tmp_path / "study.toml").write_text(
        "seeds = [0, 3]\n[images]\nn_classes = 6\n[mixtures]\nsettings = ['cg-low', 'cg-high']\n"
        "[training]\npreset = 'vit-small'\nsteps = 20\n"
    )
    assert Study.of(**sections) == Study.from_toml(tmp_path / "study.toml")
    for wrong in ({"image": {}}, {"images": {"n_clases": 6}}, {"images": {"n_classes": "6"}}):
        with pytest.raises(SpecificationError):
            Study.of(**wrong)


def test_the_page_is_one_file(small_study: Result) -> None:
    page = small_study.report()
    assert page == small_study.folder / "report.html" and page.stat().st_size < 15 * 2**20


def test_a_tampered_mixture_stops_the_study(small_study: Result, tmp_path: Path) -> None:
    cells = Grid(SMALL).plan(tmp_path)
    cell = next(cell for cell in cells if cell.mixture.setting == "cg-high")
    rows = pd.read_csv(cell.run.tsv, sep="\t")
    rows.loc[0, ["domain", "label"]] = ["sketch", cell.block.held_out[0]]
    rows.to_csv(cell.run.tsv, sep="\t", index=False)
    with pytest.raises(LeakError):
        Grid(SMALL).plan(tmp_path)


@pytest.mark.long  # a notebook does the same
def test_one_model_is_examined_on_a_folder(
    trained_checkpoint: Path, small_images: ImageTable, tmp_path: Path
) -> None:
    some = small_images.select(
        split="analysis", domain=["real", "sketch", "clipart"], label=small_images.labels[:5]
    )
    for row in range(len(some)):
        target = tmp_path / "pictures" / some.path.iloc[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        some.picture(row).save(target)
    brief = replace(SMALL.analysis, pairs="all", n_pair_classes=4, n_permutations=19, n_splits=1)
    brief = replace(brief, erasure=False, features=False)
    words = {"analysis": brief, "out": tmp_path / "out"}
    result = examine(str(trained_checkpoint), tmp_path / "pictures", **words)
    assert {"accuracy", "similarity", "transfer", "transplant"} <= set(result.tables)
    assert set(result.tables["accuracy"].frame["class_set"]) == {"all", "seen"}
    assert result.report().exists()
    found = result.tables["ladder"].frame
    causal = found[found["rung"].isin(["R4", "R5", "R6"])]
    pairs = {("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")}
    assert set(zip(causal["domain_a"], causal["domain_b"], strict=True)) == pairs
    assert {"early", "middle", "late", "whole tower"} <= set(causal["band"])


@pytest.mark.parametrize(
    ("pairs", "models"),
    [("own", []), ("one model", [("cg-high", 0)]), ("all", [("natural-only", 0), ("cg-high", 0)])],
)
def test_circuits_of_every_pair_are_compared_in_the_models_asked_for(
    pairs: str, models: list[tuple[str, int]], tmp_path: Path
) -> None:
    spec = replace(SMALL, analysis=replace(SMALL.analysis, pairs=pairs))
    cells = Grid(spec).plan(tmp_path / "steps")
    assert [(one.setting, one.block.seed) for one in cells_of_pairs(cells, pairs)] == models


def test_one_domain_leaves_nothing_to_compare(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "real" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "real" / label / "0.png")
    with pytest.raises(SampleError, match="at least two"):
        examine("x.pt", tmp_path, tmp_path / "out")


def test_captions_fit_the_context(small_images: ImageTable) -> None:
    from interp.core.seeds import rng
    from interp.data.mixtures.templates import caption, longest_caption

    generator = rng("context", 0)
    longest = max(
        len(caption(c, d, generator).replace(".", " .").split())
        for c in small_images.labels
        for d in small_images.domains
        for _ in range(50)
    )
    assert longest <= longest_caption(small_images.labels, small_images.domains)

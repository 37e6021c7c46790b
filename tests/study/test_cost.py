"""Rehearsals refuse what the run would refuse, and say what it does."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from interp.core.errors import InterpError
from interp.declared.measures import all_measures
from interp.study.cost import VIT_TRAINS, RehearsedRun, cost_of_study, rehearse
from interp.study.grid import Grid
from interp.study.results import Result
from interp.study.specification import Specification
from tests.conftest import SMALL

TINY = "[images]\nn_classes = 4\nn_train = 8\nn_test = 2\nn_analysis = 2\nsize = 16\n"


def specified(tmp_path: Path, text: str) -> Specification:
    (tmp_path / "study.toml").write_text(text)
    return Specification.from_toml(tmp_path / "study.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[images]\nsource = 'nowhere'\n", "nowhere"),
        ("[images]\nn_classes = 5000\n", "n_classes = 5000"),
        ("[images]\nn_classes = 4\n[mixtures]\nheld_out = 1000\n", "hold out classes"),
        ("[mixtures]\nheld_out = -1\n", "-1"),
        ("[images]\nn_train = 0\n", "n_train"),
        ("[images]\nn_test = 0\n", "n_test"),
        ("[mixtures]\ntest_domains = ['skech']\n", "sketch"),
        ("[mixtures]\nnatural = 'photo'\n", "photo"),
        ("[images]\nn_classes = 4\n[mixtures]\nheld_out = ['airplan']\n", "airplan"),
        (TINY + "[mixtures]\nheld_out = 1\n[training]\nbatch_size = 512\n", "batch of 512"),
        (TINY + "[mixtures]\nheld_out = 1\n[intervention]\nsetting = 'cg-hihg'\n", "cg-hihg"),
    ],
)
def test_what_a_run_would_refuse_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InterpError, match=said):
        rehearse(specified(tmp_path, text), measuring=False)


def test_a_source_is_opened(tmp_path: Path) -> None:
    for domain in ("real", "sketch"):
        for label in ("cat", "dog", "owl"):
            folder = tmp_path / "pictures" / domain / label
            folder.mkdir(parents=True)
            for k in range(10):
                Image.new("RGB", (8, 8), (k, 0, len(label))).save(folder / f"{k}.png")
    text = f"[images]\nsource = '{tmp_path / 'pictures'}'\n"
    asked = "[training]\nbatch_size = 8\nepochs = 3\n"
    asked += "[mixtures]\nheld_out = 1\nsettings = ['natural-only', 'cg-high']\n"
    runs = rehearse(specified(tmp_path, text + asked), measuring=False)
    # two of ten pictures of a cell are for testing; cg-high adds two of three sketch classes
    assert [run.pictures for run in runs] == [24, 40]
    assert [(run.epochs, run.steps) for run in runs] == [(3, 9), (3, 15)]
    with pytest.raises(InterpError, match="sketch"):
        rehearse(
            specified(tmp_path, text + asked.replace("held_out", "natural = 'foto'\nheld_out"))
        )
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "study.toml"}


def test_domains_without_test_pictures_are_refused(tmp_path: Path) -> None:
    rows = [
        f"{domain}-{label}-{k}.png,{label},{domain},{'train' if domain == 'sketch' else split}"
        for domain in ("real", "sketch")
        for label in ("cat", "dog", "owl")
        for k, split in enumerate(["train"] * 8 + ["test"] * 2)
    ]
    for row in rows:
        Image.new("RGB", (8, 8), (len(row), 0, 0)).save(tmp_path / row.split(",")[0])
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,domain,split", *rows]))
    text = f"[images]\nsource = '{tmp_path / 'mine.csv'}'\n[mixtures]\nheld_out = 1\n"
    with pytest.raises(InterpError, match="no test pictures of sketch"):
        rehearse(specified(tmp_path, text), measuring=False)


def test_a_rehearsal_says_what_the_run_did(small_study: Result) -> None:
    told = {run.setting: (run.pictures, run.steps, run.epochs) for run in rehearse(SMALL)}
    mixtures, losses = (small_study.tables[name].frame for name in ("mixtures", "losses"))
    did = {
        str(setting): (rows["n_train"].iloc[0], rows["steps"].iloc[0])
        for setting, rows in mixtures.groupby("setting")
    }
    epochs = losses.groupby("setting")["epoch"].max().to_dict()
    assert told == {setting: (*found, epochs[setting]) for setting, found in did.items()}


@pytest.mark.slow
def test_runs_of_an_intervention_are_counted(tmp_path: Path) -> None:
    text = TINY + "[mixtures]\nheld_out = 1\nsettings = ['cg-high']\n[training]\nbatch_size = 16\n"
    text += "[intervention]\nsetting = 'cg-high'\nweights = [0.3]\n"
    spec = specified(tmp_path, text)
    told = rehearse(spec, measuring=False)
    assert [run.setting for run in told] == [
        "cg-high", "cg-high, aligned 0.3", "cg-high, shuffled 0.3"
    ]  # fmt: skip
    made = Grid(spec).runs(tmp_path / "steps", jobs=1)
    assert [(run.pictures, run.epochs) for run in made] == [
        (run.pictures, run.epochs) for run in told
    ]


@pytest.mark.slow
def test_mixtures_that_are_only_counted_are_those_that_are_written(tmp_path: Path) -> None:
    """As many runs, told apart alike, of as many pictures."""
    text = TINY + "[mixtures]\nheld_out = 1\ntest_domains = ['sketch', 'quickdraw']\n"
    grid = Grid(specified(tmp_path, text + "[training]\nbatch_size = 8\nsteps = 4\n"))
    plans = [grid.plan(tmp_path / f"{way}", written=way) for way in (True, False)]
    told = [[(cell.setting, cell.mixture.test_domain, cell.run.pictures) for cell in plan]
            for plan in plans]  # fmt: skip
    assert told[0] == told[1]
    same = [[[a.run.name == b.run.name for a in plan] for b in plan] for plan in plans]
    assert same[0] == same[1]
    assert sum(map(sum, same[0])) > len(plans[0])  # natural-only is one run for both domains
    assert not list((tmp_path / "False").glob("mixture-*"))


def test_too_few_seen_classes_are_refused_before_anything_is_trained() -> None:
    """Two blocks hold out half of eight classes each: similarity needs five that were seen."""
    few = replace(SMALL, blocks=2, images=replace(SMALL.images, n_classes=8))
    with pytest.raises(InterpError, match=r"4 of 8 classes .* at least 5"):
        rehearse(few)
    assert rehearse(few, measuring=False)
    assert rehearse(replace(few, blocks=4))


def test_vits_are_foretold_to_take_longer_by_asked_and_by_rehearsed_steps() -> None:
    resnet = Specification()
    vit = replace(resnet, training=replace(resnet.training, preset="vit-small"))
    both = replace(resnet, replications=(vit.training,))
    run = RehearsedRun("resnet-small", "cg-low", "sketch", 0, 4000, 8, 200, 128)
    costs = {
        name: cost_of_study(spec, runs=[replace(run, architecture=each) for each in names])
        for name, spec, names in (
            ("resnet", resnet, ()), ("vit", vit, ()), ("both", both, ()),
            ("rehearsed resnet", resnet, ["resnet-small"]),
            ("rehearsed vit", vit, ["vit-small"]),
            ("rehearsed both", both, ["resnet-small", "vit-small"]),
        )
    }  # fmt: skip
    trains = {name: cost.training_minutes or 0 for name, cost in costs.items()}
    measures = {name: cost.measuring_minutes or 0 for name, cost in costs.items()}
    for way in ("", "rehearsed "):
        one, other, two = (trains[way + name] for name in ("resnet", "vit", "both"))
        assert other == pytest.approx(VIT_TRAINS * one) and two == pytest.approx(one + other)
    assert measures["both"] == pytest.approx(measures["vit"] + measures["resnet"])
    circuits = replace(resnet, analysis=replace(resnet.analysis, pairs="own"))
    alone, of_vit = (
        cost_of_study(replace(circuits, training=one.training)).measuring_minutes or 0
        for one in (resnet, vit)
    )
    longest = max(measure.on_vits for measure in all_measures())
    assert 1.2 * alone < of_vit < longest * alone
    grids = [cost_of_study(one, measuring=False).measuring_minutes for one in (resnet, vit)]
    assert grids[0] == grids[1]  # accuracy has no circuits
    full = replace(resnet.training, preset="RN50", steps=600, batch_size=1000)
    large = replace(resnet, training=full, replications=(replace(full, preset="vit-small"),))
    assert "4.8 million pictures" in cost_of_study(large).text  # 2 x 4 runs, not more for a ViT

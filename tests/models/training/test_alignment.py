"""The term that aligns classes: its value, what it must not see, and what training makes of it."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from interp.core.errors import DataError, SiteError, SpecificationError
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint
from interp.models import Recipe, Run, load_clip
from interp.models.training import launcher
from interp.models.training.alignment import (
    KEEP,
    Alignment,
    Pairing,
    Watched,
    derangement,
    find_block,
)
from interp.models.training.journal import FIELDS, read_journal
from interp.models.training.lists import Base
from interp.models.training.recipes import VARIED
from interp.probes import Features, directions
from tests.models.conftest import HELD_OUT, SEEN
from tests.models.training.test_launcher import (
    Killed,
    Launch,
    killing,
    losses,
    same,
    torchrun,
    weights,
)
from tests.refusals import refuses

SITE = "blocks.0.hook_resid_post"


def started(n_classes: int, width: int, *, separates: bool = False) -> Alignment:
    """A term that has met every class but the last."""
    term = Alignment(n_classes, separates=separates)
    term.running = torch.tensor(rng("running", 0).normal(size=(2, n_classes, width)))
    term.met[:, :-1] = True
    return term


def naive(running: np.ndarray, met: np.ndarray, x: np.ndarray, marks: np.ndarray) -> float:
    """The formula, picture by picture."""
    n = running.shape[1]
    both = [c for c in range(n) if met[0, c] and met[1, c]]
    gaps = []
    for d in (0, 1):
        for c in both:
            mine = [row for row, mark in zip(x, marks, strict=True) if mark == d * n + c]
            if not mine:
                continue
            a = np.mean(mine, axis=0) - sum(running[d, k] for k in both) / len(both)
            b = running[1 - d, c] - sum(running[1 - d, k] for k in both) / len(both)
            gaps.append(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(np.mean(gaps))


@pytest.mark.parametrize("seed", range(4))
def test_the_term_is_the_formula(seed: int) -> None:
    term, generator = started(5, 3), rng("a batch", seed)
    x, marks = generator.normal(size=(20, 3)), generator.integers(-1, 10, 20)
    before = term.running.numpy().copy(), term.met.numpy().copy()  # type: ignore[union-attr]
    found = term(torch.tensor(x), torch.tensor(marks))
    assert float(found) == pytest.approx(naive(*before, x, marks), abs=1e-12)
    moved = term.running.numpy()  # type: ignore[union-attr]
    for mark in range(10):
        d, c = divmod(mark, 5)
        own = x[marks == mark]
        if len(own):
            keep = KEEP if before[1][d, c] else 0.0
            assert moved[d, c] == pytest.approx(keep * before[0][d, c] + (1 - keep) * own.mean(0))
        else:
            assert (moved[d, c] == before[0][d, c]).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = rng("a batch", 0)
    x = torch.tensor(generator.normal(size=(12, 3)), requires_grad=True)
    marks = torch.tensor(generator.integers(-1, 10, 12))
    assert torch.autograd.gradcheck(lambda x: deepcopy(started(5, 3))(x, marks), [x])


def test_separating_stops_where_contrasts_are_at_right_angles() -> None:
    """A cosine below 0 is an axis in common again; aligning goes on there."""
    for separates, moves in ((True, False), (False, True)):
        term = Alignment(2, separates=separates)
        running = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[-1.0, 0.2], [1.0, -0.2]]])
        term.running = running.double()
        term.met[:] = True
        x = term.running.flatten(0, 1).clone().requires_grad_()
        term(x, torch.arange(4)).backward()
        assert bool(x.grad.abs().sum() > 0.01) == moves  # type: ignore[union-attr]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_no_class_is_its_own_partner_when_shuffled(n: int) -> None:
    for seed in range(20):
        order = derangement(n, seed)
        assert sorted(order) == list(range(n)) and all(a != b for a, b in enumerate(order))
    assert n < 10 or derangement(n, 0) != derangement(n, 1)
    assert derangement(n, 0) == derangement(n, 0)


def test_marks_are_of_seen_classes_in_the_two_domains(twins: Any) -> None:
    pairing = Pairing.of(twins.tsv)
    assert pairing.classes == tuple(sorted(SEEN))
    rows = pd.read_csv(twins.tsv, sep="\t", keep_default_na=False)
    own, shuffled = (pairing.marks(twins.tsv, turned, seed=0).tolist() for turned in (False, True))
    for label, domain, mark, other in zip(
        rows["label"], rows["domain"], own, shuffled, strict=True
    ):
        if label not in SEEN or domain == "base":
            assert mark == other == -1
        elif domain == "real":
            assert mark == other == sorted(SEEN).index(label)
        else:
            assert mark == 4 + sorted(SEEN).index(label) and 4 <= other < 8 and other != mark


def test_a_held_out_cell_never_enters_even_where_it_is_trained_on(twins, tmp_path) -> None:
    """As in an upper bound: every class stands in both domains."""
    rows = twins.tsv.read_text()
    tsv = tmp_path / "train.tsv"
    tsv.write_text(rows + f"x.png\tthe 3\t{HELD_OUT}\tsketch\n")
    (tmp_path / "manifest.json").write_text((twins.tsv.parent / "manifest.json").read_text())
    pairing = Pairing.of(tsv)
    assert HELD_OUT not in pairing.classes and pairing.marks(tsv, False, seed=0)[-1] == -1


@pytest.mark.parametrize("which", ["vit", "resnet"])
def test_what_is_watched_is_the_site_that_probes_read(small_tower, small_batch, which) -> None:
    tower, x = small_tower(which), small_batch(which)
    visual = tower.source

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = visual

        def forward(self, images: Any, tokens: Any) -> dict[str, Any]:
            return {"image_features": self.visual(images), "tokens": tokens}

    model, rows = Model(), torch.arange(24).reshape(8, 3)
    _, cache = tower.run_with_cache(x)
    sites = [site for site in tower.sites if site.endswith("hook_resid_post")]
    for site in sites:
        told = Watched(model, find_block(model, site))(x, rows)
        where = (2, 3) if which == "resnet" else (1,)
        torch.testing.assert_close(told["at_site"], cache[site].mean(dim=where))
        assert told["marks"].tolist() == rows[:, 2].tolist() and told["tokens"].shape == (8, 2)
    assert find_block(model) is find_block(model, sites[len(sites) // 2])


def test_without_a_weight_nothing_is_as_much_as_touched(
    twins: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, commands and weights: a run that says 0 is the run that says nothing, and neither
    reaches the term; one with a weight is another run."""
    later = ("align", "negatives", *VARIED)
    plain = {f: v for f, v in vars(Recipe()).items() if not f.startswith(later)}
    assert fingerprint(Recipe(align=0.0)) == fingerprint(plain) != fingerprint(Recipe(align=0.1))
    said = twins.run(tmp_path / "said", epochs=1, align=0.0)
    silent = twins.run(tmp_path / "silent", epochs=1)
    assert not any("align" in word for word in said.command(device="cpu"))
    aligned = twins.run(tmp_path / "c", epochs=1, align=1.0)
    launch(aligned)
    for name in ("Alignment", "AlignedLoss", "Watched", "find_block", "Pairing"):
        monkeypatch.setattr(launcher, name, None)
    launch(said)
    launch(silent)
    assert same(said, silent) and not same(said, aligned)
    assert tuple(read_journal(said.folder).frame.columns) == FIELDS


def cosine(run: Run, tsv: Path) -> float:
    """How far classes lie in one direction in both domains, as probes measure it."""
    clip = load_clip(run.final, dtype=torch.float64)
    rows = pd.read_csv(tsv, sep="\t", keep_default_na=False)
    rows = rows[rows["label"].isin(SEEN)].reset_index(drop=True)
    pictures = torch.stack([clip.preprocess(Image.open(path)) for path in rows["filepath"]])
    _, cache = clip.visual.run_with_cache(pictures.double())
    read = Features({SITE: cache[SITE].mean(dim=1).float().numpy()}, rows[["label", "domain"]])
    table = directions(read, n_permutations=19).frame
    return float(table.loc[table["measure"] == "cosine of mean differences", "value"].iloc[0])


@pytest.mark.slow
def test_training_moves_what_probes_measure(twins: Any, launch: Launch, tmp_path: Path) -> None:
    """Aligned above plain above separated; aligning to the wrong classes does not do it."""
    usual = {"epochs": 16, "lr": 1e-2, "align_site": SITE}
    arms: dict[str, dict[str, Any]] = {
        "plain": {}, "aligned": {"align": 2.0}, "separated": {"align": -2.0},
        "shuffled": {"align": 2.0, "align_classes": "shuffled"},
    }  # fmt: skip
    found = {}
    for name, changes in arms.items():
        run = twins.run(tmp_path / name, **usual, **changes)
        launch(run)
        found[name] = cosine(run, twins.tsv)
        if name == "aligned":
            told = read_journal(run.folder).frame["alignment"]
            assert told.iloc[0] == 0 and told.iloc[-6:].mean() < 0.5 * told.iloc[1:7].mean()
    assert found["aligned"] > found["plain"] + 0.2
    assert found["separated"] < found["plain"] - 0.2
    assert found["shuffled"] < found["aligned"] - 0.5


def test_a_broken_aligned_run_ends_where_an_unbroken_one_does(
    twins: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (twins.run(tmp_path / n, epochs=3, align=1.0) for n in ("whole", "broken"))
    launch(whole)
    monkeypatch.setattr(launcher, "build_loss", killing(6))  # 4 steps an epoch
    refuses(Killed, "", launch, broken)
    monkeypatch.undo()
    with pytest.raises(SpecificationError, match=r"align 1\.0, now 2\.0"):
        launch(replace(broken, recipe=replace(broken.recipe, align=2.0)))
    launch(broken)
    assert same(broken, whole) and losses(broken) == losses(whole)


def test_accumulated_parts_come_to_the_whole_batch(twins, launch, tmp_path) -> None:
    whole, parts = (twins.run(tmp_path / str(n), epochs=2, accumulate=n, align=1.0) for n in (1, 3))
    launch(whole)
    launch(parts)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-8)
    told = [read_journal(run.folder).frame["alignment"].tolist() for run in (parts, whole)]
    assert told[0] == pytest.approx(told[1], abs=1e-8) and max(told[0]) > 0.1


def test_labels_are_aligned_as_captions_are(twins: Any, launch: Launch, tmp_path: Path) -> None:
    """The supervised baseline has no text tower and needs none here; every row has a label."""
    tsv = tmp_path / "train.tsv"
    tsv.write_text("".join(twins.tsv.read_text().splitlines(keepends=True)[:-1]))
    (tmp_path / "manifest.json").write_text((twins.tsv.parent / "manifest.json").read_text())
    run = replace(twins.run(tmp_path, epochs=4, objective="supervised", align=1.0), tsv=tsv)
    launch(run)
    told = read_journal(run.folder).frame["alignment"]
    assert told.iloc[0] == 0 and (told.iloc[1:] > 0).all()


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_align_as_one(twins: Any, launch: Launch, tmp_path: Path) -> None:
    one, two = (twins.run(tmp_path / name, epochs=2, align=1.0) for name in ("one", "two"))
    launch(one)
    torchrun(two.command(device="cpu", processes=2))
    assert losses(two) == pytest.approx(losses(one), abs=1e-9)
    ours, theirs = weights(two.final), weights(one.final)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-8) for name in theirs)


def test_what_cannot_be_aligned_is_refused_before_the_start(twins: Any, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"mean blocks\.0\.hook_resid_post"):
        twins.run(tmp_path, align=1.0, align_site="blocks.0.hook_resid_pots").check()
    with pytest.raises(SpecificationError, match="shards carry no classes"):
        twins.run(tmp_path, align=1.0, base=Base("base/{0..9}.tar", 152)).check()
    refuses(SpecificationError, "a finite weight", Recipe, align=float("nan"))
    refuses(SpecificationError, "Did you mean shuffled", Recipe, align_classes="shufled")
    alone = tmp_path / "train.tsv"
    alone.write_text(twins.tsv.read_text())
    with pytest.raises(DataError, match=r"manifest\.json of the mixture beside it"):
        replace(twins.run(tmp_path, align=1.0), tsv=alone).check()
    lines = twins.tsv.read_text().splitlines(keepends=True)
    alone.write_text("".join(line for line in lines if "\tsketch\n" not in line))
    (tmp_path / "manifest.json").write_text((twins.tsv.parent / "manifest.json").read_text())
    with pytest.raises(SpecificationError, match="0 seen classes with training pictures in both"):
        replace(twins.run(tmp_path, align=1.0), tsv=alone).check()

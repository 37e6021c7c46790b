"""The loss without some negatives: its value, pair by pair, and what training makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip import ClipLoss

from interp.core.errors import DataError, SpecificationError
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint
from interp.data.mixtures.settings import NEGATIVES as IN_MIXTURES
from interp.models import Recipe, Run
from interp.models.loading.load_classifier import LabelLoss
from interp.models.training import launcher
from interp.models.training.lists import Base
from interp.models.training.masked_loss import IN_DOMAIN, OF_CLASS, MaskedLoss, Negatives
from interp.models.training.recipes import NEGATIVES
from tests.models.conftest import HELD_OUT, SEEN
from tests.models.training.test_launcher import Launch, losses, same, torchrun, weights
from tests.refusals import refuses


def batch(seed: int, n: int = 12) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    """Features, and which rows are pictures of the domain or captions of the classes."""
    generator = rng("a batch", seed)
    features = torch.tensor(generator.normal(size=(2, n, 4)), requires_grad=True)
    kind = generator.integers(0, 3, n)
    made = {"image_features": features[0], "text_features": features[1]}
    return made | {"logit_scale": torch.tensor(1.5)}, kind == 1, kind == 2


def scores_of(made: dict[str, torch.Tensor]) -> np.ndarray:
    return (1.5 * made["image_features"] @ made["text_features"].T).detach().numpy()


def share(logits: np.ndarray, own: np.ndarray, right: np.ndarray) -> float:
    """-log of the softmax's share of `right` among `own`."""
    weights = np.exp(logits)
    return float(-np.log(weights[right & own].sum() / weights[own].sum()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("only", [False, True])
def test_the_loss_is_the_formula_pair_by_pair(seed: int, only: bool) -> None:
    made, domain, of_class = batch(seed)
    s, n = scores_of(made), len(domain)
    own, terms = np.eye(n, dtype=bool), []
    for i in range(n):
        if only:
            captions = ~domain
            right = captions & ~of_class if domain[i] else own[i]
            terms.append(share(s[i], captions, right))
            if captions[i]:
                terms.append(share(s[:, i], own[i] | ~domain | of_class[i], own[i]))
        else:
            terms.append(share(s[i], own[i] | ~(domain[i] & of_class), own[i]))
            terms.append(share(s[:, i], own[i] | ~(domain & of_class[i]), own[i]))
    marks = torch.tensor(IN_DOMAIN * domain + OF_CLASS * of_class)
    found = MaskedLoss(only=only)(marks, **made)["masked_loss"]
    assert found.item() == pytest.approx(sum(terms) / 2 / n, abs=1e-12)


def test_without_marks_it_is_the_usual_loss_and_masked_pairs_have_no_gradient() -> None:
    made, domain, of_class = batch(0)
    plain = MaskedLoss()(torch.zeros(12, dtype=int), **made)["masked_loss"]
    assert plain.item() == pytest.approx(ClipLoss()(**made).item(), abs=1e-12)
    marks = torch.tensor(IN_DOMAIN * domain + OF_CLASS * of_class)
    images = made["image_features"].detach().requires_grad_()
    grads = []
    for shift in (0.0, 5.0):  # masked captions anywhere else change nothing for these pictures
        texts = made["text_features"].detach() + shift * torch.tensor(of_class)[:, None]
        own = made | {"image_features": images, "text_features": texts}
        [grad] = torch.autograd.grad(MaskedLoss()(marks, **own)["masked_loss"], images)
        grads.append(grad[torch.tensor(domain)])
    torch.testing.assert_close(*grads)


def test_labels_lose_the_same_negatives() -> None:
    logits = torch.tensor(rng("logits", 0).normal(size=(4, 3)))
    outputs = {"logits": logits, "labels": torch.tensor([0, 1, 2, 0]), "logit_scale": logits[0, 0]}
    marks = torch.tensor([IN_DOMAIN, IN_DOMAIN, OF_CLASS, 0])
    numbers, rows = logits.numpy(), np.eye(3, dtype=bool)
    kept = np.array([True, True, False])
    plain = [share(numbers[i], rows.any(0), rows[c]) for i, c in [(2, 2), (3, 0)]]
    masked = [share(numbers[i], kept, rows[c]) for i, c in [(0, 0), (1, 1)]]
    only = [share(numbers[i], rows.any(0), kept) for i in (0, 1)]
    for asked, expected in ((False, masked), (True, only)):
        found = MaskedLoss(only=asked, columns=(2,))(marks, **outputs)["masked_loss"]
        assert found.item() == pytest.approx(np.mean(plain + expected), abs=1e-12)
    usual = MaskedLoss(columns=(2,))(torch.zeros(4, dtype=int), **outputs)["masked_loss"]
    assert float(usual) == pytest.approx(float(LabelLoss()(**outputs)["loss_of_labels"]), abs=1e-12)


def test_classes_are_the_held_out_those_without_pictures_or_random_seen_ones(twins: Any) -> None:
    kinds = {kind: Negatives.of(twins.tsv, kind, seed=0) for kind in NEGATIVES[1:]}
    assert {each.domain for each in kinds.values()} == {"sketch"}
    for kind in ("masked", "masked-absent", "only"):
        assert kinds[kind].classes == (HELD_OUT,)
    drawn = {Negatives.of(twins.tsv, "masked-random", seed=seed).classes for seed in range(12)}
    assert len(drawn) > 1 and {label for classes in drawn for label in classes} <= {*SEEN}
    assert len({each.key for each in kinds.values()}) == len(kinds)
    marks = kinds["masked"].marks(twins.tsv).tolist()
    rows = [line.split("\t") for line in twins.tsv.read_text().splitlines()[1:]]
    assert marks == [(domain == "sketch") + 2 * (label == HELD_OUT) for *_, label, domain in rows]


@pytest.mark.parametrize("objective", ["clip", "supervised"])
def test_the_bias_goes_and_comes_with_the_negatives(
    twins: Any, launch: Launch, tmp_path: Path, objective: str
) -> None:
    """Kinds train other models; one that keeps all negatives is the run that says nothing."""
    tsv = tmp_path / "train.tsv"  # rows without a base picture, which has no label
    tsv.write_text("".join(twins.tsv.read_text().splitlines(keepends=True)[:-1]))
    (tmp_path / "manifest.json").write_text((twins.tsv.parent / "manifest.json").read_text())
    runs: dict[str, Run] = {}
    for kind in ("all", "masked", "only"):
        run = twins.run(tmp_path / kind, epochs=2, objective=objective, negatives=kind)
        runs[kind] = replace(run, tsv=tsv)
        launch(runs[kind])
    assert not any(same(runs["all"], runs[kind]) for kind in ("masked", "only"))
    assert losses(runs["masked"])[0] < losses(runs["all"])[0]  # fewer to tell apart
    assert "--negatives" not in runs["all"].command(device="cpu")
    assert fingerprint(Recipe(negatives="all")) == fingerprint(Recipe())


def test_a_run_of_other_negatives_is_not_gone_on_with(
    twins: Any, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = twins.run(tmp_path, epochs=1, negatives="masked")
    launch(run)
    other = replace(run, recipe=replace(run.recipe, negatives="only", epochs=2))
    with pytest.raises(SpecificationError, match="negatives masked, now only"):
        launch(other)
    parts = twins.run(tmp_path / "parts", epochs=1, negatives="masked", accumulate=3)
    launch(parts)
    assert losses(parts) == pytest.approx(losses(run), abs=1e-8)


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_leave_the_same_negatives_out(
    twins: Any, launch: Launch, tmp_path: Path
) -> None:
    one, two = (twins.run(tmp_path / n, epochs=2, negatives="masked") for n in ("one", "two"))
    launch(one)
    torchrun(two.command(device="cpu", processes=2))
    assert losses(two) == pytest.approx(losses(one), abs=1e-9)
    ours, theirs = weights(two.final), weights(one.final)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-8) for name in theirs)


def test_what_has_no_such_negatives_is_refused_before_the_start(twins: Any, tmp_path: Path) -> None:
    assert tuple(IN_MIXTURES) == NEGATIVES
    refuses(SpecificationError, "Did you mean masked", Recipe, negatives="maskd")
    refuses(SpecificationError, "Leave one of them out", Recipe, negatives="only", align=1.0)
    with pytest.raises(SpecificationError, match="shards carry no classes"):
        twins.run(tmp_path, negatives="masked", base=Base("base/{0..9}.tar", 152)).check()
    alone = tmp_path / "train.tsv"
    lines = twins.tsv.read_text().splitlines(keepends=True)
    alone.write_text("".join(line for line in lines if "\tsketch\n" not in line))
    with pytest.raises(DataError, match=r"manifest\.json of the mixture beside it"):
        replace(twins.run(tmp_path, negatives="masked"), tsv=alone).check()
    (tmp_path / "manifest.json").write_text((twins.tsv.parent / "manifest.json").read_text())
    with pytest.raises(SpecificationError, match="no training pictures of it"):
        replace(twins.run(tmp_path, negatives="masked"), tsv=alone).check()
    assert launcher.NEGATIVES == NEGATIVES

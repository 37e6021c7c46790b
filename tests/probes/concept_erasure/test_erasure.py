"""Erasing: unreadable by any line, controls of equal variance, and use told from mere presence."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor, nn

from interp.circuits import Chain
from interp.core.edits.erasers import Moments, matched_subspace
from interp.core.errors import NumericsError, SampleError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE
from interp.probes import Eraser, cka, collect, erased, erasure, leace
from interp.probes.concept_erasure.erasure import _beyond
from interp.probes.concept_erasure.outcomes import balanced_cells
from tests.refusals import refuses
from tests.tables import image_table

K, WIDTH = 6, 40
NAMES = [f"c{c}" for c in range(K)]
POST = "blocks.0.hook_resid_post"


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.like = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def tower(read: Callable[[Tensor], Tensor]) -> Chain:
    """One block that adds nothing to the stream "batch pos d_model"; `read` makes the embedding."""
    return Chain([Function(torch.zeros_like)], pool=Function(read))


def world(
    through: bool, *, seed: int = 0, meaning: bool = True, n_artists: int = 8, shift: float = 0.0
) -> tuple[ImageTable, Callable[[Image.Image], Tensor]]:
    """Classes in six coordinates, the domain (1, -1) in the seventh, then noise; three positions.

    `through`: the class is multiplied by the domain, so only who multiplies back can read it.
    Without `meaning` the seventh coordinate has nothing to do with the domain; `shift` adds the
    domain to the first class's coordinate too.
    """
    generator = np.random.default_rng(seed)
    cells = product(NAMES, ("real", "sketch"), range(n_artists), range(2))
    rows = [(label, domain, f"artist{artist}") for label, domain, artist, _ in cells]
    images = image_table(rows, "label domain artist")
    frame = images.frame
    sign = np.where(frame["domain"] == "real", 1.0, -1.0)
    sign = sign if meaning else generator.choice([1.0, -1.0], size=len(frame))
    x = 0.6 * generator.normal(size=(len(frame), 3, K + 1 + WIDTH))
    x[:, :, :K] *= 0.5
    code = frame["label"].map(NAMES.index).to_numpy()
    x[np.arange(len(frame)), :, code] += (sign if through else 1.0 + 0 * sign)[:, None]
    x[:, :, 0] += shift * sign[:, None]
    x[:, :, K] = 2 * sign[:, None] + 0.1 * x[:, :, K]

    def preprocess(image: Image.Image) -> Tensor:
        return torch.as_tensor(x[int(image.info["path"])], dtype=torch.float32)

    return images, preprocess


def direct(x: Tensor) -> Tensor:
    return x.mean(dim=1)[:, :K]


def multiplied(x: Tensor) -> Tensor:
    """The class, read through the domain's coordinate."""
    return x.mean(dim=1)[:, :K] * x.mean(dim=1)[:, K : K + 1]


def run(read: Callable[[Tensor], Tensor], through: bool, seed: int = 0, **options) -> pd.DataFrame:
    made = {name: options.pop(name) for name in ("meaning", "shift") if name in options}
    images, preprocess = world(through, seed=seed, **made)
    options = {"classifier": lambda x: x, "class_names": NAMES, "n_controls": 3} | options
    return erasure(
        tower(read), images, options.pop("sites", POST), preprocess=preprocess, seed=seed, **options
    ).frame


class TestErasers:
    def test_no_line_reads_what_leace_took_and_the_rest_is_left(self) -> None:
        generator = np.random.default_rng(0)
        domain, label = np.arange(400) % 2, (np.arange(400) // 2) % 5
        x = generator.normal(size=(400, 12))
        x[:, 0] += 3 * domain
        x[:, 1:6] += 4 * np.eye(5)[label]
        after = leace(x, domain)(torch.as_tensor(x)).numpy()
        # least squares finds nothing at all, and a logistic probe no more than the larger class
        assert LinearRegression().fit(after, domain).score(after, domain) < 1e-12
        assert (
            LogisticRegression(C=1e6, max_iter=1000).fit(after, domain).score(after, domain) < 0.6
        )
        assert LogisticRegression(max_iter=1000).fit(x, domain).score(x, domain) > 0.9
        gaps = [np.array([each[label == c].mean(axis=0) for c in range(5)]) for each in (x, after)]
        np.testing.assert_allclose(gaps[0][:, 1:6], gaps[1][:, 1:6], atol=0.05)

    def test_leace_is_the_formula_where_covariance_is_known(self) -> None:
        """I - W^+ U U' W with U the column space of W Sigma_xz (Belrose et al. 2023)."""
        generator = np.random.default_rng(1)
        x, z = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)), np.arange(300) % 3
        moments = Moments(1, 3)
        for part in (slice(0, 100), slice(100, 300)):  # batch by batch
            moments.update(torch.as_tensor(x[part]), torch.as_tensor(z[part, None]))
        found = moments.leace(0)
        from concept_erasure import optimal_linear_shrinkage

        centred = x - x.mean(axis=0)
        sigma = optimal_linear_shrinkage(torch.as_tensor(centred.T @ centred / 300), 300).numpy()
        values, vectors = np.linalg.eigh(sigma)
        white = vectors @ np.diag(values**-0.5) @ vectors.T
        cross = centred.T @ (np.eye(3)[z] - np.eye(3)[z].mean(axis=0)) / 299
        u = np.linalg.svd(white @ cross)[0][:, :2]
        expected = np.linalg.inv(white) @ u @ u.T @ white
        np.testing.assert_allclose((found.left @ found.right).numpy(), expected, atol=1e-8)
        np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.T), atol=1e-10)

    def test_labels_in_columns_are_as_each_alone(self) -> None:
        generator = np.random.default_rng(2)
        x, z = generator.normal(size=(80, 6)), generator.integers(2, size=(80, 3))
        moments = Moments(3, 2)
        moments.update(torch.as_tensor(x), torch.as_tensor(z))
        for labelling in range(3):
            alone = leace(x, z[:, labelling])
            mine = moments.leace(labelling)
            torch.testing.assert_close(mine.left @ mine.right, alone.left @ alone.right)

    @pytest.mark.parametrize("share", [0.001, 0.3, 0.97])
    def test_random_subspaces_remove_exactly_the_variance_asked_for(self, share) -> None:
        x = np.random.default_rng(3).normal(size=(500, 20)) * np.arange(1, 21)
        covariance = torch.as_tensor(np.cov(x.T))
        wanted = share * float(covariance.trace())
        axes, strength = matched_subspace(covariance, wanted, np.random.default_rng(4))
        eraser = Eraser(torch.as_tensor(x.mean(axis=0)), axes * strength, axes.T)
        assert eraser.moved(covariance) == pytest.approx(wanted, rel=1e-10)
        change = x - eraser(torch.as_tensor(x)).numpy()  # the variance, measured on the vectors
        assert (change**2).sum() / 499 == pytest.approx(wanted, rel=1e-9)

    def test_more_variance_than_there_is_is_refused(self) -> None:
        with pytest.raises(NumericsError, match="3 of a total of 2"):
            matched_subspace(torch.eye(2).double(), 3.0, np.random.default_rng(0))

    @pytest.mark.parametrize("positions", ["every", "class"])
    def test_inserted_in_a_tower_it_changes_what_the_tower_goes_on_with(self, positions) -> None:
        images, preprocess = world(False)
        model = tower(lambda x: x.flatten(1))
        eye = torch.eye(K + 1 + WIDTH)
        eraser = Eraser(torch.zeros(K + 1 + WIDTH), eye[:, :1], eye[:1])
        x = images.tensors(preprocess)
        with torch.no_grad(), erased(model, POST, eraser, positions=positions):
            after = model(x).unflatten(1, (3, -1))
        changed = (after[:, :, 0] == 0).all(dim=0).tolist()
        assert changed == ([True] * 3 if positions == "every" else [True, False, False])
        torch.testing.assert_close(after[:, :, 1:], x[:, :, 1:])
        torch.testing.assert_close(model(x).unflatten(1, (3, -1)), x)  # and nothing stays behind

    def test_sites_without_vectors_are_refused(self) -> None:
        eraser = Eraser(torch.zeros(3), torch.zeros(3, 1), torch.zeros(1, 3))
        maps = Chain([nn.Identity()], axes=("batch", "channel", "row", "column"))
        with (
            pytest.raises(SiteError, match="class token"),
            erased(maps, POST, eraser, positions="class"),
        ):
            pass
        with pytest.raises(SiteError, match="one of hook_embed"), erased(maps, "block", eraser):
            pass
        pattern = Chain([nn.Identity()], axes=("batch", "head", "query", "key"))
        with pytest.raises(SiteError, match="pattern"), erased(pattern, POST, eraser):
            pass


class TestCells:
    def test_domain_says_nothing_of_class_and_halves_share_no_artist(self, frame_of) -> None:
        frame = frame_of(6, n_artists=8, copies=3).sample(frac=0.8, random_state=0)
        frame = frame.reset_index(drop=True)
        cells = balanced_cells(frame, concept="domain", n_permutations=3, seed=0)
        part = frame.iloc[cells.rows].assign(half=cells.half, quarter=cells.quarter)
        counts = part.groupby(["label", "half", "domain"]).size().unstack()
        assert (counts["real"] == counts["sketch"]).all()
        quarters = part.groupby(["half", "quarter"])["artist"].agg(set)
        assert sum(len(each) for each in quarters) == len(set.union(*quarters))
        assert [cells.domains[d] for d in cells.domain] == part["domain"].tolist()

    @pytest.mark.parametrize("concept", ["domain", "class"])
    @pytest.mark.parametrize("own_artists", [False, True])
    def test_permutations_move_whole_groups(self, frame_of, concept, own_artists) -> None:
        frame = frame_of(6, n_artists=8, copies=3)
        if own_artists:
            frame["artist"] = frame["artist"] + frame["domain"]
        cells = balanced_cells(frame, concept=concept, n_permutations=20, seed=0)
        part = frame.iloc[cells.rows].reset_index(drop=True)
        keys = ["label", "artist", *(["domain"] if concept == "domain" else [])]
        for rows in part.groupby(keys).indices.values():
            assert (np.ptp(cells.labels[rows], axis=0) == 0).all()
        for half in (0, 1):  # the same labels as often, in another order
            mine = cells.labels[cells.half == half]
            counts = [np.bincount(column, minlength=cells.n_values).tolist() for column in mine.T]
            assert all(count == counts[0] for count in counts)
        same = (cells.labels[:, 1:] == cells.labels[:, :1]).mean()
        assert same == pytest.approx(1 / cells.n_values, abs=0.12)

    def test_too_few_are_refused(self, frame_of) -> None:
        with pytest.raises(SampleError, match="3 classes"):
            balanced_cells(frame_of(3), concept="domain", n_permutations=1, seed=0)
        with pytest.raises(SampleError, match="1 domains"):
            balanced_cells(frame_of(6, ("a",)), concept="domain", n_permutations=1, seed=0)


class TestUse:
    def test_what_is_read_through_the_domain_falls_and_beyond_both_controls(self) -> None:
        rows = run(multiplied, True, n_controls=6).query("measure == 'accuracy'")
        assert len(rows) == 4 and (rows["before"] > 0.95).all()
        # half of the signs are right by chance, and then the class is
        assert (rows["value"] < -0.35).all() and (rows["high"] < 0).all()
        assert (rows["null"] > -0.3).all() and (rows["p"] < 0.05).all()
        assert (rows["beyond_high"] < 0).all()

    def test_what_lies_beside_the_domain_does_not(self) -> None:
        rows = run(direct, False).query("measure == 'accuracy'")
        assert (rows["before"] > 0.95).all()
        assert (rows["value"].abs() < 0.03).all()
        assert not (rows["beyond_high"] < 0).any()  # a control may do harm; LEACE does no more

    @pytest.mark.parametrize("positions", ["every", "class"])
    def test_the_domain_is_unreadable_on_drawings_that_were_not_fitted_to(self, positions) -> None:
        rows = run(direct, False, positions=positions).query(
            "measure == 'domain probe' and read_at == 'site'"
        )
        assert (rows["before"] > 0.85).all()
        after = rows["before"] + rows["value"]
        assert (abs(after - 0.5) < 0.15).all()
        assert (rows["null"] > -0.2).all() and (rows["p"] < 0.05).all()

    def test_erasing_the_class_takes_accuracy_and_class_probes(self) -> None:
        rows = run(direct, False, concept="class").query("against == 'permuted labels'")
        accuracy = rows.query("measure == 'accuracy'")
        assert (accuracy["value"] < -0.4).all() and (accuracy["p"] < 0.05).all()
        probe = rows.query("measure == 'class probe' and read_at == 'site'")
        assert (probe["before"] > 0.9).all() and (probe["value"] < -0.4).all()

    def test_transfer_comes_where_the_domain_alone_stood_between(self) -> None:
        """One class's coordinate is moved by the domain: all pictures of it are taken for that."""
        rows = run(direct, False, shift=2.0, n_controls=6)
        rows = rows.query("measure == 'transfer' and read_at == 'site'")
        assert len(rows) == 4 and (rows["before"] < 0.5).all()
        assert (rows["before"] + rows["value"] > 0.7).all()
        assert (rows["beyond"] > 0.3).all() and (rows["p"] < 0.05).all()

    def test_transfer_stays_where_domains_do_not_differ(self) -> None:
        rows = run(direct, False, meaning=False)
        rows = rows.query("measure == 'transfer' and read_at == 'site'")
        assert (rows["before"] > 0.7).all() and (rows["value"].abs() < 0.1).all()

    def test_without_meaning_p_is_seldom_small(self) -> None:
        rows = pd.concat(
            run(multiplied, True, seed=seed, meaning=False) for seed in range(8)
        ).query("measure == 'accuracy'")
        assert (rows["p"] < 0.05).mean() <= 0.15

    def test_values_are_those_of_the_eraser_put_in_by_hand(self) -> None:
        images, preprocess = world(True)
        model, read = tower(multiplied), tower(multiplied)
        table = erasure(
            model, images, POST, preprocess=preprocess, classifier=lambda x: x, class_names=NAMES,
            n_controls=2, batch_size=50,
        ).frame  # fmt: skip
        cells = balanced_cells(images.frame, concept="domain", n_permutations=2, seed=0)
        kept = collect(read, images, [POST], preprocess=preprocess, pool="token")
        vectors = kept.values[POST].reshape(len(images), 3, -1).astype(float)[cells.rows]
        hits = {name: np.zeros(len(cells.rows)) for name in ("before", "after", "permuted")}
        means = np.zeros((len(cells.rows), K))
        for half in (0, 1):
            fit, judged = cells.half == half, cells.half != half
            for name, column in (("after", 0), ("permuted", 1), ("permuted", 2), ("before", None)):
                x = torch.as_tensor(vectors[judged])
                if column is not None:
                    labels = np.repeat(cells.labels[fit, column], 3)
                    x = leace(vectors[fit].reshape(-1, vectors.shape[2]), labels)(x)
                said = multiplied(x).argmax(dim=1).numpy()
                hits[name][judged] += said == cells.code[judged]
                if name == "after":
                    means[judged] = multiplied(x).numpy()
        real = cells.domain == 0
        by_class = {
            name: pd.Series(found[real]).groupby(cells.code[real]).mean().to_numpy()
            for name, found in hits.items()
        }
        row = table.query("measure == 'accuracy' and domain == 'real'").set_index("against")
        row = row.loc["permuted labels"]
        change = by_class["after"] - by_class["before"]
        assert row["value"] == pytest.approx(change.mean(), abs=1e-9)
        left = [np.delete(change, c).mean() for c in range(K)]
        assert row["low"] == pytest.approx(jackknife(change.mean(), left).low, abs=1e-9)
        assert row["null"] == pytest.approx(
            (by_class["permuted"] / 2 - by_class["before"]).mean(), abs=1e-9
        )
        found = []
        for half in (0, 1):
            for one, two in ((0, 1), (1, 0)):
                a, b = (
                    np.stack([
                        means[(cells.half == half) & (cells.quarter == q) & (cells.domain == d)
                              & (cells.code == c)].mean(axis=0)
                        for c in range(K)
                    ])
                    for q, d in ((one, 0), (two, 1))
                )  # fmt: skip
                found.append(cka(a, b))
        similar = table.query("measure == 'similarity' and read_at == 'embedding'").iloc[0]
        assert similar["before"] + similar["value"] == pytest.approx(np.mean(found), abs=1e-4)


def test_a_real_tower_resumed_at_the_site_is_the_whole_tower_with_the_eraser_in_it() -> None:
    from open_clip.transformer import VisionTransformer

    from interp.models.towers.vit import HookedViT

    torch.manual_seed(0)
    model = HookedViT(VisionTransformer(16, 8, 16, 2, 2, 2.0, output_dim=K).eval())
    images, _ = world(False)

    def preprocess(image: Image.Image) -> Tensor:
        seeded = torch.Generator().manual_seed(int(image.info["path"]))
        return torch.randn(3, 16, 16, generator=seeded)

    sites = ["blocks.1.hook_resid_mid", "blocks.0.attn.hook_z", "hook_embedding"]
    kept = collect(model, images, sites, preprocess=preprocess, pool="token")
    cells = balanced_cells(images.frame, concept="domain", n_permutations=2, seed=0)
    frame = erasure(
        model, images, sites, preprocess=preprocess, classifier=lambda x: x, class_names=NAMES,
        n_controls=2,
    ).frame  # fmt: skip
    pixels = images.tensors(preprocess)
    for site in sites:
        hits = np.zeros(len(cells.rows))
        for half in (0, 1):
            fit, judged = cells.half == half, np.flatnonzero(cells.half != half)
            vectors = kept.values[site].reshape(len(images), *kept.shapes[site])[cells.rows[fit]]
            labels = np.repeat(cells.labels[fit, 0], vectors.shape[1])
            eraser = leace(vectors.reshape(len(labels), -1), labels)
            with torch.no_grad(), erased(model, site, eraser):
                said = model(pixels[cells.rows[judged]]).argmax(dim=1).numpy()
            hits[judged] = said == cells.code[judged]
        real = cells.domain == 0
        expected = pd.Series(hits[real]).groupby(cells.code[real]).mean().mean()
        row = frame[(frame["site"] == site) & (frame["measure"] == "accuracy")].iloc[0]
        assert row["before"] + row["value"] == pytest.approx(expected, abs=1e-6)


def test_beyond_joins_classes_and_draws() -> None:
    generator = np.random.default_rng(0)
    after, draws = generator.normal(size=8), generator.normal(size=(4, 8)) + 0.5

    def told(values: np.ndarray) -> np.ndarray:
        return np.r_[values.mean(), (values.sum() - values) / 7]

    found, p = _beyond(told(after), np.stack([told(each) for each in draws]))
    difference = after - draws.mean(axis=0)
    square = difference.var(ddof=1) / 8 + draws.mean(axis=1).var(ddof=1) * 5 / 4
    assert found.error == pytest.approx(square**0.5)
    free = square**2 / (
        (difference.var(ddof=1) / 8) ** 2 / 7 + (draws.mean(axis=1).var(ddof=1) * 5 / 4) ** 2 / 3
    )
    assert p == pytest.approx(2 * stats.t.sf(abs(difference.mean()) / square**0.5, free))
    assert _beyond(told(np.ones(8)), np.stack([told(np.zeros(8))] * 2))[1] == 2.0**-7
    assert _beyond(told(np.ones(8)), np.stack([told(np.ones(8))] * 2))[1] == 1.0


class TestDoors:
    def test_every_row_carries_its_evidence(self) -> None:
        frame = run(direct, False, sites=[POST, "hook_embedding"])
        assert set(EVIDENCE) <= set(frame.columns)
        assert set(frame["measure"]) == {"accuracy", "domain probe", "similarity", "transfer"}
        assert set(frame["site"]) == {POST, "hook_embedding"}
        numbers = ["value", "low", "high", "null", "p", "beyond", "before"]
        assert frame.loc[frame["reason"] == "", numbers].notna().all(axis=None)
        assert frame["removed"].between(0, 1).all()

    def test_few_artists_leave_accuracy_and_say_why_the_rest_is_missing(self) -> None:
        images, preprocess = world(False, n_artists=2)
        frame = erasure(
            tower(direct), images, POST, preprocess=preprocess, n_controls=2,
            classifier=lambda x: x, class_names=NAMES,
        ).frame  # fmt: skip
        other = frame["measure"] != "accuracy"
        assert frame.loc[~other, "value"].notna().all() and frame.loc[other, "value"].isna().all()
        assert frame.loc[other, "reason"].str.contains("by four artists").all()

    def test_a_class_that_a_domain_lacks_is_left_out_and_counted(self) -> None:
        images, preprocess = world(False)
        there = images[~((images.domain == "sketch") & (images.label == "c0"))]
        frame = erasure(
            tower(direct), there, POST, preprocess=preprocess, n_controls=2,
            classifier=lambda x: x, class_names=NAMES,
        ).frame  # fmt: skip
        accuracy = frame[frame["measure"] == "accuracy"]
        assert (accuracy["n_units"] == 5).all() and accuracy["value"].notna().all()
        assert accuracy["reason"].str.contains("1 classes left out").all()

    def test_what_cannot_be_done_is_said(self) -> None:
        refuses(SpecificationError, "concept", run, direct, False, concept="artist")
        refuses(SpecificationError, "n_controls", run, direct, False, n_controls=1)
        refuses(SpecificationError, "class_names", run, direct, False, class_names=None)
        refuses(Exception, "class 'c5'", run, direct, False, class_names=NAMES[:5])
        refuses(NumericsError, "NaN", run, lambda x: direct(x) / 0, False)

    def test_without_a_classifier_accuracy_is_left_out(self) -> None:
        frame = run(direct, False, classifier=None)
        assert "accuracy" not in set(frame["measure"]) and len(frame)


class TestHeldOutClasses:
    def test_they_come_where_the_domain_kept_them_down(self, monkeypatch) -> None:
        """Sketches raise the logits of four classes; without the domain none is raised."""
        names = list("pqrstuvw")
        monkeypatch.setitem(globals(), "NAMES", names)
        monkeypatch.setitem(globals(), "K", len(names))
        images, preprocess = world(False, n_artists=8)
        raised = torch.tensor([0.6] * 4 + [0.0] * 4)

        def gated(x: Tensor) -> Tensor:
            mean = x.mean(dim=1)
            return mean[:, :8] + (-mean[:, 8:9]).clamp(min=0) * raised

        how = {"preprocess": preprocess, "classifier": lambda x: x, "class_names": names,
               "n_controls": 3}  # fmt: skip
        both = erasure(tower(gated), images, POST, held_out=names[4:], **how).frame
        alone = erasure(tower(gated), images[images.label.isin(names[:4]).to_numpy()], POST, **how)
        own = both[both["class_set"] == "seen"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone.frame.assign(class_set="seen"))
        held = both[both["class_set"] == "held-out"].set_index(["domain", "against"])
        assert set(held["measure"]) == {"accuracy"} and (held["n_units"] == 4).all()
        sketch = held.loc["sketch"]
        assert (sketch["before"] < 0.2).all() and (sketch["value"] > 0.6).all()
        assert (sketch["beyond_low"] > 0).all()
        assert (held.loc["real"]["value"].abs() < 0.1).all()

    def test_too_few_of_them_are_left_out_and_said(self, capsys, monkeypatch) -> None:
        monkeypatch.setattr("interp.core.progress._quiet", False)
        rows = run(direct, False, held_out=NAMES[:1])
        assert set(rows["class_set"]) == {"seen"}
        assert "held-out classes left out" in capsys.readouterr().err

"""Moving a domain's mean, on models whose bias is one known vector, and by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from interp import circuits
from interp.circuits.domain_shift.vectors import AS_LONG, Fitting, SiteCells
from interp.circuits.toy import Chain, toy_shift
from interp.core.classifiers import Classifier
from interp.core.errors import DataError, InterpError, SampleError, SiteError
from interp.core.images import ImageTable
from interp.models import open_tower

LABELS, HELD_OUT, DOMAINS = tuple("abcdef"), ("e", "f"), ("real", "sketch", "clipart")
WIDTH, ASKED = 12, {"source": "sketch", "target": "real", "held_out": HELD_OUT}


class Biased:
    """A linear model: features are class + domain + noise, and sketch pulls toward seen classes."""

    def __init__(self, *, pull: float = 2.0, known: float = 1.0) -> None:
        generator = np.random.default_rng(0)
        self.visual = Chain([nn.Identity()], axes=("batch", "pos", "d_model"))
        self.pull = np.zeros(WIDTH)
        self.pull[:4] = pull
        self.noise = generator.normal(size=(400, WIDTH)) * 0.2
        self.known = known

    def preprocess(self, picture: Image.Image) -> Tensor:
        code, domain, number = picture.getpixel((0, 0))  # type: ignore[misc]
        x = np.eye(WIDTH)[code] * (self.known if domain == 1 and code >= 4 else 1.0)
        x = (
            x
            + {0: 0.0, 1: 1.0, 2: 0.3}[domain] * self.pull
            + np.eye(WIDTH)[11]
            + self.noise[number]
        )
        return torch.from_numpy(x).float()[None]

    def zero_shot(self, names: Any, templates: Any) -> Classifier:
        return Classifier(torch.eye(WIDTH)[: len(names)], tuple(names), 10.0)


def pictures(n: int = 4, classes: tuple[str, ...] = LABELS) -> ImageTable:
    cells = [(c, d, str(k)) for c in classes for d in DOMAINS for k in range(n)]
    frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    frame = frame.assign(split="test", caption="", path=[str(k) for k in range(len(frame))])

    def reader(row: Any) -> Image.Image:
        color = LABELS.index(row.label), DOMAINS.index(row.domain), int(row.path)
        return Image.new("RGB", (1, 1), color)

    return ImageTable(frame, reader=reader)


def shifted(model: Any, images: ImageTable, **options: Any) -> pd.DataFrame:
    how = {"sites": "hook_embedding", "fitted_on": images, **ASKED, **options}
    return circuits.shift_domain(model, images, **how).frame


def one(frame: pd.DataFrame, way: str, **where: Any) -> pd.Series:
    where = {"domain": "sketch", "class_set": "held-out", "dose": 1.0, **where}
    for column, value in where.items():
        frame = frame[frame[column] == value]
    [row] = [row for _, row in frame[frame["way"] == way].iterrows()]
    return row


@pytest.fixture(scope="module")
def biased() -> pd.DataFrame:
    return shifted(Biased(), pictures(), doses=(-1, 0, 0.5, 1))


def test_the_shift_brings_known_classes_back_and_controls_do_not(biased: pd.DataFrame) -> None:
    row = one(biased, "mean shift")
    assert row["before"] == 0 and row["after"] == 1 and row["ceiling"] == 1
    assert row["low"] <= row["value"] <= row["high"] and row["p"] == pytest.approx(0.05)
    assert row["n_units"] == 2 and row["n_pictures"] == 8
    for control in ("channels permuted", "another split of classes", "random direction"):
        assert abs(one(biased, control)["value"]) < 0.5, control


def test_photographs_moved_the_other_way_lose_those_classes(biased: pd.DataFrame) -> None:
    lost = one(biased, "mean shift", domain="real")
    assert (lost["before"], lost["after"], lost["toward"]) == (1, 0, "sketch")
    assert one(biased, "mean shift", domain="real", class_set="seen")["after"] == 1


def test_a_null_is_as_long_as_what_it_is_held_against(biased: pd.DataFrame) -> None:
    """Random directions at the dose itself, and none for a way of another length."""
    for dose, n in ((1.0, 19), (0.5, 3)):
        drawn = one(biased, "random direction", dose=dose)
        assert (drawn["n_draws"], np.isnan(drawn["p"])) == (n, True)
        assert one(biased, "mean shift", dose=dose)["null"] == pytest.approx(drawn["value"])
    assert one(biased, "mean shift", dose=-1.0)["null"] == one(biased, "mean shift")["null"]
    for way in ("one class's vector", "LEACE of the domain", "another domain's mean"):
        assert np.isnan(one(biased, way)["null"]) and np.isnan(one(biased, way)["p"])
    assert one(biased, "channels permuted")["null"] == one(biased, "mean shift")["null"]


def test_a_dose_of_none_changes_nothing_and_doses_go_by_the_vector(biased: pd.DataFrame) -> None:
    assert one(biased, "mean shift", dose=0.0)["value"] == 0
    assert one(biased, "mean shift", dose=-1.0)["after"] == 0


def test_a_class_that_is_not_known_does_not_come_back() -> None:
    """Not knowing: its own feature is gone in sketches, and the vector gives nothing."""
    found = shifted(Biased(known=0.0), pictures(), ways=["mean shift"])
    row = one(found, "mean shift")
    assert row["ceiling"] < 0.8 and row["after"] <= row["before"] + row["ceiling"]
    assert one(found, "mean shift", class_set="seen")["after"] == 1


def test_a_model_without_bias_gains_nothing() -> None:
    row = one(shifted(Biased(pull=0.0), pictures()), "mean shift")
    assert row["before"] == 1 and row["value"] == pytest.approx(0, abs=0.01)
    assert row["ceiling"] == 0


def test_controls_are_as_long_as_the_shift() -> None:
    x = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label, domain = np.array(list("pqrs") * 3), np.repeat(["a", "b", "c"], 4)
    cells = SiteCells(x, domain, label, np.ones(12, dtype=bool))
    fitting = Fitting(cells, ("a", "b"), torch.randn(5).double(), 2, 0)
    length = float(cells.shift("a", "b").norm())
    for move in [*fitting.moves(AS_LONG, [1.0], []), *fitting.random([2.0], 2)]:
        assert move.vectors is not None
        assert [float(each.norm()) for each in move.vectors] == pytest.approx([length] * 2), (
            move.way
        )


def test_the_numbers_are_those_of_the_vector_added_by_hand() -> None:
    model, images = Biased(pull=0.6), pictures()
    x = torch.stack([model.preprocess(images.picture(k)) for k in range(len(images))])[
        :, 0
    ].double()
    frame = images.frame
    seen, means = ~frame["label"].isin(HELD_OUT), {}
    for domain in ("real", "sketch"):
        own = seen & (frame["domain"] == domain)
        by_class = [
            x[np.flatnonzero(own & (frame["label"] == name))].mean(dim=0) for name in "abcd"
        ]
        means[domain] = torch.stack(by_class).mean(dim=0)
    shift = means["real"] - means["sketch"]
    found = shifted(model, images, ways=["mean shift"], doses=(0.3, 1.0))
    for dose in (0.3, 1.0):
        for domain, sign in (("sketch", 1.0), ("real", -1.0)):
            moved = x + sign * dose * shift
            said = torch.nn.functional.normalize(moved, dim=1)[:, : len(LABELS)].argmax(dim=1)
            right = np.array(LABELS)[said.numpy()] == frame["label"].to_numpy()
            own = ~seen & (frame["domain"] == domain)
            row = one(found, "mean shift", dose=dose, domain=domain)
            assert row["after"] == pytest.approx(right[own.to_numpy()].mean())


def test_held_out_classes_are_never_read() -> None:
    """Their pictures under another held-out name, or none at all, give the same vectors."""
    images = pictures()
    swapped = images.frame["label"].replace({"e": "f", "f": "e"})
    other = images.with_frame(images.frame.assign(label=swapped))
    fewer = images[(~images.label.isin(HELD_OUT)).to_numpy()]
    ways = ["mean shift", "LEACE of the domain", "channels permuted", "another split of classes"]
    tables = [
        shifted(Biased(), images, fitted_on=each, ways=ways) for each in (images, other, fewer)
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table)


def test_all_unlabelled_pictures_are_the_domain_s_mean(biased: pd.DataFrame) -> None:
    rows = biased[biased["way"] == "centred on unlabelled pictures"]
    assert sorted({*rows["n_fitted"]}) == [1, 10, 24]
    assert one(biased, "centred on unlabelled pictures", n_fitted=24)["after"] == 1


def test_unbalanced_pictures_are_drawn_by_rank() -> None:
    x = torch.eye(2, dtype=torch.float64).repeat_interleave(50, dim=0)[:, None]
    label = np.repeat(["p", "q"], 50)
    cells = SiteCells(x, np.full(100, "d"), label, np.ones(100, dtype=bool))
    generator = np.random.default_rng(0)
    shares = [float(cells.unlabelled("d", 4000, generator, balanced=False).max()) for _ in range(3)]
    assert shares == pytest.approx([2 / 3] * 3, abs=0.03)
    assert cells.unlabelled("d", 100, generator, balanced=True).tolist() == [[0.5, 0.5]]


def test_standardised_logits_are_those_by_hand() -> None:
    model, images = Biased(pull=0.6), pictures()
    x = images.tensors(model.preprocess)[:, 0]
    logits = model.zero_shot(LABELS, ())(x).numpy()
    own = (images.domain == "sketch").to_numpy()
    z = (logits - logits[own].mean(axis=0)) / logits[own].std(axis=0)
    right = np.array(LABELS)[z.argmax(axis=1)] == images.label.to_numpy()
    held = own & images.label.isin(HELD_OUT).to_numpy()
    row = one(shifted(model, images), "logits standardised by class")
    assert row["site"] == "logits" and row["after"] == pytest.approx(right[held].mean())


def test_pictures_are_dealt_by_artists_if_none_are_given_to_fit_on() -> None:
    found = shifted(Biased(), pictures(), fitted_on=None, ways=["mean shift"])
    assert one(found, "mean shift")["n_pictures"] == 4


def test_the_same_seed_gives_the_same_table() -> None:
    tables = [shifted(Biased(), pictures(), seed=seed) for seed in (1, 1, 2)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["null"].equals(tables[2]["null"])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"source": "oil"}, DataError, "oil"),
        ({"held_out": ["zebra"]}, DataError, "zebra"),
        ({"held_out": LABELS}, SampleError, "seen and of held-out"),
        ({"sites": "nowhere"}, SiteError, "nowhere"),
        ({"ways": ["magic"]}, InterpError, "magic"),
        ({"n_random": 0}, InterpError, "0 n random"),
        ({"n_unlabelled": [0]}, InterpError, "0 unlabelled pictures"),
        ({"target": "sketch"}, InterpError, "sketch as source and as target"),
    ],
)
def test_bad_requests_are_refused(options: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        shifted(Biased(), pictures(), **options)


def test_pictures_of_no_seen_class_cannot_be_fitted_on() -> None:
    images = pictures()
    with pytest.raises(SampleError, match="no seen class"):
        shifted(Biased(), images, fitted_on=images.select(label=list(HELD_OUT)))


def test_the_parts_that_carry_the_vector_are_found_and_needed() -> None:
    images = pictures()
    for method in circuits.CHOSEN_BY:
        found = circuits.shift_parts(
            Biased(), images, site="hook_embedding", fitted_on=images, chosen_by=[method], **ASKED
        )
        assert {*found.facts["parts"][method][:4]} == {0, 1, 2, 3}, method
        rows = found.frame.set_index(["n_parts", "moved"])["value"]
        assert rows[4, "only these"] == 1 and rows[4, "all but these"] == 0, method
        null = found.frame.set_index(["n_parts", "moved"])["null"]
        assert null[1, "only these"] < 0.3 and null[1, "all but these"] > 0.5, method


def test_parts_of_a_site_with_heads_are_heads() -> None:
    planted = circuits.planted_vit("all shared", seed=1)
    images, tower = planted.pictures(4), open_tower(planted.source)
    names = list(planted.classifier.names)
    model = SimpleNamespace(
        visual=tower, preprocess=planted.preprocess, zero_shot=lambda *_: planted.classifier
    )
    site = "blocks.1.attn.hook_z"
    found = circuits.shift_parts(
        model, images, site=site, source="A", target="B", held_out=names[:3], class_names=names,
        fitted_on=images, chosen_by=["length"], n_random=2,
    )  # fmt: skip
    _, cache = tower.run_with_cache(images.tensors(planted.preprocess, [0]), names_filter=[site])
    assert len(found.facts["parts"]["length"]) == cache[site].shape[2]


def test_each_class_s_rise_is_that_by_hand() -> None:
    clip, images = toy_shift()
    how = {"source": "sketch", "target": "real", "held_out": ["c", "d"], "fitted_on": images}
    found = circuits.shift_by_class(clip, images, site="hook_embedding", **how).frame
    rise = found.set_index("label")["value"]
    x = {c: clip.preprocess(Image.new("RGB", (1, 1), (k, 1, 0))) for k, c in enumerate("abcd")}
    back = torch.tensor([2.0, 2.0, 0, 0, 1])
    head = clip.zero_shot(list("abcd"), ())
    change = {c: head((each - back)[None])[0] - head(each[None])[0] for c, each in x.items()}
    for number, name in enumerate("abcd"):
        others = [c for c in "ab" if c != name]
        own = np.mean([float(change[c][number] - change[c].mean()) for c in others])
        assert rise[name] == pytest.approx(own, abs=1e-6)
    loss = found.set_index("label")["before"]
    assert loss[["c", "d"]].tolist() == [-1, -1] and loss[["a", "b"]].tolist() == [0, 0]

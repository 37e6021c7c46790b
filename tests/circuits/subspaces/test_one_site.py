"""DAS on towers of one site, where every direction is known: lanes, readers, noise and loudness."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from interp.circuits import Chain, Classifier, das, fit_subspace
from interp.circuits.subspaces.subspace import effective, pattern
from tests.circuits.conftest import Function
from tests.tables import image_table

N_CLASSES, PER_CLASS, D = 6, 24, 20
CODES = np.random.default_rng(9).normal(size=(N_CLASSES, 5))
CODES = (CODES - CODES.mean(axis=0)) / CODES.std()
TURN = np.linalg.qr(np.random.default_rng(7).normal(size=(D, D)))[0]
NAMES = tuple(f"class {number}" for number in range(N_CLASSES))
IN_B = 19
"""The direction that says which domain it is."""

Lay = Callable[[np.ndarray, bool], np.ndarray]


def separate(code: np.ndarray, in_a: bool) -> np.ndarray:
    """A's classes lie along directions 0 to 4, B's along 5 to 9."""
    nothing = np.zeros_like(code)
    return np.hstack([code, nothing] if in_a else [nothing, code])


def one(scale_in_b: float = 1.0, offset_in_b: float = 0.0, loud: float = 1.0) -> Lay:
    """All classes lie along 0 to 4; the last two may be loud, and B quiet or elsewhere."""

    def lay(code: np.ndarray, in_a: bool) -> np.ndarray:
        code = code * np.array([1, 1, 1, loud, loud])
        return code if in_a else scale_in_b * code + offset_in_b

    return lay


def head(code: Tensor) -> Tensor:
    scores = code @ torch.from_numpy(CODES).T / 5
    return torch.cat([scores, torch.ones_like(scores[:, :1])], dim=1)


def of_the_sum(h: Tensor) -> Tensor:
    return head(h[:, :5] + h[:, 5:10])


def by_domain(h: Tensor) -> Tensor:
    in_b = (h[:, IN_B:] > 0.5).to(h)
    return head((1 - in_b) * h[:, :5] + in_b * h[:, 5:10])


def of_the_first(loud: float = 1.0) -> Callable[[Tensor], Tensor]:
    return lambda h: head(h[:, :5] / torch.tensor([1, 1, 1, loud, loud]))


def verdicts(lay: Lay, reader: Callable[[Tensor], Tensor], noise: float) -> pd.DataFrame:
    """What `das` says of a site laid out so, with isotropic noise, and read so."""
    draw, rows, places = np.random.default_rng(1), [], []
    label = np.repeat(np.arange(N_CLASSES), PER_CLASS)
    for domain in "AB":
        h = noise * draw.normal(size=(len(label), D))
        laid = lay(CODES[label], domain == "A")
        h[:, : laid.shape[1]] += laid
        h[:, IN_B] += domain == "B"
        places.append(h @ TURN.T)
        rows += [(domain, NAMES[each], f"artist {n % 8}") for n, each in enumerate(label)]
    site = torch.from_numpy(np.concatenate(places))

    def preprocess(image: Image.Image) -> Tensor:
        return site[int(image.info["path"])][None].clone()

    turn = torch.from_numpy(TURN)
    return das(
        Chain([nn.Identity()], pool=Function(lambda stream: reader(stream[:, 0] / 2 @ turn))),
        image_table(rows, "domain label artist"),
        domain_a="A",
        domain_b="B",
        classifier=Classifier(torch.eye(N_CLASSES, N_CLASSES + 1).double(), NAMES),
        sites="hook_embed",
        preprocess=preprocess,
        where={"pos": 0},
        n=48,
        steps=20,
        class_free=(),  # pictures have no pixels here
    ).frame


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1, 0.3])
def test_two_codes_with_one_reader_are_not_called_shared(noise: float) -> None:
    """What is read is the same, and does the work in both; how the classes lie is not."""
    found = verdicts(separate, of_the_sum, noise)
    assert set(found["verdict"]) == {"unknown"}
    if noise < 0.3:  # index and p would be the reader's
        assert found[["index", "p"]].isna().all(axis=None)
    assert found["reason"].str.startswith("one reader may take two codes").all()
    assert (found["varied"] < 0.2 * found["ceiling"]).all()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_two_codes_with_two_readers_are_not_shared(noise: float) -> None:
    assert set(verdicts(separate, by_domain, noise)["verdict"]) == {"not shared"}


@pytest.mark.parametrize(
    ("lay", "reader", "least"),  # over eight draws of pictures to fit on at least .89, .99
    [
        (one(), of_the_first(), 0.99),
        (one(scale_in_b=0.3), of_the_first(), 0.88),
        (one(offset_in_b=0.5), of_the_first(), 0.99),
        (one(loud=20), of_the_first(loud=20), 0.99),  # a few directions far louder, read as less
    ],
    ids=["plain", "quiet in B", "elsewhere in B", "partly loud"],
)
def test_one_code_is_shared_however_loud_and_wherever(lay, reader, least) -> None:
    found = verdicts(lay, reader, noise=0.05)
    narrow = found["reason"].str.startswith("the site is so narrow")  # six classes are few
    assert ((found["index"] > least) | narrow).all() and (found["share_of_whole"] > least).all()
    assert (found["value"] > least * found["ceiling"]).all()
    assert ((found["verdict"] == "shared") | narrow).all(), found["reason"].tolist()
    assert (found["varied"] > 0.5 * found["ceiling"]).all()


def test_pairs_may_come_in_any_order() -> None:
    """Directions are looked for among gradients of pairs from the whole list, not its first."""
    draw = torch.Generator().manual_seed(0)
    base, source = torch.randn(2, 800, 1, 8, generator=draw).double()
    source[:400, :, 4:] = base[:400, :, 4:]  # the first half differs along 0 to 3 alone
    source[400:, :, :4] = base[400:, :, :4]
    tower = Chain([nn.Identity()], pool=Function(lambda stream: stream[:, 0].tanh()))

    def far(outputs: Tensor) -> Tensor:
        return outputs.square().sum(dim=1)

    found = fit_subspace(
        tower, "hook_embed", base=base, source=source, metric=far, k=7, steps=1, batch_size=800
    )
    assert found.facts["within"] == 8


def test_what_is_read_and_how_it_lies() -> None:
    """A reader of the sum of two directions, of which one varies: the reader, and the direction."""
    felt = torch.tensor([[1.0, 1.0, 0.0]]).double()
    moved = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    moved *= torch.tensor([1.0, 1e-3, 5.0])
    reader = effective(felt, moved, span=0.999)
    torch.testing.assert_close(reader.abs().T, torch.tensor([[1.0, 1.0, 0.0]]).double() / 2**0.5)
    moved[:, 2] -= moved[:, 0] * (moved[:, 0] @ moved[:, 2]) / moved[:, 0].square().sum()
    assert float(pattern(reader, moved)[0].abs()) > 0.99
    assert effective(torch.zeros(4, 3).double(), moved, span=0.999).isfinite().all()

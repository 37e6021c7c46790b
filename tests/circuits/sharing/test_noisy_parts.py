"""R5 and R6 where units are noisy: what noise lifts into a circuit is no sharing."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from interp.circuits import (
    Chain,
    ClassCircuits,
    Classifier,
    Units,
    circuit_transfer,
    class_circuits,
    overlap,
)
from interp.circuits.sharing.overlap_measures import PRIMARY_OVERLAP
from interp.core.images import ImageTable
from interp.verdicts.rungs import RUNGS
from tests.tables import image_table

CLASSES, PARTS, IDLE, PICTURES = 10, 20, 100, 16
ZERO, ONE = 100, 40  # how a picture of 8 bits, a unit a pixel, says 0 and how much more it says 1


def parts(domain: str, dose: float) -> np.ndarray:
    """The units of every class in a domain, `class part`: a share of them is the other's too."""
    common = round(dose * PARTS)
    own = np.arange(CLASSES)[:, None] * 2 * PARTS + np.arange(PARTS)
    own[:, common:] += PARTS * (domain == "B")
    return own


def pictures(dose: float, noise: float, seed: int) -> ImageTable:
    """A class's units in a domain are 1, all others 0, and noise is added to every one."""
    draw, rows, shown = np.random.default_rng(seed), [], []
    for domain in "AB":
        for label, units in enumerate(parts(domain, dose)):
            for number in range(PICTURES):
                value = noise * draw.normal(size=CLASSES * 2 * PARTS + IDLE)
                value[units] += 1
                shown.append((ZERO + ONE * value).clip(0, 255).round().astype(np.uint8)[None])
                rows.append((f"c{label}", domain, f"artist {number % 8}"))
    read = lambda row: Image.fromarray(shown[int(row["path"])])  # noqa: E731
    return image_table(rows, "label domain artist", read)


class Reader(nn.Module):
    """Every class is the mean of its units, whichever domain they serve."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(CLASSES, CLASSES * 2 * PARTS + IDLE)
        for label in range(CLASSES):
            weight[label, 2 * PARTS * label : 2 * PARTS * (label + 1)] = 1 / PARTS
        self.weight = nn.Parameter(weight)

    def forward(self, stream: Tensor) -> Tensor:
        return stream @ self.weight.T


def read(picture: Image.Image) -> Tensor:
    grey = np.asarray(picture, dtype=np.float32)[..., 0]  # pictures are read as RGB
    return (torch.from_numpy(grey).flatten() - ZERO) / ONE


@cache
def found(dose: float, noise: float) -> tuple[ClassCircuits, ClassCircuits]:
    images = pictures(dose, noise, seed=1)
    tower = Chain([nn.Identity()], pool=Reader(), axes=("batch", "channel"))
    cut = Units.of(tower, "hook_embed", torch.zeros(1, CLASSES * 2 * PARTS + IDLE))
    head = Classifier(torch.eye(CLASSES), [f"c{label}" for label in range(CLASSES)])
    a, b = (
        class_circuits(cut, images, domain=domain, classifier=head, preprocess=read)
        for domain in "AB"
    )
    return a, b


def wired(dose: float, noise: float) -> pd.DataFrame:
    frames = [circuit_transfer(*found(dose, noise), removed=removed) for removed in (False, True)]
    return RUNGS["R6"].judged.select(pd.concat([table.frame for table in frames]))


@pytest.mark.parametrize("noise", [0.3, 0.5])
def test_noise_makes_no_wiring(noise: float) -> None:
    """B's units write to the class, so noise lifts some into A's circuit, and into its readout."""
    told = wired(0.0, noise)
    assert set(told["verdict"]) <= {"not shared", "unknown"}
    assert (told["value"] > 0.1).all() and told["null_kind"].str.startswith("the class's").all()
    assert (told["index_low"] < 0.02).all()


def test_the_readout_is_not_asked_where_circuits_do_no_more_than_another_classs() -> None:
    """It may do something all the same, and as a null it would leave such a pair without answer."""
    told = circuit_transfer(*found(0.0, 0.3)).frame.query("share == 0.05")
    assert told["null_kind"].str.startswith("circuits of other classes").all()
    assert (told["value"] > 0.02).all() and (told["null"] < 0.005).all()


@pytest.mark.parametrize("noise", [0.1, 0.5])
@pytest.mark.parametrize("dose", [0.3, 0.6])
def test_a_dose_is_told_through_noise(dose: float, noise: float) -> None:
    kept = circuit_transfer(*found(dose, noise)).frame
    kept = RUNGS["R6"].measures[1].select(kept)
    row = overlap(*found(dose, noise), measures=[PRIMARY_OVERLAP], n_permutations=99).frame.iloc[0]
    assert {*kept["verdict"], row["verdict"]} == {"partly shared"}
    assert kept["index"].tolist() == pytest.approx([dose] * 2, abs=0.1)
    assert row["index"] == pytest.approx(dose, abs=0.1)


@pytest.mark.slow
def test_all_and_nothing_are_told() -> None:
    assert set(wired(1.0, 0.1)["verdict"]) == {"shared"}
    nothing = wired(0.0, 0.1)
    assert set(nothing["verdict"]) == {"not shared"} and (nothing["index"].abs() < 0.1).all()


def test_necessity_is_not_held_against_the_other_domains_own_parts() -> None:
    """What is left beside A's circuit are B's units, and idle ones: only these may be the null."""
    table = circuit_transfer(*found(0.0, 0.1), removed=True).frame
    assert (table["null"].abs() < 0.05).all() and (table["ceiling"] > 0.85).all()


def test_what_is_lifted_reaches_the_least_of_its_circuit() -> None:
    a, _ = found(0.3, 0.5)
    lifted, kept = a.lifted(0.1), a.masks(0.1)
    assert lifted is not None and a.scores.readout is not None
    own, absent = (np.abs(each.means(a.classes)) for each in (a.scores, a.scores.readout))
    for label in range(CLASSES):
        for half in (0, 1):
            least = own[label, half][kept[label, half]].min()
            assert (lifted[label, half] == (absent[label, half] >= least)).all()
    assert 0 < lifted.sum() < kept.sum()

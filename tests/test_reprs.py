"""What stands in a notebook's cell: short reprs, pictures, and figures of tables."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from interp import circuits, load_clip, probes
from interp.circuits import Attribution, Chain, wire
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable
from interp.core.progress import set_quiet
from interp.core.tables import Table

NAMES = ("red", "lime", "blue", "white", "yellow", "cyan")


@pytest.fixture(scope="module")
def images() -> ImageTable:
    rows = [(c, d, a) for c in NAMES for d in ("real", "sketch") for a in "wxyz"]
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    frame = frame.assign(path=[f"{n}.png" for n in range(len(rows))], split="test", caption="")
    return ImageTable(frame, source="colours",
                      reader=lambda row: Image.new("RGB", (300, 200), row["label"]))  # fmt: skip


def read(image: Image.Image) -> torch.Tensor:
    return torch.tensor([image.getpixel((0, 0))]) / 255


def test_reprs_are_short(images: ImageTable) -> None:
    features = probes.collect(Chain([torch.nn.Identity()] * 8), images, "*", preprocess=read)
    wiring = wire(Chain([torch.nn.Identity()] * 8))
    scores = Attribution(wiring, np.zeros((3, wiring.n_edges)), "EAP", "margin")
    for thing, most in ((images, 1), (images.pairs(), 1), (features, 5), (scores, 1), (wiring, 1)):
        assert len(repr(thing).splitlines()) <= most and len(repr(thing)) < 400
    assert repr(images).startswith("ImageTable: 48 pictures (48 test) of 6 classes in real")
    assert repr(Table("loss", pd.DataFrame({"loss": [1.0]}))) == "Table 'loss': 1 rows of loss"


def test_pictures_are_shown_small_with_what_they_are(images: ImageTable) -> None:
    shown = images[5:]._repr_html_()
    assert shown.count("<img") == 8 and "lime, sketch" in shown and len(shown) < 20_000
    both = images.pairs(clean="real", n=3)._repr_html_()
    assert both.count("<img") == 6 and both.index("real</small>") < both.index("sketch</small>")


def test_a_table_draws_itself_as_the_page_would(images: ImageTable) -> None:
    features = probes.collect(Chain([torch.nn.Identity()] * 3), images, "*", preprocess=read)
    table = probes.similarity(features, n_permutations=19, n_splits=1)
    figure = table.plot()
    assert "Shared geometry" in figure.layout.title.text
    assert "n = 6" in figure.layout.meta["caption"]
    with pytest.raises(SpecificationError, match="no figure of the page"):
        Table("loss", pd.DataFrame({"loss": [1.0]})).plot()


def test_a_table_is_no_reason_to_load_the_report() -> None:
    code = "import sys, json, interp.core.tables; print(json.dumps('interp.report' in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) is False


def test_reprs_name_what_things_are_of() -> None:
    head = circuits.Classifier(torch.eye(3), ("red", "lime", "blue"), scale=10.0)
    assert repr(head) == "Classifier(3 classes: red, lime, blue; scale 10)"
    target = circuits.Target(head, labels=["red", "blue"], foils=["lime", "red"])
    assert repr(target) == f"Target(2 examples, with foils; {head!r})"
    directions = circuits.Subspace("blocks.0.hook_resid_post", ("batch", "d_model"), torch.eye(3))
    assert repr(directions) == "Subspace(3 of 3 directions of blocks.0.hook_resid_post)"
    ones = torch.ones(2)
    dictionary = probes.Dictionary(torch.eye(2), torch.eye(2), ones, ones, ones, k=1)
    assert repr(dictionary) == "Dictionary(2 features of 2 units, at most 1 at a time)"
    assert repr(circuits.METRICS).splitlines()[1].startswith("margin             Logit of the own")


def test_a_clips_repr_says_where_its_weights_are_from_and_a_towers_shows_every_site(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_quiet(False)
    clip = load_clip("RN50")
    set_quiet(True)
    for tower in (clip.visual, clip.text):
        lines = repr(tower).splitlines()
        assert len(lines) <= 15
        for site in tower.sites:
            assert any(site.rpartition(".")[2] in line for line in lines), site
    assert repr(clip) == "Clip('RN50', random weights, cpu, torch.float32)"
    assert "no pretrained= is given" in capsys.readouterr().err

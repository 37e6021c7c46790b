"""The script for the paper's checkpoints, on a random model and squares of colour."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.benchmarks.paper_checkpoints import main


@pytest.mark.long
def test_the_script_writes_both_tables_of_every_checkpoint(tmp_path: Path) -> None:
    generator, images = np.random.default_rng(0), tmp_path / "images"
    for domain in ("real", "sketch"):
        for label in ("cat", "dog", "owl", "fox"):
            folder = images / domain / label
            folder.mkdir(parents=True)
            for number in range(5):
                color = tuple(int(c) for c in generator.integers(0, 255, size=3))
                Image.new("RGB", (16, 16), color).save(folder / f"{number}.png")
    (tmp_path / "held_out.txt").write_text("owl\nfox\n")
    given = {"images": images, "held-out": tmp_path / "held_out.txt", "out": tmp_path / "out.csv"}
    options = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    main(["ViT-B-32", *options, "--domains", "real,sketch", "--most", "2"])
    made = pd.read_csv(tmp_path / "out.csv")
    assert {*made["table"]} == {"decision_bias", "domain_shift"}
    assert {*made.query("table == 'domain_shift'")["dose"]} == {-1, 0.5, 1, 1.5, 2}
    assert (made["checkpoint"] == "ViT-B-32").all()
    assert {"excess bias", "AUSUC", "balanced top-1"} <= {*made["measure"]}

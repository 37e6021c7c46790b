"""Result folders whose truth is planted: which settings generalize, and which share."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.core.illustrations import Plate
from interp.core.statistics.index_of_sharing import (
    AMOUNT,
    GEOMETRY,
    AnswerBars,
    verdict_of_interval,
)
from interp.core.tables import Table
from interp.report.grammar.pieces import Figure
from interp.report.loaded import LoadedResult, read_result
from interp.report.page_model import PageModel, page_model
from interp.report.sections import draw_figure, page_sections
from interp.verdicts.judging import climb
from interp.verdicts.rungs import RUNGS
from tests.report.planted import evaluation_tables
from tests.report.planted_ladder import ladder_tables
from tests.report.planted_layers import layer_tables

SETTINGS: tuple[str, ...] = ("natural-only", "leave-out-domain", "cg-low", "cg-high")
DOMAINS = ("real", "clipart", "painting", "sketch")
SITES = {
    "pixels": 0.0,
    "stem.hook_pool": 0.0,
    "layer1.0.hook_resid_post": 0.2,
    "layer2.0.hook_resid_post": 0.4,
    "layer3.0.hook_resid_post": 0.6,
    "layer4.0.hook_resid_post": 0.8,
    "hook_embedding": 1.0,
}
ACCURACY: dict[str, float] = dict(zip(SETTINGS, (0.08, 0.31, 0.22, 0.46), strict=True))
INDEX: dict[str, float] = dict(zip(SETTINGS, (0.05, 0.66, 0.35, 0.81), strict=True))
MIDDLE = [site for site, depth in SITES.items() if 1 / 3 <= depth <= 2 / 3]

EVIDENCE: Mapping[str, object] = {
    "null": 0.0, "null_kind": "whole classes permuted", "ceiling": 0.9,
    "ceiling_kind": "artist halves within a domain", "p": 0.01, "unit": "class", "n_units": 45,
    "n_pictures": 1080, "n_drawings": 180, "n_runs": 1, "estimand": "similarity", "seed": 0,
    "reason": "", "control": "",
}  # fmt: skip

Build = Callable[..., Path]

SPECS = {figure.name: figure for section in page_sections() for figure in section.figures}


def figure_of(page: PageModel, name: str) -> Figure | None:
    """The page's figure of a name."""
    return draw_figure(page, SPECS[name])


def page_of(tables: Mapping[str, pd.DataFrame], *tests: str) -> PageModel:
    """What a page of a study is drawn from, of these tables and test domains."""
    facts = {"mode": "study", "specification": {"natural": "real", "test_domains": list(tests)}}
    named = {name: Table(name, frame) for name, frame in tables.items()}
    return page_model(LoadedResult(Path(), facts, named))


def read(folder: Path) -> PageModel:
    """What a page is drawn from, of a result's folder."""
    return page_model(read_result(folder))


def index_row(
    index: float, half: float = 0.07, bars: AnswerBars = AMOUNT, **more: object
) -> dict[str, object]:
    """A row of evidence with an index, its interval and the verdict that follows."""
    known = bool(np.isfinite(index))
    return {
        **EVIDENCE,
        "value": 0.9 * index,
        "low": 0.9 * (index - half),
        "high": 0.9 * (index + half),
        "index": index,
        "index_low": index - half,
        "index_high": index + half,
        "verdict": verdict_of_interval(index - half, index + half, bars) if known else "unknown",
        "reason": "" if known else "ceiling - null is below 3 standard errors",
        **more,
    }


def shaped(index: float, depth: float) -> float:
    """An index that rises towards the middle and stays there."""
    return round(index * min(1.0, 0.4 + 1.8 * depth), 4)


def study_tables(
    accuracy: Mapping[str, float], index: Mapping[str, float], rung4: Mapping[str, float] | None
) -> dict[str, pd.DataFrame]:
    """All tables of a study with the test domain sketch."""
    tables = {
        "accuracy": _accuracy(accuracy),
        "accuracy_by_class": _by_class(accuracy),
        "differences": _differences(accuracy),
        "mixtures": _mixtures(),
        "losses": pd.DataFrame(
            [
                {"setting": s, "test_domain": "sketch", "epoch": e, "loss": 4 / e + n / 10}
                for n, s in enumerate(accuracy)
                for e in range(1, 9)
            ]
        ),
        "similarity": _similarity(index),
        "transfer": _transfer(index),
        **({"transplant": _transplant(rung4)} if rung4 else {}),
        "patching": _patching(index),
        "patching_examples": _examples(index),
        "certificate": certificate(),
        **evaluation_tables(accuracy),
        **layer_tables(index, SITES),
    }
    return tables | ladder_tables(tables, index, SITES, rung4)


def _accuracy(accuracy: Mapping[str, float]) -> pd.DataFrame:
    rows = []
    for setting, value in accuracy.items():
        for domain in DOMAINS:
            for classes, shift in (("held-out", 0.0), ("seen", 0.15), ("all", 0.1)):
                for candidates, chance in (("all", 1 / 60), ("held-out", 1 / 15)):
                    if candidates == "held-out" and classes != "held-out":
                        continue
                    for number, prompts in enumerate(("neutral", "domain-averaged")):
                        for control in ("", "epoch 0"):
                            own = value + shift + 0.1 * (domain != "sketch") - 0.02 * number
                            own += 0.2 * (candidates == "held-out")
                            reached = chance if control else own
                            rows.append(
                                {"setting": setting, "test_domain": "sketch", "domain": domain}
                                | {"class_set": classes, "candidates": candidates}
                                | {
                                    "prompts": prompts,
                                    "control": control,
                                    "epoch": 0 if control else 8,
                                }
                                | {"value": reached, "low": reached * 0.8, "high": reached * 1.2}
                                | {"null": chance, "null_kind": "chance", "unit": "class"}
                                | {"n_units": 15, "n_pictures": 240, "n_drawings": 30}
                                | {"n_runs": 1, "seed": 0}
                            )
    return pd.DataFrame(rows)


def _by_class(accuracy: Mapping[str, float]) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"setting": s, "test_domain": "sketch", "domain": "sketch", "label": f"class_{c:02d}"}
            | {"prompts": "neutral", "candidates": "all", "control": "", "n_pictures": 16}
            | {"value": float(np.clip(a + generator.normal(0, 0.15), 0, 1))}
            for s, a in accuracy.items()
            for c in range(15)
        ]
    )


def _differences(accuracy: Mapping[str, float]) -> pd.DataFrame:
    rows = []
    for better, worse in (("leave-out-domain", "natural-only"), ("cg-high", "cg-low")):
        if better in accuracy and worse in accuracy:
            value = accuracy[better] - accuracy[worse]
            rows.append(
                {"setting": f"{better} − {worse}", "test_domain": "sketch", "prompts": "neutral"}
                | {"candidates": "all", "value": value, "low": value - 0.08, "high": value + 0.08}
                | {"p": 0.01, "unit": "class", "n_units": 15, "n_runs": 1, "estimand": "difference"}
            )
    return pd.DataFrame(rows)


def _mixtures() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "setting": setting,
                "test_domain": "sketch",
                "domain": domain,
                "n_pictures": 600 + 100 * n,
            }
            | {"steps": 1200}
            for setting, domains in (
                ("natural-only", DOMAINS[:1]),
                ("leave-out-domain", DOMAINS[:-1]),
                ("cg-low", ("real", "sketch")),
                ("cg-high", DOMAINS),
            )
            for n, domain in enumerate(domains)
        ]
    )


def _similarity(index: Mapping[str, float]) -> pd.DataFrame:
    rows = []
    for setting, middle in index.items():
        for control in ("", "epoch 0"):
            for site, depth in SITES.items():
                if site == "pixels" and control:
                    continue
                for n, a in enumerate(DOMAINS):
                    for m, b in enumerate(DOMAINS[n + 1 :]):
                        own = 0.06 + 0.1 * depth if control else shaped(middle, depth)
                        primary = (a, b) == ("real", "sketch")
                        shift = 0 if primary else 0.02 * m - 0.03 * n
                        rows.append(
                            index_row(0.12 if site == "pixels" else own + shift, bars=GEOMETRY)
                            | {"measure": "debiased CKA", "site": site, "layer": int(depth * 5)}
                            | {"depth": depth, "domain_a": a, "domain_b": b}
                            | {"setting": setting, "test_domain": "sketch"}
                            | {"control": "pixels" if site == "pixels" else control}
                        )
    return pd.DataFrame(rows)


def _transfer(index: Mapping[str, float]) -> pd.DataFrame:
    rows = []
    for setting, middle in index.items():
        for site, depth in SITES.items():
            for a in DOMAINS:
                for b in DOMAINS:
                    for centred in (False, True):
                        own = shaped(middle, depth) * (0.8 if not centred else 0.9)
                        own = 0.1 if site == "pixels" else own
                        keys = {"measure": "probe transfer", "site": site, "depth": depth}
                        keys |= {"train_domain": a, "domain": b, "centred": centred}
                        keys |= {
                            "setting": setting,
                            "test_domain": "sketch",
                            "layer": int(depth * 5),
                        }
                        keys |= {"control": "pixels" if site == "pixels" else ""}
                        row = index_row(own, null=1 / 45)
                        if a == b:
                            row |= {"value": 0.6, "low": 0.55, "high": 0.65, "ceiling": np.nan}
                            row |= {"index": np.nan, "index_low": np.nan, "index_high": np.nan}
                            row |= {"verdict": "", "reason": "one domain: rung R1 has no index"}
                        rows.append(row | keys)
    return pd.DataFrame(rows)


def _transplant(index: Mapping[str, float]) -> pd.DataFrame:
    cut = "a complete cut: patched whole, the site carries all of the donor's run"
    return pd.DataFrame(
        [
            index_row(shaped(middle, depth) if site in MIDDLE else np.nan)
            | ({} if site in MIDDLE else {"reason": cut})
            | {"measure": "activation transplant", "site": site, "layer": int(depth * 5)}
            | {"depth": depth, "domain_a": a, "domain_b": b, "setting": setting}
            | {"test_domain": "sketch"}
            for setting, middle in index.items()
            for site, depth in SITES.items()
            if site != "pixels"
            for a, b in (("real", "sketch"), ("sketch", "real"))
        ]
    )


PAIRINGS = ("same label, other domain; aligned", "other label, same domain; aligned")


def _patching(index: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            index_row(0.1 + 0.8 * depth * middle)
            | {"measure": "activation patching, denoise", "pairing": pairing, "metric": "margin"}
            | {"site": site, "layer": int(depth * 5), "depth": depth, "setting": setting}
            | {"test_domain": "sketch", "null": 0.1, "ceiling": 2.1}
            for setting, middle in index.items()
            for pairing in PAIRINGS
            for site, depth in SITES.items()
            if site != "pixels"
        ]
    )


def _examples(index: Mapping[str, float]) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {"measure": "activation patching, denoise", "pairing": pairing, "metric": "margin"}
            | {"site": site, "depth": depth, "setting": setting, "test_domain": "sketch"}
            | {"example": n, "value": float(2 * depth * middle - 1 + generator.normal(0, 0.4))}
            | {"clean_metric": 1.0, "corrupt_metric": -1.0, "clean_label": f"class_{n % 15:02d}"}
            for setting, middle in index.items()
            for pairing in PAIRINGS
            for site, depth in SITES.items()
            if site != "pixels"
            for n in range(96)
        ]
    )


def certificate() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"tower": "visual", "site": site, "check": check, "dtype": dtype, "error": error}
            | {"bar": bar, "ok": error <= bar, "n": 4096}
            for check, dtype, error, bar in (
                ("forward, grad", "float32", 3e-7, 5e-6),
                ("forward, no grad", "float32", 4e-7, 5e-6),
                ("forward", "float64", 0.0, 1e-12),
                ("gradients", "float64", 2e-14, 1e-10),
            )
            for site in SITES
        ]
    )


FACTS: Mapping[str, Any] = {
    "title": "The embedded study",
    "question": "Does CLIP recognise classes in sketches that it saw only in other domains, and is "
    "that because the domains share representations?",
    "command": "interp-report run study.toml --out interp-report",
    "specification": {
        "settings": list(SETTINGS), "test_domains": ["sketch"], "natural": "real", "seed": 0,
        "held_out": [f"class_{c:02d}" for c in range(15)], "n_classes": 60,
        "architecture": "small-resnet",
    },
    "spec_hash": "0f1e2d3c4b5a6978",
    "versions": {"interp": version("interp"), "torch": "2.8.0", "open_clip_torch": "3.3.0"},
    "seconds": {"pictures": 61.2, "train": 402.7, "evaluate": 12.9, "similarity": 31.0},
    "machine": {"cores": 2, "device": "cpu"},
    "seed": 0,
    "source": "embedded artwork",
    "source_hash": "99aa88bb77cc66dd",
    "credits": [
        {"artist": "Lucide", "licence": "ISC", "url": "https://lucide.dev", "drawings": 60},
        {"artist": "Nobody", "licence": "MIT", "url": "javascript:alert(1)", "drawings": 12},
    ],
    "mode": "study",
    "strays": "3 files skipped: notes.txt, .DS_Store, broken.png",
}  # fmt: skip


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of planted tables, each written once in a test run."""
    once: dict[str, Path] = {}

    def write(*planted: Any) -> Path:
        key = str(planted)
        if key not in once:
            once[key] = tmp_path_factory.mktemp("tables")
            for table, frame in study_tables(*planted).items():
                Table(table, frame).save(once[key])
        return once[key]

    return write


@pytest.fixture
def build(tmp_path: Path, written: Callable[..., Path]) -> Build:
    """Write a result folder: planted numbers, tables left out or replaced, facts changed."""

    def write(
        *,
        accuracy: Mapping[str, float] = ACCURACY,
        index: Mapping[str, float] = INDEX,
        rung4: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
        replaced: Mapping[str, pd.DataFrame] | None = None,
        plates: bool = True,
        sheets: bool = False,
        name: str = "result",
        **facts: object,
    ) -> Path:
        folder = tmp_path / name
        shutil.copytree(written(accuracy, index, rung4), folder / "tables")
        (folder / "facts.json").write_text(json.dumps({**FACTS, **facts}))
        for table, frame in dict(replaced or {}).items():
            Table(table, frame).save(folder / "tables")
        if replaced and not {"ladder", "rungs"} & set(replaced):
            _climb_again(folder / "tables")
        for table in without:
            for path in (folder / "tables").glob(f"{table}.*"):
                path.unlink()
        if plates:
            _plates(folder / "plates")
        if sheets:
            _sheets(folder / "plates")
        return folder

    return write


@pytest.fixture(scope="session")
def read_once() -> dict[str, PageModel]:
    return {}


@pytest.fixture
def loaded(build: Build, read_once: dict[str, PageModel]) -> Callable[..., PageModel]:
    """The planted study as the page reads it, read once in a test run; nobody changes it."""

    def load(**planted: Any) -> PageModel:
        key = str(planted)
        if key not in read_once:
            read_once[key] = read(build(**planted))
        return read_once[key]

    return load


def _climb_again(folder: Path) -> None:
    """Judge the rungs by the tables as they now are, as a run would have."""
    judged = {rung.judged.table for rung in RUNGS.values()}
    paths = [folder / f"{name}.csv" for name in sorted(judged)]
    frames = {path.stem: Table.load(path).frame for path in paths if path.exists()}
    for name, frame in climb(frames).items():
        Table(name, frame).save(folder)


def _plates(folder: Path) -> None:
    for n, domain in enumerate(DOMAINS):
        tiles = np.random.default_rng(n).integers(0, 255, (2, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(np.kron(tiles, np.ones((48, 48, 1), dtype=np.uint8)))
        plate = Plate(f"domain-{domain}", picture, f"16 classes in {domain}", {"domain": domain})
        plate.save(folder)


def _sheets(folder: Path) -> None:
    """What newer studies keep: a picture of every class, and those that patching moves."""
    for n, domain in enumerate(DOMAINS):
        labels = [f"class_{c:02d}" if (c + n) % 7 else "" for c in range(60)]
        tiles = np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(np.kron(tiles, np.ones((40, 40, 1), dtype=np.uint8)))
        keys = {"kind": "cells", "domain": domain, "labels": json.dumps(labels)}
        keys |= {"columns": "8", "size": "40"}
        Plate(f"cells-{n}", picture, f"A picture of each class in {domain}", keys).save(folder)
    keys = {"kind": "moved", "setting": "cg-high"}
    Plate("moved", Image.new("RGB", (606, 297), "white"), "cg-high: moved", keys).save(folder)
    named = {"nodes": json.dumps(["a0.h1", "m1"]), "domains": json.dumps(["real", "sketch"])}
    cut = {"kind": "nodes", "setting": "natural-only", "test_domain": "sketch", **named}
    strips = Image.new("RGB", (270, 86), "white")
    Plate("nodes", strips, "natural-only: nodes", {**cut, "each": "3", "size": "40"}).save(folder)
    units = {"kind": "units", "setting": "cg-high"}
    Plate("units", Image.new("RGB", (690, 588), "white"), "cg-high: units", units).save(folder)


@pytest.fixture
def study_frames() -> Callable[[], dict[str, pd.DataFrame]]:
    """The planted tables themselves, to compare figures with."""
    return lambda: study_tables(ACCURACY, INDEX, INDEX)

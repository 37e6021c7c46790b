"""Two studies of what is known and what is said: doses of the cause, and graded domains.

python -m tests.benchmarks.graded doses FOLDER      large/doses.toml, and classes and batches
python -m tests.benchmarks.graded domains FOLDER    large/graded.toml, on pictures drawn here

FOLDER keeps models and steps, so that either goes on where it stopped. The rows of all models are
written to doses.csv or graded.csv there, which are committed in large/.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from interp import circuits
from interp.circuits.domain_shift.vectors import SHIFT
from interp.core.parallel import side_by_side
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.sites import stream_sites
from interp.core.storage.store import complete
from interp.data.artwork.embedded import EmbeddedSpec, held_back_artists, study_classes
from interp.data.artwork.packages import Drawing, ink
from interp.data.artwork.rendering import render
from interp.measures.ladder import ladder_tables
from interp.measures.subject import Subject
from interp.models.training.train import train
from interp.study.blocks import open_blocks
from interp.study.checkpoint import Checkpoint
from interp.study.grid import Cell, Grid, distinct
from interp.study.specification import Specification
from interp.verdicts.levels.from_tables import RUN, from_tables

LARGE = Path(__file__).parent / "large"
BLOCKS = {"doses": range(8, 12), "domains": range(4)}
WRITTEN = {"doses": "doses.csv", "domains": "graded.csv"}
COUNTS = {"train": 200, "test": 16, "analysis": 16}
DRAWN = {
    "real": ("real", 1.0, False),
    "clipart": ("clipart", 1.0, False),
    "infograph": ("infograph", 1.0, False),
    "painting": ("painting", 1.0, False),
    "sketch_0": ("sketch", 0.0, False),
    "sketch_25": ("sketch", 0.25, False),
    "sketch_50": ("sketch", 0.5, False),
    "sketch_75": ("sketch", 0.75, False),
    "sketch_100": ("sketch", 1.0, False),
    "sketch_50_others": ("sketch", 0.5, True),
    "sketch_100_others": ("sketch", 1.0, True),
    "outline_others": ("quickdraw", 1.0, True),
}
"""Each domain's renderer, its strength against the photograph's, and whether its training drawings
are by other artists than the photographs'."""


def specifications(study: str, folder: Path) -> dict[str, Specification]:
    """The studies to train, by what is changed of the file."""
    if study == "domains":
        spec = Specification.from_toml(LARGE / "graded.toml")
        return {"": replace(spec, images=replace(spec.images, source=str(pictures(folder))))}
    spec = Specification.from_toml(LARGE / "doses.toml")
    plain = replace(spec, mixtures=replace(spec.mixtures, settings=spec.mixtures.settings[:2]))
    made = {"": spec}
    made |= {f"1/{n} held out": replace(plain, folds=n) for n in (4, 2)}
    for size in (32, 512):
        recipe = replace(spec.training, batch_size=size)
        made[f"batches of {size}"] = replace(plain, training=recipe)
    return made


def pictures(folder: Path) -> Path:
    """The table of the graded domains' pictures, drawn if it is not there."""
    root = folder / "pictures"
    classes = list(study_classes(EmbeddedSpec().n_classes).items())
    tasks = [(root, label, made) for label, made in classes]
    frames = side_by_side(_draw_class, tasks, jobs=2, what="draw")
    table = root / "pictures.csv"
    pd.concat(frames).to_csv(table, index=False)
    return table


def _draw_class(task: tuple[Path, str, list[Drawing]]) -> pd.DataFrame:
    root, label, made = task
    folder = root / label
    if not folder.exists():
        artists = sorted({drawing.artist for drawing in made})
        test = held_back_artists(label, artists, 0)
        order = rng(f"other artists/{label}", 0).permutation(sorted({*artists} - test))
        parts = {"test": test, "analysis": {*order}}
        rows = []
        with complete(folder) as temporary:
            for domain, (painter, strength, others) in DRAWN.items():
                parts["train"] = {*order[int(others) :: 2]}
                for split, count in COUNTS.items():
                    pool = [drawing for drawing in made if drawing.artist in parts[split]]
                    drawn = rng(f"graded/{label}/{domain}/{split}", 0)
                    for number in range(count):
                        drawing = pool[int(drawn.integers(len(pool)))]
                        name = f"{domain}-{split}-{number:03d}.png"
                        _blend(drawing, painter, strength, drawn).save(temporary / name)
                        row = (f"{label}/{name}", label, domain, split, drawing.artist)
                        rows.append((*row, drawing.name))
            columns = ["path", "label", "domain", "split", "artist", "drawing"]
            pd.DataFrame(rows, columns=columns).to_csv(temporary / "rows.csv", index=False)
    return pd.read_csv(folder / "rows.csv")


def _blend(drawing: Drawing, painter: str, strength: float, drawn: np.random.Generator):
    """A drawing as a photograph and as the painter has it, one laid over the other."""
    from PIL import Image

    seeds = {"warp_seed": int(drawn.integers(2**31)), "style_seed": int(drawn.integers(2**31))}
    photo, other = (
        render(ink(drawing), domain, **seeds)[0].astype(float) if share else 0.0
        for domain, share in (("real", 1 - strength), (painter, strength))
    )
    mixed = (1 - strength) * photo + strength * other
    return Image.fromarray(np.asarray(mixed).round().astype(np.uint8))


def cells(study: str, folder: Path) -> Iterator[tuple[str, Cell]]:
    """The trained models, by what was changed of the file."""
    for change, spec in specifications(study, folder).items():
        blocks = open_blocks(spec, 2, numbers=list(BLOCKS[study]))
        planned = Grid(spec).plan(folder / "steps", blocks=blocks)
        train(distinct(planned), jobs=2)
        yield from ((change, cell) for cell in planned)


def shifted(subject: Subject) -> pd.DataFrame:
    """The mean shift where the last block begins, both ways, with its random directions."""
    natural, other = subject.pair
    sites = stream_sites(subject.tower)
    apart = subject.images.select(split="analysis", domain=[natural, other])
    found = circuits.shift_domain(
        subject.clip, subject.test.select(domain=[natural, other]), source=other, target=natural,
        held_out=subject.held_out, fitted_on=apart, class_names=subject.images.labels,
        sites=sites[max(len(sites) - 3, 0)], ways=[SHIFT], n_random=9, seed=subject.seed,
    )  # fmt: skip
    return found.frame


def measured(model: Checkpoint, *, sharing: bool) -> dict[str, pd.DataFrame]:
    """A model's tables: accuracy and bias, and with sharing the shift and the rungs R2, R3, R5."""
    found = replace(model, only=("accuracy", "decision_bias")).tables()
    folder = model.steps / f"graded-{model.key}"
    if sharing and not folder.exists():
        subject = model.opened
        own = ladder_tables(subject, ("similarity", "directions", "overlap"), pairs=[subject.pair])
        with complete(folder) as temporary:
            for name, frame in (own | {"domain_shift": shifted(subject)}).items():
                subject.file(frame).to_csv(temporary / f"{name}.csv", index=False)
    return found | {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def rows(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each model: what is known, what is said, what comes back, and what is shared."""
    bias = tables["decision_bias"]
    bias = bias[(bias["domain"] == bias["test_domain"]) & (bias["prompts"] == "neutral")]
    known = (
        bias["measure"] + " " + bias["class_set"].fillna("") + " " + bias["calibration"].fillna("")
    )
    parts = [bias.assign(number=known.str.split().str.join(" "))]
    if "domain_shift" in tables:
        shift = tables["domain_shift"]
        shift = shift[(shift["domain"] == shift["test_domain"]) & (shift["way"] == SHIFT)]
        parts.append(shift.assign(number="shifted " + shift["class_set"], value=shift["after"]))
        back = {"null": "random, change of ", "p": "p of "}
        parts += [
            shift.assign(number=words + shift["class_set"], value=shift[column])
            for column, words in back.items()
        ]
        shared, _ = from_tables(tables)
        shared = shared[
            shared["measure"].isin(["debiased CKA", "cosine of LDA directions", "dice"])
        ]
        parts.append(shared.assign(number=shared["rung"], value=shared["index"]))
    stacked = pd.concat([part[[*RUN, "number", "value"]] for part in parts])
    return stacked.pivot_table("value", RUN, "number", sort=False).reset_index()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure one of the studies."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(BLOCKS))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    found: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for change, cell in track(list(cells(given.study, given.folder)), "measure"):
        model = cell.checkpoint(Specification().analysis)
        for name, frame in measured(model, sharing=given.study == "domains").items():
            found.setdefault(change, {}).setdefault(name, []).append(frame)
    tables = {
        change: rows({name: pd.concat(frames, ignore_index=True) for name, frames in own.items()})
        for change, own in found.items()
    }
    made = pd.concat(tables, names=["change"]).reset_index("change").round(5)
    made.to_csv(given.folder / WRITTEN[given.study], index=False)


if __name__ == "__main__":
    main()

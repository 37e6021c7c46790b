"""What aligned captions change: circuits of both towers, with words for domains and without.

CG high is trained on the default study's pictures with its own captions, half of which name the
domain, and with aligned ones, none of which does. Three blocks each; rows are kept, a file a model,
so that a benchmark goes on where it was stopped.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.judging import filled
from tests.benchmarks.speedrun import score

FOLDER = Path(__file__).parent / "captions"
DOCS = Path(__file__).parents[2] / "docs"
MADE = Path("interp-report") / "benchmarks" / "captions"
BLOCKS = 3
KINDS = {"own captions": True, "aligned captions": False}
PAIR = ("real", "sketch")

Task = tuple[str, int]


def captions() -> str:
    """Train and measure what is missing (`BLOCKS`), and write the table of docs/measured.md."""
    from interp.core.parallel import side_by_side

    blocks = range(int(os.environ.get("BLOCKS", BLOCKS)))
    tasks = [(kind, block) for block in blocks for kind in KINDS]
    missing = [task for task in tasks if not _path(*task).exists()]
    for task in missing:
        _cell(*task)  # pictures and mixtures are written here, once
    side_by_side(_keep, missing, jobs=2, what="captions")
    page = DOCS / "measured.md"
    made = table(read())
    page.write_text(filled(page.read_text(encoding="utf-8"), {"captions": made}), encoding="utf-8")
    return made


def _path(kind: str, block: int) -> Path:
    return FOLDER / f"{kind.replace(' ', '-')}-{block}.csv"


def _cell(kind: str, block: int) -> Any:
    from interp.study.grids import Grid
    from interp.study.specification import ImagesSpec, MixturesSpec, Specification

    specification = Specification(
        images=ImagesSpec(seed=block),
        mixtures=MixturesSpec(settings=("cg-high",), domain_words=KINDS[kind]),
        seeds=(block,),
    )
    [cell] = Grid(specification).plan(MADE)
    return cell


def _keep(task: Task) -> None:
    import torch

    from interp import load_clip
    from interp.measures.catalogue import captioned
    from interp.measures.opened import OpenedModel
    from interp.measures.subjects import Subject
    from interp.models.training.supervisor import train

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    cell = _cell(*task)
    train([cell.run], jobs=1)
    clip = load_clip(cell.run.final)
    opened = OpenedModel(
        Subject(clip, {"captions": task[0], "block": task[1], "seed": task[1]}),
        cell.block.images,
        PAIR,
        tuple(cell.block.held_out),
    )
    kept = [
        frame.assign(table=name)
        for name, frame in captioned.measure(opened).items()
        if name != "match_circuits"
    ]
    accuracy = score(cell.run.final, cell.block)
    rows = pd.concat(kept, ignore_index=True)[
        ["table", "captions", "block", "domain", "told_apart", "tower", "measure", "part", "share",
         "value", "low", "high", "null", "ceiling", "index", "logits", "reason"]
    ]  # fmt: skip
    told = pd.DataFrame(
        [{"table": "accuracy", "captions": task[0], "block": task[1], "part": where, "value": value}
         for where, value in accuracy.items()]
    )  # fmt: skip
    draft = _path(*task).with_suffix(".part")
    pd.concat([rows, told], ignore_index=True).round(4).to_csv(draft, index=False)
    draft.rename(_path(*task))


def read() -> pd.DataFrame:
    """All rows that are kept."""
    return pd.concat(map(pd.read_csv, sorted(FOLDER.glob("*.csv"))), ignore_index=True)


def table(rows: pd.DataFrame) -> str:
    """What both kinds of captions come to, means over blocks with the least and the most."""
    lines = ["| | " + " | ".join(KINDS) + " |", "|---|" + "---|" * len(KINDS)]
    for name, of in QUANTITIES.items():
        found = [[of(part) for _, part in rows[rows["captions"] == kind].groupby("block")]
                 for kind in KINDS]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(map(_spread, found)) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    known = np.array([each for each in values if np.isfinite(each)])
    if not len(known):
        return "withheld"
    digits = 0 if np.abs(known).max() > 20 else 1 if np.abs(known).max() > 2 else 2
    ends = known.mean(), known.min(), known.max()
    mean, low, high = (f"{round(each, digits) + 0.0:.{digits}f}" for each in ends)  # no -0.00
    return f"{mean} ({low} to {high})"


def _accuracy(where: str) -> Any:
    def of(rows: pd.DataFrame) -> float:
        chosen = rows[(rows["table"] == "accuracy") & (rows["part"] == where)]
        return 100 * float(chosen["value"].iloc[0])

    return of


def _whole(told: str) -> Any:
    def of(rows: pd.DataFrame) -> float:
        words = rows[(rows["table"] == "caption_words") & (rows["domain"] == PAIR[1])]
        return float(words[words["told_apart"] == told]["logits"].iloc[0])

    return of


def _heads(rows: pd.DataFrame, told: str) -> pd.Series:
    """The index of each head of the text tower, for sketches."""
    here = rows[(rows["table"] == "caption_patching") & (rows["domain"] == PAIR[1])]
    here = here[(here["told_apart"] == told) & here["part"].str.contains("h")]
    return here.set_index("part")["index"]


def _largest(told: str) -> Any:
    return lambda rows: float(_heads(rows, told).max())


def _class_in_domain_head(rows: pd.DataFrame) -> float:
    of_domain, of_class = (_heads(rows, told) for told in ("domains", "classes"))
    return float(of_class[of_domain.idxmax()]) if of_domain.notna().any() else float("nan")


def _text_alone(rows: pd.DataFrame) -> float:
    kept = rows[(rows["table"] == "match_faithfulness") & (rows["domain"] == PAIR[1])]
    kept = kept[(kept["tower"] == "text") & (kept["measure"] == "circuit alone")]
    return float(kept.sort_values("share")["value"].iloc[2])


QUANTITIES = {
    "accuracy, sketches of seen classes (%)": _accuracy("sketch, seen classes"),
    "accuracy, sketches of held-out classes (%)": _accuracy("sketch, held-out classes"),
    "logits by which a caption tells its class's sketches from those of others": _whole("classes"),
    "logits by which it tells them from photographs of the class": _whole("domains"),
    "index of the head that carries most of the word for the domain": _largest("domains"),
    "index of that head for the class word": _class_in_domain_head,
    "index of the head that carries most of the class word": _largest("classes"),
    "share of the match that 5 of the text tower's 23 edges keep": _text_alone,
}
"""What the table says of each kind of captions."""

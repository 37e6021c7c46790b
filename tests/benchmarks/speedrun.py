"""A speedrun of small CLIPs: processor seconds to given accuracies, for named recipes.

Every recipe trains leave-out-domain models, three blocks each, which redraw pictures, held-out
classes and initial weights. Rows are kept, a file per run, so that a benchmark goes on where it was
stopped.
"""

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent / "speedrun"
DOCS = Path(__file__).parents[2] / "docs"
MADE = Path("interp-report") / "benchmarks" / "speedrun"
BLOCKS = 3
CHECKPOINTS = 7
GOALS = {"natural, seen classes": (0.6, 0.7, 0.8), "sketch, held-out classes": (0.4, 0.5, 0.6)}
"""Accuracies that are aimed at, on pictures by artists who were not trained on, among all classes.
"""

PICTURES = {"n_test": 24, "n_analysis": 1}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "as the default study": {},
    "AdamW": {"optimizer": "adamw"},
    "no base set": {"images": {"n_base": 0}},
    "3,000 steps": {"steps": 3000},
    "AdamW, rate 2e-3": {"optimizer": "adamw", "lr": 2e-3},
    "twice the batch, half the steps": {"batch_size": 256, "steps": 1000},
    "no crops": {"augment": False},
    "mirrored": {"flip": 0.5},
    "other colours": {"colour": 0.4, "grey": 0.2},
}
"""What is tried, as changes to the default study's recipe."""


def speedrun() -> str:
    """Train what is missing (`RECIPES=name;name` chooses), and print seconds to each accuracy."""
    from interp.core.parallel import side_by_side

    chosen = os.environ.get("RECIPES", "").split(";") if "RECIPES" in os.environ else RECIPES
    blocks = range(int(os.environ.get("BLOCKS", BLOCKS)))
    tasks = [(name, block) for block in blocks for name in chosen]
    missing = [task for task in tasks if not _path(*task).exists()]
    for task in missing:
        _cell(*task)  # pictures and mixtures are written here, once
    side_by_side(_keep, missing, jobs=2, what="race")
    draw().write_image(DOCS / "speedrun.png", scale=2)
    return table()


def _path(name: str, block: int) -> Path:
    words = "".join(each if each.isalnum() else "-" for each in name)
    return FOLDER / f"{words}-{block}.csv"


def _cell(name: str, block: int) -> Any:
    from interp.study.grids import Grid
    from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec

    changes = dict(RECIPES[name])
    images = ImagesSpec(**{**PICTURES, **changes.pop("images", {})}, seed=block)
    specification = Specification(
        images=images,
        mixtures=MixturesSpec(settings=("leave-out-domain",)),
        training=TrainingSpec(keep=CHECKPOINTS, **changes),
        seeds=(block,),
    )
    [cell] = Grid(specification).plan(MADE)
    return cell


def _keep(task: tuple[str, int]) -> None:
    import torch

    from interp.models.training.supervisor import train

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    cell = _cell(*task)
    before = _children()
    train([cell.run], jobs=1)
    spent = _children() - before
    rows = [
        {"recipe": task[0], "block": task[1], "seconds": spent * epoch / cell.run.epochs}
        | score(cell.run.checkpoints / f"epoch_{epoch}.pt", cell.block)
        for epoch in cell.run.kept
    ]
    draft = _path(*task).with_suffix(".part")
    pd.DataFrame(rows).round(4).to_csv(draft, index=False)
    draft.rename(_path(*task))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def score(checkpoint: Path, block: Any) -> dict[str, float]:
    """Balanced accuracy among all classes, by neutral prompts, on pictures of held-back artists."""
    import interp
    from interp.data.mixtures.templates import prompts

    clip = interp.load_clip(checkpoint)
    images = block.images.select(split="test")
    classes = clip.zero_shot(images.labels, prompts("neutral"))
    frame = images.frame.assign(
        right=classes.predict(clip.embed(images)) == images.label.to_numpy(),
        held_out=images.label.isin(block.held_out).to_numpy(),
    )
    found = {}
    for domain in ("real", "sketch", "quickdraw", "clipart"):
        for is_out, which in ((False, "seen"), (True, "held-out")):
            rows = frame[(frame["domain"] == domain) & (frame["held_out"] == is_out)]
            name = f"{domain if domain != 'real' else 'natural'}, {which} classes"
            found[name] = float(rows.groupby("label")["right"].mean().mean())
    return found


def table() -> str:
    """Seconds to each goal, and where a recipe ends: means over blocks."""
    frame = kept()
    heads = [f"{name} {goal:.0%}" for name, goals in GOALS.items() for goal in goals]
    lines = ["| recipe | blocks | seconds | " + " | ".join([*heads, *GOALS]) + " |"]
    lines.append("|" + "---|" * (3 + len(heads) + len(GOALS)))
    for recipe, runs in frame.groupby("recipe", sort=False):
        blocks = [own for _, own in runs.groupby("block")]
        reached = [
            _mean([_seconds_to(own, name, goal) for own in blocks])
            for name, goals in GOALS.items()
            for goal in goals
        ]
        last = [own.iloc[-1] for own in blocks]
        ends = [f"{100 * np.mean([row[name] for row in last]):.0f} %" for name in GOALS]
        total = f"{np.mean([row['seconds'] for row in last]):.0f}"
        lines.append(
            "| " + " | ".join([str(recipe), str(len(blocks)), total, *reached, *ends]) + " |"
        )
    return "\n".join(lines)


def kept() -> pd.DataFrame:
    """The rows of every recipe and block that ran."""
    return pd.concat([pd.read_csv(path) for path in sorted(FOLDER.glob("*.csv"))])


def draw() -> Any:
    """Accuracy against processor seconds: a panel a goal, a line a recipe, its blocks in faint."""
    import plotly.colors
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=len(GOALS), subplot_titles=list(GOALS), horizontal_spacing=0.08)
    tints = plotly.colors.qualitative.Safe
    for (recipe, runs), tint in zip(kept().groupby("recipe", sort=False), tints, strict=False):
        runs = runs.assign(step=runs.groupby("block").cumcount())
        mean = runs.groupby("step").mean(numeric_only=True)
        for column, name in enumerate(GOALS, start=1):
            for _, own in runs.groupby("block"):
                figure.add_scatter(
                    x=own["seconds"], y=own[name], mode="lines", line={"color": tint, "width": 1},
                    opacity=0.3, showlegend=False, row=1, col=column,
                )  # fmt: skip
            figure.add_scatter(
                x=mean["seconds"], y=mean[name], name=str(recipe), mode="lines+markers",
                line={"color": tint}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title="processor seconds", rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    n = kept()["block"].nunique()
    figure.update_layout(
        width=1000, height=420, template="plotly_white", legend={"orientation": "h", "y": -0.25},
        title=f"Accuracy among all 40 classes, leave-out-domain; lines: means of {n} blocks",
    )  # fmt: skip
    return figure


def _seconds_to(run: pd.DataFrame, name: str, goal: float) -> float:
    """When a run first reaches an accuracy, between its checkpoints in a straight line."""
    above = np.flatnonzero(run[name].to_numpy() >= goal)
    if not len(above):
        return np.nan
    at = above[0]
    if at == 0:
        return float(run["seconds"].iloc[0])
    two = run.iloc[at - 1 : at + 1]
    return float(np.interp(goal, two[name], two["seconds"]))


def _mean(seconds: list[float]) -> str:
    """Over blocks; a dash where not all of them get there."""
    return "–" if np.isnan(seconds).any() else f"{np.mean(seconds):.0f}"

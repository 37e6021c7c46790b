"""Do heatmaps mark what matters? Planted parts at known places, and deletion and insertion.

AUROCs are kept in `heatmaps.csv`, so that the table can be made again. `CHECKPOINTS=a.pt;b.pt`
tries trained models on the embedded pictures.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import interp
from interp.circuits.planted.conditions import CONDITIONS
from interp.circuits.planted.vit import Blueprint, plant
from interp.circuits.planted.world import DOMAINS, PARTS
from interp.core.progress import track
from interp.data.mixtures.templates import prompts
from interp.models import deletion_insertion, explain, open_tower
from interp.models.attribution.explain import METHODS
from interp.models.towers.resnet import HookedResNet
from tests.benchmarks.recovering import markdown

FOUND = Path(__file__).with_name("heatmaps.csv")
FIRST, DOSE, PICTURES = 20, 0.5, 16
"""The first blueprint that nothing was developed on, the dose of conditions that have one, and how
many pictures of each domain are explained."""


def heatmaps() -> str:
    """The AUROC of each method for the planted places, by tier; then the trials, if asked for."""
    if os.environ.get("BLUEPRINTS"):
        seeds = range(FIRST, FIRST + int(os.environ["BLUEPRINTS"]))
        made = [
            Blueprint(condition, seed=seed, tier=tier, dose=DOSE if lanes.dosed else None)
            for condition, lanes in CONDITIONS.items()
            for tier in lanes.tiers
            for seed in seeds
        ]
        rows = [row for each in track(made, "explain planted models") for row in placed(each)]
        pd.DataFrame(rows).round(4).to_csv(FOUND, index=False)
    tables = [by_tier(pd.read_csv(FOUND))]
    checkpoints = filter(None, os.environ.get("CHECKPOINTS", "").split(";"))
    return "\n\n".join([*tables, *(trials(path) for path in checkpoints)])


def placed(blueprint: Blueprint) -> list[dict[str, object]]:
    """How well each method finds where P and Q stand, by domain; a class against the others."""
    planted = plant(blueprint).disguised(blueprint.seed)
    tower, rows = open_tower(planted.source), []
    for domain in DOMAINS:
        scenes = planted.world.scenes(PICTURES, domain=domain, seed=5)
        pictures, at = planted.world.render(scenes), torch.arange(PICTURES)
        truth = np.zeros((PICTURES, 16), dtype=bool)
        for part in ("P", "Q"):
            truth[at, scenes.place[:, list(PARTS).index(part)]] = True
        for method in METHODS:
            maps = explain(tower, pictures, planted.classifier, method=method, contrast=True)
            own = maps.patches[at, torch.as_tensor(scenes.label)].flatten(1).numpy()
            each = [roc_auc_score(t, o) for t, o in zip(truth, own, strict=True)]
            rows.append(
                {"condition": blueprint.condition, "tier": blueprint.tier, "domain": domain}
                | {"seed": blueprint.seed, "method": method, "auroc": float(np.mean(each))}
            )
    return rows


def by_tier(rows: pd.DataFrame) -> str:
    """A row for each method: mean AUROC and the lowest of a model's domain, tier by tier."""
    tiers = list(dict.fromkeys(rows["tier"]))
    lines = []
    for method, own in rows.groupby("method", sort=False):
        cells = []
        for tier in tiers:
            each = own.loc[own["tier"] == tier, "auroc"]
            cells.append(f"{each.mean():.2f} ({each.min():.2f})")
        lines.append([method, *cells])
    n = {tier: int((rows[rows["tier"] == tier]["method"] == METHODS[0]).sum()) for tier in tiers}
    return markdown(
        ["method", *(f"{tier}, {n[tier]} of a model's domains" for tier in tiers)], lines
    )


def trials(checkpoint: str) -> str:
    """Insertion less deletion of every method, in logits, a test picture a class, own class."""
    clip = interp.load_clip(checkpoint)
    lines = []
    for domain in ("real", "sketch"):
        images = interp.open_images().select(split="test", domain=domain).few(1)
        head = clip.zero_shot(images.labels, prompts("neutral"))
        own = [list(head.names).index(label) for label in images.label]
        left_out = (
            ("direct", "gradient x attention") if isinstance(clip.visual, HookedResNet) else ()
        )
        maps = {
            method: explain(clip, images, head, method=method, contrast=True)
            for method in METHODS
            if method not in left_out
        }
        rows = deletion_insertion(maps, sentence=own).frame
        rows = rows[(rows["measure"] == "insertion - deletion") & rows["method"].isin(METHODS)]
        lines += [
            [domain, row.method, f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]",
             f"{row.null:.1f}", f"{row.p:.2g}", str(row.n_units)]
            for row in rows.itertuples()
        ]  # fmt: skip
    head_line = ["domain", "method", "insertion - deletion", "random orders", "p", "classes"]
    return f"{checkpoint}\n\n{markdown(head_line, lines)}"

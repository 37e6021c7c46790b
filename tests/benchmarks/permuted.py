"""A null study of the whole ladder: B's classes exchange their names, so nothing corresponds.

Whatever is called shared then, at any site of any rung, is a false alarm; R1 does not ask whether
classes correspond, and stays true.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from interp.core.parallel import side_by_side

FOLDER = Path(__file__).parent / "permuted"
N = 20
"""Models, each with its own exchange of names; one false alarm among twenty is the bar."""


def permuted() -> str:
    """Climb `N` planted models whose classes do not correspond between domains; the false alarms.

    Rows are kept, a file per model, so that a run goes on where it was stopped; half a minute each.
    """
    missing = [seed for seed in range(N) if not _path(seed).exists()]
    side_by_side(partial(_keep), missing, jobs=2, what="climb")
    rows = pd.concat([pd.read_csv(_path(seed)) for seed in range(N)], ignore_index=True)
    return alarms(rows)


def _path(seed: int) -> Path:
    return FOLDER / f"{seed}.csv"


def _keep(seed: int) -> None:
    import torch

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    draft = _path(seed).with_suffix(".part")
    climbed(seed).round(4).to_csv(draft, index=False)
    draft.rename(_path(seed))


def climbed(seed: int) -> pd.DataFrame:
    """Every judged row of one model that shares all, asked with B's names exchanged."""
    import interp
    from interp.circuits.planted.disguises import disguise
    from interp.circuits.planted.vit import Blueprint, plant
    from interp.circuits.planted.world import as_tensor, paint
    from interp.core.seeds import rng
    from interp.models.towers.vit import HookedViT

    planted = disguise(plant(Blueprint("all shared", 100 + seed)), seed=seed)
    images = paint(planted.world, 12, seed=seed)
    names = list(planted.classifier.names)
    order = rng("exchanged names", seed).permutation(len(names))
    exchanged = {names[order[at]]: names[order[at - 1]] for at in range(len(names))}  # one cycle
    in_b = images.frame["domain"] == "B"
    label = images.frame["label"].where(~in_b, images.frame["label"].map(exchanged))
    found = interp.ladder(
        HookedViT(planted.source),
        images.with_frame(images.frame.assign(label=label)),
        domains=["A", "B"],
        classifier=planted.classifier,
        preprocess=as_tensor,
        pool="class",
        n_permutations=199,
        seed=seed,
    )
    kept = ["rung", "measure", "level", "band", "site", "domain_a", "domain_b", "index",
            "index_low", "index_high", "verdict"]  # fmt: skip
    return found.rungs.frame[kept].assign(seed=seed)


def alarms(rows: pd.DataFrame) -> str:
    """By rung: in how many models any row at all is called shared, and how many rows are."""
    lines = ["| rung | models | with any row shared | rows | shared | not shared | cannot tell |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for rung, own in rows[rows["rung"] != "R1"].groupby("rung"):
        by_model = own.groupby("seed")["verdict"].apply(lambda said: (said == "shared").any())
        counts = [int((own["verdict"] == name).sum()) for name in
                  ("shared", "not shared", "cannot tell")]  # fmt: skip
        told = [rung, len(by_model), int(by_model.sum()), len(own), *counts]
        lines.append("| " + " | ".join(map(str, told)) + " |")
    return "\n".join(lines)

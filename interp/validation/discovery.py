"""Every way of finding circuits held against planted models: does it rank what is there first?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from interp.circuits import METHODS, Metric, Target, ablate, attribute, channel_scores, wire
from interp.circuits.planted.certification import class_groups, draw_partners
from interp.circuits.planted.conditions import Truth, union
from interp.circuits.planted.expectations import AnyBlueprint, findable
from interp.circuits.planted.resnet import ChannelTruth
from interp.circuits.planted.vit import Planted
from interp.circuits.planted.world import CLASSES, DOMAINS
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.validation.opened import Opened

PICTURES = 16
"""Pictures of each domain, and as many partners of other classes."""

COLUMNS = [
    *("condition", "tier", "dose", "seed", "domain", "method", "unit"),
    *("auroc", "least", "n_true", "n_units", "n_pictures"),
]
"""What is known of each circuit and method."""


def recover(blueprint: AnyBlueprint) -> pd.DataFrame:
    """One row for each domain and method: how well its scores tell a circuit from all beside it.

    The model is planted, disguised, and asked through pictures of 8 bits. Each picture has a
    partner of the same domain whose class shares neither P nor Q, drawn independently; the metric
    is the margin of the true class. `auroc` is that of |mean score| for belonging to the circuit,
    among the edges, the nodes (heads and MLPs) or the channels (`unit`): 1 ranks all that is true
    first, .5 is chance. `least` is what it must reach, nothing where the method is declared blind
    (`interp.circuits.planted.expectations`). Where classes go by circuits of their own, a row is
    the mean over these.

    Raises what planting raises.

    >>> from interp.circuits.planted.vit import Blueprint
    >>> found = recover(Blueprint("all shared", seed=1)).set_index(["domain", "method"])
    >>> row = found.loc[("B", "path patching")]
    >>> row["unit"], float(row["auroc"]), int(row["n_units"])
    ('edge', 1.0, 479)
    """
    opened = Opened(blueprint)
    frame = pd.DataFrame(_rows(opened), columns=[*COLUMNS[4:8], *COLUMNS[9:11]])
    keys = ["domain", "method", "unit"]
    found = frame.groupby(keys, sort=False, as_index=False).mean()
    for name in ("condition", "tier", "dose", "seed"):
        found[name] = getattr(blueprint, name)
    found["least"] = [findable(blueprint, method).least for method in found["method"]]
    return found.assign(n_pictures=PICTURES)[COLUMNS]


def _rows(opened: Opened) -> Iterator[tuple[Any, ...]]:
    planted, find = opened.planted, _channels
    if isinstance(planted, Planted):
        find = _edges_and_nodes
    for domain in DOMAINS:
        for numbers, truth in _circuits(planted, domain):
            seed = opened.blueprint.seed
            words = _words(planted, domain, numbers, seed)
            for method, unit, scores, true in find(opened.tower, truth, words, seed):
                auroc = roc_auc_score(true, np.abs(scores))
                yield domain, method, unit, auroc, true.sum(), len(true)


def _circuits(planted: Any, domain: str) -> Iterator[tuple[list[int], Any]]:
    """The classes that go the same way, and their circuit."""
    if not isinstance(planted, Planted):
        yield list(range(len(CLASSES))), planted.truth(domain)
        return
    truths = planted.by_class[domain]
    for numbers in class_groups(truths):
        yield numbers, union(truths[number] for number in numbers)


def _words(planted: Any, domain: str, numbers: list[int], seed: int) -> dict[str, Any]:
    """Pictures and their partners, and what tells them apart."""
    scenes, partners = draw_partners(planted.world, domain, PICTURES, seed, numbers)
    clean, corrupt = (
        (planted.world.render(each).clamp(0, 1) * 255).round() / 255 for each in (scenes, partners)
    )
    metric = Metric("margin", Target(planted.classifier, scenes.label))
    return {"clean": clean, "corrupt": corrupt, "metric": metric}


Found = Iterator[tuple[str, str, np.ndarray, np.ndarray]]
"""Method, unit, scores and truth: by method, `[unit]`."""


def _edges_and_nodes(tower: Any, truth: Truth, words: dict[str, Any], seed: int) -> Found:
    wiring = wire(tower)
    edges = {f"{sender}->{reader}" for sender, reader in truth.edges | truth.cue}
    true = np.array([name in edges for name in wiring.names])
    for method in METHODS:
        found = attribute(tower, **words, method=method, batch_size=PICTURES, seed=seed)
        yield "path patching" if method == "exact" else method, "edge", found.scores, true
    heads = _ablated(tower, "blocks.*.attn.hook_z", ("layer", "head"), words)
    mlps = _ablated(tower, "blocks.*.hook_mlp_out", ("layer",), words)
    names = [f"a{layer}.h{head}" for layer, head in heads.index]
    names += [f"m{layer}" for layer in mlps.index]
    true = np.array([name in truth.nodes for name in names])
    yield "resample ablation", "node", np.concatenate([heads, mlps]), true


def _channels(tower: Any, truth: ChannelTruth, words: dict[str, Any], seed: int) -> Found:
    sites = find_sites("layer*.*.hook_resid_post", tower.sites)
    true = np.concatenate([truth.masks[site] for site in sites])
    clean, corrupt, metric = words["clean"], words["corrupt"], words["metric"]
    found = channel_scores(tower, clean, metric=metric, sites=sites, baseline=corrupt)
    by_site = [found[site].mean(dim=1).numpy() for site in sites]
    yield "integrated gradients", "channel", _in_units_of_the_largest(by_site), true
    effects = [_ablated(tower, site, ("layer", "channel"), words).to_numpy() for site in sites]
    yield "resample ablation", "channel", _in_units_of_the_largest(effects), true
    yield "random", "channel", rng("random channels", seed).random(len(true)), true


def _ablated(tower: Any, sites: str, axes: tuple[str, ...], words: dict[str, Any]) -> pd.Series:
    """What the metric loses on average when each cell takes its activation from the partner."""
    table = ablate(
        tower, words["clean"], metric=words["metric"], sites=sites, axes=axes,
        donors=words["corrupt"], batch_size=8 * PICTURES,
    ).frame  # fmt: skip
    return (table["clean_metric"] - table["value"]).groupby([table[axis] for axis in axes]).mean()


def _in_units_of_the_largest(scores: list[np.ndarray]) -> np.ndarray:
    """Scores of all sites together: each site in units of its largest, so that sites compare."""
    return np.concatenate([own / np.abs(own).max() for own in scores])

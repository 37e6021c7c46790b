"""Methods of finding circuits, tested on planted models: whether they rank the true parts first."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from interp.circuits.edges.attribute import METHODS, attribute
from interp.circuits.edges.hard_gates import mean_ranks
from interp.circuits.edges.wire import wire
from interp.circuits.patching.ablate import ablate
from interp.circuits.planted.certification import draw_partners, margin_task
from interp.circuits.planted.conditions import findable
from interp.circuits.planted.model import MarginTask, PlantedModel
from interp.circuits.planted.world import DOMAINS
from interp.circuits.units.channel_scores import channel_scores
from interp.circuits.units.unit_methods import mask_scores
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tower import Tower

Planted = PlantedModel[Any]
"""A planted model of any kind."""

PICTURES = 16
"""Pictures of each domain, and as many partners of other classes."""

LEARNED = ("learned masks", "ensemble")
"""Ways that take as long as all others together, ten seconds to a minute for each circuit."""

COLUMNS = ["domain", "method", "unit", "auroc", "n_true", "n_units"]


def tasks(
    planted: Planted, domain: str, n: int
) -> Iterator[tuple[MarginTask, Mapping[str, Collection[Any]]]]:
    """For each group of classes that go one way in a domain: pairs of pictures of 8 bits with the
    margin of the class, and the names of the parts that the circuit has, by kind of part."""
    for numbers, truth in planted.ways(domain):
        seed = planted.blueprint.seed
        task = margin_task(planted, *draw_partners(planted.world, domain, n, seed, numbers))
        clean, corrupt = (
            (x.clamp(0, 1) * 255).round() / 255 for x in (task["clean"], task["corrupt"])
        )
        yield {"clean": clean, "corrupt": corrupt, "metric": task["metric"]}, truth.units


def recovery(planted: Planted, tower: Tower, *, learned: bool = False) -> pd.DataFrame:
    """How well each method's scores tell a planted circuit from all beside it.

    Args:
        planted: The model with its truth.
        tower: Its image tower, opened for hooks.
        learned: Whether ways that learn (`LEARNED`) are tested, or all others.

    Returns:
        A row for each domain, method and kind of part (`unit`): the `auroc` of |mean score| for
        belonging to the circuit, and the `least` that it must reach. Where classes go by circuits
        of their own, the mean over these.
    """
    finders = LEARNERS if learned else FINDERS
    frame = pd.DataFrame(_rows(planted, tower, finders), columns=COLUMNS)
    found = frame.groupby(COLUMNS[:3], sort=False, as_index=False).mean()
    least = [findable(planted.blueprint, method).least for method in found["method"]]
    return found.assign(least=least, n_pictures=PICTURES)


def _rows(planted: Planted, tower: Tower, finders: "Finders") -> Iterator[tuple[object, ...]]:
    for domain in DOMAINS:
        for task, units in tasks(planted, domain, PICTURES):
            for unit, inside in units.items():
                found = finders[unit](planted, tower, task) if unit in finders else ()
                for method, names, scores in found:
                    true = np.array([name in inside for name in names])
                    auroc = roc_auc_score(true, np.abs(scores))
                    yield domain, method, unit, auroc, true.sum(), len(true)


Scored = Iterator[tuple[str, Sequence[object], np.ndarray]]
"""By method: the names of all units, and their scores."""


def _edges(planted: Planted, tower: Tower, task: MarginTask) -> Scored:
    seed = planted.blueprint.seed
    for method in METHODS:
        if method in LEARNED:
            continue
        found = attribute(tower, **task, method=method, batch_size=PICTURES, seed=seed)
        name = "path patching" if method == "exact" else method
        yield name, wire(tower).names, found.scores


def _nodes(planted: Planted, tower: Tower, task: MarginTask) -> Scored:
    heads = _ablated(tower, "blocks.*.attn.hook_z", ("layer", "head"), task)
    mlps = _ablated(tower, "blocks.*.hook_mlp_out", ("layer",), task)
    names = [f"a{layer}.h{head}" for layer, head in heads.index]
    names += [f"m{layer}" for layer in mlps.index]
    yield "resample ablation", names, np.concatenate([heads, mlps])


def _channels(planted: Planted, tower: Tower, task: MarginTask) -> Scored:
    sites, axis = _sites(planted, tower), planted.blueprint.outlook.axis
    found = channel_scores(
        tower, task["clean"], metric=task["metric"], sites=sites, baseline=task["corrupt"]
    )
    by_site = [found[site].mean(dim=1).numpy() for site in sites]
    names = [
        (site, place) for site, own in zip(sites, by_site, strict=True) for place in range(len(own))
    ]
    yield "integrated gradients", names, _in_units_of_the_largest(by_site)
    effects = [_ablated(tower, site, ("layer", axis), task).to_numpy() for site in sites]
    yield "resample ablation", names, _in_units_of_the_largest(effects)
    yield "random", names, rng("random channels", planted.blueprint.seed).random(len(names))


def _learned_edges(planted: Planted, tower: Tower, task: MarginTask) -> Scored:
    for method in LEARNED:
        found = attribute(tower, **task, method=method, batch_size=PICTURES)
        yield method, wire(tower).names, found.scores


def _learned_channels(planted: Planted, tower: Tower, task: MarginTask) -> Scored:
    sites = _sites(planted, tower)
    masks = mask_scores(tower, sites, batch_size=PICTURES, **task)
    plain = channel_scores(
        tower, task["clean"], metric=task["metric"], sites=sites, baseline=task["corrupt"]
    )
    names = [(site, place) for site in sites for place in range(len(masks[site]))]
    yield "learned masks", names, torch.cat([masks[site].mean(dim=1) for site in sites]).numpy()
    ranks = [mean_ranks([way[site].T.numpy() for way in (masks, plain)], None)[0] for site in sites]
    yield "ensemble", names, np.concatenate(ranks)


def _sites(planted: Planted, tower: Tower) -> list[str]:
    return find_sites(planted.blueprint.outlook.neurons, tower.sites)


Finders = Mapping[str, Callable[[Planted, Tower, MarginTask], Scored]]

FINDERS: Finders = {"edge": _edges, "node": _nodes, "channel": _channels}
"""What scores each kind of unit that a truth names."""

LEARNERS: Finders = {"edge": _learned_edges, "channel": _learned_channels}
"""What learns which units a circuit has."""


def _ablated(tower: Tower, sites: str, axes: tuple[str, ...], task: MarginTask) -> pd.Series:
    """What the metric loses on average when each cell takes its activation from the partner."""
    table = ablate(
        tower,
        task["clean"],
        metric=task["metric"],
        sites=sites,
        axes=axes,
        donors=task["corrupt"],
        batch_size=8 * PICTURES,
    ).frame
    return (table["clean_metric"] - table["value"]).groupby([table[axis] for axis in axes]).mean()


def _in_units_of_the_largest(scores: list[np.ndarray]) -> np.ndarray:
    """Scores of all sites together: each site in units of its largest, so that sites compare."""
    return np.concatenate([own / np.abs(own).max() for own in scores])

"""Methods of finding circuits, tested on planted models: whether they rank the true parts first."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from interp.circuits import METHODS, ablate, attribute, channel_scores, mask_scores, wire
from interp.circuits.edges.hard_gates import mean_ranks
from interp.circuits.planted.conditions import findable
from interp.circuits.planted.model import PlantedBlueprint
from interp.circuits.planted.world import DOMAINS
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tower import Tower
from interp.validation.puzzles import PLACE, Opened, Task, place_of, tasks

PICTURES = 16
"""Pictures of each domain, and as many partners of other classes."""

LEARNED = ("learned masks", "ensemble")
"""Ways that take as long as all others together, ten seconds to a minute for each circuit."""

COLUMNS = [
    *(*PLACE, "domain", "method", "unit"),
    *("auroc", "least", "n_true", "n_units", "n_pictures"),
]
"""What is known of each circuit and method."""


def recover(blueprint: PlantedBlueprint, *, learned: bool = False) -> pd.DataFrame:
    """One row for each domain and method: how well its scores tell a circuit from all beside it.

    The model is planted, disguised, and asked through pictures of 8 bits. Each picture has a
    partner of the same domain whose class shares neither P nor Q, drawn independently; the metric
    is the margin of the true class. `auroc` is that of |mean score| for belonging to the circuit,
    among the edges, the nodes (heads and MLPs) or the channels (`unit`): 1 ranks all that is true
    first, .5 is chance. `least` is what it must reach, nothing where the method is declared blind
    (`interp.circuits.planted.conditions`). Where classes go by circuits of their own, a row is
    the mean over these.

    Ways that learn (`LEARNED`) are left out, or with `learned` the only ones: they take minutes.

    Raises what planting raises.

    >>> from interp.circuits.planted.vit import Blueprint
    >>> found = recover(Blueprint("all shared", seed=1)).set_index(["domain", "method"])
    >>> row = found.loc[("B", "path patching")]
    >>> row["unit"], round(float(row["auroc"]), 3), int(row["n_units"])
    ('edge', 1.0, 479)
    """
    opened = Opened(blueprint)
    frame = pd.DataFrame(
        _rows(opened, LEARNERS if learned else FINDERS), columns=[*COLUMNS[4:8], *COLUMNS[9:11]]
    )
    keys = ["domain", "method", "unit"]
    found = frame.groupby(keys, sort=False, as_index=False).mean()
    least = [findable(blueprint, method).least for method in found["method"]]
    return found.assign(**place_of(blueprint), least=least, n_pictures=PICTURES)[COLUMNS]


def _rows(opened: Opened, finders: "Finders") -> Iterator[tuple[object, ...]]:
    for domain in DOMAINS:
        for task, units in tasks(opened.planted, domain, PICTURES, opened.blueprint.seed):
            for unit, inside in units.items():
                found = finders[unit](opened, task) if unit in finders else ()
                for method, names, scores in found:
                    true = np.array([name in inside for name in names])
                    auroc = roc_auc_score(true, np.abs(scores))
                    yield domain, method, unit, auroc, true.sum(), len(true)


Scored = Iterator[tuple[str, Sequence[object], np.ndarray]]
"""By method: the names of all units, and their scores."""


def _edges(opened: Opened, task: Task) -> Scored:
    seed = opened.blueprint.seed
    for method in METHODS:
        if method in LEARNED:
            continue
        found = attribute(opened.tower, **task, method=method, batch_size=PICTURES, seed=seed)
        name = "path patching" if method == "exact" else method
        yield name, wire(opened.tower).names, found.scores


def _nodes(opened: Opened, task: Task) -> Scored:
    heads = _ablated(opened.tower, "blocks.*.attn.hook_z", ("layer", "head"), task)
    mlps = _ablated(opened.tower, "blocks.*.hook_mlp_out", ("layer",), task)
    names = [f"a{layer}.h{head}" for layer, head in heads.index]
    names += [f"m{layer}" for layer in mlps.index]
    yield "resample ablation", names, np.concatenate([heads, mlps])


def _channels(opened: Opened, task: Task) -> Scored:
    tower, outlook = opened.tower, opened.blueprint.outlook
    sites = _sites(opened)
    found = channel_scores(
        tower, task["clean"], metric=task["metric"], sites=sites, baseline=task["corrupt"]
    )
    by_site = [found[site].mean(dim=1).numpy() for site in sites]
    names = [
        (site, place) for site, own in zip(sites, by_site, strict=True) for place in range(len(own))
    ]
    yield "integrated gradients", names, _in_units_of_the_largest(by_site)
    effects = [_ablated(tower, site, ("layer", outlook.axis), task).to_numpy() for site in sites]
    yield "resample ablation", names, _in_units_of_the_largest(effects)
    yield "random", names, rng("random channels", opened.blueprint.seed).random(len(names))


def _learned_edges(opened: Opened, task: Task) -> Scored:
    for method in LEARNED:
        found = attribute(opened.tower, **task, method=method, batch_size=PICTURES)
        yield method, wire(opened.tower).names, found.scores


def _learned_channels(opened: Opened, task: Task) -> Scored:
    tower, sites = opened.tower, _sites(opened)
    masks = mask_scores(tower, sites, batch_size=PICTURES, **task)
    plain = channel_scores(
        tower, task["clean"], metric=task["metric"], sites=sites, baseline=task["corrupt"]
    )
    names = [(site, place) for site in sites for place in range(len(masks[site]))]
    yield "learned masks", names, torch.cat([masks[site].mean(dim=1) for site in sites]).numpy()
    ranks = [mean_ranks([way[site].T.numpy() for way in (masks, plain)], None)[0] for site in sites]
    yield "ensemble", names, np.concatenate(ranks)


def _sites(opened: Opened) -> list[str]:
    return find_sites(opened.blueprint.outlook.neurons, opened.tower.sites)


Finders = Mapping[str, Callable[[Opened, Task], Scored]]

FINDERS: Finders = {"edge": _edges, "node": _nodes, "channel": _channels}
"""What scores each kind of unit that a truth names."""

LEARNERS: Finders = {"edge": _learned_edges, "channel": _learned_channels}
"""What learns which units a circuit has."""


def _ablated(tower: Tower, sites: str, axes: tuple[str, ...], task: Task) -> pd.Series:
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

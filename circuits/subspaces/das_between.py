"""Subspaces of one model in the coordinates of another: mapped there by a stitch, interchanged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import (
    Stitch,
    StitchSource,
    places_last,
    places_like,
    some_places,
)
from interp.circuits.patching.localise import ROUNDING
from interp.circuits.patching.patched_cells import make_plan
from interp.circuits.patching.stitch import Seeing
from interp.circuits.patching.sweep import depths
from interp.circuits.subspaces.das import about_interchange
from interp.circuits.subspaces.fit_subspace import FitKeywords
from interp.circuits.subspaces.interchanges import (
    DasTask,
    Domain,
    HeldOut,
    Material,
    hold_out,
    read_class_free,
    read_domain,
)
from interp.circuits.subspaces.subspace import Subspace, orthonormal
from interp.circuits.subspaces.trials import (
    WHOLE,
    FittedSite,
    Receivers,
    fit_site,
    judge_interchange,
    largest_subspaces,
    try_subspaces,
)
from interp.circuits.tasks.metrics import Classifier, MetricKind
from interp.core.arguments import filled
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.statistics.index_of_sharing import UNKNOWN, Index
from interp.core.tables import Table
from interp.core.tower import Tower


class BetweenKeywords(FitKeywords, total=False):
    """How subspaces of two models are fitted and scored."""

    k: int | None
    class_free: Sequence[str]
    metric: MetricKind


A, B = "A", "B"
NO_SIZE = Index(np.nan, np.nan, np.nan, UNKNOWN, WHOLE)
SHUFFLED, BY_CHANCE = "pictures shuffled", "random directions of A"


@door
def das_between(
    a: Seeing,
    b: Seeing,
    images: ImageTable,
    *,
    domain: str,
    site: str | tuple[str, str],
    heads: tuple[Classifier, Classifier],
    n: int = 96,
    **how: Unpack[BetweenKeywords],
) -> Table:
    """Fit the subspace that carries the class in model A, interchange it in model B; vice versa.

        R_B     = orthonormal(W^T R_A),    W a linear stitch from A's activations to B's
        value   = mean over classes c of [metric for c of a picture of another class, B's part in
                  R_B taken from a picture of c] - [the same, unpatched]
        ceiling = the same with B's own subspace
        null    = the strongest of: the part of a third class; random directions of B; and, through
                  W, random directions of A and subspaces of A fitted on pictures without a class
        index   = (value - null) / (ceiling - null)

    Args:
        a: A model of pictures: anything with `visual` and `preprocess`.
        b: The other, which may be of another architecture.
        images: Pictures that neither was trained on.
        domain: The domain whose pictures are fitted on and interchanged.
        site: A site that both have, or A's and B's; both need a feature axis.
        heads: The classes as A and as B are asked for them, of the same names.
        n: Receivers, and about as many pictures to fit on.
        **how: The keywords that follow; all others of `das` are as there.
        k: Directions; None takes the fewest that carry the class in both models.
        class_free: Kinds of pictures without a class that a null is fitted on.
        metric: "margin", "mean_margin" or a function of outputs and a `Target`.
        steps: Steps of Adam.
        learning_rate: Adam's at the start.
        span: Share of the effects that the directions searched hold.
        batch_size: Pairs in a step, and examples in a forward.
        memory: Bytes of activations held at a time.
        seed: Seed of all draws.

    Returns:
        Two rows, of A's subspace in B (`model_b` is "B") and of B's in A, with the columns of
        `das`. `shuffled` is what R_A does through a stitch that was fitted to other pictures.

    Raises:
        SpecificationError: For heads of different classes, or numbers out of range.
        SampleError: For fewer than three classes or too few artists.
        ShapeError: For sites that have neither as many places nor maps.
        SiteError: For a site without features.

    References:
        Geiger et al. 2024, arXiv 2303.02536 (distributed alignment search); stitches as in
        `interp.circuits.stitch`.

    Notes:
        - The stitch is fitted to the pictures that the subspaces are fitted to; receivers and
          sources are by other artists.
        - A stitch of shuffled pictures ends in the directions in which B varies most. Where these
          are few, they carry the class whatever is mapped there: see `shuffled` beside `value`.
        - Moved along R_A, A's activation moves B's stitched one along W^T R_A; so that is what A's
          variable is in B's coordinates. Ask where a stitch holds (`stitch`): elsewhere R_B is
          not what B would have been given.

    >>> from PIL import Image
    >>> from types import SimpleNamespace
    >>> from interp.circuits import Chain
    >>> rows = [(c, "real", a) for c in ("red", "lime", "blue") for a in "uvwxyz"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path="", split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> model = SimpleNamespace(
    ...     visual=Chain([torch.nn.Identity()]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> head = Classifier(torch.eye(3), ["red", "lime", "blue"])
    >>> found = das_between(model, model, images, domain="real", site="hook_embed",
    ...                     heads=(head, head), n=6, steps=5, class_free=())
    >>> found.frame["model_b"].tolist(), bool(found.frame["value"].round(3).nunique() == 1)
    (['B', 'A'], True)
    """
    if tuple(heads[0].names) != tuple(heads[1].names):
        given = "heads of different classes"
        right = "the same classes, in the same order"
        do = "make both of the same names"
        raise SpecificationError("compare subspaces of two models", given, right, do)
    sites = (site, site) if isinstance(site, str) else site
    tasks = [
        filled(das_between, DasTask, {**how, "classifier": head, "preprocess": model.preprocess})
        for model, head in zip((a, b), heads, strict=True)
    ]
    classes = [label for label in images.labels if label in set(heads[0].names)]
    held = hold_out(images, [domain], classes=classes, n=n, seed=tasks[0].seed)
    opened = [
        _Shown.of(model.visual, name, held, domain, task)
        for model, name, task in zip((a, b), sites, tasks, strict=True)
    ]
    most = min(one.most for one in opened)
    ends = [one.fitted(domain, most) for one in opened]
    k = min(most, max(end.fitted.k for end in ends))
    rows = [_row(one, other, held, domain, k=k) for one, other in (ends, ends[::-1])]
    frame = pd.DataFrame(rows).assign(model_b=[B, A], domain=domain)
    frame.insert(0, "measure", "distributed alignment search")
    facts = {"classes": list(held.classes), "artists": held.artists, "steps": tasks[0].steps}
    return Table.with_evidence("das_between", frame, facts)


@dataclass(frozen=True, eq=False)
class _Shown:
    """One of the two models: its pictures as it takes them, and how many directions it may have."""

    tower: Tower
    site: str
    shown: Domain
    floors: dict[str, Material]
    task: DasTask
    most: int

    @classmethod
    def of(cls, tower: Tower, site: str, held: HeldOut, domain: str, task: DasTask) -> "_Shown":
        """Read a model's pictures."""
        [name] = find_sites([site], tower.sites)
        shown, floors = read_domain(tower, held, domain, task), read_class_free(tower, held, task)
        pictures = shown.material.pictures
        sizes = largest_subspaces(tower, [name], pictures, task, n_classes=len(held.classes))
        return cls(tower, name, shown, floors, task, sizes[name])

    def fitted(self, domain: str, k: int) -> "_Model":
        """Fit its subspaces of `k` directions, as many as both models can have."""
        pictures = self.shown.material.pictures
        plan = make_plan(
            self.tower, [self.site], base=pictures, n_donors=1, room=self.task, axes=("layer",)
        )
        given = {domain: self.shown.material}
        made = fit_site(
            self.tower, self.site, given, self.floors, self.task, k=k, where={}, rows=plan.rows
        )
        return _Model(self.tower, self.site, self.shown, made, self.task, plan.rows)


@dataclass(frozen=True, eq=False)
class _Model:
    """One of the two, with what was fitted at its site."""

    tower: Tower
    site: str
    shown: Domain
    fitted: FittedSite
    task: DasTask
    rows: int

    @property
    def activation(self) -> Tensor:
        """What the site holds of the pictures that were fitted on."""
        return hold(self.tower, self.site, self.shown.material.pictures, rows=self.rows).activation


def _row(a: _Model, b: _Model, held: HeldOut, domain: str, *, k: int) -> dict[str, object]:
    """The subspaces of `a` in `b`, judged."""
    seed, own = b.task.seed, Receivers.of(held, domain)
    there, here = a.fitted.first(k), b.fitted.first(k)[domain][0]
    first = there[domain][0]
    stitched, shuffled = _stitches(a, b, seed)
    mapped = {
        name: (_mapped(one, stitched, here), _mapped(also, stitched, here))
        for name, (one, also) in there.items()
    }
    floors = {name: each for name, each in mapped.items() if name != domain}
    drawn = torch.from_numpy(rng("directions of A", seed).normal(size=first.basis.shape))
    by_chance, at_random = (
        _mapped(one, way, here)
        for one, way in ((first.with_basis(drawn), stitched), (first, shuffled))
    )
    floors[BY_CHANCE] = by_chance, by_chance  # what varies beside them is not asked
    others = {A: mapped[domain], SHUFFLED: (at_random, at_random)}
    tried = try_subspaces(b.tower, b.shown, here, others, floors, rows=b.rows, seed=seed)
    home = try_subspaces(a.tower, a.shown, first, {}, {}, rows=a.rows, seed=seed)
    largest = float(np.abs(tried.effects + b.shown.before).max())
    judged = judge_interchange(tried, home, A, own, own, ROUNDING * largest)
    index = judged.index if k < len(here.basis) else NO_SIZE
    about = replace(
        about_interchange(held, domain, domain, seed),
        estimand="mean over classes c of how far the part of a picture of c in the subspace of "
        "model A, mapped to B, moves B's picture of another class towards c",
        null_kind=f"the strongest: {judged.null_kind}",
        ceiling_kind="B's own subspace, fitted on as many pictures",
    )
    row = about.with_verdict(np.vstack([judged.means, judged.left]), index=index)
    depth = [depths(each.tower, [each.site])[0] for each in (a, b)]
    place = {"site": a.site, "site_b": b.site, "layer": a.tower.layer(a.site)}
    return (
        place
        | {"depth": depth[0], "depth_b": depth[1]}
        | row
        | {
            "in_domain": own.mean(home["own"]),
            "other_class": own.mean(tried.of_other(A, "fitted null")),
            "random": own.mean(tried.of_floors("fitted")[BY_CHANCE]),
            "varied": own.mean(tried.of_other(A, "varied")),
            "shuffled": own.mean(tried.of_other(SHUFFLED, "fitted")),
            "whole": own.mean(tried["whole"]),
            "k": k,
        }
    )


def _stitches(a: _Model, b: _Model, seed: int) -> tuple[Stitch, Stitch]:
    """Maps from A's activations to B's: of the same pictures, and of shuffled ones."""
    x, y = a.activation, b.activation
    axes = tuple(a.tower.axes(a.site)), tuple(b.tower.axes(b.site))
    rows, target = places_like(x, axes[0], y, axes[1]), places_last(y, axes[1])
    order = torch.from_numpy(rng("pictures shuffled", seed).permutation(len(target)))
    places = some_places(target.shape[1], len(target), seed)
    rows, target = (each[:, places.to(each.device)] for each in (rows, target))
    source = StitchSource(rows)
    return source.fit(target), source.fit(target[order])


def _mapped(subspace: Subspace, stitch: Stitch, like: Subspace) -> Subspace:
    """A subspace of A in B's coordinates."""
    basis = stitch.weight.T @ subspace.basis.to(stitch.weight)
    return like.with_basis(orthonormal(basis))

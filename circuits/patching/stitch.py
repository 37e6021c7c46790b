"""Stitching: a linear map from one model's activation to another's, which then goes on from it.

The map is fitted to activations, never to answers, so that it cannot learn the task by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import (
    RIDGES,
    Stitch,
    StitchSource,
    as_before,
    places_last,
    places_like,
    some_places,
)
from interp.circuits.patching.sweep import depths
from interp.circuits.tasks.metrics import Classifier
from interp.core.artists import artist_column, artist_halves, halved_classes
from interp.core.errors import SampleError, ShapeError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence, counts_of, leaving_out
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE, Table

STITCHED, BACK, TWIN = "stitched", "there and back", "another seed"
UNTRAINED, REROUTED, SHUFFLED = "untrained", "classes exchanged", "pictures shuffled"
KINDS = (STITCHED, BACK, TWIN, UNTRAINED, REROUTED, SHUFFLED)


@runtime_checkable
class Seeing(Protocol):
    """A model of pictures: a `Clip`, a supervised baseline, an encoder."""

    visual: Any
    preprocess: Any


@dataclass(frozen=True)
class Controls:
    """What a stitch from model A to model B is held against.

    Args:
        untrained: A before training, the null; None takes shuffled pictures.
        twins: Other seeds of B's mixture, the ceiling: what B makes of models that differ by their
            seed alone. Two or more say what seeds differ by; none takes B itself.

    >>> Controls().twins
    ()
    """

    untrained: Seeing | None = None
    twins: Sequence[Seeing] = ()

    @property
    def models(self) -> dict[str, Sequence[Seeing]]:
        """The models by what they are, those that are there."""
        floor = () if self.untrained is None else (self.untrained,)
        return {kind: each for kind, each in ((UNTRAINED, floor), (TWIN, self.twins)) if each}


Answers: TypeAlias = dict[str, np.ndarray]
"""Whether each picture got its class, by kind of run; NaN where it was not tried."""


@dataclass(frozen=True, eq=False)
class StitchedRuns:
    """Two models, the pictures in two halves, and how maps are fitted and tried.

    Args:
        a: The model whose activations are mapped.
        b: The model that goes on from them.
        controls: Other models whose activations are mapped to B's: `UNTRAINED` has A's sites,
            `TWIN` B's.
        heads: The classes as A and as B are asked for them.
        images: The pictures.
        half: The half of the artists that each is of, 0 or 1.
        classes: Classes that are exchanged with one another.
        batch_size: Pictures in a forward.
        seed: Seed of exchanged classes, shuffled pictures and places.
    """

    a: Seeing
    b: Seeing
    controls: Mapping[str, Sequence[Seeing]]
    heads: tuple[Classifier, Classifier]
    images: ImageTable
    half: np.ndarray
    classes: Sequence[str]
    batch_size: int
    seed: int
    _shown: dict[str, Tensor] = field(default_factory=dict, init=False)
    """One picture's activation at each of B's sites, for its shape."""

    def answers(self, site_a: str, site_b: str) -> Answers:
        """Which pictures got their class, under every kind of stitch, each half tried once."""
        kinds = [*KINDS, *(name for name, _, _ in self._others(site_a, site_b))]
        found: Answers = {kind: np.full(len(self.images), np.nan) for kind in ("A", "B", *kinds)}
        exchanged = self._exchange()
        for half in (0, 1):
            fitted = np.flatnonzero(self.half == half)
            tried = np.flatnonzero(self.half != half)
            maps = self._maps(site_a, site_b, fitted)
            for rows, outputs in self._runs(site_a, site_b, tried, maps):
                own = self.heads[0].numbers(self.images.label.iloc[rows].tolist())
                for kind, (head, output) in outputs.items():
                    chosen = head.logits(output).argmax(dim=-1).cpu()
                    wanted = exchanged[own] if kind == REROUTED else own
                    found[kind][rows] = (chosen == wanted).numpy().astype(float)
        for kind, models in self.controls.items():
            each = [found.pop(f"{kind} {n}") for n in range(len(models))]
            found[kind] = np.mean(each, axis=0)
        return {kind: right for kind, right in found.items() if np.isfinite(right).all()}

    def _others(self, site_a: str, site_b: str) -> list[tuple[str, Seeing, str]]:
        """The controls that are models: a name of each, the model, and its site."""
        return [
            (f"{kind} {n}", model, site_b if kind == TWIN else site_a)
            for kind, models in self.controls.items()
            for n, model in enumerate(models)
        ]

    def _exchange(self) -> Tensor:
        """A derangement of the classes, as places among all that the heads name."""
        generator = rng("classes exchanged", self.seed)
        order = generator.permutation(len(self.classes))
        place = self.heads[0].numbers(list(self.classes))
        turned = torch.arange(len(self.heads[0].names))
        turned[place[torch.from_numpy(order)]] = place[torch.from_numpy(np.roll(order, 1))]
        return turned

    def _maps(self, site_a: str, site_b: str, rows: np.ndarray) -> dict[str, Stitch]:
        """Every kind of map, fitted on some pictures."""
        x = self._sampled(self.a, site_a, rows, like=(self.b, site_b))
        y = self._sampled(self.b, site_b, rows)
        generator = rng("pictures shuffled", self.seed)
        labels = self.images.label.to_numpy()[rows]
        domains = self.images.domain.to_numpy()[rows]
        names = np.array(self.heads[0].names, dtype=object)
        target = dict(zip(names, names[self._exchange().numpy()], strict=True))
        partner = np.array(
            [
                generator.choice(np.flatnonzero((labels == target[label]) & (domains == domain)))
                for label, domain in zip(labels, domains, strict=True)
            ]
        )
        shuffled = generator.permutation(len(rows))
        source = StitchSource(x)
        maps = {
            STITCHED: source.fit(y),
            BACK: StitchSource(y).fit(x),
            REROUTED: source.fit(y[partner]),
            SHUFFLED: source.fit(y[shuffled]),
        }
        for name, model, site in self._others(site_a, site_b):
            own = self._sampled(model, site, rows, like=(self.b, site_b))
            maps[name] = StitchSource(own).fit(y)
        return maps

    def _read(self, model: Seeing, rows: np.ndarray) -> Tensor:
        """Some pictures as a model takes them, in the format of its parameters."""
        like = next(iter(model.visual.parameters()), self.heads[1].embeddings)
        return self.images.tensors(model.preprocess, rows.tolist()).to(like)

    def _sampled(
        self, model: Seeing, site: str, rows: np.ndarray, like: tuple[Seeing, str] | None = None
    ) -> Float[Tensor, "picture place feature"]:
        """Activations of some pictures, at a few places that are the same for all models."""
        parts, places = [], None
        for _, activation in self._activations(model, site, rows):
            flat = self._resized(activation, model, site, like)
            if places is None:
                places = some_places(flat.shape[1], len(rows), self.seed)
            parts.append(flat[:, places.to(flat.device)].double())
        return torch.cat(parts)

    def _resized(
        self, activation: Tensor, model: Seeing, site: str, like: tuple[Seeing, str] | None
    ) -> Tensor:
        """Places as many as the other site has, where there is one."""
        if like is None:
            return places_last(activation, model.visual.axes(site))
        if like[1] not in self._shown:
            self._shown[like[1]] = next(self._activations(*like, np.arange(1)))[1]
        axes = model.visual.axes(site), like[0].visual.axes(like[1])
        return places_like(activation, axes[0], self._shown[like[1]], axes[1])

    def _activations(
        self, model: Seeing, site: str, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            x = self._read(model, some)
            with torch.no_grad():
                _, cache = model.visual.run_with_cache(x, names_filter=[site])
            yield some, cache[site]

    def _runs(
        self, site_a: str, site_b: str, rows: np.ndarray, maps: dict[str, Stitch]
    ) -> Iterator[tuple[np.ndarray, dict[str, tuple[Classifier, Tensor]]]]:
        """Outputs of every kind of run, some pictures at a time."""
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            held_a = hold(self.a.visual, site_a, self._read(self.a, some), rows=len(some))
            held_b = hold(self.b.visual, site_b, self._read(self.b, some), rows=len(some))
            axes_a, axes_b = self.a.visual.axes(site_a), self.b.visual.axes(site_b)
            mapped = self._resized(held_a.activation, self.a, site_a, (self.b, site_b))
            sent = {kind: maps[kind](mapped) for kind in (STITCHED, REROUTED, SHUFFLED)}
            for name, model, site in self._others(site_a, site_b):
                _, own = next(self._activations(model, site, some))
                sent[name] = maps[name](self._resized(own, model, site, (self.b, site_b)))
            outputs = {
                "A": (self.heads[0], held_a.finish(held_a.activation)),
                "B": (self.heads[1], held_b.finish(held_b.activation)),
            }
            for kind, flat in sent.items():
                back = as_before(flat, held_b.activation, axes_b)
                outputs[kind] = (self.heads[1], held_b.finish(back))
            if mapped.shape[1] == places_last(held_a.activation, axes_a).shape[1]:
                # what was resized cannot go back
                again = as_before(maps[BACK](maps[STITCHED](mapped)), held_a.activation, axes_a)
                outputs[BACK] = (self.heads[0], held_a.finish(again))
            yield some, {kind: (head, out.detach()) for kind, (head, out) in outputs.items()}


WORDS = {
    UNTRAINED: "activations of the model before training",
    SHUFFLED: "activations of other pictures",
    "A": "accuracy of A itself",
    "B": "accuracy of B itself",
    TWIN: "accuracy of B that goes on from another seed of its mixture",
}
"""Nulls and ceilings in words."""

LEAST_CLASSES = 3


@door
def stitch(
    a: Seeing,
    b: Seeing,
    images: ImageTable,
    *,
    sites: Sequence[str | tuple[str, str]],
    heads: tuple[Classifier, Classifier],
    controls: Controls | None = None,
    domains: Sequence[str] | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Table:
    """Let one model go on from another's activations, mapped linearly, and ask it for classes.

        value   = accuracy of B that goes on from W A(x), mean over classes
        ceiling = accuracy of B that goes on from other seeds of its own (without any, B itself)
        null    = the same with activations of an untrained A (without one, of shuffled pictures)
        index   = (value - null) / (ceiling - null)

    W is fitted on the pictures of one half of the artists, A's activation to B's, and tried on the
    other's; both halves are tried. It is a ridge regression, whose penalty is chosen by four folds
    of the fitted pictures' activations.

    Args:
        a: The model whose activations are mapped: anything with `visual` and `preprocess`.
        b: The model that goes on from them.
        images: The pictures, with labels and domains.
        sites: Sites that both have, or pairs of A's and B's.
        heads: The classes as A and as B are asked for them, of the same names.
        controls: Other models whose activations are mapped to B's as A's are: A before training,
            other seeds of B.
        domains: Domains to ask in; None takes all. W is fitted on all of them together.
        batch_size: Pictures in a forward.
        seed: Seed of the halves, of exchanged classes and of shuffled pictures.

    Returns:
        A table with a row for each pair of sites, domain and `measure`: "stitched", judged as
        shared, partly, not or unknown; "there and back", A's own accuracy from B's side, mapped
        back; and the controls "another seed", "untrained", "classes exchanged" and "pictures
        shuffled". Rows of single classes (`label`) have no interval.

    Raises:
        SampleError: For fewer than three classes with pictures by two artists in a domain.
        SiteError: For a site that a tower does not have, or one without features.
        SpecificationError: For heads of different classes.
        DataError: For an unknown domain.

    References:
        Bansal, Nakkiran and Barak 2021, arXiv 2106.07682; matching of activations rather than
        training on the task: Csiszarik et al. 2021, arXiv 2110.14633.

    Notes:
        - Maps of different sizes are resized to B's, bilinearly; other positions must be as many.
        - "classes exchanged" fits A's pictures of class c to B's of class pi(c), pi a derangement,
          and scores pi(c): how far any linear map of this size can be made to say any class. Where
          that is as good, agreement of classes is not what a stitch shows, and late layers, where
          classes are separable, come close to it.
        - "there and back" is what B's side keeps of what A needs. A stitch can serve B while it
          loses that.

    >>> import torch
    >>> from PIL import Image
    >>> from types import SimpleNamespace
    >>> from interp.circuits import Chain
    >>> frame = pd.DataFrame([(f"{c}{n}", c, "real", "test", "", f"artist {n}")
    ...                       for c in ("red", "lime", "blue") for n in range(4)],
    ...                      columns=["path", "label", "domain", "split", "caption", "artist"])
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (1, 1), row["label"]))
    >>> model = SimpleNamespace(
    ...     visual=Chain([torch.nn.Identity()]),
    ...     preprocess=lambda image: torch.tensor([image.getpixel((0, 0))]) / 255)
    >>> head = Classifier(torch.eye(3), ("red", "lime", "blue"))
    >>> table = stitch(model, model, images, sites=["blocks.0.hook_resid_post"], heads=(head, head))
    >>> table.frame.query("measure == 'stitched' and label == ''")["value"].tolist()
    [1.0]
    """
    asked = "stitch two models"
    if tuple(heads[0].names) != tuple(heads[1].names):
        given = "heads of different classes"
        right = "the same classes, in the same order"
        raise SpecificationError(asked, given, right, "make both of the same names")
    names = list(images.domains if domains is None else domains)
    check_known(asked, "domain", names, images.domains)
    pairs = [(site, site) if isinstance(site, str) else (site[0], site[1]) for site in sites]
    frame = images.frame
    deal = artist_halves(frame, names, seed=seed)
    classes = [c for c in halved_classes(frame, [deal], names) if c in heads[0].names]
    if len(classes) < LEAST_CLASSES:
        given = f"{len(classes)} classes with pictures by two artists in every domain"
        right = f"at least {LEAST_CLASSES}"
        raise SampleError(asked, given, right, "give more pictures, or name fewer domains")
    used = (deal >= 0) & frame["label"].isin(classes).to_numpy()
    used &= frame["domain"].isin(names).to_numpy()
    shown = images[used]
    beside = (controls or Controls()).models
    runs = StitchedRuns(a, b, beside, heads, shown, deal[used], classes, batch_size, seed)
    rows: list[dict[str, object]] = []
    for pair in track(pairs, "stitches"):
        rows += _rows(runs, *pair, names)
    facts = {"ridges": list(RIDGES), "halves by": artist_column(frame), "seed": seed}
    found = pd.DataFrame(rows)
    lacking = [name for name in EVIDENCE if name not in found]  # where nothing could be stitched
    return Table.with_evidence(
        "stitching", found.reindex(columns=[*found.columns, *lacking]), facts
    )


def _rows(
    runs: StitchedRuns, site_a: str, site_b: str, domains: Sequence[str]
) -> list[dict[str, object]]:
    """The table's rows of a pair of sites."""
    towers = runs.a.visual, runs.b.visual
    where: dict[str, object] = {"site": site_a, "site_b": site_b, "model_b": "B"}
    where["layer"] = towers[0].layer(site_a)
    where["depth"] = depths(towers[0], [site_a])[0]
    where["depth_b"] = depths(towers[1], [site_b])[0]
    try:
        answers = runs.answers(site_a, site_b)
    except ShapeError as error:
        reason = f"{error.given}; right would be {error.right}"
        return [{"measure": STITCHED, **where, "domain": "", "label": "", "reason": reason}]
    found = []
    for domain in domains:
        found += _of_domain(runs, answers, domain, where)
    return found


def _of_domain(
    runs: StitchedRuns, answers: Answers, domain: str, where: dict[str, object]
) -> list[dict[str, object]]:
    labels = runs.images.label.to_numpy()
    here = (runs.images.domain == domain).to_numpy()
    by_class = {
        kind: np.array([right[here & (labels == name)].mean() for name in runs.classes])
        for kind, right in answers.items()
    }
    nulls = {STITCHED: UNTRAINED if UNTRAINED in runs.controls else SHUFFLED, BACK: SHUFFLED}
    ceilings = {kind: "B" for kind in KINDS} | {BACK: "A"}
    ceilings |= {STITCHED: TWIN} if TWIN in runs.controls else {}
    counted = counts_of(runs.images.frame[here], len(runs.classes))
    rows = []
    for kind in (kind for kind in KINDS if kind in by_class):
        about = Evidence(
            estimand="accuracy that goes on from another model's activations",
            null_kind=WORDS[nulls[kind]] if kind in nulls else "none: it is a control",
            ceiling_kind=WORDS[ceilings[kind]],
            seed=runs.seed,
            **counted,
        )
        own, top = by_class[kind], by_class[ceilings[kind]]
        place = {"measure": kind, **where, "domain": domain, "label": ""}
        if kind in nulls:
            terms = np.column_stack(
                [leaving_out(each) for each in (own, by_class[nulls[kind]], top)]
            )
            row = about.with_verdict(terms)
            row |= {} if kind == STITCHED else {"verdict": ""}
        else:
            spread = jackknife(float(own.mean()), leaving_out(own)[1:])
            row = about.row(spread, null=np.nan, ceiling=float(top.mean()), index=NO_VERDICT)
        rows.append(place | row)
        if kind == STITCHED:
            rows += [
                place
                | {"label": name, "value": float(value), "ceiling": float(most)}
                | {"n_pictures": int((here & (labels == name)).sum())}
                | {"reason": "a class alone has no interval"}
                for name, value, most in zip(runs.classes, own, top, strict=True)
            ]
    return rows

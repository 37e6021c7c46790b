"""Stitching: a linear map from one model's activation to another's, which then goes on from it.

The map is fitted to activations, never to answers, so that it cannot learn the task by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.circuits.patching.engine import hold
from interp.circuits.patching.linear_maps import (
    RIDGE,
    Stitch,
    as_before,
    fit_stitch,
    places_last,
)
from interp.circuits.patching.sweeping import depths
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

STITCHED, BACK = "stitched", "there and back"
UNTRAINED, REROUTED, SHUFFLED = "untrained", "classes exchanged", "pictures shuffled"
KINDS = (STITCHED, BACK, UNTRAINED, REROUTED, SHUFFLED)

MOST_ROWS = 40_000
"""Rows (a position of a picture) that a map is fitted to, at most."""

LEAST_CLASSES = 3

MAP = ("batch", "channel", "row", "column")


@runtime_checkable
class Seeing(Protocol):
    """A model of pictures: a `Clip`, a supervised baseline, an encoder."""

    visual: Any
    preprocess: Any


@door
def stitch(
    a: Seeing,
    b: Seeing,
    images: ImageTable,
    *,
    sites: Sequence[str | tuple[str, str]],
    heads: tuple[Classifier, Classifier],
    untrained: Seeing | None = None,
    domains: Sequence[str] | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Table:
    """Let one model go on from another's activations, mapped linearly, and ask it for classes.

        value   = accuracy of B that goes on from W A(x), mean over classes
        ceiling = accuracy of B itself
        null    = the same with activations of an untrained A (without one, of shuffled pictures)
        index   = (value - null) / (ceiling - null)

    W is fitted on the pictures of one half of the artists, A's activation to B's, and tried on the
    other's; both halves are tried.

    Args:
        a: The model whose activations are mapped: anything with `visual` and `preprocess`.
        b: The model that goes on from them.
        images: The pictures, with labels and domains.
        sites: Sites that both have, or pairs of A's and B's.
        heads: The classes as A and as B are asked for them, of the same names.
        untrained: The same model as A before training.
        domains: Domains to ask in; None takes all. W is fitted on all of them together.
        batch_size: Pictures in a forward.
        seed: Seed of the halves, of exchanged classes and of shuffled pictures.

    Returns:
        A table with a row for each pair of sites, domain and `measure`: "stitched", judged as
        shared, partly, not or cannot tell; "there and back", A's own accuracy from B's side, mapped
        back; and the controls "untrained", "classes exchanged" and "pictures shuffled". Rows of
        single classes (`label`) have no interval.

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
        raise SpecificationError(
            asked, "heads of different classes", "the same classes, in the same order",
            "make both of the same names",
        )  # fmt: skip
    names = list(images.domains if domains is None else domains)
    check_known(asked, "domain", names, images.domains)
    pairs = [(site, site) if isinstance(site, str) else (site[0], site[1]) for site in sites]
    frame = images.frame
    deal = artist_halves(frame, names, seed=seed)
    classes = [c for c in halved_classes(frame, [deal], names) if c in heads[0].names]
    if len(classes) < LEAST_CLASSES:
        raise SampleError(
            asked, f"{len(classes)} classes with pictures by two artists in every domain",
            f"at least {LEAST_CLASSES}", "give more pictures, or name fewer domains",
        )  # fmt: skip
    used = (deal >= 0) & frame["label"].isin(classes).to_numpy()
    used &= frame["domain"].isin(names).to_numpy()
    shown = images[used]
    job = _Job(a, b, untrained, heads, shown, deal[used], classes, batch_size, seed)
    rows: list[dict[str, object]] = []
    for pair in track(pairs, "stitches"):
        rows += job.rows(*pair, names)
    facts = {"ridge": RIDGE, "halves by": artist_column(frame), "seed": seed}
    found = pd.DataFrame(rows)
    lacking = [name for name in EVIDENCE if name not in found]  # where nothing could be stitched
    return Table.with_evidence(
        "stitching", found.reindex(columns=[*found.columns, *lacking]), facts
    )


Answers: TypeAlias = dict[str, np.ndarray]
"""Whether each picture got its class, by kind of run; NaN where it was not tried."""


@dataclass(frozen=True, eq=False)
class _Job:
    """Two models, the pictures in two halves, and how maps are fitted."""

    a: Seeing
    b: Seeing
    untrained: Seeing | None
    heads: tuple[Classifier, Classifier]
    images: ImageTable
    half: np.ndarray
    classes: Sequence[str]
    batch_size: int
    seed: int

    def rows(self, site_a: str, site_b: str, domains: Sequence[str]) -> list[dict[str, object]]:
        """The table's rows of a pair of sites."""
        towers = self.a.visual, self.b.visual
        where: dict[str, object] = {"site": site_a, "site_b": site_b, "model_b": "B"}
        where["layer"] = towers[0].layer(site_a)
        where["depth"] = depths(towers[0], [site_a])[0]
        where["depth_b"] = depths(towers[1], [site_b])[0]
        try:
            answers = self.answers(site_a, site_b)
        except ShapeError as error:
            return [
                {
                    "measure": STITCHED,
                    **where,
                    "domain": "",
                    "label": "",
                    "reason": f"{error.given}; {error.right}",
                }
            ]
        found = []
        for domain in domains:
            found += self._of_domain(answers, domain, where)
        return found

    def _of_domain(
        self, answers: Answers, domain: str, where: dict[str, object]
    ) -> list[dict[str, object]]:
        labels = self.images.label.to_numpy()
        here = (self.images.domain == domain).to_numpy()
        by_class = {
            kind: np.array([right[here & (labels == name)].mean() for name in self.classes])
            for kind, right in answers.items()
        }
        floor = UNTRAINED if self.untrained is not None else SHUFFLED
        nulls = {STITCHED: floor, BACK: SHUFFLED}
        ceilings = {kind: "B" for kind in KINDS} | {BACK: "A"}
        words = {
            UNTRAINED: "activations of the model before training",
            SHUFFLED: "activations of other pictures",
        }
        counted = counts_of(self.images.frame[here], len(self.classes))
        rows = []
        for kind in (kind for kind in KINDS if kind in by_class):
            about = Evidence(
                estimand="accuracy that goes on from another model's activations",
                null_kind=words[nulls[kind]] if kind in nulls else "none: it is a control",
                ceiling_kind=f"accuracy of {ceilings[kind]} itself",
                seed=self.seed,
                **counted,
            )
            own, top = by_class[kind], by_class[ceilings[kind]]
            place = {"measure": kind, **where, "domain": domain, "label": ""}
            if kind in nulls:
                terms = np.column_stack(
                    [leaving_out(each) for each in (own, by_class[nulls[kind]], top)]
                )
                row = about.judged(terms)
                row |= {} if kind == STITCHED else {"verdict": ""}
            else:
                spread = jackknife(float(own.mean()), leaving_out(own)[1:])
                row = about.row(spread, null=np.nan, ceiling=float(top.mean()), index=NO_VERDICT)
            rows.append(place | row)
            if kind == STITCHED:
                rows += [
                    place | {"label": name, "value": float(value), "ceiling": float(most)}
                    | {"n_pictures": int((here & (labels == name)).sum())}
                    | {"reason": "a class alone has no interval"}
                    for name, value, most in zip(self.classes, own, top, strict=True)
                ]  # fmt: skip
        return rows

    def answers(self, site_a: str, site_b: str) -> Answers:
        """Which pictures got their class, under every kind of stitch, each half tried once."""
        found: Answers = {kind: np.full(len(self.images), np.nan) for kind in ("A", "B", *KINDS)}
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
        return {kind: right for kind, right in found.items() if np.isfinite(right).all()}

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
        partner = np.array([
            generator.choice(np.flatnonzero((labels == target[label]) & (domains == domain)))
            for label, domain in zip(labels, domains, strict=True)
        ])  # fmt: skip
        shuffled = generator.permutation(len(rows))
        maps = {
            STITCHED: self._fit(x, y),
            BACK: self._fit(y, x),
            REROUTED: self._fit(x, y[partner]),
            SHUFFLED: self._fit(x, y[shuffled]),
        }
        if self.untrained is not None:
            floor = self._sampled(self.untrained, site_a, rows, like=(self.b, site_b))
            maps[UNTRAINED] = self._fit(floor, y)
        return maps

    def _fit(self, x: Tensor, y: Tensor) -> Stitch:
        return fit_stitch(x.flatten(0, 1), y.flatten(0, 1).to(x.device))

    def _like(self, model: Seeing) -> Tensor:
        """What pictures of a model look like: the format and device of its parameters."""
        return next(iter(model.visual.parameters()), self.heads[1].embeddings)

    def _sampled(
        self, model: Seeing, site: str, rows: np.ndarray, like: tuple[Seeing, str] | None = None
    ) -> Float[Tensor, "picture place feature"]:
        """Activations of some pictures, at a few places that are the same for all models."""
        parts, places = [], None
        for some, activation in self._activations(model, site, rows):
            flat = places_last(activation, model.visual.axes(site))
            if like is not None:
                flat = self._resized(flat, activation, model, site, like, some)
            if places is None:
                most = max(1, MOST_ROWS // len(rows))
                order = rng("places of a stitch", self.seed).permutation(flat.shape[1])
                places = torch.from_numpy(np.sort(order[:most]))
            parts.append(flat[:, places.to(flat.device)].double())
        return torch.cat(parts)

    def _resized(
        self,
        flat: Tensor,
        activation: Tensor,
        model: Seeing,
        site: str,
        like: tuple[Seeing, str],
        rows: np.ndarray,
    ) -> Tensor:
        """Places as many as the other site has: maps are resized."""
        _, other = next(self._activations(*like, rows[:1]))
        ends = model.visual.axes(site), like[0].visual.axes(like[1])
        n = places_last(other, ends[1]).shape[1]
        if flat.shape[1] == n:
            return flat
        if not all({"row", "column"} <= set(axes) for axes in ends):
            raise ShapeError(
                "stitch two models",
                f"{flat.shape[1]} places at {site} and {n} at {like[1]}",
                "as many places are needed, or maps in both, which are resized",
                "choose other sites",
            )
        size = [other.shape[ends[1].index(name)] for name in ("row", "column")]
        maps = activation.permute(*(ends[0].index(name) for name in MAP))
        small = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return small.permute(0, 2, 3, 1).flatten(1, 2)

    def _activations(
        self, model: Seeing, site: str, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        like = self._like(model)
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            x = self.images.tensors(model.preprocess, some.tolist()).to(like)
            with torch.no_grad():
                _, cache = model.visual.run_with_cache(x, names_filter=[site])
            yield some, cache[site]

    def _runs(
        self, site_a: str, site_b: str, rows: np.ndarray, maps: dict[str, Stitch]
    ) -> Iterator[tuple[np.ndarray, dict[str, tuple[Classifier, Tensor]]]]:
        """Outputs of every kind of run, some pictures at a time."""
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            xs = [
                self.images.tensors(m.preprocess, some.tolist()).to(self._like(m))
                for m in (self.a, self.b)
            ]
            held_a = hold(self.a.visual, site_a, xs[0], rows=self.batch_size)
            held_b = hold(self.b.visual, site_b, xs[1], rows=self.batch_size)
            axes_a, axes_b = self.a.visual.axes(site_a), self.b.visual.axes(site_b)
            flat_a = places_last(held_a.activation, axes_a)
            mapped = self._resized(
                flat_a, held_a.activation, self.a, site_a, (self.b, site_b), some
            )
            sent = {kind: maps[kind](mapped) for kind in (STITCHED, REROUTED, SHUFFLED)}
            if self.untrained is not None:
                _, floor = next(self._activations(self.untrained, site_a, some))
                flat = places_last(floor, axes_a)
                flat = self._resized(flat, floor, self.a, site_a, (self.b, site_b), some)
                sent[UNTRAINED] = maps[UNTRAINED](flat)
            outputs = {"A": (self.heads[0], held_a.finish(held_a.activation)),
                       "B": (self.heads[1], held_b.finish(held_b.activation))}  # fmt: skip
            for kind, flat in sent.items():
                back = as_before(flat, held_b.activation, axes_b)
                outputs[kind] = (self.heads[1], held_b.finish(back))
            if mapped.shape[1] == flat_a.shape[1]:  # what was resized cannot go back
                again = as_before(maps[BACK](maps[STITCHED](mapped)), held_a.activation, axes_a)
                outputs[BACK] = (self.heads[0], held_a.finish(again))
            yield some, {kind: (head, out.detach()) for kind, (head, out) in outputs.items()}

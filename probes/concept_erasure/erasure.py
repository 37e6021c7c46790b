"""Effects of erasing a concept at a site: whether a concept that can be read there is also used.

That a probe can read a concept does not mean that the model uses it. Here LEACE makes the domain
(or the class) unreadable at a site inside the tower, and the changes that follow are measured. Any
erasing does harm, so LEACE on permuted labels and a random subspace of as much variance stand
beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Required, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from interp.core.arguments import filled
from interp.core.artists import n_drawings
from interp.core.edits.edits import tokens
from interp.core.edits.erasers import Eraser, Moments
from interp.core.errors import SampleError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.statistics.evidence_rows import Evidence
from interp.core.statistics.resampling import Interval, jackknife
from interp.core.tables import Table
from interp.core.tower import Tower
from interp.probes.concept_erasure.leace import check_positions, eraser_hook
from interp.probes.concept_erasure.outcomes import (
    BalancedCells,
    Consequence,
    balanced_cells,
    consequences,
)
from interp.probes.features.pooling import parameter, pooled, reading_runs

CONCEPTS = ("domain", "class")
PERMUTED, RANDOM = "permuted labels", "random subspace"
BEFORE, ERASED = "before", "LEACE"
SEEN, HELD_OUT = "seen", "held-out"

Classify = Callable[[Tensor], Tensor]
"""From embeddings "batch d_embed" to logits "batch class"."""


class ErasureRunKeywords(TypedDict, total=False):
    """How the tower is run on pictures, and which positions are erased."""

    preprocess: Required[Preprocess]
    positions: str
    batch_size: int
    device: str | torch.device | None


@door
def erasure(
    tower: Tower,
    images: ImageTable,
    sites: str | Iterable[str],
    *,
    concept: str = "domain",
    classifier: Classify | None = None,
    class_names: Sequence[str] | None = None,
    held_out: Sequence[str] = (),
    n_controls: int = 5,
    seed: int = 0,
    **how: Unpack[ErasureRunKeywords],
) -> Table:
    """Erase a concept at one site after another, inside the tower, and measure what changes.

        value  = change under LEACE of the concept: after erasing less before, balanced over classes
        null   = mean change under `n_controls` draws of a control (`against`)
        beyond = value - null, paired by class

    Args:
        tower: The tower.
        images: The pictures, with labels, domains and artists.
        sites: Names or patterns of sites.
        preprocess: From a picture to the tower's input, such as "channel row column".
        concept: What is erased: `domain` or `class`.
        classifier: From embeddings "batch d_embed" to logits "batch class"; None measures no
            accuracy.
        class_names: The classes in the order of the logits; None takes the classifier's own.
        held_out: Classes that nothing is fitted on, whose accuracy stands in rows of their own.
        positions: `every` fits one map to all positions (places of a map) and changes all of them,
            which also makes their mean unreadable; `class` fits and changes the class token.
        n_controls: Draws of each control, at least two.
        batch_size: Pictures per forward.
        device: Where the tower runs; None takes the device of its parameters.
        seed: Seed of deals and controls.

    Returns:
        A table with a row per site, measure, control, and domain or pair of domains. `removed` is
        the share of variance that LEACE takes out; `class_set` says "held-out" of such classes.

    Raises:
        SampleError: For fewer than two domains, or fewer than four classes by two artists in every
            domain. Held-out classes that are so few are left out.
        SiteError: For sites that the tower does not have or that hold no vectors.
        NumericsError: For a NaN or infinity, naming site and picture.
        SpecificationError: For another concept, fewer than two controls, or a classifier without
            class names.
        DataError: For pictures of a class that the classifier does not name.

    References:
        LEACE: Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form".

    Notes:
        | `measure` | what is measured |
        |---|---|
        | accuracy | `classifier(embedding)` names the class among `class_names`, per domain |
        | domain probe, class probe | a ridge classifier reads the concept |
        | similarity | debiased CKA of class means between two domains |
        | transfer | a ridge class probe of `train_domain` is tested in `domain` |

        - Pictures are balanced: every class has as many in each domain, so the domain says nothing
          of the class. Artists are dealt into halves. Erasers are fitted on one half and judged on
          the other, both ways.
        - The last three measures are taken at `read_at`: the site itself (mean over tokens, or the
          class token) and the tower's output. They train on half of the judged artists and test on
          the others, both ways.
        - The controls are LEACE of labels permuted over whole groups, and a random subspace, as
          large as it must be for exactly as much variance to be removed.
        - `low` and `high` are the class jackknife of the value. The interval of `beyond` and its p
          (two-sided, Student's t) combine the jackknife over classes with the spread of the draws.
        - Rows per domain show the effect in each, the source domain among them.

    >>> from PIL import Image
    >>> from interp.circuits import Chain
    >>> cells = [(c, d, a) for c in "pqrs" for d in ("real", "sketch") for a in "wxyz"]
    >>> frame = pd.DataFrame(cells, columns=["label", "domain", "artist"])
    >>> frame = frame.assign(path=[str(n) for n in range(32)], split="test", caption="")
    >>> pictures = np.random.default_rng(0).integers(0, 99, size=(32, 2, 2, 3), dtype=np.uint8)
    >>> pictures[frame["domain"] == "real", ..., 0] += 150  # domains differ in their red
    >>> images = ImageTable(frame, reader=lambda row: Image.fromarray(pictures[int(row.path)]))
    >>> table = erasure(
    ...     Chain([torch.nn.Identity()]), images, "blocks.0.hook_resid_post", n_controls=2,
    ...     preprocess=lambda picture: torch.tensor(np.array(picture) / 255).flatten(0, 1).float())
    >>> probe = table.frame.query("measure == 'domain probe' and read_at == 'site'").iloc[0]
    >>> round(float(probe["before"]), 1), bool(probe["value"] < -0.3)
    (1.0, True)
    """
    run = filled(erasure, _Run, {"tower": tower, "images": images, **how})
    check_known("erase a concept", "concept", [concept], CONCEPTS, SpecificationError)
    if n_controls < 2:
        raise SpecificationError(
            "compare an eraser with its controls",
            f"n_controls={n_controls}",
            "two or more, for their spread",
            "draw more of them",
        )
    names = find_sites(sites, list(tower.sites))
    for name in names:
        check_positions(tower.axes(name), run.positions)
    withheld = images.label.isin(list(held_out)).to_numpy()
    run, others = (replace(run, images=images[kept]) for kept in (~withheld, withheld))
    cells = balanced_cells(run.images.frame, concept=concept, n_permutations=n_controls, seed=seed)
    asked = [(run, cells, SEEN if held_out else "")]
    if withheld.any():
        try:
            own = balanced_cells(others.images.frame, concept=concept, n_permutations=0, seed=seed)
            asked.append((others, own, HELD_OUT))
        except SampleError as error:
            say(f"erasure: held-out classes left out: {error}")
    n = sum(len(each.rows) for _, each, _ in asked)
    say(
        f"erasure: {n} pictures, {len(names)} sites; {len(cells.rows)} forwards, then "
        f"{n * len(names)} up to the erased site and {n * len(names) * 2 * (1 + n_controls)} from "
        "there on"
    )
    moments = run.moments(names, cells)
    rows: list[dict[str, object]] = []
    for site in names:
        erasers = [_erasers(moments[half, site], n_controls, seed) for half in (0, 1)]
        place: dict[str, object] = {
            "site": site,
            "layer": tower.layer(site),
            "depth": list(tower.sites).index(site) / max(len(tower.sites) - 1, 1),
            "erased": concept,
            "positions": run.positions,
            "removed": np.mean(
                [erasers[h][ERASED].share(moments[h, site].covariance) for h in (0, 1)]
            ),
        }
        for who, own, class_set in asked:
            named = _class_names(classifier, class_names, own.classes)
            seen = who.conditions(site, erasers, own)
            right = {
                condition: _right(classifier, values["embedding"], named, own)
                for condition, values in seen.items()
                if classifier is not None
            }
            about = Evidence(
                estimand="",
                null_kind="",
                seed=seed,
                n_units=0,
                n_pictures=len(own.rows),
                n_drawings=n_drawings(who.images.frame.iloc[own.rows]),
            )
            where = place | {"class_set": class_set}
            found = consequences({} if class_set == HELD_OUT else seen, right, own, concept)
            for each in found:
                made = _rows(each, about, concept, n_controls, own.left_out)
                rows += [row | where for row in made]
    facts = {"source": images.source, "fingerprint": images.fingerprint, "n_controls": n_controls}
    return Table.with_evidence("erasure", pd.DataFrame(rows), facts)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The tower, the pictures, and how the one is run on the others."""

    tower: Tower
    images: ImageTable
    preprocess: Preprocess
    positions: str = "every"
    batch_size: int = 256
    device: str | torch.device | None = None

    def moments(self, names: Sequence[str], cells: BalancedCells) -> dict[tuple[int, str], Moments]:
        """What erasers are fitted from, per half and site: one pass for all of them."""
        found = {
            (half, name): Moments(cells.labels.shape[1], cells.n_values)
            for half in (0, 1)
            for name in names
        }
        last = max(self.tower.layer(name) for name in names) + 1
        stop = {"stop_at_layer": last} if last < self.tower.n_layers else {}

        def read(batch: Tensor) -> dict[str, Tensor]:
            _, cache = self.tower.run_with_cache(batch, names_filter=list(names), **stop)
            vectors = {name: tokens(cache[name], self.tower.axes(name)) for name in names}
            kept = slice(0, 1) if self.positions == "class" else slice(None)
            return {name: x[:, kept] for name, x in vectors.items()}

        for half in (0, 1):
            mine = np.flatnonzero(cells.half == half)
            for rows, made in self._runs(read, cells.rows[mine]):
                labels = torch.as_tensor(cells.labels[mine[rows.start : rows.stop]])
                for name, x in made.items():
                    vectors = torch.as_tensor(x)
                    each = labels.repeat_interleave(x.shape[1], dim=0)
                    found[half, name].update(vectors.flatten(0, 1), each)
        return found

    def conditions(
        self, site: str, erasers: Sequence[Mapping[str, Eraser]], cells: BalancedCells
    ) -> dict[str, dict[str, np.ndarray]]:
        """Features per condition and place of reading; who was fitted on one half sees the other.

        The tower runs once up to the site's block, and from there on under every condition.
        """
        seen: dict[str, dict[str, np.ndarray]] = {}
        for half in (0, 1):
            judged = np.flatnonzero(cells.half != half)
            conditions: dict[str, Eraser | None] = {BEFORE: None, **erasers[half]}
            read = partial(self._under, site=site, conditions=conditions)
            for rows, made in self._runs(read, cells.rows[judged]):
                for key, x in made.items():
                    condition, read_at = key.split("/")
                    kept = seen.setdefault(condition, {})
                    if read_at not in kept:
                        kept[read_at] = np.empty((len(cells.rows), x.shape[1]), np.float32)
                    kept[read_at][judged[rows.start : rows.stop]] = x
        return seen

    def _under(
        self, batch: Tensor, *, site: str, conditions: Mapping[str, Eraser | None]
    ) -> dict[str, Tensor]:
        """The site pooled, and the embedding, of one batch under every condition."""
        axes, layer = self.tower.axes(site), self.tower.layer(site)
        pool = "class" if self.positions == "class" else "mean"
        start = {"start_at_layer": layer} if layer >= 0 < self.tower.n_layers else {}
        x = self.tower(batch, stop_at_layer=layer) if start else batch
        made: dict[str, Tensor] = {}
        for name, eraser in conditions.items():
            erase = eraser_hook(eraser, axes, positions=self.positions) if eraser else lambda x: x

            def watch(
                activation: Tensor,
                hook: object = None,
                erase: Callable[[Tensor], Tensor] = erase,
                name: str = name,
            ) -> Tensor:
                changed = erase(activation)
                made[f"{name}/site"] = pooled(changed, axes, pool)
                return changed

            made[f"{name}/embedding"] = self.tower.run_with_hooks(
                x, fwd_hooks=[(site, watch)], **start
            )
        return made

    def _runs(
        self, read: Callable[[Tensor], dict[str, Tensor]], rows: np.ndarray
    ) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
        """Batches of some of the pictures, read; a NaN is refused at once."""
        like, table = parameter(self.tower), self.images[rows]
        target = torch.device(self.device) if self.device is not None else like.device

        def embed(batch: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                return read(batch.to(target, like.dtype))

        whole = [range(len(rows))]
        return reading_runs(embed, table, self.preprocess, self.batch_size, whole)


def _erasers(moments: Moments, n_controls: int, seed: int) -> dict[str, Eraser]:
    """LEACE of the concept and the draws of both controls, fitted on one half."""
    true = moments.leace(0)
    generator = rng("random subspace", seed)
    return (
        {ERASED: true}
        | {f"{PERMUTED} {draw}": moments.leace(draw + 1) for draw in range(n_controls)}
        | {f"{RANDOM} {draw}": moments.random(true, generator) for draw in range(n_controls)}
    )


def _class_names(
    classifier: Classify | None, given: Sequence[str] | None, needed: Sequence[str]
) -> list[str]:
    """The classifier's classes in its own order; every class of the pictures is among them."""
    names = given if given is not None else getattr(classifier, "class_names", None)
    if classifier is None:
        return []
    if names is None:
        raise SpecificationError(
            "score pictures after erasing",
            "a classifier that does not say its classes",
            "class_names=, in the order of its logits",
            "pass class_names=",
        )
    check_known("score pictures", "class", needed, names)
    return list(names)


def _right(
    classifier: Classify, embedding: np.ndarray, names: Sequence[str], cells: BalancedCells
) -> np.ndarray:
    """Which pictures the classifier names right."""
    with torch.no_grad():
        answers = classifier(torch.as_tensor(embedding)).argmax(dim=1).cpu().numpy()
    truth = np.array([names.index(name) for name in cells.classes])
    return answers == truth[cells.code]


def _rows(
    found: Consequence, about: Evidence, concept: str, n_controls: int, left_out: int
) -> Iterator[dict[str, object]]:
    """A row per control: change, its null, and what is beyond it."""
    fewer = f"{left_out} classes left out: not by two artists in every domain" if left_out else ""
    about = replace(
        about,
        estimand=f"change of {found.measure} when the {concept} is erased at the site",
        n_units=found.n_classes,
    )
    kinds = {
        PERMUTED: f"LEACE of {concept} permuted over whole groups, {n_controls} draws",
        RANDOM: f"random subspace, as much variance removed, {n_controls} draws",
    }
    for control, kind in kinds.items():
        change = beyond = Interval(*[np.nan] * 4)
        before = null = p = np.nan
        if not found.reason:
            after = found.found[ERASED]
            draws = np.stack([found.found[f"{control} {draw}"] for draw in range(n_controls)])
            before = float(found.found[BEFORE][0])
            value, *left = after - found.found[BEFORE]
            change, null = jackknife(value, left), float(draws[:, 0].mean()) - before
            beyond, p = _beyond(after, draws)
        yield {
            "measure": found.measure,
            "against": control,
            "domain": "",
            "train_domain": "",
            "domain_a": "",
            "domain_b": "",
            **found.where,
            "before": before,
            **replace(about, null_kind=kind).row(
                change, null=null, p=p, reason=found.reason or fewer
            ),
            "beyond": beyond.value,
            "beyond_low": beyond.low,
            "beyond_high": beyond.high,
        }


def _beyond(after: np.ndarray, draws: np.ndarray) -> tuple[Interval, float]:
    """LEACE ("left") less the mean of a control's draws ("draw left"), its interval, two-sided p.

    se^2 = the jackknife's over classes, paired, + the draws' variance (1 + 1 / draws): LEACE is one
    eraser beside several, and had it been a draw itself it would differ from their mean by that
    much. Student's t with Satterthwaite's degrees of freedom. Where neither classes nor draws vary,
    p is that of n classes agreeing in sign, 2^(1 - n), or 1 without any difference.
    """
    value, *left = (after - draws.mean(axis=0)).tolist()
    n, m = len(left), len(draws)
    parts = np.array([jackknife(value, left).error ** 2, draws[:, 0].var(ddof=1) * (1 + 1 / m)])
    square = float(parts.sum())
    if square <= 1e-24:
        return Interval(value, 0.0, value, value), 1.0 if abs(value) < 1e-12 else 2.0 ** (1 - n)
    error = square**0.5
    freedom = square**2 / (parts**2 / np.array([n - 1, m - 1])).sum()
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Interval(value, error, value - reach, value + reach), p

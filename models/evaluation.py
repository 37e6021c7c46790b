"""How well a CLIP names pictures of each domain, by zero-shot balanced accuracy with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from torch import Tensor

from interp.core.errors import SampleError, check_known
from interp.core.images import ImageTable
from interp.core.statistics import mean_interval, sign_flip_p, two_way_interval
from interp.models.heads import Sentence, ZeroShotHead

Prompts = Callable[[str], Sequence[Sentence]]
"""The templates to ask with for pictures of a domain."""

ALL, HELD_OUT, SEEN = "all", "held-out", "seen"


@runtime_checkable
class ZeroShotModel(Protocol):
    """What answers: `interp.models.clip.Clip`, or anything that embeds pictures and class names."""

    def embed(self, images: ImageTable, *, batch_size: int = 256) -> Tensor:
        """Embeddings of pictures, `batch d_embed`."""
        ...

    def zero_shot(self, class_names: Sequence[str], templates: Sequence[Sentence]) -> ZeroShotHead:
        """A classifier of class names."""
        ...


@dataclass(frozen=True)
class Answers:
    """What a model answered: one row per picture, prompt set and set of candidates.

    Columns `label, domain, drawing, prompts, candidates, chosen, correct`.
    """

    frame: pd.DataFrame
    held_out: tuple[str, ...]
    n_classes: int


def ask(
    clip: ZeroShotModel,
    images: ImageTable,
    prompt_sets: Mapping[str, Prompts],
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    batch_size: int = 256,
) -> Answers:
    """Ask a CLIP for the class of every picture, among all classes and among the held-out ones.

    The held-out classes are a choice among themselves only for their own pictures: a model that
    prefers classes it has seen is then not held back by that.
    """
    if not len(images):
        raise SampleError("evaluate a model", "no pictures", "at least one", "give test pictures")
    check_known("hold out a class", "class", held_out, class_names)
    embedding = clip.embed(images, batch_size=batch_size)
    frame = images.frame.reset_index(drop=True)
    narrow = frame["label"].isin(held_out).to_numpy()
    parts = []
    for name, prompts in prompt_sets.items():
        for domain in images.domains:
            rows = np.flatnonzero((frame["domain"] == domain).to_numpy())
            logits = clip.zero_shot(class_names, prompts(domain))(embedding[rows.tolist()])
            parts.append(_answers(frame.iloc[rows], logits, class_names, name, ALL))
            if len(held_out) > 1 and narrow[rows].any():
                own = np.flatnonzero(narrow[rows])
                columns = [list(class_names).index(label) for label in held_out]
                parts.append(
                    _answers(
                        frame.iloc[rows[own]],
                        logits[own.tolist()][:, columns],
                        held_out,
                        name,
                        HELD_OUT,
                    )
                )
    return Answers(pd.concat(parts, ignore_index=True), tuple(held_out), len(class_names))


def _answers(
    frame: pd.DataFrame, logits: Tensor, names: Sequence[str], prompts: str, candidates: str
) -> pd.DataFrame:
    chosen = [names[place] for place in logits.argmax(dim=-1).tolist()]
    columns = [name for name in ("label", "domain", "drawing") if name in frame.columns]
    return frame[columns].assign(
        prompts=prompts,
        candidates=candidates,
        chosen=chosen,
        correct=[float(a == b) for a, b in zip(chosen, frame["label"], strict=True)],
    )


def accuracy(answers: Answers, *, seed: int = 0) -> pd.DataFrame:
    """Balanced top-1 per domain, class set, candidates and prompt set.

    value = mean over classes of the share of their pictures named right; the interval is a
    bootstrap over whole classes; null is chance, 1 / number of candidates.
    """
    held = answers.frame["label"].isin(answers.held_out)
    rows = []
    for class_set, keep in ((HELD_OUT, held), (SEEN, ~held), (ALL, held | ~held)):
        keys = ["domain", "prompts", "candidates"]
        for (domain, prompts, candidates), part in answers.frame[keep].groupby(keys, sort=False):
            if candidates == HELD_OUT and class_set != HELD_OUT:
                continue
            n_candidates = len(answers.held_out) if candidates == HELD_OUT else answers.n_classes
            spread = mean_interval(part["correct"], part["label"], seed=seed)
            rows.append(
                {
                    "domain": domain,
                    "class_set": class_set,
                    "candidates": candidates,
                    "prompts": prompts,
                    "measure": "balanced top-1",
                    "value": spread.value,
                    "low": spread.low,
                    "high": spread.high,
                    "null": 1 / n_candidates,
                    "null_kind": f"chance among {n_candidates} classes",
                    "unit": "class",
                    "n_units": part["label"].nunique(),
                    "n_pictures": len(part),
                    "n_drawings": part["drawing"].nunique() if "drawing" in part else len(part),
                    "n_runs": 1,
                    "seed": seed,
                    "reason": "" if part["label"].nunique() > 1 else "one class: no interval",
                }
            )
    return pd.DataFrame(rows)


def accuracy_by_class(answers: Answers) -> pd.DataFrame:
    """Share of each class's pictures named right, per domain, candidates and prompt set."""
    keys = ["domain", "label", "prompts", "candidates"]
    grouped = answers.frame.groupby(keys, sort=True)["correct"]
    return grouped.agg(value="mean", n_pictures="size").reset_index()


def differences(
    by_class: pd.DataFrame, contrasts: Sequence[tuple[str, str]], *, seed: int = 0
) -> pd.DataFrame:
    """Paired differences of balanced accuracy between settings, over the same classes and seeds.

    `by_class` holds `accuracy_by_class` with the columns `setting`, `test_domain` and `seed`, and
    only the classes and domain in question. Intervals are of the difference, resampled two ways
    over class and seed; p is a two-sided sign flip over whole classes. With one seed it speaks of
    these models alone.
    """
    rows = []
    keys = ["test_domain", "domain", "prompts", "candidates"]
    for better, worse in contrasts:
        pair = ["label", "seed"]
        both = by_class[by_class["setting"] == better].merge(
            by_class[by_class["setting"] == worse], on=[*keys, *pair], suffixes=("", "_worse")
        )
        for cell, part in both.assign(gap=both["value"] - both["value_worse"]).groupby(keys):
            gaps = part.pivot(index="label", columns="seed", values="gap").dropna()
            spread = two_way_interval(gaps, seed=seed)
            rows.append(
                {
                    "setting": f"{better} − {worse}",
                    **dict(zip(keys, cell, strict=True)),
                    "measure": "difference of balanced top-1",
                    "value": spread.value,
                    "low": spread.low,
                    "high": spread.high,
                    "null": 0.0,
                    "null_kind": "signs flipped over whole classes",
                    "ceiling": np.nan,
                    "ceiling_kind": "none: a difference of accuracies has no ceiling",
                    "index": np.nan,
                    "p": sign_flip_p(gaps.mean(axis=1), seed=seed),
                    "unit": "class" if gaps.shape[1] == 1 else "class x seed",
                    "n_units": len(gaps),
                    "n_pictures": int(part["n_pictures"].sum()),
                    "n_drawings": np.nan,
                    "n_runs": 2 * gaps.shape[1],
                    "seed": seed,
                    "reason": "",
                    "estimand": "these two models, over classes like these"
                    if gaps.shape[1] == 1
                    else "models of these two settings, over classes and seeds like these",
                }
            )
    return pd.DataFrame(rows)

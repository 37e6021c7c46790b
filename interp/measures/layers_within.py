"""What the layers of one opened model hold, and what it costs to take some of it away.

Beyond geometry and transfer (in `measurements`): directions, factors, how far domains lie apart,
what erasing the domain changes, and which features two domains share.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import SampleError
from interp.core.images import ImageTable
from interp.core.progress import say
from interp.core.seeds import rng
from interp.core.sites import BAND, LAST, middle_of
from interp.core.tables import Table
from interp.measures.options import AnalysisSpec
from interp.measures.subjects import STREAM, PromptSet, Subject, present
from interp.models.evaluation.image_classifiers import few
from interp.probes import (
    Features,
    TopK,
    ablate_shared,
    class_cosines,
    collect,
    dictionary_quality,
    dictionary_stability,
    directions,
    domain_distance,
    domain_probes,
    domain_test,
    erasure,
    factorisation,
    feature_sharing,
    pca,
    pca_view,
    raw_units,
    recovered_accuracy,
    selectivity,
    train_dictionaries,
)

Frames = dict[str, pd.DataFrame]

PICTURES_PER_CELL = 24
"""At most so many pictures of a class and domain are run again under an intervention."""

SEEN_IN_VIEWS = 60
"""Pictures of a domain in a view: enough to see by, few enough for a page."""


def layer_tables(
    subject: Subject, read: Features, *, pair: tuple[str, str], analysis: AnalysisSpec
) -> Frames:
    """Tables of what pooled features say without running the model again, at every site.

    `factorisation` and `domain_probes` are about all domains; `directions`, `separation` and
    `selectivity` about the `pair`; `views` are pictures of the middle site and of the embedding.
    """
    options: dict[str, Any] = {"seed": subject.seed, "control": subject.control}
    counted = options | {"n_permutations": analysis.n_permutations}
    two = list(pair)
    made: dict[str, list[Callable[[], Table]]] = {
        "factorisation": [partial(factorisation, read, n_splits=analysis.n_splits, **counted)],
        "directions": [
            partial(directions, read, domains=two, n_splits=analysis.n_splits, **counted)
        ],
        "separation": [
            partial(domain_test, read, domains=two, **counted),
            partial(domain_distance, read, domains=two, **counted),
        ],
        "domain_probes": [partial(domain_probes, read, **counted)],
        "selectivity": [partial(selectivity, read, domains=two, **options)],
        "views": [partial(_views, read, subject.seed)],
    }
    return _filed(subject, made)


def sharing_by_class(
    subject: Subject,
    images: ImageTable,
    *,
    pair: tuple[str, str],
    held_out: Sequence[str],
    tested: Sequence[str],
    analysis: AnalysisSpec,
) -> Frames:
    """The table `class_sharing`: how far each class, held-out ones too, is shared in the middle.

    Of `images` (not the ones that accuracy is measured on) pictures of a `tested` drawing are left
    out, so that no drawing counts for sharing and for accuracy.
    """
    apart = images.select(domain=list(pair))
    if "drawing" in apart.frame.columns:
        apart = apart[(~apart.frame["drawing"].isin(list(tested))).to_numpy()]

    def made() -> Table:
        read = collect(
            subject.clip.visual,
            apart,
            present(subject.clip.visual, STREAM),
            preprocess=subject.clip.preprocess,
        )
        table = class_cosines(read, pair, n_splits=analysis.n_splits, seed=subject.seed)
        sets = table.frame["label"].isin(list(held_out)).map({True: "held-out", False: "seen"})
        return Table(table.name, table.frame.assign(class_set=sets), table.facts)

    return _filed(subject, {"class_sharing": [made]})


def class_lines(
    subject: Subject, read: Features, *, pair: tuple[str, str], analysis: AnalysisSpec
) -> Frames:
    """The table `directions` alone: how far classes of the pair lie in the same directions."""
    counted = {"n_splits": analysis.n_splits, "n_permutations": analysis.n_permutations}
    options: dict[str, Any] = {"seed": subject.seed, "control": subject.control}
    made = partial(directions, read, domains=list(pair), **counted, **options)
    return _filed(subject, {"directions": [made]})


def erasing(
    subject: Subject,
    images: ImageTable,
    *,
    depths: dict[str, float],
    class_names: Sequence[str],
    analysis: AnalysisSpec,
) -> Frames:
    """The table `erasure`: the domain erased at the middle site, inside the model (rung R4).

    `images` are of the domains compared; the head asks for `class_names` with neutral prompts.
    """
    tower, site = subject.clip.visual, middle_of(depths)
    made = partial(
        erasure,
        tower,
        few(images, PICTURES_PER_CELL, seed=subject.seed),
        site,
        preprocess=subject.clip.preprocess,
        classifier=neutral_head(subject, class_names, images.domains),
        class_names=list(class_names),
        n_controls=analysis.n_controls,
        seed=subject.seed,
    )
    return _filed(subject, {"erasure": [made]})


def sharing_features(
    subject: Subject,
    read: Features,
    images: ImageTable,
    training: ImageTable,
    *,
    pair: tuple[str, str],
    withheld: Sequence[tuple[str, str]],
    class_names: Sequence[str],
    analysis: AnalysisSpec,
) -> Frames:
    """Tables of the features of the middle site: `dictionaries`, `feature_sharing` and
    `feature_ablation` (rung R5 by features).

    Dictionaries, units and components are fitted to `training` pictures outside the `withheld`
    cells; sharing is measured on `read`, and what features are good for on `images` of the pair.
    """
    site = middle_of({each: read.depth(each) for each in read.sites})
    clip, seed = subject.clip, subject.seed
    fitted = collect(
        clip.visual,
        few(training, analysis.n_dictionary_pictures, seed=seed),
        [site],
        preprocess=clip.preprocess,
    )
    width = min(2 * fitted.values[site].shape[1], len(fitted) // 4)
    sparsity = TopK(min(analysis.n_active, width))
    seeds = [seed + number for number in range(analysis.dictionary_seeds)]
    several = train_dictionaries(
        fitted, site, sparsity, width=width, withheld=withheld, seeds=seeds,
        steps=analysis.dictionary_steps,
    )  # fmt: skip
    codes = {
        "dictionary": several,
        "raw units": raw_units(fitted, site, withheld=withheld),
        "principal components": pca(fitted, site, withheld=withheld),
    }
    few_images = few(images, PICTURES_PER_CELL, seed=seed)
    asked: dict[str, Any] = {
        "preprocess": clip.preprocess,
        "classifier": neutral_head(subject, class_names, images.domains),
        "class_names": list(class_names),
    }
    natural, other = pair
    made: dict[str, list[Callable[[], Table]]] = {
        "dictionaries": [
            partial(dictionary_quality, several, read.only(site)),
            partial(dictionary_stability, several, seed=seed),
            partial(recovered_accuracy, several[0], clip.visual, few_images, **asked),
        ],
        "feature_sharing": [
            partial(
                feature_sharing, read, site, codes, domains=list(pair), seed=seed,
                n_splits=analysis.n_splits, n_permutations=analysis.n_permutations,
            )
        ],
        "feature_ablation": [
            partial(
                ablate_shared, several[0], clip.visual, few_images, site, source=natural,
                target=other, seed=seed, **asked,
            )
        ],
    }  # fmt: skip
    return _filed(subject, made)


def neutral_head(subject: Subject, class_names: Sequence[str], domains: Sequence[str]) -> Any:
    """The model's own zero-shot head, with neutral prompts: embeddings to logits."""
    return subject.clip.zero_shot(class_names, PromptSet("neutral", tuple(domains))(""))


def has_middle(depths: dict[str, float]) -> bool:
    """Whether a tower has a site among the middle layers, where features are taken apart.

    >>> has_middle({"hook_embedding": 1.0}), has_middle({"blocks.1.hook_resid_post": 0.5})
    (False, True)
    """
    return any(BAND[0] <= depth <= BAND[1] for site, depth in depths.items() if site != LAST)


def _views(read: Features, seed: int) -> Table:
    """The middle site and the embedding in a plane, a few pictures of every domain."""
    order = rng("views", seed).permutation(len(read))
    turn = read.frame.iloc[order].groupby("domain").cumcount().to_numpy()
    chosen = np.zeros(len(read), dtype=bool)
    chosen[order[turn < SEEN_IN_VIEWS]] = True
    middle = middle_of({site: read.depth(site) for site in read.sites})
    sites = [site for site in (middle, LAST) if site in read.sites]
    seen = pca_view(read.rows(chosen), sites)
    return Table("views", seen.frame.drop(columns="picture", errors="ignore"))


def _filed(subject: Subject, made: dict[str, list[Callable[[], Table]]]) -> Frames:
    """Measure tables part by part; one for which there are too few classes says so in a row."""
    frames = {}
    for name, parts in made.items():
        found = []
        for part in parts:
            try:
                found.append(part().frame)
            except SampleError as error:
                say(f"{name} left out: {error}")
                found.append(pd.DataFrame({"measure": [name], "reason": [str(error)]}))
        frames[name] = subject.file(pd.concat(found, ignore_index=True))
    return frames

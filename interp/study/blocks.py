"""Blocks: the repetitions of a study, each with its pictures, held-out classes and seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from interp.core.errors import DataError, SampleError, SpecificationError, check_known, listed
from interp.core.images import ImageTable
from interp.core.storage.store import fingerprint
from interp.data import open_images
from interp.data.artwork.embedded import asked_pictures, planned, study_classes
from interp.data.mixtures.settings import BASE, NATURAL
from interp.data.mixtures.subsampling import choose_held_out, class_folds
from interp.declared.measures import all_measures
from interp.study.specification import ImagesSpec, Specification


@dataclass(frozen=True)
class Block:
    """What all models of a repetition share: pictures, held-out classes, and a seed.

    `pool` are all pictures; `images` those of the label set, which models are asked about, without
    the base set.
    """

    seed: int
    pool: ImageTable
    held_out: tuple[str, ...]
    foreign: tuple[str, ...] = ()

    @cached_property
    def images(self) -> ImageTable:
        """The pictures of the label set, the base set's aside."""
        aside = self.pool.label.isin(self.foreign) | (self.pool.split == BASE)
        return self.pool[(~aside).to_numpy()] if aside.any() else self.pool

    @property
    def unseen(self) -> "Block":
        """The block as if its pictures were files, so that none is looked at or written."""
        pool = self.pool
        return replace(self, pool=ImageTable(pool.frame, pool.root, pool.source, pool.fingerprint))


def open_blocks(
    spec: Specification,
    jobs: int = 2,
    *,
    rendered: bool = True,
    numbers: Sequence[int] | None = None,
) -> list[Block]:
    """The repetitions: seeds on the same pictures, or blocks that redraw everything.

    Without `rendered`, pictures of the embedded study are drawn when they are asked for. `numbers`
    are those of some blocks (with the folds of classes that all of them have); None takes all, or
    all seeds.
    """
    wanted = block_numbers(spec, numbers)
    if spec.blocks:
        return [_open_block(spec, number, jobs, rendered=rendered) for number in wanted]
    pool, foreign = open_pool(spec.images, jobs, rendered=rendered)
    held_out = _held_out(spec, pool, foreign)
    return [Block(seed, pool, held_out, foreign) for seed in wanted]


def pictures_hash(spec: Specification, block: Block) -> str:
    """What the pictures of a block are asked to be, in a hash that is the same on every machine."""
    if spec.images.source:
        return fingerprint(block.pool.fingerprint, spec.images.size)
    images = replace(spec.images, seed=block.seed) if spec.blocks else spec.images
    return asked_pictures(images.embedded)


def block_numbers(spec: Specification, asked: Iterable[int] | None = None) -> list[int]:
    """The numbers of a study's blocks, or its seeds; those asked for, or all where it is None."""
    every = list(range(spec.blocks)) if spec.blocks else list(spec.seeds)
    if asked is None:
        return every
    wanted = list(dict.fromkeys(asked))
    unknown = [number for number in wanted if number not in every]
    if not spec.blocks or not wanted or unknown:
        given = f"{listed(unknown or wanted or ['none'])} of {spec.blocks} blocks"
        right = f"numbers from 0 to {spec.blocks - 1}" if spec.blocks else "a study with blocks"
        do = "choose others, or leave them out"
        raise SpecificationError("choose blocks of a study", given, right, do)
    return wanted


def _open_block(spec: Specification, number: int, jobs: int, *, rendered: bool) -> Block:
    """One of the blocks that redraw everything, by its number from 0."""
    pool, foreign = open_pool(replace(spec.images, seed=number), jobs, rendered=rendered)
    return Block(number, pool, _held_out(spec, pool, foreign, fold=number), foreign)


def open_pool(
    images: ImagesSpec, jobs: int = 2, *, rendered: bool = True
) -> tuple[ImageTable, tuple[str, ...]]:
    """All pictures, and the names of the classes among them that are foreign."""
    if images.source:
        pool = open_images(
            images.source,
            columns=dict(images.columns),
            domain=images.domain or None,
            labels=images.labels or None,
            test_share=images.test_share,
            seed=images.seed,
        )
    elif rendered:
        pool = open_images(spec=images.embedded, jobs=jobs)
    else:
        pool = planned(images.embedded)
    if isinstance(images.foreign, tuple):
        check_known("call a class foreign", "class", images.foreign, pool.labels)
        return pool, images.foreign
    if images.foreign and images.source:
        given = f"foreign = {images.foreign} for {images.source}"
        right = "their names"
        raise SpecificationError("call classes foreign", given, right, "list them in [images]")
    if images.source or not images.foreign:
        return pool, ()
    counts = images.n_classes, images.embedded.n_classes
    own, drawn = (study_classes(n, edition=images.artwork) for n in counts)
    return pool, tuple(label for label in drawn if label not in own)


def _common(spec: Specification, pool: ImageTable, foreign: Iterable[str]) -> list[str]:
    """The classes of the label set that stand in every domain in question."""
    domains = [spec.mixtures.natural, *spec.mixtures.test_domains]
    check_known("study a domain", "domain", domains, pool.domains)
    tested = set(pool.frame["domain"][pool.frame["split"] == "test"])
    missing = [domain for domain in domains if domain not in tested]
    if missing:  # nothing could be measured, which is said before models are trained
        given = f"no test pictures of {listed(missing)}"
        right = "test pictures of the natural domain and every test domain"
        raise DataError("study a domain", given, right, "raise test_share, or n_test")
    counts = pool.counts()
    asked = [label for label in pool.labels if label not in set(foreign)]
    return [label for label in asked if (counts.loc[label, domains] > 0).all()]


def check_measurable(spec: Specification, blocks: Iterable[Block]) -> None:
    """Refuse a study with fewer seen classes than one of its measures needs, before it trains.

    Counted are classes that two domains have in common, of the two that have most. Whether each has
    pictures by artists enough is found out when it is measured.
    """
    asked = [each for each in all_measures() if each.wanted_by(spec.analysis) and not each.by_name]
    most = max(asked, key=lambda measure: measure.least_classes)  # some are always asked
    fewer = "more folds" if spec.folds else "more blocks, or a smaller held_out"
    for block in blocks:
        there = block.images.counts() > 0
        own = there[~there.index.isin(block.held_out)].to_numpy(dtype=int)
        shared = own.T @ own
        seen = int(shared[~np.eye(len(shared), dtype=bool)].max(initial=0))
        if seen < most.least_classes:
            given = f"{seen} of {len(there)} classes that are not held out and in two domains"
            right = f"at least {most.least_classes}"
            do = f"hold out fewer ({fewer}){'' if spec.images.source else ', or raise n_classes'}"
            raise SpecificationError(f"measure {most.name}", given, right, do)


def _held_out(
    spec: Specification, pool: ImageTable, foreign: Iterable[str], *, fold: int | None = None
) -> tuple[str, ...]:
    """The classes C2: as named, a fold, or drawn from those that every asked domain has."""
    chosen, seed = spec.mixtures.held_out, spec.images.seed
    common = _common(spec, pool, foreign)
    if isinstance(chosen, tuple):
        check_known("hold out a class", "class", chosen, common)
        return chosen
    if fold is not None:
        n_folds = spec.folds or spec.blocks
        deal, place = divmod(fold, n_folds)
        return class_folds(common, n_folds, seed=seed + deal)[place]
    return choose_held_out(common, chosen, seed=seed)


def compared_domains(images: ImageTable, domains: Sequence[str] = ()) -> tuple[str, str]:
    """The natural domain and another that one model is asked about: as named, else the first two.

    `real` is the natural one where it exists. Raises for names that are not there, or one domain.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": "cat", "domain": ["art", "real"],
    ...                       "split": "test", "caption": ""})
    >>> compared_domains(ImageTable(frame))
    ('real', 'art')
    """
    known = images.domains
    check_known("compare domains", "domain", domains, known)
    if len(known) < 2 or len(set(domains)) not in (0, 2):
        given = domains or known
        raise SampleError(
            "compare domains",
            f"{len(set(given))} of them ({listed(given)})",
            "two" if domains else "at least two",
            "name two" if domains else "add a folder beside it",
        )
    if domains:
        return domains[0], domains[1]
    first = NATURAL if NATURAL in known else known[0]
    return first, next(domain for domain in known if domain != first)

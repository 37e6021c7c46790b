"""Made studies: mixtures x domains x blocks x classes with nested noise, linked where one asks."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.statistics.links import across_mixtures, among_classes, within_mixtures


@dataclass(frozen=True)
class World:
    """A study to draw: its size, the links at each level, and how large each noise is.

    l1, l2, l3: correlations of true sharing with accuracy between mixtures, between the runs of a
    mixture, and between the classes of a run. noise: of a run against its mixture (1); shared: how
    much of its variance a run has in common in all domains (of the committed grid, nine tenths);
    fold: what all mixtures of a block and domain have in common; drawings: error of measuring
    sharing once, on each of two halves.
    """

    mixtures: int = 10
    domains: int = 2
    blocks: int = 3
    l1: float = 0.0
    l2: float = 0.0
    noise: float = 0.5
    fold: float = 0.5
    drawings: float = 0.2
    own: float = 0.5
    shared: float = 0.0

    def panels(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Sharing and accuracy "mixture domain block", and sharing on two halves of drawings."""
        m, d, b = self.mixtures, self.domains, self.blocks
        x, y = (np.zeros((m, d, b)) for _ in range(2))
        for shape, size, link in (
            ((m, 1, 1), 1.0, self.l1),
            ((m, d, 1), self.own, self.l1),
            ((1, d, b), self.fold, 0.0),
            ((m, 1, b), self.noise * np.sqrt(self.shared), self.l2),
            ((m, d, b), self.noise * np.sqrt(1 - self.shared), self.l2),
        ):
            first, second = generator.normal(size=(2, *shape))
            x = x + size * first
            y = y + size * (link * first + np.sqrt(1 - link**2) * second)
        halves = x + self.drawings * generator.normal(size=(2, m, d, b))
        return {
            "sharing": halves.mean(axis=0),
            "accuracy": y,
            "half_1": halves[0],
            "half_2": halves[1],
        }

    def runs(self, generator: np.random.Generator, **more: object) -> pd.DataFrame:
        """The frame that `interp.verdict` asks for, with one rung."""
        drawn = self.panels(generator)
        m, d, b = np.indices(drawn["sharing"].shape)
        return pd.DataFrame(
            {
                "setting": [f"mixture {each}" for each in m.ravel()],
                "test_domain": [f"domain {each}" for each in d.ravel()],
                "seed": b.ravel(),
                "rung": "R3",
                "measure": "made",
                "index": drawn["sharing"].ravel(),
                "half_1": drawn["half_1"].ravel(),
                "half_2": drawn["half_2"].ravel(),
                "accuracy": drawn["accuracy"].ravel(),
            }
        ).assign(**more)


@dataclass(frozen=True)
class ClassWorld:
    """Classes of a study's models; each block holds out classes of its own.

    link: correlation of sharing with accuracy beyond all else. easy: how much easy classes are both
    shared and recognised; nested: what a class keeps in a domain, and in a mixture.
    """

    mixtures: int = 10
    domains: int = 2
    blocks: int = 2
    classes: int = 10
    link: float = 0.0
    easy: float = 1.0
    nested: float = 0.5
    drawings: float = 0.4

    def rows(self, generator: np.random.Generator) -> pd.DataFrame:
        """The frame `classes` that `interp.verdict` asks for."""
        c, m, d = self.classes, self.mixtures, self.domains
        parts = []
        for block in range(self.blocks):
            x, y = (np.zeros((c, m, d)) for _ in range(2))
            for shape, size, link in (
                ((c, 1, 1), self.easy, 0.8),
                ((1, m, d), 1.0, 0.8),
                ((c, m, 1), self.nested, 0.0),
                ((c, 1, d), self.nested, 0.0),
                ((c, m, d), 1.0, self.link),
            ):
                first, second = generator.normal(size=(2, *shape))
                x = x + size * first
                y = y + size * (link * first + np.sqrt(1 - link**2) * second)
            natural = generator.normal(size=(c, m, d))
            halves = x + self.drawings * generator.normal(size=(2, c, m, d))
            at = np.indices(x.shape)
            parts.append(
                pd.DataFrame(
                    {
                        "setting": [f"mixture {each}" for each in at[1].ravel()],
                        "test_domain": [f"domain {each}" for each in at[2].ravel()],
                        "seed": block,
                        "label": [f"class {block}-{each}" for each in at[0].ravel()],
                        "rung": "R3",
                        "measure": "made",
                        "sharing": halves.mean(axis=0).ravel(),
                        "half_1": halves[0].ravel(),
                        "half_2": halves[1].ravel(),
                        "accuracy": (y + 0.5 * natural).ravel(),
                        "accuracy_natural": natural.ravel(),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)


SHARED = 0.9
"""Of a run's variance, what its test domains have in common: that of the committed grid."""


def reject(level: str, link: float, *, blocks: int, seed: int, mixtures: int = 10) -> bool:
    """Whether a level finds a link, by p, in one study drawn with that link at its level."""
    generator = np.random.default_rng([seed, blocks])
    if level == "L3":
        rows = ClassWorld(mixtures=mixtures, blocks=blocks, link=link).rows(generator)
        run = rows.groupby(["setting", "test_domain", "seed"]).ngroup()
        found = among_classes(
            rows["sharing"], rows["accuracy"], label=rows["label"], run=run,
            natural=rows["accuracy_natural"],
        )  # fmt: skip
        return found.p <= 0.05
    links = {"l1": link} if level == "L1" else {"l2": link}
    drawn = World(mixtures=mixtures, blocks=blocks, shared=SHARED, **links).panels(generator)
    ask = across_mixtures if level == "L1" else within_mixtures
    return ask(drawn["sharing"], drawn["accuracy"], seed=seed, n_permutations=399).p <= 0.05

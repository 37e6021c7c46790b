"""Specifications of studies: frozen, hashable, and read from a TOML file.

    blocks = 6                     # repetitions that redraw everything; or seeds = [0, 1]
    folds = 3                      # each block holds out a third of the classes; else a sixth
    [images]                       # the embedded study, or source = "FOLDER" of domain/class/*
    n_classes = 40
    [mixtures]
    test_domains = ["sketch"]
    held_out = 10                  # how many classes, or a list of their names
    settings = ["natural-only", "cg-low", { setting = "cg-high", domains = 2 }]
    [training]
    preset = "resnet-small"
    steps = 1200
    [[replications]]               # other architectures on the same mixtures
    preset = "vit-small"
    [analysis]
    n_pairs = 60
    [intervention]                 # runs that align classes, at one of the mixtures
    setting = "cg-high"
    weights = [0.3, 1.0]
    [comparison]                   # all other models of a block with those of one mixture
    setting = "cg-high"

Whatever the file leaves out has the default below; a word that no section knows is an error.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from interp.core.errors import SpecificationError, check_known, listed
from interp.core.fields import (
    Count,
    CountOrNames,
    Declared,
    Finite,
    Flag,
    Names,
    Text,
    Whole,
    each_once,
    one_of,
    refused_in,
)
from interp.core.storage.store import LATER
from interp.data.artwork.embedded import EmbeddedSpec
from interp.data.mixtures.intervention_arms import InterventionSpec
from interp.data.mixtures.settings import NATURAL, MixtureSpec
from interp.measures.subject import AnalysisSpec
from interp.models.loading.presets import PRESETS
from interp.models.training.recipes import OPTIMIZERS, Recipe, named_recipe

_CountOrUsual = Annotated[Count | None, Field(description="a number from 0")]


def _pairs(table: object) -> object:
    """The entries of a table, sorted by name."""
    return tuple(sorted(table.items())) if isinstance(table, dict) else table


OF_A_BLOCK = ("test_domain", "held_out", "natural", "foreign", "labels", "seed")
"""Fields of a mixture that all variations of a block share."""


def beside_the_file(path: str, info: Any) -> str:
    """A path of a study file, which is looked for beside the file; `hf:` names are no paths."""
    if not info.context or not path or path.startswith("hf:"):
        return path
    return str((info.context["folder"] / path).resolve())


BesideTheFile = Annotated[Text, AfterValidator(beside_the_file)]


@dataclass(frozen=True)
class Variation:
    """One training distribution of a grid: a setting, and where it departs from the section.

    `changes` are fields of `MixtureSpec` with their values, sorted by name; the mixtures that are
    made of them check the values.

    >>> Variation.of({"setting": "cg-high", "domains": 2}).changes
    (('domains', 2),)
    """

    setting: str
    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, given: object) -> "Variation":
        """A variation from what a file says: the setting's name, or a table with changes."""
        if isinstance(given, cls):
            return given
        table = {"setting": given} if isinstance(given, str) else given
        if not isinstance(table, dict) or not isinstance(table.get("setting"), str):
            right = "a name, or a table with setting = NAME"
            do = 'write "cg-high" or { setting = "cg-high", domains = 2 }'
            raise SpecificationError("make mixtures", f"the setting {given!r}", right, do)
        own = {f.name for f in fields(MixtureSpec)} - {"setting", *OF_A_BLOCK}
        changes = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in table.items()
            if name != "setting"
        }
        check_known(f"vary {table['setting']}", "entry", changes, sorted(own), SpecificationError)
        return cls(table["setting"], tuple(sorted(changes.items())))


def _variation(given: object, info: Any) -> Variation:
    if isinstance(given, dict) and isinstance(given.get("base"), str):
        given = {**given, "base": beside_the_file(given["base"], info)}
    return Variation.of(given)


@dataclass(frozen=True)
class MixturesSpec(Declared):
    """Which training distributions: settings x test domains, and the classes held out of both.

    `settings` are names, or tables with a name and changes to it (`Variation`). `held_out` are the
    names of classes, or how many to draw; with `blocks` and no names, it is a fold of the classes.
    """

    asked = "make mixtures"

    test_domains: Annotated[
        Names, Field(min_length=1, description="a list of names, each once, at least one")
    ] = ("sketch",)
    settings: Annotated[
        tuple[Annotated[Any, AfterValidator(_variation)], ...],
        Field(min_length=1, validate_default=True, description="a list of at least one"),
    ] = ("natural-only", "cg-low", "leave-out-domain", "cg-high")
    held_out: CountOrNames = 10
    natural: Text = NATURAL
    hold: Text = "size"
    rule: Text = "random"
    domain_words: Flag = True
    base: BesideTheFile = ""

    def __post_init__(self) -> None:
        for domain in self.test_domains:  # refuses what no mixture can be, before anything runs
            names = self.names(domain)
            twins = sorted({name for name in names if names.count(name) > 1})
            if twins:  # their results could not be told apart
                given, right = f"{listed(twins)} more than once", "settings that differ"
                raise SpecificationError(self.asked, given, right, "leave one of them out")

    def names(self, test_domain: str) -> list[str]:
        """What the mixtures for a test domain are called."""
        anything = self.mixture_specs(test_domain, (), foreign=("a foreign class",))
        return [mixture.name for mixture in anything]

    def mixture_specs(
        self,
        test_domain: str,
        held_out: Sequence[str],
        *,
        foreign: Sequence[str] = (),
        seed: int = 0,
    ) -> list[MixtureSpec]:
        """The mixtures for a test domain, one for each setting."""
        own = ("natural", "hold", "rule", "base", "domain_words")
        common = {name: getattr(self, name) for name in own}
        common |= {"foreign": tuple(foreign), "seed": seed}
        return [
            MixtureSpec(
                setting=each.setting,
                test_domain=test_domain,
                held_out=tuple(held_out),
                **{**common, **dict(each.changes)},
            )
            for each in self.settings
        ]


@dataclass(frozen=True)
class ImagesSpec(EmbeddedSpec):
    """Which pictures: the embedded study (its own fields), or those of a `source`.

    `source` is what `interp.open_images` takes as text (a folder, a table, shards), and `columns`
    (a table in the file), `domain`, `labels` and `test_share` are its options of the same names.
    `foreign` classes lie outside the label set and are never asked about; class-overlap mixtures
    draw on them. They are named, or (embedded study) so many beyond `n_classes`. The embedded
    study has a base set, as the paper's does: `n_base` natural pictures of each of its classes and
    of `base_classes` others, by default as many as `n_train` and as it has classes; none with the
    first edition of its drawings.
    """

    asked = "choose pictures"

    source: BesideTheFile = ""
    columns: Annotated[
        tuple[tuple[Text, Text], ...],
        BeforeValidator(_pairs),
        Field(description="a table of our names with the source's"),
    ] = ()
    domain: Text = ""
    labels: Names = ()
    test_share: Finite = 0.2
    foreign: CountOrNames = 0
    n_base: _CountOrUsual = field(default=None, metadata=LATER)  # pyright: ignore
    base_classes: _CountOrUsual = field(default=None, metadata=LATER)  # pyright: ignore

    def __post_init__(self) -> None:
        of_source = ("columns", "domain", "labels", "test_share")
        of_study = [f.name for f in fields(EmbeddedSpec) if f.name not in ("seed", "size")]
        idle = of_study if self.source else of_source
        given = [name for name in idle if getattr(self, name) != getattr(type(self), name)]
        if given:
            raise SpecificationError(
                "choose pictures",
                f"{listed(given)} {f'for {self.source}' if self.source else 'without a source'}",
                "what that source has" if self.source else f"{listed(of_source)} with a source",
                "leave it out" if self.source else "name a source, or leave it out",
            )

    @property
    def embedded(self) -> EmbeddedSpec:
        """The part that the renderer needs, foreign classes included."""
        own = {f.name: getattr(self, f.name) for f in fields(EmbeddedSpec)}
        also = self.foreign if isinstance(self.foreign, int) else 0
        own["n_classes"] += also
        if self.n_base is None:
            own["n_base"] = 0 if self.artwork == 1 else self.n_train
        if self.base_classes is None:
            own["base_classes"] = self.n_classes
        return EmbeddedSpec(**own)


@dataclass(frozen=True)
class TrainingSpec(Recipe):
    """How models are trained: a preset architecture and a recipe.

    The optimizer is Muon by default, with which a small CLIP learns in fewer steps.
    In a file, `recipe` names one of `interp.models.training.recipes.RECIPES` to start from.
    """

    preset: Annotated[Text, one_of(PRESETS)] = "resnet-small"
    optimizer: Annotated[Text, one_of(OPTIMIZERS)] = "muon"

    @model_validator(mode="before")
    @classmethod
    def _start_from_recipe(cls, given: object) -> object:
        if not isinstance(given, dict) or "recipe" not in given:
            return given
        own = {name: value for name, value in given.items() if name != "recipe"}
        lengths = ("steps", "epochs")
        changes = {name: own[name] for name in lengths if isinstance(own.get(name), int)}
        return asdict(named_recipe(str(given["recipe"]), **changes)) | own

    @property
    def name(self) -> str:
        """What the architecture is called in results.

        >>> TrainingSpec(preset="RN50", objective="supervised").name
        'RN50, supervised'
        """
        return self.preset if self.objective == "clip" else f"{self.preset}, {self.objective}"

    @property
    def recipe(self) -> Recipe:
        """The part that the trainer needs."""
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe)})


@dataclass(frozen=True)
class ComparisonSpec(Declared):
    """The mixture whose models all others of their block are compared with; none without a name.

    Similarity by layer, and stitches both ways, against the models before training and, where
    `seeds` give them, other seeds of the same mixture.
    """

    asked = "compare models"

    setting: Text = ""

    def check(self, settings: Sequence[str]) -> None:
        """Refuse a setting that the study lacks."""
        if self.setting:
            check_known(self.asked, "setting", [self.setting], settings, SpecificationError)


@dataclass(frozen=True)
class Specification(Declared):
    """A whole study.

    `seeds` repeats its models on the same pictures and held-out classes; `images.seed` moves those.
    `blocks` = n repeats everything instead, n times: block b redraws drawings, poses, subsamples,
    initialisation and order with seed b, and holds out the b-th of n folds of the classes, so that
    each class is held out in one block. `folds` = k deals classes into k folds instead, and anew
    after every k blocks, so that many blocks can hold out many classes. `replications` are further
    architectures. `intervention` adds runs at one mixture whose loss aligns classes. `comparison`
    compares models with those of one mixture.
    """

    asked = "make a study"

    title: Text = "The embedded study"
    images: ImagesSpec = field(default_factory=ImagesSpec)
    mixtures: MixturesSpec = field(default_factory=MixturesSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    replications: Annotated[
        tuple[TrainingSpec, ...],
        Field(description="an array of sections, [[replications]] before each"),
    ] = ()
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    seeds: Annotated[
        tuple[Count, ...],
        AfterValidator(each_once),
        Field(min_length=1, description="numbers from 0, each once, at least one"),
    ] = (0,)
    blocks: Whole = 0
    folds: Whole = field(default=0, metadata=LATER)
    intervention: InterventionSpec = field(default_factory=InterventionSpec, metadata=LATER)
    comparison: ComparisonSpec = field(default_factory=ComparisonSpec, metadata=LATER)

    def __post_init__(self) -> None:
        for domain in self.mixtures.test_domains:
            made = self.mixtures.mixture_specs(domain, (), foreign=("a foreign class",))
            self.intervention.check(made)
            self.comparison.check([mixture.name for mixture in made])
        aligned = [each.name for each in self.architectures if each.align]
        if aligned:  # its control and its mixture are the intervention's
            given = "align in [training], for every mixture and without a control"
            right = "an [intervention], which trains both at one mixture"
            do = "write [intervention] with setting and weights"
            raise SpecificationError(f"train {listed(aligned)}", given, right, do)
        masked = [each.name for each in self.architectures if each.negatives != "all"]
        if masked:
            given = "negatives in [training], for every mixture and without a control"
            right = 'one of the settings, such as { setting = "cg-high", negatives = "masked" }'
            do = "write it in [mixtures]"
            raise SpecificationError(f"train {listed(masked)}", given, right, do)
        named = isinstance(self.mixtures.held_out, tuple)
        if self.folds and (self.folds < 2 or named or not self.blocks):
            raise SpecificationError(
                "deal classes into folds",
                f"folds = {self.folds}, " + ("named classes" if named else f"{self.blocks} blocks"),
                "two or more, in a study with blocks that names no held-out classes",
                "leave folds out",
            )
        if self.blocks < 0 or (self.blocks == 1 and not (named or self.folds)):
            right = "two or more, since each holds out its share of the classes"
            do = "use seeds, set folds, or name the held-out classes"
            raise SpecificationError("repeat a study", f"blocks = {self.blocks}", right, do)
        if self.blocks and self.seeds != (0,):
            given = f"seeds = {list(self.seeds)} and blocks = {self.blocks}"
            do = "use blocks to redraw everything, or seeds to redraw models only"
            raise SpecificationError("repeat a study", given, "one of them", do)
        seeded = [each.name for each in self.architectures if each.seed]
        if seeded:
            right = "the study's, which all that it compares has in common"
            do = "write seeds = [...] or blocks at the top"
            raise SpecificationError(f"train {listed(seeded)}", "a seed of its own", right, do)
        names = [each.name for each in self.architectures]
        if len(set(names)) < len(names):
            right = "each preset and objective once"
            do = "take one of them out of [[replications]]"
            raise SpecificationError("train architectures", listed(names), right, do)

    @property
    def architectures(self) -> tuple[TrainingSpec, ...]:
        """How every architecture is trained, the main one first."""
        return (self.training, *self.replications)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Specification":
        """Read a study file; `SpecificationError` names what cannot be carried out."""
        try:
            content = tomllib.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            no_file = error.strerror or "no file" if isinstance(error, OSError) else ""
            given = no_file or f"what is no TOML ({error})"
            right = "a TOML file, of sections of key = value"
            do = "check the path" if no_file else "mend that line"
            raise SpecificationError(f"read the study {path}", given, right, do) from None
        try:
            return TypeAdapter(cls).validate_python(content, context={"folder": Path(path).parent})
        except ValidationError as error:
            raise refused_in(error, f"the study {path}") from None

    def with_seed(self, seed: int) -> "Specification":
        """The same study with one seed only."""
        return replace(self, seeds=(seed,), blocks=0, folds=0)

"""What a study consists of: frozen, hashable, and read from a TOML file.

    blocks = 3                     # repetitions that redraw everything; or seeds = [0, 1]
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

Whatever the file leaves out has the default below; a word that no section knows is an error.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from interp.core.errors import SpecificationError, check_known, listed
from interp.core.store import LATER
from interp.data.artwork.embedded import EmbeddedSpec
from interp.data.mixtures.arms import InterventionSpec
from interp.data.mixtures.mixture import NATURAL
from interp.data.mixtures.settings import MixtureSpec
from interp.measures.options import AnalysisSpec
from interp.models.loading.presets import PRESETS
from interp.models.training.torchrun import Recipe, named_recipe


@dataclass(frozen=True)
class Variation:
    """One training distribution of a grid: a setting, and where it departs from the section.

    `changes` are fields of `MixtureSpec` with their values, sorted by name.

    >>> Variation.of({"setting": "cg-high", "domains": 2}).changes
    (('domains', 2),)
    """

    setting: str
    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, given: Any) -> "Variation":
        """A variation from what a file says: the setting's name, or a table with changes."""
        if isinstance(given, cls):
            return given
        table = {"setting": given} if isinstance(given, str) else given
        if not isinstance(table, dict) or not isinstance(table.get("setting"), str):
            raise SpecificationError(
                "make mixtures",
                f"the setting {given!r}",
                "a name, or a table with setting = NAME",
                'write "cg-high" or { setting = "cg-high", domains = 2 }',
            )
        own = {f.name for f in fields(MixtureSpec)} - {"setting", *SHARED}
        changes = {name: frozen(value) for name, value in table.items() if name != "setting"}
        check_known(f"vary {table['setting']}", "entry", changes, sorted(own), SpecificationError)
        for name, value in changes.items():
            if not _fits(value, KINDS[name]):
                raise SpecificationError(
                    f"vary {table['setting']}",
                    f"{name} = {value!r}",
                    " or ".join(KINDS[name]),
                    "mend the value",
                )
        return cls(table["setting"], tuple(sorted(changes.items())))


KINDS: dict[str, tuple[str, ...]] = {
    "hold": ("text",),
    "domain_words": ("true or false",),
    "domains": ("a number", "a list of names"),
    "seen_dose": ("a number, 0 to 1",),
    "held_out_dose": ("a number, 0 to 1",),
    "overlap": ("a number, 0 to 1",),
    "rule": ("text",),
    "base": ("text",),
}
"""What the changes of a variation may be, in words."""


def _fits(value: Any, kinds: Sequence[str]) -> bool:
    """Whether a value of the file is of one of the kinds.

    >>> [_fits(value, KINDS["domains"]) for value in (2, ("sketch",), "2")]
    [True, True, False]
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    of_kind = {
        "text": isinstance(value, str),
        "true or false": isinstance(value, bool),
        "a number": is_number and isinstance(value, int),
        "a number, 0 to 1": is_number,
        "a list of names": are_names(value),
    }
    return any(of_kind[kind] for kind in kinds)


def are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


SHARED = ("test_domain", "held_out", "natural", "foreign", "labels", "seed")
"""Fields of a mixture that all variations of a block share."""


def frozen(value: Any) -> Any:
    """A value of the file as one that does not change."""
    if isinstance(value, dict) and "setting" not in value:
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


FOUR_SETTINGS = ("natural-only", "cg-low", "leave-out-domain", "cg-high")


@dataclass(frozen=True)
class ImagesSpec(EmbeddedSpec):
    """Which pictures: the embedded study (its own fields), or those of a `source`.

    `source` is what `interp.open_images` takes as text (a folder, a table, shards), and `columns`
    (a table in the file), `domain`, `labels` and `test_share` are its options of the same names.
    `foreign` classes lie outside the label set and are never asked about; class-overlap mixtures
    draw on them. They are named, or (embedded study) so many beyond `n_classes`.
    """

    source: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    domain: str = ""
    labels: tuple[str, ...] = ()
    test_share: float = 0.2
    foreign: int | tuple[str, ...] = 0

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
        return EmbeddedSpec(**{**own, "n_classes": self.n_classes + also})


@dataclass(frozen=True)
class MixturesSpec:
    """Which training distributions: settings x test domains, and the classes held out of both.

    `settings` are names, or tables with a name and changes to it (`Variation`). `held_out` are the
    names of classes, or how many to draw; with `blocks` and no names, it is a fold of the classes.
    """

    test_domains: tuple[str, ...] = ("sketch",)
    settings: tuple[Any, ...] = FOUR_SETTINGS
    held_out: int | tuple[str, ...] = 10
    natural: str = NATURAL
    hold: str = "size"
    rule: str = "random"
    domain_words: bool = True
    base: str = ""

    def __post_init__(self) -> None:
        for name in ("test_domains", "held_out"):
            value = getattr(self, name)
            if isinstance(value, tuple) and (not are_names(value) or len(set(value)) < len(value)):
                raise SpecificationError(
                    "make mixtures", f"{name} = {list(value)}", "names, each once", "mend the list"
                )
        if not self.test_domains or not self.settings:
            raise SpecificationError(
                "make mixtures",
                "no test domain or no setting",
                "at least one of each",
                "fill in [mixtures]",
            )
        object.__setattr__(self, "settings", tuple(map(Variation.of, self.settings)))
        for domain in self.test_domains:  # refuses what no mixture can be, before anything runs
            check_distinct(self.names(domain))

    def names(self, test_domain: str) -> list[str]:
        """What the mixtures for a test domain are called."""
        anything = self.made(test_domain, (), foreign=("a foreign class",))
        return [mixture.name for mixture in anything]

    def made(
        self,
        test_domain: str,
        held_out: Sequence[str],
        *,
        foreign: Sequence[str] = (),
        seed: int = 0,
    ) -> list[MixtureSpec]:
        """The mixtures for a test domain, one for each setting."""
        common = {name: getattr(self, name) for name in ("natural", "hold", "rule", "base")}
        common |= {"domain_words": self.domain_words, "foreign": tuple(foreign), "seed": seed}
        return [
            MixtureSpec(
                setting=each.setting,
                test_domain=test_domain,
                held_out=tuple(held_out),
                **{**common, **dict(each.changes)},
            )
            for each in self.settings
        ]


def check_distinct(names: Sequence[str]) -> None:
    """Refuse two mixtures of one name: their results could not be told apart."""
    twins = sorted({name for name in names if list(names).count(name) > 1})
    if twins:
        raise SpecificationError(
            "make mixtures",
            f"{listed(twins)} more than once",
            "settings that differ",
            "leave one of them out",
        )


@dataclass(frozen=True)
class TrainingSpec(Recipe):
    """How models are trained: a preset architecture and a recipe.

    In a file, `recipe` names one of `interp.models.training.torchrun.RECIPES` to start from.
    """

    preset: str = "resnet-small"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("train a model", "preset", [self.preset], PRESETS, SpecificationError)

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
class Specification:
    """A whole study.

    `seeds` repeats its models on the same pictures and held-out classes; `images.seed` moves those.
    `blocks` = n repeats everything instead, n times: block b redraws drawings, poses, subsamples,
    initialisation and order with seed b, and holds out the b-th of n folds of the classes, so that
    each class is held out in one block. `replications` are further architectures. `intervention`
    adds runs at one mixture whose loss aligns classes.
    """

    title: str = "The embedded study"
    images: ImagesSpec = field(default_factory=ImagesSpec)
    mixtures: MixturesSpec = field(default_factory=MixturesSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    replications: tuple[TrainingSpec, ...] = ()
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    seeds: tuple[int, ...] = (0,)
    blocks: int = 0
    intervention: InterventionSpec = field(default_factory=InterventionSpec, metadata=LATER)

    def __post_init__(self) -> None:
        for domain in self.mixtures.test_domains:
            self.intervention.check(self.mixtures.made(domain, (), foreign=("a foreign class",)))
        self._check_align()
        numbers = all(isinstance(seed, int) and seed >= 0 for seed in self.seeds)
        if not numbers or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SpecificationError(
                "repeat a study",
                f"seeds = {list(self.seeds)}",
                "numbers from 0, each once, at least one",
                "mend the list",
            )
        named = isinstance(self.mixtures.held_out, tuple)
        if self.blocks < 0 or (self.blocks == 1 and not named):
            raise SpecificationError(
                "repeat a study",
                f"blocks = {self.blocks}",
                "two or more, since each holds out its share of the classes",
                "use seeds, or name the held-out classes",
            )
        if self.blocks and self.seeds != (0,):
            raise SpecificationError(
                "repeat a study",
                f"seeds = {list(self.seeds)} and blocks = {self.blocks}",
                "one of them",
                "use blocks to redraw everything, or seeds to redraw models only",
            )
        seeded = [each.name for each in self.architectures if each.seed]
        if seeded:
            raise SpecificationError(
                f"train {listed(seeded)}",
                "a seed of its own",
                "the study's, which all that it compares has in common",
                "write seeds = [...] or blocks at the top",
            )
        names = [each.name for each in self.architectures]
        if len(set(names)) < len(names):
            raise SpecificationError(
                "train architectures",
                listed(names),
                "each preset and objective once",
                "take one of them out of [[replications]]",
            )

    def _check_align(self) -> None:
        """Refuse a term in [training]: its control and its mixture are the intervention's."""
        aligned = [each.name for each in self.architectures if each.align]
        if aligned:
            raise SpecificationError(
                f"train {listed(aligned)}",
                "align in [training], for every mixture and without a control",
                "an [intervention], which trains both at one mixture",
                "write [intervention] with setting and weights",
            )

    @property
    def architectures(self) -> tuple[TrainingSpec, ...]:
        """How every architecture is trained, the main one first."""
        return (self.training, *self.replications)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Specification":
        """Read a study file; `SpecificationError` names what cannot be carried out."""
        try:
            content = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise SpecificationError(
                f"read the study {path}",
                error.strerror or "no file",
                "a TOML file",
                "check the path",
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecificationError(
                f"read the study {path}",
                f"what is no TOML ({error})",
                "sections of key = value",
                "mend that line",
            ) from None
        sections = {
            "images": ImagesSpec,
            "mixtures": MixturesSpec,
            "training": TrainingSpec,
            "analysis": AnalysisSpec,
            "intervention": InterventionSpec,
        }
        check_known(
            f"read the study {path}",
            "entry",
            content,
            [*sections, "title", "seeds", "blocks", "replications"],
            SpecificationError,
        )
        made = {
            name: _section(kind, content.get(name, {}), name, Path(path).parent)
            for name, kind in sections.items()
        }
        others = content.get("replications", [])
        if not isinstance(others, list):
            raise SpecificationError(
                "read [[replications]]",
                repr(others),
                "an array of sections",
                "write [[replications]] before each",
            )
        beside = Path(path).parent
        also = tuple(_section(TrainingSpec, each, "replications", beside) for each in others)
        plain = {
            name: frozen(content[name]) for name in ("title", "seeds", "blocks") if name in content
        }
        return _made(cls, {**made, **plain, "replications": also}, "the study")

    def with_seed(self, seed: int) -> "Specification":
        """The same study with one seed only."""
        return replace(self, seeds=(seed,), blocks=0)


Section = TypeVar("Section")


def _section(kind: type[Section], content: Any, name: str, beside: Path) -> Section:
    """One section of the file; what it names is looked for beside the file."""
    if not isinstance(content, dict):
        raise SpecificationError(
            f"read [{name}]",
            repr(content),
            "a section of key = value",
            f"write [{name}] on a line of its own",
        )
    content = dict(content)
    values: dict[str, Any] = {}
    if kind is TrainingSpec and "recipe" in content:
        lengths = ("steps", "epochs")
        changes = {key: content[key] for key in lengths if isinstance(content.get(key), int)}
        values = asdict(named_recipe(str(content.pop("recipe")), **changes))
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    check_known(f"read [{name}]", "entry", content, known, SpecificationError)
    values |= {key: frozen(value) for key, value in content.items()}
    settings = values.get("settings")
    varied = [each for each in settings if isinstance(each, dict)] if settings else []
    for table in (values, *varied):
        for place in ("source", "base"):
            given = table.get(place)
            if isinstance(given, str) and given and not given.startswith("hf:"):
                table[place] = str((beside / given).resolve())
    return _made(kind, values, f"[{name}]")


def _made(kind: type[Section], values: dict[str, Any], where: str) -> Section:
    """Build a dataclass, holding each value against its default's type first."""
    defaults = kind()
    for name, given in values.items():
        default = getattr(defaults, name)
        kinds: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        kinds = (int, tuple) if name in ("held_out", "foreign") else kinds
        if not isinstance(given, kinds) or (isinstance(given, bool) and bool not in kinds):
            words = " or ".join(k.__name__.replace("tuple", "list") for k in kinds)
            raise SpecificationError(
                f"read {where}", f"{name} = {given!r}", f"a value of type {words}", "mend the value"
            )
    return kind(**values)

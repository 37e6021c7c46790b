"""What a study consists of: frozen, hashable, and read from a TOML file.

    [images]                       # the embedded study, or source = "FOLDER" of domain/class/*
    n_classes = 40
    [mixtures]
    test_domains = ["sketch"]
    held_out = 10                  # how many classes, or a list of their names
    settings = ["natural-only", "cg-low", "leave-out-domain", "cg-high"]
    [training]
    preset = "resnet-small"
    steps = 1200
    [analysis]
    n_pairs = 60

Whatever the file leaves out has the default below; a word that no section knows is an error.
"""

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from interp.core.errors import SpecificationError, check_known
from interp.data.embedded import EmbeddedSpec
from interp.data.mixtures import NATURAL, SETTINGS
from interp.models.presets import PRESETS
from interp.models.training import Recipe

FOUR_SETTINGS = ("natural-only", "cg-low", "leave-out-domain", "cg-high")


@dataclass(frozen=True)
class ImagesSpec(EmbeddedSpec):
    """Which pictures: the embedded study (its own fields), or a folder `source`."""

    source: str = ""

    @property
    def embedded(self) -> EmbeddedSpec:
        """The part that the renderer needs."""
        return EmbeddedSpec(**{f.name: getattr(self, f.name) for f in fields(EmbeddedSpec)})


@dataclass(frozen=True)
class MixturesSpec:
    """Which training distributions: settings x test domains, and the classes held out of both."""

    test_domains: tuple[str, ...] = ("sketch",)
    settings: tuple[str, ...] = FOUR_SETTINGS
    held_out: int | tuple[str, ...] = 10
    natural: str = NATURAL
    size_matched: bool = True
    domain_words: bool = True

    def __post_init__(self) -> None:
        check_known("make a mixture", "setting", self.settings, SETTINGS, SpecificationError)
        if not self.test_domains or not self.settings:
            raise SpecificationError(
                "make mixtures",
                "no test domain or no setting",
                "at least one of each",
                "fill in [mixtures]",
            )


@dataclass(frozen=True)
class TrainingSpec(Recipe):
    """How models are trained: a preset architecture and a recipe."""

    preset: str = "resnet-small"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("train a model", "preset", [self.preset], PRESETS, SpecificationError)

    @property
    def recipe(self) -> Recipe:
        """The part that the trainer needs."""
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe)})


@dataclass(frozen=True)
class AnalysisSpec:
    """What is measured on each trained model."""

    n_pairs: int = 60
    n_transplants: int = 240
    n_permutations: int = 999
    n_splits: int = 5
    transfer: bool = True
    patching: bool = True


@dataclass(frozen=True)
class Specification:
    """A whole study. `seeds` repeats its models; `images.seed` moves drawings and classes."""

    title: str = "The embedded study"
    images: ImagesSpec = field(default_factory=ImagesSpec)
    mixtures: MixturesSpec = field(default_factory=MixturesSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    analysis: AnalysisSpec = field(default_factory=AnalysisSpec)
    seeds: tuple[int, ...] = (0,)

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
        }
        check_known(
            f"read the study {path}",
            "entry",
            content,
            [*sections, "title", "seeds"],
            SpecificationError,
        )
        made = {
            name: _section(kind, content.get(name, {}), name, Path(path).parent)
            for name, kind in sections.items()
        }
        plain = {name: _frozen(content[name]) for name in ("title", "seeds") if name in content}
        return _made(cls, {**made, **plain}, "the study")

    def with_seed(self, seed: int) -> "Specification":
        """The same study with one seed only."""
        return replace(self, seeds=(seed,))


Section = TypeVar("Section")


def _section(kind: type[Section], content: Any, name: str, beside: Path) -> Section:
    """One section of the file; a folder of pictures is looked for beside the file."""
    if not isinstance(content, dict):
        raise SpecificationError(
            f"read [{name}]",
            repr(content),
            "a section of key = value",
            f"write [{name}] on a line of its own",
        )
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    check_known(f"read [{name}]", "entry", content, known, SpecificationError)
    values = {key: _frozen(value) for key, value in content.items()}
    if values.get("source"):
        values["source"] = str((beside / str(values["source"])).resolve())
    return _made(kind, values, f"[{name}]")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _made(kind: type[Section], values: dict[str, Any], where: str) -> Section:
    """Build a dataclass, holding each value against its default's type first."""
    defaults = kind()
    for name, given in values.items():
        default = getattr(defaults, name)
        kinds: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        kinds = (int, tuple) if name == "held_out" else kinds
        if not isinstance(given, kinds) or (isinstance(given, bool) and bool not in kinds):
            words = " or ".join(k.__name__.replace("tuple", "list") for k in kinds)
            raise SpecificationError(
                f"read {where}", f"{name} = {given!r}", f"a value of type {words}", "mend the value"
            )
    return kind(**values)

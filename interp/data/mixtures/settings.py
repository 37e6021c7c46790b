"""Settings: which cells (class x domain) a training distribution draws from, and how much of each.

A setting says whether other domains, the seen classes in the test domain and the held-out classes
in the test domain are in; a `MixtureSpec` adds doses of each, and what is held fixed while they
change. Everything about a mixture follows from its specification and the pictures at hand.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.core.errors import DataError, SpecificationError, check_known, listed
from interp.core.fields import CountOrNames, Declared, Flag, Names, Share, Text, Whole, one_of
from interp.core.seeds import rng
from interp.core.storage.store import LATER

NATURAL = "real"
BASE = "base"
"""The domain under which a base set's pictures stand in a mixture's TSV, and the split of those
that a table of pictures has itself."""

HOLDS = {
    "size": "",
    "natural": "natural pictures held",
    "exposure": "held-out exposure held",
    "steps": "size free",
}
"""What is the same in all mixtures of a test domain as in cg-low, beside the words for it."""

NO_HELD_OUT = "none of the held-out cells"
"""How a mixture's name says that an upper bound keeps no picture that makes it one."""

NEGATIVES = {
    "all": "",
    "masked": "masked negatives",
    "masked-absent": "masked absent negatives",
    "masked-random": "masked random negatives",
    "only": "negatives only",
}
"""Which captions are no negatives of the test domain's pictures: words for it in a mixture's name.

A mixture's pictures are the same with each; the loss of its models is not."""

RULES = {"random": "", "first": "first pictures"}
"""Which pictures of a cell are kept: a random but repeatable choice, or the first in the list."""


@dataclass(frozen=True)
class Setting:
    """A training distribution: beside natural pictures of all classes, what it holds."""

    others: bool
    seen: bool
    held_out: bool
    size_matched: bool
    meaning: str


SETTINGS: dict[str, Setting] = {
    "natural-only": Setting(False, False, False, False, "natural pictures of all classes"),
    "cg-low": Setting(
        False, True, False, True, "natural pictures and the seen classes in the test domain"
    ),
    "cg-high": Setting(
        True, True, False, True, "all domains, with only the seen classes in the test domain"
    ),
    "leave-out-domain": Setting(True, False, False, True, "all domains but the test domain"),
    "upper-bound-low": Setting(
        False, True, True, True, "natural pictures and all classes in the test domain"
    ),
    "upper-bound-high": Setting(True, True, True, True, "all domains, all classes"),
}
"""The paper's four settings and two upper bounds (Kempf et al. 2025)."""


def is_upper_bound(name: str) -> bool:
    """Whether a mixture trains on the "held-out" classes in the test domain itself.

    Args:
        name: The mixture's name.

    Returns:
        True for an upper bound that keeps any of those cells. Names of other mixtures, unknown ones
        too, give False.

    >>> is_upper_bound("upper-bound-low, 2 domains"), is_upper_bound("cg-high")
    (True, False)
    """
    setting, *changes = str(name).split(", ")
    return setting in SETTINGS and SETTINGS[setting].held_out and NO_HELD_OUT not in changes


def trained_on(name: str) -> str:
    """What a mixture trains on, in words.

    Which domains join is part of it; its doses and captions are not, since its name says them.

    Args:
        name: The mixture's name.

    Returns:
        The words, "" for a mixture that is not among `SETTINGS`.

    >>> trained_on("cg-high, aligned captions")
    'all domains, with only the seen classes in the test domain'
    >>> trained_on("cg-high, 2 domains")
    'natural pictures, 2 domains and the seen classes in the test domain'
    >>> trained_on("leave-out-domain, with clipart")
    'natural pictures and clipart'
    >>> trained_on(MixtureSpec("cg-high", "sketch", ("dog",), domains=0).name)
    'natural pictures, no other domain and the seen classes in the test domain'
    """
    setting, *changes = name.split(", ")
    if setting not in SETTINGS:
        return ""
    kind = SETTINGS[setting]
    domains = next((change for change in changes if JOINING.fullmatch(change)), "")
    if not (kind.others and domains):
        return kind.meaning
    classes = "all classes" if kind.held_out else "the seen classes" if kind.seen else ""
    parts = [domains.removeprefix("with "), f"{classes} in the test domain" if classes else ""]
    return f"natural pictures{', ' if classes else ' and '}{' and '.join(filter(None, parts))}"


JOINING = re.compile(r"no other domain|\d+ domains?|with .+")
"""How `MixtureSpec.name` says which domains join, where these are not all."""


@dataclass(frozen=True)
class MixtureSpec(Declared):
    """One training distribution, as a setting and what is changed of it.

    Args:
        setting: A name in `SETTINGS`: `natural-only`, `cg-low`, `cg-high`, `leave-out-domain`,
            `upper-bound-low` or `upper-bound-high`.
        test_domain: The domain in which generalization is asked for.
        held_out: The classes C2 that the compositional settings withhold in `test_domain`; all
            others are seen (C1).
        natural: The natural domain; every setting has its pictures of all classes.
        hold: What stays as in cg-low while the cells change. `size` is the number of pictures, by
            the same share of every cell; `natural` also the number of natural pictures; `exposure`
            also the number of pictures of C2 in all domains; `steps` keeps every picture, and only
            the steps of the recipe stay. natural-only is never matched, as in the paper.
        domain_words: Whether captions name the domain.
        seed: Seed of orders and captions.
        domains: Domains that join beside the natural one and the test domain. None is all; names
            are those; a number is the first so many of an order drawn from the seed, the same for
            every setting and dose.
        seen_dose: Share of every cell (C1 x test domain) that is kept, 0 to 1. A larger dose holds
            the pictures of a smaller one.
        held_out_dose: The same for C2 x test domain. None is 1 in an upper bound; it is always 0 in
            the other settings.
        foreign: Classes that take the places of those that leave by `overlap`. They stand nowhere
            else and are never asked for.
        overlap: Share of C1 that is kept in the test domain. Each class that leaves makes way for
            one of the `foreign` classes, with as many pictures in all.
        labels: The label set, where it is not simply all classes but the foreign ones.
        rule: Which pictures of a cell are kept: `random`, drawn from the seed, or `first`, the
            paper's rule (see `subsampling`).
        base: A TSV (filepath, title) or WebDataset shards that are added whole; empty for none.
        base_dose: Share of the table's own base set, its pictures of the split `base`, that is
            added. A larger dose holds the pictures of a smaller one.
        negatives: "all", or what the loss does without: captions of held-out classes as negatives
            of the test domain's pictures ("masked"), of all classes without a picture there
            ("masked-absent"), of as many random seen classes ("masked-random"), or everything that
            these pictures teach but those negatives ("only").
        words_dose: Share of captions that name the domain, where `domain_words`.

    Raises:
        SpecificationError: For a value out of range, or values that do not go together.

    References:
        The settings: Kempf et al. 2025, arXiv 2502.09507.

    >>> MixtureSpec("cg-high", "sketch", ("dog",), domains=2, seen_dose=0.5).name
    'cg-high, 2 domains, half of the seen cells'
    """

    asked = "make a mixture"

    setting: Annotated[Text, one_of(SETTINGS)]
    test_domain: Text
    held_out: Names
    natural: Text = NATURAL
    hold: Annotated[Text, one_of(HOLDS)] = "size"
    domain_words: Flag = True
    seed: Whole = 0
    domains: Annotated[CountOrNames | None, Field(description="how many, or a list of names")] = (
        None
    )
    seen_dose: Share = 1.0
    held_out_dose: Annotated[Share | None, Field(description="a share from 0 to 1")] = None
    foreign: Names = ()
    overlap: Share = 1.0
    labels: Names = ()
    rule: Annotated[Text, one_of(RULES)] = "random"
    base: Text = ""
    base_dose: Share = field(default=1.0, metadata=LATER)
    negatives: Annotated[Text, one_of(NEGATIVES)] = field(default="all", metadata=LATER)
    words_dose: Share = field(default=0.5, metadata=LATER)

    def __post_init__(self) -> None:
        _check_domains(self)
        _check_doses(self)
        _check_classes(self)

    @property
    def kind(self) -> Setting:
        """The setting itself."""
        return SETTINGS[self.setting]

    @property
    def seen_share(self) -> float:
        """Share of every cell (C1 x test domain) that is in training."""
        return float(self.seen_dose) if self.kind.seen else 0.0

    @property
    def held_out_share(self) -> float:
        """Share of every cell (C2 x test domain) that is in training."""
        dose = 1.0 if self.held_out_dose is None else float(self.held_out_dose)
        return dose if self.kind.held_out else 0.0

    @property
    def words_share(self) -> float:
        """Share of captions that name the domain."""
        return float(self.words_dose) if self.domain_words else 0.0

    @property
    def name(self) -> str:
        """The setting and whatever differs from its defaults: short, and the same every time."""
        parts = [
            self.setting,
            _domain_words(self.domains),
            "" if self.overlap == 1 else f"{_share(self.overlap)} class overlap",
            "" if self.seen_dose == 1 else f"{_share(self.seen_dose)} of the seen cells",
            ""
            if self.held_out_dose in (None, float(self.kind.held_out))
            else f"{_share(self.held_out_dose or 0)} of the held-out cells",
            HOLDS[self.hold] if self.kind.size_matched else "",
            _caption_words(self.words_share),
            RULES[self.rule],
            f"base {base_name(self.base)}" if self.base else "",
            "" if self.base_dose == 1 else _base_words(self.base_dose),
            NEGATIVES[self.negatives],
        ]
        return ", ".join(part for part in parts if part)

    @property
    def slug(self) -> str:
        """The name as a file may be called.

        >>> MixtureSpec("cg-high", "sketch", (), seen_dose=0.05).slug
        'cg-high-5-of-the-seen-cells'
        """
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def label_set(self, known: Sequence[str]) -> list[str]:
        """The classes that models learn and are asked for, among those that the pictures show."""
        return [
            label
            for label in known
            if label not in self.foreign and (not self.labels or label in self.labels)
        ]

    def other_domains(self, known: Sequence[str]) -> tuple[str, ...]:
        """The domains that join beside the natural one and the test domain, in their order.

        Raises `DataError` for a domain that is not there, or more domains than there are.
        """
        if not self.kind.others:
            return ()
        apart = (self.natural, self.test_domain)
        there = sorted(str(domain) for domain in known if domain not in apart)
        if self.domains is None:
            return tuple(there)
        if isinstance(self.domains, tuple):
            check_known("add a domain", "domain", self.domains, there)
            return self.domains
        if self.domains > len(there):
            given = f"pictures of {listed(there)} beside {self.natural} and {self.test_domain}"
            right = f"at most {len(there)}"
            raise DataError(f"add {self.domains} domains", given, right, "choose a smaller number")
        # the test domain takes part in the draw, so that two test domains share one order
        order = drawn([domain for domain in known if domain != self.natural], "domains", self.seed)
        return tuple(domain for domain in order if domain != self.test_domain)[: self.domains]

    @classmethod
    def from_manifest(cls, written: Mapping[str, Any]) -> "MixtureSpec":
        """The specification as a manifest's JSON has it."""
        values = dict(written)
        if "size_matched" in values:  # manifests before `hold`
            values["hold"] = "size" if values.pop("size_matched") else "steps"
        check_known("read a manifest", "entry", values, [f.name for f in fields(cls)])
        return cls(**values)


def drawn(names: Sequence[str], purpose: str, seed: int) -> list[str]:
    """Names in an order drawn from the seed, whatever order they came in."""
    return [str(name) for name in rng(f"order of {purpose}", seed).permutation(sorted(names))]


def base_name(base: str) -> str:
    """What a base set is called: its file, or the folder of its shards.

    >>> base_name("captions/imagenet.tsv"), base_name("cc3m/{00000..00331}.tar")
    ('imagenet', 'cc3m')
    """
    path = Path(base)
    stem = re.split(r"[.{]", path.name)[0].strip("-_ ")
    return stem if re.search(r"[A-Za-z]", stem) else path.parent.name or path.name


def _caption_words(share: float) -> str:
    named = "" if share == 0.5 else f"{_share(share)} of captions name the domain"
    return named if share else "aligned captions"


def _share(dose: float) -> str:
    return {0.0: "none", 0.5: "half"}.get(float(dose), f"{100 * dose:g} %")


def _base_words(dose: float) -> str:
    return f"{_share(dose)} of the base set" if dose else "no base set"


def _domain_words(domains: tuple[str, ...] | int | None) -> str:
    if domains is None:
        return ""
    if domains in (0, ()):
        return "no other domain"
    if isinstance(domains, tuple):
        return f"with {' + '.join(domains)}"
    return f"{domains} domain{'s' if domains > 1 else ''}"


def _check_domains(spec: MixtureSpec) -> None:
    if spec.test_domain == spec.natural:
        given = f"test domain {spec.test_domain!r}"
        right = "a domain other than the natural one"
        raise SpecificationError("make a mixture", given, right, "choose another test domain")
    if BASE in (spec.test_domain, spec.natural):
        given = f"a domain called {BASE!r}"
        right = "another name, for this one is the base set's"
        raise SpecificationError("make a mixture", given, right, "rename the domain")
    if spec.domains is None:
        return
    if not spec.kind.others:
        given = f"domains = {spec.domains!r}"
        right = f"nothing, for it is {spec.kind.meaning}"
        do = "leave domains out, or choose cg-high, leave-out-domain or upper-bound-high"
        raise SpecificationError(f"choose the domains of {spec.setting}", given, right, do)
    names = set(spec.domains) if isinstance(spec.domains, tuple) else set()
    if {spec.natural, spec.test_domain} & names:
        given = f"domains = {spec.domains!r}"
        right = f"others than {spec.natural} and {spec.test_domain}, or how many of them"
        raise SpecificationError("add domains to a mixture", given, right, "mend the list")


def _check_doses(spec: MixtureSpec) -> None:
    kind = spec.kind
    doses = {
        "seen_dose": (spec.seen_dose, kind.seen, 1.0, "a cg or upper-bound setting"),
        "overlap": (spec.overlap, kind.seen, 1.0, "a cg or upper-bound setting"),
        "held_out_dose": (spec.held_out_dose, kind.held_out, 0.0, "an upper-bound setting"),
    }
    for name, (dose, applies, idle, where) in doses.items():
        if not applies and dose not in (None, idle):
            given = f"{name} = {dose:g}"
            right = f"nothing, for it is {kind.meaning}"
            do = f"leave it out, or choose {where}"
            raise SpecificationError(f"change {name} in {spec.setting}", given, right, do)
    if spec.negatives != "all" and (spec.held_out_share or not spec.seen_share):
        given = f"negatives = {spec.negatives!r} for {kind.meaning}"
        right = "seen classes in the test domain, and no held-out one"
        do = "choose cg-low or cg-high"
        raise SpecificationError(f"change negatives in {spec.setting}", given, right, do)


def _check_classes(spec: MixtureSpec) -> None:
    if spec.overlap < 1 and not spec.foreign:
        given = f"overlap = {spec.overlap:g} and no foreign classes"
        right = "the classes that take the places of those that leave"
        do = "name them in foreign, or leave overlap at 1"
        raise SpecificationError("make a class-overlap mixture", given, right, do)
    both = sorted(set(spec.foreign) & ({*spec.held_out, *spec.labels}))
    if both:
        given = f"foreign classes that are in the label set ({listed(both)})"
        right = "classes that models are never asked for"
        do = "choose other foreign classes"
        raise SpecificationError("make a class-overlap mixture", given, right, do)
    stray = sorted(set(spec.held_out) - set(spec.labels)) if spec.labels else []
    if stray:
        given = f"{listed(stray)}, which labels leaves out"
        right = "classes of the label set"
        raise SpecificationError("hold out a class", given, right, "add them to labels")

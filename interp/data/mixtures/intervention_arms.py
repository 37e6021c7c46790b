"""The arms of an intervention: at one mixture, runs whose loss aligns or separates classes.

    [intervention]
    setting = "cg-high"            # a mixture of the study, by its name
    weights = [0.1, 0.3, 1.0]      # of the term; below 0 it separates
    site = ""                      # where; by default the middle block's output
    shuffled = true                # beside each, a run whose partners are wrong classes

An arm is a run like any other, but the study's comparisons across mixtures never see it.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from interp.core.errors import SpecificationError, check_known
from interp.core.fields import Declared, Finite, Flag, Text, each_once
from interp.data.mixtures.settings import MixtureSpec

OWN, SHUFFLED = "own", "shuffled"


@dataclass(frozen=True)
class Arm:
    """One way to train at the fixed mixture: a weight, and whose class means are partners.

    >>> Arm(0.3).name, Arm(-1.0).name, Arm(0.3, SHUFFLED).name, Arm(0.0).name
    ('aligned 0.3', 'separated 1', 'shuffled 0.3', '')
    """

    weight: float
    partners: str = OWN

    @property
    def name(self) -> str:
        """What stands behind the mixture's name in results; nothing where there is no term."""
        if not self.weight:
            return ""
        if self.partners == SHUFFLED:
            return f"shuffled {self.weight:g}"
        return f"{'aligned' if self.weight > 0 else 'separated'} {abs(self.weight):g}"


def _other_than_zero(weight: float) -> float:
    if weight == 0:
        raise ValueError("0")
    return weight


@dataclass(frozen=True)
class InterventionSpec(Declared):
    """Which arms are trained; none without a `setting`."""

    asked = "intervene"

    setting: Text = ""
    weights: Annotated[
        tuple[Annotated[Finite, AfterValidator(_other_than_zero)], ...],
        AfterValidator(each_once),
        Field(
            min_length=1,
            description="numbers other than 0, each once (the mixture without the term is in the "
            "study)",
        ),
    ] = (0.1, 0.3, 1.0)
    site: Text = ""
    shuffled: Flag = True

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The runs at the mixture beside the one without the term."""
        if not self.setting:
            return ()
        partners = (OWN, SHUFFLED) if self.shuffled else (OWN,)
        return tuple(Arm(weight, each) for weight in self.weights for each in partners)

    def check(self, mixtures: list[MixtureSpec]) -> None:
        """Refuse a setting that the study lacks, or that shows no seen class in the test domain.

        `mixtures` are those of one test domain.
        """
        if not self.setting:
            return
        named = {mixture.name: mixture for mixture in mixtures}
        check_known("intervene", "setting", [self.setting], named, SpecificationError)
        if named[self.setting].seen_share == 0:
            domain = named[self.setting].test_domain
            given = f"a mixture without seen classes in {domain}"
            right = f"one with C1 x {domain}, which is aligned and must stay equal in accuracy"
            do = "choose a cg or upper-bound setting in [intervention]"
            raise SpecificationError(f"intervene at {self.setting}", given, right, do)

    def at(self, mixture: MixtureSpec) -> Iterator[Arm]:
        """The arms of a mixture: none unless it is the one intervened at."""
        return iter(self.arms if mixture.name == self.setting else ())

    def changes(self, arm: Arm) -> dict[str, str | float]:
        """The fields of a recipe that make an arm."""
        return {"align": float(arm.weight), "align_site": self.site, "align_classes": arm.partners}

"""Subjects of figures, such as a pair of domains in one model, and the words for each.

In a study the subjects are its settings, each with the natural domain and the test domain. For one
checkpoint they are the pairs of its natural domain with every other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from interp.core.sites import middle_of
from interp.declared.figures import PAIR
from interp.declared.writing import PROMPTS
from interp.models.evaluation.learning import learning
from interp.report.loaded import Frame, LoadedResult
from interp.report.naming import SYMBOLS, colours, ordered_settings, setting_looks, setting_name
from interp.verdicts.rungs import RUNGS
from interp.verdicts.votes import Votes, count_votes

SETTLED = (
    *("mixtures", "accuracy", "similarity", "transfer", "transplant", "patching"),
    *("ladder", "das", "circuits", "faithfulness", "factorisation"),
)
"""Tables that know the settings: any of them may be all that is left of a result."""


@dataclass(frozen=True)
class ComparedPair:
    """One model and pair of domains: its name, its looks, and the keys of its table rows."""

    name: str
    setting: str
    test_domain: str
    natural: str
    domain: str
    colour: str
    symbol: str

    def pair(self, frame: Frame) -> Frame:
        """Rows between the subject's two domains, in either order."""
        ends = {self.natural, self.domain}
        either = frame["domain_a"].isin(ends) & frame["domain_b"].isin(ends)
        return self.of(frame[either & (frame["domain_a"] != frame["domain_b"])])

    def of(self, frame: Frame) -> Frame:
        """Rows of the subject's model, and of the floors that all settings have in common."""
        tested = frame["test_domain"].isin([self.test_domain, ""])
        floor = (frame["setting"] == "") & (frame["control"] != "")
        return frame[((frame["setting"] == self.setting) | floor) & tested]

    def rows(self, frame: Frame, ends: Sequence[str]) -> Frame:
        """The subject's rows, whose columns `ends` name its domains or none."""
        if tuple(ends) == PAIR:
            return self.pair(frame)
        own = self.of(frame)
        for column in ends:
            own = own[own[column].isin([self.natural, self.domain, ""])]
        return own


def compared_pairs(result: LoadedResult, test_domain: str) -> list[ComparedPair]:
    """The settings of a test domain, or the domain pairs of one checkpoint."""
    settings = settings_of(result)
    if not result.one_model:
        return [
            ComparedPair(
                setting_name(setting), setting, test_domain, result.natural, test_domain, *look
            )
            for setting, look in setting_looks(settings).items()
        ]
    domains = result.domains
    natural = result.natural if result.natural in domains else (domains or [""])[0]
    others = [name for name in domains if name != natural]
    tints = colours(others)
    return [
        ComparedPair(
            f"{natural} and {name}",
            setting,
            test_domain,
            natural,
            name,
            tints[name],
            SYMBOLS[place % len(SYMBOLS)],
        )
        for setting in settings[:1] or [""]
        for place, name in enumerate(others)
    ]


def own_pairs(result: LoadedResult, frame: Frame) -> Frame:
    """Rows of trained models between the two domains that each of them is asked about."""
    asked = {
        frozenset((one.natural, one.domain))
        for name in result.test_domains
        for one in compared_pairs(result, name)
    }
    ends = map(frozenset, zip(frame["domain_a"], frame["domain_b"], strict=True))
    rows = frame[np.array([pair in asked for pair in ends], dtype=bool)]
    return rows[rows["control"] == ""]


def models_told(result: LoadedResult) -> Frame:
    """Every model that was asked about seen classes, and whether it learned."""
    if "learning" not in result.kept:
        accuracy, mixtures = result.frame("accuracy"), result.frame("mixtures")
        result.kept["learning"] = learning(accuracy, mixtures, natural=result.natural)
    return result.kept["learning"]


def unlearned_settings(result: LoadedResult, test_domain: str) -> list[str]:
    """Settings none of whose models learned: nothing is judged for them."""
    told = models_told(result)
    told = told[told["test_domain"] == test_domain]
    return [name for name, own in told.groupby("setting", sort=False) if not own["learned"].any()]


def learned_pairs(result: LoadedResult, test_domain: str) -> list[ComparedPair]:
    """The compared pairs of settings that learned."""
    failed = unlearned_settings(result, test_domain)
    return [one for one in compared_pairs(result, test_domain) if one.setting not in failed]


def settings_of(result: LoadedResult) -> list[str]:
    """Every setting that a table measured, in the order of the page."""
    if "settings" not in result.kept:
        names: list[str] = []
        for table in SETTLED if any(name in result.tables for name in SETTLED) else result.tables:
            names += result.frame(table)["setting"].unique().tolist()
        found = ordered_settings(names)
        result.kept["settings"] = [name for name in found if name] or found[:1]
    return result.kept["settings"]


def looks_of(result: LoadedResult, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of these settings, the same in every figure of a result."""
    names = ordered_settings(names)
    looks = setting_looks([*settings_of(result), *names])
    return {name: looks[name] for name in names}


def middle_verdict(result: LoadedResult, rung: str, pair: ComparedPair) -> Votes | None:
    """What the ladder says of a rung in the middle layers; None where nothing was measured there.

    Several models of one setting (its seeds) vote together.
    """
    rows = pair.pair(result.frame("ladder"))
    rows = rows[(rows["rung"] == rung) & (rows["band"] == "middle") & (rows["control"] == "")]
    if rows.empty:
        return None
    votes = count_votes(rows, by_mean=RUNGS[rung].indexed, bars=RUNGS[rung].bars)
    wanted = [f"would decide: {needed}" for needed in rows["needed"].unique() if needed]
    votes = replace(votes, reasons=(*votes.reasons, *wanted))
    return replace(votes, verdicts=str(rows["votes"].iloc[0])) if len(rows) == 1 else votes


def middle_verdicts(
    result: LoadedResult, rung: str, compared: Sequence[ComparedPair]
) -> list[tuple[ComparedPair, Votes]]:
    """What `middle_verdict` says of each subject, of those that were measured."""
    found = [(one, middle_verdict(result, rung, one)) for one in compared]
    return [(one, summed) for one, summed in found if summed is not None]


def middle_site(frame: Frame) -> str:
    """The site nearest to half depth among a model's own; fixed by its place, not its result."""
    own = frame[frame["control"] == ""].dropna(subset=["depth"])
    return middle_of(dict(zip(own["site"], own["depth"], strict=True)))


def sites_by_depth(frame: Frame) -> Sequence[str]:
    """Sites from input to output, each once."""
    order = frame.drop_duplicates("site").sort_values(["depth", "layer"], kind="stable")
    return [str(site) for site in order["site"]]


EPOCH_0 = "epoch 0"
TOP_1, TEXT = "balanced top-1", "text"
QUESTION = [
    *("setting", "test_domain", "domain", "class_set"),
    *("candidates", "prompts", "classifier", "measure"),
]
"""What an accuracy is an answer to."""


def shown_prompt_sets(frame: Frame) -> list[str]:
    """The prompt sets of a table, neutral first."""
    given = list(dict.fromkeys(frame["prompts"]))
    return [name for name in PROMPTS if name in given] + [n for n in given if n not in PROMPTS]


def top_1(frame: Frame) -> Frame:
    """Rows of balanced top-1 by the text head; a table that names neither holds nothing else."""
    return text_head(frame[frame["measure"].isin([TOP_1, ""])])


def text_head(frame: Frame) -> Frame:
    """Rows of answers that came through text."""
    return frame[frame["classifier"].isin([TEXT, ""])]


def final(frame: Frame) -> Frame:
    """Rows of the trained models, each at its last epoch; one row per setting and question.

    Where a question was also answered over all blocks at once, the rows of single blocks give way.
    """
    trained = frame[frame["control"] == ""]
    most = trained.groupby(QUESTION, sort=False)["n_runs"].transform("max")
    trained = trained[(trained["n_runs"] == most) | most.isna()]
    last = trained.groupby(["setting", "test_domain"])["epoch"].transform("max")
    return trained[(trained["epoch"] == last) | last.isna()]


def primary_prompts(frame: Frame) -> Frame:
    """Rows of the prompt set shown first, and those asked without prompts."""
    return frame[frame["prompts"].isin(["", *shown_prompt_sets(text_head(frame))[:1]])]


def in_test_domain(frame: Frame) -> Frame:
    """Trained models' rows asked for through text, with the primary prompts, in the test domain."""
    rows = text_head(frame)
    rows = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    return rows[(rows["domain"] == rows["test_domain"]) & (rows["control"] == "")]


def held_out_accuracy(
    result: LoadedResult, test_domain: str, *, control: str = "", candidates: str = "all"
) -> Frame:
    """Accuracy on held-out classes in the test domain: one row per setting, in the page's order."""
    frame = top_1(result.frame("accuracy"))
    rows = frame[frame["control"] == control] if control else final(frame)
    rows = rows[
        (rows["test_domain"] == test_domain)
        & (rows["domain"] == test_domain)
        & (rows["class_set"] == "held-out")
        & (rows["candidates"] == candidates)
    ]
    first = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    once = first.drop_duplicates("setting").set_index("setting", drop=False)
    return once.loc[ordered_settings(once.index)]


def contrasts_of_settings(frame: Frame) -> Frame:
    """Contrasts of settings on the same question, one row each."""
    rows = text_head(frame)
    rows = rows[rows["candidates"].isin(["all", ""])]
    rows = rows[rows["prompts"].isin(shown_prompt_sets(rows)[:1])]
    return rows.drop_duplicates(["setting", "test_domain"])


def held_out_differences(result: LoadedResult, test_domain: str) -> Frame:
    """Contrasts in a test domain."""
    rows = contrasts_of_settings(result.frame("differences"))
    return rows[rows["test_domain"].isin([test_domain, ""])].drop_duplicates("setting")


def primary_differences(result: LoadedResult, test_domain: str) -> Frame:
    """Of the contrasts, those of the primary family; all, where a table names no families."""
    rows = held_out_differences(result, test_domain)
    primary = rows["family"].str.startswith("primary")
    return rows[primary] if primary.any() else rows


FILTERS: Mapping[str, Callable[[Frame], Frame]] = {
    "top-1": top_1,
    "text head": text_head,
    "in the test domain": lambda rows: rows[rows["domain"] == rows["test_domain"]],
    "asked in the test domain": in_test_domain,
    "primary prompts": primary_prompts,
    "last epoch": final,
    "last epoch or untrained": lambda rows: pd.concat(
        [final(rows), rows[rows["control"] == EPOCH_0]]
    ),
    "contrasts": contrasts_of_settings,
    "first block": lambda rows: rows[rows["seed"].eq(rows["seed"].min()) | rows["seed"].isna()],
    "same site": lambda rows: rows[(rows["site_b"] == "") | (rows["site_b"] == rows["site"])],
    "a site": lambda rows: rows[rows["site"] != ""],
}
"""The filters that a specification's `keep` may name."""

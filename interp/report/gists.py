"""Each section's answer in one sentence, to be read before it is opened."""

import re
from collections.abc import Callable, Mapping

from interp.core.errors import sequence
from interp.core.sites import band_of
from interp.core.statistics.index_of_sharing import CANNOT_TELL, SHARED, VERDICTS
from interp.declared.figures import NATURAL, OTHER, GistSpec, SectionSpec
from interp.declared.writing import in_points, number, percent
from interp.report.grammar.subjects import learned_pairs, middle_verdicts, own_pairs
from interp.report.loaded import Frame, LoadedResult
from interp.report.words import accuracy_reached, linked
from interp.verdicts.rungs import RUNGS


def gist(result: LoadedResult, spec: SectionSpec) -> str:
    """A section's answer in one sentence; nothing where its tables hold none.

    It is that of `GISTS`, else of the specification, else of the rungs that the title names.
    """
    if own := GISTS.get(spec.anchor):
        return own(result)
    if spec.gist:
        return _range(result, spec.gist)
    said = [_rung(result, rung) for rung in _rungs(spec)]
    return " ".join(sentence for sentence in said if sentence)


def wanted(result: LoadedResult, spec: SectionSpec) -> str:
    """What would decide the section's rungs where they are open, of the pairs that are asked about.

    One band of layers for each rung, the middle ones first.
    """
    rows = own_pairs(result, result.frame("ladder"))
    rows = rows[(rows["verdict"] == CANNOT_TELL) & (rows["needed"] != "")]
    rows = rows.sort_values("band", key=lambda bands: bands != "middle", kind="stable")
    rows = rows.loc[rows["rung"].isin(_rungs(spec)), ["rung", "band", "needed"]]
    first = rows.drop_duplicates("rung").sort_values("rung").itertuples(index=False)
    parts = [f"{rung} ({band} layers): {needed}" for rung, band, needed in first]
    return f"Would decide what is open: {'; '.join(parts)}." if parts else ""


def _rungs(spec: SectionSpec) -> list[str]:
    return [rung for rung in re.findall(r"R\d", spec.title) if rung in RUNGS]


def _rung(result: LoadedResult, rung: str) -> str:
    """How many models give each answer in the middle layers.

    R1 has other words: what is shared there is that the class can be read.
    """
    compared = [one for name in result.test_domains for one in learned_pairs(result, name)]
    said = [votes.verdict for _, votes in middle_verdicts(result, rung, compared)]
    if not said:
        return ""
    of = "pairs of domains" if result.one_model else "models"
    words = {SHARED: "yes"} if rung == "R1" else {}
    counted = [
        f"{words.get(word, word)} in {said.count(word)}" for word in VERDICTS if word in said
    ]
    claim = f"{RUNGS[rung].claim[:1].upper()}{RUNGS[rung].claim[1:]}"
    return f"{claim}: {sequence(counted)} of {len(said)} {of}, in the middle layers."


def _range(result: LoadedResult, asked: GistSpec) -> str:
    """The sentence of a specification, with the range over the models' own rows."""
    ends = {NATURAL: [result.natural], OTHER: list(result.test_domains)}
    rows = result.frame(asked.table)
    rows = rows[rows["control"] == ""]
    for column, value in asked.where.items():
        rows = rows[rows[column].isin(ends.get(value, [value]))]
    if asked.middle:
        rows = rows[rows["depth"].map(band_of) == "middle"]
    values = _last(rows)[asked.column].dropna()
    if values.empty:
        return ""
    least, most = (FORMS[asked.form](float(end)) for end in (values.min(), values.max()))
    between = least if least == most else f"{least} to {most}"
    return asked.text.format(range=between, n=len(values))


def _last(rows: Frame) -> Frame:
    """The rows of each model's last epoch, where several were measured."""
    if rows["epoch"].isna().all():
        return rows
    last = rows.groupby(["setting", "test_domain"], dropna=False)["epoch"].transform("max")
    return rows[rows["epoch"].isna() | (rows["epoch"] == last)]


FORMS: Mapping[str, Callable[[float], str]] = {
    "percent": percent,
    "points": in_points,
    "number": number,
    "count": lambda value: f"{value:,.0f}",
}
"""How a number stands in a sentence."""


def _levels(result: LoadedResult) -> str:
    """What the levels allow to say, without what would decide."""
    return " ".join(sentence for sentence in linked(result)[:2] if sentence)


def _ladder(result: LoadedResult) -> str:
    """How many of all verdicts decide, and how many were refused."""
    rows = result.frame("ladder")
    rows = rows[(rows["rung"] != "") & (rows["control"] == "")]
    if rows.empty:
        return ""
    unsure = rows["verdict"] == CANNOT_TELL
    decided, wide = int((~unsure).sum()), int((unsure & rows["index"].notna()).sum())
    return (
        f"Of {len(rows):,} verdicts, one for each model, pair of domains, band of layers and rung, "
        f"{decided:,} decide, {wide:,} have too wide an interval, and "
        f"{len(rows) - decided - wide:,} were refused an index."
    )


def _certificate(result: LoadedResult) -> str:
    rows = result.frame("certificate")
    if rows.empty:
        return ""
    failed = int((rows["error"] > rows["bar"]).sum())
    if failed:
        return f"{failed:,} of {len(rows):,} comparisons with open_clip fail."
    return f"All {len(rows):,} comparisons with open_clip pass."


GISTS: Mapping[str, Callable[[LoadedResult], str]] = {
    "levels": _levels,
    "generalization": accuracy_reached,
    "ladder": _ladder,
    "certificate": _certificate,
}
"""Answers of sections that are no range of one number, by the section's name in addresses."""

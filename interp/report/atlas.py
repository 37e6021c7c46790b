"""The map's data: what every pair of domains shares at every layer, small enough for the page.

Numbers are whole ten-thousandths, names are places in lists, and columns are stored one after
another: that is what compresses. page.js unpacks it and atlas.js draws it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from interp.core.sites import BANDS, LAST
from interp.data.mixtures.settings import BASE
from interp.report.grammar.pieces import counts
from interp.report.loaded import Frame
from interp.report.naming import ordered_settings, setting_name, site_label
from interp.report.page_model import PageModel
from interp.verdicts.rungs import RUNGS, RungMeasure

SCALE = 10_000
"""Numbers are stored as whole multiples of 1 / SCALE: a figure shows two or three decimals."""

NUMBERS = {
    "value": "value",
    "low": "low",
    "high": "high",
    "null": "null",
    "ceiling": "ceiling",
    "index": "index",
    "from": "index_low",
    "to": "index_high",
    "p": "p",
}
"""The columns of numbers, as the page calls them and as the tables do."""

WHOLE = "whole tower"
BAND_NAMES = {"early": "early third", "middle": "middle third", "late": "late third", "": WHOLE}
BAND_DEPTHS = {name: (low + high) / 2 for name, (low, high) in BANDS.items()}
LEVELS = {
    "channel": "channels",
    "d_mlp": "neurons",
    "feature": "neurons",
    "edge": "edges",
    "head": "heads",
}
MODEL = ["setting", "test_domain", "seed", "control"]
"""Columns that tell models apart."""


def map_data(page: PageModel) -> dict[str, Any]:
    """Everything the map needs, as plain lists; `{}` where no pair of domains was measured.

    `domains`, `models`, `places`, `verdicts` and `texts` are what the columns of `measures` and
    `bands` count into. `bands` holds the ladder's own verdicts, which have no direction.
    """
    if page.accuracy_only:
        return {}
    measures = [(rung, one) for rung in RUNGS.values() for one in rung.measures]
    every = [(rung, one, _rows(page.frame(one.table), one)) for rung, one in measures]
    found = [(rung, one, rows) for rung, one, rows in every if len(rows)]
    ladder = _ladder(page.frame("ladder"))
    if not found:
        return {}
    joined = pd.concat([*(rows for *_, rows in found), ladder], ignore_index=True)
    ends = set(joined["domain_a"]) | set(joined["domain_b"])
    # a domain that other tables name may not have been compared: the map keeps its row
    named = [name for name in page.domains if name != BASE or name in ends]
    domains = [*named, *sorted(ends - set(named))]
    lists = Lists(domains, _models(joined, page.tests), _places(joined))
    drawn = []
    for rung, one, rows in found:
        levels = [level for level in dict.fromkeys(rows["level"]) if level] or [""]
        for level in levels:
            own = rows[rows["level"] == level] if level else rows
            words = f", by {LEVELS.get(level, level)}" if level else ""
            name = f"{rung.name} {rung.label}: {one.name}{words}"
            drawn.append(
                {"key": f"{one.key} {level}".strip(), "rung": rung.name, "name": name}
                | {"table": one.table, "directed": one.directed, "n": counts(own)}
                | {word: _kind(own, word) for word in ("null_kind", "ceiling_kind")}
                | {"bars": [rung.bars.not_below, rung.bars.shared_above]}
                | {"first": one is rung.judged, "columns": lists.columns(own)}
            )
    judged = sorted(ladder["rung"].unique())
    return {
        "domains": lists.domains,
        "models": lists.models,
        "places": lists.places,
        "measures": drawn,
        "bands": {rung: lists.columns(ladder[ladder["rung"] == rung]) for rung in judged},
        "verdicts": lists.verdicts,
        "texts": lists.texts,
        "scale": SCALE,
        "pairs": [[page.natural, name] for name in page.tests if name],
        "one_model": page.one_model,
    }


def _rows(frame: Frame, one: RungMeasure) -> Frame:
    """A measure's rows between two different domains, each with its place in the tower."""
    rows = one.select(frame)
    rows = rows[(rows["domain_a"] != "") & (rows["domain_b"] != "")]
    rows = rows[rows["domain_a"] != rows["domain_b"]]
    if rows.empty:
        return rows.assign(place="", at=0.0)
    bands = rows["site"] == ""
    place = rows["site"].where(~bands, rows["band"].map(lambda name: BAND_NAMES.get(name, name)))
    at = rows["depth"].where(~bands, rows["band"].map(BAND_DEPTHS).astype(float))
    return rows.assign(place=place, at=at)


def _ladder(rows: Frame) -> Frame:
    """The ladder's verdicts as rows of bands; `votes` joins the reasons."""
    rows = rows[(rows["rung"] != "") & (rows["domain_a"] != "")]
    place = rows["band"].map(lambda name: BAND_NAMES.get(name, name) or WHOLE)
    reason = [
        ". ".join(part for part in (votes, why) if part)
        for votes, why in zip(rows["votes"], rows["reason"], strict=True)
    ]
    at = rows["band"].map(BAND_DEPTHS).astype(float)
    return rows.assign(place=place, at=at, reason=reason, level="")


def _kind(rows: Frame, word: str) -> str:
    return next((kind for kind in rows[word] if kind), "")


def _models(rows: Frame, tests: Sequence[str]) -> Frame:
    """Every model once, trained ones first and in the page's order, with its name."""
    seen = rows[MODEL].drop_duplicates()
    blocks, several = seen["seed"].dropna().nunique() > 1, len(tests) > 1
    order = {name: place for place, name in enumerate(ordered_settings(seen["setting"]))}
    names = []
    for setting, test_domain, seed, control in seen.itertuples(index=False):
        parts = [setting_name(setting)] if setting or not control else []
        parts += [{"epoch 0": "untrained", "pixels": "raw pixels"}.get(control, control)]
        parts += [f"{test_domain} held out"] if several and test_domain else []
        parts += [f"seed {seed:g}"] if blocks and pd.notna(seed) else []
        names.append(", ".join(part for part in parts if part))
    ranked = seen.assign(name=names, rank=[order.get(name, 0) for name in seen["setting"]])
    ranked["floor"] = ranked["control"] != ""
    keys = ["floor", "test_domain", "rank", "seed"]
    return ranked.sort_values(keys, kind="stable").reset_index(drop=True)


def _places(rows: Frame) -> Frame:
    """Sites from input to output and thirds of the tower, each once, with their depth."""
    seen = rows[["place", "at", "site"]].drop_duplicates("place")
    seen = seen.assign(band=seen["place"].isin(list(BAND_NAMES.values())))
    return seen.sort_values(["band", "at"], kind="stable", na_position="last")


class Lists:
    """The lists that columns count into, and how a frame becomes such columns."""

    def __init__(self, domains: Sequence[str], models: Frame, places: Frame) -> None:
        self.domains = list(domains)
        self.models = [
            {
                "name": str(row.name_),
                "setting": str(row.setting),
                "test": str(row.test_domain),
                "seed": None if pd.isna(row.seed) else float(row.seed),
                "control": str(row.control),
            }
            for row in models.rename(columns={"name": "name_"}).itertuples()
        ]
        self.places = [
            {
                "name": site_label(str(row.place)),
                "site": str(row.site),
                "band": bool(row.band),
                "depth": None if pd.isna(row.at) else round(float(row.at), 4),
                "last": row.site == LAST,
                "inner": row.place == BAND_NAMES["middle"],
            }
            for row in places.itertuples()
        ]
        self._models = models[MODEL].fillna({"seed": -1})
        self._places = {str(name): place for place, name in enumerate(places["place"])}
        self.verdicts: list[str] = [""]
        self.texts: list[str] = [""]

    def columns(self, rows: Frame) -> Mapping[str, Sequence[int | None]]:
        """The rows of a measure, a list per column, sorted so that neighbours are alike."""
        known = self._models.assign(m=range(len(self._models)))
        rows = rows.fillna({"seed": -1}).merge(known, on=MODEL, how="left")
        places = {name: place for place, name in enumerate(self.domains)}
        rows["s"] = rows["place"].map(self._places)
        rows["a"], rows["b"] = rows["domain_a"].map(places), rows["domain_b"].map(places)
        keys = ["m", "a", "b", "s"]
        # where a model was measured at several epochs, the last one counts
        rows = rows.sort_values([*keys, "epoch"], kind="stable").drop_duplicates(keys, keep="last")
        made = {name: [int(place) for place in rows[name]] for name in keys}
        scaled = {short: _scaled(rows[name]) for short, name in NUMBERS.items()}
        whole = [None if pd.isna(n) else int(n) for n in rows["n_units"]]
        words = {
            "verdict": self._counted(self.verdicts, rows["verdict"]),
            "reason": self._counted(self.texts, rows["reason"]),
        }
        return (
            made
            | {name: one for name, one in scaled.items() if set(one) - {None}}
            | {"n": whole}
            | words
        )

    @staticmethod
    def _counted(known: list[str], words: pd.Series) -> list[int]:
        fresh = [word for word in words.unique() if word not in known]
        known += fresh
        places = {word: place for place, word in enumerate(known)}
        return [places[word] for word in words]


def _scaled(column: pd.Series) -> list[int | None]:
    """Whole multiples of 1 / SCALE; numbers beyond a million are no index and are left out."""
    kept = column.where(column.abs() < 1e6)
    return [None if pd.isna(one) else round(one * SCALE) for one in kept]

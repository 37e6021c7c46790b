"""Planted tables of what layers hold: factors, directions, separation, erasure and features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from interp.core.statistics.index_of_sharing import verdict_of_interval

SHARES = {
    "class": 0.2,
    "domain": 0.4,
    "interaction": 0.1,
    "residual": 0.3,
    "class and domain": 0.05,
}
CODES = (
    ("dictionary", "one code"),
    ("dictionary", "dictionaries of two seeds"),
    ("raw units", "one code"),
    ("principal components", "one code"),
)
EVIDENCE: Mapping[str, Any] = {
    "null": 0.0, "null_kind": "planted", "ceiling": 0.9, "ceiling_kind": "artist halves", "p": 0.01,
    "unit": "class", "n_units": 45, "n_pictures": 1080, "n_drawings": 180, "n_runs": 1, "seed": 0,
    "estimand": "planted", "reason": "", "control": "",
}  # fmt: skip
PAIR = {"domain_a": "real", "domain_b": "sketch"}


def layer_tables(index: Mapping[str, float], sites: Mapping[str, float]) -> dict[str, pd.DataFrame]:
    """The optional tables of a study whose settings share so much, at sites of these depths."""
    towers = {site: depth for site, depth in sites.items() if site != "pixels"}
    made: dict[str, list[dict[str, Any]]] = {
        "factorisation": [], "directions": [], "separation": [], "domain_probes": [],
        "selectivity": [], "views": [], "erasure": [], "dictionaries": [],
        "feature_sharing": [], "feature_ablation": [], "faithfulness": [], "circuits": [],
        "unit_galleries": [], "steering": [], "steered_answers": [],
        "match_faithfulness": [], "match_circuits": [], "caption_words": [], "caption_patching": [],
    }  # fmt: skip
    for place, (setting, shared) in enumerate(index.items()):
        own = {"setting": setting, "test_domain": "sketch"}
        for site, depth in towers.items():
            where = own | {"site": site, "depth": depth, "layer": int(5 * depth)}
            for control in ("", "epoch 0"):
                at = where | {"control": control}
                _by_site(made, at, shared * depth if not control else 0.01, place)
        _in_the_middle(made, own | {"site": "layer2.0.hook_resid_post", "depth": 0.4}, shared)
        for domain in ("real", "sketch"):
            _circuit(made, own | {"domain": domain}, shared)
        _units(made, own | {"site": "layer2.0.hook_resid_post", "depth": 0.4}, shared)
        _steered(made, own, shared)
        _captioned(made, own, shared)
    return {name: pd.DataFrame(rows) for name, rows in made.items()}


def _circuit(made: dict[str, list[dict[str, Any]]], where: dict[str, Any], level: float) -> None:
    """A circuit that does more alone, and leaves less behind, the larger it is."""
    for share in (0.02, 0.1, 0.5, 1.0):
        size = {"share": share, "n_edges": int(700 * share)}
        for measure, value in (("alone", share**0.3), ("without", 1 - share**0.3)):
            name = "circuit alone" if measure == "alone" else "model without the circuit"
            made["faithfulness"].append(row_of(where | size, value, measure=name))
    made["faithfulness"].append(row_of(where, 0.8, measure="CPR"))
    for node, node_b, layer, layer_b, score in (
        ("input", "a0.h1", -1, 0, level),
        ("a0.h1", "m1", 0, 1, -level / 2),
        ("m1", "logits", 1, 2, 2 * level),
    ):
        ends = {"node": node, "node_b": node_b, "layer": layer, "layer_b": layer_b}
        made["circuits"].append(
            where | ends | {"edge": f"{node}->{node_b}", "score": score, "n_pictures": 30}
        )


def _steered(made: dict[str, list[dict[str, Any]]], own: dict[str, Any], level: float) -> None:
    """Pictures are called a class more, the more of it is added; less by the other domain's."""
    sites = (("layer2.0.hook_resid_post", 0.4, "middle"), ("layer4.0.hook_resid_post", 0.9, "late"))
    for dose in (0.0, 1.0, 2.0):
        for site, depth, band in sites:
            for a in PAIR.values():
                for b in PAIR.values():
                    said = 0.45 * dose * (1 if a == b else level)
                    kind = "its own domain's" if a == b else "the other domain's"
                    ends = {"domain_a": a, "domain_b": b, "direction": f"{kind} direction"}
                    where = own | ends | {"site": site, "depth": depth, "band": band, "dose": dose}
                    made["steering"] += [
                        row_of(where | {"class_set": kind}, share, measure="called the class")
                        for kind, share in (("seen", said), ("held-out", said / 2))
                    ]
        for domain in PAIR.values():
            for label in ("class_01", "class_02"):
                shares = {label: 0.4 * dose, "class_07": 0.1, "others": 0.9 - 0.4 * dose}
                made["steered_answers"] += [
                    own | {"label": label, "domain": domain, "dose": dose, "answer": answer}
                    | {"share": share, "n_pictures": 90, "control": "", "site": sites[1][0]}
                    for answer, share in shares.items()
                ]  # fmt: skip


def _captioned(made: dict[str, list[dict[str, Any]]], own: dict[str, Any], level: float) -> None:
    """Circuits of both towers, parts, words and heads: the class word does more than the other."""
    for domain in PAIR.values():
        where = own | {"domain": domain}
        for tower, better in (("both", 0.5), ("visual", 0.3), ("text", 0.1)):
            at = where | {"tower": tower, "measure": "circuit alone"}
            for share in (0.05, 0.1, 0.2, 0.5):
                size = {"share": share, "n_edges": int(900 * share)}
                made["match_faithfulness"].append(row_of(at | size, level * share**better))
        for node, node_b, layer, layer_b, score in (
            ("layer2.0.hook_resid_post:3", "match", -1, 0, 2 * level),
            ("text block 0:a0.h1", "match", 1, 0, level),
            ("text input:input", "text block 0:a0.h1", 2, 1, 3.0),
        ):
            ends = {"node": node, "node_b": node_b, "layer": layer, "layer_b": layer_b}
            made["match_circuits"].append(
                where | ends | {"edge": f"{node}->{node_b}", "score": score, "n_pictures": 30}
            )
        for told, most in (("classes", "class word"), ("domains", "word for the domain")):
            asked = where | {"told_apart": told}
            made["caption_words"] += [
                row_of(asked | {"part": word, "logits": 5.0}, 0.7 if word == most else 0.15)
                for word in ("class word", "word for the domain", "other words")
            ]
            if told == "classes" or domain == "sketch":
                made["caption_patching"] += [
                    row_of(asked | {"part": part}, value) for part, value in
                    (("a0.h0", level), ("a0.h1", 0.1), ("m0", 0.3))
                ]  # fmt: skip


def _units(made: dict[str, list[dict[str, Any]]], where: dict[str, Any], level: float) -> None:
    """Four units, each with its class told in every domain that it was chosen in."""
    roles = ("serves both domains", "serves real more", "serves sketch more", "drawn at random")
    for feature, role in enumerate(roles):
        unit = {"role": role, "feature": feature, "chosen_for": "class_03"}
        unit |= {"measure": "class selectivity", "label": "class_03"}
        for a in PAIR.values():
            for b in PAIR.values():
                told = 0.5 + 0.5 * level if "both" in role or a == b else 0.5
                ends = {"domain_a": a, "domain_b": b}
                made["unit_galleries"].append(row_of(where | ends | unit, told))


def _by_site(
    made: dict[str, list[dict[str, Any]]], where: dict[str, Any], level: float, place: int
) -> None:
    made["factorisation"] += [
        row_of(where, share + level / 10, factor=factor, measure="share of variance")
        for factor, share in SHARES.items()
    ]
    made["directions"] += [
        row_of(where, level - shift, measure=measure, **PAIR)
        for shift, measure in ((0, "cosine of mean differences"), (0.1, "cosine of LDA directions"))
    ]
    made["separation"] += [
        row_of(where, value, measure=measure, **PAIR)
        for value, measure in (
            (0.9 - level / 10, "domain classifier"),
            (4.0 + level, "squared distance of domain means"),
        )
    ]
    made["domain_probes"].append(row_of(where, 0.8 + level / 10, domain="real, sketch"))
    made["selectivity"] += [
        row_of(where, value, domain=domain, measure="selectivity")
        for value, domain in ((level, "real"), (level / 2, "sketch"))
    ]
    if where["site"] in ("layer2.0.hook_resid_post", "hook_embedding"):
        generator = np.random.default_rng(place)
        made["views"] += [
            where
            | {"measure": "PCA", "label": f"class_{n:02d}", "domain": domain, "explained": 0.4}
            | {"x": float(generator.normal()), "y": float(generator.normal())}
            for domain in ("real", "sketch")
            for n in range(8)
        ]


def _in_the_middle(
    made: dict[str, list[dict[str, Any]]], where: dict[str, Any], shared: float
) -> None:
    rows = (
        ("accuracy", {"domain": "sketch", "read_at": "embedding"}, -0.05),
        ("domain probe", {"read_at": "site"}, -0.4),
        ("transfer", {"domain": "sketch", "train_domain": "real", "read_at": "site"}, 0.02),
        ("similarity", {"read_at": "embedding", **PAIR}, 0.01),
    )
    made["erasure"] += [
        row_of(
            where, change, measure=measure, against=against, removed=0.08, erased="domain", **keys
        )
        | {"beyond": change - null, "beyond_low": change - null - 0.03}
        | {"beyond_high": change - null + 0.03}
        for measure, keys, change in rows
        for against, null in (("permuted labels", 0.01), ("random subspace", -0.02))
    ]
    made["dictionaries"] += [
        row_of(where, value, measure=measure, domain=domain, width=256, class_set=classes, **more)
        for measure, domain, value, classes, more in (
            ("active features", "", 16.0, "all", {}),
            ("explained variance", "", 0.86, "all", {}),
            ("dead features", "", 0.4, "all", {}),
            ("recovered accuracy", "real", 0.45, "", {"ceiling": 0.5}),
            ("recovered accuracy", "sketch", 0.3, "", {"ceiling": 0.4}),
            ("mean cosine", "", 0.44, "", {"null": 0.36}),
        )
    ]
    made["feature_sharing"] += [
        row_of(where, shared - 0.1 * (not centred) - 0.02 * place, **PAIR)
        | {"measure": measure, "code": code, "reading": reading, "centred": centred, "width": 256}
        for place, (code, reading) in enumerate(CODES)
        for measure in ("shared mass", "shared top features")
        for centred in (True, False)
    ]
    made["feature_ablation"] += [
        row_of(where, drop * (2 if measure == "margin drop" else 1), domain=domain, measure=measure)
        | {"ablated": what, "removed": 0.1}
        for what, domain, drop in (
            ("shared", "real", 0.2), ("shared", "sketch", 0.2 * shared),
            ("private", "real", 0.2), ("private", "sketch", 0.0),
        )
        for measure in ("accuracy drop", "margin drop")
    ]  # fmt: skip


def row_of(where: Mapping[str, Any], value: float, **more: object) -> dict[str, Any]:
    """A row of evidence whose value is its index, too."""
    index = {"index": value, "index_low": value - 0.07, "index_high": value + 0.07}
    said = verdict_of_interval(value - 0.07, value + 0.07)
    ends = {"value": value, "low": value - 0.05, "high": value + 0.05, "verdict": said}
    return {**EVIDENCE, **ends, **index, **where, **more}

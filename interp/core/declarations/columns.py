"""The schema of result tables: what each column means, holds, and does in matching rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column of result tables.

    Args:
        meaning: What it says, with its unit.
        holds: Whether its cells are numbers, text or flags. An empty cell is nan, "" or False.
        key: Whether it says what a row is about, whatever came out: rows of two results are matched
            by these.
        last_key: Whether it tells rows apart only where the keys do not.
    """

    meaning: str
    holds: Literal["number", "text", "flag"]
    key: bool = False
    last_key: bool = False

    @property
    def empty(self) -> Any:
        """What an empty cell holds."""
        return {"number": np.nan, "text": "", "flag": False}[self.holds]


def number(meaning: str, *, key: bool = False, last_key: bool = False) -> Column:
    """A column of numbers."""
    return Column(meaning, "number", key, last_key)


def text(meaning: str, *, key: bool = False, last_key: bool = False) -> Column:
    """A column of text."""
    return Column(meaning, "text", key, last_key)


def flag(meaning: str, *, key: bool = False) -> Column:
    """A column of true and false."""
    return Column(meaning, "flag", key)


COLUMNS: Mapping[str, Column] = {
    # what was measured
    "measure": text("name of the estimator", key=True),
    "value": number("the raw estimate, in the measure's own unit"),
    "estimand": text("what the value estimates, in words"),
    # its evidence
    "low": number("lower end of the 95 % interval"),
    "high": number("upper end of the 95 % interval"),
    "null": number("what the value would be without sharing or effect"),
    "ceiling": number("what the value would be with full sharing"),
    "index": number("(value - null) / (ceiling - null), unitless"),
    "index_low": number("lower end of the index's 95 % interval"),
    "index_high": number("upper end of the index's 95 % interval"),
    "p": number("probability of a value at least as large under the null"),
    "p_adjusted": number("p adjusted for the other tests of its family (Holm)"),
    "family": text("the tests that p_adjusted is adjusted for, and their number"),
    "unit": text("what was resampled: the unit of replication", last_key=True),
    "n_units": number("number of such units"),
    "n_pictures": number("number of pictures"),
    "n_drawings": number("number of different drawings (pictures, where drawings are not known)"),
    "n_runs": number("number of trained models", last_key=True),
    "seed": number("seed of resampling and pairing", last_key=True),
    "verdict": text(
        "shared / not shared / cannot tell; of generalization and sharing goes together / "
        "goes against / does not go together / cannot tell"
    ),
    "reason": text("why a number is missing or a verdict withheld; empty otherwise"),
    # what it was measured on
    "tower": text("visual or text", key=True),
    "site": text("name of an activation", key=True),
    "layer": number(
        "block that computes the site; -1 before the chain, n_layers after it", last_key=True
    ),
    "depth": number("place of the site in the tower, 0 to 1"),
    "band": text("early, middle or late third of the depth; empty for the whole tower", key=True),
    "rung": text("rung of the ladder, R1 to R6", key=True),
    "adjusted": text(
        "what was held constant beyond the level's own terms; empty for nothing", key=True
    ),
    "slope": number("accuracy (0 to 1) per unit of sharing, noise in sharing taken out"),
    "reliability": number("share of the variance of what is compared that is no noise"),
    "reliability_kind": text("what reliability is known from"),
    "n_classes": number("number of classes"),
    "licence": text("the words that the verdict allows"),
    "needed": text("what would have to be run to decide, by simulation; empty where it is decided"),
    "gain": number(
        "explained variance of left-out mixtures and domains that sharing adds (the lesser)"
    ),
    "half_1": number(
        "sharing from the first half of drawings of domain_a and the second of domain_b"
    ),
    "half_2": number(
        "sharing from the second half of drawings of domain_a and the first of domain_b"
    ),
    "n_judged": number("number of rows that a verdict sums up"),
    "votes": text("how many of them say what"),
    "site_b": text("site in the second domain, where every site meets every other", key=True),
    "layer_b": number("block that computes site_b"),
    "depth_b": number("place of site_b in the tower, 0 to 1"),
    "model_b": text("the model that domain_b was seen by, where two models are compared", key=True),
    "dtype": text("floating-point format", key=True),
    "setting": text("training distribution, and the arm of an intervention at it", key=True),
    "arm": text(
        "of an intervention: aligned, separated or shuffled, and the weight; empty for none",
        key=True,
    ),
    "weight": number("weight of the term that aligns classes; below 0 it separates them", key=True),
    "architecture": text("preset that the model was made from", key=True),
    "test_domain": text("domain in which classes were held out", key=True),
    "domain": text("domain of the pictures", key=True),
    "domain_a": text("first domain of a pair", key=True),
    "domain_b": text("second domain of a pair", key=True),
    "train_domain": text("domain that a probe was fitted in", key=True),
    "label": text("class name", key=True),
    "class_set": text("which classes: held-out, seen or all", key=True),
    "candidates": text("among which classes the model chose: all or held-out", key=True),
    "prompts": text("named set of prompt templates", key=True),
    "classifier": text(
        "what names the class: text, or a classifier learned from pictures", key=True
    ),
    "bias": number("subtracted from the logits of seen classes", key=True),
    "accuracy_seen": number("balanced accuracy of seen classes, 0 to 1"),
    "accuracy_held_out": number("balanced accuracy of held-out classes, 0 to 1"),
    "exposure": number("training pictures of the class"),
    "exposed_in": text("where those pictures are counted: all domains or natural", key=True),
    "accuracy": number("balanced accuracy, 0 to 1"),
    "accuracy_low": number("lower end of its 95 % interval"),
    "accuracy_high": number("upper end of its 95 % interval"),
    "accuracy_control": number(
        "balanced accuracy of a control task: classes given at random to groups"
    ),
    "accuracy_in": number("balanced accuracy in domain_a, 0 to 1"),
    "accuracy_out": number("balanced accuracy in domain_b, 0 to 1"),
    "expected": number("accuracy_out that the line of reference models foretells, 0 to 1"),
    "expected_low": number("lower end of the line's 95 % interval"),
    "expected_high": number("upper end of the line's 95 % interval"),
    "fitted": flag("whether the line was fitted to this model"),
    "epoch": number("epochs trained; 0 is the untrained model", key=True),
    "control": text(
        "floor beside the trained model: epoch 0 or pixels; empty for the model itself", key=True
    ),
    "centred": flag("whether each domain's mean was taken out first", key=True),
    "erased": text("the concept that was taken out at the site: domain or class", key=True),
    "positions": text("which tokens were changed: every one, or the class token", key=True),
    "read_at": text("where the effect is read: at the site itself, or in the embedding", key=True),
    "against": text("the control that the null is measured with", key=True),
    "before": number("the number before anything is erased"),
    "beyond": number("value - null, paired by class"),
    "beyond_low": number("lower end of its 95 % interval, over classes and draws of the control"),
    "beyond_high": number("upper end of that interval"),
    "removed": number("mean squared change at the site, as a share of its variance"),
    "x": number("first coordinate of a view, in the view's own unit"),
    "y": number("second coordinate of a view, in the view's own unit"),
    "explained": number("share of the variance that both coordinates of a view hold"),
    # training
    "n_train": number("training pictures"),
    "steps": number("optimiser steps"),
    "step": number("optimiser step, from 0", key=True),
    "loss": number("training loss, nats"),
    "alignment": number(
        "mean over classes of 1 - cosine between domains: the term before its weight"
    ),
    "lr": number("learning rate of the step"),
    "pictures_per_second": number("training pictures per second, over all processes"),
    "waiting": number("seconds of a step spent waiting for pictures"),
    "seconds": number("wall-clock seconds"),
    # patching
    "pairing": text("what clean and corrupt partners share and differ in", key=True),
    "metric": text("the number that patching moves", key=True),
    "pos": number("token position; 0 is the class token", key=True),
    "head": number("attention head", key=True),
    "query": number("token position that attends", key=True),
    "key": number("token position attended to", key=True),
    "d_head": number("coordinate within a head", key=True),
    "d_mlp": number("neuron of the MLP", key=True),
    "d_model": number("coordinate of the residual stream", key=True),
    "d_embed": number("coordinate of the embedding", key=True),
    "channel": number("channel of a feature map", key=True),
    "row": number("row of a feature map, from the top", key=True),
    "column": number("column of a feature map, from the left", key=True),
    "example": number("place of the pair", key=True),
    "clean_label": text("class of the clean picture"),
    "clean_domain": text("domain of the clean picture"),
    "corrupt_label": text("class of the corrupt picture"),
    "corrupt_domain": text("domain of the corrupt picture"),
    "drawing": text("artist and glyph"),
    "clean_metric": number("the metric on the clean picture"),
    "corrupt_metric": number("the metric on the corrupt picture"),
    "estimate": number("what gradients say the patch changes, in the metric's unit"),
    "chosen": text(
        "why the cell was measured: screened (highest estimates) or sampled (at random)"
    ),
    "k": number("directions of a subspace", last_key=True),
    "in_domain": number("as value, in domain_a itself: its own subspace, other artists' pictures"),
    "random": number(
        "the same with a random subspace as large, or random parts as many in every group"
    ),
    "whole": number("as ceiling, with the whole site in place of the subspace"),
    "varied": number("as value, in the directions that vary in A when what its basis reads does"),
    "share_of_whole": number(
        "ceiling / whole: how much of what the site carries the subspace does"
    ),
    # dictionaries of features
    "width": number("number of features", key=True),
    "sparsity": text("what keeps a dictionary's features few", key=True),
    "code": text(
        "what stands for features: a dictionary, raw units or principal components", key=True
    ),
    "reading": text("whether one code reads both domains, or dictionaries of two seeds", key=True),
    "feature": number("place of a feature in its code", key=True),
    "used_a": number("share of the class variance in domain_a that the feature carries"),
    "used_b": number("share of the class variance in domain_b that the feature carries"),
    "agreement": number("correlation of the feature's class means in domain_a and domain_b"),
    "role": text("shared, private to a domain, or neither"),
    "ablated": text("which features were replaced by those of another picture", key=True),
    # circuits
    "node": text("what writes: input, a head, an MLP, or a channel of a site", key=True),
    "node_b": text(
        "what reads it: a head, an MLP, the output, or a channel; empty for a node alone", key=True
    ),
    "edge": text("a writer and a reader behind it", key=True),
    "level": text(
        "what a circuit is made of: nodes, edges, or units along an axis; of a verdict on "
        "generalization L1 to L4",
        key=True,
    ),
    "score": number("what an edge is worth, in the metric's unit"),
    "kept": flag("whether it belongs to the circuit"),
    "n_sure": number("number of a circuit's parts that are in 95 % of its draws or more"),
    "n_edges": number(
        "number of edges in the circuit, or of units where it is made of units", last_key=True
    ),
    "share": number("that number as a share of all", key=True),
    # decomposition
    "factor": text(
        "part of the features' variance: class, domain, interaction, residual; or an angle",
        key=True,
    ),
    "part": text(
        "what is one of those that sum to the embedding, named after where it was written", key=True
    ),
    "kind": text(
        "attn, mlp, head, token (a head from one position), block, stem, embed or bias; of a "
        "circuit's parts node, edge or neurons",
        key=True,
    ),
    # audit of a mixture
    "split": text("train, test or analysis", key=True),
    "picture": text("path of a picture"),
    "other": text("path of the picture beside it"),
    "label_b": text("class of the other picture", key=True),
    "distance": number("bits of 64 in which two perceptual hashes differ"),
    "detail": text("what was found, in words"),
    # certificates
    "check": text("what was compared or looked for", key=True),
    "error": number("largest difference as a fraction of the largest absolute value"),
    "reference": text("what the site was held against"),
    "bar": number("largest error that passes"),
    "ok": flag("whether it passes"),
    "n": number("number of values compared"),
    "component": text(
        "part of a model that may be in a circuit: a node, an edge, neurons of a block", key=True
    ),
    "inside": flag("whether the true circuit has the component"),
    # differences between two results
    "table": text("name of a table of both results"),
    "place": text("what identifies its row, as name=value"),
    "quantity": text("which number of the row is compared: value or index"),
    "value_a": number("that number in the first result"),
    "value_b": number("that number in the second result"),
    "method": text("what its interval is made of: paired units, or the two results' intervals"),
    "change": text("changed beyond noise / within noise / no interval / only in one result"),
    # how its evidence was made
    "ceiling_kind": text("how the ceiling was made", last_key=True),
    "null_kind": text("how the null was made", last_key=True),
    "claim": text("what the rung claims to be shared", last_key=True),
}
"""Every column that tables share; a measure may declare more of its own, beside itself."""

EVIDENCE = (
    *("low", "high", "null", "null_kind", "ceiling", "ceiling_kind", "index", "p", "unit"),
    *("n_units", "n_pictures", "n_drawings", "n_runs", "estimand", "seed"),
)
"""The columns without which a similarity or an effect is not reported."""

YES = frozenset({"true", "1", "1.0"})


def typed(frame: pd.DataFrame, columns: Mapping[str, Column] = COLUMNS) -> pd.DataFrame:
    """A table read as text, with every column as the schema says.

    Args:
        frame: Cells as text; an empty one is missing.
        columns: What is declared; further columns stay text.

    Returns:
        A new frame: numbers (whole where all cells are), text, flags.

    Raises:
        ValueError: Where a column of numbers holds a word.

    >>> typed(pd.DataFrame({"label": ["007", ""], "layer": ["3", "4"], "ok": ["True", ""]})).values
    array([['007', 3, True],
           ['', 4, False]], dtype=object)
    """
    made: dict[str, Any] = {}
    for name, given in frame.items():
        holds = columns[name].holds if name in columns else "text"
        if holds == "number":
            try:
                made[str(name)] = pd.to_numeric(given.where(given != "", None))
            except ValueError as error:
                raise ValueError(f"the column {name} holds a word: {error}") from None
        elif holds == "flag":
            made[str(name)] = (
                given.fillna("").map(lambda cell: str(cell).lower() in YES).astype(bool)
            )
        else:
            made[str(name)] = given.fillna("").astype(str).astype(object)
    return pd.DataFrame(made, index=frame.index)

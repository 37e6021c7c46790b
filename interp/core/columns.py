"""The schema of result tables: what each column means, holds, and does in matching rows."""

from collections.abc import Iterable, Mapping
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
        of_one_model: Whether it numbers parts of a model: with other first weights, the same number
            is another part.
    """

    meaning: str
    holds: Literal["number", "text", "flag"]
    key: bool = False
    last_key: bool = False
    of_one_model: bool = False

    @property
    def empty(self) -> Any:
        """What an empty cell holds."""
        return {"number": np.nan, "text": "", "flag": False}[self.holds]


def _number(meaning: str, *, key: bool = False, last_key: bool = False) -> Column:
    """A column of numbers."""
    return Column(meaning, "number", key, last_key)


def _numbered(meaning: str) -> Column:
    """A column that numbers parts of one model."""
    return Column(meaning, "number", key=True, of_one_model=True)


def _text(meaning: str, *, key: bool = False, last_key: bool = False) -> Column:
    """A column of text."""
    return Column(meaning, "text", key, last_key)


def _flag(meaning: str, *, key: bool = False) -> Column:
    """A column of true and false."""
    return Column(meaning, "flag", key)


COLUMNS: dict[str, Column] = {
    # what was measured
    "measure": _text("name of the estimator", key=True),
    "value": _number("the raw estimate, in the measure's own unit"),
    "estimand": _text("what the value estimates, in words"),
    # its evidence
    "low": _number("lower end of the 95 % interval"),
    "high": _number("upper end of the 95 % interval"),
    "null": _number("what the value would be without sharing or effect"),
    "ceiling": _number("what the value would be with full sharing"),
    "index": _number("(value - null) / (ceiling - null), unitless"),
    "index_low": _number("lower end of the index's 95 % interval"),
    "index_high": _number("upper end of the index's 95 % interval"),
    "p": _number("probability of a value at least as large under the null"),
    "p_adjusted": _number("p adjusted for the other tests of its family (Holm)"),
    "family": _text("the tests that p_adjusted is adjusted for, and their number"),
    "degrees": _number("degrees of freedom of the t that interval and p are made of"),
    "n_settings": _number("settings whose spread over blocks is in the interval"),
    "paired_low": _number("lower end of the 95 % interval by the paired t of its own blocks alone"),
    "paired_high": _number("upper end of that interval"),
    "paired_p": _number("p of that t"),
    "unit": _text("what was resampled: the unit of replication", last_key=True),
    "n_units": _number("number of such units"),
    "n_pictures": _number("number of pictures"),
    "n_drawings": _number("number of different drawings (pictures, where drawings are not known)"),
    "n_runs": _number("number of trained models", last_key=True),
    "seed": _number("seed of resampling and pairing", last_key=True),
    "verdict": _text(
        "shared / partly shared / not shared / cannot tell; of generalization and sharing goes "
        "together / goes against / does not go together / cannot tell; of a part's word the word, "
        "or no name"
    ),
    "reason": _text("why a number is missing or a verdict withheld; empty otherwise"),
    # what it was measured on
    "tower": _text("visual, text, or both", key=True),
    "site": _text("name of an activation", key=True),
    "layer": _number(
        "block that computes the site; -1 before the chain, n_layers after it", last_key=True
    ),
    "depth": _number("place of the site in the tower, 0 to 1"),
    "band": _text("early, middle or late third of the depth; empty for the whole tower", key=True),
    "rung": _text("rung of the ladder, R1 to R6", key=True),
    "adjusted": _text(
        "what was held constant beyond the level's own terms; empty for nothing", key=True
    ),
    "slope": _number("accuracy (0 to 1) per unit of sharing, noise in sharing taken out"),
    "reliability": _number("share of the variance of what is compared that is no noise"),
    "reliability_kind": _text("what reliability is known from"),
    "n_classes": _number("number of classes"),
    "licence": _text("the words that the verdict allows"),
    "needed": _text(
        "what would have to be run to decide, by simulation; empty where it is decided"
    ),
    "gain": _number(
        "explained variance of left-out mixtures and domains that sharing adds (the lesser)"
    ),
    "predictor": _text("what accuracy on held-out classes is held against", key=True),
    "predictor_kind": _text("sharing; accuracy and exposure; or linear factors", key=True),
    "foretold": _number("share of accuracy's variance that it foretells in left-out mixtures"),
    "beyond_seen": _number("what that adds there to the accuracy of seen classes"),
    "trained": _number("share of training that is over, the mean over runs", key=True),
    "lead": _number("share of the final gain reached, less that of accuracy on held-out classes"),
    "lead_low": _number("lower end of the lead's 95 % interval"),
    "lead_high": _number("upper end of the lead's 95 % interval"),
    "half_1": _number(
        "sharing from the first half of drawings of domain_a and the second of domain_b"
    ),
    "half_2": _number(
        "sharing from the second half of drawings of domain_a and the first of domain_b"
    ),
    "n_judged": _number("number of rows that a verdict sums up"),
    "votes": _text("how many of them say what"),
    "site_b": _text("site in the second domain, where every site meets every other", key=True),
    "layer_b": _number("block that computes site_b"),
    "depth_b": _number("place of site_b in the tower, 0 to 1"),
    "way": _text("which of two compared models goes on from the other's activations", key=True),
    "model_b": _text(
        "the model that domain_b was seen by, where two models are compared", key=True
    ),
    "dtype": _text("floating-point format", key=True),
    "setting": _text("training distribution, and the arm of an intervention at it", key=True),
    "arm": _text(
        "of an intervention: aligned, separated or shuffled, and the weight; empty for none",
        key=True,
    ),
    "weight": _number(
        "weight of the term that aligns classes; below 0 it separates them", key=True
    ),
    "architecture": _text("preset that the model was made from", key=True),
    "test_domain": _text("domain in which classes were held out", key=True),
    "domain": _text("domain of the pictures", key=True),
    "domain_a": _text("first domain of a pair", key=True),
    "domain_b": _text("second domain of a pair", key=True),
    "train_domain": _text("domain that a probe was fitted in", key=True),
    "label": _text("class name", key=True),
    "label_again": _text("the class, as the half that measures would have chosen it"),
    "class_set": _text("which classes: held-out, seen or all", key=True),
    "candidates": _text("among which classes the model chose: all or held-out", key=True),
    "prompts": _text("named set of prompt templates", key=True),
    "classifier": _text(
        "what names the class: text, or a classifier learned from pictures", key=True
    ),
    "bias": _number("subtracted from the logits of seen classes", key=True),
    "accuracy_seen": _number("balanced accuracy of seen classes, 0 to 1"),
    "accuracy_held_out": _number("balanced accuracy of held-out classes, 0 to 1"),
    "exposure": _number("training pictures of the class"),
    "exposed_in": _text("where those pictures are counted: all domains or natural", key=True),
    "accuracy": _number("balanced accuracy, 0 to 1"),
    "accuracy_low": _number("lower end of its 95 % interval"),
    "accuracy_high": _number("upper end of its 95 % interval"),
    "accuracy_control": _number(
        "balanced accuracy of a control task: classes given at random to groups"
    ),
    "accuracy_in": _number("balanced accuracy in domain_a, 0 to 1"),
    "accuracy_out": _number("balanced accuracy in domain_b, 0 to 1"),
    "expected": _number("accuracy_out that the line of reference models foretells, 0 to 1"),
    "expected_low": _number("lower end of the line's 95 % interval"),
    "expected_high": _number("upper end of the line's 95 % interval"),
    "fitted": _flag("whether the line was fitted to this model"),
    "epoch": _number("epochs trained; 0 is the untrained model", key=True),
    "control": _text(
        "floor beside the trained model: epoch 0 or pixels; empty for the model itself", key=True
    ),
    "centred": _flag("whether each domain's mean was taken out first", key=True),
    "erased": _text("the concept that was taken out at the site: domain or class", key=True),
    "positions": _text("which tokens were changed: every one, or the class token", key=True),
    "read_at": _text("where the effect is read: at the site itself, or in the embedding", key=True),
    "against": _text("the control that the null is measured with", key=True),
    "before": _number("the number before anything is erased"),
    "beyond": _number("value - null, paired by class"),
    "beyond_low": _number("lower end of its 95 % interval, over classes and draws of the control"),
    "beyond_high": _number("upper end of that interval"),
    "removed": _number("mean squared change at the site, as a share of its variance"),
    "x": _number("first coordinate of a view, in the view's own unit"),
    "y": _number("second coordinate of a view, in the view's own unit"),
    "explained": _number("share of the variance that both coordinates of a view hold"),
    # training
    "n_train": _number("training pictures"),
    "steps": _number(
        "optimiser steps; where parts are scored, steps of integration", last_key=True
    ),
    "step": _number("optimiser step, from 0", key=True),
    "loss": _number("training loss, nats"),
    "alignment": _number(
        "mean over classes of 1 - cosine between domains: the term before its weight"
    ),
    "lr": _number("learning rate of the step"),
    "pictures_per_second": _number("training pictures per second, over all processes"),
    "waiting": _number("seconds of a step spent waiting for pictures"),
    "seconds": _number("wall-clock seconds"),
    # patching
    "pairing": _text("what clean and corrupt partners share and differ in", key=True),
    "metric": _text("the number that patching moves", key=True),
    "pos": _number("token position; 0 is the class token", key=True),
    "head": _numbered("attention head"),
    "query": _number("token position that attends", key=True),
    "key": _number("token position attended to", key=True),
    "d_head": _numbered("coordinate within a head"),
    "d_mlp": _numbered("neuron of the MLP"),
    "d_model": _numbered("coordinate of the residual stream"),
    "d_embed": _numbered("coordinate of the embedding"),
    "channel": _numbered("channel of a feature map"),
    "row": _number("row of a feature map, from the top", key=True),
    "column": _number("column of a feature map, from the left", key=True),
    "example": _number("place of the pair", key=True),
    "clean_label": _text("class of the clean picture"),
    "clean_domain": _text("domain of the clean picture"),
    "corrupt_label": _text("class of the corrupt picture"),
    "corrupt_domain": _text("domain of the corrupt picture"),
    "drawing": _text("artist and glyph"),
    "clean_metric": _number("the metric on the clean picture"),
    "corrupt_metric": _number("the metric on the corrupt picture"),
    "estimate": _number("what gradients say the patch changes, in the metric's unit"),
    "chosen": _text(
        "why the cell was measured: screened (highest estimates) or sampled (at random)"
    ),
    "k": _number("directions of a subspace", last_key=True),
    "in_domain": _number("as value, in domain_a itself: its own subspace, other artists' pictures"),
    "random": _number(
        "the same with a random subspace as large, or random parts as many in every group"
    ),
    "random_high": _number("the 95 % quantile of what `random` is the mean of"),
    "whole": _number("as ceiling, with the whole site in place of the subspace"),
    "varied": _number("as value, in the directions that vary in A when what its basis reads does"),
    "shuffled": _number("as value, through a stitch that was fitted to other pictures"),
    "own": _number("as value, what the circuits of domain_b itself do there"),
    "core": _number("as value, what the parts do that the circuits of both domains have"),
    "core_share": _number("how many of a circuit's parts the other domain's has, as a share"),
    "other_class": _number("as value, the part taken from a picture of a third class"),
    "class_free": _number("as value, with the strongest subspace of pictures without a class"),
    "class_free_kind": _text("the pictures without a class whose subspace does most"),
    "share_of_whole": _number(
        "ceiling / whole: how much of what the site carries the subspace does"
    ),
    # dictionaries of features
    "width": _number("number of features", key=True),
    "sparsity": _text("what keeps a dictionary's features few", key=True),
    "code": _text(
        "what stands for features: a dictionary, raw units or principal components", key=True
    ),
    "reading": _text("whether one code reads both domains, or dictionaries of two seeds", key=True),
    "feature": _numbered("place of a feature in its code"),
    "used_a": _number("share of the class variance in domain_a that the feature carries"),
    "used_b": _number("share of the class variance in domain_b that the feature carries"),
    "agreement": _number("correlation of the feature's class means in domain_a and domain_b"),
    "cosine": _number("least cosine of a feature with its partners in other seeds' dictionaries"),
    "role": _text(
        "shared, private to a domain or a model, or neither; of a unit: how it was chosen"
    ),
    "chosen_for": _text("the class that a unit was chosen for, by what it does in circuits"),
    "ablated": _text("which features were replaced by those of another picture", key=True),
    # circuits
    "node": _text("what writes: input, a head, an MLP, or a channel of a site", key=True),
    "node_b": _text(
        "what reads it: a head, an MLP, the output, or a channel; empty for a node alone", key=True
    ),
    "edge": _text("a writer and a reader behind it", key=True),
    "level": _text(
        "what a circuit is made of: nodes, edges, or units along an axis; of a verdict on "
        "generalization L1 to L4",
        key=True,
    ),
    "score": _number("what an edge is worth, in the metric's unit"),
    "kept": _flag("whether it belongs to the circuit"),
    "n_sure": _number("number of a circuit's parts that are in 95 % of its draws or more"),
    "n_edges": _number(
        "number of edges in the circuit, or of units where it is made of units", last_key=True
    ),
    "share": _number("that number as a share of all", key=True),
    # decomposition
    "factor": _text(
        "part of the features' variance: class, domain, interaction, residual; or an angle",
        key=True,
    ),
    "part": _text(
        "what is one of those that sum to the embedding, named after where it was written", key=True
    ),
    "kind": _text(
        "attn, mlp, head, token (a head from one position), block, stem, embed or bias; of a "
        "circuit's parts node, edge or neurons",
        key=True,
    ),
    "rank": _number("place of a word among those of a part; 1 names most", key=True),
    "word": _text("the word that explains most of what the words before it leave"),
    "word_again": _text("that word, as the half that measures would have chosen it"),
    "same_name": _text("whether a name does better than chance in every domain, or where not"),
    "cumulative": _number("the value, with those of the words before it"),
    "components": _number("as cumulative, of as many principal components"),
    "written": _number("variance of what the part writes, as a share of the embedding's"),
    # audit of a mixture
    "split": _text("train, test or analysis", key=True),
    "picture": _text("path of a picture"),
    "other": _text("path of the picture beside it"),
    "label_b": _text("class of the other picture", key=True),
    "distance": _number("bits of 64 in which two perceptual hashes differ"),
    "detail": _text("what was found, in words"),
    # certificates
    "check": _text("what was compared or looked for", key=True),
    "error": _number("largest difference as a fraction of the largest absolute value"),
    "reference": _text("what the site was held against"),
    "bar": _number("largest error that passes"),
    "ok": _flag("whether it passes"),
    "n": _number("number of values compared"),
    "component": _text(
        "part of a model that may be in a circuit: a node, an edge, neurons of a block", key=True
    ),
    "inside": _flag("whether the true circuit has the component"),
    # differences between two results
    "table": _text("name of a table of both results"),
    "place": _text("what identifies its row, as name=value"),
    "quantity": _text("which number of the row is compared: value or index"),
    "value_a": _number("that number in the first result"),
    "value_b": _number("that number in the second result"),
    "method": _text(
        "how parts are scored; of a difference, what its interval is made of: paired units, the "
        "two results' intervals, or blocks",
        key=True,
    ),
    "change": _text("changed beyond noise / within noise / no interval / only in one result"),
    # how its evidence was made
    "ceiling_kind": _text("how the ceiling was made", last_key=True),
    "null_kind": _text("how the null was made", last_key=True),
    "claim": _text("what the rung claims to be shared", last_key=True),
    # of single measures
    "dose": _number("how often a class's direction is added", key=True),
    "direction": _text("in which domain a direction was fitted"),
    "answer": _text("what pictures are called", key=True),
    "told_apart": _text("what a caption is to tell apart: classes, or domains", key=True),
    "logits": _number("by how many logits the whole caption tells it apart"),
    "corruption": _text(
        "what the corrupt picture is: of another class, or the clean one made unreadable", key=True
    ),
    "size": _text(
        "how many parts circuits have, as a share of each group's; over sizes: the mean of those "
        "at which circuits are faithful",
        key=True,
    ),
    "overlap": _text("how parts of two domains are compared", key=True),
    "default": _flag("whether these are the options that the ladder takes"),
    "agree": _number(
        "share of the other combinations, of those with an index, that give the verdict of the "
        "ladder's options"
    ),
    "n_possible": _number("number of combinations, of which the rows were run"),
}
"""Every column of the tables, in the order in which pages explain them."""

EVIDENCE = (
    *("low", "high", "null", "null_kind", "ceiling", "ceiling_kind", "index", "p", "unit"),
    *("n_units", "n_pictures", "n_drawings", "n_runs", "estimand", "seed"),
)
"""The columns without which a similarity or an effect is not reported."""

CHANGES = ("changed beyond noise", "within noise", "no interval", "only in A", "only in B")
"""What may become of a number from one result to another, the values of `change`."""

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
                made[str(name)] = pd.to_numeric(given)  # an empty cell becomes NaN
            except ValueError as error:
                raise ValueError(f"the column {name} holds a word: {error}") from None
        elif holds == "flag":
            made[str(name)] = (
                given.fillna("").map(lambda cell: str(cell).lower() in YES).astype(bool)
            )
        else:
            made[str(name)] = given.fillna("").astype(str)
    return pd.DataFrame(made, index=frame.index)


def known_columns(names: Iterable[str]) -> dict[str, Column]:
    """The columns of some names, without those that nobody declares.

    >>> list(known_columns(["site", "sight"]))
    ['site']
    """
    return {name: COLUMNS[name] for name in names if name in COLUMNS}

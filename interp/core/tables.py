"""Tables of results: one row per measurement, declared columns, as CSV with facts beside it.

A similarity or an effect never travels alone. `EVIDENCE` lists the columns that go with it; a table
made `with_evidence` is refused without them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.core.errors import DataError, OutputError, SpecificationError, listed
from interp.core.statistics.evidence_rows import NO_VERDICT, Evidence
from interp.core.statistics.resampling import Index, Interval

COLUMNS: dict[str, str] = {
    # what was measured
    "measure": "name of the estimator",
    "value": "the raw estimate, in the measure's own unit",
    "estimand": "what the value estimates, in words",
    # its evidence
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "null": "what the value would be without sharing or effect",
    "null_kind": "how the null was made",
    "ceiling": "what the value would be with full sharing",
    "ceiling_kind": "how the ceiling was made",
    "index": "(value - null) / (ceiling - null), unitless",
    "index_low": "lower end of the index's 95 % interval",
    "index_high": "upper end of the index's 95 % interval",
    "p": "probability of a value at least as large under the null",
    "p_adjusted": "p adjusted for the other tests of its family (Holm)",
    "family": "the tests that p_adjusted is adjusted for, and their number",
    "unit": "what was resampled: the unit of replication",
    "n_units": "number of such units",
    "n_pictures": "number of pictures",
    "n_drawings": "number of different drawings (pictures, where drawings are not known)",
    "n_runs": "number of trained models",
    "seed": "seed of resampling and pairing",
    "verdict": "shared / not shared / cannot tell; of generalization and sharing goes together / "
    "goes against / does not go together / cannot tell",
    "reason": "why a number is missing or a verdict withheld; empty otherwise",
    # what it was measured on
    "tower": "visual or text",
    "site": "name of an activation",
    "layer": "block that computes the site; -1 before the chain, n_layers after it",
    "depth": "place of the site in the tower, 0 to 1",
    "band": "early, middle or late third of the depth; empty for the whole tower",
    "rung": "rung of the ladder, R1 to R6",
    "adjusted": "what was held constant beyond the level's own terms; empty for nothing",
    "slope": "accuracy (0 to 1) per unit of sharing, noise in sharing taken out",
    "reliability": "share of the variance of what is compared that is no noise",
    "reliability_kind": "what reliability is known from",
    "n_classes": "number of classes",
    "licence": "the words that the verdict allows",
    "needed": "what would have to be run to decide, by simulation; empty where it is decided",
    "gain": "explained variance of left-out mixtures and domains that sharing adds (the lesser)",
    "half_1": "sharing from the first half of drawings of domain_a and the second of domain_b",
    "half_2": "sharing from the second half of drawings of domain_a and the first of domain_b",
    "claim": "what the rung claims to be shared",
    "n_judged": "number of rows that a verdict sums up",
    "votes": "how many of them say what",
    "site_b": "site in the second domain, where every site meets every other",
    "layer_b": "block that computes site_b",
    "depth_b": "place of site_b in the tower, 0 to 1",
    "model_b": "the model that domain_b was seen by, where two models are compared",
    "dtype": "floating-point format",
    "setting": "training distribution, and the arm of an intervention at it",
    "arm": "of an intervention: aligned, separated or shuffled, and the weight; empty for none",
    "weight": "weight of the term that aligns classes; below 0 it separates them",
    "architecture": "preset that the model was made from",
    "test_domain": "domain in which classes were held out",
    "domain": "domain of the pictures",
    "domain_a": "first domain of a pair",
    "domain_b": "second domain of a pair",
    "train_domain": "domain that a probe was fitted in",
    "label": "class name",
    "class_set": "which classes: held-out, seen or all",
    "candidates": "among which classes the model chose: all or held-out",
    "prompts": "named set of prompt templates",
    "classifier": "what names the class: text, or a classifier learned from pictures",
    "bias": "subtracted from the logits of seen classes",
    "accuracy_seen": "balanced accuracy of seen classes, 0 to 1",
    "accuracy_held_out": "balanced accuracy of held-out classes, 0 to 1",
    "exposure": "training pictures of the class",
    "exposed_in": "where those pictures are counted: all domains or natural",
    "accuracy": "balanced accuracy, 0 to 1",
    "accuracy_low": "lower end of its 95 % interval",
    "accuracy_high": "upper end of its 95 % interval",
    "accuracy_control": "balanced accuracy of a control task: classes given at random to groups",
    "accuracy_in": "balanced accuracy in domain_a, 0 to 1",
    "accuracy_out": "balanced accuracy in domain_b, 0 to 1",
    "expected": "accuracy_out that the line of reference models foretells, 0 to 1",
    "expected_low": "lower end of the line's 95 % interval",
    "expected_high": "upper end of the line's 95 % interval",
    "fitted": "whether the line was fitted to this model",
    "epoch": "epochs trained; 0 is the untrained model",
    "control": "floor beside the trained model: epoch 0 or pixels; empty for the model itself",
    "centred": "whether each domain's mean was taken out first",
    "erased": "the concept that was taken out at the site: domain or class",
    "positions": "which tokens were changed: every one, or the class token",
    "read_at": "where the effect is read: at the site itself, or in the embedding",
    "against": "the control that the null is measured with",
    "before": "the number before anything is erased",
    "beyond": "value - null, paired by class",
    "beyond_low": "lower end of its 95 % interval, over classes and draws of the control",
    "beyond_high": "upper end of that interval",
    "removed": "mean squared change at the site, as a share of its variance",
    "x": "first coordinate of a view, in the view's own unit",
    "y": "second coordinate of a view, in the view's own unit",
    "explained": "share of the variance that both coordinates of a view hold",
    # training
    "n_train": "training pictures",
    "steps": "optimiser steps",
    "step": "optimiser step, from 0",
    "loss": "training loss, nats",
    "alignment": "mean over classes of 1 - cosine between domains: the term before its weight",
    "lr": "learning rate of the step",
    "pictures_per_second": "training pictures per second, over all processes",
    "waiting": "seconds of a step spent waiting for pictures",
    "seconds": "wall-clock seconds",
    # patching
    "pairing": "what clean and corrupt partners share and differ in",
    "metric": "the number that patching moves",
    "pos": "token position; 0 is the class token",
    "head": "attention head",
    "query": "token position that attends",
    "key": "token position attended to",
    "d_head": "coordinate within a head",
    "d_mlp": "neuron of the MLP",
    "d_model": "coordinate of the residual stream",
    "d_embed": "coordinate of the embedding",
    "channel": "channel of a feature map",
    "row": "row of a feature map, from the top",
    "column": "column of a feature map, from the left",
    "example": "place of the pair",
    "clean_label": "class of the clean picture",
    "clean_domain": "domain of the clean picture",
    "corrupt_label": "class of the corrupt picture",
    "corrupt_domain": "domain of the corrupt picture",
    "drawing": "artist and glyph",
    "clean_metric": "the metric on the clean picture",
    "corrupt_metric": "the metric on the corrupt picture",
    "estimate": "what gradients say the patch changes, in the metric's unit",
    "chosen": "why the cell was measured: screened (highest estimates) or sampled (at random)",
    "k": "directions of a subspace",
    "in_domain": "as value, in domain_a itself: its own subspace, other artists' pictures",
    "random": "the same with a random subspace as large, or random parts as many in every group",
    "whole": "as ceiling, with the whole site in place of the subspace",
    "varied": "as value, in the directions that vary in A when what its basis reads does",
    "share_of_whole": "ceiling / whole: how much of what the site carries the subspace does",
    # dictionaries of features
    "width": "number of features",
    "sparsity": "what keeps a dictionary's features few",
    "code": "what stands for features: a dictionary, raw units or principal components",
    "reading": "whether one code reads both domains, or dictionaries of two seeds",
    "feature": "place of a feature in its code",
    "used_a": "share of the class variance in domain_a that the feature carries",
    "used_b": "share of the class variance in domain_b that the feature carries",
    "agreement": "correlation of the feature's class means in domain_a and domain_b",
    "role": "shared, private to a domain, or neither",
    "ablated": "which features were replaced by those of another picture",
    # circuits
    "node": "what writes: input, a head, an MLP, or a channel of a site",
    "node_b": "what reads it: a head, an MLP, the output, or a channel; empty for a node alone",
    "edge": "a writer and a reader behind it",
    "level": "what a circuit is made of: nodes, edges, or units along an axis; of a verdict on "
    "generalization L1 to L4",
    "score": "what an edge is worth, in the metric's unit",
    "kept": "whether it belongs to the circuit",
    "n_sure": "number of a circuit's parts that are in 95 % of its draws or more",
    "n_edges": "number of edges in the circuit, or of units where it is made of units",
    "share": "that number as a share of all",
    # decomposition
    "factor": "part of the features' variance: class, domain, interaction, residual; or an angle",
    "part": "what is one of those that sum to the embedding, named after where it was written",
    "kind": "attn, mlp, head, token (a head from one position), block, stem, embed or bias; of a "
    "circuit's parts node, edge or neurons",
    # audit of a mixture
    "split": "train, test or analysis",
    "picture": "path of a picture",
    "other": "path of the picture beside it",
    "label_b": "class of the other picture",
    "distance": "bits of 64 in which two perceptual hashes differ",
    "detail": "what was found, in words",
    # certificates
    "check": "what was compared or looked for",
    "error": "largest difference as a fraction of the largest absolute value",
    "reference": "what the site was held against",
    "bar": "largest error that passes",
    "ok": "whether it passes",
    "n": "number of values compared",
    "component": "part of a model that may be in a circuit: a node, an edge, neurons of a block",
    "inside": "whether the true circuit has the component",
    # differences between two results
    "table": "name of a table of both results",
    "place": "what identifies its row, as name=value",
    "quantity": "which number of the row is compared: value or index",
    "value_a": "that number in the first result",
    "value_b": "that number in the second result",
    "method": "what its interval is made of: paired units, or the two results' intervals",
    "change": "changed beyond noise / within noise / no interval / only in one result",
}
"""Every column that a table may have, with its unit or meaning."""

EVIDENCE = (
    "low",
    "high",
    "null",
    "null_kind",
    "ceiling",
    "ceiling_kind",
    "index",
    "p",
    "unit",
    "n_units",
    "n_pictures",
    "n_drawings",
    "n_runs",
    "estimand",
    "seed",
)
"""The columns without which a similarity or an effect is not reported."""


@dataclass(frozen=True)
class Table:
    """Tidy results, one row per measurement, with declared columns.

    Args:
        name: The table's name.
        frame: The rows; every column is one of `interp.core.tables.COLUMNS`.
        facts: What the rows were measured under: versions, options, seeds.

    Raises:
        SpecificationError: For an undeclared column.

    >>> table = Table("loss", pd.DataFrame({"epoch": [1], "loss": [0.5]}))
    >>> table.describe()["loss"]
    'training loss, nats'
    >>> Table("loss", pd.DataFrame({"epok": [1]}))
    Traceback (most recent call last):
    ...
    interp.core.errors.SpecificationError: ... the undeclared column epok, ...
    """

    name: str
    frame: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [str(name) for name in self.frame.columns if name not in COLUMNS]
        if unknown:
            raise SpecificationError(
                f"make the table {self.name!r}",
                f"the undeclared column {listed(unknown)}",
                "columns listed in interp.core.tables.COLUMNS",
                "declare it there with its unit",
            )

    @classmethod
    def with_evidence(
        cls, name: str, frame: pd.DataFrame, facts: Mapping[str, Any] | None = None
    ) -> "Table":
        """A table of similarities or effects, with all columns of evidence.

        Args:
            name: The table's name.
            frame: The rows.
            facts: What the rows were measured under.

        Returns:
            The table.

        Raises:
            SpecificationError: If a column of `EVIDENCE` is missing.
        """
        missing = [column for column in EVIDENCE if column not in frame.columns]
        if missing:
            raise SpecificationError(
                f"report {name!r}",
                f"values without {listed(missing)}",
                f"the columns {listed(EVIDENCE, limit=20)}",
                "measure them, or say why not in `reason`",
            )
        return cls(name, frame, facts or {})

    def __len__(self) -> int:
        return len(self.frame)

    def describe(self) -> dict[str, str]:
        """The unit or meaning of each column."""
        return {str(name): COLUMNS[name] for name in self.frame.columns}

    def save(self, folder: str | Path) -> Path:
        """Write the table as `NAME.csv` and `NAME.json` (columns and facts).

        Args:
            folder: Where to write; it is made if need be.

        Returns:
            The path of the CSV.

        Raises:
            OutputError: If the folder cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            self.frame.to_csv(target / f"{self.name}.csv", index=False)
            facts = {"name": self.name, "columns": self.describe(), "facts": dict(self.facts)}
            (target / f"{self.name}.json").write_text(json.dumps(facts, indent=1, default=str))
        except OSError as error:
            raise OutputError(
                f"save the table {self.name!r}",
                f"{target} ({error})",
                "a folder that can be written",
                "choose another folder",
            ) from None
        return target / f"{self.name}.csv"

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read back what `save` wrote.

        Args:
            path: The CSV; the JSON of the same name lies beside it.

        Returns:
            The table.

        Raises:
            DataError: If either file does not read.
            SpecificationError: For an undeclared column.
        """
        source = Path(path)
        try:
            # "null" is a column of ours and "None" may be a class: only the empty cell is missing
            frame = pd.read_csv(source, keep_default_na=False, na_values=[""])
            facts = json.loads(source.with_suffix(".json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(
                f"load the table {source}",
                f"files that do not read ({error})",
                "a CSV and a JSON of the same name",
                "run the study again",
            ) from None
        words = ("reason", "control", "verdict", "null_kind", "ceiling_kind", "prompts", "setting")
        words += ("arm", "adjusted", "licence", "needed", "reliability_kind")
        present = [name for name in words if name in frame.columns]
        for name in present:  # an empty column of words reads as numbers
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
        return cls(facts["name"], frame, facts["facts"])


def evidence(
    found: Interval,
    *,
    null: float,
    ceiling: float = np.nan,
    index: Index | float = NO_VERDICT,
    p: float = np.nan,
    reason: str = "",
    **common: Any,
) -> dict[str, object]:
    """One row of `Evidence`, for a measure with a single one; `common` are that type's fields.

    >>> row = evidence(Interval(0.5, 0.1, 0.3, 0.7), null=0.25, null_kind="chance", unit="class",
    ...                n_units=4, n_pictures=40, estimand="this model", seed=0)
    >>> row["low"], row["null"], row["n_units"]
    (0.3, 0.25, 4)
    """
    about = Evidence(**common)
    return about.row(found, null=null, ceiling=ceiling, index=index, p=p, reason=reason)

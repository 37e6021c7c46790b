"""Circuits as sets of edges with their scores, in this toolkit's form and those of other tools."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd
from torch import Tensor

from interp.circuits.edges.wire import Wiring, check_edges, open_pair, run_masked, wire
from interp.core.errors import DataError, OutputError, ShapeError, SpecificationError
from interp.core.tables import Table
from interp.core.tower import Tower

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some edges of a tower, with the score of every edge.

    Args:
        wiring: All edges of the tower.
        kept: Whether each edge is in the circuit, `edge`, Booleans.
        scores: Every edge's score in the metric's unit, `edge`; NaN where it was not scored.
        facts: How the circuit was found.

    Raises:
        ShapeError: If there is not one Boolean and one number per edge.

    Notes:
        A node belongs to the circuit when a kept edge leaves or enters it. `len` counts the kept
        edges, and `in` takes the name of an edge or node.

        Circuits of one tower are sets of edges: `a == b` compares the edges (scores and facts are
        how they were found), `a & b`, `a | b`, `a - b` and `~a` give circuits, with the scores of
        `a`, and `a <= b` asks whether all edges of `a` are in `b`.

    >>> from interp.circuits import Chain, wire
    >>> import torch
    >>> wiring = wire(Chain([torch.nn.Identity(), torch.nn.Identity()]))
    >>> circuit = Circuit.of(wiring, ["input->m0", "m0->logits"])
    >>> len(circuit), circuit.nodes, "m0->m1" in circuit
    (2, ('input', 'm0', 'logits'), False)
    >>> other = Circuit.of(wiring, ["input->m0", "input->m1"])
    >>> (circuit & other).edges, circuit.jaccard(other) == 1 / 3
    (('input->m0',), True)
    """

    wiring: Wiring
    kept: np.ndarray
    scores: np.ndarray
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        right = (self.wiring.n_edges,)
        if self.kept.shape != right or self.scores.shape != right or self.kept.dtype != bool:
            given = f"{self.kept.dtype} kept {self.kept.shape} and scores {self.scores.shape}"
            do = "give one for every edge of the wiring"
            raise ShapeError("make a circuit", given, f"Booleans and numbers of shape {right}", do)

    @classmethod
    def of(cls, wiring: Wiring, edges: Iterable[str]) -> "Circuit":
        """A circuit of named edges, without scores.

        Args:
            wiring: All edges of the tower.
            edges: Names `writer->reader` of those to keep.

        Returns:
            The circuit; its scores are NaN.

        Raises:
            SiteError: For an edge that does not exist.
            SpecificationError: For no edge.
        """
        kept = np.zeros(wiring.n_edges, dtype=bool)
        kept[check_edges(wiring, list(edges))] = True
        return cls(wiring, kept, np.full(wiring.n_edges, np.nan))

    def __len__(self) -> int:
        return int(self.kept.sum())

    def __repr__(self) -> str:
        kept = np.flatnonzero(self.kept)
        order = np.argsort(-np.nan_to_num(np.abs(self.scores[kept])), kind="stable")
        most = [self.wiring.names[edge] for edge in kept[order[:3]]]
        shown = f": {', '.join(most)}{', ...' if len(self) > 3 else ''}" if most else ""
        return f"Circuit({len(self):,} of {self.wiring.n_edges:,} edges{shown})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.wiring == other.wiring and bool((self.kept == other.kept).all())

    def __hash__(self) -> int:
        return hash((self.wiring, self.kept.tobytes()))

    def __and__(self, other: "Circuit") -> "Circuit":
        return replace(self, kept=self.kept & self._kept_of(other))

    def __or__(self, other: "Circuit") -> "Circuit":
        return replace(self, kept=self.kept | self._kept_of(other))

    def __sub__(self, other: "Circuit") -> "Circuit":
        return replace(self, kept=self.kept & ~self._kept_of(other))

    def __invert__(self) -> "Circuit":
        return replace(self, kept=~self.kept)

    def __le__(self, other: "Circuit") -> bool:
        return not bool((self.kept & ~self._kept_of(other)).any())

    def _kept_of(self, other: "Circuit") -> np.ndarray:
        """The edges of a circuit of the same tower."""
        if not isinstance(other, Circuit) or other.wiring != self.wiring:
            given = f"a {type(other).__name__}, or a circuit of a tower that is wired differently"
            do = "discover both in the same tower"
            raise SpecificationError("compare circuits", given, "two circuits of one tower", do)
        return other.kept

    def jaccard(self, other: "Circuit") -> float:
        """Edges of both as a share of the edges of either.

        Args:
            other: A circuit of the same tower.

        Returns:
            0 (no common edge) to 1 (the same edges); NaN for two empty circuits.

        Raises:
            SpecificationError: For a circuit of a tower that is wired differently.

        Notes:
            What this would be without sharing depends on the sizes: `overlap` gives it a null.
        """
        either = len(self | other)
        return len(self & other) / either if either else float("nan")

    def __contains__(self, name: str) -> bool:
        if name in self.wiring.nodes:
            return name in self.nodes
        return bool(self.kept[self.wiring.edge(name)])

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """The names of the kept edges."""
        return tuple(self.wiring.names[edge] for edge in np.flatnonzero(self.kept))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that a kept edge leaves or enters, in the order of the computation."""
        used = self.node_mask
        return tuple(name for name, here in zip(self.wiring.nodes, used, strict=True) if here)

    @property
    def node_mask(self) -> np.ndarray:
        """Which nodes of the wiring belong to the circuit, `[node]`."""
        used = np.zeros(len(self.wiring.nodes), dtype=bool)
        ends = self.wiring.edges[self.kept]
        used[ends[:, 0]] = True
        used[self.wiring.owners[ends[:, 1]]] = True
        return used

    def without(self, *names: str) -> "Circuit":
        """The circuit without some of its edges or nodes; without names, the complement.

        Args:
            *names: Names of edges, or of nodes, which lose all their edges.

        Returns:
            The rest of the circuit, or every edge that is not in it.

        Raises:
            SiteError: For an edge or node that does not exist.
        """
        if not names:
            return ~self
        wiring, kept = self.wiring, self.kept.copy()
        for name in names:
            if name in wiring.nodes:
                place = wiring.nodes.index(name)
                ends = wiring.edges
                kept &= (ends[:, 0] != place) & (wiring.owners[ends[:, 1]] != place)
            else:
                kept[wiring.edge(name)] = False
        return replace(self, kept=kept)

    def run(self, tower: Tower, *, clean: Tensor, corrupt: Tensor) -> Tensor:
        """Run a tower through this circuit alone: all other edges carry the corrupt run.

        Args:
            tower: The tower that the circuit was found in.
            clean: Inputs, `batch ...`.
            corrupt: Their partners, in the same order.

        Returns:
            Outputs, `batch d_embed`. With every edge kept they are those of the clean run, with
            none those of the corrupt run.

        Raises:
            SpecificationError: For a tower that is wired differently.

        >>> import torch
        >>> from interp.circuits import Chain, wire
        >>> tower = Chain([torch.nn.Linear(1, 1, bias=False)])
        >>> ones, circuit = torch.ones(1, 2, 1), Circuit.of(wire(tower), ["input->logits"])
        >>> alone = circuit.run(tower, clean=ones, corrupt=0 * ones)
        >>> torch.equal(alone, (~circuit).run(tower, clean=0 * ones, corrupt=ones))
        True
        """
        if wire(tower) != self.wiring:
            given, right = "a tower that is wired differently", "the tower it was found in"
            do = "discover a circuit in this tower"
            raise SpecificationError("run a circuit", given, right, do)
        flows = open_pair(tower, clean, corrupt)
        masks = self.kept[None]
        return run_masked(tower, self.wiring, masks, clean=flows[0], corrupt=flows[1])[0]

    def pruned(self) -> "Circuit":
        """The circuit without edges that lie on no path from the input to the output."""
        edges, owners = self.wiring.edges, self.wiring.owners
        ends = owners[edges[:, 1]]
        reached = np.zeros(len(self.wiring.nodes), dtype=bool)
        reaching = reached.copy()
        reached[0], reaching[-1] = True, True
        for edge in np.flatnonzero(self.kept):  # edges come reader by reader: in order
            reached[ends[edge]] |= reached[edges[edge, 0]]
        for edge in np.flatnonzero(self.kept)[::-1]:
            reaching[edges[edge, 0]] |= reaching[ends[edge]]
        return replace(self, kept=self.kept & reached[edges[:, 0]] & reaching[ends])

    def plot(self, *, title: str = "") -> "go.Figure":
        """Draw the kept edges as streams between nodes.

        Args:
            title: The figure's title.

        Returns:
            A `plotly.graph_objects.Figure`, whose nodes can be dragged.
        """
        return self.to_table().plot(title=title)

    # other forms

    def to_table(self) -> Table:
        """A table of every edge of the wiring, with its score and whether it is kept."""
        wiring = self.wiring
        senders, readers = wiring.edges.T
        frame = pd.DataFrame(
            {
                "edge": wiring.names,
                "node": np.asarray(wiring.nodes)[senders],
                "node_b": np.asarray(wiring.nodes)[wiring.owners[readers]],
                "layer": wiring.layers[senders],
                "layer_b": wiring.layers[wiring.owners[readers]],
                "score": self.scores,
                "kept": self.kept,
            }
        )
        return Table("circuit", frame, {**self.facts, "n_edges": len(self)})

    @classmethod
    def from_table(cls, table: Table, wiring: Wiring) -> "Circuit":
        """Read a circuit from the table that `to_table` wrote.

        Args:
            table: The table.
            wiring: The wiring of the same tower.

        Returns:
            The circuit.

        Raises:
            DataError: If the edges are not those of the wiring.
        """
        frame = table.frame
        rows = _in_order(wiring, frame["edge"].tolist(), "a table")
        kept, scores = frame["kept"].to_numpy(bool)[rows], frame["score"].to_numpy(float)[rows]
        return cls(wiring, kept, scores, dict(table.facts))

    def to_mib(self, path: str | Path) -> Path:
        """Write the json of the Mechanistic Interpretability Benchmark (Mueller et al. 2025).

        Args:
            path: The file to write.

        Returns:
            The file's path.

        Raises:
            OutputError: If it cannot be written.
        """
        wiring, target = self.wiring, Path(path)
        used = self.node_mask
        heads = sum(name.startswith("a0.") for name in wiring.writers)
        written = {
            "cfg": {"n_layers": int(wiring.layers[-1]), "n_heads": heads},
            "nodes": {
                name: {"in_graph": bool(here)}
                for name, here in zip(wiring.nodes, used, strict=True)
            },
            "edges": {
                name: {"score": float(score), "in_graph": bool(kept)}
                for name, score, kept in zip(wiring.names, self.scores, self.kept, strict=True)
            },
        }
        try:
            target.write_text(json.dumps(written))
        except OSError as error:
            given = f"{target} ({error})"
            right = "a file in a folder that can be written"
            raise OutputError("write a circuit", given, right, "choose another place") from None
        return target

    @classmethod
    def from_mib(cls, path: str | Path, wiring: Wiring) -> "Circuit":
        """Read a circuit from the json that MIB's tools, or `to_mib`, wrote.

        Args:
            path: The file.
            wiring: The wiring of the tower that the circuit was found in.

        Returns:
            The circuit.

        Raises:
            DataError: If the file cannot be read, or its edges are not those of the wiring.
        """
        try:
            edges = json.loads(Path(path).read_text())["edges"]
            rows = _in_order(wiring, list(edges), str(path))
            found = [list(edges.values())[row] for row in rows]
            kept = np.array([bool(edge["in_graph"]) for edge in found])
            scores = np.array([float(edge["score"]) for edge in found])
        except (OSError, ValueError, KeyError, TypeError) as error:
            given = f"{path} ({type(error).__name__}: {error})"
            right = "MIB's json: edges by name, each with a score and in_graph"
            do = "write it again with to_mib, or with MIB's Graph.to_json"
            raise DataError("read a circuit", given, right, do) from None
        return cls(wiring, kept, scores, {"source": str(path)})

    def to_networkx(self) -> nx.MultiDiGraph:
        """The kept edges as a graph: nodes with their `layer`, edges keyed q, k, v or `in`."""
        graph, wiring = nx.MultiDiGraph(), self.wiring
        for name, layer, here in zip(wiring.nodes, wiring.layers, self.node_mask, strict=True):
            if here:
                graph.add_node(name, layer=int(layer))
        for edge in np.flatnonzero(self.kept):
            sender, reader = wiring.edges[edge]
            node, _, part = wiring.readers[reader].partition("<")
            words = {"score": float(self.scores[edge]), "name": wiring.names[edge]}
            graph.add_edge(wiring.writers[sender], node, key=part.rstrip(">") or "in", **words)
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.MultiDiGraph, wiring: Wiring) -> "Circuit":
        """Read a circuit from a graph that `to_networkx` drew.

        Args:
            graph: The graph; each edge has a `name` and a `score`.
            wiring: The wiring of the same tower.

        Returns:
            The circuit; edges outside it have no score.

        Raises:
            SiteError: For an edge that does not exist.
            SpecificationError: For a graph without edges.
        """
        names = [str(words["name"]) for _, _, words in graph.edges(data=True)]
        circuit = cls.of(wiring, names)
        for _, _, words in graph.edges(data=True):
            circuit.scores[wiring.edge(words["name"])] = words["score"]
        return circuit


def _in_order(wiring: Wiring, names: Sequence[str], source: str) -> list[int]:
    """Where each edge of the wiring stands among names, or an error if they are another tower's."""
    places = {name: number for number, name in enumerate(names)}
    if set(places) != set(wiring.names) or len(names) != wiring.n_edges:
        given = f"{len(names)} edges, of which {len(set(places) & set(wiring.names))} exist here"
        right = f"the {wiring.n_edges} edges of this tower"
        do = "read it with the wiring of the tower that it was found in"
        raise DataError(f"read a circuit from {source}", given, right, do)
    return [places[name] for name in wiring.names]

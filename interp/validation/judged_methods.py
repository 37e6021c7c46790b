"""Anybody's method, judged on planted models: its answers are held against what was planted."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from interp.circuits.planted.vit import Blueprint
from interp.core.errors import SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.limited_work import Failure, time_limited
from interp.core.progress import track
from interp.core.statistics.index_of_sharing import NOT_SHARED, PARTLY, SHARED, UNKNOWN
from interp.core.tables import Table
from interp.validation.planted_ladder import outcome
from interp.validation.puzzles import (
    VERSION,
    CircuitPuzzle,
    circuit_puzzles,
    place_of,
    planted_answers,
    sharing_puzzle,
)
from interp.verdicts.rungs import RUNGS

Method = Callable[[Any], Any]
Rows = list[dict[str, object]]

SHARING = "sharing"
ASKS = (SHARING, "edges", "nodes")
"""What a method may be asked."""

VERDICTS = (SHARED, PARTLY, NOT_SHARED, UNKNOWN)
SHORT = {"partly": PARTLY, "not": NOT_SHARED}
"""Answers that may be said in short."""

FAILED, SCORED = "failed", "scored"
"""What comes of a puzzle where the method fails, or gives a number without a verdict."""

SECONDS = 60.0
"""What a method may take for one model."""


OWN = {
    "condition": "what two domains share in a planted model, in a word",
    "tier": "how hard a planted model is to read",
    "outcome": "what came of an answer: right, wrong, abstained, scored or failed",
    "expected": "the answer that is right",
    "n_true": "how many parts the true circuit has",
    "auroc": "how often a part of the circuit has the larger |score| than one that is none",
}
"""Columns of `judge_method` that no table of a study has."""


@dataclass(frozen=True)
class Answer:
    """What a method says of one rung: a verdict, an index (the larger, the more is shared), or
    both."""

    verdict: str = ""
    index: float = math.nan

    @classmethod
    def read(cls, given: object) -> "Answer":
        """An answer from what a method returns; raises `ValueError` for what is none."""
        if isinstance(given, str):
            verdict = SHORT.get(given, given)
            if verdict not in VERDICTS:
                raise ValueError(f"the answer {given!r}, not one of {', '.join(VERDICTS)}")
            return cls(verdict)
        if isinstance(given, Mapping):
            strange = set(given) - {"verdict", "index"}
            if strange or not given:
                raise ValueError(f"an answer with {sorted(map(str, strange))}, not verdict, index")
            verdict = cls.read(given["verdict"]).verdict if "verdict" in given else ""
            index = cls.read(given["index"]).index if given.get("index") is not None else math.nan
            return cls(verdict, index)
        number = np.asarray(given, dtype=float) if not isinstance(given, bool) else np.zeros(2)
        if number.ndim:
            raise ValueError(f"a {type(given).__name__} of shape {number.shape}, not one answer")
        if not np.isfinite(number):
            raise ValueError(f"the index {float(number)}, not a finite number")
        return cls(index=float(number))


def ask_sharing(method: Method, blueprint: Blueprint) -> Rows:
    """A row for each rung that has an answer in a planted model."""
    right, puzzle = planted_answers(blueprint), sharing_puzzle(blueprint)
    start = time.perf_counter()
    try:
        given = method(puzzle)
        by_rung = isinstance(given, Mapping) and set(given) <= set(RUNGS) and len(given)
        said = {name: Answer.read(given[name]) for name in given} if by_rung else Answer.read(given)
    except Exception as error:  # whatever a stranger's method does
        return failed(blueprint, SHARING, _line(error), time.perf_counter() - start)
    seconds, rows = time.perf_counter() - start, []
    for rung, answer in right.items():
        own = said if isinstance(said, Answer) else said.get(rung)
        if own is None:  # a method need not speak of every rung
            continue
        # who says "unknown" without a number abstains all the same
        came = outcome(answer, own.verdict, 0.0) if own.verdict else SCORED
        row = {"rung": rung, "expected": answer, "verdict": own.verdict, "index": own.index}
        rows.append(place_of(blueprint) | row | {"outcome": came, "reason": "", "seconds": seconds})
    return rows


def ask_circuits(method: Method, blueprint: Blueprint, kind: str) -> Rows:
    """A row for each domain of a planted model, where a circuit is asked for."""
    rows: Rows = []
    for domain, puzzle, inside in circuit_puzzles(blueprint, kind):
        where = place_of(blueprint) | {"domain": domain, "unit": kind}
        sizes = {"n_true": len(inside), "n_units": len(puzzle.parts)}
        start = time.perf_counter()
        try:
            scores = read_scores(method(puzzle), puzzle)
        except Exception as error:  # whatever a stranger's method does
            came = {"outcome": FAILED, "reason": _line(error), "auroc": math.nan}
        else:
            true = np.array([name in inside for name in puzzle.parts])
            auroc = roc_auc_score(true, np.abs(scores))
            came = {"outcome": SCORED, "reason": "", "auroc": float(auroc)}
        rows.append(where | sizes | came | {"seconds": time.perf_counter() - start})
    return rows


def read_scores(given: object, puzzle: CircuitPuzzle) -> np.ndarray:
    """One number for each part; raises `ValueError` for anything else."""
    if isinstance(given, Mapping):
        missing = [name for name in puzzle.parts if name not in given]
        strange = [name for name in given if name not in set(puzzle.parts)]
        if missing or strange:
            raise ValueError(
                f"scores without {len(missing)} of the {len(puzzle.parts)} parts, and with "
                f"{len(strange)} that are none"
            )
        given = [given[name] for name in puzzle.parts]
    scores = np.asarray(given, dtype=float)
    if scores.shape != (len(puzzle.parts),):
        raise ValueError(f"scores of shape {scores.shape}, not ({len(puzzle.parts)},)")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores that are not finite numbers")
    return scores


def failed(blueprint: Blueprint, ask: str, reason: str, seconds: float) -> Rows:
    """The rows of a model of which a method says nothing."""
    row = place_of(blueprint) | {"outcome": FAILED, "reason": reason, "seconds": seconds}
    if ask == SHARING:
        return [
            row | {"rung": rung, "expected": answer, "verdict": "", "index": math.nan}
            for rung, answer in planted_answers(blueprint).items()
        ]
    return [row | {"domain": "", "unit": ask[:-1], "auroc": math.nan}]


def _line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else ''}".rstrip(": ")


def find_method(name: str) -> Method:
    """Import a method by `MODULE:FUNCTION`, from this folder or what is installed.

    Args:
        name: Where it is.

    Returns:
        The function.

    Raises:
        SpecificationError: For a module or a function that is not there.
    """
    module, mark, function = name.partition(":")
    asked = f"judge {name!r}"
    if not mark or not module or not function:
        raise SpecificationError(
            asked, "no MODULE:FUNCTION", "such as my_methods:shared", "name a function of a module"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = resolve_name(name)
    except (ImportError, ValueError) as error:
        given = f"a module that cannot be imported ({error})"
        right = "a module of this folder, or an installed one"
        do = "run the command where the module is, or install it"
        raise SpecificationError(asked, given, right, do) from None
    except AttributeError:
        given = f"a module without {function!r}"
        right = "a function that the module has"
        raise SpecificationError(asked, given, right, "check its name") from None
    if not callable(found):
        raise SpecificationError(
            asked, f"a {type(found).__name__}", "a function", "name a function of the module"
        )
    return found


def _ask(name: str, ask: str, blueprint: Blueprint) -> Rows:
    """One model's rows, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    return _answer_rows(find_method(name), ask, blueprint)


def _answer_rows(method: Method, ask: str, blueprint: Blueprint) -> Rows:
    if ask == SHARING:
        return ask_sharing(method, blueprint)
    return ask_circuits(method, blueprint, ask[:-1])


@door
def judge_method(
    method: str | Method,
    models: Sequence[Blueprint],
    *,
    ask: str = SHARING,
    seconds: float = SECONDS,
    jobs: int = 2,
) -> Table:
    """Judge a method on planted models whose answers are known.

    Args:
        method: `"MODULE:FUNCTION"`, which runs in processes of its own, or a function, which runs
            in this one. For `ask="sharing"` it takes a `SharingPuzzle` and returns "shared",
            "partly shared", "not shared" or "unknown"; or a number, the larger the more is
            shared; or both as `{"verdict": ..., "index": ...}`; or one of these for each rung that
            it speaks of, `{"R3": ..., "R6": ...}`. For edges or nodes it takes a `CircuitPuzzle`
            and returns a score for each of `puzzle.parts`, in order or by name.
        models: What to plant: `interp.validation.blueprints()`.
        ask: "sharing", "edges" or "nodes".
        seconds: What it may take for one model, where it runs in processes of its own.
        jobs: Number of processes.

    Returns:
        A row for each model and rung (or domain): what is right (`expected`), what was said, and
        what came of it. `standing` sums them up. A method that raises, hangs, or returns something
        else is a row with the `reason`, and the rest goes on.

    Raises:
        SpecificationError: For an unknown question, no model, or a method that is not there.

    >>> from interp.validation import blueprints
    >>> models = blueprints([0], conditions=["all shared", "all separate"], tiers=["easy"])
    >>> table = judge_method(lambda puzzle: "shared", models)
    >>> rows = table.frame[table.frame["rung"] == "R6"]
    >>> rows[["condition", "outcome"]].to_numpy().tolist()
    [['all shared', 'right'], ['all separate', 'wrong']]
    """
    check_known("judge a method", "question", [ask], ASKS, SpecificationError)
    if not len(models) or seconds <= 0 or jobs < 1:
        given = f"{len(models)} models, {seconds:g} s and {jobs} processes"
        right = "one model or more, some time, and one process or more"
        raise SpecificationError("judge a method", given, right, "give models = blueprints()")
    rows: Rows = []
    for blueprint, found in track(
        _answers(method, models, ask, seconds, jobs), "judge", len(models)
    ):
        if isinstance(found, Failure):
            found = failed(blueprint, ask, found.reason, seconds)
        rows += found
    name = method if isinstance(method, str) else getattr(method, "__name__", "a function")
    facts = {"method": name, "ask": ask, "benchmark": VERSION, "models": len(models)}
    return Table("judged", pd.DataFrame(rows).assign(method=name), facts, own=OWN)


def _answers(
    method: str | Method, models: Sequence[Blueprint], ask: str, seconds: float, jobs: int
) -> Iterator[tuple[Blueprint, Rows | Failure]]:
    if isinstance(method, str):
        find_method(method)  # what is not there is said before anything runs
        ready = partial(find_method, method)
        return time_limited(
            partial(_ask, method, ask), models, seconds=seconds, jobs=jobs, start=ready
        )
    return ((blueprint, _answer_rows(method, ask, blueprint)) for blueprint in models)

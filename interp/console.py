"""Output of the command line: one JSON object or lines to read, and exit statuses for scripts.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import json
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from interp.core.tables import Table
    from interp.study.compare_results import Difference
    from interp.study.results import Result

SAME, DIFFERS, FAILED, INTERRUPTED = 0, 1, 2, 130

STATUSES = """\b
Exit status:
  0    done (diff: nothing changed beyond noise; audit: no leak)
  1    diff: something changed beyond noise; audit: a leak was found
  2    a mistake in what was asked or given, said in a line or two
  130  interrupted (Ctrl-C); finished steps are kept, run it again to go on"""

Answer: TypeAlias = dict[str, Any]
"""What a command answers, as `--json` prints it."""

Command = TypeVar("Command", bound=Callable[..., Any])


def guarded(command: Command) -> Command:
    """Turn what a command returns into output, and what goes wrong into a line and a status.

    A command returns what `--json` prints; its `exit` there is the status. With `--json`, standard
    output carries that one object and nothing else, whatever libraries and child processes print.
    With `--quiet`, no progress is told.
    """

    @wraps(command)
    def guard(*args: Any, **kwargs: Any) -> None:
        from interp.core.progress import set_quiet

        as_json, start = bool(kwargs.get("as_json")), time.monotonic()
        set_quiet(bool(kwargs.get("quiet")))
        with _apart(as_json) as write:
            answer = _carried_out(command, args, kwargs)
            status = answer.setdefault("exit", SAME)
            if as_json:
                answer = {"command": command.__name__.removesuffix("_command"), **answer}
                answer["seconds"] = round(time.monotonic() - start, 1)
                write(json.dumps(answer, indent=1, default=str, allow_nan=False))
        if status:
            sys.exit(status)

    return cast(Command, guard)


@contextmanager
def in_options(name: str) -> Iterator[None]:
    """Let errors advise an option of the command line where they mean a function's argument.

    >>> from interp.core.errors import CheckpointError
    >>> with in_options("model"):
    ...     raise CheckpointError("load x.pt", "x", "y", 'pass model="RN50", or model= of a folder')
    Traceback (most recent call last):
    ...
    interp.core.errors.CheckpointError: ... Pass --model RN50, or --model of a folder.
    """
    from interp.core.errors import InterpError

    try:
        yield
    except InterpError as error:
        given = re.compile(rf"""\b{name}=(["']?)([^\s"',]*)\1""")
        advice = given.sub(lambda found: f"--{name} {found[2]}".rstrip(), error.do)
        raise type(error)(error.asked, error.given, error.right, advice) from None


def _carried_out(
    command: Callable[..., Any], args: Sequence[object], kwargs: Mapping[str, object]
) -> Answer:
    """What a command returns, or the error as the same kind of thing."""
    try:
        return dict(command(*args, **kwargs) or {})
    except KeyboardInterrupt:
        said = "interrupted; finished steps are kept, run it again to go on"
        print(f"interp-report: {said}", file=sys.stderr)
        return {"error": said, "exit": INTERRUPTED}
    except Exception as error:
        from interp.core.errors import InterpError

        if not isinstance(error, (InterpError, OSError)):
            traceback.print_exc()
        print(f"interp-report: {error}", file=sys.stderr)
        return {"error": str(error), "exit": FAILED}


@contextmanager
def _apart(as_json: bool) -> Iterator[Callable[[str], object]]:
    """With JSON, what is printed to be read is dropped; child processes print to standard error.

    Yields what writes to the true standard output.
    """
    if not as_json:
        yield print
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield lambda text: os.write(kept, f"{text}\n".encode())
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def said_verdicts(result: "Result") -> dict[str, list[Answer]]:
    """The ladder of a result by rung: every model's verdict for every pair of domains and band."""
    if "ladder" not in result.tables:
        return {}
    from interp.verdicts.rungs import PLACE

    frame = result.tables["ladder"].frame
    columns = [*PLACE, "domain_a", "domain_b", "band", "verdict", "index", "index_low"]
    columns = [name for name in [*columns, "index_high", "reason"] if name in frame]
    return {
        str(rung): [records(row) for row in rows[columns].to_dict("records")]
        for rung, rows in frame.groupby("rung")
    }


def records(row: Mapping[Any, object]) -> Answer:
    """A row for JSON, which has no NaN."""
    return {str(name): None if value != value else value for name, value in row.items()}


def typed_command() -> str:
    """The command line that is running."""
    return shlex.join(["interp-report", *sys.argv[1:]])


def build_pages(result: "Result") -> Answer:
    """Build the pages of a result and of its replications, and print where they are.

    The answer has paths, verdicts by rung, and seconds by step.
    """
    from interp.core.progress import say

    pages = []
    for each in (result, *result.replications):
        say("page …")
        pages.append(each.report())
        print(pages[-1])
    return {
        "folder": str(result.folder),
        "pages": [str(path) for path in pages],
        "tables": [str(path) for path in sorted((result.folder / "tables").glob("*.csv"))],
        "verdicts": said_verdicts(result),
        "steps": result.facts.get("seconds", {}),
    }


def standing_in_words(row: Mapping[str, Any]) -> str:
    """How often a judged method was right, and wrong in which way."""
    shares = [
        f"{name.replace('_', ' ')} {row[name]:.0%}"
        for name in ("right", "too_much", "too_little", "unknown")
        if row.get(name, float("nan")) == row.get(name)
    ]
    if row["auroc"] == row["auroc"]:
        shares.append(f"AUROC {row['auroc']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
    shares += [f"failed in {row['failed']}"] if row["failed"] else []
    return ", ".join([f"{row['n_models']} models", *shares])


def tell_difference(found: "Difference", n: int = 8) -> None:
    """A difference as lines to read: facts first, counts by table, the surest changes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for name, one, two in found.facts:
        console.print(f"{escape(name)}: {escape(_short(one))} → {escape(_short(two))}")
    if not found.facts:
        console.print("the same specification, versions and pictures")
    grid = Table(box=None, header_style="bold")
    for column in ("table", *found.counts().columns):
        grid.add_column(column, no_wrap=True)
    for name, row in found.counts().iterrows():
        grid.add_row(escape(str(name)), *(str(number) for number in row))
    console.print(grid)
    for name, why in found.rest.items():
        if why != "the same":
            console.print(escape(f"{name}: {why}"))
    for row in found.largest(n).itertuples():
        if row.p < 1:
            console.print(escape(_line(row)))
    console.print(f"[bold]{'changed beyond noise' if found.changed else 'within noise'}[/bold]")


def tell_stitches(compared: "Mapping[str, Table]") -> None:
    """How far models of two results go on from one another's middle layers, a line for each way."""
    if "stitching" not in compared:
        return
    from interp.core.sites import BAND

    rows = compared["stitching"].frame
    rows = rows[(rows["measure"] == "stitched") & (rows["label"] == "")]
    rows = rows[rows["depth"].between(*BAND) & rows["index"].notna()]
    for (setting, way), own in rows.groupby(["setting", "way"], sort=False):
        low, high = own["index"].min(), own["index"].max()
        print(f"{setting}: {way}: {low:.2f} to {high:.2f} of its own in the middle layers")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _line(row: Any) -> str:
    return (
        f"{row.change}: {row.table} {row.quantity} {row.value_a:.3g} → {row.value_b:.3g} "
        f"({row.value:+.3g} [{row.low:.3g}, {row.high:.3g}], adjusted p {row.p_adjusted:.2g}, "
        f"{row.method}): {row.place}"
    )

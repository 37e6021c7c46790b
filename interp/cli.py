"""The command `interp-report`: make studies, and page, compare, judge and export results.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.console import (
    DIFFERS,
    Answer,
    build_pages,
    records,
    standing_in_words,
    tell_difference,
    tell_stitches,
    typed_command,
)
from interp.study_commands import OUT, Jobs, Json, Out, Quiet, app, command


def _version(asked: bool | None) -> None:
    if asked:
        from importlib.metadata import version

        print(f"interp-report {version('interp')}")
        raise typer.Exit()


@app.callback()
def without_command(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = None,
) -> None:
    """Train CLIPs on mixtures of domains, open them, and find out what the domains share.

    Without a command, or with options of `run` alone: the embedded study, in twelve to twenty
    minutes, to one offline page.

    \b
    Examples:
      interp-report                                  the embedded study
      interp-report run STUDY.toml --dry-run         what a study of yours would cost
      interp-report run --checkpoint X --images DIR  one model, without training
      interp-report diff A B                         what changed between two results
    """


@command("page")
def page_command(out: Out = OUT, quiet: Quiet = False, as_json: Json = False) -> Answer:
    """Build the page of a finished study again, from its tables alone.

    \b
    Example:
      interp-report page --out results
    """
    from interp.study.results import open_result

    return build_pages(open_result(out))


@command("diff")
def diff_command(
    a: Annotated[Path, typer.Argument(help="Folder of one result.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table of all rows, and for finished pairs.")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="File for a page of both results.")] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Compare the models too: similarity and stitches.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> Answer:
    """Say what changed from result A to result B, beyond noise; status 1 where something did.

    Facts first (specification, versions, pictures), then every row that both have: the difference
    of value and index with an interval, paired by class where classes are kept, over blocks where
    both have several and none in common (two halves of a study), Holm's adjustment
    within each table. Other architectures are compared by naming their folders. With --models, the
    models themselves are compared where both results have one of a setting, test domain and seed;
    with --out too, every finished pair is kept there, and the same command goes on from it.

    \b
    Examples:
      interp-report diff results results-again
      interp-report diff results/vit-small again/vit-small --out changes --json
      interp-report diff monday tuesday --models --page monday-tuesday.html
    """
    from interp.study.compare_results import compare_results

    found = compare_results(a, b)
    compared = {}
    if models:
        from interp.study.compare_models import models_compared

        compared = models_compared(a, b, steps=out / "steps" if out else None)
    path = found.table.save(out) if out else None
    if out:
        for table in compared.values():
            table.save(out)
    if page:
        from interp.report.difference_page import build_difference_page

        build_difference_page(
            *(a, b, found.table), facts=found.facts, rest=found.rest, models=compared, out=page
        )
    tell_difference(found)
    tell_stitches(compared)
    return {
        "changed": found.changed,
        "facts": [dict(zip(("name", "a", "b"), each, strict=True)) for each in found.facts],
        "tables": {str(name): row for name, row in found.counts().to_dict("index").items()},
        "not_compared": dict(found.rest),
        "largest": [records(row) for row in found.largest().to_dict("records")],
        "table": str(path) if path else None,
        "page": str(page) if page else None,
        "exit": DIFFERS if found.changed else 0,
    }


@command("judge")
def judge_command(
    method: Annotated[str, typer.Argument(help="MODULE:FUNCTION, of this folder or installed.")],
    ask: Annotated[str, typer.Option(help="sharing, edges or nodes.")] = "sharing",
    seeds: Annotated[
        str, typer.Option(help="FIRST-LAST; 0-19 are to try things on.")
    ] = "1000-1029",
    condition: Annotated[
        list[str] | None, typer.Option(help="Only this condition; may be repeated.")
    ] = None,
    tier: Annotated[
        list[str] | None, typer.Option(help="Only this tier (easy, hard, steep); repeatable.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="What the method may take for one model.")
    ] = 60,
    write: Annotated[
        Path | None, typer.Option(help="Write the models to this folder too, for other tools.")
    ] = None,
    out: Out = Path("interp-judged"),
    jobs: Jobs = 2,
    quiet: Quiet = False,
    as_json: Json = False,
) -> Answer:
    """Judge a method of yours on planted models, where it is known what two domains share.

    The function takes a puzzle (tower, pictures of two domains, classes) and says "shared",
    "partly shared", "not shared" or "unknown", or gives a number; or it scores edges or nodes.
    Tables and one page are written. docs/judging_methods.md says what is asked.

    \b
    Examples:
      interp-report judge my_methods:shared --seeds 0-1
      interp-report judge my_methods:scores --ask edges --seeds 1000-1004
      interp-report judge my_methods:shared --tier easy
    """
    from interp.core.arguments import numbers_from
    from interp.core.errors import DataError
    from interp.report.judged_page import build_judged_page
    from interp.validation import blueprints, judge_method, standing, write_benchmark
    from interp.validation.judged_methods import FAILED

    chosen: dict[str, Any] = {"conditions": condition, "tiers": tier}
    models = blueprints(
        numbers_from(seeds, "seeds"), **{name: given for name, given in chosen.items() if given}
    )
    judged = judge_method(method, models, ask=ask, seconds=seconds, jobs=jobs)
    overall = standing(judged)
    by_kind = standing(judged, by=["condition", "tier"])
    tables = [table.save(out) for table in (judged, overall)]
    page = build_judged_page(
        judged, overall, by_kind, out=out / "judged.html", command=typed_command()
    )
    folders = write_benchmark(write, models) if write else []
    for row in overall.frame.to_dict("records"):
        name = row.get("rung") or f"{row['unit']}s"
        print(f"{name:6} {standing_in_words(row)}")
    failed = judged.frame[judged.frame["reason"].fillna("") != ""]
    for reason, n in failed["reason"].value_counts().head(3).items():
        print(f"failed {n} times: {reason}")
    print(page)
    if (judged.frame["outcome"] == FAILED).all():
        raise DataError(
            f"judge {method}",
            f"a method that failed on every model ({failed['reason'].iloc[0]})",
            "an answer, if only that it is unknown",
            "mend it, and try it with --seeds 0-0",
        )
    return {
        "standing": [records(row) for row in overall.frame.to_dict("records")],
        "tables": [str(path) for path in tables],
        "page": str(page),
        "written": len(folders),
    }


@command("export")
def export_command(
    result: Annotated[Path, typer.Argument(help="Folder of a finished result.")] = OUT,
    to: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("interp-export"),
    what: Annotated[
        str, typer.Option(help="Formats: csv, html, png, svg, mib, with commas between.")
    ] = "csv,html",
    figure: Annotated[
        list[str] | None, typer.Option(help="Only this figure of the page; may be repeated.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> Answer:
    """Write a result for other tools: tables, figures, circuits.

    csv: every table, and what its columns mean. html: interactive figures, readable offline.
    png, svg: pictures (pip install kaleido, and Chrome or Chromium). mib: circuits of edges
    as the Mechanistic Interpretability Benchmark reads them.

    \b
    Examples:
      interp-report export results --to shared --what csv,svg
      interp-report export results --what png --figure answer
    """
    from interp.study.export import export as write

    formats = [name.strip() for name in what.split(",") if name.strip()]
    found = write(result, to, formats, figures=figure or ())
    for name, paths in found.items():
        print(f"{len(paths)} files  {to / name}")
    return {"files": {name: [str(path) for path in paths] for name, paths in found.items()}}


@command("clean")
def clean_command(
    yes: Annotated[bool, typer.Option("--yes", help="Empty it; without, only show it.")] = False,
    as_json: Json = False,
) -> Answer:
    """Show what lies in the cache of rendered pictures, and empty it with --yes.

    \b
    Example:
      interp-report clean --yes
    """
    import shutil

    from interp.core.storage.store import cache_folder

    root = cache_folder()
    folders = sorted(path for path in root.glob("*") if path.is_dir()) if root.is_dir() else []
    sizes = {}
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        sizes[str(folder)] = size
        print(f"{size / 2**20:8.1f} MiB  {folder}")
        if yes:
            shutil.rmtree(folder)
    print(f"{len(folders)} folders {'removed from' if yes else 'in'} {root}")
    return {"cache": str(root), "bytes": sizes, "removed": yes}


OWN = ("-h", "--help", "--version", "--install-completion", "--show-completion")
"""Options of the program itself."""


def main() -> None:
    """The command line; without a command it is `run`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    first = "".join(sys.argv[1:2])
    if not first or (first.startswith("-") and first.partition("=")[0] not in OWN):
        sys.argv.insert(1, "run")
    app(prog_name="interp-report")


if __name__ == "__main__":
    main()

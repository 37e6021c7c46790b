"""The command `interp-report`: run studies and grids, audit, compare and export results.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

import shlex
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.console import (
    DIFFERS,
    STATUSES,
    described,
    guarded,
    in_options,
    records,
    tell_difference,
    tell_stitches,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.training.train import Run
    from interp.study.results import Result

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=STATUSES,
)

Out = Annotated[Path, typer.Option(help="Folder for results and the page.")]
Jobs = Annotated[int, typer.Option(min=1, help="Models trained or measured side by side.")]
Tables = Annotated[
    Path | None,
    typer.Option(help="Keep finished runs' tables here, and go on from those that are there."),
]
Blocks = Annotated[
    str | None, typer.Option(help="Only these of the study's blocks: FIRST-LAST, from 0.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, …; by default what there is.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Seed = Annotated[int | None, typer.Option(help="Seed of models and resampling.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Open what is asked for, say the cost and stop.")
]

OUT = Path("interp-report")


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


@app.command("run", epilog=STATUSES)
@guarded
def run_command(
    study: Annotated[
        Path | None,
        typer.Argument(help="STUDY.toml; default: the embedded study.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="One model, without training: a file, open_clip name, hf-hub:…, local-dir:…, "
            "timm:… or torchvision:…."
        ),
    ] = "",
    images: Annotated[str, typer.Option(help="domain/class/*.jpg for --checkpoint.")] = "",
    model: Annotated[
        str, typer.Option(help="Architecture of --checkpoint, where its run does not say.")
    ] = "",
    domains: Annotated[
        str, typer.Option(help="NATURAL,OTHER: the two domains that --checkpoint is asked about.")
    ] = "",
    out: Out = OUT,
    jobs: Jobs = 2,
    device: Device = "",
    seed: Seed = None,
    tables: Tables = None,
    blocks: Blocks = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Carry out a study, or examine one model. Finished steps are taken from the last run.

    \b
    Examples:
      interp-report run STUDY.toml --out results
      interp-report run --checkpoint epoch_32.pt --images PACS --domains photo,sketch
      interp-report run STUDY.toml --tables finished
      interp-report run STUDY.toml --dry-run --json
    """
    from interp.core.errors import SpecificationError
    from interp.core.parallel import which_device
    from interp.core.progress import say, set_quiet

    set_quiet(quiet)
    if bool(checkpoint) != bool(images) or (checkpoint and (study or blocks or tables)):
        raise SpecificationError(
            "run",
            "half of --checkpoint and --images, or what is of a study as well",
            "STUDY.toml alone, or --checkpoint with --images",
            "give both options, or neither",
        )
    command = shlex.join(["interp-report", *sys.argv[1:]])
    if checkpoint:
        pair = [name.strip() for name in domains.split(",") if name.strip()]
        with in_options("model"):
            if dry_run:
                from interp.study.forecasting import cost_of_model

                asked: dict[str, Any] = {"architecture": model or None, "domains": pair}
                return _told(
                    cost_of_model(checkpoint, images, device=which_device(device), **asked)
                )
            from interp.study.studies import examine

            result = examine(
                checkpoint,
                images,
                out,
                architecture=model or None,
                domains=pair,
                seed=seed or 0,
                device=device or None,
                command=command,
            )
        return _pages(result)
    from interp.study.forecasting import cost_of_study
    from interp.study.studies import Study

    numbers = _numbers(blocks)
    chosen = Study.from_toml(study) if study else Study()
    if seed is not None:
        chosen = Study(chosen.specification.with_seed(seed))
    which_device(device)
    if dry_run:
        return _rehearsed(chosen.specification, jobs, numbers)
    say(cost_of_study(chosen.specification, jobs=jobs, blocks=numbers).text)
    made = chosen.run(
        out, jobs=jobs, device=device or None, command=command, tables=tables, blocks=numbers
    )
    return _pages(made)


def _numbers(blocks: str | None) -> range | None:
    """The blocks that were asked for."""
    from interp.core.arguments import numbers_from

    return None if blocks is None else numbers_from(blocks, "blocks")


def _rehearsed(
    specification: Any, jobs: int, blocks: range | None, *, measuring: bool = True
) -> dict[str, Any]:
    """The cost of a study that is rehearsed: whatever it would refuse is refused now."""
    from interp.study.forecasting import cost_of_study
    from interp.study.rehearsal import rehearse

    asked: dict[str, Any] = {"jobs": jobs, "measuring": measuring, "blocks": blocks}
    runs = rehearse(specification, **asked)
    return _told(cost_of_study(specification, runs=runs, **asked))


def _told(cost: Any) -> dict[str, Any]:
    """A cost that was asked for: said on standard output, as what was asked."""
    print(cost.text)
    return {"cost": cost.as_dict()}


def _pages(result: "Result") -> dict[str, Any]:
    """Build the pages of a result and of its replications, and print where they are."""
    from interp.core.progress import say

    pages = []
    for each in (result, *result.replications):
        say("page …")
        pages.append(each.report())
        print(pages[-1])
    return described(result, pages)


@app.command("grid", epilog=STATUSES)
@guarded
def grid_command(
    study: Annotated[Path, typer.Argument(help="STUDY.toml: settings x domains x blocks.")],
    out: Out = OUT,
    jobs: Jobs = 2,
    device: Device = "",
    dry_run: DryRun = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print a command per unfinished run.")
    ] = False,
    submit: Annotated[
        str, typer.Option(help="Hand unfinished runs to slurm, or to local, through submitit.")
    ] = "",
    tabulate: Annotated[
        bool, typer.Option("--tabulate", help="Train nothing: tabulate a grid made elsewhere.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes, or GPUs, per run.")] = 1,
    partition: Annotated[str, typer.Option(help="Partition of the cluster.")] = "",
    minutes: Annotated[int, typer.Option(min=1, help="Time limit of a submitted run.")] = 720,
    tables: Tables = None,
    blocks: Blocks = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Make the models of a study, go on with what is there, and tabulate their accuracy.

    \b
    Examples:
      interp-report grid STUDY.toml --out grid
      interp-report grid STUDY.toml --commands > runs.sh
      interp-report grid STUDY.toml --submit slurm --partition gpu --processes 4
      interp-report grid STUDY.toml --tabulate
      interp-report grid STUDY.toml --tables finished
    """
    from interp.core.errors import SpecificationError, listed
    from interp.core.progress import say, set_quiet
    from interp.study.forecasting import cost_of_study
    from interp.study.grids import Grid
    from interp.study.studies import Study

    set_quiet(quiet)
    given = {"--commands": commands, "--submit": submit, "--tabulate": tabulate}
    ways = [name for name, is_given in given.items() if is_given]
    if len(ways) > 1 or (processes > 1 and not (commands or submit)):
        raise SpecificationError(
            "make a grid",
            listed(ways) if len(ways) > 1 else f"--processes {processes} without either",
            "one of --commands, --submit and --tabulate, and --processes with the first two",
            "leave one option out",
        )
    numbers = _numbers(blocks)
    chosen = Grid.from_toml(study)
    if dry_run:
        return _rehearsed(chosen.specification, jobs, numbers, measuring=False)
    say(cost_of_study(chosen.specification, jobs=jobs, measuring=False, blocks=numbers).text)
    if commands or submit:
        runs = chosen.runs(out / "steps", jobs=jobs, blocks=numbers)
        options = {"device": device or "cuda", "processes": processes}
        limits = {"timeout_min": minutes, **({"slurm_partition": partition} if partition else {})}
        return _hand_out(runs, out, submit, options, limits)
    command = shlex.join(["interp-report", *sys.argv[1:]])
    result = Study(chosen.specification).grid(
        out,
        jobs=jobs,
        device=device or None,
        command=command,
        training=not tabulate,
        tables=tables,
        blocks=numbers,
    )
    return _pages(result)


def _hand_out(
    runs: "Sequence[Run]", out: Path, where: str, options: dict[str, Any], limits: dict[str, Any]
) -> dict[str, Any]:
    """Submit runs to a cluster, or, where none is named, print their commands."""
    from interp.study.machines.cluster import commands, submit

    if not where:
        lines = commands(runs, **options)
        print("\n".join(lines))
        return {"commands": list(lines)}
    if options["device"].startswith("cuda"):
        limits["gpus_per_node"] = options["processes"]
    made = submit(runs, out, cluster=where, **options, **limits)
    print(
        f"{len(made)} runs submitted; when they are finished, run this again with --tabulate "
        "instead of --submit"
    )
    return {"submitted": len(made)}


@app.command("audit", epilog=STATUSES)
@guarded
def audit_command(
    study: Annotated[Path, typer.Argument(help="STUDY.toml, whose mixtures are looked at.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the table of findings.")] = None,
    jobs: Jobs = 2,
    quiet: Quiet = False,
    as_json: Json = False,
) -> dict[str, Any]:
    """Look for leaks in a study's mixtures before it is trained; status 1 where there are some.

    Writes nothing but, with --out, the table of all findings.

    \b
    Examples:
      interp-report audit STUDY.toml
      interp-report audit STUDY.toml --out audit
    """
    from interp.core.progress import set_quiet
    from interp.core.tables import Table
    from interp.study.grid_tables import audit_cells
    from interp.study.grids import Grid

    set_quiet(quiet)
    with TemporaryDirectory() as scratch:
        found = audit_cells(Grid.from_toml(study).plan(Path(scratch), jobs=jobs), jobs=jobs)
    written = {"table": str(Table("audit", found).save(out / "tables"))} if out else {}
    ok = bool(found["ok"].all())
    return {**written, "ok": ok, "findings": len(found), "exit": 0 if ok else DIFFERS}


@app.command("page", epilog=STATUSES)
@guarded
def page_command(out: Out = OUT, quiet: Quiet = False, as_json: Json = False) -> dict[str, Any]:
    """Build the page of a finished study again, from its tables alone.

    \b
    Example:
      interp-report page --out results
    """
    from interp.core.progress import set_quiet
    from interp.study.results import open_result

    set_quiet(quiet)
    return _pages(open_result(out))


@app.command("diff", epilog=STATUSES)
@guarded
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
) -> dict[str, Any]:
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
    from interp.core.progress import set_quiet
    from interp.study.comparing.row_by_row import compare_results

    set_quiet(quiet)
    found = compare_results(a, b)
    compared = {}
    if models:
        from interp.study.comparing.models_of_results import models_compared

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


@app.command("judge", epilog=STATUSES)
@guarded
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
) -> dict[str, Any]:
    """Judge a method of yours on planted models, where it is known what two domains share.

    The function takes a puzzle (tower, pictures of two domains, classes) and says "shared",
    "partly shared", "not shared" or "cannot tell", or gives a number; or it scores edges or nodes.
    Tables and one page are written. docs/judging_methods.md says what is asked.

    \b
    Examples:
      interp-report judge my_methods:shared --seeds 0-1
      interp-report judge my_methods:scores --ask edges --seeds 1000-1004
      interp-report judge interp.validation.contenders:cka --tier easy
    """
    from interp.core.arguments import numbers_from
    from interp.core.errors import DataError
    from interp.core.progress import set_quiet
    from interp.report.on_truth.judged_page import build_judged_page
    from interp.validation import blueprints, judge_method, standing, write_benchmark
    from interp.validation.judged_methods import FAILED

    set_quiet(quiet)
    chosen: dict[str, Any] = {"conditions": condition, "tiers": tier}
    models = blueprints(
        numbers_from(seeds, "seeds"), **{name: given for name, given in chosen.items() if given}
    )
    judged = judge_method(method, models, ask=ask, seconds=seconds, jobs=jobs)
    overall = standing(judged)
    by_kind = standing(judged, by=["condition", "tier"])
    tables = [table.save(out) for table in (judged, overall)]
    page = build_judged_page(
        judged,
        overall,
        by_kind,
        out=out / "judged.html",
        command=shlex.join(["interp-report", *sys.argv[1:]]),
    )
    folders = write_benchmark(write, models) if write else []
    for row in overall.frame.to_dict("records"):
        name = row.get("rung") or f"{row['unit']}s"
        print(f"{name:6} {_standing_in_words(row)}")
    failed = judged.frame[judged.frame["reason"].fillna("") != ""]
    for reason, n in failed["reason"].value_counts().head(3).items():
        print(f"failed {n} times: {reason}")
    print(page)
    if (judged.frame["outcome"] == FAILED).all():
        raise DataError(
            f"judge {method}",
            f"a method that failed on every model ({failed['reason'].iloc[0]})",
            "an answer, if only that it cannot tell",
            "mend it, and try it with --seeds 0-0",
        )
    return {
        "standing": [records(row) for row in overall.frame.to_dict("records")],
        "tables": [str(path) for path in tables],
        "page": str(page),
        "written": len(folders),
    }


def _standing_in_words(row: dict[str, Any]) -> str:
    shares = [
        f"{words} {row[name]:.0%}"
        for name, words in (
            ("right", "right"),
            ("too_much", "too much"),
            ("too_little", "too little"),
            ("cannot_tell", "cannot tell"),
        )
        if row.get(name, float("nan")) == row.get(name)
    ]
    if row["auroc"] == row["auroc"]:
        shares.append(f"AUROC {row['auroc']:.2f} ({row['low']:.2f} to {row['high']:.2f})")
    shares += [f"failed in {row['failed']}"] if row["failed"] else []
    return ", ".join([f"{row['n_models']} models", *shares])


@app.command("export", epilog=STATUSES)
@guarded
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
) -> dict[str, Any]:
    """Write a result for other tools: tables, figures, circuits.

    csv: every table, and what its columns mean. html: interactive figures, readable offline.
    png, svg: pictures (pip install kaleido, and Chrome or Chromium). mib: circuits of edges
    as the Mechanistic Interpretability Benchmark reads them.

    \b
    Examples:
      interp-report export results --to shared --what csv,svg
      interp-report export results --what png --figure answer
    """
    from interp.core.progress import set_quiet
    from interp.study.formats import export as write

    set_quiet(quiet)
    formats = [name.strip() for name in what.split(",") if name.strip()]
    found = write(result, to, formats, figures=figure or ())
    for name, paths in found.items():
        print(f"{len(paths)} files  {to / name}")
    return {"files": {name: [str(path) for path in paths] for name, paths in found.items()}}


@app.command("clean", epilog=STATUSES)
@guarded
def clean_command(
    yes: Annotated[bool, typer.Option("--yes", help="Empty it; without, only show it.")] = False,
    as_json: Json = False,
) -> dict[str, Any]:
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
    signal.signal(signal.SIGTERM, _interrupt)
    first = "".join(sys.argv[1:2])
    if not first or (first.startswith("-") and first.partition("=")[0] not in OWN):
        sys.argv.insert(1, "run")
    app(prog_name="interp-report")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

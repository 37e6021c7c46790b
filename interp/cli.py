"""`interp-report`: from a bare machine to an answer that a person can read.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

import shlex
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.training import Run
    from interp.result import Result

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train CLIPs on controlled mixtures of domains, open them, and find out whether the same "
    "representations and circuits serve all domains. Without a command: the embedded study.",
)

Command = TypeVar("Command", bound=Callable[..., None])


def guarded(command: Command) -> Command:
    """Turn what goes wrong into a line or two: status 2 for our errors, 130 for Ctrl-C."""

    @wraps(command)
    def guard(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            print(
                "interp-report: interrupted; finished steps are kept, run it again to go on",
                file=sys.stderr,
            )
            sys.exit(130)
        except Exception as error:
            from interp.core.errors import InterpError

            if not isinstance(error, InterpError):
                raise
            print(f"interp-report: {error}", file=sys.stderr)
            sys.exit(2)

    return cast(Command, guard)


Out = Annotated[Path, typer.Option(help="Folder for results and the page.")]
Jobs = Annotated[int, typer.Option(min=1, help="Models trained or measured side by side.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, …; by default what there is.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Seed = Annotated[int | None, typer.Option(help="Seed of models and resampling.")]

OUT = Path("interp-report")


@app.callback(invoke_without_command=True)
def without_command(context: typer.Context) -> None:
    """Run the embedded study when no command is named."""
    if context.invoked_subcommand is None:
        run(None)


@app.command()
@guarded
def run(
    study: Annotated[
        Path | None,
        typer.Argument(help="STUDY.toml; default: the embedded study.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="One model, without training: a checkpoint, "
            "open_clip name, hf-hub:… or local-dir:…."
        ),
    ] = "",
    images: Annotated[
        str, typer.Option(help="Folder of domain/class/*.jpg for --checkpoint.")
    ] = "",
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the cost and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a study, or examine one model; finished steps are taken from the last run."""
    from interp.core.errors import SpecificationError
    from interp.core.parallel import which_device
    from interp.core.progress import say, set_quiet

    set_quiet(quiet)
    if bool(checkpoint) != bool(images) or (checkpoint and study):
        raise SpecificationError(
            "run",
            "half of --checkpoint and --images, or a study as well",
            "STUDY.toml alone, or --checkpoint with --images",
            "give both options, or neither",
        )
    command = shlex.join(["interp-report", *sys.argv[1:]])
    if checkpoint:
        from interp.study import examine

        pair = [name.strip() for name in domains.split(",") if name.strip()]
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
    else:
        from interp.study import Study

        chosen = Study.from_toml(study) if study else Study()
        if seed is not None:
            chosen = Study(chosen.specification.with_seed(seed))
        say(chosen.cost())
        which_device(device)
        if dry_run:
            return
        result = chosen.run(out, jobs=jobs, device=device or None, command=command)
    _pages(result)


def _pages(result: "Result") -> None:
    """Build the pages of a result and of its replications, and print where they are."""
    from interp.core.progress import say

    for each in (result, *result.replications):
        say("page …")
        print(each.report())


@app.command()
@guarded
def grid(
    study: Annotated[Path, typer.Argument(help="STUDY.toml: settings x domains x blocks.")],
    out: Out = OUT,
    jobs: Jobs = 2,
    device: Device = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say the cost and stop.")] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print a torchrun command per unfinished run.")
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
    quiet: Quiet = False,
) -> None:
    """Make the models of a study, go on with what is there, and tabulate their accuracy."""
    from interp.core.errors import SpecificationError, listed
    from interp.core.progress import say, set_quiet
    from interp.grid import Grid
    from interp.study import Study

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
    chosen = Grid.from_toml(study)
    say(chosen.cost())
    if dry_run:
        return
    if commands or submit:
        runs = chosen.runs(out / "steps", jobs=jobs)
        options = {"device": device or "cuda", "processes": processes}
        limits = {"timeout_min": minutes, **({"slurm_partition": partition} if partition else {})}
        _hand_out(runs, out, submit, options, limits)
        return
    command = shlex.join(["interp-report", *sys.argv[1:]])
    result = Study(chosen.specification).grid(
        out, jobs=jobs, device=device or None, command=command, training=not tabulate
    )
    _pages(result)


def _hand_out(
    runs: "Sequence[Run]",
    out: Path,
    where: str,
    options: dict[str, Any],
    limits: dict[str, Any],
) -> None:
    """Submit runs to a cluster, or, where none is named, print their commands."""
    from interp.cluster import commands, submit

    if not where:
        print("\n".join(commands(runs, **options)))
        return
    if options["device"].startswith("cuda"):
        limits["gpus_per_node"] = options["processes"]
    made = submit(runs, out, cluster=where, **options, **limits)
    print(
        f"{len(made)} runs submitted; when they are finished, run this again with --tabulate "
        "instead of --submit"
    )


@app.command()
@guarded
def audit(
    study: Annotated[Path, typer.Argument(help="STUDY.toml, whose mixtures are looked at.")],
    out: Out = OUT,
    jobs: Jobs = 2,
    quiet: Quiet = False,
) -> None:
    """Look for leaks in a study's mixtures before it is trained; status 1 where there are some."""
    from interp.auditing import audit_cells
    from interp.core.progress import set_quiet
    from interp.core.tables import Table
    from interp.grid import Grid

    set_quiet(quiet)
    found = audit_cells(Grid.from_toml(study).plan(out / "steps", jobs=jobs), jobs=jobs)
    Table("audit", found).save(out / "tables")
    if not found["ok"].astype(bool).all():
        sys.exit(1)


@app.command()
@guarded
def page(out: Out = OUT) -> None:
    """Build the page again from the tables of a finished study."""
    from interp.core.errors import DataError
    from interp.result import Result

    if not (out / "facts.json").is_file():
        raise DataError(
            f"build a page from {out}",
            "a folder without a finished study",
            "a folder that `interp-report run` has filled",
            "run the study first",
        )
    print(Result(out).report())


@app.command()
@guarded
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Empty it; without, only show it.")] = False,
) -> None:
    """Show what lies in the cache of rendered pictures, and empty it with --yes."""
    import shutil

    from interp.core.store import cache_folder

    root = cache_folder()
    folders = sorted(path for path in root.glob("*") if path.is_dir()) if root.is_dir() else []
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size / 2**20:8.1f} MiB  {folder}")
        if yes:
            shutil.rmtree(folder)
    print(f"{len(folders)} folders {'removed from' if yes else 'in'} {root}")


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

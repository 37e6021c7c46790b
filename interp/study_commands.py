"""The commands that make studies: `run`, `grid` and `audit`, and the options they share.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.console import (
    DIFFERS,
    STATUSES,
    Answer,
    Command,
    build_pages,
    guarded,
    in_options,
    typed_command,
)

if TYPE_CHECKING:
    from interp.study.cost import Cost
    from interp.study.specification import Specification

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
    typer.Option(help="Make the result from this file (archive.zip of a run), without training."),
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


def command(name: str) -> Callable[[Command], Command]:
    """A command of the program, whose answer and errors are told as all commands tell theirs."""
    return lambda function: app.command(name, epilog=STATUSES)(guarded(function))


@command("run")
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
) -> Answer:
    """Carry out a study, or examine one model. Finished steps are taken from the last run.

    \b
    Examples:
      interp-report run STUDY.toml --out results
      interp-report run --checkpoint epoch_32.pt --images PACS --domains photo,sketch
      interp-report run STUDY.toml --tables archive.zip --out again
      interp-report run STUDY.toml --dry-run --json
    """
    from interp.core.arguments import numbers_from
    from interp.core.errors import SpecificationError
    from interp.core.parallel import which_device
    from interp.core.progress import say

    if bool(checkpoint) != bool(images) or (checkpoint and (study or blocks or tables)):
        given = "half of --checkpoint and --images, or what is of a study as well"
        right = "STUDY.toml alone, or --checkpoint with --images"
        raise SpecificationError("run", given, right, "give both options, or neither")
    which_device(device)
    if checkpoint:
        pair = [name.strip() for name in domains.split(",") if name.strip()]
        options: dict[str, Any] = {"architecture": model or None, "domains": pair}
        with in_options("model"):
            if dry_run:
                from interp.study.cost import cost_of_model

                cost = cost_of_model(checkpoint, images, device=which_device(device), **options)
                return _cost(cost)
            from interp.study.examine import examine

            options |= {"seed": seed or 0, "device": device or None, "command": typed_command()}
            return build_pages(examine(checkpoint, images, out, **options))
    from interp.study.cost import cost_of_study
    from interp.study.study import Study

    chosen = Study.from_toml(study) if study else Study()
    if seed is not None:
        chosen = Study(chosen.specification.with_seed(seed))
    numbers = None if blocks is None else numbers_from(blocks, "blocks")
    options = {"jobs": jobs, "blocks": numbers}
    if dry_run:
        return _rehearsal(chosen.specification, **options)
    if not tables:
        say(cost_of_study(chosen.specification, **options).text)
    options |= {"device": device or None, "command": typed_command(), "tables": tables}
    return build_pages(chosen.run(out, **options))


def _rehearsal(specification: "Specification", **options: Any) -> Answer:
    """The cost of a study that is rehearsed: whatever it would refuse is refused now."""
    from interp.study.cost import cost_of_study, rehearse

    runs = rehearse(specification, **options)
    return _cost(cost_of_study(specification, runs=runs, **options))


def _cost(cost: "Cost") -> Answer:
    """A cost, printed on standard output as the answer."""
    print(cost.text)
    return {"cost": asdict(cost)}


@command("grid")
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
) -> Answer:
    """Make the models of a study, go on with what is there, and tabulate their accuracy.

    \b
    Examples:
      interp-report grid STUDY.toml --out grid
      interp-report grid STUDY.toml --commands > runs.sh
      interp-report grid STUDY.toml --submit slurm --partition gpu --processes 4
      interp-report grid STUDY.toml --tabulate
      interp-report grid STUDY.toml --tables archive.zip --out again
    """
    from interp.core.arguments import numbers_from
    from interp.core.errors import SpecificationError, listed
    from interp.core.progress import say
    from interp.study.cost import cost_of_study
    from interp.study.grid import Grid
    from interp.study.study import Study

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
    numbers = None if blocks is None else numbers_from(blocks, "blocks")
    options: dict[str, Any] = {"jobs": jobs, "blocks": numbers}
    if dry_run:
        return _rehearsal(chosen.specification, measuring=False, **options)
    if not tables:
        say(cost_of_study(chosen.specification, measuring=False, **options).text)
    if not (commands or submit):
        options |= {"device": device or None, "command": typed_command(), "tables": tables}
        result = Study(chosen.specification).grid(out, training=not tabulate, **options)
        return build_pages(result)
    from interp.study import grid

    runs, where = chosen.runs(out / "steps", **options), device or "cuda"
    if commands:
        lines = grid.commands(runs, device=where, processes=processes)
        print("\n".join(lines))
        return {"commands": lines}
    limits: dict[str, Any] = {"timeout_min": minutes}
    limits |= {"slurm_partition": partition} if partition else {}
    limits |= {"gpus_per_node": processes} if where.startswith("cuda") else {}
    jobs_there = grid.submit(runs, out, cluster=submit, device=where, processes=processes, **limits)
    print(
        f"{len(jobs_there)} runs submitted; when they are finished, run this again with "
        "--tabulate instead of --submit"
    )
    return {"submitted": len(jobs_there)}


@command("audit")
def audit_command(
    study: Annotated[Path, typer.Argument(help="STUDY.toml, whose mixtures are looked at.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the table of findings.")] = None,
    jobs: Jobs = 2,
    quiet: Quiet = False,
    as_json: Json = False,
) -> Answer:
    """Look for leaks in a study's mixtures before it is trained; status 1 where there are some.

    Writes nothing but, with --out, the table of all findings.

    \b
    Examples:
      interp-report audit STUDY.toml
      interp-report audit STUDY.toml --out audit
    """
    from interp.core.tables import Table
    from interp.study.grid import Grid, audit_cells

    with TemporaryDirectory() as scratch:
        findings = audit_cells(Grid.from_toml(study).plan(Path(scratch), jobs=jobs), jobs=jobs)
    written = {"table": str(Table("audit", findings).save(out / "tables"))} if out else {}
    ok = bool(findings["ok"].all())
    return {**written, "ok": ok, "findings": len(findings), "exit": 0 if ok else DIFFERS}

"""Runs of a grid on other machines: as commands to start there, or as submitit jobs.

A run is one command, and its folder says when it is finished. So nothing need be
collected: start the grid again where its folder lies, and it goes on with what has been made.
"""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.core.errors import InterpError, SpecificationError
from interp.models.training.run import Run
from interp.models.training.train import check_room


def commands(runs: Sequence[Run], *, device: str, processes: int = 1) -> list[str]:
    """A line for a shell per unfinished run; its folders must be seen from where it is started."""
    return [
        shlex.join(["python", *run.command(device=device, processes=processes)[1:]])
        for run in _waiting(runs, processes)
    ]


def _waiting(runs: Sequence[Run], processes: int) -> list[Run]:
    """The runs that are not finished, each seen to be one that can be started."""
    waiting = [run for run in runs if not run.final.exists()]
    for run in waiting:
        run.check()
        run.recipe.share(processes)
        run.prepare()
    return waiting


def submit(
    runs: Sequence[Run],
    folder: Path,
    *,
    cluster: str = "slurm",
    device: str = "cuda",
    processes: int = 1,
    **parameters: Any,
) -> list[Any]:
    """Submit unfinished runs through submitit, as one array; the jobs are returned at once.

    `cluster` is submitit's (`slurm`, `local`, `debug`) and `parameters` its executor's
    (`timeout_min`, `slurm_partition`, `gpus_per_node`, ...). Logs go to `folder`. A job that is
    stopped and started again goes on from its latest checkpoint.

    Raises `SpecificationError` without submitit, or for a parameter that it does not know.
    """
    try:
        import submitit
    except ImportError:
        right = "submitit, which hands jobs to a cluster"
        do = "run pip install submitit, or print the commands instead"
        raise SpecificationError("submit runs", "no submitit", right, do) from None
    waiting = _waiting(runs, processes)
    if waiting:  # printed commands may be carried to another disk
        check_room(waiting, jobs=len(waiting))
    try:
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
        executor.update_parameters(name="interp", **parameters)
    except (ValueError, RuntimeError, NameError) as error:
        raise SpecificationError(
            f"submit runs to {cluster}", str(error), "what submitit takes", "see its documentation"
        ) from None
    if not waiting:
        return []
    words = [run.command(device=device, processes=processes) for run in waiting]
    return executor.map_array(carry_out, words)


def carry_out(command: Sequence[str]) -> int:
    """Start one run where the job landed, and wait for it."""
    done = subprocess.run(list(command), check=False)
    if done.returncode:
        given = f"a trainer that ended with status {done.returncode}"
        do = "read the job's log, mend that and submit again"
        raise InterpError("train on the cluster", given, "a finished run", do)
    return done.returncode

"""Specify the Slurm jobs of a run: the sbatch options and the batch script of each."""

from __future__ import annotations

import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from p2p_dist.common import console
from p2p_dist.jobs import site, stages
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.address import scheme
from p2p_dist.settings.config import Config, Data, Resources, seconds_of

_SOURCES = {
    "account": "account (--account, a settings file or $SBATCH_ACCOUNT)",
    "partition": "partition (--partition, a settings file or the site's file)",
    "folder": "the path of the run ($P2P_RUNS)",
    "setup": "a line made from the site's file, --container, --overlay or a path",
}


@dataclass(frozen=True)
class Job:
    """One Slurm job: a stage of a run, and its batch script's parts."""

    stage: str
    folder: Path
    """of its script and its log"""
    options: dict[str, Any]
    """sbatch's long options without dashes; True for an option without a value"""
    setup: list[str]
    """lines before the command"""
    command: str
    array: int | None = None
    """number of array tasks"""

    def __post_init__(self) -> None:
        """Check that no value adds lines to the script.

        Raises:
            ValueError: a value contains a control character. The message names the value.
        """
        named = [("folder", self.folder), *self.options.items(), *(("setup", line) for line in self.setup)]
        for name, value in [*named, ("command", self.command)]:
            if isinstance(value, str | Path) and (bad := console.control_character(str(value))):
                raise ValueError(
                    f"the {self.stage} job: {_SOURCES.get(name, name)} has a control character ({bad}), which a job script "
                    f"must not contain: {str(value)!r}; remove it, nothing was queued"
                )

    @property
    def partition(self) -> str | None:
        """Return the partition; None: the cluster's default."""
        return self.options.get("partition")

    @property
    def log(self) -> str:
        """Return the log path of its batch shell, with Slurm's patterns for the numbers."""
        # Escape % in the path of the run, because Slurm uses it for patterns.
        return str(self.folder).replace("%", "%%") + ("/%A_%a_0_log.out" if self.array else "/%j_0_log.out")

    def after(self, dependency: str | None) -> Job:
        """Return the job with a dependency, such as `afterok:7`."""
        if dependency is None:
            return self
        # Without kill-on-invalid-dep, jobs that depend on a failed job would wait for ever.
        return replace(self, options={**self.options, "dependency": dependency, "kill-on-invalid-dep": "yes"})

    def script(self) -> str:
        """Return the batch script. No other code writes one."""
        options = {**self.options, "output": self.log, "open-mode": "append"}
        if self.array:
            options["array"] = f"0-{self.array - 1}"
        lines = [
            f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
            for name, value in sorted(options.items())
        ]
        return "\n".join(["#!/bin/bash", *lines, "", *self.setup, self.command, ""])


def comment(stage: str, run: RunDir) -> str:
    """Return the comment of a job, by which the launcher finds it."""
    return f"p2p_dist {stage} {run.path}"


def jobs(
    run: RunDir, settings: Config, place: site.Site, asked: tuple[str, ...] = stages.STAGES, reached: Sequence[Path] = ()
) -> list[Job]:
    """Return the chain of jobs of a run, in order; each depends on the success of the one before.

    Args:
        asked: its stages, or one of the checks (stages.CHECKS), whose job is like that of a training; or stages.GENERATE.
        reached: further folders that its jobs read and write.
    """
    resources = settings.resources
    partition = resources.partition or place.partition
    whole = partition in place.whole_nodes
    processes, account = place.processes_per_node(resources), site.account(resources)
    # On shared nodes, at most as many processes evaluate as train, because smaller jobs are billed less.
    shared = bool(place.gpus_per_node) and not whole
    evaluating = min(place.evaluate_processes, processes) if shared else place.evaluate_processes
    delay = min(300, seconds_of(resources.time) // 4)
    shapes: dict[str, dict[str, Any]] = {
        "preprocess": {
            "partition": place.cpu_partition,
            "time": place.minutes(place.preprocess_time, place.cpu_partition),
            "cpus-per-task": place.preprocess_cores,
            "mem": place.preprocess_memory,
        },
        "train": {
            "partition": partition,
            "time": site.minutes_of(resources.time),
            "nodes": resources.nodes,
            "ntasks-per-node": processes,
            "cpus-per-task": place.cores_per_process,
            "gpus-per-node": place.gpus(processes, partition) or None,
            "mem": place.memory(processes, partition),
            "exclusive": True if whole else None,
            "signal": f"USR2@{delay}",
        },
        "evaluate": {
            "partition": partition,
            "time": place.minutes(place.evaluate_time, partition),
            "ntasks-per-node": evaluating,
            "cpus-per-task": place.cores_per_process,
            "gpus-per-node": min(evaluating, place.gpus_per_node) or None,
            "mem": place.memory(evaluating, partition) if place.gpus_per_node else None,
            "exclusive": True if whole else None,
        },
        "generate": {
            "partition": partition,
            "time": place.minutes(place.evaluate_time, partition),
            "cpus-per-task": place.cores_per_process,
            "gpus-per-node": min(1, place.gpus_per_node) or None,
            "mem": place.memory(1, partition) if place.gpus_per_node else None,
            "exclusive": True if whole else None,
        },
        "page": {"partition": place.cpu_partition, "time": 10, "cpus-per-task": 1},
    }
    found = []
    for stage in asked:
        if stage in ("evaluate", "page") and resources.evaluate == "never":
            continue
        options = {
            "job-name": f"p2p-{stage}",
            "comment": comment(stage, run),
            "account": account,
            "nodes": 1,
            "ntasks-per-node": 1,
            "signal": "USR2@90",
            "requeue" if place.requeue else "no-requeue": True,
            **shapes[stage if stage in shapes else "train"],
        }
        found.append(
            Job(
                stage,
                folder=run.slurm / stage,
                options={name: value for name, value in options.items() if value is not None},
                setup=_setup(run, settings, place, stage, reached),
                command=shlex.join(["exec", "bash", str(run.code / "hpc" / "job.sh"), stage, str(run.path)]),
                array=members(stage, resources),
            )
        )
    return found


def members(stage: str, resources: Resources) -> int | None:
    """Return the number of array tasks that share a stage; None: one job, which needs no locks."""
    count = resources.preprocess_array if stage == "preprocess" else resources.evaluate_array
    if stage not in ("preprocess", "evaluate", stages.GENERATE):
        return None
    return None if count == 1 else count


def dependency(job: Job, resources: Resources, before: str | None) -> str | None:
    """Return the dependency of a job in sbatch's format: `before` is the number of the previous job or a placeholder."""
    if before is None:
        return None
    # During the training: start as soon as it has started.
    beside = job.stage == "evaluate" and resources.evaluate == "during"
    return f"{'after' if beside else 'afterok'}:{before}"


def check_limits(asked: list[Job], place: site.Site, numbers: Counter[str]) -> None:
    """Compare jobs with the limits of the site's partitions: time, nodes, jobs of a user.

    Args:
        numbers: the user's jobs by partition, including those to be queued now.

    Raises:
        ValueError: a limit is exceeded. The message names the limit and the option.
    """
    for job in asked:
        limit = place.limit(job.partition)
        minutes, nodes = job.options["time"], job.options["nodes"]
        if limit.time and minutes > site.minutes_of(limit.time):
            raise ValueError(
                f"--time asks for {minutes / 60:.3g} hours, {job.partition} allows at most {limit.time}: request less, "
                "a longer training continues in the next job; nothing was queued"
            )
        if nodes > (limit.nodes or nodes):
            raise ValueError(f"--nodes {nodes}: a job in {job.partition} has at most {limit.nodes}; nothing was queued")
        numbers[job.partition or ""] += job.array or 1
    for partition in dict.fromkeys(job.partition or "" for job in asked):
        if numbers[partition] > (most := place.limit(partition).jobs or math.inf):
            raise ValueError(
                f"{numbers[partition]} jobs of yours would be in {partition}, which takes {most}: "
                "wait, or ask for fewer (--sweep, --preprocess-array, --evaluate-array, --partition); nothing was queued"
            )


def _setup(run: RunDir, settings: Config, place: site.Site, stage: str, reached: Sequence[Path]) -> list[str]:
    """Return the variables for hpc/job.sh, and the lines that check the copy of the code."""
    resources = settings.resources
    image = place.image(resources)
    values: dict[str, Any] = {
        "P2P_PYTHON": sys.executable if image is None else "python",
        "P2P_MAX_REQUEUES": resources.max_requeues,
        "P2P_MAX_CRASH_RESTARTS": resources.max_crash_restarts,
    }
    if stage == "train" and resources.max_gpu_hours is not None and (rate := gpu_hours_an_hour(resources, place)):
        values["P2P_MAX_SECONDS"] = int(resources.max_gpu_hours / rate * 3600)
    if stage == "evaluate" and resources.evaluate == "during":
        values["P2P_EVALUATE"] = "during"
    # On a shared node, the cores of the job are not known in advance.
    whole = (resources.partition or place.partition) in place.whole_nodes
    if place.cpu_masks and whole and stage in ("train", *stages.CHECKS):
        values["P2P_CPU_MASKS"] = ",".join(place.cpu_masks[: place.processes_per_node(resources)])
    if place.environment:
        ours = (site.HPC / place.environment).is_file()
        values["P2P_ENVIRONMENT"] = run.code / "hpc" / place.environment if ours else Path(place.environment).absolute()
    if image is not None:
        values["P2P_CONTAINER"] = image
        if resources.overlay:
            values["P2P_OVERLAY"] = _bindable(str(Path(resources.overlay).expanduser().absolute()))
        values["P2P_BINDS"] = ",".join([*place.container_binds, *_folders(run, settings.data, stage, reached)])
    exports = [f"export {name}={shlex.quote(str(value))}" for name, value in values.items()]
    check = (site.HPC / "check_code.sh").read_text(encoding="utf-8").splitlines()[1:]
    return [*exports, f"run={shlex.quote(str(run.path))}", *check]


def _folders(run: RunDir, data: Data, stage: str, reached: Sequence[Path] = ()) -> list[str]:
    """List the folders that a job reads and writes, with and without links resolved.

    Raises:
        ValueError: a path that can't be passed to Singularity.
    """
    folders = [run.path.parent, run.path.parent.parent / "shards", *reached]
    if stage in ("preprocess", *stages.CHECKS) and data.root is not None:
        folders.append(Path(data.root))
    if stage in ("preprocess", "train") and data.shards is not None and scheme(data.shards) is None:
        folders.append(Path(data.shards))
    found = dict.fromkeys(str(path) for folder in folders for path in (folder, folder.resolve()))
    return [_bindable(path) for path in found]


def _bindable(path: str) -> str:
    if "," in path or ":" in path:
        raise ValueError(f"{path}: a path with ',' or ':' cannot be bound into a container; choose another")
    return path


def gpu_hours_an_hour(resources: Resources, place: site.Site, nodes: int | None = None) -> float:
    """Return the GPU-hours billed for an hour of training on its nodes, or on a given number."""
    partition = resources.partition or place.partition
    gpus = place.gpus(place.processes_per_node(resources), partition)
    return place.gpu_hours(1, nodes or resources.nodes, partition, gpus)


def check_max_gpu_hours(resources: Resources, place: site.Site) -> None:
    """Check that --max-gpu-hours can be enforced.

    Raises:
        ValueError: the site's file does not describe the billing.
    """
    if resources.max_gpu_hours is not None and not gpu_hours_an_hour(resources, place):
        raise ValueError(
            f"--max-gpu-hours {resources.max_gpu_hours:g}: the billing of this cluster is not known: "
            "describe it in a file for --site (gpus_per_node, gpu_hours_per_gpu_hour), or leave it out"
        )


def bill(asked: list[Job], resources: Resources, place: site.Site) -> dict[str, tuple[float, str]]:
    """Map stage -> the maximum of GPU-hours that can be billed for all its starts, and how it is computed.

    Stages without a bill are omitted.
    """
    starts, found = 1 + resources.max_requeues, {}
    for job in asked:
        hours, array = job.options["time"] / 60, job.array or 1
        once = place.gpu_hours(hours, job.options["nodes"], job.partition, job.options.get("gpus-per-node", 0))
        most = once * starts * array
        words = f"{starts} starts of {once:.1f}" + (f", {array} jobs" if job.array else "")
        limit = resources.max_gpu_hours if job.stage == "train" else None
        if limit is not None and limit + once < most:
            # The usage is updated when a start ends, so the last start may begin just below the limit.
            most, words = (
                limit + once,
                (f"--max-gpu-hours {limit:g}, and the start that is running when it is reached: {once:.1f}"),
            )
        if most:
            found[job.stage] = most, words
    return found

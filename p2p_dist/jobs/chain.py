"""The Slurm jobs of a run: what each is told, in submitit's words, and the scripts that come of it."""

from __future__ import annotations

import math
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.config import Config, seconds_of
from p2p_dist.jobs import site, stages
from p2p_dist.rundir import RunDir


@dataclass(frozen=True)
class Job:
    """One Slurm job: a stage of a run, and what sbatch is told."""

    stage: str
    folder: Path
    command: str
    parameters: dict[str, Any]
    array: int | None = None
    """so many of it, as one array"""

    @property
    def partition(self) -> str | None:
        """Where it is queued; None: the cluster's default."""
        return self.parameters.get("partition")

    def script(self) -> str:
        """The batch script, as it is submitted."""
        from submitit.slurm.slurm import _make_sbatch_string

        return _make_sbatch_string(command=self.command, folder=self.folder, map_count=self.array, **self.parameters)


def comment(stage: str, run: RunDir) -> str:
    """What a job carries so that it is found again, whoever queued it."""
    return f"p2p_dist {stage} {run.path}"


def jobs(run: RunDir, settings: Config, place: site.Site, asked: tuple[str, ...] = stages.STAGES) -> list[Job]:
    """The chain of jobs of a run, in order; each waits for the one before to end well.

    Args:
        asked: its stages, or one of the checks (stages.CHECKS), whose job is like that of a training.
    """
    resources = settings.resources
    partition = resources.partition or place.partition
    whole = partition in place.whole_nodes
    processes = place.processes_per_node(resources)
    delay = min(300, seconds_of(resources.time) // 4)
    shapes: dict[str, dict[str, Any]] = {
        "preprocess": {
            "partition": place.cpu_partition,
            "time": place.minutes(place.preprocess_time, place.cpu_partition),
            "cpus_per_task": place.preprocess_cores,
            "mem": place.preprocess_memory,
        },
        "train": {
            "partition": partition,
            "time": site.minutes_of(resources.time),
            "nodes": resources.nodes,
            "ntasks_per_node": processes,
            "cpus_per_task": place.cores_per_process,
            "gpus_per_node": place.gpus_per_node or None,
            "mem": place.memory_per_node,
            "exclusive": True if whole else None,
            "signal_delay_s": delay,
        },
        "evaluate": {
            "partition": partition,
            "time": place.minutes(place.evaluate_time, partition),
            "ntasks_per_node": place.evaluate_processes,
            "cpus_per_task": place.cores_per_process,
            "gpus_per_node": min(place.evaluate_processes, place.gpus_per_node) or None,
            "exclusive": True if whole else None,
        },
        "page": {"partition": place.cpu_partition, "time": 10, "cpus_per_task": 1},
    }
    chain = []
    for stage in asked:
        like = stage if stage in shapes else "train"
        shape = {"account": resources.account, "nodes": 1, "ntasks_per_node": 1, **shapes[like]}
        # submitit's own --mem knows gigabytes only.
        further = {"requeue" if place.requeue else "no-requeue": True, "mem": shape.pop("mem", None)}
        shape["additional_parameters"] = {name: value for name, value in further.items() if value is not None}
        shape["setup"] = _environment(run, settings, place, stage)
        shape["job_name"] = f"p2p-{stage}"
        shape["comment"] = comment(stage, run)
        shape["stderr_to_stdout"] = True
        shape["use_srun"] = False  # the step is in hpc/job.sh, which the templates use too
        parameters = {name: value for name, value in shape.items() if value is not None}
        command = shlex.join(["exec", "bash", str(run.code / "hpc" / "job.sh"), stage, str(run.path)])
        # submitit's own wckey is refused by clusters that do not know it.
        array = resources.evaluate_array if stage == "evaluate" else None
        chain.append(Job(stage, run.slurm / stage, command, {**parameters, "wckey": None}, array))
    return chain


def check_limits(asked: list[Job], place: site.Site, runs: int = 1, queued: Counter[str] | None = None) -> None:
    """Compare jobs with what the site says of its partitions: the longest job, its nodes, a user's jobs at once.

    Args:
        runs: how many runs ask for such jobs. queued: the user's jobs that are queued already, by partition.

    Raises:
        ValueError: over a limit; names it and the option.
    """
    numbers = Counter(queued or ())
    for job in asked:
        limit = place.limits.get(job.partition or "", {})
        minutes, nodes = job.parameters["time"], job.parameters["nodes"]
        if "time" in limit and minutes > site.minutes_of(limit["time"]):
            raise ValueError(
                f"--time asks for {minutes / 60:.3g} hours, {job.partition} gives at most {limit['time']}: ask for less, "
                "a longer training goes on in the next job; nothing was queued"
            )
        if nodes > limit.get("nodes", nodes):
            raise ValueError(f"--nodes {nodes}: a job in {job.partition} has at most {limit['nodes']}; nothing was queued")
        numbers[job.partition or ""] += (job.array or 1) * runs
        if numbers[job.partition or ""] > limit.get("jobs", math.inf):
            raise ValueError(
                f"{numbers[job.partition or '']} jobs of yours would be in {job.partition}, which takes {limit['jobs']}: "
                "wait, or ask for fewer (--sweep, --evaluate-array, --partition); nothing was queued"
            )


def _environment(run: RunDir, settings: Config, place: site.Site, stage: str) -> list[str]:
    """What hpc/job.sh is told."""
    resources = settings.resources
    image = place.image(resources)
    values: dict[str, Any] = {
        "P2P_PYTHON": sys.executable if image is None else "python",
        "P2P_MAX_REQUEUES": resources.max_requeues,
        "P2P_MAX_CRASH_RESTARTS": resources.max_crash_restarts,
    }
    if stage == "train" and resources.max_gpu_hours is not None:
        rate = place.gpu_hours(1, resources.nodes, resources.partition or place.partition)
        if rate:
            values["P2P_MAX_SECONDS"] = int(resources.max_gpu_hours / rate * 3600)
    if stage == "evaluate" and resources.evaluate == "during":
        values["P2P_EVALUATE"] = "during"
    # Of a node that is shared, which cores the job has is not known before.
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
        values["P2P_BINDS"] = ",".join([*place.container_binds, *_folders(run, settings, stage)])
    return [f"export {name}={shlex.quote(str(value))}" for name, value in values.items()]


def _folders(run: RunDir, settings: Config, stage: str) -> list[str]:
    """What a job reads and writes, by the names that it may be called by: behind links, too.

    Raises:
        ValueError: a name that can't be handed to Singularity.
    """
    folders = [run.path.parent, run.path.parent.parent / "shards"]
    if stage in ("preprocess", *stages.CHECKS) and settings.data.root is not None:
        folders.append(Path(settings.data.root))
    found = dict.fromkeys(str(path) for folder in folders for path in (folder, folder.resolve()))
    return [_bindable(path) for path in found]


def _bindable(path: str) -> str:
    if "," in path or ":" in path:
        raise ValueError(f"{path}: what has ',' or ':' in its path can't be shown to a container; name another")
    return path


def gpu_hours(settings: Config, place: site.Site) -> float:
    """The most that the training can be billed, over all its starts."""
    resources = settings.resources
    hours = site.hours_of(resources.time) * (1 + resources.max_requeues)
    most = place.gpu_hours(hours, resources.nodes, resources.partition or place.partition)
    return most if resources.max_gpu_hours is None else min(most, resources.max_gpu_hours)

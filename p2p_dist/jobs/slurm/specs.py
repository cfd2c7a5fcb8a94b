"""Specify the Slurm jobs of a run: the sbatch options and the batch script of each."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from p2p_dist.common import console
from p2p_dist.jobs import site, stages, tiers
from p2p_dist.jobs.slurm import setup
from p2p_dist.jobs.tiers import Tier
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config, Resources, seconds_of
from p2p_dist.settings.resources import sizes_in_words

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
    """number of array tasks that share the stage"""
    members: tuple[int, ...] = ()
    """of an array with a job for each run of a sweep: the numbers of these runs"""
    tier: Tier = field(default_factory=Tier)
    why: str = ""
    """why no earlier tier takes it"""
    gpus: int = 0
    """of a node"""
    beside: bool = False
    """whether it starts as soon as the job before it has started: an evaluation during the training"""
    sizes: tuple[int, ...] = (1,)
    """the numbers of nodes that it may have: one, or the fewest and the most"""

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
    def log(self) -> str:
        """Return the log path of its batch shell, with Slurm's patterns for the numbers."""
        # Escape % in the path of the run, because Slurm uses it for patterns.
        pattern = "%A_%a.out" if self.members else "%A_%a_0_log.out" if self.array else "%j_0_log.out"
        return f"{str(self.folder).replace('%', '%%')}/{pattern}"

    def after(self, dependency: str | None) -> Job:
        """Return the job with a dependency, such as `afterok:7`."""
        if dependency is None:
            return self
        # Without kill-on-invalid-dep, jobs that depend on a failed job would wait for ever.
        return replace(self, options={**self.options, "dependency": dependency, "kill-on-invalid-dep": "yes"})

    def at(self, nodes: int) -> Job:
        """Return the job with a fixed number of nodes."""
        return replace(self, options={**self.options, "nodes": nodes}, sizes=(nodes,))

    def script(self) -> str:
        """Return the batch script. No other code writes one."""
        options = {**self.options, "output": self.log, "open-mode": "append"}
        if self.array:
            options["array"] = f"0-{self.array - 1}"
        if self.members:
            at_once = self.tier.running if self.tier.running and self.tier.running < len(self.members) else None
            options["array"] = ",".join(map(str, self.members)) + (f"%{at_once}" if at_once else "")
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
    project, delay = site.account(resources), min(300, seconds_of(resources.time) // 4)
    found = []
    for stage in asked:
        if stage in ("evaluate", "page") and resources.evaluate == "never":
            continue
        if stage == "pattern" and not settings.model.sketch:
            continue
        tier, why = place.tier(stage, resources)
        whole, processes = place.takes_whole_nodes(stage, resources), place.processes(stage, resources)
        on_gpus = tier.kind != "cpu"
        training = stage in ("train", *stages.CHECKS)
        gpus = place.gpus(processes, whole=whole and training) if on_gpus else 0
        sizes = resources.sizes if stage == "train" else (resources.nodes,) if training else (1,)
        shape: dict[str, Any] = {
            "partition": tier.partition,
            "qos": tier.qos,
            "nodes": sizes[0] if len(sizes) == 1 else sizes_in_words(sizes),
            "ntasks-per-node": processes,
            "gpus-per-node": gpus or None,
            "exclusive": True if whole and on_gpus else None,
            "signal": f"USR2@{delay if training else 90}",
        }
        if training:
            shape |= {"time": tiers.minutes_of(resources.time), "cpus-per-task": place.cores_per_process}
            shape |= {"mem": place.memory(processes, whole=whole)}
        elif stage in ("preprocess", "pattern"):
            shape |= {"time": tiers.shortened(place.preprocess_time, tier), "cpus-per-task": place.preprocess_cores}
            shape |= {"mem": place.preprocess_memory}
        elif stage == "page":
            shape |= {"time": 10, "cpus-per-task": 1}
        else:
            shape |= {"time": tiers.shortened(place.evaluate_time, tier), "cpus-per-task": place.cores_per_process}
            shape |= {"mem": place.memory(processes, whole=whole) if place.gpus_per_node else None}
        groups = ("all", "gpu" if on_gpus else "cpu", "train" if training else stage)
        options = {
            "job-name": f"p2p-{stage}",
            "comment": comment(stage, run),
            "account": place.account_of(groups, project),
            "requeue" if place.requeue else "no-requeue": True,
            **shape,
        }
        for group in groups:
            for name, value in place.sbatch.get(group, {}).items():
                options[name] = True if value == "true" else value and value.replace("{gpus}", str(gpus))
        options = {name: value for name, value in options.items() if value is not None}
        flags = _without_tasks(options) if len(sizes) > 1 else []
        found.append(
            Job(
                stage,
                folder=run.slurm / stage,
                options=options,
                setup=setup.lines(run, settings, place, stage, reached, flags),
                command=shlex.join(["exec", "bash", str(run.code / "hpc" / "job.sh"), stage, str(run.path)]),
                array=members(stage, resources),
                tier=tier,
                why=why,
                gpus=gpus,
                beside=stage == "evaluate" and resources.evaluate == "during",
                sizes=sizes,
            )
        )
    return found


def _without_tasks(options: dict[str, Any]) -> list[str]:
    """Request the nodes of a range without tasks; return the flags with which srun starts the tasks.

    Of a job with tasks, Slurm (22.05) gives at most as many nodes as it has tasks on the fewest nodes, and after a requeue at
    least as many nodes as at the start before (measured).

    Raises:
        ValueError: the site's file requests something by task.
    """
    if by_task := sorted(name for name in options if "task" in name and name not in ("ntasks-per-node", "cpus-per-task")):
        raise ValueError(
            f"the site's file (sbatch: {by_task[0]}) requests resources by task, with which Slurm does not change the number "
            "of nodes of a job: name one number with --nodes; nothing was queued"
        )
    tasks, cores = int(options.pop("ntasks-per-node")), int(options.get("cpus-per-task", 1))
    options["cpus-per-task"] = tasks * cores
    return [f"--ntasks-per-node={tasks}", f"--cpus-per-task={cores}"]


def members(stage: str, resources: Resources) -> int | None:
    """Return the number of array tasks that share a stage; None: one job, which needs no locks."""
    count = resources.preprocess_array if stage == "preprocess" else resources.evaluate_array
    if stage not in ("preprocess", "evaluate", stages.GENERATE):
        return None
    return None if count == 1 else count


def dependency(job: Job, before: str | None) -> str | None:
    """Return the dependency of a job in sbatch's format: `before` is the number of the previous job or a placeholder."""
    if before is None:
        return None
    return f"{'after' if job.beside else 'afterok'}:{before}"


def quoted(path: Path) -> str:
    """Quote a path for a batch script."""
    return shlex.quote(str(path))


def check_limits(asked: list[Job], place: site.Site, numbers: Counter[str]) -> None:
    """Compare jobs with the limits of their tiers: time, nodes, GPUs, jobs of a user.

    Args:
        numbers: the user's jobs by partition and by QoS, including those to be queued now.

    Raises:
        ValueError: a limit is exceeded. The message names the limit and the option.
    """
    for job in asked:
        for _, text in job.tier.misses([(nodes, nodes * job.gpus) for nodes in job.sizes], job.options["time"]):
            others = f" ({job.tier.name} comes nearest; {job.why})" if job.why else ""
            raise ValueError(f"{text}{others}; nothing was queued")
        numbers[job.tier.name] += job.array or 1
    for name, most in {job.tier.name: job.tier.jobs or math.inf for job in asked}.items():
        if numbers[name] > most:
            raise ValueError(
                f"{numbers[name]} jobs of yours would be in {name}, which takes {most}: "
                "wait, or ask for fewer (--sweep, --preprocess-array, --evaluate-array, --partition); nothing was queued"
            )

"""Handing a job to Slurm, on the submit host: what it would take, and queueing itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from p2p_dist.common import console
from p2p_dist.jobs.slurm import commands, query, specs

TRAINING = {
    "account": "--account",
    "partition": "--partition (or the site's partition)",
    "time": "--time",
    "nodes": "--nodes",
    "ntasks-per-node": "--processes-per-node",
    "mem": "the site's memory_per_node",
    "gpus-per-node": "the site's gpus_per_node",
    "cpus-per-task": "the site's cores_per_process",
}
"""What sbatch's options of a training are called here, or of a check, which is like one."""

PREPROCESSING = {
    "account": "--account",
    "partition": "the site's cpu_partition",
    "time": "the site's preprocess_time",
    "mem": "the site's preprocess_memory",
    "cpus-per-task": "the site's preprocess_cores",
}

EVALUATION = {
    "account": "--account",
    "partition": "--partition (or the site's partition)",
    "array": "--evaluate-array",
    "time": "the site's evaluate_time",
    "ntasks-per-node": "the site's evaluate_processes",
    "gpus-per-node": "the site's evaluate_processes and gpus_per_node",
    "cpus-per-task": "the site's cores_per_process",
}

PAGE = {"account": "--account", "partition": "the site's cpu_partition"}

OPTIONS = {"preprocess": PREPROCESSING, "evaluate": EVALUATION, "page": PAGE}

OURS = (
    *("CONTAINER", "OVERLAY", "BINDS", "CPU_MASKS", "ENVIRONMENT", "MAX_SECONDS", "EVALUATE", "CLAIMS"),
    *("ATTEMPT", "ATTEMPTS", "JOB", "BEGUN", "SUCCESSOR_OF", "OUT_OF_MEMORY"),
)
"""What hpc/job.sh is told by $P2P_..., where it is told at all: a script that does not say it means that there is none."""


def check(job: specs.Job) -> None:
    """Have Slurm look at one job without queueing it.

    Raises:
        ValueError: it would be refused; names the option at fault, found by leaving out one after the other.
        OSError: Slurm can't be asked.
    """
    script = job.script()
    refused = _refusal(script)
    if refused is None:
        return
    fault = ""
    for option, ours in OPTIONS.get(job.stage, TRAINING).items():
        without = re.sub(rf"^#SBATCH --{option}=.*\n", "", script, flags=re.MULTILINE)
        if without != script and _refusal(without) is None:
            value = re.search(rf"^#SBATCH --{option}=(.*)$", script, re.MULTILINE)
            fault = f"; it would take it without --{option}={value.group(1) if value else ''}: change {ours}"
            break
    if "account" in refused.lower():
        fault += f" ({query.your_accounts()})"
    raise ValueError(f"Slurm refuses the {job.stage} job: {refused}{fault}; nothing was queued")


def _refusal(script: str) -> str | None:
    with _only_what_is_written(script):
        asked = query.ask("sbatch", "--test-only", input=script)
    if asked.returncode == 0:
        return None
    lines = [line.split("error: ", 1)[-1] for line in asked.stderr.splitlines() if "error: " in line]
    text = "; ".join(dict.fromkeys(lines)).replace("Batch job submission failed: ", "").replace("allocation failure: ", "")
    if re.search(r"contact|onnect|timed out", text):
        raise OSError(5, f"Slurm does not answer ({text}); nothing was queued, type the same command again", "sbatch")
    return text or asked.stderr.strip()


def submit(job: specs.Job) -> str:
    """Queue one job; its id.

    Raises:
        OSError: Slurm did not take it after all.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    executor = submitit.SlurmExecutor(folder=job.folder)
    executor.update_parameters(**job.parameters)
    if job.array:
        executor.parameters["map_count"] = job.array  # as submitit's own map_array does
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Not its own `submit`: it would put a pickle between the launcher and the job, which is lost when the launcher is
        # killed between queueing and naming it, and which other versions of Python can't read.
        with _only_what_is_written(job.script()):
            submitted = executor._submit_command(job.command)
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if "error" in line] or [str(error)]
        text = f"Slurm did not take the {job.stage} job ({lines[-1]}); type the same command again"
        raise OSError(5, text, "sbatch") from error
    console.say(f"{job.stage}: job {submitted.job_id}, log {submitted.paths.stdout}")
    return str(submitted.job_id)


@contextmanager
def _only_what_is_written(script: str) -> Iterator[None]:
    """An environment in which nothing takes the place of what a script asks for, until the block ends: neither variables of
    sbatch, nor what was exported for the templates or for torch, nor what Slurm told the job that this is typed in."""
    exported = (*(f"P2P_{name}" for name in OURS), "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    with commands.submitting(*re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)):
        for name in exported:
            os.environ.pop(name, None)
        yield

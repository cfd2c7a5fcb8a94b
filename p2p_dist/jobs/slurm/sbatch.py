"""Call sbatch on the submit host: check a job with --test-only, find the rejected option, queue the job."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from p2p_dist.common import console, files
from p2p_dist.jobs.slurm import commands, options, reasons, specs, squeue
from p2p_dist.run.rundir import RunDir

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
"""sbatch option -> name of this program's option, for a training or a check."""

PREPROCESSING = {
    "account": "--account",
    "array": "--preprocess-array",
    "partition": "the site's cpu_partition",
    "time": "the site's preprocess_time",
    "mem": "the site's preprocess_memory",
    "cpus-per-task": "the site's preprocess_cores",
}

PATTERN = {name: option for name, option in PREPROCESSING.items() if name != "array"}

EVALUATION = {
    "account": "--account",
    "partition": "--partition (or the site's partition)",
    "array": "--evaluate-array",
    "time": "the site's evaluate_time",
    "ntasks-per-node": "the site's evaluate_processes",
    "gpus-per-node": "the site's evaluate_processes and gpus_per_node",
    "cpus-per-task": "the site's cores_per_process",
}

GENERATION = {
    "account": "--account",
    "partition": "--partition (or the site's partition)",
    "array": "--array",
    "time": "--time (or the site's evaluate_time)",
    "gpus-per-node": "the site's gpus_per_node",
    "cpus-per-task": "the site's cores_per_process",
}

PAGE = {"account": "--account", "partition": "the site's cpu_partition"}

OPTIONS = {"preprocess": PREPROCESSING, "pattern": PATTERN, "evaluate": EVALUATION, "generate": GENERATION, "page": PAGE}


def check(job: specs.Job) -> None:
    """Check one job with sbatch --test-only; of a range of nodes both ends, because Slurm itself looks at the fewest only.

    Raises:
        ValueError: Slurm rejects it. The message names the option at fault, which is found by omitting one at a time.
        OSError: Slurm does not answer.
    """
    for nodes in job.sizes:
        script = job.at(nodes).script()
        if (refused := _refusal(script)) is not None:
            break
    else:
        return
    fault = ""
    known = OPTIONS.get(job.stage, TRAINING)
    added = {name for name in job.options if name not in known and name not in options.OF_THE_LAUNCHER}
    of_the_site = {name: f"the site's file ({'tiers or ' * (name == 'qos')}sbatch: {name})" for name in sorted(added)}
    for option, ours in {**known, **of_the_site}.items():
        without = re.sub(rf"^#SBATCH --{option}=.*\n", "", script, flags=re.MULTILINE)
        if without != script and _refusal(without) is None:
            value = re.search(rf"^#SBATCH --{option}=(.*)$", script, re.MULTILINE)
            fault = f"; it would take it without --{option}={value.group(1) if value else ''}: change {ours}"
            break
    if "account" in refused.lower():
        fault += f" ({squeue.your_accounts()})"
    raise ValueError(f"Slurm rejects the {job.stage} job: {refused}{fault}; nothing was queued")


def expected_start(job: specs.Job) -> float:
    """Return when Slurm would start a job that is queued now, seconds since 1970.

    Raises:
        ValueError: Slurm rejects it, or names no time.
        OSError: Slurm does not answer.
    """
    asked = _sbatch(job.script(), "--test-only")
    if (refused := _why_refused(asked)) is not None:
        raise ValueError(refused)
    found = re.search(r"to start at (\S+)", asked.stderr + asked.stdout)
    start = reasons.seconds_of(found[1]) if found is not None else None
    if start is None:
        raise ValueError("Slurm names no time")
    return start


def _refusal(script: str) -> str | None:
    return _why_refused(_sbatch(script, "--test-only"))


def _why_refused(asked: subprocess.CompletedProcess[str]) -> str | None:
    """Return why Slurm rejects a job, from the answer of sbatch; None if it takes it."""
    if asked.returncode == 0:
        return None
    lines = [line.split("error: ", 1)[-1] for line in asked.stderr.splitlines() if "error: " in line]
    text = "; ".join(dict.fromkeys(lines)).replace("Batch job submission failed: ", "").replace("allocation failure: ", "")
    if re.search(r"contact|onnect|timed out", text):
        raise OSError(5, f"Slurm does not answer ({text}); nothing was queued, run the same command again", "sbatch")
    return text or asked.stderr.strip()


def submit(job: specs.Job, runs: Sequence[RunDir] = ()) -> str:
    """Queue one job, or the array of a sweep; return its id.

    Args:
        runs: all runs of the sweep, which keep the script of their element.

    Raises:
        OSError: Slurm rejected it, or its answer contains no job number. Then the job may be queued all the same; if the
            command is repeated, the launcher finds the job by its comment.
    """
    for folder in (job.folder, *(runs[member].slurm / job.stage for member in job.members)):
        folder.mkdir(parents=True, exist_ok=True)
    script = job.script()
    asked = _sbatch(script)
    if asked.returncode:
        said = asked.stderr.splitlines() or ["no reason given"]
        lines = [line for line in said if "error" in line] or said
        text = f"Slurm did not accept the {job.stage} job ({lines[-1]}); run the same command again"
        raise OSError(5, text, "sbatch")
    number = commands.job_number(asked.stdout)
    if number is None:
        lines = asked.stdout.strip().splitlines() or ["empty"]
        raise OSError(5, f"no job number in its answer ({lines[-1]}): run the same command again", "sbatch")
    for member in job.members:
        files.write_text(runs[member].slurm / job.stage / f"{number}_{member}_submission.sh", script)
    if job.members:
        console.say(f"{job.stage}: array {number} of {len(job.members)} runs, logs in slurm/{job.stage} of each")
        return number
    files.write_text(job.folder / f"{number}_submission.sh", script)
    log = job.log.replace("%A", number).replace("%j", number).replace("%%", "%")
    console.say(f"{job.stage}: job {number}, log {log}")
    return number


def _sbatch(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Pass a script to sbatch. No other code does so."""
    options = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    return commands.ask("sbatch", *words, input=script, env=commands.environment_of_sbatch(options))

"""Asking Slurm, on the submit host: what is queued, what it would take, queueing itself. No job calls this."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist import console, files
from p2p_dist.config import Config
from p2p_dist.jobs import chain, site, stages
from p2p_dist.rundir import RunDir

OPTIONS = {
    "account": "--account",
    "partition": "--partition (or the site's partition)",
    "time": "--time",
    "nodes": "--nodes",
    "ntasks-per-node": "--processes-per-node",
    "mem": "the site's memory_per_node",
    "gpus-per-node": "the site's gpus_per_node",
    "cpus-per-task": "the site's cores_per_process",
}
"""What sbatch's options are called here."""


@dataclass(frozen=True)
class Queued:
    """A job that Slurm has: its id, state, and reason for waiting."""

    number: str
    state: str
    reason: str


def ask(*command: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands.

    Raises:
        OSError: there is no such command here, or it does not answer within two minutes.
    """
    path = shutil.which(command[0])
    if path is None:
        raise FileNotFoundError(2, "no such command; is this a login node of the cluster?", command[0])
    try:
        return subprocess.run([path, *command[1:]], input=input, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired as error:
        raise OSError(5, "no answer from Slurm; try again later", command[0]) from error


def queued_jobs(run: RunDir) -> dict[str, Queued]:
    """Stage -> the job of this run that Slurm still has, told by its comment.

    Raises:
        OSError: Slurm can't be asked.
    """
    found: dict[str, Queued] = {}
    places = (run, RunDir(run.path.resolve()))  # the templates know it by its real path
    for job, comment in _jobs_and_comments():
        for stage in stages.STAGES:
            # A successor waits while the job before it still ends: the newer one goes on.
            ours = comment in [chain.comment(stage, place) for place in places]
            before = found.get(stage)
            newer = before is None or int(before.number) < int(job.number)
            if ours and (newer or (before is not None and before.number == job.number and job.state == "RUNNING")):
                found[stage] = job
    return found


def jobs_within(folder: Path) -> list[Queued]:
    """The jobs that Slurm still has of runs inside a folder, told by their comments.

    Raises:
        OSError: Slurm can't be asked.
    """
    found = []
    for job, comment in _jobs_and_comments():
        ours = re.fullmatch(r"p2p_dist \S+ (.*)", comment)
        if ours and any(Path(ours.group(1)).is_relative_to(place) for place in (folder, folder.resolve())):
            found.append(job)
    return found


def _jobs_and_comments() -> list[tuple[Queued, str]]:
    """This user's jobs that Slurm still has; of an array, each part that is listed by itself, under the array's number."""
    asked = ask("squeue", "--me", "--noheader", "--format=%i|%T|%r|%k")
    if asked.returncode:
        raise OSError(5, asked.stderr.strip() or "no answer", "squeue")
    rows = [[part.strip() for part in line.split("|", 3)] for line in asked.stdout.splitlines()]
    return [(Queued(number.split("_")[0], state, reason), comment) for number, state, reason, comment in rows]


def job_states() -> dict[str, str]:
    """Id -> state and reason of this user's jobs that Slurm still has; asks on while it does not answer."""
    while (asked := ask("squeue", "--me", "--noheader", "--format=%i %T %r")).returncode:
        console.complain(f"{asked.stderr.strip()}; asking on")
        time.sleep(10)
    rows = [line.split(maxsplit=2) for line in asked.stdout.splitlines()]
    return {row[0]: row[1].lower() + (f" ({row[2]})" if row[1] == "PENDING" and row[2] != "None" else "") for row in rows}


def patience(states: list[str], begun: float) -> float:
    """Seconds until asking again for jobs in these states: seldom while all wait, which may be for days.

    Args:
        begun: since when it is asked, as time.monotonic() tells; at first it is often, for a job may begin at once.
    """
    waits = all(state.startswith("pending") for state in states)
    return 5.0 if waits and time.monotonic() - begun > 10 else 0.5 if len(states) == 1 else 1.0


def jobs_by_partition() -> Counter[str]:
    """How many jobs this user has queued; each part of an array is one."""
    return Counter(ask("squeue", "--me", "--array", "--noheader", "--format=%P").stdout.split())


def accounts() -> list[str]:
    """The projects of this user, as far as Slurm's accounting tells."""
    try:
        asked = ask("sacctmgr", "-nP", "show", "associations", f"user={getpass.getuser()}", "format=account")
    except OSError:
        return []
    return sorted(set(asked.stdout.split())) if asked.returncode == 0 else []


def _your_accounts() -> str:
    found = accounts()
    return f"yours: {', '.join(found)}" if found else "sacctmgr names none of yours: ask the cluster's support"


def check(job: chain.Job) -> None:
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
    for option, ours in OPTIONS.items():
        without = re.sub(rf"^#SBATCH --{option}=.*\n", "", script, flags=re.MULTILINE)
        if without != script and _refusal(without) is None:
            value = re.search(rf"^#SBATCH --{option}=(.*)$", script, re.MULTILINE)
            fault = f"; it would take it without --{option}={value.group(1) if value else ''}: change {ours}"
            break
    if "account" in refused.lower():
        fault += f" ({_your_accounts()})"
    raise ValueError(f"Slurm refuses the {job.stage} job: {refused}{fault}; nothing was queued")


def _refusal(script: str) -> str | None:
    asked = ask("sbatch", "--test-only", input=script)
    if asked.returncode == 0:
        return None
    lines = [line.split("error: ", 1)[-1] for line in asked.stderr.splitlines() if "error: " in line]
    text = "; ".join(dict.fromkeys(lines)).replace("Batch job submission failed: ", "").replace("allocation failure: ", "")
    if re.search(r"contact|onnect|timed out", text):
        raise OSError(5, f"Slurm does not answer ({text}); nothing was queued, type the same command again", "sbatch")
    return text or asked.stderr.strip()


def queue(run: RunDir, settings: Config, place: site.Site, shown: str) -> int:
    """Queue the stages that are neither done nor queued, each waiting for the one before; prints their job ids.

    Args:
        shown: the command that shows how the run is, for people.

    Raises:
        ValueError: no account where one is needed, or Slurm would refuse a job; nothing was queued then.
        OSError: Slurm can't be asked, or refused after all.
    """
    if place.needs_account and settings.resources.account is None:
        raise ValueError(f"this cluster bills a project: name one with --account ({_your_accounts()})")
    place.check_images(settings.resources)
    queued = queued_jobs(run)
    wanted: list[tuple[chain.Job, str | None]] = []
    for job in chain.jobs(run, settings, place):
        if job.stage in queued:
            console.say(f"{job.stage}: queued already, job {queued[job.stage].number}")
            wanted.append((job, queued[job.stage].number))
        elif (found := stages.is_done(job.stage, run)) is not None and not wanted:
            console.say(f"{job.stage}: done already ({found})")
        else:
            wanted.append((job, None))
    new = [job for job, number in wanted if number is None]
    chain.check_limits(new, place, queued=jobs_by_partition() if new and place.limits else None)
    for job in new:
        check(job)
    (run.slurm / "cancelled").unlink(missing_ok=True)
    (run.path.parent.parent / "shards").mkdir(exist_ok=True)  # a container is shown it before there are any
    before: str | None = None
    for job, number in wanted:
        # Beside the training: as soon as that has begun.
        when = "after" if job.stage == "evaluate" and settings.resources.evaluate == "during" else "afterok"
        if number is None:
            for old in run.outcomes(job.stage):
                old.unlink()
        before = number or submit(job, f"{when}:{before}" if before else None)
    if wanted:
        console.say(f"to follow them: {shown}")
    return console.DONE


def queue_check(job: chain.Job, place: site.Site, dependency: str | None = None) -> str:
    """Queue one job of a check, to begin once `dependency` holds; its id.

    Raises:
        ValueError: no account where one is needed, or Slurm would refuse it.
        OSError: Slurm can't be asked, or refused after all.
    """
    if place.needs_account and "account" not in job.parameters:
        raise ValueError(f"this cluster bills a project: name one with --account ({_your_accounts()})")
    chain.check_limits([job], place)
    check(job)
    return submit(job, dependency)


def wait(run: RunDir, every: float = 5.0) -> int:
    """Say how the queued jobs change until none is left; looks every so many seconds.

    Returns:
        exit code: 0 all stages are done, 75 one stopped in order, 1 one failed or was cancelled.
    """
    before: dict[str, str] = {}
    away = False
    while True:
        try:
            queued = queued_jobs(run)
        except OSError as error:
            if not away:
                console.complain(f"{console.describe(error)}; asking on")
            away = True
        else:
            away = False
            now = {stage: f"{stage}: {job.state.lower()}, job {job.number}" for stage, job in queued.items()}
            for stage, text in now.items():
                if before.get(stage) != text:
                    console.say(text)
            before = now
            if not queued:
                break
        time.sleep(every)
    left = [stage for stage in stages.STAGES if stages.is_done(stage, run) is None]
    if not left:
        console.say(stages.last_lines(run))
        return console.DONE
    outcome = run.read_outcome(left[0])
    if outcome is not None and outcome["outcome"] == "stopped":
        console.say(f"{left[0]} stopped in order; to go on, type the same command again")
        return console.STOPPED
    because = outcome["message"] if outcome is not None else ""
    console.complain(
        f"error: {left[0]} did not come to its end{': ' + because if because else ''}; its logs: {run.slurm / left[0]}"
    )
    return console.FAILED


def submit(job: chain.Job, dependency: str | None) -> str:
    """Queue one job, to begin once `dependency` holds; its id."""
    import submitit
    from submitit.core.utils import FailedJobError

    parameters: dict[str, Any] = dict(job.parameters)
    if dependency is not None:
        # Without the second, jobs behind one that failed would wait for ever.
        further = {**parameters["additional_parameters"], "kill-on-invalid-dep": "yes"}
        parameters |= {"dependency": dependency, "additional_parameters": further}
    executor = submitit.SlurmExecutor(folder=job.folder)
    executor.update_parameters(**parameters)
    if job.array:
        executor.parameters["map_count"] = job.array  # as submitit's own map_array does
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Not its own `submit`: it would put a pickle between the launcher and the job, which is lost when the launcher is
        # killed between queueing and naming it, and which other versions of Python can't read.
        submitted = executor._submit_command(job.command)
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if "error" in line] or [str(error)]
        text = f"Slurm did not take the {job.stage} job ({lines[-1]}); type the same command again"
        raise OSError(5, text, "sbatch") from error
    console.say(f"{job.stage}: job {submitted.job_id}, log {submitted.paths.stdout}")
    return str(submitted.job_id)


def forget(run: RunDir) -> None:
    """Mark the run as cancelled: no job of it queues itself again."""
    files.write_text(run.slurm / "cancelled", "")

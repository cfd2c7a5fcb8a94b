"""Query Slurm on the submit host: which jobs are queued, and for which run. No job calls this."""

from __future__ import annotations

import contextlib
import getpass
import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_dist.common import console, files
from p2p_dist.jobs import stages
from p2p_dist.jobs.slurm import specs, sweeps
from p2p_dist.jobs.slurm.commands import ask
from p2p_dist.run.rundir import RunDir


@dataclass(frozen=True)
class Queued:
    """A queued or running Slurm job: its id, state, and reason for waiting.

    other: the run that it belongs to, if that is another run.
    """

    number: str
    state: str
    reason: str
    other: str | None = None

    @property
    def age(self) -> int:
        """A number that is larger for newer jobs; 7_2 is the element of a sweep."""
        return int(self.number.partition("_")[0])


def queued_jobs(run: RunDir, jobs: list[tuple[Queued, str]] | None = None) -> dict[str, Queued]:
    """Map stage -> job of this run in Slurm, found by its comment; for preprocessing also another run's job.

    Args:
        jobs: the result of `everything`, if known already.

    Raises:
        OSError: Slurm does not answer.
    """
    found: dict[str, Queued] = {}
    jobs = everything() if jobs is None else jobs
    for stage, job in _of(run, jobs):
        # A successor is pending while the previous job still ends. Use the newer job.
        before = found.get(stage)
        newer = before is None or before.age < job.age
        if newer or (before is not None and before.number == job.number and job.state == "RUNNING"):
            found[stage] = job
    if "preprocess" not in found and run.dataset.is_file():
        for maker, job in makers(run.shards, jobs):
            found["preprocess"] = replace(job, other=maker.path.name)
    return found


NEVER = "DependencyNeverSatisfied"
"""Slurm's reason for a job that can't start because a job that it depends on has failed."""

ENDING = 600.0
"""Maximum time for a job to complete, seconds: epilog, slow processes."""


def settled_jobs(run: RunDir) -> dict[str, Queued]:
    """Return `queued_jobs` once none of them is completing, because such a job may disappear or be requeued.

    Raises:
        OSError: Slurm does not answer, or one does not finish.
    """
    begun, said = time.monotonic(), False
    while True:
        found = queued_jobs(run)
        ending = [(stage, job) for stage, job in found.items() if job.state == "COMPLETING"]
        if not ending:
            return found
        stage, job = ending[0]
        if time.monotonic() - begun > ENDING:
            raise OSError(16, f"the {stage} job {job.number} has not ended yet; run the same command again later", "squeue")
        if not said:
            console.say(f"{stage}: job {job.number} is completing; waiting for its final state")
        said = True
        time.sleep(1)


def own_jobs(run: RunDir) -> list[tuple[str, Queued]]:
    """List stage and job of all jobs of this run alone; array tasks separately.

    Raises:
        OSError: Slurm does not answer.
    """
    return _of(run, everything())


def waiting_for_shards(run: RunDir) -> list[str]:
    """List the names of other runs with queued jobs that need the shards of this run.

    Raises:
        OSError: Slurm does not answer.
    """
    others = {ours.group(1) for _, comment in everything() if (ours := re.fullmatch(r"p2p_dist \S+ (.*)", comment))}
    found = [RunDir(Path(path)) for path in sorted(others)]
    return [other.path.name for other in found if other.path.resolve() != run.path.resolve() and _shares(other, run.shards)]


def _of(run: RunDir, jobs: list[tuple[Queued, str]]) -> list[tuple[str, Queued]]:
    """List stage and job of a run, by the jobs' comments."""
    places = (run, RunDir(run.path.resolve()))  # comments contain the resolved path
    ours = {specs.comment(stage, place): stage for stage in (*stages.STAGES, stages.GENERATE) for place in places}
    return [(ours[comment], job) for job, comment in jobs if comment in ours]


def makers(shards: Path, jobs: list[tuple[Queued, str]]) -> list[tuple[RunDir, Queued]]:
    """List the runs with a job that makes these shards, and that job."""
    found = []
    for job, comment in jobs:
        if (ours := re.fullmatch(r"p2p_dist preprocess (.*)", comment)) and _shares(RunDir(Path(ours.group(1))), shards):
            found.append((RunDir(Path(ours.group(1))), job))
    return found


def _shares(run: RunDir, shards: Path) -> bool:
    """Whether a run, which may no longer exist, uses these shards."""
    return run.dataset.is_file() and run.shards.resolve() == shards.resolve()


def jobs_within(folder: Path) -> list[Queued]:
    """List the jobs of runs inside a folder, by the jobs' comments.

    Raises:
        OSError: Slurm does not answer.
    """
    found = []
    for job, comment in everything():
        ours = re.fullmatch(r"p2p_dist \S+ (.*)", comment)
        if ours and any(Path(ours.group(1)).is_relative_to(place) for place in (folder, folder.resolve())):
            found.append(job)
    return found


def everything() -> list[tuple[Queued, str]]:
    """List this user's jobs with their comments; array tasks separately, under the array's number.

    An element of a sweep has a number of its own, as 7_2, and the comment that it would have as a job of its own.
    """
    asked = ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r|%k")
    if asked.returncode:
        why = (asked.stderr.strip() or "no answer").splitlines()[-1]
        raise OSError(5, f"Slurm does not answer ({why}); on a machine without Slurm use --cluster local", "squeue")
    # 7_4 is a task of the array 7; 41+0 and 41+1 are components of a heterogeneous job.
    row = re.compile(r"\s*(\d+)(?:_(\d+))?[^|]*\|([^|]*)\|([^|]*)\|(.*)")
    found = []
    for number, task, state, reason, comment in (
        match.groups() for match in map(row.fullmatch, asked.stdout.splitlines()) if match
    ):
        own = None if task is None else sweeps.own(comment.strip(), int(task))
        queued = Queued(number if own is None else f"{number}_{task}", state.strip(), reason.strip())
        found.append((queued, comment.strip() if own is None else own))
    return found


def job_states() -> dict[str, str]:
    """Map id -> state and reason of this user's jobs; repeats the query while Slurm does not answer."""
    while (asked := ask("squeue", "--me", "--noheader", "--format=%i %T %r")).returncode:
        console.complain(f"{asked.stderr.strip()}; asking again")
        time.sleep(10)
    rows = [line.split(maxsplit=2) for line in asked.stdout.splitlines()]
    return {row[0]: row[1].lower() + (f" ({row[2]})" if row[1] == "PENDING" and row[2] != "None" else "") for row in rows}


def patience(states: list[str], begun: float) -> float:
    """Return the seconds until the next query for jobs in these states: longer while all are pending.

    Args:
        begun: time.monotonic() at the first query. At first the queries are frequent, because a job may start at once.
    """
    waits = all(state.startswith("pending") for state in states)
    return 5.0 if waits and time.monotonic() - begun > 10 else 0.5 if len(states) == 1 else 1.0


def jobs_by_tier() -> Counter[str]:
    """Count this user's jobs by partition and by QoS; each array task counts."""
    lines = ask("squeue", "--me", "--array", "--noheader", "--format=%P %q").stdout.splitlines()
    return Counter(name for line in lines for name in set(line.split()))


def your_accounts() -> str:
    """Describe this user's projects according to Slurm's accounting, for an error message."""
    found = []
    with contextlib.suppress(OSError, KeyError):  # KeyError: the user has no name, before Python 3.13
        asked = ask("sacctmgr", "-nP", "show", "associations", f"user={getpass.getuser()}", "format=account")
        found = sorted(set(asked.stdout.split())) if asked.returncode == 0 else []
    return f"yours: {', '.join(found)}" if found else "sacctmgr names none of yours: ask the cluster's support"


def mark_cancelled(run: RunDir) -> None:
    """Mark the run as cancelled, so that none of its jobs requeues itself."""
    files.write_text(run.slurm / "cancelled", "")

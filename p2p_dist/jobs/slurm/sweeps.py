"""Sweeps on Slurm: the jobs of one stage of several runs are one array, in which each element is the job of one run.

A sweep's folder of runs has a file for each list of runs, named by its digest, with the path of one run a line. The comment of
an array names that file, and the number of an element is the number of its line, from 0. So an element is found as any other
job of its run (`own`), also if the launcher was killed right after it queued the array.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import specs
from p2p_dist.run import rundir, snapshot
from p2p_dist.run.rundir import RunDir

FOLDER = ".sweeps"
"""In the folder of runs."""

_COMMENT = re.compile(rf"(p2p_dist \S+ )(.*/{re.escape(FOLDER)}/([0-9a-f]{{16}}))")


@dataclass(frozen=True)
class Wait:
    """The job that the next stage of a run depends on, if any; of an array, the element of this number."""

    job: str | None = None
    element: int | None = None

    @classmethod
    def of(cls, number: str) -> Wait:
        """Convert a number as in `squeue.Queued`."""
        job, _, element = number.partition("_")
        return cls(job, int(element) if element else None)


@dataclass(frozen=True)
class Member:
    """A job that is to be queued for one run of a launch. number: of the run in the launch."""

    number: int
    run: RunDir
    job: specs.Job
    wait: Wait = Wait()

    def dependency(self) -> str | None:
        """Return its dependency in sbatch's format, if it is a job of its own."""
        wait = self.wait
        return specs.dependency(self.job, wait.job if wait.element is None else f"{wait.job}_{wait.element}")

    def in_array(self) -> str | None:
        """Return its dependency if it is an element of an array: the same for all elements, else None."""
        if self.wait.element is None:
            return self.dependency()
        # An element waits for the end of that with the same number; nothing can wait for the start of one.
        same = self.wait.element == self.number and not self.job.beside
        return f"aftercorr:{self.wait.job}" if same else None


def arrays(new: Sequence[Member], place: site.Site) -> list[list[Member]]:
    """Group the jobs of one stage: those that differ only in their run are an array. All others are alone.

    A successor of an element could not be what the next array waits for, so there are no arrays where jobs are not requeued.
    """
    groups: dict[str, list[Member]] = {}
    for member in new:
        # A run of an earlier version has scripts that do not know arrays of runs.
        alone = not place.requeue or member.job.array or (member.run.code.is_dir() and snapshot.differs(member.run.code))
        alone = alone or (member.wait.job is not None and member.in_array() is None)
        like = f"alone {member.number}" if alone else repr((_shape(member.job), member.in_array()))
        groups.setdefault(like, []).append(member)
    return list(groups.values())


def _shape(job: specs.Job) -> tuple[object, ...]:
    """Return all of a job that its run does not decide; the first line of its setup names the run."""
    return ({**job.options, "comment": ""}, job.setup[1:])


def job_of(members: Sequence[Member], runs: Sequence[RunDir]) -> specs.Job:
    """Return the array of these members, with its dependency.

    Args:
        runs: all runs of the launch.
    """
    first, stage = members[0], members[0].job.stage
    folder = rundir.runs_root() / FOLDER
    pick = [f"runs=({' '.join(specs.quoted(run.path) for run in runs)})", "run=${runs[$SLURM_ARRAY_TASK_ID]}"]
    log = f'exec >>"$run/slurm/{stage}/${{SLURM_JOB_ID}}_0_log.out" 2>&1'  # sbatch's own pattern can't name the run
    array = replace(
        first.job,
        folder=folder,
        options={**first.job.options, "comment": f"p2p_dist {stage} {folder / _name(runs)}"},
        setup=[*pick, log, *first.job.setup[1:]],
        command=f'exec bash "$run/code/hpc/job.sh" {stage} "$run" "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"',
        members=tuple(member.number for member in members),
    )
    return array.after(first.in_array())


def record(runs: Sequence[RunDir]) -> None:
    """Write the file of these runs. Call this before the first array that names it is queued."""
    path = rundir.runs_root() / FOLDER / _name(runs)
    if not path.is_file():
        files.write_text(path, _text(runs))


def _text(runs: Sequence[RunDir]) -> str:
    return "".join(f"{run.path}\n" for run in runs)


def _name(runs: Sequence[RunDir]) -> str:
    return hashlib.sha256(_text(runs).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def own(comment: str, number: int) -> str | None:
    """Return the comment that element `number` of an array would have as a job of its own; None: it is of no sweep.

    The file may lie where others can write, so its content must match the digest in its name.
    """
    named = _COMMENT.fullmatch(comment)
    if named is None:
        return None
    try:
        text = Path(named[2]).read_bytes()
    except OSError:
        return None
    paths = text.decode("utf-8", "surrogateescape").splitlines()
    if hashlib.sha256(text).hexdigest()[:16] != named[3] or number >= len(paths):
        return None
    return named[1] + paths[number]

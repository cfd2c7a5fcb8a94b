"""The cancel command: cancel a run's pending jobs, let the training save and stop, and prevent requeueing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console
from p2p_dist.jobs import site, stages
from p2p_dist.jobs.slurm import commands, squeue
from p2p_dist.run import rundir

NOT_BEGUN = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
"""Job states in squeue in which no process runs that could save."""


@dataclass(frozen=True)
class Command:
    """Stop a run's Slurm jobs cleanly: the training saves a checkpoint first."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """name of the run"""


def main(arguments: list[str]) -> int:
    """Stop the jobs of a run; return the exit code."""
    run = rundir.find(command_line.parse(Command, "cancel", arguments).run)
    rundir.read_settings(run)
    if not site.has_slurm():
        raise ValueError(f"Slurm was not found: to stop a run on this machine, press Ctrl-C where it was started ({run.path})")
    jobs: dict[tuple[str, str], set[str]] = {}  # an array has parts that run and parts that wait; a successor may wait beside
    for stage, job in squeue.own_jobs(run):
        jobs.setdefault((stage, job.number), set()).add(job.state)
    if not jobs:
        console.say(f"no job of the run {run.name} is queued")
        return console.DONE
    squeue.mark_cancelled(run)  # first, so that a job that stops now is not requeued
    code = console.DONE
    for stage in reversed((*stages.STAGES, stages.GENERATE)):
        for number, states in [(number, states) for (of, number), states in jobs.items() if of == stage]:
            try:
                if stage == "preprocess" and (others := squeue.waiting_for_shards(run)):
                    needed = f"{', '.join(others)} with the same shards still needs it"
                    console.say(f"{stage}: job {number} is not cancelled: {needed}")
                else:
                    _stop(stage, number, states)
            except OSError as error:  # the other jobs are cancelled nevertheless
                console.complain(f"{stage}: job {number} could not be cancelled: {console.describe(error)}")
                code = console.FAILED
    console.say("saved work is kept; to resume, run the launch command again")
    return code


def _stop(stage: str, number: str, states: set[str]) -> None:
    """Cancel a job that has not begun; let one that runs save and stop. An array may have parts of both kinds.

    Raises:
        OSError: Slurm refuses, or does not answer.
    """
    began = states - NOT_BEGUN
    if not began:
        _scancel(number)
        console.say(f"{stage}: job {number} removed from the queue")
        return
    if "PENDING" in states:
        _scancel("--state=PENDING", number)
        console.say(f"{stage}: job {number}: its waiting parts were cancelled")
    if began == {"COMPLETING"}:
        console.say(f"{stage}: job {number} is already completing")
        return
    # A suspended job handles no signal, and a plain scancel would end it without saving.
    if "SUSPENDED" in began and commands.ask("scontrol", "resume", number).returncode:
        said = "it saves and stops after an operator resumes it; if it was suspended for long, it ends without saving"
        console.say(f"{stage}: job {number} is suspended; {said}")
        return
    if "STOPPED" in began:
        _scancel("--signal=CONT", number)
    # The signal goes to the processes of the job; its batch shell records how they ended.
    told = _scancel("--signal=USR2", *(["--state=RUNNING"] if "PENDING" in states else []), number)
    console.say(f"{stage}: job {number} {'asked to save and stop' if told else 'has ended meanwhile'}")


def _scancel(*words: str) -> bool:
    """Run scancel. Return False if the job has ended: scancel then fails without a message."""
    asked = commands.ask("scancel", *words)
    if asked.returncode and asked.stderr.strip():
        raise OSError(5, asked.stderr.strip(), "scancel")
    return not asked.returncode

"""Run the drill on a cluster: Slurm stops small trainings in every way that a user can request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from p2p_dist.checks.drill import outcome
from p2p_dist.common import console
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, site, stages, status
from p2p_dist.jobs.slurm import commands, launch, specs, squeue
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config

WAYS = (
    ("a signal (scancel --signal=USR2)", ("scancel", "--signal=USR2", "JOB")),
    ("a requeue from outside (scontrol requeue)", ("scontrol", "requeue", "JOB")),
    ("the death of its processes (scancel --signal=KILL of the step)", ("scancel", "--signal=KILL", "JOB.0")),
    ("its end (scancel), and another launch", ("scancel", "JOB")),
)

BACK_AT_ONCE = 5.0
"""Seconds after which a requeued job is released; Slurm holds it for two minutes."""


@dataclass
class Stopped:
    """A training that `command` stops once, and its state so far."""

    name: str
    command: tuple[str, ...]
    run: RunDir
    job: str
    done: bool = False
    saved: int = 0
    let_go: float = 0.0


def drill_on_slurm(settings: config.Config, songs: Path, place: site.Site, patience: float) -> int:
    """Train once undisturbed and once for each way, side by side; print a table.

    Args:
        settings: of all of them. patience: seconds to wait for the cluster, in all.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.

    Raises:
        ValueError: Slurm would refuse the jobs; nothing was queued.
        OSError: a job failed undisturbed, Slurm does not answer, or it took longer than `patience`.
    """
    place.check_images(settings.resources)
    root, end = rundir.runs_root() / "drill", time.monotonic() + patience
    dataset = datasets.dataset_name(songs, settings.data)
    undisturbed = RunDir(root / "runs" / "undisturbed")
    begin_run.begin(undisturbed, settings, dataset)
    for stage in ("preprocess", "train"):
        job = _queue(stage, undisturbed, settings, place)
        console.say(f"undisturbed: {stage} is job {job}")
        while stage in squeue.queued_jobs(undisturbed):
            _wait(end, 1.0)
        if stages.is_done(stage, undisturbed) is None:
            raise OSError(f"{stage} failed in the reference run, which was not interrupted: see {undisturbed.slurm / stage}")
    trainings = []
    for number, (name, command) in enumerate(WAYS):
        run = RunDir(root / "runs" / f"stopped-{number}")
        begin_run.begin(run, settings, dataset)
        trainings.append(Stopped(name, command, run, _queue("train", run, settings, place)))
        console.say(f"{number + 1} of {len(WAYS)}, to be stopped by {name}: job {trainings[-1].job}")
    assert settings.train.steps is not None
    while left := [one for one in trainings if not _is_over(one, settings, place)]:
        for one in left:
            if not one.done and outcome.saved(one.run) >= settings.train.steps // 4:
                one.saved, one.done = outcome.saved(one.run), True
                commands.ask(*(word.replace("JOB", one.job) for word in one.command))
                console.say(f"stopped by {one.name}: step {one.saved} was saved")
        _wait(end, 0.2)
    rows = [("stopped by", "starts", "saved before", "came back")]
    for one in trainings:
        answer = outcome.difference(one.run, undisturbed) if one.done else "it ended before it could be stopped"
        if answer == outcome.OTHER_WEIGHTS and place.gpus_per_node:
            answer = "with the same batches (the order of GPU sums varies)"
        rows.append((one.name, str(len(status.attempts(one.run))), f"step {one.saved}", answer or "exactly"))
    outcome.show(rows)
    console.say(f"\nlogs: {root}")
    return console.DONE if all(row[-1] == "exactly" or "same batches" in row[-1] for row in rows[1:]) else console.FAILED


def _queue(stage: str, run: RunDir, settings: config.Config, place: site.Site) -> str:
    (job,) = specs.jobs(run, settings, place, (stage,))
    return launch.queue_check(job, place)


def _is_over(one: Stopped, settings: config.Config, place: site.Site) -> bool:
    """Whether it has finished. Releases a requeued job, and launches one again that is no longer queued."""
    queued = squeue.queued_jobs(one.run).get("train")
    if queued is None:
        if stages.is_done("train", one.run) is not None:
            return True
        one.job = _queue("train", one.run, settings, place)
    elif queued.reason == "BeginTime":
        if one.let_go == 0.0:
            one.let_go = time.monotonic() + BACK_AT_ONCE
        elif time.monotonic() > one.let_go:
            commands.ask("scontrol", "update", f"jobid={queued.number}", "StartTime=now")
    return False


def _wait(end: float, seconds: float) -> None:
    if time.monotonic() > end:
        raise OSError("the jobs did not finish within --patience: check squeue, then run it again with a larger --patience")
    time.sleep(seconds)

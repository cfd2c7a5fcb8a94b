"""Requests to stop, in every way that schedulers and people send them: an orderly end, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2p_dist.common import console
from p2p_dist.jobs import stage_process
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint, distributed
from p2p_dist.train.verify import verify_run
from tests.faults.job import At, Job, children
from tests.train import on_ranks

HPC = Path(__file__).parents[2] / "hpc"


@pytest.fixture
def begin(new_run):
    """`begin(name, ranks, train settings)`: a run directory for so many ranks."""

    def make(name="run", world_size=2, **changed):
        evaluate = {"songs": 1, "seconds": 1.0, "iterations": 2}
        train = {"keep_every": 100, **changed}
        return new_run(name, resources={"nodes": world_size}, train=train, evaluate=evaluate)[0]

    return make


def check_stopped(job, run, last=None):
    """Ended in order at or before step `last`, with all of it saved."""
    assert job.end() == console.STOPPED, job.log()
    outcome = run.read_outcome()
    steps = metrics_file.read(run)[-1]["step"]
    assert (outcome["outcome"], outcome["step"]) == ("stopped", steps)
    assert checkpoint.load_newest(run.checkpoints)[0] == steps
    assert last is None or steps <= last, (steps, last)
    assert not list(run.path.rglob(".tmp-*"))
    return steps


def signal_self(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def test_one_rank_alone_50_seeds(begin):
    """Row 5: one rank is signalled a step before the others.

    Seen: the others wait for it in the next collective until its timeout.
    Now: all ranks agree by a collective and stop at the same step, two after the signal; 50 seeds of rank, step and signal.
    """
    random_ = random.Random(5)
    twin = begin("twin", steps=150)
    assert Job(twin).end() == 0
    run = begin("signalled", steps=150)
    for seed in range(50):
        at, rank = checkpoint.newest_step(run.checkpoints), random_.randrange(2)
        after = at + random_.randrange(2)
        job = Job(run, At(after, signal_self, (random_.choice((signal.SIGTERM, signal.SIGUSR2)),), (rank,)))
        assert check_stopped(job, run) == after + 2, f"seed {seed}"
    assert Job(run).end() == 0
    assert on_ranks.equal(on_ranks.state(run.path, 150), on_ranks.state(twin.path, 150))
    assert on_ranks.digests(run) == on_ranks.digests(twin)
    assert verify_run(run) == []


def acts_alone():
    """The negative twin: a rank that was signalled stops at once, without asking the others."""
    distributed.Agreement.propose = lambda self, value: value


def test_without_agreement_the_others_would_wait(begin):
    run = begin(hang_after=3)
    job = Job(run, At(6, signal_self, (signal.SIGTERM,), (1,)), sabotage=acts_alone)
    assert job.end() not in (0, console.STOPPED)


def test_signalled_twice_and_in_kinds(begin):
    """Rows 1, 3: preemption sends TERM and USR2, container starters and shells pass each on once more.

    Seen: two saves at once, results of an earlier attempt, a second requeue.
    Now: any number of requests is one; those that come while a process leaves are ignored. Exit code 75, always.
    """
    run = begin(world_size=4, steps=100)
    job = Job(run).until(4)
    for _ in range(3):
        job.signal(signal.SIGTERM)
        job.signal(signal.SIGUSR2)
        time.sleep(0.02)
    while job.parent.is_alive():  # until the very end
        for process in children(job.parent.pid):
            try:
                os.kill(process, random.choice((signal.SIGTERM, signal.SIGUSR2)))
            except ProcessLookupError:
                continue
    check_stopped(job, run)


def fork_a_child(folder):
    """As a library may: a child that inherits the handler."""
    child = os.fork()
    if child == 0:
        for _ in range(1200):  # not one long sleep: a signal just before it would be handled after it
            time.sleep(0.1)
        os._exit(0)
    (folder / "child").write_text(str(child))


def test_children_are_signalled_too(begin):
    """Row 3: the signal reaches child processes as well.

    Seen: the child runs the handler of its parent: two checkpoints, a double requeue; or it ignores TERM and outlives.
    Now: the handler belongs to one process; a child that inherited it dies of the signal.
    """
    run = begin(steps=100)
    job = Job(run, At(2, fork_a_child, (run.path,), (0,))).until(4)
    child = int((run.path / "child").read_text())
    os.kill(child, signal.SIGUSR2)
    job.until(10)
    assert not _is_alive(child), "the child died of it"
    assert run.read_outcome() is None, "and the training did not stop"
    job.signal(signal.SIGTERM)
    check_stopped(job, run)


def _is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_whole_process_group_with_wrappers(begin):
    """Row 4: the signal reaches the shells around python too.

    Seen: the shell dies of USR2 and takes the training along before the save (exit code 140).
    Now: what jobs start their processes with ends in exec, so that the task's process is python itself: the group is
    signalled, exit code 75.
    """
    run = begin(steps=3000, world_size=1, checkpoint_every=500)
    site = run.path / "the site's environment"
    site.write_text("export OF_THE_SITE=here\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "P2P_ENVIRONMENT": str(site)}
    command = ["bash", str(HPC / "rank.sh"), sys.executable, "-m", "p2p_dist.jobs.stage_process", "train", str(run.path)]
    shell = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True)
    for line in shell.stdout:
        if line.startswith("train: 3/"):
            break
    assert b"OF_THE_SITE=here" in Path(f"/proc/{shell.pid}/environ").read_bytes() and not children(shell.pid)
    for number in (signal.SIGUSR2, signal.SIGTERM):
        os.killpg(shell.pid, number)
    shell.stdout.read()
    assert shell.wait(60) == console.STOPPED
    assert checkpoint.load_newest(run.checkpoints)[0] == metrics_file.read(run)[-1]["step"]


def slow_saves():
    honest = checkpoint.save

    def save(*arguments):
        time.sleep(1)
        honest(*arguments)

    checkpoint.save = save


def test_during_a_save(begin):
    """Rows 1, 3: the signal comes while a checkpoint is being written.

    Seen: a half-written checkpoint, or a second writer.
    Now: the write is finished, then what was trained since is saved, then the process ends.
    """
    run = begin(steps=100)
    job = Job(run, sabotage=slow_saves).until(5)
    job.signal(signal.SIGTERM, [1])
    steps = check_stopped(job, run)
    assert [found.step for found in checkpoint.find(run.checkpoints)] == sorted({5, steps})


def test_before_the_first_step(begin):
    """Row 1: the signal comes while processes start.

    Seen: one rank dies of it and the others wait for it for minutes.
    Now: it is held back until the rank listens, and heard at the first step; the run stops cleanly, early.
    """
    for number in range(4):
        run = begin(f"early-{number}", steps=100)
        job = Job(run)
        job.ranks()
        time.sleep(0.05 * number)
        job.signal(signal.SIGTERM, [number % 2])
        check_stopped(job, run)


def test_while_its_process_imports(begin):
    """Row 1: the signal comes while Python itself still starts, as when a job is cancelled in its first second.

    Seen: one rank dies of it (exit code 140), and the others wait for it for a minute.
    Now: kept until the rank listens; the run stops cleanly at its first steps.
    """
    run = begin(steps=10**6, world_size=1)
    command = [sys.executable, "-X", "importtime", "-m", "p2p_dist.jobs.stage_process", "train", str(run.path)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "faulthandler" in line:  # the first import after requests are held back; tyro and torch come much later
            break
    process.send_signal(signal.SIGUSR2)
    assert "tyro" in process.stderr.read()
    assert process.wait(60) == console.STOPPED
    assert run.read_outcome()["outcome"] == "stopped" and run.read_outcome()["step"] <= 2


def test_the_parent_is_signalled(begin):
    """Row 1: a person's Ctrl-C, or TERM to the process that forked the ranks, at any instant of its life.

    Seen: ranks that outlive their parent.
    Now: all ranks stop at a step, with a checkpoint.
    """
    for number in range(3):
        run = begin(f"parent-{number}", steps=100)
        job = Job(run)
        job.ranks()
        time.sleep(0.1 * number)
        os.kill(job.parent.pid, signal.SIGTERM)
        check_stopped(job, run)


def test_after_the_last_step(begin):
    """Row 1: the signal comes when all steps are done.

    Seen: a finished run that is requeued.
    Now: done is done, exit code 0.
    """
    run = begin(steps=10)
    job = Job(run, sabotage=slow_saves).until(10)
    job.signal(signal.SIGTERM)
    assert job.end() == 0
    assert run.read_outcome()["outcome"] == "done"
    assert checkpoint.load_newest(run.checkpoints)[0] == 10


def test_while_evaluating(begin):
    """Row 1: the signal, and a second of another kind, comes while checkpoints are evaluated.

    Seen: a traceback, or half an evaluation that counts as done.
    Now: exit code 75; an evaluation is whole or not there, the next start continues with the one that was cut.
    """
    run = begin(steps=5, world_size=1)
    assert Job(run).end() == 0
    program = f"exec {sys.executable} -m p2p_dist.jobs.stage_process evaluate '{run.path}'"
    shell = subprocess.Popen(["bash", "-c", program], start_new_session=True)
    end = time.monotonic() + 60
    while not list(run.evaluations.glob("*")) and time.monotonic() < end:
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM):
        os.killpg(shell.pid, number)
    assert shell.wait(60) == console.STOPPED
    assert not list(run.evaluations.glob("step-*"))
    assert run.read_outcome("evaluate")["outcome"] == "stopped"
    assert stage_process.evaluate(run, rundir.read_settings(run)) == console.DONE
    assert [path.name for path in run.evaluations.glob("[.s]*")] == [rundir.step_name(5)]


def test_the_exit_waits_for_nobody():
    """No thread of a library keeps a process that has finished: it leaves by os._exit."""
    program = (
        "import threading, time, sys\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "from p2p_dist.jobs import stage_process\n"
        "stage_process.leave(75)\n"
    )
    begun = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], timeout=50).returncode == console.STOPPED
    assert time.monotonic() - begun < 40

"""Ranks that die or hang: the job ends soon, its log says who, where and when, and it is restarted if that makes sense."""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from p2p_dist.common import console, files
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.jobs import local
from p2p_dist.run import rundir, starts
from p2p_dist.train import checkpoint, distributed, loop
from p2p_dist.train.verify import verify_run
from tests.conftest import lay_out_run
from tests.faults.job import At, Job
from tests.train import on_ranks

HOST = socket.gethostname()

HANG = 5.0
"""Seconds without a step that count as hanging here; the machine may be busy."""


@pytest.fixture
def begin(new_run):
    """`begin(name, ranks, train settings)`: a run directory for so many ranks."""

    def make(name="run", world_size=2, **changed):
        settings = {"keep_every": 100, "hang_after": HANG, **changed}
        return new_run(name, resources={"nodes": world_size}, train=settings)[0]

    return make


def crash(kind):
    if kind == "abort":
        os.abort()
    elif kind == "memory":  # as a cgroup's limit or the machine's own killer does it
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "MemoryError":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
        bytearray(1 << 28)
    else:
        ctypes.string_at(0)  # SIGSEGV


@pytest.mark.parametrize(
    ("kind", "rank", "told"),
    [
        ("abort", 1, "SIGABRT"),
        ("memory", 0, "SIGKILL"),
        ("memory", 3, "SIGKILL"),
        ("segmentation", 1, "SIGSEGV"),
        ("MemoryError", 1, "exit code 70"),
    ],
)
def test_a_rank_dies(begin, kind, rank, told):
    """Row 14: a rank dies of SIGKILL (out of memory), SIGSEGV, abort, or a limit of memory.

    Seen: the others hang for 10 to 30 minutes, then all fail without a cause.
    Now: all end within seconds, with the exit code of a crash and no outcome; the log names rank, host, step and signal.
    """
    run = begin(world_size=4 if rank == 3 else 2)
    job = Job(run, At(7, crash, (kind,), (rank,)))
    begun = time.monotonic()
    assert job.end() == console.CRASHED, job.log()
    assert time.monotonic() - begun < 60
    assert run.read_outcome() is None
    assert f"rank {rank} of {job.world_size} on {HOST} ended with {told}, after step 7" in job.log()
    if rank:  # else the save of step 5 may have been cut
        assert checkpoint.load_newest(run.checkpoints)[0] == 5
    survivor = 1 - min(rank, 1)
    assert f"rank {survivor} of {job.world_size} on {HOST}, after step 7" in job.log(survivor), job.log(survivor)
    assert "Traceback" not in job.log(survivor) and "lost the connection to the other processes" in job.log(survivor)
    if kind in ("abort", "segmentation"):
        assert "Fatal Python error" in job.log(rank) and "test_crashes.py" in job.log(rank)
    again = Job(run)
    assert again.end() == 0, again.log()
    assert verify_run(run) == []


def hang(kind):
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "GIL":
        ctypes.PyDLL(None).sleep(1000)  # a library that does not let go of the interpreter
    else:
        time.sleep(1000)


def saves_hang():
    checkpoint.save = lambda *_: time.sleep(1000)


def no_watchdog():
    loop.Watchdog._arm = lambda self: None
    loop.Watchdog._watch = lambda self: None


@pytest.fixture(scope="module")
def hanging(tmp_path_factory, tiny_shards):
    """Trainings that come to hang, side by side, for each mostly waits: kind -> its job."""
    place, jobs = tmp_path_factory.mktemp("hanging"), {}
    for kind, world_size, rank, sabotage in (
        ("GIL", 1, 0, None),  # alone, so that only the alarm can end it
        ("stopped", 2, 1, None),
        ("stuck", 2, 1, None),
        ("no watchdog", 2, 1, no_watchdog),
        ("save", 1, None, saves_hang),
    ):
        train = {"keep_every": 100, "hang_after": HANG, "steps": 30}
        run, _ = lay_out_run(place, tiny_shards, kind, resources={"nodes": world_size}, train=train)
        faults = [] if rank is None else [At(7, hang, ("stopped" if sabotage else kind,), (rank,))]
        jobs[kind] = Job(run, *faults, sabotage=sabotage)
    yield jobs
    for job in jobs.values():
        if job.parent.is_alive():
            with pytest.raises(AssertionError, match="not ended"):
                job.end(0)


@pytest.mark.parametrize("kind", ["stopped", "GIL", "stuck"])
def test_a_rank_hangs(hanging, kind):
    """Row 15: a rank is stopped (SIGSTOP), stuck in reading or writing, or a library holds the GIL for good.

    Seen: node hours burn in silence.
    Now: no step for `train.hang-after` seconds ends every rank that waits, all stacks in its log, exit code 70 and no
    outcome: a crash. Where the GIL is held the stacks come all the same, and the kernel's alarm ends the process.
    """
    rank, job = 0 if kind == "GIL" else 1, hanging[kind]
    run = job.run
    assert job.end(HANG + 60) == console.CRASHED, job.log()
    assert run.read_outcome() is None
    told = {"stopped": "SIGKILL", "GIL": "SIGALRM", "stuck": "exit code 70"}[kind]
    assert f"rank {rank} of {rank + 1} on {HOST} ended with {told}, after step 7" in job.log()
    if kind == "stopped":  # it can't say anything; the one that waits for it does
        assert (
            f"rank 0 of 2 on {HOST}: no step finished for 5 s after step 7: training hangs; stack traces are above"
        ) in job.log()
        assert "in train_step" in job.log()
    else:
        assert "in hang" in job.log(rank), "the stack says where it was"
    if kind != "GIL":  # which may have cut the save of step 5
        assert checkpoint.load_newest(run.checkpoints)[0] == 5


def test_without_the_watchdog_it_would_wait(hanging):
    job = hanging["no watchdog"].until(7)
    time.sleep(max(0.0, job.run.metrics.stat().st_mtime + HANG + 5 - time.time()))
    assert job.parent.is_alive() and job.step() == 7
    with pytest.raises(AssertionError, match="not ended"):
        job.end(0)


def test_a_save_hangs(hanging):
    """Rows 15, 39: the file system takes a write and never answers.

    Seen: silent waste at the next save.
    Now: the next save waits for the one before; a wait longer than `train.hang-after` is a hang and names where.
    """
    job = hanging["save"]
    assert job.end() == console.CRASHED
    assert "no step finished for 5 s after step" in job.log() and "saver.py" in job.log()


def test_a_port_that_is_in_use(ranks, tmp_path):
    """Row 13: another program has MASTER_PORT.

    Seen: "Address already in use", and the others wait for ten minutes.
    Now: rank 0 takes the next of four ports and notes which; so the others never talk to the other program.
    """
    assert ranks(2, meet_beside, tmp_path / "note", 1, seconds=120) == [2, 2]
    with pytest.raises(AssertionError, match="are all in use"):
        ranks(1, meet_beside, tmp_path / "note", distributed.PORTS, seconds=120)


def meet_beside(note, taken):
    """World size as the ranks find it, where `taken` ports are occupied by programs that never answer."""
    held = [socket.socket() for _ in range(taken)]
    if os.environ["RANK"] == "0":
        for number, each in enumerate(held):
            each.bind(("0.0.0.0", int(os.environ["MASTER_PORT"]) + number))
            each.listen()
        os.environ["WORLD_SIZE"] = "2"
    place, _ = distributed.start(note)
    distributed.barrier(place)
    return distributed.dist.get_world_size()


def test_an_older_attempt_is_not_met(ranks, tmp_path):
    """Row 12: ranks of an attempt that was restarted are still alive, and listen at the port.

    Seen: a barrier that counts 16 of 8 ranks, two writers in one run.
    Now: the port is noted together with the attempt that it belongs to; ranks of another wait for their own.
    """
    assert ranks(2, meet_another, tmp_path / "note", seconds=120) == [2, 2]


def meet_another(note):
    os.environ["P2P_ATTEMPT"] = "new"
    port = int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        older = distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
        files.write_json(note, {"attempt": "old", "port": older.port})
        time.sleep(1)
    place, _ = distributed.start(note)
    distributed.barrier(place)
    return distributed.dist.get_world_size()


def test_a_second_owner_is_told(begin):
    """Rows 12, 33: a second start of a run that is running, or whose owner was killed.

    Seen: two writers in one run directory, or a lock that nobody ever frees.
    Now: the second is told who owns the run, and how to look; the kernel drops the lock of a process that is gone.
    """
    run = begin()
    program = (
        "import sys, time; from pathlib import Path; from p2p_dist.run.rundir import RunDir, lock_run; "
        "owner = lock_run(RunDir(Path(sys.argv[1]))); print('mine', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "mine\n"
    with pytest.raises(ValueError, match=rf"process {other.pid} on {HOST} since .*status\.json"):
        rundir.lock_run(run)
    other.kill()
    other.wait()
    rundir.lock_run(run).close()


def test_begun_again_after_crashes(begin, monkeypatch, capsys):
    """Rows 10, 14: a training that crashes now and then, or always at the same step.

    Seen: a person must look every hour; or node hours burn for days on one bug.
    Now: restarted at most `--max-crash-restarts` times, and only if it came further than at its last start.
    """
    run = begin(steps=30)
    twin = begin("twin", steps=30)
    assert Job(twin).end() == 0
    owner = rundir.lock_run(run)

    def stage(crashes):
        """Crash at these steps, one an attempt, in the place of the launcher's own processes."""
        left = iter(crashes)

        def start(_, run, owner, attempt):
            run.outcome.unlink(missing_ok=True)
            step = next(left, None)
            faults = [At(step, crash, ("abort",), (1,))] if step is not None else []
            return Job(run, *faults, attempt=attempt).end()

        return start

    settings = rundir.read_settings(run)
    monkeypatch.setattr(local, "run_stage", stage([7, 13, 22]))
    assert local.run_until_it_ends("train", run, settings.resources.max_crash_restarts, owner) == console.DONE
    assert on_ranks.equal(on_ranks.state(run.path, 30), on_ranks.state(twin.path, 30))
    assert capsys.readouterr().err.count("restarting from there") == 3

    stuck = begin("stuck", steps=40)
    monkeypatch.setattr(local, "run_stage", stage([7, 7, 7, 7, 7]))
    assert local.run_until_it_ends("train", stuck, settings.resources.max_crash_restarts, owner) == console.CRASHED
    told = capsys.readouterr().err
    assert told.count("restarting from there") == 1
    assert "it made no progress since its start (step 5)" in told

    often = begin("often", steps=40)
    monkeypatch.setattr(local, "run_stage", stage([6, 11, 16, 21, 26, 31]))
    assert local.run_until_it_ends("train", often, settings.resources.max_crash_restarts, owner) == console.CRASHED
    assert "it crashed 4 times (--max-crash-restarts 3)" in capsys.readouterr().err
    monkeypatch.setattr(local, "run_stage", stage([]))
    assert local.run_until_it_ends("train", often, settings.resources.max_crash_restarts, owner) == console.DONE, (
        "a person begins the counts anew"
    )
    owner.close()


def test_starts_are_counted_from_a_file(tmp_path):
    """Rows 10, 33: what counts the restarts is killed itself, before its last line.

    Seen: a count that never grows, and so a loop without end.
    Now: counted at the start of an attempt, from a file; the attempt before, which wrote no end, gets one then.
    """
    log = tmp_path / "logs" / "train.attempts"
    assert starts.note_start(log, "a.0", 0, by_hand=True) is None
    assert starts.note_start(log, "a.1", 0) is None
    assert starts.count(log).open == "a.1" and starts.count(log).starts == 2
    assert starts.note_start(log, "a.2", 0) is None
    assert starts.note_start(log, "a.3", 0) is None, "killed by others: not the run's own doing"
    assert [line.split()[-1] for line in log.read_text().splitlines() if line.startswith("end")] == ["killed"] * 3
    for number, (code, why) in enumerate(((70, "crash"), (1, "failed"), (75, "stopped")), 4):
        starts.note_end(log, f"a.{number - 1}", 0, code, why)
        refused = starts.note_start(log, f"a.{number}", 0)
        assert (refused is None) == (number < 6)
    assert refused == "started 4 times from the same place (step 0) without progress"
    assert starts.note_start(log, "b.0", 0, by_hand=True) is None
    assert starts.note_start(log, "b.1", 5) is None
    starts.note_end(log, "b.1", 10, 75, "stopped")
    counts = starts.count(log)
    assert (counts.starts, counts.crashes, counts.same, counts.began) == (2, 0, 1, 5), "an orderly stop is no crash"
    for number in range(4):
        assert starts.note_start(log, f"c.{number}", 10 * number + 10) is None
        starts.note_end(log, f"c.{number}", 10 * number + 20, 70, "crash")
        refused = starts.refuse_restart(log, 10 * number + 20, 3)
        assert (refused is None) == (number < 3)
    with log.open("a") as file:
        file.write("start c.9\nsta")  # cut short
    assert starts.count(log).starts == 6


def test_reads_that_fail_for_a_moment(tiny_shards, monkeypatch):
    """Row 38: ESTALE and EIO from a parallel file system.

    Seen: a crash after days; under a memory map a SIGBUS.
    Now: read again after a pause, from a file opened anew; the third failure names shard and offset.
    """
    honest, errors = os.preadv, itertools.chain([116, 5], itertools.repeat(0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def preadv(*arguments):
        if number := next(errors):
            raise OSError(number, os.strerror(number))
        return honest(*arguments)

    index = Index(tiny_shards, "train")
    whole = index.read(np.arange(4))
    monkeypatch.setattr(os, "preadv", preadv)
    assert (index.read(np.arange(4)) == whole).all()
    errors = itertools.repeat(116)
    with pytest.raises(OSError, match=r"\.tar at offset \d+"):
        index.read(np.arange(4))


def test_memory_of_the_node_is_too_small(tiny_shards, tmp_path, monkeypatch):
    """Row 37: /dev/shm is too small for the shards.

    Seen: "Bus error", in whichever process touches the page that is not there.
    Now: checked before anything is copied; the message says what is needed, what is there, and how to go without.
    """
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"kB of files, 1 kB free, of which a tenth stays free: use --data\.stage none"):
        copy_to_node(tiny_shards, "train", tmp_path)
    assert not list(tmp_path.rglob("*.tar"))

"""A folder has one owner at a time, with locks of the file system and without."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from p2p_dist.common import files
from p2p_dist.run import lock, rundir


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "my runs"))
    return rundir.find("first")


def test_a_second_owner_is_told_of_the_first(run):
    first = rundir.lock_run(run)
    with pytest.raises(ValueError, match=rf"running already: process {os.getpid()} on .*logs"):
        rundir.lock_run(run)
    first.close()
    rundir.lock_run(run).close()


def test_a_killed_owner_owns_nothing(run):
    if (child := os.fork()) == 0:
        rundir.lock_run(run)
        os._exit(9)
    os.waitpid(child, 0)
    rundir.lock_run(run).close()


def mounts(folder, option, *, of_others=False):
    """The mounts of this machine, where that of a folder, or all others, have one more option of their file system."""
    own = Path(folder).stat().st_dev
    dev = f"{os.major(own)}:{os.minor(own)}"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    changed = [line + (f",{option}" if (line.split()[2] == dev) != of_others else "") for line in lines]
    assert changed != lines
    return "\n".join(changed)


@pytest.mark.parametrize("option", ["localflock", "local_lock=all", "local_lock=flock"])
def test_locks_that_hold_on_one_node_only_do_not_count(option, tmp_path, monkeypatch):
    """Of the file system that the file is on, not of another one; `flock` and `local_lock=none` hold on all nodes."""
    listed = tmp_path / "mountinfo"
    monkeypatch.setattr(lock, "MOUNTS", listed)
    with (tmp_path / "file").open("w") as file:
        for text in (mounts(tmp_path, option, of_others=True), mounts(tmp_path, "flock,local_lock=none,local_lock=posix"), ""):
            listed.write_text(text)
            lock.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        listed.write_text(mounts(tmp_path, option))
        with pytest.raises(OSError, match="No locks available") as said:
            lock.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert said.value.errno in lock.NO_LOCKS
        listed.unlink()
        lock.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture(params=["ENOSYS", "ENOLCK", "localflock"])
def no_locks(request, monkeypatch, tmp_path):
    """A file system that answers so to flock, or is mounted so that other nodes see no lock."""
    if request.param == "localflock":
        files.write_text(tmp_path / "mountinfo", mounts(tmp_path, request.param))
        monkeypatch.setattr(lock, "MOUNTS", tmp_path / "mountinfo")
        return

    def flock(descriptor, kind):
        number = getattr(errno, request.param)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


def test_without_locks_a_run_has_one_owner_too(run, no_locks):
    first = rundir.lock_run(run)
    link = run.path / ".owner-link"
    assert lock.owner_of(run.path)["process"] == os.getpid()
    with pytest.raises(
        ValueError, match=rf"running already: process {os.getpid()} on .*if that process is gone, remove {link}"
    ):
        rundir.lock_run(run)
    assert link.exists() and not list(run.path.glob(".tmp-*"))
    first.close()
    assert lock.owner_of(run.path) is None
    rundir.lock_run(run).close()
    assert not link.exists()


def test_without_locks_a_killed_owner_owns_nothing_once_its_children_are_gone(run, no_locks):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        rundir.lock_run(run)
        if os.fork() == 0:  # inherits it
            os.close(write)
            os.read(read, 1)
        os._exit(9)
    os.close(read)
    os.waitpid(child, 0)
    with pytest.raises(ValueError, match=rf"process {child} on "):
        rundir.lock_run(run)
    os.close(write)
    for _ in range(100):
        if lock.owner_of(run.path) is None:
            break
        time.sleep(0.05)
    rundir.lock_run(run).close()


def test_without_locks_a_child_that_works_on_keeps_what_its_parent_gives_up(run, no_locks):
    first = rundir.lock_run(run)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[first.descriptor])
    first.close()
    assert (run.path / ".owner-link").exists(), "another machine sees that somebody is at work"
    child.kill()
    child.wait()
    rundir.lock_run(run).close()
    assert not (run.path / ".owner-link").exists()


def test_without_locks_another_machines_owner_is_left_alone(run, no_locks):
    run.path.mkdir(parents=True, exist_ok=True)
    link = run.path / ".owner-link"
    link.write_text(json.dumps({"process": 1, "host": "elsewhere", "since": "now", "start": 5}))
    with pytest.raises(ValueError, match=r"process 1 on elsewhere since now; .*remove"):
        rundir.lock_run(run)
    link.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": "now", "start": 5}))
    rundir.lock_run(run).close()  # another process had that number


def test_without_locks_a_job_that_slurm_begins_again_takes_over_from_its_earlier_start(run, no_locks, monkeypatch):
    """Which ended on another node. Another job, or another process of the same start, does not."""
    run.path.mkdir(parents=True, exist_ok=True)
    before = {"process": 1, "host": "elsewhere", "since": "now", "start": 5, "job": "7", "attempt": "7.0-a"}
    (run.path / ".owner-link").write_text(json.dumps(before))
    for job, attempt in (("8", "8.0-a"), ("7", "7.0-a"), ("", "")):
        monkeypatch.setenv("P2P_JOB", job)
        monkeypatch.setenv("P2P_ATTEMPT", attempt)
        with pytest.raises(ValueError, match="process 1 on elsewhere"):
            rundir.lock_run(run)
    monkeypatch.setenv("P2P_JOB", "7")
    monkeypatch.setenv("P2P_ATTEMPT", "7.1-b")
    first = rundir.lock_run(run)
    assert (lock.owner_of(run.path)["job"], lock.owner_of(run.path)["attempt"]) == ("7", "7.1-b")
    first.close()


def test_without_locks_one_of_many_takes_over(run, no_locks):
    """All see the file of a process that is gone."""
    run.path.mkdir(parents=True, exist_ok=True)
    gone = {"process": 1 << 30, "host": socket.gethostname(), "since": "now", "start": 5}
    (run.path / ".owner-link").write_text(json.dumps(gone))
    begin, tried, end = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(8):
        if (child := os.fork()) == 0:
            os.read(begin[0], 1)
            code = 1
            with contextlib.suppress(ValueError):
                rundir.lock_run(run)
                code = 0
            os.write(tried[1], b"x")
            os.read(end[0], 1)  # holds it until all have tried
            os._exit(code)
        children.append(child)
    os.write(begin[1], b"x" * 8)
    for _ in range(8):
        os.read(tried[0], 1)
    os.write(end[1], b"x" * 8)
    assert sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children) == 1

"""Linux calls."""

import os
import resource
import signal
import threading
import time

import pytest

from p2p_dist.common import linux


def test_a_child_ends_with_its_parent():
    """The parent forks a child and ends; the child would sleep for a minute."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        ready, go = os.pipe()
        mine = os.getpid()
        if os.fork() == 0:
            linux.die_with_parent(parent=mine)
            os.write(write, b"%d" % os.getpid())
            os.write(go, b"x")
            time.sleep(60)
        os.read(ready, 1)
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(write)
    child = int(os.read(read, 20))
    assert os.read(read, 1) == b"", "it has ended, since nobody can write any more"
    os.close(read)
    assert child != parent


def test_a_child_whose_parent_is_gone_already_ends_at_once():
    child = os.fork()
    if child == 0:
        linux.die_with_parent(signal.SIGTERM, parent=1 if os.getppid() != 1 else 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_signal_that_another_thread_receives_waits_too():
    """A library's thread does not block it, so Ctrl-C ended a command while it was starting its workers."""
    over, told = threading.Event(), []
    thread = threading.Thread(target=over.wait)
    thread.start()  # before the block: the kernel gives it the signal
    before = signal.signal(signal.SIGUSR1, lambda number, frame: told.append(number))
    try:
        with linux.blocked([signal.SIGUSR1]):
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(20):
                time.sleep(0.01)
            assert told == []
        assert told == [signal.SIGUSR1]
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        assert told == [signal.SIGUSR1] * 2
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_signals_are_blocked_as_long_as_asked_for_and_no_other_is_unblocked():
    def now():
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    with linux.blocked([signal.SIGUSR1]):
        before = now()
        with pytest.raises(OSError), linux.blocked([signal.SIGUSR1, signal.SIGUSR2]):
            assert now() == before | {signal.SIGUSR2}
            raise OSError
        assert now() == before, "one that was blocked before stays so"
    assert now() == before - {signal.SIGUSR1}


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "after"),
    [
        (64, 256, 10, 10, 64),
        (64, 256, 40, 40, 160),
        (64, 256, 1000, 64, 256),
        (64, 64, 1000, 16, 64),
        (2, 2, 5, 1, 2),
        (64, 256, 0, 1, 64),
    ],
)
def test_as_many_files_may_be_open_as_the_system_allows(soft, hard, wanted, allowed, after):
    """In a process of its own, whose hard limit is lowered."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        fits = linux.allow_open_files(wanted) == allowed and resource.getrlimit(resource.RLIMIT_NOFILE) == (after, hard)
        os._exit(0 if fits else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert linux.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert linux.usable_cores() == len(before)


def test_a_processor_says_whether_it_computes_in_bf16():
    """By a whole word: avx512f and avx512_vbmi2 are not it. Arm lists Features."""
    found = {
        units: linux.computes_in_bf16(f"processor : 0\n{units}\n")
        for units in (
            "flags\t\t: fpu avx512f avx512_vbmi2 amx_tile",
            "flags\t\t: avx512_bf16",
            "flags\t\t: amx_bf16 x",
            "Features\t: bf16 sve",
        )
    }
    assert list(found.values()) == [False, True, True, True]


def test_a_limit_that_the_system_refuses_to_raise():
    """A Mac does, beyond a number that it does not tell."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))

            def refuse(*_):
                raise ValueError("not allowed to raise maximum limit")

            linux.resource.setrlimit = refuse
            code = int(linux.allow_open_files(1000) != 16)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

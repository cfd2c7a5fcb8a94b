"""The ways to stop a training on this machine: whom each signal reaches. The processes are real, the training is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2p_dist.checks.drill import here

RANK = """
import os, signal, sys, time
heard = []
def note(number, _):
    heard.append(signal.Signals(number).name)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, note)
open(sys.argv[1] + ".ready", "w").close()
while True:
    time.sleep(0.01)
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(" ".join(sorted(set(heard))))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


@pytest.fixture
def three(tmp_path):
    """A parent and two ranks; each writes what it hears into a file: `parent`, `first`, `last`."""
    names = ("parent", "first", "last")
    processes = [subprocess.Popen([sys.executable, "-S", "-c", RANK, tmp_path / name]) for name in names]
    until(lambda: all((tmp_path / f"{name}.ready").exists() for name in names))
    yield tmp_path, dict(zip(names, processes, strict=True))
    for process in processes:
        process.kill()
        process.wait()


def until(holds) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def stopped_by(text: str) -> here.Way:
    (way,) = [way for way in here.WAYS if text in way.name]
    return way


EVERYTHING = ("parent", "first", "last")

REACHED = [
    ("a request to stop (TERM), twice", ("parent",), {"SIGTERM"}),
    ("a preemption (USR2)", ("last",), {"SIGUSR2"}),
    ("TERM and USR2 to everything", EVERYTHING, {"SIGTERM", "SIGUSR2"}),
    ("one process killed", ("last",), signal.SIGKILL),
    ("segmentation fault", ("last",), signal.SIGSEGV),
    ("everything killed in the middle of a save", EVERYTHING, signal.SIGKILL),
]


def heard(place: Path, name: str) -> set[str]:
    path = place / name
    return set(path.read_text().split()) if path.exists() else set()


@pytest.mark.parametrize(("text", "who", "what"), REACHED)
def test_whom_a_way_to_stop_reaches(three, text, who, what):
    place, processes = three
    stopped_by(text).do([process.pid for process in processes.values()])
    if isinstance(what, set):
        until(lambda: all(heard(place, name) == what for name in who))
    else:
        assert [processes[name].wait(20) for name in who] == [-what] * len(who)
    others = set(EVERYTHING) - set(who)
    time.sleep(0.05)
    assert all(processes[name].poll() is None and not heard(place, name) for name in others)


def test_a_process_that_is_gone_is_no_error():
    gone = subprocess.Popen(["true"])
    gone.wait()
    for way in here.WAYS:
        way.do([gone.pid])


def test_only_one_way_waits_for_a_save():
    assert [way.name for way in here.WAYS if way.in_a_save] == ["everything killed in the middle of a save"]
    assert len({way.name for way in here.WAYS}) == len(here.WAYS) == 7 and os.getpid() > 0

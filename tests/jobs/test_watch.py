"""status --watch: on a pseudo-terminal, and in a pipe."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from p2p_dist.common import files
from p2p_dist.jobs import status, watch
from p2p_dist.run import metrics_file
from tests.jobs.run_on_lumi import run

__all__ = ["run"]

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def terminal(run):
    """A status --watch of the run on a terminal of 100 columns: its process, and the master's descriptor."""
    files.write_text(run.logs / "train.log", "".join(f"line {number} of the log\n" for number in range(40)))
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "50"}
    process = subprocess.Popen(
        [sys.executable, "launch/status.py", "mine", "--watch"],
        cwd=CHECKOUT, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    yield process, master
    process.kill()
    process.wait()
    os.close(master)


def read_until(master, wanted, seconds=30):
    """What the terminal got, until it holds a text."""
    got, end = "", time.monotonic() + seconds
    while wanted not in got:
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        assert ready, f"{wanted!r} did not come: {got[-2000:]!r}"
        got += os.read(master, 65536).decode(errors="replace")
    return got


def rest_of(master):
    """What the terminal got, until its process ended."""
    got = b""
    while select.select([master], [], [], 30)[0]:
        try:
            got += os.read(master, 65536)
        except OSError:  # Linux's answer once nobody has the terminal open
            break
    return got.decode()


def test_a_terminal_shows_table_and_log_until_q(run, terminal):
    process, master = terminal
    first = read_until(master, "q quits")
    assert "40 of 100" in first and "line 39 of the log" in first and "line 27 of the log" not in first
    metrics_file.Writer(run).append({"step": 50, "images_per_second": 64.0, "l1": 0.0625, "memory": 3.5e9})
    assert "3.5 GB" in read_until(master, "50 of 100") + read_until(master, "q quits")
    os.write(master, b"xq")
    left = rest_of(master)
    assert process.wait(10) == 0 and "\x1b[?1049l" in left, "the screen before it is back"
    assert "50 of 100" in left.split("\x1b[?1049l")[1] and "of the log" not in left.split("\x1b[?1049l")[1]


def test_ctrl_c_leaves_it_too(terminal):
    process, master = terminal
    read_until(master, "q quits")
    process.send_signal(signal.SIGINT)
    left = rest_of(master)
    assert process.wait(10) == 0 and "\x1b[?1049l" in left and "Traceback" not in left


def test_a_pipe_gets_a_line_for_each_change(run, monkeypatch, capsys):
    """Until nothing is running or queued any more."""
    monkeypatch.setattr(watch, "EVERY", 0.05)
    stages = dict.fromkeys(("preprocess", "train", "evaluate", "page"), "done")
    states = iter(["pending (Priority), job 7", "running, job 7", "running, job 7", "running, job 7", "stopped"])
    honest = status.gather

    def gather(one, around):
        found = honest(one, around)
        return {**found, "stages": {**stages, "train": next(states)}}

    monkeypatch.setattr(status, "gather", gather)
    adding = threading.Timer(0, metrics_file.Writer(run).append, [{"step": 60, "images_per_second": 32.0, "l1": 0.5}])
    adding.start()
    adding.join()
    assert watch.watch([run], alone=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", step")[0] for line in lines] == [
        "mine: train pending (Priority), job 7",
        "mine: train running, job 7",
        "mine: train stopped",
    ]
    assert lines[1].endswith(", step 60 of 100, l1 0.5000, 32 images/s, 1:20 left, 0 of 1 evaluated")


def test_runs_that_are_not_under_way_are_shown_once(run):
    files.write_text(run.path.with_name("broken") / "config.yaml", "train: [")
    done = subprocess.run(
        [sys.executable, "launch/status.py", "--watch"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == ""
    broken, mine = done.stdout.splitlines()
    assert broken.startswith("broken: can't be read: ") and re.match("mine: preprocess to do, step 40 of 100", mine)


def test_watch_alone(run):
    done = subprocess.run(
        [sys.executable, "launch/status.py", "--watch", "--json"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "omit --json and --verify" in done.stderr

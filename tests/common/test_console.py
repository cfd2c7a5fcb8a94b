"""What people and batch logs are shown."""

import errno
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from p2p_dist.common import console


def exit_code(main):
    with pytest.raises(SystemExit) as left:
        console.exit_with(main)
    return left.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("nodes must be greater than 0"), 2, "error: nodes must be greater than 0"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "/x/y (the disk is full: free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), 1, "quota is used up"),
        (OSError(errno.ENOSPC, "No space left on device while a.tar was fetched", "/x/y"), 1, "/x/y (the disk is full: free"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y", None, "/z"), 1, "/x/y -> /z (the disk is full: free"),
        (OSError(errno.EFBIG, "File too large", "/x/y"), 1, "/x/y (larger than a file may be here, see ulimit -f"),
        (OSError(errno.EPERM, "belongs to another: use --data.stage none", "/x/y"), 1, "use --data.stage none: /x/y\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/y"),
            1,
            "/x/y (permission denied: ask for access, or name another folder with $P2P_RUNS (runs and their shards) or --out)",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_message_and_its_exit_code(error, code, said, capsys):
    assert exit_code(raising(error)) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err and shown.out == ""


@pytest.mark.parametrize(
    ("size", "words"),
    [(999_499, "999 kB"), (10**6, "1 MB"), (99_499_999, "99 MB"), (10**8, "0.1 GB"), (2_880_000_000, "2.9 GB")],
)
def test_a_size_in_words(size, words):
    assert console.size(size) == words


def test_a_bug_is_not_hidden():
    with pytest.raises(TypeError):
        console.exit_with(raising(TypeError("a bug")))


def test_a_batch_log_gets_plain_lines_with_total_rate_and_time_left(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with console.Progress("train", 100, start=10, every=10, status=tmp_path / "status.json", stream=log) as progress:
        for step in range(11, 101):
            now[0] += 0.5
            progress.update(step, "l1 0.5")
    lines = log.getvalue().splitlines()
    assert lines[0] == "train: 11/100, 2/s, 0:45 left, l1 0.5"
    assert lines[-1] == "train: 100/100, 2/s, l1 0.5"
    assert 4 <= len(lines) <= 7, "one line at most every ten seconds of 45"
    assert "\x1b" not in log.getvalue() and "\r" not in log.getvalue()
    assert json.loads((tmp_path / "status.json").read_text())["done"] == 100


def test_what_was_there_before_a_resume_is_not_in_the_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with console.Progress("preprocess", 1, start=None, stream=log) as progress:
        for done in (19, 20, 30):
            now[0] += 10
            progress.total = 30
            progress.update(done)
    assert log.getvalue().splitlines()[:2] == ["preprocess: 19/30, 0.1/s, 1:50 left", "preprocess: 20/30, 0.1/s, 1:40 left"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_follows_a_total_that_is_known_later_and_shows_any_title(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    with console.Progress("preprocess", 1, start=None, stream=terminal) as progress:
        progress.total = 7
        progress.update(3, "[@click=b(] [red]A[/] \x1b]0;gone\x07\nsong")
    assert "3/7" in terminal.getvalue()
    assert r"[@click=b(] [red]A[/] \x1b]0;gone\x07\nsong" in terminal.getvalue()


def test_no_control_character_of_a_title_comes_into_a_log(capsys):
    title = "a\x1b[2Jb\rc\nd\x9be"
    console.say(title)
    console.complain(title)
    with console.Progress("preprocess", 1) as progress:
        progress.update(1, title)
    shown = capsys.readouterr()
    assert shown.err == "a\\x1b[2Jb\\rc\nd\\x9be\n", "messages may have several lines"
    assert shown.out == shown.err + "preprocess: 1/1, " + shown.out.split("1/1, ")[1]
    assert shown.out.endswith(", a\\x1b[2Jb\\rc\\nd\\x9be\n") and shown.out.count("\n") == 3


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with console.Progress("train", 10, stream=terminal) as progress:
        progress.update(10, "l1 0.5")
    assert "10/10" in terminal.getvalue()
    assert "train: 10/10" not in terminal.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (3725, "1:02:05")])
def test_durations(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 80), ("29", 80), ("30", 30), ("200", 200)])
def test_a_width_that_shows_nothing_of_a_table_is_not_believed(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert console.wide().width == width


WAITS = """
import sys, time
from p2p_dist.common import console
console.stop_as_ctrl_c()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
"""


def stopped(body, numbers, dispositions):
    """Start a program that waits, and send it signals. dispositions: of the signals in it."""

    def begin():
        for number, disposition in dispositions.items():
            signal.signal(number, disposition)

    going = subprocess.Popen([sys.executable, "-c", WAITS + body], stdout=subprocess.PIPE, text=True, preexec_fn=begin)
    assert going.stdout.readline() == "ready\n"
    for number in numbers:
        going.send_signal(number)
        time.sleep(0.5)
    return going


@pytest.mark.parametrize("first", console.STOPS)
def test_further_requests_do_not_disturb_the_cleaning_up(first):
    body = "    time.sleep(2)\n    print('clean', flush=True)\n"
    going = stopped(body, [first, signal.SIGTERM, signal.SIGHUP], dict.fromkeys(console.STOPS, signal.SIG_DFL))
    assert going.communicate(timeout=30)[0] == "clean\n" and going.returncode == 0


def test_under_nohup_a_closed_terminal_ends_nothing():
    going = stopped("    print('stopped', flush=True)\n", [signal.SIGHUP], {signal.SIGHUP: signal.SIG_IGN})
    assert going.poll() is None
    going.terminate()
    assert going.communicate(timeout=30)[0] == "stopped\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_after_its_terminal_is_gone_nothing_is_written_to_it(tmp_path, stream):
    terminal, side = pty.openpty()
    ready, clean = tmp_path / "ready", tmp_path / "clean"
    program = WAITS.replace('print("ready", flush=True)', f"open({str(ready)!r}, 'w')")
    program += f"    time.sleep(1)\n    print('x', file=sys.{stream}, flush=True)\n    open({str(clean)!r}, 'w')\n"
    begin = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731
    going = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=side, stderr=side, preexec_fn=begin
    )
    os.close(side)
    while not ready.exists():
        time.sleep(0.05)
    going.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    os.close(terminal)
    assert going.wait(30) == 0 and clean.exists()


def test_streams_that_were_closed_are_open_for_children_too():
    program = (
        "import subprocess, sys\nfrom p2p_dist.common import console\nconsole.open_standard_streams()\n"
        "assert sys.stdin.read() == ''\nchild = 'import os; [os.fstat(n) for n in range(3)]'\n"
        "sys.exit(subprocess.run([sys.executable, '-S', '-c', child]).returncode)\n"
    )
    assert subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]).returncode == 0

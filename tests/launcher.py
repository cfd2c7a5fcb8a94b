"""launch/submit.py as a user types it, in a process of its own, and the processes that it started."""

import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


class Launcher:
    """launch/submit.py in its own process, its output read as it comes."""

    def __init__(self, *arguments):
        command = [sys.executable, "-u", "launch/submit.py", *arguments]
        self.process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.shown = ""

    def until(self, text):
        """Read until a line holds `text`."""
        for line in self.process.stdout:
            self.shown += line
            if text in line:
                return self
        raise AssertionError(f"ended without {text!r}:\n{self.shown}")

    def end(self):
        """Read to the end; the exit code."""
        self.shown += self.process.stdout.read()
        return self.process.wait(timeout=120)


def started_by(text):
    """Processes whose command line holds `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def gone(text, seconds):
    """Whether all processes whose command line holds `text` end within so many seconds."""
    end = time.monotonic() + seconds
    while started_by(text) and time.monotonic() < end:
        time.sleep(0.1)
    return not started_by(text)

"""Imports torch once, uses no device, and forks a process for each part that a line of its input asks for; that one forks
another for each of its measurements, so that one that crashes or hangs costs itself only.

    {"part": "fast", "device": "cuda", "seconds": 240, "only": [], "done": [], "lines": FILE, "data": null, "scratch": FOLDER}

It says first which measurements there are.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PARTS = ("runs", "right", "fast", "rest")

SHORTEST = 3.0
"""Seconds under which no measurement is begun."""


def main() -> None:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from gpu_parts import common

    for module in PARTS:
        importlib.import_module(f"gpu_parts.{module}")
    place = common.Place(sys.argv[1], Path(), None)
    names = {part: [one.name for one in sys.modules[f"gpu_parts.{part}"].measurements(place)] for part in PARTS}
    sys.stdout.write(json.dumps(names) + "\nready\n")
    for line in sys.stdin:
        work = json.loads(line)
        part = os.fork()
        if part == 0:
            os.setsid()
            code = 1
            try:
                place = common.Place(work["device"], Path(work["scratch"]), Path(work["data"]) if work["data"] else None)
                run(work, place)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        tell(work, {"say": "part begins", "process": part})
        tell(work, {"say": "part ends", "code": os.waitstatus_to_exitcode(os.waitpid(part, 0)[1])})


def run(work: dict[str, Any], place: Any) -> None:
    """What is missing of one part."""
    end = time.monotonic() + work["seconds"]
    part = sys.modules[f"gpu_parts.{work['part']}"]
    for one in chosen(part.measurements(place), work["only"]):
        if one.name in work["done"]:
            continue
        say = {"name": one.name, "title": one.title, "table": one.table}
        tell(work, {**say, "say": "begins"})
        left = end - time.monotonic()
        if one.skipped:
            tell(work, {**say, "say": "ends", "state": "not run", "why": one.skipped})
        elif left < max(SHORTEST, one.least):
            tell(work, {**say, "say": "ends", "state": "not run", "why": f"{max(0, left):.0f} s of this part were left"})
        else:
            ended = in_a_child(one, work, min(left, one.seconds))
            if ended["state"] == "cut off" and left >= one.seconds:
                ended["state"] = "failed"  # of itself: it had all the time that it may take
            tell(work, {**say, "say": "ends", **ended})


def chosen(measurements: list[Any], only: list[str]) -> list[Any]:
    """Those whose names fit one of the patterns, in the order of the patterns; all where there is none."""
    if not only:
        return measurements
    fitting = [one for pattern in only for one in measurements if fnmatch.fnmatchcase(one.name, pattern)]
    return list(dict.fromkeys(fitting))


def tell(work: dict[str, Any], line: dict[str, Any]) -> None:
    """One line, in one write: children write to the same file."""
    with Path(work["lines"]).open("ab", buffering=0) as file:
        file.write(json.dumps(line, default=float).encode() + b"\n")


def in_a_child(one: Any, work: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run one measurement for at most so many seconds; how it ended: done, failed, or cut off."""
    log = Path(work["scratch"]) / "measurement.log"
    log.write_text("")  # a child that is cut off at once has not opened it
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.stdout = sys.stderr = log.open("w", buffering=1)
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        code = 1
        try:
            for row in one.measure():
                tell(work, {"say": "row", "name": one.name, "row": row})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = None
    while status is None and time.monotonic() - begun < seconds:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            status = os.waitstatus_to_exitcode(code)
        else:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it started, too
    if status is None:
        os.kill(child, signal.SIGKILL)  # before its first line it is of no group of its own
    took = {"seconds": time.monotonic() - begun}
    if status == 0:
        return {"state": "done", **took}
    last = log.read_text(errors="replace").splitlines()[-12:]
    if status is not None:
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else (last or ["without a word"])[-1]
        return {"state": "failed", "why": how[:300], "lines": last, **took}
    for _ in range(100):  # one that hangs in the driver may not even die: it is left behind
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0]:
                break
        time.sleep(0.05)
    return {"state": "cut off", "why": f"took more than {seconds:.0f} s", "lines": last, **took}


if __name__ == "__main__":
    main()

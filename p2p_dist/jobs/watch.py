"""Show the state of runs until the user quits: a live table on a terminal, elsewhere a line whenever something changes."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from p2p_dist.common import console
from p2p_dist.jobs import child, status, status_tables
from p2p_dist.run.rundir import RunDir

EVERY = 2.0
"""Seconds between two looks at the files of the runs."""

EVERY_WITH_SLURM = 10.0
"""Seconds between two looks where each asks Slurm's controller, which all users share."""

_UNDER_WAY = ("running", "pending", "configuring", "completing", "suspended", "requeued", "stopping", "resizing")
"""First words of the state of a stage that will change without the user."""


def watch(asked: list[RunDir], alone: bool) -> int:
    """Show runs until the user quits (q, Ctrl-C). Without a terminal, until no stage is running or queued.

    Args:
        alone: show one run in detail, with the end of its log.
    """
    every = EVERY if status.Around().jobs is None else EVERY_WITH_SLURM
    with contextlib.suppress(KeyboardInterrupt):
        if console.has_bar(sys.stdout):
            _on_terminal(lambda: status.gather_each(asked), alone, every)
        else:
            _line_by_line(lambda: status.gather_each(asked), every)
    return console.DONE


def _on_terminal(gather: Callable[[], list[dict[str, Any]]], alone: bool, every: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def picture(ended: bool = False) -> Group:
        found = gather()
        in_detail = alone and "stages" in found[0]
        table, lines = status_tables.table_of_one(found[0]) if in_detail else status_tables.table_of_all(found)
        below = [*map(console.cell, lines)]
        if not ended:
            below += [Text(line, style="dim") for line in (log_lines(found[0]) if in_detail else [])]
            below.append(Text(f"{time.strftime('%H:%M:%S')}, every {every:g} s; q quits", style="dim"))
        return Group(table, *below)

    live = Live(picture(), screen=True, auto_refresh=False)
    with _keys() as key:
        try:
            live.start(refresh=True)
            while key(every) != "q":
                live.update(picture(), refresh=True)
        finally:  # also where Ctrl-C comes in the middle of `start`
            live.stop()
    console.wide().print(picture(ended=True))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits so many seconds for a key, and returns it; an empty text if none was pressed."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    if descriptor is None:

        def no_key(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield no_key
        return
    before = termios.tcgetattr(descriptor)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _line_by_line(gather: Callable[[], list[dict[str, Any]]], every: float) -> None:
    shown: dict[str, str] = {}
    while True:
        found = gather()
        for one in found:
            if shown.get(one["run"]) != (line := in_a_line(one)):
                shown[one["run"]] = line
                console.say(line)
        if not any(text.startswith(_UNDER_WAY) for one in found for text in one.get("stages", {}).values()):
            return
        time.sleep(every)


def in_a_line(found: dict[str, Any]) -> str:
    """Return the state of a run in one line."""
    if "stages" not in found:
        return console.one_line(f"{found['run']}: can't be read: {found['wrong']}")
    stage = status_tables.current_stage(found)
    parts = [f"{found['run']}: {stage} {found['stages'][stage]}"]
    if found["step"]:
        parts.append(f"step {found['step']} of {'?' if found['total'] is None else found['total']}")
    if stage == "train" and found["l1"] is not None:
        parts.append(f"l1 {found['l1']:.4f}")
    if stage == "train" and found["images_per_second"] and found["seconds_left"]:
        parts.append(f"{found['images_per_second']:.3g} images/s, {console.duration(found['seconds_left'])} left")
    if found["to_evaluate"]:
        parts.append(f"{found['evaluated']} of {found['to_evaluate']} evaluated")
    return console.one_line(", ".join(parts))


def log_lines(found: dict[str, Any]) -> list[str]:
    """Return the last lines of a run's newest log; none if there is no log."""
    run = RunDir(Path(found["path"]))
    logs = [*run.slurm.glob("*/*_log.out"), *run.logs.glob("*.log")]
    there = [(log.stat().st_mtime, log) for log in logs if log.is_file() and not log.is_symlink()]
    return [console.one_line(line) for line in child.tail(max(there)[1]).splitlines()] if there else []

"""How often a stage was begun, how those starts ended, how far each came: counted from a file, never from memory.

On one machine; on Slurm the shell does it, without this program, in such lines with a few words more (hpc/begin.sh).

    launch NAME                                     a person began it: the counts begin anew
    start ATTEMPT PROGRESS SECONDS NODES            PROGRESS is a number that grows: for training the newest checkpoint
    end ATTEMPT PROGRESS SECONDS CODE WHY           WHY: done, stopped, failed, crash or killed

An attempt that was killed with all that watched it wrote no end: the next one writes it, at its own start.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

SAME_PLACE = 3
"""Starts from one place, one after the other, after which no further one is tried: it would burn node hours for days."""


@dataclass(frozen=True)
class Counts:
    """Since a person last began the stage.

    starts: all of them. crashes: those that ended badly. same: how many starts in a row began where the last one did.
    began: progress at the last start. open: the last attempt, where no end of it was written.
    """

    starts: int = 0
    crashes: int = 0
    same: int = 0
    began: int = -1
    open: str | None = None


def read(log: Path) -> Counts:
    """Count the lines of a file of attempts; one that is not there has none. Lines that make no sense are passed over."""
    starts = crashes = same = 0
    began, unfinished = -1, None
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        match line.split():
            case ["launch", *_]:
                starts = crashes = same = 0
                began, unfinished = -1, None
            case ["start", attempt, progress, *_] if progress.isdigit():
                same = same + 1 if int(progress) == began else 0
                starts, began, unfinished = starts + 1, int(progress), attempt
            case ["end", attempt, _, _, _, why, *_]:
                crashes += why == "crash"
                unfinished = None if attempt == unfinished else unfinished
    return Counts(starts, crashes, same, began, unfinished)


def begin(log: Path, attempt: str, progress: int, by_hand: bool = False) -> str | None:
    """Write down that an attempt starts, before it does anything.

    Args:
        by_hand: a person started it, so the counts begin anew.

    Returns:
        None, or why it must not start: too many starts from this place.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if by_hand:
        _append(log, f"launch {attempt}")
    if (before := read(log).open) is not None:
        _append(log, f"end {before} {progress} {int(time.time())} - killed")
    _append(log, f"start {attempt} {progress} {int(time.time())} 1")
    same = read(log).same
    if same >= SAME_PLACE:
        return f"begun {same + 1} times from the same place (step {progress}) without progress"
    return None


def end(log: Path, attempt: str, progress: int, code: int, why: str) -> None:
    """Write down how an attempt ended."""
    _append(log, f"end {attempt} {progress} {int(time.time())} {code} {why}")


def refuse_restart(log: Path, progress: int, most: int) -> str | None:
    """Why a stage that has just crashed is not begun again: it crashed `most` times before, or came no further.

    Returns:
        None where it may.
    """
    counts = read(log)
    if counts.crashes > most:
        return f"it crashed {counts.crashes} times (--max-crash-restarts {most})"
    if progress <= counts.began:
        return f"it came no further than it was at its start (step {progress})"
    return None


def _append(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")

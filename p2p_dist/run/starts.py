"""How often a stage was begun, how those starts ended, how far each came: counted from a file, never from memory.

On one machine; on Slurm the shell does it (hpc/counts.sh), without this program, which there only tells how a run is.

    launch NAME                                     a person began it: the counts begin anew
    start ATTEMPT PROGRESS SECONDS NODES [beside]   PROGRESS is a number that grows: for training the newest checkpoint; beside:
                                                    an evaluation that waits for its training may begin as often as it has to
    end ATTEMPT PROGRESS SECONDS CODE WHY [SAVED]   WHY: done, stopped, failed, crash or killed; SAVED: when PROGRESS was so

An attempt that was killed with all that watched it wrote no end: the next one writes it, at its own start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from p2p_dist.common import files

_NUMBER = re.compile("[0-9]{1,15}")

SAME_PLACE = 3
"""Starts from one place that the run itself ended, after which no further one is tried: it would burn node hours for days."""


@dataclass(frozen=True)
class Counts:
    """Since a person last began the stage.

    starts: all of them. crashes: those that ended badly. same: how many that began where the last one did have ended by the
    run's own doing. began: progress at the last start. open: the last attempt, where no end of it
    was written.
    """

    starts: int = 0
    crashes: int = 0
    same: int = 0
    began: int = -1
    open: str | None = None


def read(log: Path) -> Counts:
    """Count the lines of a file of attempts; one that is not there has none."""
    starts = crashes = same = 0
    began, place, beside, unfinished = -1, -1, False, None
    for words in _lines(log):
        match words:
            case ["launch", *_]:
                starts = crashes = same = 0
                began = place = -1
            case ["start", attempt, progress, _, _, *rest]:
                began, unfinished, beside = int(progress), attempt, rest[:1] == ["beside"]
                if not beside:
                    starts, same, place = starts + 1, same if began == place else 0, began
            case ["end", attempt, _, _, code, why, *_]:
                crashes += why == "crash"
                if attempt == unfinished:
                    # Not what Slurm or somebody else did to it: killed, or a signal before it listened.
                    own = why in ("crash", "failed") or (why, code) == ("stopped", "75")
                    same += own and not beside
                    unfinished = None
    return Counts(0, crashes, 0, began, unfinished) if beside else Counts(starts, crashes, same, began, unfinished)


@dataclass(frozen=True)
class Start:
    """One start of a stage. Times in seconds since 1970.

    ended, code, why: None where nobody wrote down its end. saved: when its progress was reached, 0 where that is not known.
    """

    name: str
    nodes: int
    begun: float
    ended: float | None = None
    code: str | None = None
    why: str | None = None
    saved: float = 0.0

    def seconds(self, now: float) -> float:
        """How long it has taken so far."""
        return (self.ended if self.ended is not None else now) - self.begun

    def lost(self) -> float:
        """Seconds of work after its last checkpoint, where it was killed or crashed."""
        if self.ended is None or self.why not in ("killed", "crash"):
            return 0.0
        return max(0.0, self.ended - max(self.begun, self.saved))


def starts(log: Path, since_launch: bool = False) -> list[Start]:
    """Every start in a file of attempts, oldest first; or those since a person last began the stage."""
    found: dict[str, Start] = {}
    for words in _lines(log):
        match words:
            case ["launch", *_] if since_launch:
                found = {}
            case ["start", name, _, begun, nodes, *_]:
                found[name] = Start(name, int(nodes), float(begun))
            case ["end", name, _, ended, code, why, *rest] if name in found:
                saved = float(rest[0]) if rest and _NUMBER.fullmatch(rest[0]) else 0.0
                found[name] = replace(found[name], ended=float(ended), code=code, why=why, saved=saved)
    return list(found.values())


def _lines(log: Path) -> Iterator[list[str]]:
    """The words of each line; lines that make no sense, such as one that a full disk cut short, are passed over."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        match words := line.split():
            case ["launch", _, *_]:
                yield words
            case ["start", _, progress, seconds, nodes, *_] if all(map(_NUMBER.fullmatch, (progress, seconds, nodes))):
                yield words
            case ["end", _, _, seconds, _, _, *_] if _NUMBER.fullmatch(seconds):
                yield words


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
    files.append(log, line + "\n")

"""The record of a stage's starts: how often it was started, how each start ended, and the progress of each.

    launch NAME                                     a user launched it: the counts are reset
    successor JOB                                   a new job that continues the run, if Slurm does not requeue jobs
    start ATTEMPT PROGRESS SECONDS NODES [beside] [rate=R]
                                                    PROGRESS is a growing number: for training the newest checkpoint; beside:
                                                    an evaluation during a training, whose starts are not limited; R:
                                                    GPU-hours billed for an hour of one node
    end ATTEMPT PROGRESS SECONDS CODE WHY [SAVED]   WHY: done, stopped, failed, crash or killed; SAVED: when PROGRESS was so

Starts are counted from this file, because a job that is preempted, requeued or lost with its node writes no last line. If an
attempt was killed before it wrote its end, the next attempt writes it when it starts. Lines of other kinds are skipped.

The launcher, the stages and the batch script of a job (jobs/slurm/batch.py) use this module. It needs only the standard library
and Python 3.6, which may be the only Python on a compute node outside the container.
"""

import os
import re
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

_NUMBER = re.compile("[0-9]{1,15}")
_RATE = re.compile("rate=([0-9]{1,9}[.][0-9]{1,9})")

SAME_PLACE = 3
"""Number of starts without progress, ended by the run itself, after which a stage is not restarted."""


class Counts(NamedTuple):
    """The counts of a record since a user last launched the stage; `seconds` counts all launches.

    starts: without evaluations during a training. crashes: starts that crashed. same: starts from the same progress as the last
    one that the run itself ended. began: progress at the last start. owner: the newest attempt, which owns the run. open: the
    same attempt if its end is not recorded. since: when it started. seconds: node time of all launches, see `count`.
    """

    starts: int = 0
    crashes: int = 0
    same: int = 0
    began: int = 0
    owner: Optional[str] = None
    open: Optional[str] = None
    since: int = 0
    seconds: float = 0


def count(log: Path, rate: float = 0.0) -> Counts:
    """Count a record; all counts are 0 if it does not exist.

    Args:
        rate: GPU-hours billed now for an hour of one node. The seconds of a start on nodes with another bill, such as those of
            another partition, are counted in proportion. 0: as they are.
    """
    starts = crashes = same = began = since = 0
    nodes = seconds = 0.0
    place, beside = -1, False
    owner: Optional[str] = None
    unfinished: Optional[str] = None
    for words in _lines(log):
        if words[0] == "launch":
            starts = crashes = same = 0
            place = -1
        elif words[0] == "start":
            owner = unfinished = words[1]
            began, since, nodes = int(words[2]), int(words[3]), float(words[4])
            nodes *= (_rate(words) or rate) / rate if rate else 1
            beside = words[5:6] == ["beside"]
            if not beside:
                starts, same, place = starts + 1, same if began == place else 0, began
        elif words[0] == "end":
            crashes += words[5] == "crash"
            if words[1] == unfinished:
                # A start that Slurm or a user ended says nothing about the run.
                own = words[5] in ("crash", "failed") or (words[5] == "stopped" and words[4] == "75")
                same += own and not beside
                seconds += (int(words[3]) - since) * nodes
                unfinished = None
    if beside:
        starts = same = 0
    return Counts(starts, crashes, same, began, owner, unfinished, since, seconds)


class Start(NamedTuple):
    """One start of a stage. Times are in seconds since 1970.

    ended, code, why: None if its end is not recorded. saved: when its progress was reached; 0 if not known. rate: GPU-hours
    billed for an hour of one node; 0 if not known.
    """

    name: str
    nodes: int
    begun: float
    ended: Optional[float] = None
    code: Optional[str] = None
    why: Optional[str] = None
    saved: float = 0.0
    rate: float = 0.0

    def seconds(self, now: float) -> float:
        """Its duration in seconds, so far if its end is not recorded."""
        return (self.ended if self.ended is not None else now) - self.begun

    def lost(self) -> float:
        """Seconds of work after its last checkpoint that were lost because it was killed or crashed."""
        if self.ended is None or self.why not in ("killed", "crash"):
            return 0.0
        return max(0.0, self.ended - max(self.begun, self.saved))


def list_starts(log: Path) -> List[Start]:
    """List all starts in a record, oldest first."""
    found: Dict[str, Start] = {}
    for words in _lines(log):
        if words[0] == "start":
            found[words[1]] = Start(words[1], int(words[4]), float(words[3]), rate=_rate(words))
        elif words[0] == "end" and words[1] in found:
            saved = float(words[6]) if len(words) > 6 and _NUMBER.fullmatch(words[6]) else 0.0
            ended = found[words[1]]._replace(ended=float(words[3]), code=words[4], why=words[5], saved=saved)
            found[words[1]] = ended
    return list(found.values())


def _rate(words: List[str]) -> float:
    """Return the GPU-hours per node-hour that a start line records, or 0 if it records none."""
    found = _RATE.fullmatch(words[-1])
    return float(found.group(1)) if found else 0.0


def has(log: Path, kind: str, name: str) -> bool:
    """Whether a record has a line of this kind and name."""
    return any(words[:2] == [kind, name] for words in _lines(log))


def _lines(log: Path) -> Iterator[List[str]]:
    """Return the words of each line. Invalid lines, such as a line truncated by a full disk, are skipped."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else ():
        words = line.split()
        kind = words[0] if len(words) > 1 else ""
        numbers = words[2:5] if kind == "start" and len(words) > 4 else words[3:4] if kind == "end" and len(words) > 5 else []
        if kind in ("launch", "successor") or (numbers and all(map(_NUMBER.fullmatch, numbers))):
            yield words


def note_start(log: Path, attempt: str, progress: int, by_hand: bool = False, nodes: int = 1) -> Optional[str]:
    """Record the start of an attempt outside Slurm. Call this before it does anything.

    Args:
        by_hand: a user started it, so the counts are reset.

    Returns:
        None, or why it must not start: too many starts without progress.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if by_hand:
        append(log, f"launch {attempt}")
    before = count(log).open
    if before is not None:
        append(log, f"end {before} {progress} {int(time.time())} - killed")
    append(log, f"start {attempt} {progress} {int(time.time())} {nodes}")
    same = count(log).same
    if same >= SAME_PLACE:
        return f"started {same + 1} times from the same place (step {progress}) without progress"
    return None


def note_end(log: Path, attempt: str, progress: int, code: int, why: str) -> None:
    """Record how an attempt outside Slurm ended."""
    append(log, f"end {attempt} {progress} {int(time.time())} {code} {why}")


def refuse_restart(log: Path, progress: int, most: int) -> Optional[str]:
    """Return why a crashed stage is not restarted: it crashed `most` times before, or made no progress.

    Returns:
        None if it may be restarted.
    """
    counts = count(log)
    if counts.crashes > most:
        return f"it crashed {counts.crashes} times (--max-crash-restarts {most})"
    if progress <= counts.began:
        return f"it made no progress since its start (step {progress})"
    return None


def append(log: Path, line: str, begin: str = "") -> None:
    """Append one line to a record with one write. Links are not followed.

    Args:
        begin: a line break, if the last line may be truncated.

    Raises:
        OSError: it can't be written, or only a part of it.
    """
    try:
        descriptor = os.open(str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if not log.is_symlink():
            raise
        raise OSError(error.errno, "a symbolic link, which is not followed: remove it, then try again", str(log)) from None
    try:
        data = f"{begin}{line}\n".encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(28, "a line was written only in part", str(log))
    finally:
        os.close(descriptor)

"""Say why jobs wait in plain words, and when Slurm expects them to start."""

from __future__ import annotations

import re
import time

from p2p_dist.common import console
from p2p_dist.jobs.slurm.commands import ask

SOON = 60.0
"""Seconds from now on that count as now."""

_REASONS = {
    "None": "Slurm has not looked at it yet",
    "Priority": "jobs with a higher priority come first",
    "Resources": "what it asks for is not free yet",
    "Dependency": "a job before it has not ended",
    "DependencyNeverSatisfied": "a job before it has failed; the launch command, run again, lets it wait for a new one",
    "BeginTime": "its earliest start has not come: a requeued job is held back for two minutes",
    "JobHeldUser": "you hold it; scontrol release lets it start",
    "JobHeldAdmin": "an administrator of the cluster holds it",
    "Licenses": "a licence that it asks for is not free",
    "PartitionDown": "its partition starts no jobs at the moment",
    "PartitionInactive": "its partition takes no jobs at the moment",
    "PartitionTimeLimit": "it asks for more time than its partition allows",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows",
    "Reservation": "its reservation has not begun",
}
_KINDS = (
    (r"launch.failed.requeued.held", "a node could not start it, so Slurm holds it; scontrol release lets it start"),
    (r"ReqNodeNotAvail.*|Nodes.required.for.job.are.*", "nodes that it needs are down, or reserved for other jobs"),
    (r"(Assoc|QOS)\w*Minutes\w*", "it may use more hours than its project has left"),
    (r"QOS\w+|MaxJobsPer\w+", "a limit of its QoS is reached; jobs that end make room"),
    (r"Assoc\w+", "a limit of its project or user is reached; jobs that end make room"),
)
"""Slurm's reasons by name, then by pattern (manual page of squeue; Slurm writes blanks in some as underscores)."""


def in_words(reason: str) -> str:
    """Return Slurm's reason for a waiting job in plain words; one that is not known as it is."""
    if reason in _REASONS:
        return _REASONS[reason]
    return next((words for pattern, words in _KINDS if re.fullmatch(pattern, reason)), f"Slurm's reason is {reason}")


def expected_starts() -> dict[str, float]:
    """Map id -> when Slurm expects this user's pending jobs to start, seconds since 1970; without those it does not know of.

    An array has the start of its first element under its own id, beside those of all elements.

    Empty if Slurm does not answer: how far a run is can be shown all the same.
    """
    try:
        asked = ask("squeue", "--me", "--array", "--noheader", "--states=PENDING", "--format=%i|%S")
    except OSError:
        return {}
    rows = [line.strip().split("|") for line in asked.stdout.splitlines()]
    found = {row[0]: start for row in rows if len(row) == 2 and (start := seconds_of(row[1])) is not None}
    for number, start in list(found.items()):
        array, is_element, _ = number.partition("_")
        if is_element:
            found[array] = min(start, found.get(array, start))
    return found


def seconds_of(text: str) -> float | None:
    """Convert a time as Slurm writes it, such as 2026-11-27T14:05:00, to seconds since 1970; None for any other text."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def when(start: float) -> str:
    """Return when a job is expected to start, and how long that is from now."""
    now = time.time()
    if start - now < SOON:
        return "now"
    form = "%H:%M" if time.localtime(start)[:3] == time.localtime(now)[:3] else "%Y-%m-%d %H:%M"
    return f"{time.strftime(form, time.localtime(start))}, in {console.duration(start - now)}"


def why(reason: str, start: float | None) -> str:
    """Return why a job waits, and when Slurm expects it to start; None: it does not say."""
    return f"{in_words(reason)}; Slurm {'names no start yet' if start is None else f'expects it to start {when(start)}'}"

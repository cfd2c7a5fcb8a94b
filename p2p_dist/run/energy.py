"""The energy that a training used: energy.jsonl, what its GPUs told at each checkpoint, and what Slurm's accounting tells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from typing import Any

from p2p_dist.common import files, records, schemas
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir


def note(run: RunDir, step: int, joules: float) -> None:
    """Append what the GPUs of this start have used up to a step. A line that can't be written is left out."""
    line = {"schema": schemas.ENERGY.schema, "attempt": rundir.attempt(), "step": step, "joules": joules}
    with contextlib.suppress(OSError):
        files.append(run.energy, json.dumps(line, allow_nan=False) + "\n")


def told_by_gpus(run: RunDir) -> list[tuple[int, float]]:
    """List step and energy (J) since the first start, for each line. Work that a killed start lost after its last line is not
    counted, work that was done twice is counted twice."""
    found: list[tuple[int, float]] = []
    attempt, before, last = None, 0.0, 0.0
    for line in run.energy.read_bytes().splitlines(keepends=True) if run.energy.is_file() else []:
        try:
            one: dict[str, Any] = records.parse(line, schemas.ENERGY, where="a line of energy.jsonl")
        except ValueError:  # cut off by a full disk
            continue
        if one["attempt"] != attempt:
            attempt, before = one["attempt"], before + last
        last = one["joules"]
        found.append((one["step"], before + last))
    return found


def told_by_sacct(text: str, jobs: Collection[str]) -> float | None:
    """Return the energy (J) of jobs on whole nodes; None if the accounting does not tell that of each start.

    Args:
        text: `sacct --duplicates --noheader --parsable2 --format=JobIDRaw,State,ConsumedEnergyRaw`: for each start a line of
            the job, then those of its steps. Each step tells the energy of its nodes while it ran, so the steps of a start
            count the same energy, and the largest is taken. 0, an empty field and the 64-bit numbers for "no value" mean:
            not told.
        jobs: numbers of these jobs. The last element of an array has the array's number, so sacct lists the others with it.
    """
    starts: list[float] = []
    for line in text.splitlines():
        job, *_, told = line.strip().split("|")
        if job.partition(".")[0] not in jobs:
            continue
        value = int(told) if told.isdecimal() and int(told) < 1 << 62 else 0
        if "." not in job:
            starts.append(0.0)
        elif starts:
            starts[-1] = max(starts[-1], value)
    return sum(starts) if starts and all(starts) else None

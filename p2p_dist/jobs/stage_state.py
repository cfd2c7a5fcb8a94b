"""The state of a stage of a run in words, read from the run's files and from what Slurm has of it."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

from p2p_dist.common import console
from p2p_dist.jobs import stages
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run.lock import owner_of
from p2p_dist.run.rundir import RunDir
from p2p_dist.run.starts import SAME_PLACE, Start, count, list_starts
from p2p_dist.settings import config


def state(
    stage: str,
    run: RunDir,
    queued: dict[str, squeue.Queued] | None,
    resources: config.Resources,
    shards: stages.Shards | None = None,
) -> str:
    """Return the state of a stage in words: done, running, pending (why), stopped (why), failed, to do.

    Args:
        queued: the run's jobs in Slurm; None if not known. resources: how often it may be restarted.
        shards: those of the run, where they have been looked at.
    """
    if stage != "preprocess" and stages.is_shards_only(run):
        return stages.SHARDS_ONLY
    if (found := stages.is_done(stage, run, shards, content=False)) is not None:
        return found if found == stages.NOT_ASKED else "done"
    if queued is not None and stage in queued:
        job = queued[stage]
        waits = f" ({job.reason})" if job.state == "PENDING" and job.reason != "None" else ""
        never = ": a job that it depends on failed; run the launch command again" if job.reason == squeue.NEVER else ""
        return f"{job.state.lower()}{waits}, job {job.number}" + (f" of the run {job.other}" if job.other else "") + never
    here = list_starts(run.attempts(stage))[-1:]
    owner = owner_of(run.path)
    if owner is not None and (running := _running_here(stage, run, here, owner)) is not None:
        return running
    outcome = run.read_outcome(stage)
    when = ""
    if outcome is not None and here and outcome["attempt"] == here[0].name and here[0].ended is not None:
        when = f" {_clock(here[0].ended)}" + (f" at step {outcome['step']}" if stage == "train" and outcome["step"] else "")
    if outcome is not None and outcome["outcome"] == "failed":
        return f"failed{when}: {outcome['message']}" if outcome["message"] else f"failed{when}"
    if queued is not None and outcome is None and (number := _dropped(stage, run)):
        failed = "a job that it depended on failed; run the launch command again"
        return (
            f"removed from the queue before it started, job {number}: "
            f"{'cancelled' if (run.slurm / 'cancelled').exists() else failed}"
        )
    # Each task of an array has its own counts (hpc/job.sh).
    logs = [*sorted((run.slurm / stage).glob("attempts*")), run.attempts(stage)]
    if why := next((why for log in logs if (why := _held_back(log, resources.max_requeues))), None):
        return f"stopped: {why}; see {run.slurm / stage if (run.slurm / stage).is_dir() else run.logs}"
    last = [tried[-1] for log in logs[:-1] if (tried := list_starts(log))]
    # An attempt whose container did not start leaves the outcome of an earlier one.
    told = outcome is not None and outcome["outcome"] != "done" and outcome["attempt"] in [one.name for one in last]
    if not told and (bad := [one for one in last if one.why in ("crash", "failed")]):
        code = max(bad, key=lambda one: one.begun).code
        what = {"255": "the container did not start", "1": "failed"}.get(str(code), "crashed")  # 255 is Singularity's own
        return f"{what} (exit code {code}), see {run.slurm / stage}"
    if (outcome is not None and outcome["outcome"] == "stopped") or any(one.why == "stopped" for one in last):
        said = outcome["message"] if outcome is not None else ""
        why = said or ("cancelled" if (run.slurm / "cancelled").exists() else "")
        return f"stopped{when}: {why}" if why else f"stopped{when}"
    if queued is not None and (left := [one for one in last if one.ended is None]):
        return f"killed or cancelled (attempt {left[-1].name})"
    if here and (outcome is None or not last):
        return _ended_here(here[0], run)
    return "to do"


def _dropped(stage: str, run: RunDir) -> str | None:
    """Return the newest job of a stage if it left the queue without starting, as jobs that depend on a failed job do."""
    found = (
        (re.fullmatch(r"([0-9]{1,18}(?:_[0-9]{1,9})?)_submission\.sh", path.name), path)
        for path in (run.slurm / stage).glob("*.sh")
    )
    submitted = [(int(name[1].partition("_")[0]), name[1], path) for name, path in found if name is not None]
    if not submitted:
        return None
    _, number, script = max(submitted)
    for log in (run.slurm / stage).glob("attempts*"):
        lines = log.read_text(encoding="utf-8", errors="replace")
        # Parts of an array have numbers of their own.
        is_part = log.name != "attempts" and log.stat().st_mtime >= script.stat().st_mtime
        if is_part or re.search(rf"^(launch|start) {number}\b", lines, re.MULTILINE):
            return None
    return number


def _running_here(stage: str, run: RunDir, here: list[Start], owner: dict[str, Any]) -> str | None:
    """Describe a stage that runs on one machine: host and progress; None if it does not run."""
    now = run.read_status()
    mine = now is not None and now["what"] in _TOLD.get(stage, (stage,))
    if here and here[0].ended is None:
        since = f" since {_clock(here[0].begun)}"
        # The status of an earlier start is not the progress of this one.
        told = now if mine and run.status.stat().st_mtime >= here[0].begun else None
    elif mine and not any(one.ended is None for other in stages.STAGES for one in list_starts(run.attempts(other))[-1:]):
        since, told = "", now  # started by launch/evaluate.py, which does not record its starts
    else:
        return None
    elsewhere = owner.get("host", socket.gethostname()) != socket.gethostname()
    where = f"running on {owner['host']}" if elsewhere else "running on this machine"
    far = f", {told['what']} {told['done']} of {told['total']}" if told is not None and told.get("total") else ""
    return f"{where}{since}{far}"


_TOLD = {"evaluate": ("evaluate", "baselines")}
"""Further names of a stage in status.json."""


def _ended_here(last: Start, run: RunDir) -> str:
    """Describe how the last start of a stage on this machine ended."""
    if last.ended is None:
        return f"killed: started {_clock(last.begun)}, its end was not recorded; see {run.logs}"
    when = _clock(last.ended)
    if last.why == "stopped":
        return f"stopped{' at once' if last.code == str(console.INTERRUPTED) else ''} {when}"
    if last.why == "done":
        return "to do"  # it was done, but one of its files is missing
    return f"{'failed' if last.why == 'failed' else 'crashed'} (exit code {last.code}) {when}; see {run.logs}"


def _clock(seconds: float) -> str:
    """Format a time for messages, without the date if it is today."""
    then = time.localtime(seconds)
    return time.strftime("%H:%M" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", then)


def _held_back(log: Path, max_requeues: int) -> str | None:
    """Return why an unfinished stage was not restarted, by the rules of jobs/slurm/batch.py; None if it may start."""
    counts, all_starts = count(log), list_starts(log)
    why = all_starts[-1].why if all_starts else None
    if counts.same >= SAME_PLACE and why in (None, "failed"):
        return f"started {counts.same + (counts.open is not None)} times from the same place ({counts.began}) without progress"
    again = counts.starts - 1
    if again > max_requeues or (again == max_requeues and why == "stopped"):
        return f"restarted {min(again, max_requeues)} times (--max-requeues): run the launch command again to resume"
    return None

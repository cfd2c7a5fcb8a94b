"""The decisions of a job's batch shell, outside any container: hpc/job.sh and its scripts run this file by its path.

    batch.py begin STAGE RUN SUBMITTED [beside]   record that this attempt starts. Exit code 0: start; 10: the training is done;
                                                  others: refused. SUBMITTED: time in the format of squeue, or ""
    batch.py told STAGE RUN                       exit code 0: this attempt has written its outcome
    batch.py end STAGE RUN CODE                   record how this attempt ended; CODE: exit code of srun. Prints `requeue`, or
                                                  the exit code for the job and the reason
    batch.py owner                                prints the attempt that owns the run: the newest start
    batch.py successor JOB                        record the job that continues this one
    batch.py free-claims FOLDER                   free the checkpoints that earlier attempts of this job claimed

Environment: P2P_ATTEMPTS (path of the record of starts, see run/starts.py), P2P_ATTEMPT, P2P_MAX_..., P2P_RATE, and the
variables that Slurm sets. It needs only the standard library and Python 3.6, see run/starts.py. Calls of Slurm's
commands are in hpc/.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

if __name__ == "__main__":  # under -I, so that only this copy of the code is imported
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from p2p_dist.run import starts

DONE_ALREADY = 10
_PAUSES = (1, 2, 4, 8, 15, 30, 60, 0)
_STEP = re.compile("step-([0-9]{8,18})")


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name) or otherwise)


def _rate() -> float:
    """Return the GPU-hours billed per node-hour (P2P_RATE), or 0 if it is not set."""
    return float(os.environ.get("P2P_RATE") or 0)


def _log() -> Path:
    return Path(os.environ["P2P_ATTEMPTS"])


def _attempt() -> str:
    return os.environ.get("P2P_ATTEMPT") or f"{os.environ['SLURM_JOB_ID']}.{_number('SLURM_RESTART_COUNT', 0)}"


def _say(text: str) -> None:
    """Print in UTF-8, independent of the locale of the node."""
    sys.stdout.buffer.write((text + "\n").encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _note(line: str) -> None:
    """Append a line to the record; retry while the disk is full. A truncated line stays and is ignored later."""
    begin = ""
    for pause in _PAUSES:
        try:
            return starts.append(_log(), line, begin)
        except OSError:
            if not pause:
                raise
            begin = "\n"
            time.sleep(pause)


def _json(path: Path) -> Dict[str, Any]:
    """Read a small record; empty if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _changed(path: Path) -> int:
    """Return when a file last changed, seconds since 1970; 0 if it does not exist."""
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0


def _progress(stage: str, run: Path) -> Tuple[int, int]:
    """Return the progress of a stage as a growing number, and when it last changed, in seconds since 1970."""
    if stage == "preprocess":
        name = _json(run / "dataset.json").get("name")
        if not (isinstance(name, str) and re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name)):
            return 0, 0
        folder = run.parent.parent / "shards" / name / "parts"
    elif stage == "page":
        tracks = list((run / "page" / "media").glob("*/*/track.json"))
        return len(tracks), max([0] + [_changed(path) for path in tracks])
    elif stage == "pattern":
        folder = run / "pattern" / "finished"
    else:
        folder = run / {"train": "checkpoints", "generate": "made"}.get(stage, "evaluations")
    try:
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return 0, 0
    if stage not in ("preprocess", "pattern", "generate"):
        names = [name for name in names if _STEP.fullmatch(name)]
    if stage == "train" and names:
        newest = max(names, key=lambda name: int(name[5:]))
        # The folder itself also changes when the checkpoint is read or pruned.
        return int(newest[5:]), _changed(folder / newest / "meta.json")
    return len(names), max([0] + [_changed(folder / name) for name in names])


def _last_seen(stage: str, run: Path) -> int:
    """Return the time of the last progress report of a stage, in seconds since 1970, or 0 if unknown."""
    if _json(run / "status.json").get("what") == stage:  # all stages write this file
        return _changed(run / "status.json")
    return _changed(run / "metrics.jsonl") if stage == "train" else 0


def _outcome_file(stage: str, run: Path) -> Path:
    member = os.environ.get("SLURM_ARRAY_TASK_ID")
    return run / ("outcome.json" if stage == "train" else f"outcome-{stage}{'.' + member if member else ''}.json")


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        pass


def begin(stage: str, run: Path, submitted: str, beside: bool) -> int:
    """Record that this attempt starts, if it may; return the exit code.

    A user's new launch resets the counts; a requeued job and a successor keep them. Slurm's restart count is not used alone,
    because a controller that was killed may have lost it.
    """
    log, attempt, job = _log(), _attempt(), os.environ["SLURM_JOB_ID"]
    element = os.environ.get("P2P_JOB", "")
    name = element if "_" in element else job  # as the launcher calls it
    log.parent.mkdir(parents=True, exist_ok=True)
    cancelled = run / "slurm" / "cancelled"
    launched = False
    if _number("SLURM_RESTART_COUNT", 0) == 0 and not starts.has(log, "successor", job):
        if os.environ.get("P2P_SUCCESSOR_OF"):
            _note(f"successor {job}")  # even if sbatch reported an error to the previous job
        else:
            launched = not starts.has(log, "launch", name)
            # A template queued after the run was cancelled is a new launch. The launcher removes the mark before it queues a
            # job and then keeps its script, so a mark beside such a script is newer, even within one second.
            script = log.parent / f"{os.environ.get('SLURM_ARRAY_JOB_ID') or name}_submission.sh"
            if cancelled.exists() and not script.exists() and _seconds(submitted) >= _changed(cancelled):
                _remove(cancelled)
                launched = True
            if launched:
                _note(f"launch {name}")
    progress, saved = _progress(stage, run)
    finished: Dict[str, Any] = {}  # the last outcome of the training, if its checkpoint exists
    if stage == "train":
        outcome = _json(run / "outcome.json")
        step = outcome.get("step")
        if outcome.get("outcome") == "done" and isinstance(step, int) and (run / "checkpoints" / f"step-{step:08d}").is_dir():
            finished = outcome
        else:
            _remove(run / "outcome.json")  # of an earlier attempt; a waiting evaluation would misread it
    elif stage == "evaluate":
        _remove(run / "slurm" / "evaluate" / "no-training")
    before = starts.count(log)
    if before.open is not None:  # killed before its last line
        how = "0 done" if finished.get("attempt") == before.open else "- killed"
        _note(f"end {before.open} {progress} {max(_last_seen(stage, run), before.since)} {how} {saved}")
    nodes = _number("SLURM_JOB_NUM_NODES", 1)
    further = (" beside" if beside else "") + (f" rate={_rate():.6f}" if _rate() else "")
    _note(f"start {attempt} {progress} {int(time.time())} {nodes}{further}")

    def refuse(code: int, why: str, said: str) -> int:
        try:
            _note(f"end {attempt} {progress} {int(time.time())} {0 if why == 'done' else code} {why} {saved}")
        except OSError:
            pass
        _say(said)
        return code

    # Slurm may restart a job that has just finished, if its node was lost or somebody requeued it.
    if finished:
        if not launched:
            return refuse(DONE_ALREADY, "done", "train: already done")
        _remove(run / "outcome.json")
    if cancelled.exists():
        return refuse(75, "stopped", f"{stage} was cancelled: run the same launch command again to resume")
    counts = starts.count(log, _rate())
    if counts.same >= starts.SAME_PLACE:
        place = f"from the same place ({stage}: {progress}) without progress"
        said = f"started {counts.same + 1} times {place}: not restarted; see the logs beside {log}"
        return refuse(1, "failed", said)
    if counts.starts - 1 > _number("P2P_MAX_REQUEUES", 10):
        said = f"already restarted {counts.starts - 2} times (--max-requeues): run the same launch command again to resume"
        return refuse(1, "failed", said)
    if _hours_are_used(counts):
        said = "the run's GPU-hours are used up: to resume, run the launch command again with a larger --max-gpu-hours"
        return refuse(75, "stopped", said)
    return 0


def _seconds(submitted: str) -> float:
    """Convert a time in squeue's format to seconds since 1970; 0 if it is invalid."""
    try:
        return time.mktime(time.strptime(submitted, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def _hours_are_used(counts: starts.Counts) -> bool:
    most = _number("P2P_MAX_NODE_SECONDS", 0)  # of a job whose number of nodes changes from start to start
    return counts.seconds >= (most or _number("P2P_MAX_SECONDS", 999999999) * _number("SLURM_JOB_NUM_NODES", 1))


def told(stage: str, run: Path) -> Optional[str]:
    """Return the outcome that this attempt wrote; None if it wrote none."""
    found = _json(_outcome_file(stage, run))
    return str(found.get("outcome")) if found.get("attempt") == _attempt() else None


def end(stage: str, run: Path, code: int) -> str:
    """Record how this attempt ended, and decide what the job does next: see the module.

    The outcome that this attempt wrote decides. srun's exit code is used only if there is none: srun returns the highest code
    of its tasks, so a stop can hide a failure.
    """
    log, attempt = _log(), _attempt()
    counts = starts.count(log)
    # If Slurm lost this node, the job may run elsewhere by now, and requeueing would stop it there.
    if counts.owner != attempt:
        return f"75 attempt {attempt} was superseded by {counts.owner}: this process exits without writing"
    progress, saved = _progress(stage, run)
    outcome = told(stage, run)
    if outcome is None:
        outcome = _by_code(code, progress > counts.began)
    elif stage != "train" and outcome == "done":
        # Tasks that share a stage end separately: one may be done when another is stopped or killed.
        outcome = {75: "stopped", 137: "killed"}.get(code, outcome)
    try:
        _note(f"end {attempt} {progress} {int(time.time())} {code} {outcome} {saved}")
    except OSError:
        pass
    if outcome == "done":
        return str(0 if stage == "train" else code)  # the ranks of a training end together
    if outcome == "failed":
        return "1"
    if outcome == "crash":
        crashes = counts.crashes + 1
        # 255 before any progress means that the container did not start: retry once.
        once_more = code == 255 and progress == 0 and crashes == 1
        if crashes > _number("P2P_MAX_CRASH_RESTARTS", 3) or (progress <= counts.began and not once_more):
            how = f"{crashes} crashes, progress from {counts.began} to {progress}"
            return f"{code} {stage} crashed with exit code {code}: not restarted ({how})"
    type_again = "run the same launch command again to resume"
    if (run / "slurm" / "cancelled").exists():
        return f"75 {stage} stopped, but was cancelled: {type_again}"
    again = counts.starts - 1
    if again >= _number("P2P_MAX_REQUEUES", 10):
        return f"75 {stage} stopped, but was already restarted {again} times (--max-requeues): {type_again}"
    if _hours_are_used(starts.count(log, _rate())):
        how = "to resume, run the launch command again with a larger --max-gpu-hours"
        return f"75 {stage} stopped, and the run's GPU-hours are used up: {how}"
    return "requeue"


def _by_code(code: int, came_further: bool) -> str:
    """Derive the outcome from srun's exit code if none was written."""
    if code == 0:
        return "killed"  # srun's exit code for a lost node; a finished stage has written its outcome
    if code in (75, 138, 140):  # 138, 140, 143: USR1, USR2, TERM before its handlers were installed
        return "stopped"
    if code == 143:  # with progress, it would have written an outcome
        return "crash" if came_further else "stopped"
    if code == 137:  # SIGKILL from outside; 253: Slurm's code if it limits memory
        return "crash" if os.environ.get("P2P_OUT_OF_MEMORY") else "killed"
    return "failed" if code in (1, 2, 130) else "crash"


def free_claims(folder: Path) -> None:
    """Remove the claims of earlier attempts of this job, which did not finish; other jobs have their own record."""
    ours = {one.name for one in starts.list_starts(_log())}
    for path in sorted(folder.glob("step-*")) if folder.is_dir() else []:
        if path.is_file() and ours & set(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            _remove(path)


def main(words: Any) -> int:
    command, rest = words[0], words[1:]
    if command == "begin":
        return begin(rest[0], Path(rest[1]), rest[2], rest[3:4] == ["beside"])
    if command == "told":
        return 0 if told(rest[0], Path(rest[1])) is not None else 1
    if command == "end":
        _say(end(rest[0], Path(rest[1]), int(rest[2])))
    elif command == "owner":
        _say(starts.count(_log()).owner or "-")
    elif command == "successor":
        _note(f"successor {rest[0]}")
    else:
        assert command == "free-claims", command
        free_claims(Path(rest[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

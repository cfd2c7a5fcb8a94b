"""Run the stages of a run on this machine, one after the other, without Slurm.

    launcher (launch/submit.py) -> one process per stage -> for training: one process per rank, forked from it

The launcher only watches. Stages run in their own sessions, so that Ctrl-C reaches only the launcher, which then asks the
stage to stop. Each process ends when the process that started it ends.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, TextIO

from p2p_dist.common import console, files
from p2p_dist.data import manifest
from p2p_dist.jobs import child, stages
from p2p_dist.run import checkpoints, rundir, starts
from p2p_dist.run.lock import Owner
from p2p_dist.run.rundir import RunDir

_WORTH_SHOWING = ("warning:", "left out:", "note:")
"""Prefixes of log lines that are shown even with a progress bar."""


def run(run: RunDir, max_crash_restarts: int, owner: Owner, again: str, torchrun: str | None = None) -> int:
    """Run those of the stages that are not done.

    Args:
        again: the command that resumes the run, for messages.
        torchrun: the command to train with on several machines. It is printed in place of a training here.

    Returns:
        the exit code: 0 done, 1 a stage failed or songs were left out, 75 stopped cleanly, 130 stopped at once.
    """
    for name in [name for name in os.environ if name.startswith("SLURM_ARRAY_")]:
        del os.environ[name]  # of an array of the user's own that this command runs in: its jobs do not share the stages
    run.logs.mkdir(parents=True, exist_ok=True)
    for folder in (run.path, run.evaluations):
        files.remove_garbage(folder)
    for stage in stages.of(run):
        asks = stage == "preprocess" and run.config.is_file() and stages.asks_address(run, rundir.read_settings(run).data)
        if not asks and (found := stages.is_done(stage, run)) is not None:
            if found in (stages.SOUNDLESS, stages.NOT_ASKED):
                console.say(f"{stage}: {found}")
            elif stage != "page":
                console.say(f"{stage}: already done ({found})")
            continue
        if stage == "train" and torchrun is not None:
            console.say(f"train: run this on every machine, with HOST the name or address of the first one:\n    {torchrun}")
            console.say(f"then, on one of them, for evaluation and page: {again}")
            return console.DONE
        code = run_until_it_ends(stage, run, max_crash_restarts, owner)
        if code in (console.STOPPED, console.INTERRUPTED):
            console.say(f"stopped in {stage}; to resume: {again}")
            return code
        if code != console.DONE and stages.is_done(stage, run) is None:
            outcome, log = run.read_outcome(stage), run.logs / f"{stage}.log"
            if outcome is None or not outcome["message"]:
                shown = "" if not console.has_bar(sys.stdout) else f"; the end of {log}:\n{child.tail(log)}"
                console.complain(f"{stage} ended with {code}{shown}")
                console.complain(f"saved work is kept; to resume: {again}")
            # Without a progress bar the log was shown already, but other ranks may have logged lost connections since.
            elif console.has_bar(sys.stdout) or not child.tail(log).endswith(outcome["message"].splitlines()[-1]):
                console.complain(f"error: {outcome['message']}")
            return console.FAILED
    left_out = manifest.read(run.shards)["left_out"]
    for song in left_out:
        console.complain(f"left out: {song['reason']}")
    console.say(stages.last_lines(run))
    return console.FAILED if left_out else console.DONE


def run_until_it_ends(stage: str, run: RunDir, max_crash_restarts: int, owner: Owner) -> int:
    """Run one stage and restart a training that crashed after progress; return the last exit code."""
    log = run.attempts(stage)
    for number in itertools.count():
        attempt = f"{socket.gethostname()}.{os.getpid()}.{int(time.time())}.{number}"
        if (refused := starts.note_start(log, attempt, _progress(run), by_hand=number == 0)) is not None:
            console.complain(f"{stage} is not restarted: {refused}; see {run.logs}")
            return console.FAILED
        code = run_stage(stage, run, owner, attempt)
        outcome = (run.read_outcome(stage) or {}).get("outcome")
        why = outcome or {console.DONE: "done", console.STOPPED: "stopped", console.INTERRUPTED: "stopped"}.get(code, "crash")
        starts.note_end(log, attempt, _progress(run), code, why)
        if why != "crash" or stage != "train":
            return code
        if (refused := starts.refuse_restart(log, _progress(run), max_crash_restarts)) is not None:
            console.complain(f"{stage} crashed and is not restarted: {refused}")
            return code
        console.complain(f"{stage} crashed ({code}) after step {_progress(run)} was saved: restarting from there")
    raise AssertionError


def _progress(run: RunDir) -> int:
    return checkpoints.newest_step(run.checkpoints)


def run_stage(stage: str, run: RunDir, owner: Owner, attempt: str) -> int:
    """Run one stage in its own process and show its progress; return its exit code."""
    for old in run.outcomes(stage):  # also those of an array on Slurm
        old.unlink(missing_ok=True)
    log = run.logs / f"{stage}.log"
    seen = log.stat().st_size if log.is_file() else 0
    process = child.start(stage, run, attempt, log, (owner.descriptor,))
    with log.open(errors="replace") as output:
        output.seek(seen)
        return _follow(stage, run, process, output)


def _follow(stage: str, run: RunDir, process: subprocess.Popen[bytes], log: TextIO) -> int:
    """Show progress until the stage ends: a bar on a terminal, else the lines of its log.

    The first Ctrl-C asks the stage to stop, the second kills it.
    """
    asked = False
    # The page has no progress, and a stage that is still importing has no total yet.
    bar = console.Progress(stage, 0) if console.has_bar(sys.stdout) and stage != "page" else None
    try:
        while True:
            try:
                ended = process.poll() is not None
                for line in log.readlines():
                    if bar is None:
                        console.say(line.rstrip("\n"))
                    elif line.startswith(_WORTH_SHOWING):
                        bar.above(line.rstrip("\n"))
                if bar is not None and (status := _status(run)) is not None and status["what"] in (stage, "baselines"):
                    bar.follow(status.get("done", 0), status.get("total", 0), status.get("note", ""))
                if ended:
                    if asked and process.returncode == -signal.SIGTERM:  # before it could handle signals: it had not started
                        return console.STOPPED
                    return process.returncode if process.returncode >= 0 else 128 - process.returncode
                time.sleep(0.2)
            except KeyboardInterrupt:
                if asked:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    return console.INTERRUPTED
                asked = True
                for number in console.STOPS:  # these never count as a second Ctrl-C
                    signal.signal(number, signal.SIG_IGN)
                console.say(f"\nstopping {stage} cleanly (press Ctrl-C again to stop at once)")
                process.send_signal(signal.SIGTERM)
    finally:
        if bar is not None:
            bar.close()


def _status(run: RunDir) -> dict[str, Any] | None:
    """Read the stage's progress; None if it cannot be read, because a failing bar must not stop the stage."""
    try:
        return run.read_status()
    except (OSError, ValueError):
        return None

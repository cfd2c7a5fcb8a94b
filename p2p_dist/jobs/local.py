"""The stages of a run on this machine, one after the other, where there is no Slurm.

    launcher (launch/submit.py) -> one process a stage -> for training: one process a rank, forked from it

The launcher only watches: work happens in processes of their own session, so that a Ctrl-C reaches the launcher alone,
which then asks in order. Each of them ends with the one that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from p2p_dist import attempts, console, files, manifest, processes, rundir, saved, snapshot
from p2p_dist.config import Config
from p2p_dist.jobs import site, stages
from p2p_dist.owner import Owner
from p2p_dist.rundir import RunDir

_WORTH_SHOWING = ("warning:", "left out:", "note:")
"""How lines of a log begin that are shown beside a bar too."""

_GRACE = 30.0  # seconds that the other ranks have to leave once one has ended badly


def run(run: RunDir, settings: Config, owner: Owner, again: str) -> int:
    """Do what is not done of the four stages.

    Args:
        again: the command to go on with, for people.

    Returns:
        exit code: 0 done, 1 a stage failed or songs were left out, 75 stopped in order, 130 stopped at once.
    """
    run.logs.mkdir(parents=True, exist_ok=True)
    for folder in (run.path, run.evaluations):
        files.remove_garbage(folder)
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    for stage in stages.STAGES:
        if (found := stages.is_done(stage, run)) is not None:
            if found in (stages.SOUNDLESS, stages.NOT_ASKED):
                console.say(f"{stage}: {found}")
            elif stage != "page":
                console.say(f"{stage}: done already ({found})")
            continue
        code = _run_until_it_ends(stage, run, settings, owner)
        if code in (console.STOPPED, console.INTERRUPTED):
            console.say(f"stopped in {stage}; to go on: {again}")
            return code
        if code != console.DONE and stages.is_done(stage, run) is None:
            outcome, log = run.read_outcome(stage), run.logs / f"{stage}.log"
            if outcome is None:
                shown = "" if not console.has_bar(sys.stdout) else f"; the end of {log}:\n{_tail(log)}"
                console.complain(f"{stage} ended with {code}{shown}")
                console.complain(f"what was saved is good; to go on: {again}")
            # The log, shown where there is no bar, has said it; but the other ranks may have said since that they lost one.
            elif console.has_bar(sys.stdout) or not _tail(log).endswith(outcome["message"].splitlines()[-1]):
                console.complain(f"error: {outcome['message']}")
            return console.FAILED
    left_out = manifest.read(run.shards)["left_out"]
    for song in left_out:
        console.complain(f"left out: {song['reason']}")
    console.say(stages.last_lines(run))
    return console.FAILED if left_out else console.DONE


def _as_ctrl_c(number: int, _: FrameType | None) -> None:
    """TERM to the launcher is a first Ctrl-C; however often it comes, it is never the second."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run_until_it_ends(stage: str, run: RunDir, settings: Config, owner: Owner) -> int:
    """Run one stage, a training again when it crashed after it had come further; the exit code of the last attempt."""
    log = run.attempts(stage)
    for number in itertools.count():
        attempt = f"{socket.gethostname()}.{os.getpid()}.{int(time.time())}.{number}"
        if (refused := attempts.begin(log, attempt, _progress(run), by_hand=number == 0)) is not None:
            console.complain(f"{stage} is not begun again: {refused}; look into {run.logs}")
            return console.FAILED
        code = _run_stage(stage, run, owner, attempt)
        outcome = (run.read_outcome(stage) or {}).get("outcome")
        why = outcome or {console.DONE: "done", console.STOPPED: "stopped", console.INTERRUPTED: "stopped"}.get(code, "crash")
        attempts.end(log, attempt, _progress(run), code, why)
        if why != "crash" or stage != "train":
            return code
        if (refused := attempts.refuse_restart(log, _progress(run), settings.resources.max_crash_restarts)) is not None:
            console.complain(f"{stage} crashed and is not begun again: {refused}")
            return code
        console.complain(f"{stage} crashed ({code}) after step {_progress(run)} was saved: begun again from there")
    raise AssertionError


def _progress(run: RunDir) -> int:
    return saved.newest_step(run.checkpoints)


def _run_stage(stage: str, run: RunDir, owner: Owner, attempt: str) -> int:
    """Run one stage in its own process and show its progress; its exit code."""
    run.outcome_of(stage).unlink(missing_ok=True)
    module = "p2p_dist.jobs.local" if stage == "train" else "p2p_dist.jobs.stages"
    # -P: the code that the run began with, not what lies in the current folder.
    command = [sys.executable, "-P", "-m", module, stage, str(run.path)]
    log = run.logs / f"{stage}.log"
    seen = log.stat().st_size if log.is_file() else 0
    environment = {**os.environ, **snapshot.environment(run.code), "P2P_ATTEMPT": attempt}
    with os.fdopen(files.open_ours(log, os.O_WRONLY | os.O_APPEND), "a") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=[owner.descriptor],
        )
    with log.open(errors="replace") as output:
        output.seek(seen)
        return _follow(stage, run, child, output)


def _follow(stage: str, run: RunDir, child: subprocess.Popen[bytes], log: TextIO) -> int:
    """Show progress until the stage ends: a bar on a terminal, else the lines of its log.

    The first Ctrl-C asks the stage to stop, the second kills it.
    """
    asked = False
    # Of the page there is nothing to watch, and of a stage that is still importing no total yet.
    bar = console.Progress(stage, 0) if console.has_bar(sys.stdout) and stage != "page" else None
    try:
        while True:
            try:
                ended = child.poll() is not None
                for line in log.readlines():
                    if bar is None:
                        console.say(line.rstrip("\n"))
                    elif line.startswith(_WORTH_SHOWING):
                        bar.above(line.rstrip("\n"))
                if bar is not None and (status := _status(run)) is not None and status["what"] in (stage, "baselines"):
                    bar.follow(status.get("done", 0), status.get("total", 0), status.get("note", ""))
                if ended:
                    if asked and child.returncode == -signal.SIGTERM:  # before it could listen: it had not begun
                        return console.STOPPED
                    return child.returncode if child.returncode >= 0 else 128 - child.returncode
                time.sleep(0.2)
            except KeyboardInterrupt:
                if asked:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
                    return console.INTERRUPTED
                asked = True
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a TERM is never the second
                console.say(f"\nstopping {stage} in order (Ctrl-C again: at once)")
                child.send_signal(signal.SIGTERM)
    finally:
        if bar is not None:
            bar.close()


def _status(run: RunDir) -> dict[str, Any] | None:
    """What the stage says of its progress; None also where that can't be read: a bar is no reason to stop."""
    try:
        return run.read_status()
    except (OSError, files.DamagedError):
        return None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def _rank_log(run: RunDir, stage: str, rank: int) -> Path:
    return run.logs / f"{stage}-rank{rank}.log"


def fork_ranks(stage: str, folder: Path) -> NoReturn:
    """Fork one process a rank and wait for them: the start of a training, or a check like one, on this machine.

    Importing torch takes seconds a process; forked from a parent that imported it and ran no operation, all ranks start
    in a fraction of one.
    """
    from p2p_dist.train import stop

    stop.hold_back()  # until the ranks listen: a request that comes while torch is imported is theirs
    import torch
    import torch._dynamo  # DistributedDataParallel imports it

    assert torch.__version__
    run = RunDir(folder)
    resources = rundir.resolve(run).resources
    per_node = site.load("local", resources.site).processes_per_node(resources)
    world_size = resources.nodes * per_node
    environment = {
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    ranks: dict[int, int] = {}
    parent = os.getpid()
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            processes.die_with_parent(parent=parent)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if rank:
                with os.fdopen(files.open_ours(_rank_log(run, stage, rank), os.O_WRONLY | os.O_APPEND), "a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
            stages.run_stage(stage, folder)
        ranks[child] = rank

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    for number in stages.ASKED:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stages.ASKED)
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < world_size:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            code = os.waitstatus_to_exitcode(status)
            codes[ranks.pop(child)] = code
            if code not in (console.DONE, console.STOPPED):
                deadline = min(deadline, time.monotonic() + _GRACE)
        elif time.monotonic() > deadline:
            for child in ranks:
                os.kill(child, signal.SIGKILL)
        else:
            time.sleep(0.05)
    bad = {rank: code for rank, code in codes.items() if code not in (console.DONE, console.STOPPED)}
    for rank, code in sorted(bad.items()):
        if code == codes[0] == console.FAILED:
            continue  # an error of all, which rank 0 has said
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        where = f"rank {rank} of {world_size} on {socket.gethostname()}"
        console.complain(f"{where} ended with {ended}, after step {_last_step(run)}")
        if rank:
            console.complain(_tail(_rank_log(run, stage, rank)))
    highest = max(abs(code) for code in codes.values()) if bad else max(codes.values())
    os._exit(console.CRASHED if any(code < 0 for code in bad.values()) else highest)


def _last_step(run: RunDir) -> int:
    """The last step that has a line of numbers."""
    return int((rundir.last_metrics(run) or {"step": 0})["step"])


def free_port() -> int:
    """A port of this machine that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    assert sys.argv[1] in ("train", *stages.CHECKS)
    processes.die_with_parent(signal.SIGTERM)
    fork_ranks(sys.argv[1], Path(sys.argv[2]))

"""Start functions on several ranks, each in a process of its own, in a fraction of a second.

Importing torch and torch._dynamo takes many seconds a process. So all ranks of all tests are forked from one parent
(multiprocessing's fork server) that imported them and ran no operation: a forked torch that has started its threads hangs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from p2p_dist.common import linux

PRELOADED = ["tests.collector", "torch", "torch._dynamo", "safetensors.torch", "soundfile", "pytest", "p2p_dist.train.loop"]
PRELOADED += ["p2p_dist.evaluate.checkpoints", "p2p_dist.evaluate.report.page", "p2p_dist.data.shards"]
PRELOADED += ["tests.train.on_ranks", "tests.faults.job", "tests.evaluate.on_ranks", "tests.forked_stages"]

GRACE = 5.0
"""Seconds that the other ranks have to fail too, once one has: their tracebacks often say more."""


class RanksFailed(AssertionError):
    """Some ranks gave no result. codes: exit code by rank of those (negative: killed by that signal); errors: tracebacks."""

    def __init__(self, codes: dict[int, int | None], errors: dict[int, str], note: str) -> None:
        told = "\n".join(f"--- rank {rank}\n{errors.get(rank, f'exit code {codes[rank]}')}" for rank in sorted(codes))
        super().__init__(f"{note}\n{told}")
        self.codes, self.errors = codes, errors


def fork_server() -> ForkServerContext:
    """Its processes are forked from the one parent."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # The fork server imports ours too, and takes its path from the environment.
    ours = str(Path(__file__).parents[1])
    if ours not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([ours, os.environ.get("PYTHONPATH", "")])
    return context


def run_on_ranks(world_size: int, function: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> list[Any]:
    """Call `function(*arguments)` on every rank, as the processes of one training on this machine.

    Args:
        function: importable by name (at the top of a module), as are the arguments: they are pickled. It finds its place
            in RANK and the like; each rank computes in one thread.
        seconds: after so long all ranks are killed.

    Returns:
        what each rank returned, by rank.

    Raises:
        RanksFailed: a rank raised, ended early or took too long. No process is left.
    """
    environment = {
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
        "OMP_NUM_THREADS": 1,
    }
    context = fork_server()
    work = pickle.dumps((function, arguments))
    children, pipes = [], {}
    try:
        for rank in range(world_size):
            ours, theirs = context.Pipe(duplex=False)
            place = {name: str(value) for name, value in {**environment, "RANK": rank, "LOCAL_RANK": rank}.items()}
            child = context.Process(target=_rank, args=(theirs, place, work), daemon=True)
            child.start()
            theirs.close()
            children.append(child)
            pipes[ours] = rank
        return _results(children, pipes, time.monotonic() + seconds)
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
            child.join()
        for pipe in pipes:
            pipe.close()


def _results(children: list[Any], pipes: dict[Connection, int], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    errors: dict[int, str] = {}
    failed: set[int] = set()
    note = "a rank failed"
    waiting = dict(pipes)
    while waiting:
        ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
        if not ready:
            if not failed:
                note = "the ranks took too long"
            failed |= set(waiting.values())
            break
        for pipe in ready:
            rank = waiting.pop(pipe)  # type: ignore[call-overload]
            try:
                done, value = pickle.loads(pipe.recv_bytes())  # type: ignore[union-attr]  # noqa: S301
            except EOFError:  # it ended without a word
                done, value = False, None
            if done:
                results[rank] = value
            else:
                failed.add(rank)
                deadline = min(deadline, time.monotonic() + GRACE)
                if value is not None:
                    errors[rank] = value
    if failed:
        for child in children:
            child.join(0.2)
        codes = {rank: children[rank].exitcode for rank in failed}
        raise RanksFailed(codes, errors, note)
    return [results[rank] for rank in range(len(children))]


def _rank(pipe: Connection, place: dict[str, str], work: bytes) -> None:
    linux.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for pytest, which then kills the ranks
    os.environ.update(place)
    import torch

    torch.set_num_threads(1)
    try:
        function, arguments = pickle.loads(work)  # noqa: S301
        answer = (True, function(*arguments))
    except BaseException:
        answer = (False, traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        pipe.send_bytes(pickle.dumps(answer))
    pipe.close()
    # As the stages end: no thread or exit handler of a library may keep a finished process.
    os._exit(0 if answer[0] else 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The parent of the ranks: what it gives them, what it makes of their ends, and that a rank left alone does not hang for ever.

The ranks are real processes; what a stage does in them is replaced by a way to end.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from p2p_dist.common import console
from p2p_dist.jobs import forked_ranks, stage_process
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from tests.rank_processes import fork_server

KILLED = -signal.SIGKILL

HANGS = 1000


def _stage(ends: list[int]) -> None:
    """Of a rank: note its place, then end as asked: an exit code, a signal (less than 0), HANGS, or the signal that it gets."""
    rank = int(os.environ["RANK"])
    heard: list[int] = []
    for number in stage_process.ASKED:
        signal.signal(number, lambda number, _: heard.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stage_process.ASKED)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    print(" ".join(os.environ[name] for name in names), flush=True)
    if ends[rank] == HANGS:
        while not heard:
            time.sleep(0.01)
        os._exit(console.STOPPED if heard == [signal.SIGUSR2] else 99)
    if ends[rank] < 0:
        os.kill(os.getpid(), -ends[rank])
    os._exit(ends[rank])


def _parent(folder: Path, ends: list[int], grace: float) -> None:
    descriptor = os.open(folder / "parent.log", os.O_WRONLY | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    forked_ranks._GRACE = grace
    stage_process.run_stage = lambda stage, place: _stage(ends)  # type: ignore[assignment,return-value]
    forked_ranks.fork_ranks("train", folder)


def ended(
    place: Path, ends: list[int], grace: float = 20.0, send: int | None = None, after: float = 0.0
) -> tuple[int | None, str, RunDir]:
    """Exit code and output of a parent of ranks that end in these ways."""
    run = RunDir(place)
    run.logs.mkdir(parents=True)
    tiny = presets.preset("tiny")
    resources = dataclasses.replace(tiny.resources, nodes=len(ends))
    run.config.write_text(presets.to_yaml(dataclasses.replace(tiny, resources=resources)))
    process = fork_server().Process(target=_parent, args=(place, ends, grace))
    process.start()
    if send is not None:
        assert process.pid is not None
        last = run.logs / f"train-rank{len(ends) - 1}.log"
        while process.is_alive() and not (last.is_file() and last.read_text().strip()):
            time.sleep(0.01)
        time.sleep(after)
        os.kill(process.pid, send)
    process.join(60)
    return process.exitcode, (place / "parent.log").read_text(), run


@pytest.mark.parametrize(
    ("ends", "code"),
    [([0, 0], 0), ([0, 75], 75), ([75, 75], 75), ([1, 1], 1), ([75, 1], 75), ([3, 75], 75), ([3, 0], 3), ([0, KILLED], 134)],
)
def test_the_exit_code_is_the_highest_as_with_srun_and_a_crash_where_one_was_killed(tmp_path, ends, code):
    found, said, _ = ended(tmp_path, ends)
    assert found == (console.CRASHED if code == 134 else code), said


def test_each_rank_has_its_place_and_all_meet_at_one_port(tmp_path):
    _, said, run = ended(tmp_path, [0, 0, 0])
    logs = [said, *((run.logs / f"train-rank{rank}.log").read_text() for rank in (1, 2))]
    told = [log.split() for log in logs]
    assert [words[:2] for words in told] == [["0", "0"], ["1", "1"], ["2", "2"]]
    assert {tuple(words[2:5]) for words in told} == {("3", "3", "127.0.0.1")} and len({words[5] for words in told}) == 1


def test_a_rank_that_ends_badly_is_named_with_its_last_lines_and_step(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 7}\n{"step": 9}\n')
    _, said, _ = ended(tmp_path, [0, 3, KILLED])
    assert "rank 1 of 3 on " in said and "ended with exit code 3, after step 9" in said
    assert "ended with SIGKILL, after step 9" in said and "1 1 3 3 127.0.0.1" in said, "the end of its log"


def test_an_error_that_rank_0_reported_is_not_told_once_more(tmp_path):
    assert "ended with" not in ended(tmp_path / "both", [1, 1])[1]
    assert "rank 1 of 2" in ended(tmp_path / "one", [0, 1])[1], "of one that rank 0 does not know, it is"


def test_ranks_that_hang_are_killed_some_seconds_after_another_failed(tmp_path):
    begun = time.monotonic()
    code, said, _ = ended(tmp_path, [HANGS, 3], grace=0.5)
    assert code == console.CRASHED and "rank 0 of 2" in said and "SIGKILL" in said
    assert 0.5 < time.monotonic() - begun < 20


def test_a_rank_that_was_stopped_leaves_the_others_their_time(tmp_path):
    """75 is no failure: the others save."""
    code, said, _ = ended(tmp_path / "all", [HANGS, 75], grace=0.1, send=signal.SIGUSR2, after=0.5)
    assert code == console.STOPPED and "ended with" not in said


def test_a_request_to_stop_reaches_every_rank(tmp_path):
    assert ended(tmp_path / "all", [HANGS, HANGS], send=signal.SIGUSR2)[0] == console.STOPPED

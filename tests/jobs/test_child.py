"""What a stage is started with on this machine."""

import subprocess
import tracemalloc
from pathlib import Path

import pytest

from p2p_dist.jobs import child
from p2p_dist.run import rundir, snapshot


@pytest.fixture
def started(tmp_path, monkeypatch):
    """`started(stage)`: command line and environment of the process that would start it."""
    run = rundir.RunDir(tmp_path / "run")
    snapshot.copy_code(run.code)
    seen = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: seen.append((command, options["env"])))

    def started(stage):
        child.start(stage, run, "here.1", run.logs / "log")
        return seen[-1]

    started.run = run
    return started


@pytest.mark.parametrize(
    ("stage", "module"), [("train", "forked_ranks"), ("scaling", "forked_ranks"), ("page", "stage_process")]
)
def test_a_stage_is_started_from_the_runs_own_copy(started, stage, module):
    command, environment = started(stage)
    assert command[1:] == ["-P", "-m", f"p2p_dist.jobs.{module}", stage, str(started.run.path)]
    assert environment["PYTHONPATH"] == str(started.run.code) and environment["P2P_ATTEMPT"] == "here.1"


@pytest.mark.parametrize(("stage", "module"), [("train", "local"), ("page", "stages")])
def test_a_copy_of_version_0_1_is_started_by_its_own_names(started, stage, module):
    """If it failed: no run that version 0.1 began finishes."""
    jobs = Path(started.run.code, "p2p_dist", "jobs")
    for name in ("forked_ranks.py", "stage_process.py"):
        (jobs / name).unlink()
    snapshot.record(started.run.code)
    assert started(stage)[0][3] == f"p2p_dist.jobs.{module}"


@pytest.mark.parametrize(("set_by_the_user", "given"), [(None, "passive"), ("active", "active")])
def test_idle_threads_do_not_spin_unless_the_user_says_so(started, monkeypatch, set_by_the_user, given):
    """Each product of matrices, and then 20 ms of nothing: 29 ms of CPU time with OpenMP's default, 3 ms with passive."""
    if set_by_the_user is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", set_by_the_user)
    assert started("train")[1]["OMP_WAIT_POLICY"] == given


def test_the_end_of_a_long_log_is_read_alone(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("".join(f"ö {number}\n" for number in range(2_000_000)))
    tracemalloc.start()
    assert child.tail(log).splitlines() == [f"ö {number}" for number in range(1_999_988, 2_000_000)]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    log.write_text("one\ntwo")
    assert child.tail(log) == "one\ntwo"

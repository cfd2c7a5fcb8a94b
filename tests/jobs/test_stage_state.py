"""The state of a stage in words, from the files of its run."""

import json
import os
import re

import pytest

from p2p_dist.common import files
from p2p_dist.jobs import stage_state
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run import rundir
from p2p_dist.settings import config
from tests.jobs.run_on_lumi import run

__all__ = ["run"]


def test_a_member_of_an_array_that_crashed_is_told(run):
    """Members write their starts each into a file of its own."""
    resources = config.Resources()
    assert stage_state.state("evaluate", run, {}, resources) == "to do"
    for member, line in enumerate(("end 8.0 3 20 0 done 20", "end 9.0 3 20 139 crash 20")):
        start = line.split()[1]
        files.write_text(run.slurm / "evaluate" / f"attempts.{member}", f"launch 8\nstart {start} 0 10 1\n{line}\n")
    assert stage_state.state("evaluate", run, {}, resources) == f"crashed (exit code 139), see {run.slurm / 'evaluate'}"
    with (run.slurm / "evaluate" / "attempts.1").open("a") as log:
        log.write("start 10.0 3 30 1\nend 10.0 5 40 0 done 40\n")
    assert stage_state.state("evaluate", run, {}, resources) == "to do", "begun again, it came to its end"


def test_why_it_stopped_is_said(run):
    """By the breaker, by the number of restarts, by a person: each needs another answer."""
    log, resources = run.slurm / "train" / "attempts", config.Resources(max_requeues=5)
    lines = "launch 8\n" + "".join(f"start 8.{n} 40 {30000 + n} 2\nend 8.{n} 40 {30000 + n} 75 stopped 9\n" for n in range(3))
    files.write_text(log, lines + "start 8.3 40 30010 2\n")
    said = stage_state.state("train", run, {}, resources)
    assert said == f"stopped: started 4 times from the same place (40) without progress; see {log.parent}"
    with log.open("a") as file:
        file.write("end 8.3 40 30010 1 failed 9\n")
    assert stage_state.state("train", run, {}, resources) == said
    files.write_text(log, "launch 8\n" + "".join(f"start 8.{n} {n} {n} 2\nend 8.{n} {n} {n} 75 stopped 9\n" for n in range(6)))
    run.write_outcome("train", "stopped")
    assert "stopped: restarted 5 times (--max-requeues)" in stage_state.state("train", run, {}, resources)
    assert stage_state.state("train", run, {}, config.Resources()) == "stopped", "it will be restarted"
    (run.slurm / "cancelled").touch()
    assert stage_state.state("train", run, {}, config.Resources()) == "stopped: cancelled"
    run.outcome.unlink()
    files.write_text(log, "launch 9\nstart 9.0 40 30000 2\n")
    assert stage_state.state("train", run, {}, resources) == "killed or cancelled (attempt 9.0)"
    running = {"train": squeue.Queued("9", "RUNNING", "None")}
    assert stage_state.state("train", run, running, resources) == "running, job 9"
    files.write_text(log, "launch 9\nstart 9.0 40 30000 2\nend 9.0 40 30000 1 failed 9\n")
    assert stage_state.state("train", run, {}, resources) == f"failed (exit code 1), see {log.parent}"


def test_an_evaluation_that_waits_beside_its_training_may_begin_often(run):
    lines = "".join(f"start 8.{n} 3 {30000 + n} 1 beside\nend 8.{n} 3 {30000 + n} 75 stopped 9\n" for n in range(9))
    files.write_text(run.slurm / "evaluate" / "attempts", "launch 8\n" + lines)
    assert stage_state.state("evaluate", run, {}, config.Resources(max_requeues=5)) == "stopped"


def test_a_launcher_that_is_gone_does_not_run(run):
    """Whatever process has its number by now."""
    files.write_json(run.status, {"what": "train"})
    resources = config.Resources()
    owner = rundir.lock_run(run)
    assert stage_state.state("train", run, None, resources) == "running on this machine"
    rundir.find("mine")  # looking does not take it away
    with pytest.raises(ValueError, match="running already"):
        rundir.lock_run(run)
    owner.close()
    assert json.loads((run.path / ".owner").read_text())["process"] == os.getpid()
    assert stage_state.state("train", run, None, resources) == "stopped"


@pytest.mark.parametrize(
    ("code", "why", "told"),
    [("255", "crash", "the container did not start"), ("1", "failed", "failed"), ("139", "crash", "crashed")],
)
def test_of_several_members_that_ended_badly_the_last_one_is_told(run, code, why, told):
    for member, lines in enumerate(
        (f"start 8.1 0 20 1\nend 8.1 0 30 {code} {why} 20\n", "start 8.0 0 10 1\nend 8.0 0 40 7 crash 10\n")
    ):
        files.write_text(run.slurm / "evaluate" / f"attempts.{member}", f"launch 8\n{lines}")
    said = f"{told} (exit code {code}), see {run.slurm / 'evaluate'}"
    assert stage_state.state("evaluate", run, {}, config.Resources()) == said


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (squeue.Queued("9", "PENDING", "None"), "pending, job 9"),
        (squeue.Queued("9", "PENDING", "Priority"), "pending (Priority), job 9"),
        (squeue.Queued("9", "RUNNING", "Priority"), "running, job 9"),
        (squeue.Queued("9", "PENDING", "None", "other"), "pending, job 9 of the run other"),
        (
            squeue.Queued("9", "PENDING", squeue.NEVER),
            f"pending ({squeue.NEVER}), job 9: a job that it depends on failed; run the launch command again",
        ),
    ],
)
def test_a_job_is_told_with_what_it_waits_for(run, job, told):
    assert stage_state.state("train", run, {"train": job}, config.Resources()) == told


def test_the_end_of_another_attempt_is_not_the_time_of_a_failure(run, monkeypatch):
    """A run may be started on this machine and on Slurm by turns."""
    files.write_text(run.attempts("train"), "launch here\nstart here.1 0 10 1\nend here.1 40 20 1 failed 20\n")
    for attempt, told in (("here.1", "failed 1970-01-01 00:00 at step 12: no room"), ("there.2", "failed: no room")):
        monkeypatch.setenv("P2P_ATTEMPT", attempt)
        run.write_outcome("train", "failed", "no room", 12)
        said = stage_state.state("train", run, None, config.Resources())
        assert re.sub(r"19\d\d-\d\d-\d\d \d\d:\d\d", "1970-01-01 00:00", said) == told


def test_a_part_of_an_array_that_started_was_not_removed_from_the_queue(run):
    """Parts of an array have numbers of their own."""
    folder, dropped = run.slurm / "evaluate", "removed from the queue before it started, job 100: "
    files.write_text(folder / "100_submission.sh", "")
    assert stage_state.state("evaluate", run, {}, config.Resources()).startswith(dropped)
    files.write_text(folder / "attempts.1", "start 101.0 0 10 1\nend 101.0 3 20 0 done 20\n")
    assert stage_state.state("evaluate", run, {}, config.Resources()) == "to do"
    os.utime(folder / "attempts.1", (1, 1))  # of an earlier launch
    assert stage_state.state("evaluate", run, {}, config.Resources()).startswith(dropped)


def test_a_start_that_crashed_is_told_although_an_earlier_one_left_its_outcome(run, monkeypatch):
    """The container of the second start did not start, so nothing removed what the first had written."""
    monkeypatch.setenv("P2P_ATTEMPT", "8.0")
    run.write_outcome("evaluate", "stopped", "asked by Slurm")
    log = run.slurm / "evaluate" / "attempts"
    files.write_text(log, "launch 8\nstart 8.0 0 10 1\nend 8.0 0 20 75 stopped 20\n")
    assert stage_state.state("evaluate", run, {}, config.Resources()).endswith(": asked by Slurm")
    with log.open("a") as more:
        more.write("start 8.1 0 30 1\nend 8.1 0 40 255 crash 20\n")
    said = f"the container did not start (exit code 255), see {log.parent}"
    assert stage_state.state("evaluate", run, {}, config.Resources()) == said

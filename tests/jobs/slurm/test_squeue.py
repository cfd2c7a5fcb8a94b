"""What is queued, and for which run."""

import os
import time

import pytest

from p2p_dist.common import files
from p2p_dist.jobs import status
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run import rundir
from tests.jobs.slurm.fake_slurm import CHAIN, cluster, launch

__all__ = ["cluster", "launch"]


def test_queued_jobs_are_known_by_their_comment(tmp_path, monkeypatch):
    """Also by the run's real path (a scratch folder is often a link); the successor of a job that still ends counts."""
    (tmp_path / "real" / "a | run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real, link = tmp_path / "real" / "a | run", tmp_path / "link" / "a | run"
    lines = [
        f"7|COMPLETING|None|p2p_dist train {link}",
        f"12|PENDING|Dependency|p2p_dist train {link}",
        f"9|RUNNING|None|p2p_dist evaluate {real}",
        f"10|RUNNING|None|p2p_dist page {link}-2",
        "11|RUNNING|None|(null)",
    ]
    (tmp_path / "squeue").write_text("#!/bin/sh\ncat <<X\n" + "\n".join(lines) + "\nX\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = squeue.queued_jobs(rundir.RunDir(link))
    assert {stage: job.number for stage, job in found.items()} == {"train": "12", "evaluate": "9"}
    (tmp_path / "squeue").write_text("#!/bin/sh\nprintf 'no name\\nno contact\\n' >&2\nexit 1\n")
    with pytest.raises(OSError, match=r"Slurm does not answer \(no contact\); on a machine without Slurm"):
        squeue.queued_jobs(rundir.RunDir(link))


def test_jobs_of_the_users_own_are_passed_over(cluster, launch):
    """A heterogeneous job has two numbers; a comment may be anything."""
    launch("--run", "a")
    ours = f"p2p_dist train {rundir.find('a').path}"
    cluster.add("41+0|RUNNING|None|(null)|p", f"42+1|PENDING|None|{ours}|p", "43|PENDING|a|b|c|d", "", "no job at all")
    assert {stage: job.number for stage, job in squeue.queued_jobs(rundir.find("a")).items()} == dict(
        zip(CHAIN, ("100", "101", "102", "103"), strict=True)
    )


def test_status_says_what_can_never_begin_and_what_was_dropped(cluster, launch, capsys):
    """By Slurm, behind a training that failed. If it failed: "to do", as if nobody had ever asked for it."""
    launch("--run", "a")
    run = rundir.find("a")
    queue = (cluster.place / "queue").read_text()
    (cluster.place / "queue").write_text(queue.replace("Dependency", squeue.NEVER))
    said = status.gather(run)["stages"]["page"]
    assert said.startswith("pending (DependencyNeverSatisfied), job 103: a job that it depends on failed")
    (cluster.place / "queue").write_text("")
    files.write_text(run.slurm / "train" / "attempts", "launch 101\nstart 101.0-a 0 100 1\nend 101.0-a 0 200 139 crash 0\n")
    files.write_text(run.slurm / "preprocess" / "attempts", "launch 100\nstart 100.0-a 0 100 1\nend 100.0-a 4 200 0 done 0\n")
    found = status.gather(run)["stages"]
    assert found["train"].startswith("crashed (exit code 139)") and found["preprocess"] == "to do"
    assert (
        found["evaluate"]
        == "removed from the queue before it started, job 102: a job that it depended on failed; run the launch command again"
    )
    squeue.mark_cancelled(run)
    assert status.gather(run)["stages"]["page"] == "removed from the queue before it started, job 103: cancelled"
    files.write_text(run.slurm / "evaluate" / "attempts.0", "launch 7\nstart 7.0-a 0 100 1\n")
    assert status.gather(run)["stages"]["evaluate"].startswith("killed or cancelled")


def test_slurm_is_asked_seldom_while_jobs_wait():
    now = time.monotonic()
    assert squeue.patience(["pending (Priority)"], now) < 1, "it may begin at once"
    assert squeue.patience(["pending (Priority)"], now - 11) == 5
    assert squeue.patience(["running"], now - 11) < 1 and squeue.patience(["pending", "running"], now - 11) == 1


def test_a_user_without_a_name_has_no_known_accounts(monkeypatch):
    """In a container with a number alone: it is a KeyError before Python 3.13, an OSError after."""

    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(squeue.getpass, "getuser", nobody)
    assert squeue.your_accounts() == "sacctmgr names none of yours: ask the cluster's support"

"""The folder of a check: its own runs alone are removed, and one check of a kind uses it at a time."""

import os

import pytest

from p2p_dist.checks.folder import check_folder
from p2p_dist.cli import check
from p2p_dist.run.rundir import RunDir


def test_a_check_removes_its_own_runs_and_never_a_users(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path))
    (tmp_path / "drill" / "runs" / "stopped-1").mkdir(parents=True)
    (tmp_path / "drill" / "shards" / "made").mkdir(parents=True)
    with check_folder("drill") as root:
        assert root == tmp_path / "drill"
        assert not (root / "runs").exists() and (root / "shards" / "made").exists()
    mine = RunDir(tmp_path / "preflight")
    mine.checkpoints.mkdir(parents=True)
    mine.config.touch()
    with pytest.raises(ValueError, match="is one of your runs"), check_folder("preflight"):
        pass
    assert mine.checkpoints.is_dir()


CHECKS = (
    ("preflight", "p2p_dist.jobs.child.start", "--cluster", "local"),
    ("scaling", "p2p_dist.jobs.child.start", "--cluster", "local", "--nodes", "1"),
    ("drill", "p2p_dist.checks.drill.here.drill_here"),
)


@pytest.mark.parametrize(("name", "body", "options"), [(name, body, options) for name, body, *options in CHECKS])
def test_a_check_typed_again_leaves_the_first_alone(name, body, options, tmp_path, monkeypatch):
    """While it works, and behind a launcher that is gone: its jobs may wait for days, and still read its folder."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "a place" / "runs"))
    root = tmp_path / "a place" / "runs" / name
    told = []

    def typed_again(*_):
        (root / "runs" / "first").mkdir(parents=True)
        with pytest.raises(ValueError) as refused:
            check.main([name, *options])
        told.append(str(refused.value))
        raise LookupError

    monkeypatch.setattr(body, typed_again)
    with pytest.raises(LookupError):
        check.main([name, *options])
    assert f"the check {name} is running already: process {os.getpid()} on " in told[0] and (root / "runs" / "first").is_dir()

    (root / "runs" / "first" / "slurm").mkdir()
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '12|PENDING|Priority|p2p_dist {name} {root}/runs/first'\necho '13|RUNNING|None|mine'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match=rf"{name} is already queued or running \(job 12, pending\).*scancel 12, then run"):
        check.main([name, *options])
    assert (root / "runs" / "first").is_dir()
    squeue.write_text("#!/bin/sh\n")  # it has ended
    with pytest.raises(LookupError):
        check.main([name, *options])
    assert len(told) == 2

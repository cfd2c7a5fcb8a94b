"""The whole way on a cluster, as a user types it, beside the same run on one machine."""

import os
import re
from pathlib import Path

import pytest
import torch

from p2p_dist import rundir
from p2p_dist.train import checkpoint

TINY = ("--preset", "tiny", "--train.steps", "40", "--train.keep-every", "2")


def ids(shown):
    """stage -> job id, of what the launcher printed."""
    return dict(re.findall(r"^(\w+): (?:queued already, )?job (\d+)", shown, re.MULTILINE))


def digests(run):
    """What identifies the batches of every step, in order; each once."""
    rows = rundir.read_metrics(run)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["digests"] for row in rows]


def same(run, other):
    """The same batches and the same weights, to the last bit."""
    assert digests(run) == digests(other)
    ours, theirs = (list(checkpoint.tensors(checkpoint.load_newest(r.checkpoints))) for r in (run, other))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def here(launch):
    """The same training on one machine, undisturbed."""
    launch("submit", "--cluster", "local", "--nodes", "2", "--processes-per-node", "2", "--run", "here", *TINY)
    return rundir.find("here")


def test_two_nodes_of_two_tasks_run_to_the_page(lab, launch, here):
    shown = launch("submit", "--nodes", "2", "--processes-per-node", "2", "--run", "there", *TINY)
    found = ids(shown)
    assert list(found) == ["train", "evaluate", "page"] and "preprocess: done already" in shown
    for stage, number in found.items():
        job = lab.wait_for(number, 240, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        log = Path(job["StdOut"])
        assert job["JobState"] == "COMPLETED", (stage, job, log.read_text() if log.exists() else "")
    run = rundir.find("there")
    assert run.page.is_file()
    same(run, here)
    log = next((run.slurm / "train").glob("*_0_log.out")).read_text()
    assert "4 processes x 1" in log and "1 threads each" in log and "\x1b" not in log
    assert len(list((run.slurm / "train").glob("*_log.out"))) == 4, os.listdir(run.slurm / "train")

"""The whole way on a cluster, as a user types it, beside the same run on one machine."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from lab import wait_until

from p2p_dist import rundir
from p2p_dist.jobs import site
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
def here(lab, launch):
    """The same training on one machine, undisturbed."""
    launch("submit", "--cluster", "local", "--nodes", "2", "--processes-per-node", "2", "--run", "here", *TINY)
    return rundir.find("here")


HURT = ("--preset", "tiny", "--train.steps", "110", "--train.keep-every", "100")


def test_a_training_hurt_in_every_way_gives_the_weights_of_the_undisturbed_one(lab, launch, here):
    """Preempted, asked to stop, requeued from outside, its daemon lost: the same batches, the same weights."""
    launch("submit", "--cluster", "local", "--nodes", "2", "--run", "calm", *HURT)
    number = ids(launch("submit", "--nodes", "2", "--run", "hurt", "--partition", "low", *HURT))["train"]
    run, calm = rundir.find("hurt"), rundir.find("calm")

    def step():
        rows = rundir.read_metrics(run)
        return rows[-1]["step"] if rows else 0

    def said():
        return "\n".join(path.read_text()[-3000:] for path in (run.slurm / "train").glob("*.out"))

    def until(goal):
        wait_until(lambda: lab.release(number) or step() >= goal, 150, lambda: f"step {goal}: {lab.job(number)}\n{said()}")

    until(10)
    preempt(lab, number)
    until(30)
    lab.ask("scancel", "--signal=USR2", number)
    until(50)
    lab.ask("scontrol", "requeue", number)
    until(70)
    node = lab.job(number)["BatchHost"]
    lab.kill_slurmd(node)
    try:
        job = lab.wait_for(number, 200, "COMPLETED", "FAILED", "CANCELLED")
    finally:
        lab.return_node(node)
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "4", said()
    same(run, calm)
    found = json.loads(launch("status", "hurt", "--json"))
    assert found["stages"]["train"] == "done" and found["attempts"] == 5 and found["step"] == 110


def preempt(lab, number):
    """Have a job of a partition of higher rank take the job's nodes for some seconds."""
    job = lab.job(number)
    options = ("-p", "high", "-w", job["NodeList"], "-N", job["NumNodes"], "--exclusive", "-o", "/dev/null")
    subprocess.run(["sbatch", *options], input="#!/bin/sh\nsleep 5\n", capture_output=True, text=True, check=True)


def test_two_nodes_of_two_tasks_run_to_the_page(lab, launch, here, tmp_path):
    """And two tasks share the evaluation: each checkpoint is taken by one of them."""
    mine = tmp_path / "mine.yaml"
    mine.write_text((site.HPC / "sites" / "slurm.yaml").read_text().replace("evaluate_processes: 1", "evaluate_processes: 2"))
    place = ("--nodes", "2", "--processes-per-node", "2", "--site", str(mine))
    shown = launch("submit", *place, "--run", "there", "--wait", *TINY)
    found = ids(shown)
    assert list(found) == ["train", "evaluate", "page"] and "preprocess: done already" in shown
    assert shown.splitlines()[-1] == f"page: {rundir.find('there').page}"
    for stage, number in found.items():
        job = lab.wait_for(number, 240, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        log = Path(job["StdOut"])
        assert job["JobState"] == "COMPLETED", (stage, job, log.read_text() if log.exists() else "")
    run = rundir.find("there")
    assert run.page.is_file()
    same(run, here)
    steps = [step for step, path in rundir.find_steps(run.checkpoints) if (path / "generator.safetensors").is_file()]
    said = [path.read_text() for path in sorted((run.slurm / "evaluate").glob("*_log.out"))]
    taken = [[int(step) for step in re.findall(r"step (\d+)", text)] for text in said]
    assert len(taken) == 2 and [step for step, _ in rundir.find_steps(run.evaluations)] == steps
    claims = next((run.evaluations / "claims").iterdir())
    assert sorted(path.name for path in claims.iterdir()) == [rundir.step_name(step) for step in steps]
    assert not set(taken[0]) & set(taken[1])
    log = next((run.slurm / "train").glob("*_0_log.out")).read_text()
    assert "4 processes x 1" in log and "1 threads each" in log and "\x1b" not in log
    assert len(list((run.slurm / "train").glob("*_log.out"))) == 4, sorted((run.slurm / "train").iterdir())

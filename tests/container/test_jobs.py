"""The scripts of `launch/submit.py --cluster lumi`, in a real container on a real Slurm that plays LUMI-G's nodes."""

import re
import subprocess

import torch
from lab import wait_until
from standins import TRAINING, launch

from p2p_dist import rundir
from p2p_dist.train import checkpoint

LONG = 150


def ids(shown):
    """stage -> job id, of what the launcher printed."""
    return dict(re.findall(r"^(\w+): job (\d+)", shown, re.MULTILINE))


def said(run, part="*"):
    """All that its jobs and their processes wrote."""
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted((run.slurm / "train").glob(part)))


def step(run):
    rows = rundir.read_metrics(run)
    return rows[-1]["step"] if rows else 0


def test_two_nodes_preempted_and_requeued_give_the_weights_of_the_undisturbed_training(place, calm):
    lab, run = place.lab, rundir.find("hurt")
    number = ids(launch("submit", *place.options(), "--partition", "low", "--run", "hurt", *TRAINING))["train"]

    def until(goal):
        wait_until(lambda: lab.release(number) or step(run) >= goal, LONG, lambda: f"{goal}: {lab.job(number)}\n{said(run)}")

    until(10)
    job = lab.job(number)
    options = ("-p", "high", "-w", job["NodeList"], "-N", job["NumNodes"], "--exclusive", "-o", "/dev/null")
    subprocess.run(["sbatch", *options], input="#!/bin/sh\nsleep 5\n", capture_output=True, text=True, check=True)
    until(40)
    lab.ask("scontrol", "requeue", number)
    job = lab.wait_for(number, LONG, "COMPLETED", "FAILED", "CANCELLED")
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "2", said(run)
    attempts = (run.slurm / "train" / "attempts").read_text().splitlines()
    assert [line.split()[5] for line in attempts if line.startswith("end")] == ["stopped", "killed", "done"]
    assert re.findall(r"--- train, attempt|stopped in order", said(run, "*_0_log.out")) == [
        *["--- train, attempt", "stopped in order"] * 2,
        "--- train, attempt",
    ], "once a start, though signalled twice"
    rows, undisturbed = rundir.read_metrics(run), rundir.read_metrics(calm)
    assert [row["digests"] for row in rows] == [row["digests"] for row in undisturbed]
    ours, theirs = (list(checkpoint.tensors(checkpoint.load_newest(r.checkpoints))) for r in (run, calm))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

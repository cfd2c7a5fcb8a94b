"""The scripts of `launch/submit.py --cluster lumi`, in a real container on a real Slurm that plays LUMI-G's nodes."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lab import wait_until
from standins import TRAINING, call, launch

from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint
from tests.jobs.submit_command import BASE_ONLY

LONG = 150


class Queued:
    """A run of a launch, and its jobs: stage -> number."""

    def __init__(self, place, name, *options):
        self.lab, self.run = place.lab, rundir.find(name)
        shown = launch("submit", *place.options(), "--run", name, *TRAINING, *options)
        self.jobs = dict(re.findall(r"^(\w+): job (\d+)", shown, re.MULTILINE))
        self.train = self.jobs["train"]

    def said(self, part="*/*.out"):
        """All that its jobs and their processes wrote."""
        return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(self.run.slurm.glob(part)))

    def until_step(self, step):
        def reached():
            self.lab.release(self.train)
            rows = metrics_file.read(self.run)
            return rows and rows[-1]["step"] >= step

        wait_until(reached, LONG, lambda: f"{step}: {self.lab.job(self.train)}\n{self.said()}")

    def ended(self, stage, state):
        job = self.lab.wait_for(self.jobs[stage], LONG, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        assert job["JobState"] == state, f"{stage}: {job}\n{self.said()}"
        return job

    def attempts(self, stage="train"):
        """(exit code, why) of each end."""
        lines = (self.run.slurm / stage / "attempts").read_text().splitlines()
        return [tuple(line.split()[4:6]) for line in lines if line.startswith("end")]


@pytest.fixture(scope="module")
def runs(place, calm):
    """All runs of this file, side by side; what they train on is there, the run `calm` made it."""
    base, overlay = place.images.base.result(), place.images.overlay.result()
    gone = place.folder / "gone.sif"
    gone.touch()
    runs = {
        "hurt": Queued(place, "hurt", "--partition", "low"),
        "overlaid": Queued(
            *(place, "overlaid", "--container", str(base), "--overlay", str(overlay), "--train.steps", "10"),
            *("--data.seed", "1", "--preprocess-array", "2"),  # a dataset of its own
        ),
        "vanished": Queued(place, "vanished", "--container", str(gone)),
    }
    gone.unlink()
    sizes = ("--nodes", "1,2", "--processes-per-node", "1", "--partition", "small-g", "--preset", "tiny", "--steps", "3")
    with ThreadPoolExecutor(1) as pool:
        yield runs | {"scaling": pool.submit(launch, "check", "scaling", *sizes, *place.options())}


def test_two_nodes_preempted_and_requeued_give_the_weights_of_the_undisturbed_training(place, runs, calm):
    hurt = runs["hurt"]
    hurt.until_step(10)
    job = place.lab.job(hurt.train)
    options = ("-p", "high", "-w", job["NodeList"], "-N", job["NumNodes"], "--exclusive", "-o", "/dev/null")
    subprocess.run(["sbatch", *options], input="#!/bin/sh\nsleep 5\n", capture_output=True, text=True, check=True)
    hurt.until_step(50)
    place.lab.ask("scontrol", "requeue", hurt.train)
    hurt.ended("train", "COMPLETED")
    *stops, last, done = [why for _, why in hurt.attempts()]
    # On a busy machine it may be back on its nodes before the other job, and is preempted once more.
    # That it was requeued from outside the batch shell may live to write down, or the next start does.
    assert set(stops) == {"stopped"} and last in ("stopped", "killed") and done == "done", hurt.said()
    begun, saved = "--- train, attempt", "stopped cleanly"
    told = re.findall(f"{begun}|{saved}", hurt.said("train/*_0_log.out"))
    assert told == [*[begun, saved] * len(stops), begun, saved, begun], "saved once a stop, though signalled by two"
    rows, undisturbed = metrics_file.read(hurt.run), metrics_file.read(calm)
    assert [row["digests"] for row in rows] == [row["digests"] for row in undisturbed]
    ours, theirs = (list(checkpoint.tensors(checkpoint.load_newest(r.checkpoints))) for r in (hurt.run, calm))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_unchanged_image_and_an_overlay_run_the_whole_way(runs):
    overlaid = runs["overlaid"]
    first = overlaid.jobs.pop("preprocess")
    for member in (0, 1):
        overlaid.jobs[f"preprocess {member}"] = f"{first}_{member}"
    for stage in overlaid.jobs:
        overlaid.ended(stage, "COMPLETED")
    assert f"--dependency=afterok:{first}\n" in next((overlaid.run.slurm / "train").glob("*.sh")).read_text()
    assert overlaid.run.page.is_file()
    script = next((overlaid.run.slurm / "train").glob("*.sh")).read_text()
    assert "export P2P_OVERLAY=" in script and "export P2P_PYTHON=python\n" in script


WITHOUT_NUMPY = f"""{BASE_ONLY}
import runpy
sys.argv[0] = "launch/preprocess.py"
sys.path.insert(0, "launch")
runpy.run_path("launch/preprocess.py", run_name="__main__")
"""


def test_preprocessing_is_queued_from_a_login_node_without_numpy(place, calm):
    """An array in the container, whose jobs see songs and shards; the shards are those of this machine."""
    songs = rundir.read_settings(calm).data.root
    command = (sys.executable, "-c", WITHOUT_NUMPY, "--preset", "tiny", "--data", songs, "--array", "2", *place.options())
    assert f"export P2P_CONTAINER={place.images.image.result()}" in call(*command, "--task", "bass", "--dry-run")
    said = call(*command, "--task", "bass")
    job, shards = re.search(r"job (\d+), log .*its shards: (.*)", said, re.DOTALL).groups()
    for member in (0, 1):
        ended = place.lab.wait_for(f"{job}_{member}", LONG, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        assert ended["JobState"] == "COMPLETED", ended
    launch("preprocess", "--preset", "tiny", "--data", songs, "--task", "bass", "--verify")
    assert (Path(shards.strip()) / "manifest.json").is_file()


def test_an_image_without_what_jobs_import_is_refused_before_anything_is_queued(place, runs):
    base = place.images.base.result()
    shown = launch("submit", *place.options(), "--run", "bare", *TRAINING, "--container", str(base), code=2)
    assert f"jobs would run in {base}, where these packages are missing: " in shown and "build_overlay.sh" in shown
    assert not rundir.find("bare").path.exists()


def test_a_container_that_does_not_start_is_no_failure_of_the_run(runs):
    """The image is gone when the job begins: tried once more, then not again, and status says why."""
    vanished = runs["vanished"]
    vanished.ended("train", "FAILED")
    assert vanished.attempts() == [("255", "crash"), ("255", "crash")]
    assert "gone.sif; build it (containers/build.sh in the source code), or name another: --container" in vanished.said()
    found = json.loads(launch("status", "vanished", "--json"))
    assert found["stages"]["train"].startswith("the container did not start (exit code 255)")
    assert shutil.which("singularity"), "and it is not for want of Singularity"


def test_scaling_on_a_cluster(runs):
    """Preprocessing, then a job a size, in the container; the launcher waits for them and prints what they left."""
    shown = runs["scaling"].result()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [row[:3] for row in rows] == [["1", "1", "weak"], ["1", "1", "strong"], ["2", "2", "weak"], ["2", "2", "strong"]]
    assert all(float(row[4]) > 0 for row in rows) and rows[2][10].endswith("GB/s"), shown

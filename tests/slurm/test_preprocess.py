"""Preprocessing as a job array on the cluster: one of its jobs is killed, and the shards are those of one machine."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab import wait_until

from p2p_dist.run import rundir
from p2p_dist.settings.config import STEMS


def fingerprint(folder):
    """sha256 of all that a dataset is: shards, manifest, card."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def songs(tmp_path):
    """Eight songs, two of them held out; long enough that a job is seen at its work."""
    for number in range(8):
        folder = tmp_path / "the songs' folder" / ("test" if number > 5 else "train") / f"Song {number}"
        folder.mkdir(parents=True)
        random = np.random.default_rng(number)
        for name in STEMS:
            sound = random.uniform(-0.2, 0.2, ((60 + number) * 22050, 2)).astype(np.float32)
            soundfile.write(folder / f"{name}.wav", sound, 22050, subtype="PCM_16")
    return tmp_path / "the songs' folder"


def test_an_array_of_which_one_job_is_killed_makes_the_same_bytes(lab, launch, songs, tmp_path):
    alone = tmp_path / "alone"
    settings = ("--preset", "tiny", "--data", str(songs), "--workers", "1")
    launch("preprocess", *settings, "--out", str(alone))
    array = ("--cluster", "slurm", "--array", "4", "--partition", "small", "--time", "10")

    said = launch("preprocess", *settings, *array)
    job, run = re.search(r"job (\d+), log .*launch/status.py (\S+); its shards", said, re.DOTALL).groups()
    out = Path(said.rsplit("its shards: ", 1)[1].strip())
    assert "array=0-3" in (rundir.find(run).slurm / "preprocess" / f"{job}_submission.sh").read_text()
    lab.wait_for(f"{job}_2", 60, "RUNNING")
    wait_until(lambda: list(out.rglob("*.tar")), 60, lambda: said)
    lab.ask("scancel", "--signal=KILL", f"{job}_2.0")
    assert f"job {job}" in launch("status", run)
    for number in range(4):
        lab.wait_for(f"{job}_{number}", 180, "COMPLETED")
    assert (rundir.find(run).slurm / "preprocess" / "attempts.2").read_text().count("start") == 2, "it was begun again"
    assert fingerprint(out) == fingerprint(alone) and not list(out.rglob(".tmp-*"))

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "already done (" in launch("preprocess", *settings, *array)
    assert "preprocess: already done" in launch("submit", "--preset", "tiny", "--data", str(songs), "--dry-run")
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    launch("preprocess", *settings, "--verify")


def test_an_array_that_is_cancelled_is_gone_on_with(lab, launch, songs):
    """Asked to stop, each job keeps the songs that it finished; the same command queues what is left."""
    settings = ("--preset", "tiny", "--data", str(songs), "--data.copies", "3", "--workers", "1")
    array = ("--cluster", "slurm", "--array", "2", "--partition", "small")
    said = launch("preprocess", *settings, *array)
    job, run = re.search(r"job (\d+), log .*launch/status.py (\S+); its shards", said, re.DOTALL).groups()
    out = Path(said.rsplit("its shards: ", 1)[1].strip())
    wait_until(lambda: list(out.glob("parts/t*-*.json")), 60, lambda: said)
    assert "asked to save and stop" in launch("cancel", run)
    for number in range(2):
        lab.wait_for(f"{job}_{number}", 60, "COMPLETED", "FAILED")
    assert not (out / "manifest.json").exists() and launch("status", run).count("stopped")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("parts/t*-*.json")}
    job = re.search(r"job (\d+), log", launch("preprocess", *settings, *array))[1]
    for number in range(2):
        lab.wait_for(f"{job}_{number}", 120, "COMPLETED")
    assert kept and kept.items() <= {path: path.stat().st_mtime_ns for path in out.glob("parts/t*-*.json")}.items()
    launch("preprocess", *settings, "--verify")

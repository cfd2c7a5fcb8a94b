"""Preprocessing as a job array on the cluster: one of its jobs is killed, and the shards are those of one machine."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.settings.config import STEMS

CHECKOUT = Path(__file__).resolve().parents[2]


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
    alone, out = tmp_path / "alone", tmp_path / "by an array"
    settings = ("--preset", "tiny", "--data", str(songs), "--workers", "1")
    launch("preprocess", *settings, "--out", str(alone))
    array = ("--cluster", "slurm", "--array", "4", "--partition", "small", "--time", "10")

    said = launch("preprocess", *settings, "--out", str(out), *array)
    parts, merge = re.search(r"4 parts as job (\d+), the merge as job (\d+)", said).groups()
    lab.wait_for(f"{parts}_2", 60, "RUNNING")
    lab.ask("scancel", "--signal=KILL", "--full", f"{parts}_2")
    for number in range(4):
        ended = lab.wait_for(f"{parts}_{number}", 120, "COMPLETED", "FAILED", "CANCELLED")
        assert (ended["JobState"] == "COMPLETED") == (number != 2), ended
    lab.wait_for(merge, 120, "COMPLETED")
    assert fingerprint(out) == fingerprint(alone)

    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    said = launch("preprocess", *settings, "--out", str(out), *array)  # again: nothing is made anew
    merge = re.search(r"the merge as job (\d+)", said)[1]
    lab.wait_for(merge, 120, "COMPLETED")
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
    assert fingerprint(out) == fingerprint(alone) and not list(out.rglob(".tmp-*"))
    done = subprocess.run([sys.executable, "launch/preprocess.py", *settings, "--out", str(out), "--verify"], cwd=CHECKOUT)
    assert done.returncode == 0

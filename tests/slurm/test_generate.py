"""Stems for many songs by a job array on the cluster: one of its jobs is killed, and every song is made once."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lab import wait_until

from p2p_dist.common import files
from p2p_dist.model.generator import Generator
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint


@pytest.fixture
def model(lab):
    """A run with a checkpoint, of a network that heard nothing yet."""
    run, settings = rundir.find("generating"), presets.preset("tiny")
    files.write_text(run.config, presets.to_yaml(settings))
    torch.manual_seed(0)
    checkpoint.save(run.checkpoints, 20, {"step": 20}, Generator(settings.model).state_dict(), {})
    return "generating@20"


@pytest.fixture
def songs(tmp_path):
    """Eight songs, long enough that a job is seen at its work."""
    for number in range(8):
        sound = np.random.default_rng(number).uniform(-0.2, 0.2, ((15 + number) * 22050, 2))
        path = tmp_path / "the songs' folder" / f"Song {number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound, 22050, subtype="PCM_16")
    return tmp_path / "the songs' folder"


def test_an_array_of_which_one_job_is_killed_makes_every_song_once(lab, launch, model, songs, tmp_path):
    words = (str(songs), "--model", model, "--out", str(tmp_path / "made"))
    array = ("--cluster", "slurm", "--array", "3", "--partition", "small", "--time", "10")
    said = launch("generate", *words, *array)
    job, run = re.search(r"job (\d+), log .*launch/status.py (\S+)", said, re.DOTALL).groups()
    assert f"already queued, job {job}" in launch("generate", *words, *array)
    lab.wait_for(f"{job}_1", 60, "RUNNING")
    wait_until(lambda: list(rundir.find(run).made.glob("0*")), 120, lambda: said)
    lab.ask("scancel", "--signal=KILL", f"{job}_1.0")
    assert f"job {job}" in launch("status", run)
    for number in range(3):
        lab.wait_for(f"{job}_{number}", 240, "COMPLETED")
    assert "generate" in launch("status", run)
    made = tmp_path / "made"
    assert len(list(made.rglob("*-mix.flac"))) == len(list(made.rglob("index.html"))) == 8
    assert not list(made.rglob(".tmp-*")), "what the killed one left behind is gone"
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.flac")}
    assert "already done: 8 of 8 songs" in launch("generate", *words, *array)
    assert "already done: 8 of 8 songs" in launch("generate", *words)
    next(iter(made.rglob("*-drums.flac"))).unlink()
    job = re.search(r"job (\d+), log", launch("generate", *words, *array))[1]
    lab.wait_for(job, 120, "COMPLETED")
    after = {path: path.stat().st_mtime_ns for path in made.rglob("*.flac")}
    assert len({path for path in after if after[path] != before[path]}) == 2, "one stem and its mix"


def test_jobs_that_are_cancelled_are_gone_on_with(lab, launch, model, songs, tmp_path):
    words = (str(songs), "--model", model, "--out", str(tmp_path / "made"), "--seed", "3")
    array = ("--cluster", "slurm", "--array", "2", "--partition", "small")
    said = launch("generate", *words, *array)
    job, run = re.search(r"job (\d+), log .*launch/status.py (\S+)", said, re.DOTALL).groups()
    wait_until(lambda: list(rundir.find(run).made.glob("0*")), 120, lambda: said)
    assert "asked to save and stop" in launch("cancel", run)
    for number in range(2):
        lab.wait_for(f"{job}_{number}", 60, "COMPLETED", "FAILED")
    assert "stopped" in launch("status", run) and not list(Path(tmp_path / "made").rglob("*.raw"))
    said = launch("generate", *words, *array)
    job = re.search(r"job (\d+), log", said)[1]
    left = 8 - int((re.search(r"already done: (\d) of 8", said) or [0, 0])[1])
    for number in [f"{job}_0", f"{job}_1"] if left > 1 else [job]:
        lab.wait_for(number, 240, "COMPLETED")
    assert len(list((tmp_path / "made").rglob("*-mix.flac"))) == 8

"""Stems for many songs by a job array on the cluster: one of its jobs is killed, and every song is made once."""

import json
import re

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


def test_of_an_exported_folder_what_a_killed_and_a_cancelled_job_left_is_made_and_no_more(lab, launch, model, songs, tmp_path):
    launch("export", model, "--out", str(tmp_path / "exported"))
    made = tmp_path / "made"
    words = (str(songs), "--model", str(tmp_path / "exported"), "--out", str(made), "--seed", "3")
    array = ("--cluster", "slurm", "--array", "2", "--partition", "small")
    said = launch("generate", *words, *array)
    assert "model: generating@20, trained 20 steps to make drums" in said
    job, run = re.search(r"job (\d+), log .*launch/status.py (\S+)", said, re.DOTALL).groups()
    lab.wait_for(f"{job}_1", 60, "RUNNING")
    wait_until(lambda: list(rundir.find(run).made.glob("0*")), 120, lambda: said)
    lab.ask("scancel", "--signal=KILL", "--full", f"{job}_1")  # its shell, too: nobody starts it again
    assert "asked to save and stop" in launch("cancel", run)
    for number in range(2):
        lab.wait_for(f"{job}_{number}", 60, "COMPLETED", "FAILED", "CANCELLED")
    assert "stopped" in launch("status", run)
    records = [path for path in made.glob("*/Song*.json") if json.loads(path.read_text())["takes"]]
    before = {path: path.stat().st_mtime_ns for one in records for path in one.parent.iterdir() if path.is_file()}
    said = launch("generate", *words, *array)
    job = re.search(r"job (\d+), log", said)[1]
    assert 0 < len(records) < 8 and f"already done: {len(records)} of 8" in said
    for number in [f"{job}_0", f"{job}_1"] if len(records) < 7 else [job]:
        lab.wait_for(number, 240, "COMPLETED")
    assert len(list(made.rglob("*-mix.flac"))) == 8 and not list(made.rglob(".tmp-*"))
    assert {path: path.stat().st_mtime_ns for path in before} == before

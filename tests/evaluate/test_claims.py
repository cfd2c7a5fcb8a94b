"""Processes that share the checkpoints of a run, also while it trains; as jobs of a cluster do in tests/slurm."""

import dataclasses
import os
import threading
import time

import pytest

from p2p_dist.common import files
from p2p_dist.data import manifest as manifests
from p2p_dist.evaluate import claims
from p2p_dist.jobs.slurm import batch
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets

TINY = presets.preset("tiny")
SETTINGS = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=40))  # 8 steps an epoch


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "a place" / "runs" / "run")
    files.write_json(run.dataset, {"name": "songs"})
    shard = {"name": "a.tar", "bytes": 1, "sha256": "0" * 64, "samples": 32}
    rows = [[f"a-{n:05d}", shard["name"], 0, 0, 0] for n in range(32)]
    part = {"songs": [], "shards": [shard], "audio": [], "samples": rows}
    about = {"settings": {}, "settings_digest": "", "dtype": "<f2", "shape": [1, 32, 32], "left_out": []}
    manifests.write(run.shards, {"schema": manifests.SCHEMA, **about, "splits": {"train": part}})
    return run


def save(run, step):
    with files.new_folder(run.checkpoints / rundir.step_name(step)) as folder:
        (folder / "generator.safetensors").touch()


def evaluated(run, step):
    folder = run.evaluations / rundir.step_name(step)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "metrics.json", {"step": step, "songs": [], "splits": {}})


def take_all(folder, together):
    """What one process takes; as long as an evaluation takes, others look for more."""
    os.environ |= {"P2P_CLAIMS": "7", "SLURM_JOB_ID": "7", "P2P_EVALUATE": "during"}
    claims.LOOK, taken, run = 0.02, [], RunDir(folder)
    if not together:  # the negative twin: nobody claims
        claims.claim = lambda run, name: True
    for item, _ in claims.claim_checkpoints(run, SETTINGS.train, (), run.evaluations):
        time.sleep(0.1)
        taken.append(item.step)
        if not (run.evaluations / item.path.name).exists():
            evaluated(run, item.step)
    return taken


@pytest.mark.parametrize("together", [True, False])
def test_each_checkpoint_is_taken_once_as_it_appears(ranks, run, together):
    """Beside a training those that stay are taken; at its end all there are. Without claims some are taken twice."""

    def train():
        for step in (8, 13, 16, 24, 32, 37, 40):
            time.sleep(0.15)
            save(run, step)
            if step == 16:
                (run.checkpoints / rundir.step_name(13) / "generator.safetensors").unlink()
        run.write_outcome("train", "done")

    training = threading.Thread(target=train)
    training.start()
    taken = ranks(3, take_all, run.path, together, seconds=60)
    training.join()
    every = sorted(step for part in taken for step in part)
    assert sorted(set(every)) == [8, 16, 24, 32, 37, 40]
    assert (len(every) == 6) == together, taken


def test_without_a_checkpoint_it_is_said(run):
    with pytest.raises(ValueError, match="train first"):
        next(claims.claim_checkpoints(run, SETTINGS.train, (), run.evaluations))


def test_what_another_finished_meanwhile_is_not_taken(run, monkeypatch):
    """Its job began anew, which freed the claim; the list of what there is to do was made before."""
    monkeypatch.setenv("P2P_CLAIMS", "7")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for step in (8, 16):
        save(run, step)
    taken = []
    for item, _ in claims.claim_checkpoints(run, SETTINGS.train, (), run.evaluations):
        taken.append(item.step)
        evaluated(run, 16)
    assert taken == [8]


def test_only_what_this_job_left_is_free_again(run, monkeypatch):
    """A job that begins anew frees the claims of its own earlier attempts; those of jobs that share with it stay."""
    folder, log = run.evaluations / "claims" / "7", run.slurm / "evaluate" / "attempts.0"
    monkeypatch.setenv("P2P_CLAIMS", "7")
    for job, restart, step in (("70", "0", 8), ("70", "1", 16), ("71", "0", 24)):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
        assert claims.claim(run, rundir.step_name(step)) and not claims.claim(run, rundir.step_name(step))
    files.write_text(log, "launch 70\nstart 70.0 0 1 1\nend 70.0 0 2 - killed 0\nstart 70.1 0 3 1\n")
    monkeypatch.setenv("P2P_ATTEMPTS", str(log))
    batch.free_claims(folder)
    assert [path.name for path in folder.iterdir()] == [rundir.step_name(24)]

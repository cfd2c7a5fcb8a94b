"""What the launcher takes for a finished training: what a training would continue from, told without torch."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from p2p_dist.common import files
from p2p_dist.data import manifest
from p2p_dist.jobs import stages
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import config, presets

WINDOW = ["00000-a-00000", "train-00000-a.tar", 0, 0, 0]


def write(run, step):
    folder = run.checkpoints / rundir.step_name(step)
    content = {checkpoints.STATE: b"state %d" % step, checkpoints.GENERATOR: b"generator %d" % step}
    for name, data in content.items():
        files.write_bytes(folder / name, data)
    listed = {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in content.items()}
    files.write_json(folder / checkpoints.META, {"step": step, "settings": "a", "files": listed})
    return folder


@pytest.fixture
def run(tmp_path):
    """Trained to the end, 90 steps."""
    run = rundir.RunDir(tmp_path / "runs" / "mine")
    files.write_text(run.config, presets.to_yaml(config.Config(train=config.Train(epochs=None, steps=90))))
    files.write_json(run.dataset, {"name": "songs"})
    shard = {"name": "train-00000-a.tar", "bytes": 4, "sha256": "0" * 64, "samples": 1}
    part = {"songs": [{"name": "A", "key": "00000-a", "seconds": 6.5}], "shards": [shard], "audio": [], "samples": [WINDOW]}
    about = {"settings": {}, "settings_digest": "a", "dtype": "<f2", "shape": [1, 8, 8], "left_out": []}
    content = {"schema": manifest.SCHEMA, **about, "splits": {"train": part}}
    files.write_json(run.shards / manifest.NAME, files.sealed(content))
    files.write_bytes(run.shards / "train-00000-a.tar", b"song")
    for step in (75, 90):
        write(run, step)
    return run


def test_a_training_is_done_when_its_last_checkpoint_is_whole(run):
    assert stages.is_done("train", run) == "90 steps" and checkpoints.newest_step(run.checkpoints) == 90
    (run.checkpoints / rundir.step_name(75) / checkpoints.STATE).unlink()
    assert [one.is_kept for one in checkpoints.find(run.checkpoints)] == [True, False]
    assert stages.is_done("train", run) == "90 steps"


@pytest.mark.parametrize("harm", ["only meta", "empty, later", "flipped", "cut", "copied", "no generator", "a file"])
def test_what_is_not_whole_does_not_count(run, harm):
    folder = run.checkpoints / rundir.step_name(90)
    if harm == "only meta":
        (folder / checkpoints.STATE).unlink()
        (folder / checkpoints.GENERATOR).unlink()
    elif harm == "empty, later":
        folder.rename(run.checkpoints / rundir.step_name(95))  # what holds step 90 is not of step 95
        (run.checkpoints / rundir.step_name(100)).mkdir()
    elif harm == "flipped":
        (folder / checkpoints.STATE).write_bytes(b"State 90")
        assert stages.is_done("train", run, content=False) == "90 steps", "a look at sizes does not tell"
    elif harm == "cut":
        (folder / checkpoints.STATE).write_bytes(b"state 9")
    elif harm == "copied":
        shutil.rmtree(folder)
        shutil.copytree(run.checkpoints / rundir.step_name(75), folder)
    elif harm == "no generator":
        (folder / checkpoints.GENERATOR).unlink()
    else:
        shutil.rmtree(folder)
        folder.touch()
    assert stages.is_done("train", run) is None
    assert checkpoints.newest_step(run.checkpoints, content=True) == 75


def test_a_checkpoint_is_read_once_by_a_process_and_again_where_it_changed(run, monkeypatch):
    read = []
    monkeypatch.setattr(checkpoints.files, "sha256_file", lambda path: read.append(path) or "0")
    for _ in range(3):
        assert stages.is_done("train", run) is None
    assert len(read) == 2, "the first file of each"
    monkeypatch.undo()
    write(run, 90)
    assert stages.is_done("train", run) == "90 steps"

"""A run with checkpoints that are not read."""

from __future__ import annotations

import hashlib

import pytest

from p2p_dist.common import files
from p2p_dist.data import manifest
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

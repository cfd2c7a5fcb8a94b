"""A run on LUMI."""

import pytest

from p2p_dist.common import files
from p2p_dist.run import checkpoints, metrics_file, rundir
from p2p_dist.settings import config, presets


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Begun on LUMI, two nodes: an attempt of an hour that was killed 30 minutes after its checkpoint, and one that stopped."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    run = rundir.find("mine")
    begun = config.Config(resources=config.Resources(nodes=2, cluster="lumi"), train=config.Train(epochs=None, steps=100))
    files.write_text(run.config, presets.to_yaml(begun))
    files.write_json(run.dataset, {"name": "songs"})
    lines = ["launch 7", "start 7.0 0 10000 2", "end 7.0 10 13600 - killed 11800", "start 7.1 10 20000 2"]
    files.write_text(run.slurm / "train" / "attempts", "\n".join([*lines, "end 7.1 40 21800 75 stopped 21800"]) + "\n")
    metrics_file.Writer(run).append({"step": 40, "images_per_second": 64.0, "l1": 0.125})
    names = (checkpoints.STATE, checkpoints.GENERATOR)
    for name in names:
        files.write_text(run.checkpoints / rundir.step_name(40) / name, "")
    listed = {key: {"bytes": 0, "sha256": "0" * 64} for key in names}
    files.write_json(run.checkpoints / rundir.step_name(40) / checkpoints.META, {"step": 40, "files": listed})
    return run

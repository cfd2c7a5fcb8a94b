"""Which checkpoint a person means, by a name or without one."""

import os
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from p2p_dist.common import files
from p2p_dist.generate.model import find_model
from p2p_dist.model.generator import Generator
from p2p_dist.run import checkpoints
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint
from tests.conftest import lay_out_run


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    return tmp_path


def run_with(place, name, *steps):
    """A run with checkpoints; each step's weights are those of another seed."""
    run, settings = lay_out_run(place, place, name)
    for step in steps:
        torch.manual_seed(step)
        checkpoint.save(run.checkpoints, step, {"step": step}, Generator(settings.model).state_dict(), {})
    return run


def test_a_run_means_its_best_checkpoint_else_its_newest(place):
    run = run_with(place, "band", 5, 10)
    assert find_model("band").name == "band@10"
    files.write_json(run.best, {"step": 5, "score": 0.5, "chosen_on": "valid", "note": ""})
    found = find_model("band")
    assert (found.name, found.step, found.task) == ("band@5", 5, "drums")
    assert found.data == presets.PRESETS["tiny"].data and found.model == presets.PRESETS["tiny"].model
    weights = run.checkpoints / "step-00000005" / "generator.safetensors"
    assert found.sha256 == files.sha256_file(weights)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in safetensors.torch.load_file(weights).items())
    assert torch.equal(found.generator(torch.device("cpu")).last[1].bias, found.weights["last.1.bias"])
    assert find_model("band@10").step == 10 and find_model(str(run.path)).step == 5


def test_without_a_name_the_newest_run_is_meant(place):
    for second, name in enumerate(("oldest", "older", "newest", "old")):
        run = run_with(place, name, 5)
        written = 1e9 + (10 if name == "newest" else second)
        (saved,) = checkpoints.find(run.checkpoints)
        os.utime(saved.path / checkpoints.META, (written, written))
        with checkpoint.leased(saved):  # which changes the folder
            pass
    run_with(place, "without-checkpoint")
    demo = run_with(place, "drums-demo", 5)
    demo.config.write_text(demo.config.read_text().replace("preset: tiny", "preset: demo"))
    assert find_model(None).name == "newest@5", "the demo learnt six seconds; it counts when it is named"
    assert find_model("drums-demo").name == "drums-demo@5"


def test_a_run_whose_checkpoints_may_not_be_read_is_not_the_newest(monkeypatch):
    mine = os.geteuid()
    with tempfile.TemporaryDirectory() as root:  # not pytest's, which other users can't enter
        monkeypatch.setenv("P2P_RUNS", f"{root}/runs")
        Path(root).chmod(0o755)
        run_with(Path(root), "mine", 5)
        hidden = run_with(Path(root), "theirs", 6).checkpoints
        hidden.chmod(0)
        os.seteuid(65534 if mine == 0 else mine)
        try:
            assert checkpoints.newest_run().path.name == "mine"
        finally:
            os.seteuid(mine)
            hidden.chmod(0o700)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bnad", "no run bnad in .*: there are band, empty"),
        ("band@7", "no checkpoint of step 7: there are 5, 10"),
        ("band@best", "write RUN@STEP"),
        ("band@", "write RUN@STEP"),
        ("empty", "the run empty has no checkpoint yet"),
        ("../band", "^../band: no such folder; name a folder that export wrote, or a run"),
    ],
)
def test_what_is_not_there_is_named(place, name, why):
    run_with(place, "band", 5, 10)
    run_with(place, "empty")
    with pytest.raises(ValueError, match=why):
        find_model(name)


def test_without_any_checkpoint_the_starter_is_meant(place):
    run_with(place, "without-checkpoint")
    assert find_model(None).name.startswith("starter@")


def test_damaged_weights_are_refused(place):
    run = run_with(place, "band", 5)
    path = run.checkpoints / "step-00000005" / "generator.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(files.DamagedError, match="differs from its record"):
        find_model("band")

"""The launcher on one machine is told to stop twice, or is killed: no process is left behind."""

import signal

import pytest

from p2p_dist.run import rundir
from tests.launcher import Launcher, gone


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "my place" / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    return tmp_path / "my place"


def test_the_second_ctrl_c_leaves_no_process(place):
    run = rundir.RunDir(place / "runs" / "way")
    killed = Launcher("--nodes", "2", "--preset", "tiny", "--run", "way", "--train.steps", "100000").until("100000 steps from")
    killed.process.send_signal(signal.SIGTERM)  # as a first Ctrl-C
    killed.until("stopping train cleanly")
    killed.process.send_signal(signal.SIGINT)
    assert killed.end() == 130
    assert gone(str(run.path), 20)


def test_a_launcher_that_is_killed_takes_its_training_along_in_order(place):
    run = rundir.RunDir(place / "runs" / "orphan")
    launcher = Launcher("--preset", "tiny", "--run", "orphan", "--train.steps", "100000").until("train: 1/100000")
    launcher.process.kill()
    launcher.process.wait()
    assert gone(str(run.path), 30)
    assert run.read_outcome()["outcome"] == "stopped"
    assert rundir.find_steps(run.checkpoints)[-1][0] > 0

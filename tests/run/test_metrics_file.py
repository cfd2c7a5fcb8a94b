"""metrics.jsonl: lines after a checkpoint are cut, half lines are left out."""

import os

import pytest

from p2p_dist.common.files import DamagedError
from p2p_dist.run import metrics_file, rundir


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "my runs"))
    return rundir.find("first")


def test_numbers_after_the_checkpoint_are_cut_and_a_half_line_is_left_out(run):
    run.path.mkdir(parents=True)
    for step in (1, 2, 3):
        metrics_file.Writer(run).append({"step": step})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "l')
    assert [row["step"] for row in metrics_file.read(run)] == [1, 2, 3]
    metrics_file.cut(run, 2)
    assert run.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_pipe_in_its_place_is_named(run):
    """Reading it would wait for ever, and status, which reads the runs of others, too."""
    run.path.mkdir(parents=True)
    os.mkfifo(run.metrics)
    with pytest.raises(DamagedError, match=r"metrics\.jsonl is not a regular file: remove it"):
        metrics_file.last(run)

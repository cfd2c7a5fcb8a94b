"""The user's own proof, on this machine."""

from __future__ import annotations

import pytest

from p2p_dist.checks.drill import here, outcome
from p2p_dist.cli import check
from p2p_dist.common import console
from p2p_dist.run import metrics_file
from tests.faults.test_saves import trained


def test_the_drill(tiny_songs, tmp_path, monkeypatch, capsys):
    """As a user types it, but for the number of steps and ways: the others are injected one by one in this folder."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(here, "WAYS", [here.WAYS[6]])
    assert check.main(["drill", "--data", str(tiny_songs), "--steps", "30"]) == console.DONE
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split("|")[-2].strip() for line in table] == ["came back", "---------", "exactly"]
    assert [line.split("|")[2].strip() for line in table[2:]] == ["-9"]


def test_what_did_not_come_back_is_told(new_run):
    run, twin = trained(new_run, "run", steps=10), trained(new_run, "twin", steps=10)
    assert outcome.difference(run, twin) is None
    other = trained(new_run, "other", steps=10, seed=1)
    assert outcome.difference(run, other) == "with other batches and weights"
    (other.metrics).write_bytes(run.metrics.read_bytes())
    assert outcome.difference(run, other) == outcome.OTHER_WEIGHTS
    metrics_file.cut(run, 9)
    assert outcome.difference(run, twin) == "with other batches"
    metrics_file.cut(twin, 9)
    (run.checkpoints / ".tmp-1-step-00000011").mkdir()
    assert "behind" in outcome.difference(run, twin)


def test_a_number_of_processes_that_does_not_divide():
    with pytest.raises(ValueError, match="shared by 1, 2 or 4"):
        check.main(["drill", "--processes", "3"])

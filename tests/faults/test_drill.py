"""The user's own proof, on this machine."""

from __future__ import annotations

from p2p_dist.checks.drill import here
from p2p_dist.cli import check
from p2p_dist.common import console


def test_the_drill(tiny_songs, tmp_path, monkeypatch, capsys):
    """As a user types it, but for the number of steps and ways: the others are injected one by one in this folder."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(here, "WAYS", [here.WAYS[6]])
    assert check.main(["drill", "--data", str(tiny_songs), "--steps", "30"]) == console.DONE
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split("|")[-2].strip() for line in table] == ["result", "-------", "exactly"]
    assert [line.split("|")[2].strip() for line in table[2:]] == ["-9"]

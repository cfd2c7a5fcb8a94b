"""`launch/preprocess.py --cluster slurm` where Slurm does not take the jobs: nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2p_dist.cli import preprocess

REFUSES = """#!/bin/sh
case "$*$(cat "$1" 2>/dev/null)" in *%s*) echo 'sbatch: error: invalid account' >&2; exit 1 ;; esac
echo 'Submitted batch job 7'
"""


@pytest.fixture
def queue(songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`queue(out, word)`: type the command where sbatch refuses jobs whose script holds `word`."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()

    def queue(out: Path, word: str) -> str:
        for name in ("sbatch", "srun"):
            (tmp_path / "bin" / name).write_text(REFUSES % word)
            (tmp_path / "bin" / name).chmod(0o755)
        with pytest.raises(OSError) as refused:
            preprocess.main(["--preset", "tiny", "--data", str(songs), "--out", str(out), "--cluster", "slurm"])
        return str(refused.value)

    return queue


def test_a_refusal_leaves_nothing_behind(queue, tmp_path):
    assert "did not take the 8 parts" in queue(tmp_path / "new" / "it's out", "p2p-preprocess")
    assert not (tmp_path / "new").exists()
    mine = tmp_path / "mine"  # the user's own, and the logs of an earlier time
    (mine / "slurm").mkdir(parents=True)
    (mine / "slurm" / "5_0_log.out").touch()
    (tmp_path / "empty").mkdir()
    for out in (mine, tmp_path / "empty"):
        assert "did not take the 8 parts" in queue(out, "p2p-preprocess")
    assert [path.name for path in mine.rglob("*")] == ["slurm", "5_0_log.out"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_queued_jobs_need_stays_where_the_merge_is_refused(queue, tmp_path):
    assert "parts, which are queued as job 7 (scancel 7" in queue(tmp_path / "out", "p2p-merge")
    left = sorted(path.name for path in (tmp_path / "out" / "slurm").iterdir())
    assert [name for name in left if name.endswith(".pkl")] == [f"7_{part}_submitted.pkl" for part in range(8)]

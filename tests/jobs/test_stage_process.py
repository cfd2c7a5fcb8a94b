"""One stage, as a process of its own."""

import subprocess
import sys

from tests.golden.copied import run

__all__ = ["run"]


def test_a_job_of_a_run_with_a_link_ends_before_it_writes(run, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("mine")
    (run.path / "page").mkdir(exist_ok=True)
    (run.path / "page" / "media").symlink_to(tmp_path / "precious")
    command = [sys.executable, "-m", "p2p_dist.jobs.stage_process", "page", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "page/media is a link" in done.stderr, done
    assert (tmp_path / "precious" / "letter.txt").exists()
    assert "page/media is a link" in run.read_outcome("page")["message"]

"""One stage, as a process of its own."""

import subprocess
import sys

from p2p_dist.common import files
from p2p_dist.jobs import stage_process
from p2p_dist.settings import presets
from tests.conftest import lay_out_run, write_songs
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


def test_songs_left_out_are_named_in_one_line(tmp_path, capsys):
    write_songs(tmp_path / "songs", {"train/one": 1.6, "train/two\nerror: lost": 1.6, "test/five": 1.5})
    (tmp_path / "songs/train/two\nerror: lost/bass.wav").write_bytes(b"no sound")
    run, settings = lay_out_run(tmp_path, tmp_path, "run")
    settings = presets.with_values(settings, {"data.root": str(tmp_path / "songs"), "resources.workers": 1})
    files.write_json(run.dataset, {"name": "made"})
    assert stage_process.preprocess(run, settings) == 0
    assert "songs left out (1): two\\nerror: lost" in capsys.readouterr().err.splitlines()

"""What is recorded of a run holds no secret whose shape is known: a run is readable by all, and sent to others."""

import json
import subprocess
import sys

from p2p_dist.common import records, schemas
from p2p_dist.jobs import begin_run
from p2p_dist.run import provenance, rundir
from p2p_dist.settings import presets

KEY = "q7Rz2Lw9Xc4Vb8Nm1Kd5"


def test_a_command_is_named_as_the_run_was_begun_whoever_names_it(tmp_path, monkeypatch):
    """In a job or a container argv is that of its process."""
    path = tmp_path / "provenance.json"
    assert provenance.command(path, "submit") == "python launch/submit.py", "an early version wrote none"
    for argv, said in (
        (["/home/me/venv/bin/p2p-dist", "submit"], "p2p-dist status"),
        (["launch/submit.py", "--nodes", "2"], "python launch/status.py"),
    ):
        monkeypatch.setattr(sys, "argv", argv)
        records.write(path, schemas.PROVENANCE, provenance.gather())
        monkeypatch.setattr(sys, "argv", ["stage_process.py", "page"])
        assert provenance.command(path, "status") == said


def test_the_record_of_a_run_has_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sys, "argv", ["submit.py", "--hub-token", KEY, f"--x-token={KEY}", "--run", "r", f"https://u:{KEY}@h/"])
    answers = {"--show-toplevel": str(provenance.CHECKOUT), "rev-parse HEAD": "abc", "diff HEAD": f"+token = {KEY}\n"}

    def run(command, **_):
        said = next(said for asked, said in answers.items() if " ".join(command).endswith(asked))
        return subprocess.CompletedProcess(command, 0, said)

    monkeypatch.setattr(provenance.subprocess, "run", run)
    place = rundir.find("r")
    begin_run.begin(place, presets.preset("tiny"), "songs")
    text = place.provenance.read_text()
    assert KEY not in text
    assert json.loads(text)["command"] == ["submit.py", "--hub-token", "***", "--x-token=***", "--run", "r", "https://***@h/"]
    assert json.loads(text)["changes"] == "+token = ***\n"


def test_a_change_that_is_not_utf8_is_recorded(tmp_path, monkeypatch):
    """An old text file in a checkout must not keep a run from its start."""
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "notes").write_bytes(b"before\n")
    for words in (["init", "-q"], ["add", "notes"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "notes").write_bytes(b"f\xfcr mich\n")
    found = provenance.gather()
    assert "+f\\xfcr mich" in found["changes"] and found["commit"]
    records.write(tmp_path / "provenance.json", schemas.PROVENANCE, found)

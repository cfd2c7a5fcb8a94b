"""The export command, from a run to a folder that is read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from p2p_dist.cli import export
from p2p_dist.generate import program
from p2p_dist.generate.model import find_model
from p2p_dist.run import rundir

OLD = Path(__file__).resolve().parents[1] / "golden"


def test_a_run_of_an_earlier_version_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(OLD / "run-v1", tmp_path / "runs" / "old")
    shutil.copytree(OLD / "shards-v1", tmp_path / "shards" / "shards-v1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("P2P_RUNS", "runs")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert export.main(["old@6", "--out", "models/six"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("old, step 6: ") and "SONG --model models/six" in said
    assert sorted(path for path in tmp_path.rglob("*") if "models" not in path.parts) == before, "nothing is written in the run"
    found, wanted = find_model("models/six"), find_model("old@6")
    assert (found.name, found.task, found.data.mels) == (wanted.name, wanted.task, wanted.data.mels)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in wanted.weights.items())
    assert (tmp_path / "models" / "six" / "README.md").read_text().startswith("---\nlicense: ")
    with pytest.raises(ValueError, match="models/six exists"):
        export.main(["old", "--out", "models/six"])
    with pytest.raises(ValueError, match="models/six exists"):
        export.main(["old", "--out", "models/six", "--half"])
    assert export.main(["old", "--out", "models/six", "--overwrite", "--half"]) == 0
    assert find_model("models/six").name == find_model("old").name == "old@4"
    content = json.loads(Path("models/six/config.json").read_text())
    assert (content["weights"]["dtype"], content["program"]) == ("float16", None)
    monkeypatch.setattr(program, "export", lambda *_: b"program")
    assert export.main(["old", "--out", "models/program", "--torch-export"]) == 0
    assert Path("models/program/model.pt2").read_bytes() == b"program"
    settings = rundir.read_settings(rundir.find("old"))
    assert content["inversion"]["iterations"] == settings.evaluate.iterations


def test_a_run_that_is_a_link_is_exported_not_the_run_of_its_target_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(OLD / "run-v1", tmp_path / "elsewhere" / "old")
    shutil.copytree(OLD / "shards-v1", tmp_path / "shards" / "shards-v1")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to("../elsewhere/old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("P2P_RUNS", "runs")
    assert export.main(["mine@6", "--out", "m"]) == 0
    assert capsys.readouterr().out.startswith("mine, step 6: ") and find_model("m").name == "mine@6"
    assert Path("m/README.md").read_text().count("mine") and "of step 6" not in capsys.readouterr().err
    monkeypatch.chdir("m")
    monkeypatch.setenv("P2P_RUNS", "../runs")
    assert export.main(["mine", "--out", ".", "--overwrite"]) == 0
    assert find_model(str(tmp_path / "m")).name == "mine@4"

"""A run's folder: it stays the run it began as, has one owner, and its numbers are never doubled."""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from p2p_dist.cli import status
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run
from p2p_dist.run import rundir, snapshot
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "my runs"))
    return rundir.find("first")


def test_a_run_keeps_its_science_and_takes_new_resources(run):
    small = presets.preset("small")
    begin_run.begin(run, small, "songs-1")
    more = dataclasses.replace(small, resources=config.Resources(nodes=4))
    assert begin_run.begin(run, more, "songs-1").resources.nodes == 4
    assert rundir.read_settings(run) == more
    other = dataclasses.replace(small, train=dataclasses.replace(small.train, seed=1))
    with pytest.raises(ValueError, match=r"train\.seed: 0 -> 1[^$]*--run NAME"):
        begin_run.begin(run, other, "songs-1")
    begin_run.begin(run, more, "songs-0")
    begin_run.begin(run, more, "songs-1")  # as long as nothing has been learnt, songs may come and go
    (run.checkpoints / rundir.step_name(5)).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"songs-1, now songs-2"):
        begin_run.begin(run, small, "songs-2")
    assert rundir.read_settings(run) == more, "a refused start changes nothing"


def test_a_run_keeps_the_code_it_began_with(run, monkeypatch, tmp_path):
    monkeypatch.setattr(snapshot, "CHECKOUT", tmp_path / "checkout")
    program = tmp_path / "checkout" / "p2p_dist" / "program.py"
    program.parent.mkdir(parents=True)
    program.write_text("first")
    begin_run.begin(run, presets.preset("small"), "songs")
    assert not snapshot.differs(run.code)
    program.write_text("changed")
    assert snapshot.differs(run.code)
    begin_run.begin(run, presets.preset("small"), "songs")
    assert (run.code / "p2p_dist" / "program.py").read_text() == "first"


def test_provenance_says_what_made_the_run(run):
    begin_run.begin(run, presets.preset("small"), "songs")
    known = json.loads(run.provenance.read_text())
    assert known["packages"]["torch"] and known["python"] and known["command"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "a b", "x" * 101])
def test_a_run_name_is_a_plain_folder_name(name):
    with pytest.raises(ValueError, match="is not in the folder of runs" if "/" in name else "use letters"):
        rundir.find(name)


def test_a_run_is_found_by_its_path_too(run, monkeypatch):
    root = run.path.parent
    monkeypatch.setenv("P2P_RUNS", str(root))
    monkeypatch.chdir(root.parent)
    for name in (run.path.name, f"{root.name}/{run.path.name}", f"./{root.name}/{run.path.name}/", str(run.path)):
        assert rundir.find(name) == rundir.find(run.path.name), name
    for name in (f"elsewhere/{run.path.name}", f"{root.name}/../{run.path.name}", f"/{run.path.name}"):
        with pytest.raises(ValueError, match=r"is not in the folder of runs, .*\$P2P_RUNS"):
            rundir.find(name)


def test_what_can_be_no_run_is_not_named_as_one(run):
    """Others may create folders beside it: their names must not become lines of what is printed."""
    root = run.path.parent
    for name in ("second", "first", "two words", ".hidden", "x\nerror: all is lost", "x" * 101):
        (root / name).mkdir(parents=True)
        (root / name / "config.yaml").touch()
    (root / "folder" / "config.yaml").mkdir(parents=True)
    for name, target in (("by-link", "second"), ("broken", "gone"), ("theirs", "second")):
        (root / name).symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(root / "theirs", 4321, -1)
    else:
        (root / "theirs").unlink()
    assert rundir.names() == ["by-link", "first", "second"]
    assert status.runs(())[0] == [RunDir(root / "second"), RunDir(root / "first")], "each once"
    assert [rundir.find(name).name for name in ("by-link", "second", "broken")] == ["by-link", "second", "broken"]
    with pytest.raises(ValueError, match=r"my runs/broken is a broken link \(target .*my runs/gone\)"):
        rundir.read_settings(rundir.find("broken"))
    (root / "elsewhere").symlink_to(root.parent)
    with pytest.raises(ValueError, match=r"no run elsewhere in .*my runs$"):
        rundir.read_settings(rundir.find("elsewhere"))


def test_a_folder_of_runs_that_can_not_be_read_is_not_taken_for_empty(run, monkeypatch):
    """Reading is refused here by a stand-in, because root may read any folder."""
    assert rundir.names() == [], "none is there yet"
    run.path.mkdir(parents=True)
    honest = os.scandir

    def refuse(path="."):
        if Path(path) == run.path.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        status.main([])


def test_the_home_folder_in_the_variable_of_the_runs(run, monkeypatch, tmp_path):
    """Where no shell has replaced it: in quotes, or in a file of variables."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("P2P_RUNS", "~/my runs")
    assert rundir.find("first") == run


def test_finished_steps_are_found_in_order_and_nothing_else(tmp_path):
    for name in ("step-00000010", "step-00000002", "step-100000000", "step-2", ".tmp-1-step-00000003", "references"):
        (tmp_path / name).mkdir()
    assert [step for step, _ in rundir.find_steps(tmp_path)] == [2, 10, 100000000]


def song(folder, split, name, size=10):
    path = folder / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_songs_may_be_links_and_stray_files_are_none(tmp_path):
    song(tmp_path / "real", "hq", "drums.wav")
    (tmp_path / "a" / "train").mkdir(parents=True)
    (tmp_path / "a" / "train" / "linked").symlink_to(tmp_path / "real" / "hq")
    name = datasets.dataset_name(tmp_path / "a", config.Data())
    song(tmp_path / "a", "train/linked/backup", "drums.wav")
    (tmp_path / "a" / "train" / "notes.txt").write_text("x")
    assert name == datasets.dataset_name(tmp_path / "a", config.Data())
    song(tmp_path / "real", "hq", "bass.wav")
    assert name != datasets.dataset_name(tmp_path / "a", config.Data())


def test_a_name_that_is_not_utf8_is_said(tmp_path):
    song(tmp_path, os.fsdecode(b"train/S\xf5na"), "drums.wav")
    with pytest.raises(ValueError, match=r"S\\xf5na.*not UTF-8"):
        datasets.dataset_name(tmp_path, config.Data())


def test_runs_can_not_lie_where_their_code_can_not_be_imported_from(monkeypatch):
    monkeypatch.setenv("P2P_RUNS", "/tmp/2024:01/runs")
    with pytest.raises(ValueError, match="':'"):
        rundir.runs_root()


@pytest.mark.parametrize("code", ["%j", "%t", "%A", "%a"])
def test_runs_can_not_lie_where_slurm_would_read_the_path_as_a_pattern(code, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / f"100{code}" / "runs"))
    with pytest.raises(ValueError, match=r"Slurm replaces in file names: name another with \$P2P_RUNS"):
        rundir.runs_root()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(("owner", "is_taken"), [(0, True), (65534, True), (4321, False)])
def test_a_run_may_be_a_link_of_the_user_or_of_the_administrator(owner, is_taken, monkeypatch):
    with tempfile.TemporaryDirectory() as root:  # not pytest's, which other users can't enter
        Path(root).chmod(0o755)
        monkeypatch.setenv("P2P_RUNS", root)
        Path(root, "linked").symlink_to("/tmp")
        os.lchown(Path(root, "linked"), owner, -1)
        os.seteuid(65534)
        try:
            with contextlib.nullcontext() if is_taken else pytest.raises(ValueError, match="is a link that another user"):
                rundir.find("linked")
        finally:
            os.seteuid(0)


def test_no_songs_is_said_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        datasets.dataset_name(tmp_path / "none", config.Data())
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"no song in .*expected train/ and test/"):
        datasets.dataset_name(tmp_path, config.Data())


def test_the_attempt_is_slurms_where_there_is_one(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert rundir.attempt() == "77.2"


def test_an_outcome_is_read_back(tmp_path):
    run = RunDir(tmp_path)
    assert run.read_outcome() is None
    run.write_outcome("train", "stopped", "asked", 12)
    found = run.read_outcome()
    assert found and (found["stage"], found["outcome"], found["step"]) == ("train", "stopped", 12)


def test_what_is_removed_by_hand_is_said_and_written_again(run):
    """dataset.json and code/ of a run that has learnt: status says what is missing, the launch command puts it back."""
    settings = presets.preset("small")
    begin_run.begin(run, settings, "songs-1")
    (run.checkpoints / rundir.step_name(5)).mkdir(parents=True)
    run.dataset.unlink()
    with pytest.raises(FileNotFoundError, match=r"launch command again.*dataset\.json"):
        _ = run.shards
    shutil.rmtree(run.code)
    begin_run.begin(run, settings, "songs-1")
    assert run.shards.name == "songs-1" and (run.code / "hpc" / "job.sh").is_file()


def test_each_stage_and_each_part_of_an_array_says_how_it_ended(run, monkeypatch):
    """An evaluation beside its training must not say for it that it is done; one bad part of an array is not lost."""
    run.write_outcome("evaluate", "done")
    assert run.read_outcome() is None and not run.has_trained()
    for part, outcome in (("0", "failed"), ("1", "done")):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", part)
        run.write_outcome("evaluate", outcome, f"part {part}")
    assert run.read_outcome("evaluate")["message"] == "part 0"
    run.write_outcome("train", "stopped")
    assert run.read_outcome()["outcome"] == "stopped" and not run.has_trained(), "it will go on"
    run.write_outcome("train", "done")
    assert run.has_trained() and run.read_outcome("evaluate")["message"] == "part 0"


def test_a_path_that_no_record_can_hold_is_refused_before_anything_starts(tmp_path, monkeypatch):
    """If it failed: a run that trains, and whose evaluation can't be written."""
    monkeypatch.setenv("P2P_RUNS", os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr"))
    with pytest.raises(ValueError, match="the path of the folder of runs is not valid UTF-8"):
        rundir.find("first")

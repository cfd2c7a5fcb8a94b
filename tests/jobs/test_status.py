"""How a run is shown, from its own files; with a real Slurm in tests/slurm."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from p2p_dist.cli import status as status_command
from p2p_dist.common import files
from p2p_dist.jobs import stages, status, status_tables
from p2p_dist.jobs.slurm import specs, squeue
from p2p_dist.run import checkpoints, energy, metrics_file, rundir, starts
from p2p_dist.settings import presets
from tests.jobs.run_on_lumi import run
from tests.jobs.submit_command import type_here

__all__ = ["run"]


def test_a_run_that_stopped(run):
    run.write_outcome("train", "stopped")
    found = status.gather(run)
    assert found["stages"] == {"preprocess": "to do", "train": "stopped", "evaluate": "to do", "page": "to do"}
    assert (found["attempt"], found["attempts"], found["step"], found["total"], found["checkpoint"]) == ("7.1", 2, 40, 100, 40)
    assert found["seconds_left"] == 60 * 64 / 64
    hours = found["gpu_hours"]
    assert hours["used"] == pytest.approx(2 * 4 * 1.5) and hours["lost"] == pytest.approx(2 * 4 * 0.5)
    assert hours["predicted"] == pytest.approx(12 + 2 * 4 * 60 / 3600)


def test_a_start_whose_end_nobody_wrote_is_not_counted_for_ever(run, monkeypatch):
    """Cancelled, and so killed before its last line: it lived until the run's last sign of life, and that is said."""
    with (run.slurm / "train" / "attempts").open("a") as log:
        log.write("start 7.2 40 30000 2\n")
    now = {"what": "train", "done": 40, "total": 100, "rate": 1.0, "seconds_left": 60.0, "note": ""}
    files.write_json(run.status, now)
    os.utime(run.status, (33600, 33600))
    os.utime(run.checkpoints / rundir.step_name(40) / checkpoints.META, (31800, 31800))
    monkeypatch.setattr(status.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(status.site, "has_slurm", lambda: True)
    monkeypatch.setattr(status.squeue, "everything", list)
    found = status.gather(run)
    assert found["gpu_hours"]["used"] == pytest.approx(12 + 2 * 4 * 1.0) and found["gpu_hours"]["estimated"] == 2
    assert found["gpu_hours"]["lost"] == pytest.approx(4 + 2 * 4 * 0.5)
    files.write_json(run.status, {**now, "what": "evaluate"})  # days later
    os.utime(run.metrics, (33600, 33600))
    assert status.gather(run)["gpu_hours"]["used"] == pytest.approx(12 + 2 * 4 * 1.0)
    for path in (run.status, run.metrics):
        os.utime(path, (29000, 29000))
    assert status.gather(run)["gpu_hours"]["used"] == pytest.approx(12), "killed before its first sign of life"
    running = [(squeue.Queued("7", "RUNNING", "None"), specs.comment("train", run))]
    monkeypatch.setattr(status.squeue, "everything", lambda: running)
    assert status.gather(run)["gpu_hours"]["used"] > 1000, "one that runs counts until now"


def test_a_start_is_billed_as_it_was_recorded(run):
    """The run was moved to another partition since: its first start was billed half a GPU-hour for an hour of a node."""
    log = run.slurm / "train" / "attempts"
    before = log.read_text().splitlines()
    assert before[1].startswith("start 7.0 ") and before[1].endswith(" 2"), before
    log.write_text("\n".join([before[0], f"{before[1]} rate=0.500000", *before[2:]]) + "\n")
    tried = starts.list_starts(log)
    first = tried[0]
    hours = (first.ended - first.begun) / 3600
    found = status.gather(run)
    assert found["gpu_hours"]["used"] == pytest.approx(12 - 2 * hours * 3.5) and hours > 0
    assert found["gpu_hours"]["lost"] == pytest.approx(
        sum(2 * one.lost() / 3600 * rate for one, rate in zip(tried, (0.5, 4), strict=True))
    )
    (path,) = [path for step, path in rundir.find_steps(run.checkpoints) if step == 40]
    os.utime(path / checkpoints.META, (first.begun + 1800, first.begun + 1800))
    assert [cost["gpu_hours"] for cost in status.gather(run)["costs"]] == [pytest.approx(2 * 0.5 * 0.5)]


def test_energy_and_cost_are_told_where_somebody_tells_them(run, capsys, tmp_path, monkeypatch):
    """LUMI trains on whole nodes, so that the accounting's energy is that of this training alone."""
    (path,) = [path for step, path in rundir.find_steps(run.checkpoints) if step == 40]
    begun = starts.list_starts(run.slurm / "train" / "attempts")[0].begun
    os.utime(path / checkpoints.META, (begun + 1800, begun + 1800))

    def shown():
        found = status.gather(run)
        status_tables.show(found)
        return found, " ".join(capsys.readouterr().out.replace("│", " ").split())

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(status.shutil, "which", lambda name: None)
    found, table = shown()
    assert found["energy"] == {"kwh": None, "told_by": None} and "energy of training not known" in table
    assert found["costs"] == [{"step": 40, "gpu_hours": pytest.approx(2 * 4 * 0.5), "kwh": None}]
    assert "up to step 40 4.00 GPU-hours, energy not known" in table
    for step, joules in ((40, 1.8e6), (60, 7.2e6)):
        energy.note(run, step, joules)
    found, table = shown()
    assert found["energy"] == {"kwh": 2.0, "told_by": "the GPUs"} and found["costs"][0]["kwh"] == 0.5
    assert "2 kWh, from the GPUs" in table and "up to step 40 4.00 GPU-hours, 0.5 kWh" in table

    monkeypatch.undo()
    (tmp_path / "bin").mkdir()
    sacct = tmp_path / "bin" / "sacct"
    sacct.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n'
        'printf "7|REQUEUED|9\\n7.batch|CANCELLED|1000\\n7.0|CANCELLED|10800000\\n7|COMPLETED|9\\n7.0|COMPLETED|3600000\\n"\n'
        'printf "8|COMPLETED|9\\n8.0|COMPLETED|9\\n"\n'
    )
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    found, table = shown()
    assert found["energy"] == {"kwh": 4.0, "told_by": "Slurm's accounting"} and "4 kWh, from Slurm's accounting" in table
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-2:] == ["--format=JobIDRaw,State,ConsumedEnergyRaw", "--jobs=7"] and "--duplicates" in asked
    (tmp_path / "asked").unlink()
    assert status.gather_each([run])[0]["energy"]["told_by"] == "the GPUs" and not (tmp_path / "asked").exists(), "for speed"
    sacct.write_text("#!/bin/sh\nexit 1\n")
    assert status.gather(run)["energy"]["told_by"] == "the GPUs"
    for step in range(41, 51):
        shutil.copytree(path, run.checkpoints / rundir.step_name(step))
    found, table = shown()
    assert [cost["kwh"] for cost in found["costs"]] == [0.5] + [None] * 10, "nobody told it at their steps"
    assert "the cost of 3 earlier checkpoints: --json" in table and len(found["costs"]) == 11
    assert "up to step 43 " in table and "up to step 50 " in table and "up to step 42 " not in table, "the last ones"


def test_a_checkpoint_whose_generator_was_removed_is_none_to_evaluate(run):
    (path,) = [path for step, path in rundir.find_steps(run.checkpoints) if step == 40]
    (path / "generator.safetensors").touch()
    shutil.copytree(path, run.checkpoints / rundir.step_name(39))
    assert status.gather(run)["to_evaluate"] == 2
    (run.checkpoints / rundir.step_name(39) / "generator.safetensors").unlink()
    assert status.gather(run)["to_evaluate"] == 1


def test_lines_that_make_no_sense_are_passed_over(run):
    """A disk was full when they were written."""
    with (run.slurm / "train" / "attempts").open("a") as log:
        log.write("\n\nstart 6.0\nend 7.1 40\nend\nstart 7.9 x y z\n\xff\n")
    found = status.gather(run)
    assert found["attempts"] == 2 and found["gpu_hours"]["used"] == pytest.approx(12)


def test_one_bad_run_does_not_take_the_others_along(run):
    """Its row says what is wrong, in words."""
    bad = rundir.find("bad")
    files.write_text(bad.config, run.config.read_text())
    files.write_text(rundir.find("broken").config, "train: [")
    shown = type_here("status")
    assert shown.returncode == 0 and "40 of 100" in shown.stdout and shown.stderr == ""
    assert shown.stdout.count("can't be") == 2
    rows = json.loads(type_here("status", "--json").stdout)
    assert [row["run"] for row in rows] == ["bad", "broken", "mine"]
    assert "dataset.json" in rows[0]["wrong"] and "not readable as YAML" in rows[1]["wrong"] and rows[2]["wrong"] is None
    alone = type_here("status", "bad")
    assert alone.returncode == 1 and "launch command again" in alone.stderr
    named = type_here("status", "bad", "mine")
    assert named.returncode == 1 and "40 of 100" in named.stdout


def test_a_training_whose_gpu_hours_are_used_says_so(run):
    run.write_outcome("train", "stopped")
    settings = rundir.read_settings(run)
    for most, said in ((12.0, "stopped: its GPU-hours are used up (--max-gpu-hours 12)"), (13.0, "stopped")):
        resources = dataclasses.replace(settings.resources, max_gpu_hours=most)
        files.write_text(run.config, presets.to_yaml(dataclasses.replace(settings, resources=resources)))
        assert status.gather(run)["stages"]["train"] == said


@pytest.fixture
def here(run):
    """The same, on this machine: nothing of Slurm."""
    shutil.rmtree(run.slurm)
    shutil.rmtree(run.checkpoints)
    return run


def train_state(run):
    return status.gather(run)["stages"]["train"]


def test_a_run_on_this_machine_is_told_by_its_lock_its_log_and_its_progress(here):
    """Running with since when and how far, stopped, stopped at once, crashed, killed, failed: each in its own words."""
    log = here.attempts("train")
    assert train_state(here) == "to do"
    starts.note_start(log, "a.1", 0, by_hand=True)
    files.write_json(here.status, {"what": "train", "done": 7, "total": 100, "note": ""})
    with contextlib.closing(rundir.lock_run(here)):
        clock = time.strftime("%H:%M", time.localtime(starts.list_starts(log)[-1].begun))
        assert train_state(here) == f"running on this machine since {clock}, train 7 of 100"
        assert status.gather(here)["stages"]["evaluate"] == "to do", "a stage runs, not all"
        os.utime(here.status, (1, 1))
        assert train_state(here) == f"running on this machine since {clock}", "what an earlier start left is no progress"
        assert status.gather(here)["attempt"] == "a.1" and status.gather(here)["attempts"] == 1
    assert train_state(here).startswith(f"killed: started {clock}")
    starts.note_end(log, "a.1", 7, 130, "stopped")
    assert train_state(here) == f"stopped at once {clock}", "a second Ctrl-C leaves no outcome"
    starts.note_start(log, "a.2", 7)
    starts.note_end(log, "a.2", 9, 139, "crash")
    assert train_state(here) == f"crashed (exit code 139) {clock}; see {here.logs}"
    for number, outcome in enumerate(("stopped", "failed"), 3):
        starts.note_start(log, f"a.{number}", 9, by_hand=True)
        files.write_json(
            here.outcome, {"attempt": f"a.{number}", "stage": "train", "outcome": outcome, "step": 9, "message": "x"}
        )
        starts.note_end(log, f"a.{number}", 9, 1, outcome)
        assert train_state(here) == f"{outcome} {clock} at step 9: x"
    assert status.gather(here)["gpu_hours"]["used"] == 0, "of one's own machine nothing is billed"


def test_an_evaluation_tells_how_far_its_baselines_are(here):
    starts.note_start(here.attempts("evaluate"), "a.1", 0, by_hand=True)
    files.write_json(here.status, {"what": "baselines", "done": 2, "total": 5, "note": ""})
    with contextlib.closing(rundir.lock_run(here)):
        assert status.gather(here)["stages"]["evaluate"].endswith(", baselines 2 of 5")
        here.attempts("evaluate").unlink()  # by launch/evaluate.py
        assert status.gather(here)["stages"]["evaluate"] == "running on this machine, baselines 2 of 5"
        assert train_state(here) == "to do"


def test_what_status_reads_of_a_run_does_not_grow_with_it(run, monkeypatch):
    """The end of the numbers only, however long the training was."""
    read = []
    honest = metrics_file.parse_row
    monkeypatch.setattr(metrics_file, "parse_row", lambda line: read.append(len(line)) or honest(line))
    for step in range(41, 3041):
        metrics_file.Writer(run).append({"step": step, "l1": 0.5, "digests": "a" * 200})
    found = status.gather(run)
    assert found["step"] == 3040 and sum(read) < 1000, "of 700 kB"
    metrics_file.cut(run, 3039)
    assert sum(read) < 2000 and [row["step"] for row in metrics_file.read(run)][-2:] == [3038, 3039]


@pytest.mark.parametrize(
    "row", ['"memory": "x"', '"images_per_second": 1e-320', '"images_per_second": -1', '"l1": null', '"memory": null']
)
def test_a_line_of_numbers_that_no_training_wrote_is_no_traceback(run, capsys, row):
    with run.metrics.open("a") as file:
        file.write('{"step": 50, ' + row + "}\n")
    found = status.gather(run)
    status_tables.show(found)
    status_tables.show_all([found])
    shown = capsys.readouterr().out
    assert run.path.name in shown and "nan" not in shown and (found["seconds_left"] is None) == ("x" not in row)


def test_many_runs_ask_slurm_once_and_look_at_their_shards_once(run, monkeypatch):
    for number in range(30):
        shutil.copytree(run.path, run.path.with_name(f"run-{number}"))
    asked = []
    monkeypatch.setattr(status.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(status.site, "has_slurm", lambda: asked.append("sinfo") or True)
    monkeypatch.setattr(status.squeue, "everything", lambda: asked.append("squeue") or [])
    nothing = stages.Shards({"splits": {}, "left_out": []}, frozenset())
    monkeypatch.setattr(stages, "look", lambda shards: asked.append("shards") or nothing)
    monkeypatch.setattr(
        presets.yaml_file, "read_yaml", lambda path, read=presets.yaml_file.read_yaml: asked.append(path) or read(path)
    )
    assert len(status.gather_each(status_command.runs(())[0])) == 31
    files_read = [one for one in asked if isinstance(one, Path)]
    assert sorted(one for one in asked if isinstance(one, str)) == ["shards", "sinfo", "squeue"]
    assert len(files_read) == len(set(files_read)) == 31 + 1, "the settings of each and the site"

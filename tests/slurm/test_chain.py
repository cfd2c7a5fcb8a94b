"""The whole way on a cluster, as a user types it, beside the same training on one machine."""

import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import wait_until
from undisturbed import Evaluations, begin, preprocess_here, same, sketch_here, train

from p2p_dist.jobs import site
from p2p_dist.run import metrics_file, rundir

CHECKOUT = Path(__file__).resolve().parents[2]


def ids(shown):
    """stage -> job id, of what the launcher printed."""
    return dict(re.findall(r"^(\w+): (?:already queued, )?job (\d+)", shown, re.MULTILINE))


TINY = ("--preset", "tiny", "--train.steps", "40", "--train.keep-every", "2")

LONGER = ("--preset", "tiny", "--train.steps", "110", "--train.keep-every", "3")


SKETCHED = ("--preset", "tiny", "--train.steps", "8", "--train.pattern-steps", "100", "--model.sketch", "--model.beat-phase")
SKETCHED += ("--model.on-steps", "--model.residual", "--model.keep-level")


@pytest.fixture(scope="module")
def train_here(lab):
    """`train_here(name, ...)`: a training on this machine, without Slurm and without harm, beside what the test does. What it
    answers has the run as its `result()`."""
    with ThreadPoolExecutor(1) as pool:

        def train_here(name, *arguments):
            run, _ = begin(name, *arguments)
            preprocess_here(run)
            return pool.submit(train, run)

        yield train_here


@pytest.fixture(scope="module")
def calm(train_here):
    """The undisturbed twin of the longer trainings: two processes."""
    return train_here("calm", "--nodes", "2", *LONGER)


def test_a_training_hurt_in_every_way_gives_the_weights_of_the_undisturbed_one(lab, calm, tmp_path):
    """Rows 2, 31: no command of Slurm where the training runs; its repository edited while it is preempted.

    Seen: "scontrol: not found" at the worst moment; a resumed training that is another one, without an error.
    Now: preempted, asked to stop, requeued from outside, its daemon lost: the same batches and weights; requeueing is the batch
    shell's, and what is resumed is the run's own copy of the code. An evaluation beside it, itself restarted, takes each
    checkpoint once, as they appear.
    """
    checkout = tmp_path / "check out"
    for part in ("p2p_dist", "launch", "hpc"):
        shutil.copytree(CHECKOUT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bare").write_text("export PATH=/nonexistent\n")
    (tmp_path / "bare.yaml").write_text(f"environment: {tmp_path}/bare\n")
    place = ("--nodes", "2", "--partition", "low", "--site", str(tmp_path / "bare.yaml"), "--evaluate", "during")
    command = [sys.executable, "launch/submit.py", "--yes", *place, "--run", "hurt", *LONGER]
    typed = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert typed.returncode == 0, typed.stdout + typed.stderr
    found = ids(typed.stdout)
    number, evaluation = found["train"], found["evaluate"]
    run = rundir.find("hurt")
    evaluations = Evaluations(run)

    def step():
        rows = metrics_file.read(run)
        return rows[-1]["step"] if rows else 0

    def said(stage="train"):
        return "\n".join(path.read_text()[-3000:] for path in (run.slurm / stage).glob("*.out"))

    def until(goal):
        def reached():
            lab.release(number)
            lab.release(evaluation)
            return step() >= goal

        wait_until(reached, 150, lambda: f"step {goal}: {lab.job(number)}\n{said()}")

    until(10)
    preempt(lab, number)
    (checkout / "p2p_dist" / "train" / "loop.py").write_text("raise SystemExit('edited')\n")
    until(30)
    lab.ask("scancel", "--signal=USR2", number)
    until(50)
    lab.ask("scontrol", "requeue", number)
    lab.ask("scontrol", "requeue", evaluation, check=False)  # the preemption may have done so just now
    until(70)
    node = lab.job(number)["BatchHost"]
    lab.kill_slurmd(node)
    try:
        job = lab.wait_for(number, 200, "COMPLETED", "FAILED", "CANCELLED")
    finally:
        lab.return_node(node)
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "4", said()
    same(run, calm.result())
    found = json.loads(subprocess.run([sys.executable, "launch/status.py", "hurt", "--json"], cwd=CHECKOUT,
                                      capture_output=True, text=True, check=True).stdout)  # fmt: skip
    assert found["stages"]["train"] == "done" and found["attempts"] == 5 and found["step"] == 110
    job = lab.wait_for(evaluation, 100, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    assert job["JobState"] == "COMPLETED" and int(job["Restarts"]) >= 1, said("evaluate")
    assert len(evaluations.each_once()) >= 4
    assert "edited" not in said()
    first = min(path.stat().st_mtime for path in run.evaluations.glob("step-*/metrics.json"))
    assert first < run.outcome.stat().st_mtime, "beside the training, not after it"


def preempt(lab, number):
    """Have a job of a partition of higher rank take the job's nodes for some seconds."""
    job = lab.job(number)
    options = ("-p", "high", "-w", job["NodeList"], "-N", job["NumNodes"], "--exclusive", "-o", "/dev/null")
    subprocess.run(["sbatch", *options], input="#!/bin/sh\nsleep 5\n", capture_output=True, text=True, check=True)


def test_two_nodes_of_two_tasks_run_to_the_page(lab, launch, train_here, tmp_path):
    """And two tasks share the evaluation: each checkpoint is taken by one of them. Made anew as an array of two jobs, too.

    If it failed: a chain that ends halfway, other weights than on one machine, an evaluation left out, or made twice.
    """
    here = train_here("here", "--nodes", "2", "--processes-per-node", "2", *TINY)
    mine = tmp_path / "mine.yaml"
    mine.write_text((site.HPC / "sites" / "slurm.yaml").read_text().replace("evaluate_processes: 1", "evaluate_processes: 2"))
    place = ("--nodes", "2", "--processes-per-node", "2", "--site", str(mine))
    evaluations = Evaluations(rundir.find("there"))
    shown = launch("submit", *place, "--run", "there", "--wait", *TINY)
    found = ids(shown)
    assert list(found) == ["train", "evaluate", "page"] and "preprocess: already done" in shown
    assert shown.splitlines()[-1] == f"page: {rundir.find('there').page}"
    for stage, number in found.items():
        job = lab.wait_for(number, 240, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        log = Path(job["StdOut"])
        assert job["JobState"] == "COMPLETED", (stage, job, log.read_text() if log.exists() else "")
    run = rundir.find("there")
    assert run.page.is_file()
    same(run, here.result())
    log = next((run.slurm / "train").glob("*_0_log.out")).read_text()
    assert "4 processes x 1" in log and "1 threads each" in log and "\x1b" not in log
    assert len(list((run.slurm / "train").glob("*_log.out"))) == 4, sorted((run.slurm / "train").iterdir())
    assert evaluations.each_once() == [16, 32, 35, 40]
    assert len(list((run.slurm / "evaluate").glob("*_log.out"))) == 2

    for _, path in rundir.find_steps(run.evaluations):
        shutil.rmtree(path)
    shutil.rmtree(run.slurm / "evaluate")
    evaluations = Evaluations(run)
    array = ids(launch("submit", "--nodes", "2", "--evaluate-array", "2", "--run", "there", "--wait", *TINY))
    assert list(array) == ["evaluate", "page"]
    assert evaluations.each_once() == [16, 32, 35, 40] and not (run.evaluations / "claims").exists()
    parts = [path.name for path in (run.slurm / "evaluate").glob("attempts.*")]
    assert sorted(parts) == ["attempts.0", "attempts.1"] and run.page.is_file()
    assert not list(run.evaluations.glob(".tmp-*"))


def test_sketches_are_made_by_a_job_that_goes_on_where_it_was_stopped(lab, launch):
    """The way of the preset `default`: its drummer learns in a job of its own, which reaches its time limit meanwhile.

    If it failed: a training that begins without sketches, or with others than an undisturbed one; a drummer that starts anew.
    """
    run = rundir.find("sketched")
    found = ids(launch("submit", "--nodes", "2", "--run", "sketched", *SKETCHED))
    assert [stage for stage in found if stage != "preprocess"] == ["pattern", "train", "evaluate", "page"]
    number, log = found["pattern"], lambda: "".join(path.read_text() for path in (run.slurm / "pattern").glob("*_log.out"))
    wait_until((run.pattern / "networks" / "training.safetensors").exists, 200, log)
    lab.ask("scancel", "--signal=USR2", number)  # as at the time limit: to the task, not to the batch shell
    lab.wait_for(number, 60, "PENDING")
    wait_until(lambda: lab.job(number).get("Reason") == "BeginTime", 30, log)
    time.sleep(5)  # see Lab.release
    lab.release(number)
    here, _ = begin("sketched-here", "--nodes", "2", *SKETCHED)
    preprocess_here(here)
    sketch_here(here)
    train(here)
    for stage in ("pattern", "train", "evaluate", "page"):
        job = lab.wait_for(found[stage], 240, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        assert job["JobState"] == "COMPLETED", (stage, job, log())
    finished = [path.name for path in (run.pattern / "finished").glob("network-all-*")]
    assert len(finished) == 2 and not any(name.endswith(".2") for name in finished), "no step that was saved is made again"
    attempts = (run.slurm / "pattern" / "attempts").read_text().splitlines()
    assert [line.split()[0] for line in attempts] == ["launch", "start", "end", "start", "end"]
    for name in ("pattern.safetensors", "strokes.safetensors", "guides/guides.json"):
        assert (run.pattern / name).read_bytes() == (here.pattern / name).read_bytes(), name
    same(run, here)
    assert run.page.is_file()


def test_cancelled_before_its_first_step_and_while_it_trains(lab, launch, calm):
    """launch/cancel.py, on a training that still starts and on one that runs; then the same launch goes on to the end.

    If it failed: a cancelled training comes back; or it is killed, with the work since its last checkpoint lost.
    """
    run = rundir.find("dropped")
    typed = ("--nodes", "2", "--run", "dropped", *LONGER)

    def end(number):
        job = lab.wait_for(number, 100, "COMPLETED", "FAILED", "CANCELLED", "PENDING")
        assert job["JobState"] == "FAILED" and job["Restarts"] == "0", job
        return "\n".join(path.read_text() for path in (run.slurm / "train").glob(f"{number}_*.out"))

    number = ids(launch("submit", *typed))["train"]
    lab.wait_for(number, 60, "RUNNING")
    shown = launch("cancel", "dropped")
    assert f"train: job {number} asked to save and stop" in shown and shown.count("removed from the queue") == 2
    assert "was cancelled: run the same launch command again to resume" in end(number)
    assert len(metrics_file.read(run)) <= 3

    number = ids(launch("submit", *typed))["train"]
    wait_until(lambda: len(metrics_file.read(run)) >= 20, 100, lambda: str(lab.job(number)))
    with lab.slow_epilog():
        launch("cancel", "dropped")
        lab.wait_for(number, 100, "COMPLETING")
        stopped = metrics_file.read(run)[-1]["step"]
        assert 20 <= stopped < 110 and rundir.find_steps(run.checkpoints)[-1][0] == stopped, "not a step lost"
        shown = launch("submit", *typed)  # what ends may be gone in a moment, and nothing may be queued behind it
    assert f"train: job {number} is completing" in shown and "already queued" not in shown
    end(number)
    queued = ids(shown)
    assert number != queued["train"] and f"afterok:{queued['train']}" in lab.job(queued["evaluate"])["Dependency"]
    lab.wait_for(queued["train"], 100, "COMPLETED")
    same(run, calm.result())
    launch("cancel", "dropped")


def test_the_templates_do_the_whole_way(lab, launch, calm, tmp_path, monkeypatch):
    """`sbatch hpc/STAGE.sbatch RUN` without the launcher, for every stage that has one.

    If it failed: who can't use the launcher has files that do not run, or that train another thing.
    """
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "else where" / "runs"))
    monkeypatch.setenv("P2P_PYTHON", sys.executable)
    held = tmp_path / "held.yaml"  # in which no job starts before it is cancelled: --partition alone is not for preprocessing
    held.write_text("partition: waiting\ncpu_partition: waiting\n")
    launch("submit", "--nodes", "2", "--site", str(held), "--run", "templates", *LONGER)
    launch("cancel", "templates")
    run, before = rundir.find("templates"), []
    evaluations = Evaluations(run)
    shapes = {"preprocess": ["--cpus-per-task=2"], "train": ["--nodes=2"], "evaluate": []}
    for stage, shape in shapes.items():
        options = [*shape, *(["--dependency", f"afterok:{before[-1]}"] if before else []), "-o", str(tmp_path / f"{stage}.log")]
        command = ["sbatch", "--parsable", *options, str(CHECKOUT / "hpc" / f"{stage}.sbatch"), "templates"]
        before.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    for stage, number in zip(shapes, before, strict=True):
        job = lab.wait_for(number, 150, "COMPLETED", "FAILED", "CANCELLED")
        assert job["JobState"] == "COMPLETED", (stage, (tmp_path / f"{stage}.log").read_text())
    same(run, calm.result())
    assert evaluations.each_once()
    launch("submit", "--nodes", "2", "--site", str(held), "--run", "sketched", *SKETCHED, "--train.pattern-steps", "2")
    launch("cancel", "sketched")
    options = ["--parsable", "-o", str(tmp_path / "pattern.log")]
    command = ["sbatch", *options, str(CHECKOUT / "hpc" / "pattern.sbatch"), "sketched"]
    number = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    job = lab.wait_for(number, 100, "COMPLETED", "FAILED", "CANCELLED")
    assert job["JobState"] == "COMPLETED", (tmp_path / "pattern.log").read_text()
    assert rundir.find("sketched").drummer.is_file()

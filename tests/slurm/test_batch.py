"""What a job's batch shell asks of Slurm, and what Slurm then does: the shell is the product's, its tasks only wait until they
are asked to stop, and say that they did. With real trainings: test_restarts.py; each decision by itself: tests/jobs."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from lab import ACCOUNT, wait_until

from p2p_dist.common import files
from p2p_dist.run import snapshot
from p2p_dist.run.rundir import RunDir

CHECKOUT = Path(__file__).resolve().parents[2]

# In place of python: 75 is how every stage leaves that was asked to stop.
TASK = """#!/bin/sh
trap 'echo stopped; exit 75' USR2 TERM
echo "rank $SLURM_PROCID of $SLURM_STEP_NUM_TASKS"
for run; do :; done
while [ ! -e "$run/end" ]; do sleep 0.2; done
"""


class Waiting:
    """A run whose jobs wait; `queue` is sbatch of a template."""

    def __init__(self, lab, folder, name):
        self.lab, self.run, self.jobs = lab, RunDir(folder / "my place" / "runs" / name), []
        snapshot.copy_code(self.run.code)
        (self.run.path / "python").write_text(TASK)
        (self.run.path / "python").chmod(0o755)
        files.write_json(self.run.dataset, {"name": "none"})
        files.write_text(self.run.config, "")  # without one it is no run, and nothing in it is run

    def queue(self, stage, *options, **environment):
        memory = () if any(option.startswith("--mem") for option in options) else ("--mem=1G",)
        command = ["sbatch", "--parsable", f"--output={str(self.run.path).replace('%', '%%')}/%j.log", *memory, *options]
        command += [str(CHECKOUT / "hpc" / f"{stage}.sbatch"), str(self.run.path)]
        environment = {**os.environ, "P2P_PYTHON": str(self.run.path / "python"), **environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        self.jobs.append(done.stdout.strip())
        return self.jobs[-1]

    def record(self, kind, stage="train", member=""):
        """The lines of its record that begin so, as words."""
        path = self.run.slurm / stage / f"attempts{member}"
        return [line.split() for line in (path.read_text().splitlines() if path.is_file() else ()) if line.startswith(kind)]

    def until(self, done):
        """Wait until `done()`."""
        wait_until(done, 100, lambda: "\n".join([*self.said(), *map(str, map(self.lab.job, self.jobs))]))

    def until_it_runs(self, number, stage="train"):
        """Wait until a task of the job waits, which is when a request to stop is heard."""
        self.until(lambda: any("rank 0" in path.read_text() for path in (self.run.slurm / stage).glob(f"{number}_0_*.out")))

    def said(self):
        """All that its batch shells and tasks said."""
        return [path.read_text() for path in (*self.run.path.glob("*.log"), *self.run.slurm.glob("*/*.out"))]


@pytest.fixture
def waiting(lab, tmp_path):
    """`waiting(name)`: a run; none of its jobs outlives the test."""
    runs = []

    def waiting(name):
        runs.append(Waiting(lab, tmp_path, name))
        return runs[-1]

    yield waiting
    for run in runs:
        lab.ask("scancel", *run.jobs, check=False)


def test_a_successor_is_given_what_its_job_was_given(lab, waiting):
    """By options on the command line and by variables, of which the script says nothing.

    If it failed: half of the nodes' devices used, the wrong project billed, a job of a day; or one that is not found by the
    launcher and by the evaluation beside it while it waits.
    """
    run = waiting("100% other options")
    shape = ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=3", "--time=7", "--partition=small-g", "--exclusive")
    by_name = run.queue("train", *shape, "--gpus-per-node=2", "--no-requeue", SBATCH_ACCOUNT=ACCOUNT)
    other = waiting("by gres")
    by_gres = other.queue("train", "--nodes=1", "--gres=gpu:3", "--mem-per-cpu=600M", "--no-requeue", "--job-name=mine")
    asked = ("TimeLimit", "Account", "QOS", "Partition", "NumNodes", "NumTasks", "CPUs/Task", "NtasksPerN:B:S:C", "TRES")
    asked += ("TresPerNode", "MinMemoryNode", "MinMemoryCPU", "OverSubscribe", "JobName")
    for one, number in ((run, by_name), (other, by_gres)):
        one.until_it_runs(number)
        given = lab.job(number)
        lab.ask("scancel", "--signal=USR2", number)
        one.until(lambda one=one: one.record("successor"))
        one.jobs.append(one.record("successor")[0][1])
        comment = lab.ask("squeue", "--noheader", "--job", one.jobs[-1], "--format=%k").strip()
        assert comment == f"p2p_dist train {one.run.path}"
        one.until_it_runs(one.jobs[-1])
        came = lab.job(one.jobs[-1])
        assert {name: given.get(name) for name in asked} == {name: came.get(name) for name in asked}
        assert (one.run.slurm / "train" / f"{one.jobs[-1]}_0_log.out").is_file() and not list(CHECKOUT.glob("slurm-*.out"))
        assert len(one.record("launch")) == 1 and given["TresPerNode"].startswith("gres:gpu:")


def test_of_an_array_only_the_part_that_stopped_is_requeued(lab, waiting):
    """Its last part, which has the array's own number; the first is done by then.

    If it failed: all parts are reset, those that are done too; or none, since one number answers for several jobs.
    """
    run = waiting("array")
    array = run.queue("evaluate", "--array=0-2")
    first, second, last = (f"{array}_{member}" for member in range(3))

    def ids():
        listed = lab.ask("squeue", "--noheader", "--job", array, "--format=%i %A").splitlines()
        return dict(line.split() for line in listed)

    run.until(lambda: set(ids()) == {first, second, last} and len(set(ids().values())) == 3)
    numbers = ids()
    assert numbers[last] == array, "as Slurm numbers them"
    for number in numbers.values():
        run.until_it_runs(number, "evaluate")
    lab.ask("scancel", first)
    run.until(lambda: first not in ids())
    lab.ask("scancel", "--signal=USR2", last)
    run.until(lambda: len(run.record("end", "evaluate", ".2")) == 1)

    def restarts():
        listed = lab.ask("squeue", "--noheader", "--job", array, "--Format=JobArrayID:20,RestartCnt:10,State:20").splitlines()
        return {line.split()[0]: tuple(line.split()[1:]) for line in listed}

    run.until(lambda: restarts()[last][0] == "1")
    assert restarts()[second] == ("0", "RUNNING") and restarts().get(first, ("0",))[0] == "0"
    (run.run.path / "end").touch()
    run.until(lambda: lab.release(last) or [line[5] for line in run.record("end", "evaluate", ".2")] == ["stopped", "killed"])


def test_a_run_that_was_cancelled_starts_no_process(lab, waiting):
    """While its job waited, or after it was requeued; what a person queues afterwards is a new launch.

    If it failed: a cancelled run trains, and is billed, because no signal reached what had not begun.
    """
    run = waiting("cancelled")
    number = run.queue("train", "--hold")
    time.sleep(1.1)  # Slurm tells the time of queueing in seconds
    run.run.slurm.mkdir(exist_ok=True)
    (run.run.slurm / "cancelled").touch()
    lab.ask("scontrol", "release", number)
    lab.wait_for(number, 60, "FAILED")
    assert any("was cancelled" in text for text in run.said()) and not list(run.run.slurm.glob("*/*.out"))
    time.sleep(1.1)
    again = run.queue("train")
    run.until_it_runs(again)
    assert not (run.run.slurm / "cancelled").exists()
    (run.run.slurm / "cancelled").touch()
    lab.ask("scontrol", "requeue", again)
    lab.wait_for(again, 60, "FAILED")
    assert [line[5] for line in run.record("end")] == ["stopped"] * 3


def test_of_two_jobs_of_one_stage_the_newer_owns_the_run(lab, waiting):
    """A template beside the launcher's, or another template. If it failed: they take the run from each other by turns."""
    run = waiting("twice")
    older = run.queue("train")
    run.until_it_runs(older)
    newer = run.queue("train")
    run.until_it_runs(newer)
    before = run.record("")
    lab.ask("scancel", "--signal=USR2", older)
    assert lab.wait_for(older, 60, "FAILED", "PENDING", "COMPLETED")["JobState"] == "FAILED"
    assert run.record("") == before and lab.job(newer)["JobState"] == "RUNNING"


def test_an_evaluation_waits_beside_a_training_that_waits(lab, waiting):
    """Told by a comment that is there from the beginning: hpc/train.sbatch says how.

    If it failed: an evaluation of 4 hours beside a training of days, or of one that waits for days, is given up.
    """
    run = waiting("beside")
    run.queue("train", "--partition=waiting", f"--comment=p2p_dist train {run.run.path}")
    number = run.queue("evaluate", P2P_EVALUATE="during", P2P_MAX_REQUEUES="0")
    run.until_it_runs(number, "evaluate")
    lab.ask("scancel", "--signal=USR2", number)
    run.until(lambda: lab.release(number) or len(run.record("start", "evaluate")) == 2)
    assert [line[5:] for line in run.record("start", "evaluate")] == [["beside"]] * 2
    lab.ask("scancel", run.jobs[0])
    run.until((run.run.slurm / "evaluate" / "no-training").is_file)

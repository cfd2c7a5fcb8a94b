"""Everything that ends a job early, and what comes after, on a real Slurm. The runs are queued together and live side by
side; each test does its harm to its own and then looks at what became of it. `finish` lets a run come to its end and compares
its batches and its weights with those of a run that nothing happened to."""

import dataclasses
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import lay_out_shards, wait_until
from paced import undisturbed

from p2p_dist import config, files, presets, rundir
from p2p_dist.jobs import site, slurm

LONG = 150
"""Seconds that something may take on a busy machine before a test gives up."""

# Those that are harmed where they are have their nodes for themselves.
TWO, ONE = {"nodes": 2, "partition": "standard-g"}, {"partition": "small"}
SETTINGS = {
    "preempted": {"nodes": 2, "partition": "low"},
    "preempted unsignalled": {"partition": "low"},
    "slurmd lost": TWO,
    "node lost": TWO,
    "requeued from outside": {"nodes": 2, "partition": "small"},
    "signalled": ONE,
    "out of time": {"time": "00:01:00", **ONE},
    "not requeued": {"site": ("requeue: true", "requeue: false"), **ONE},
    "crashing": {"max_crash_restarts": 2, **ONE},
    "stuck": ONE,
    "controller away": ONE,
    "cancelled": ONE,
    "evaluation failing": {"site": ("evaluate_processes: 1", "evaluate_processes: 2"), **ONE},
    "evaluation failing beside": {"evaluate": "during", **ONE},
    "evaluation left alone": {"evaluate": "during", **ONE},
}


class Paced:
    """One run whose processes only count (paced.py), queued with the launcher's own code."""

    def __init__(self, lab, name, folder):
        self.lab, self.run = lab, rundir.find(name.replace(" ", "-"))
        resources = dict(SETTINGS[name])
        if change := resources.pop("site", None):
            path = folder / f"{name}.yaml"
            path.write_text((site.HPC / "sites" / "slurm.yaml").read_text().replace(*change))
            resources["site"] = str(path)
        wanted = presets.preset("tiny")
        self.settings = dataclasses.replace(wanted, resources=config.Resources(**resources))
        rundir.begin(self.run, self.settings, "songs")

    def queue(self):
        """What the launcher does last."""
        slurm.queue(self.run, self.settings, site.load("slurm", self.settings.resources.site), "")
        found = slurm.queued_jobs(self.run)
        self.jobs = {stage: job.number for stage, job in found.items()}
        self.train = self.jobs.get("train")

    def saved(self):
        """Step and weights of the newest checkpoint."""
        state = files.read_json(rundir.find_steps(self.run.checkpoints)[-1][1] / "state.pt")
        return state["step"], state["weights"]

    @property
    def step(self):
        """The newest step that is noted."""
        rows = rundir.read_metrics(self.run)
        return rows[-1]["step"] if rows else 0

    def log(self, part="*_0_log.out"):
        """All that its processes and its batch shells said."""
        return "\n".join(path.read_text() for path in sorted((self.run.slurm / "train").glob(part)))

    def about(self):
        """What to show when something did not happen."""
        return f"{self.run.path.name}: {self.lab.job(self.train)}\n{self.log()}\n{self.attempts()}"

    def attempts(self, kind="", word=None):
        """The lines of its record that begin so; or one word of each."""
        path = self.run.slurm / "train" / "attempts"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line if word is None else line[word] for line in lines if line[0].startswith(kind)]

    def until_step(self, step):
        """Wait until so many steps are noted."""
        wait_until(lambda: self.lab.release(self.train) or self.step >= step, LONG, self.about)

    def until_start(self, number):
        """Wait until the job begins the so-manieth time and goes on; skips the two minutes that Slurm waits."""

        def begun():
            self.lab.release(self.train)
            return len(self.attempts("start")) >= number

        wait_until(begun, LONG, self.about)
        before = int(self.attempts("start", 2)[-1])
        wait_until(lambda: self.step > before + 5, LONG, self.about)

    def until_end(self, *states):
        """Wait until the training ends for good."""
        wait_until(lambda: self.lab.release(self.train) or self.lab.job(self.train).get("JobState") in states, LONG, self.about)

    def finish(self):
        """Let it come to its end; then nothing may be missing, nothing twice, and what waited has run once."""
        (self.run.path / "finish").touch()
        for stage in ("train", "evaluate", "page"):
            self.lab.wait_for(slurm.queued_jobs(self.run)[stage].number if stage in slurm.queued_jobs(self.run)
                              else self.jobs[stage], LONG, "COMPLETED")  # fmt: skip
        rows = rundir.read_metrics(self.run)
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)), "every step once"
        assert [row["digests"] for row in rows] == [f"batch {row['step']}" for row in rows], "the batches of one undisturbed"
        assert self.saved() == (len(rows), undisturbed(len(rows))), "the weights of one undisturbed"
        for name in ("evaluated", "paged"):
            assert len((self.run.path / name).read_text().split()) == 1, name
        assert len(self.attempts("start")) == len(self.attempts("end"))


@pytest.fixture(scope="module")
def paced(lab, tmp_path_factory):
    """All runs of this file, training at the same time."""
    folder = tmp_path_factory.mktemp("paced")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "paced.py"}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    lay_out_shards(rundir.runs_root().parent / "shards" / "songs")
    runs = {name: Paced(lab, name, folder) for name in SETTINGS}
    files.write_json(runs["crashing"].run.path / "plan.json", {"crash_at": {"0": 7, "1": 12, "2": 17}})
    files.write_json(runs["stuck"].run.path / "plan.json", {"stop_at": {str(n): 0 for n in range(9)}})
    files.write_json(runs["evaluation failing"].run.path / "plan.json", {"evaluation": "task 1 fails"})
    files.write_json(runs["evaluation failing beside"].run.path / "plan.json", {"evaluation": "task 0 fails"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        for run in runs.values():
            run.queue()
        yield runs


def preempt(lab, run):
    """Have jobs of a partition of higher rank take the run's nodes."""
    nodes = lab.job(run.train)["NodeList"]
    script = "#!/bin/sh\nsleep 5\n"
    options = ("-p", "high", "-w", nodes, "-N", lab.job(run.train)["NumNodes"], "--exclusive", "-o", "/dev/null", "--parsable")
    done = subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_preempted_with_a_user_signal(lab, paced):
    """Row 1: preempted, and told at once (preempt_send_user_signal).

    Seen: killed when Slurm's patience (GraceTime) is over, the work since the last checkpoint done twice, or never back.
    Now: saved and queued again before that; not a step is lost.
    """
    run = paced["preempted"]
    run.until_step(8)
    preempt(lab, run)
    run.until_start(2)
    assert run.attempts("end", 5) == ["stopped"]
    assert run.attempts("start", 2)[1] == run.attempts("end", 2)[0], "not a step lost"
    run.finish()


def test_preempted_without_one(lab, paced):
    """Row 1: preempted as Slurm does it by default: TERM at once, and no other signal.

    Seen: submitit passes TERM over; killed, and begun again where it was minutes ago.
    Now: TERM is a request to stop as any other.
    """
    run = paced["preempted unsignalled"]
    run.until_step(8)
    lab.configure("")
    try:
        preempt(lab, run)
        run.until_start(2)
    finally:
        lab.configure("preempt_send_user_signal")
    run.finish()


def test_requeued_from_outside(lab, paced):
    """Row 10: `scontrol requeue` by somebody else: the batch shell is killed before its last line.

    Seen: starts that nobody counts, and so a loop without end; or numbers after the checkpoint written twice.
    Now: the next start notes how the one before ended, and counts it.
    """
    run = paced["requeued from outside"]
    run.until_step(8)
    lab.ask("scontrol", "requeue", run.train)
    run.until_start(2)
    lab.ask("scontrol", "requeue", run.train)
    run.until_start(3)
    run.finish()


def test_asked_to_stop_by_a_signal(lab, paced):
    """Row 1: `scancel --signal=USR2`.

    Seen: the job ends with Slurm's "failed", what waits for it is dropped, and nobody goes on.
    Now: saved, and queued again by its own batch shell.
    """
    run = paced["signalled"]
    run.until_step(8)
    lab.ask("scancel", "--signal=USR2", run.train)
    run.until_start(2)
    assert run.attempts("end", 5) == ["stopped"] and "stopped: queued again" in run.log()
    run.finish()


def test_where_requeueing_is_refused_a_successor_goes_on(lab, paced):
    """Rows 9, 40: the site lets no job be requeued, and so one job submits another.

    Seen: saved and forgotten; what waits pends for ever ("DependencyNeverSatisfied") or evaluates half a training; the next job
    inherits this one's SLURM_ variables.
    Now: a successor goes on, and what waited for the first waits for it, and runs once.
    """
    run = paced["not requeued"]
    run.until_step(8)
    first = run.train
    lab.ask("scancel", "--signal=USR2", first)
    wait_until(lambda: run.attempts("successor"), LONG, run.about)
    (run.train,) = run.attempts("successor", 1)
    wait_until(lambda: len(run.attempts("start")) == 2, LONG, run.about)
    assert len(run.attempts("launch")) == 1, "it counts on"
    wait_until(lambda: f"afterok:{run.train}(" in lab.job(run.jobs["evaluate"])["Dependency"], LONG, run.about)
    run.jobs["train"] = run.train
    run.finish()
    assert lab.job(first)["JobState"] == "FAILED"


def test_crashes_with_progress_are_tried_again_and_not_for_ever(lab, paced):
    """Rows 10, 14: a training that crashes again and again, further each time.

    Seen: one bad node ends a training of days; or a bug burns node hours until somebody looks.
    Now: begun again `--max-crash-restarts` times, then what waits for it is dropped.
    """
    run = paced["crashing"]
    run.until_end("FAILED")
    assert run.attempts("end", 5) == ["crash", "crash", "crash"] and "not begun again (3 crashes" in run.log()
    lab.wait_for(run.jobs["evaluate"], LONG, "CANCELLED")  # not left to wait for ever
    assert not (run.run.path / "evaluated").exists()


def test_starts_without_progress_come_to_an_end(lab, paced):
    """Row 10: a training that stops by itself at the same step, each time.

    Seen: queued again for ever.
    Now: the fourth start in a row from one place is refused.
    """
    run = paced["stuck"]
    run.until_end("FAILED")
    assert len(run.attempts("start")) == 4 and "without progress" in run.log()


def test_an_evaluation_of_which_one_task_fails(lab, paced):
    """The training is done all the same, the failure is seen, and the launcher asked again queues what is missing.

    If it failed: a page over half of the evaluations that looks whole, or a training queued a second time.
    """
    run = paced["evaluation failing"]
    run.until_step(25)
    (run.run.path / "finish").touch()
    lab.wait_for(run.train, LONG, "COMPLETED")
    lab.wait_for(run.jobs["evaluate"], LONG, "FAILED")
    lab.wait_for(run.jobs["page"], LONG, "CANCELLED")
    (run.run.path / "plan.json").unlink()
    run.queue()
    for stage in ("evaluate", "page"):
        lab.wait_for(run.jobs[stage], LONG, "COMPLETED")
    assert "train" not in run.jobs and len((run.run.path / "paged").read_text().split()) == 1


def test_an_evaluation_that_fails_beside_its_training(lab, paced):
    """It ends before the training, which goes on to its end undisturbed.

    If it failed: a damaged sound file ends a training of days.
    """
    run = paced["evaluation failing beside"]
    lab.wait_for(run.jobs["evaluate"], LONG, "FAILED")
    assert lab.job(run.train)["JobState"] == "RUNNING"
    run.until_step(25)
    (run.run.path / "plan.json").unlink()
    (run.run.path / "finish").touch()
    trained = run.train
    lab.wait_for(trained, LONG, "COMPLETED")
    run.queue()
    assert run.train is None, "done, and not queued again"
    run.jobs["train"] = trained
    run.finish()


def test_an_evaluation_whose_training_is_gone(lab, paced):
    """The training is cancelled by hand and so never says that it ended; the evaluation beside it ends all the same.

    If it failed: a node that waits for checkpoints, and is billed, until its time limit, and again after that.
    """
    run = paced["evaluation left alone"]
    run.until_step(8)
    wait_until(lambda: lab.job(run.jobs["evaluate"])["JobState"] == "RUNNING", LONG, run.about)
    lab.ask("scancel", run.train)
    lab.wait_for(run.jobs["evaluate"], LONG, "COMPLETED")
    assert (run.run.slurm / "evaluate" / "no-training").is_file()


def test_a_daemon_lost_leaves_processes_that_change_nothing(lab, paced):
    """Row 12: slurmd is killed, its tasks live on, and Slurm starts the run elsewhere.

    Seen: two writers in one run directory, whose lines and checkpoints alternate.
    Now: the old ones see that a newer attempt owns the run, and leave without a trace.
    """
    run = paced["slurmd lost"]
    run.until_step(8)
    old = lab.job(run.train)
    node = old["BatchHost"]
    lab.kill_slurmd(node)
    try:
        run.until_start(2)
        assert lab.job(run.train)["BatchHost"] != node
        wait_until(lambda: "was superseded by" in run.log(), LONG, run.about)
        assert run.run.read_outcome() is None
        run.finish()
    finally:
        lab.return_node(node)


def test_a_node_lost(lab, paced):
    """Row 14: a node without power: all its processes at once.

    Seen: what Slurm begins again finds half a checkpoint, or takes the numbers after it for its own.
    Now: it goes on elsewhere from the last whole checkpoint.
    """
    run = paced["node lost"]
    run.until_step(8)
    node = lab.job(run.train)["BatchHost"]
    lab.lose(node)
    try:
        run.until_start(2)
        run.finish()
    finally:
        lab.return_node(node)


def test_the_time_limit_reached_twice(lab, paced):
    """Row 11: a training that is longer than two jobs.

    Seen: TIMEOUT, and it never ends.
    Now: each job saves before its limit and is queued again.
    """
    run = paced["out of time"]
    run.until_start(3)
    assert run.attempts("end", 5) == ["stopped", "stopped"]
    run.finish()


def test_cancelled_by_hand_it_does_not_come_back(lab, paced):
    """If it failed: a job that its owner has cancelled queues itself again, and is billed."""
    run = paced["cancelled"]
    run.until_step(8)
    lab.ask("scancel", run.train)
    lab.wait_for(run.train, LONG, "CANCELLED")
    wait_until(lambda: "EndTime" in lab.job(run.train) and not slurm.queued_jobs(run.run).get("train"), LONG, run.about)
    time.sleep(3)
    assert lab.job(run.train)["JobState"] == "CANCELLED" and len(run.attempts("start")) == 1
    assert run.saved() == (run.saved()[0], undisturbed(run.saved()[0])), "what was saved is good"


def test_a_controller_that_is_away_for_20_seconds(lab, paced):
    """Row 9: the run stops while slurmctld is away.

    Seen: saved, ended, and forgotten.
    Now: its batch shell asks on, and it is queued again once the controller answers.
    """
    run = paced["controller away"]
    run.until_step(8)
    lab.stop("slurmctld", 20)
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURM_JOB_ID={run.train}".encode() in words and b"paced.py" in (path.parent / "cmdline").read_bytes():
            os.kill(int(path.parent.name), signal.SIGUSR2)
    time.sleep(20)
    assert run.attempts("end", 5) == ["stopped"]
    lab.start_controller()
    run.until_start(2)
    run.finish()

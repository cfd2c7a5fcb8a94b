"""Everything that ends a job early, and what comes after, on a real Slurm with real trainings. They live side by side; each
waits at a step (paced.py) until a test has done its harm to it. `finish` lets it finish, and compares batches and
weights with those of a training of as many processes to which nothing happened."""

import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
import undisturbed
from harmed import HOLD

from p2p_dist.cli import cancel
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint


def preempt(lab, run):
    """Have jobs of a partition of higher rank take the run's nodes."""
    nodes = lab.job(run.train)["NodeList"]
    script = "#!/bin/sh\nsleep 5\n"
    options = ("-p", "high", "-w", nodes, "-N", lab.job(run.train)["NumNodes"], "--exclusive", "-o", "/dev/null")
    subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, check=True)


def test_a_controller_that_is_away_for_20_seconds(lab, start):
    """Row 9: the run stops while slurmctld is away.

    Seen: saved, ended, and forgotten.
    Now: its batch shell asks on, and it is requeued once the controller answers.
    """
    run = start("controller away")
    run.until_it_holds()
    lab.settle()
    lab.stop("slurmctld", 20)
    run.signal(signal.SIGUSR2, b"paced.py")
    time.sleep(20)
    assert run.attempts("end", 5) == ["stopped"]
    lab.start_controller()
    run.until_start(2)
    run.finish()


def test_a_controller_that_is_away_as_a_job_begins(lab, start):
    """Row 9: an update or a failover of the controller, while a job is about to start its tasks.

    Seen: srun's own exit code 1 is taken for the run's, and the run for failed: it is not restarted, what waits is dropped.
    Now: no task has begun, so the code says nothing; the batch shell waits for the controller and tries again.
    """
    run = start("controller away at the start")
    run.until(run.begun.with_suffix(".asked").exists)
    lab.settle()
    lab.stop("slurmctld", 20)
    run.begun.with_suffix(".hold").unlink()
    run.until(lambda: "srun started no task: retrying" in run.log())
    lab.start_controller()
    run.finish()
    assert run.attempts("end", 5) == ["done"]


def test_a_starter_killed_while_the_controller_is_away(lab, start):
    """Row 9: srun is killed and slurmctld is away; the training continues, and finishes.

    Seen: counted as a crash before its end, and forgotten, or begun a second time beside itself.
    Now: the batch shell waits for what the tasks come to.
    """
    run = start("srun killed")
    run.until_it_holds()
    lab.settle()
    lab.stop("slurmctld", 20)
    run.signal(signal.SIGKILL, b"srun\0--unbuffered")
    run.hold(10**9)
    run.until(lambda: (run.run.read_outcome() or {}).get("outcome") == "done")
    assert run.attempts("end") == []
    lab.start_controller()
    run.finish()
    assert run.attempts("end", 5) == ["done"]


def test_preempted_with_a_user_signal(lab, start):
    """Row 1: preempted, and told at once (preempt_send_user_signal).

    Seen: killed when Slurm's patience (GraceTime) is over, the work since the last checkpoint done twice, or never back.
    Now: saved and requeued before that; not a step is lost.
    """
    run = start("preempted")
    run.until_it_holds()
    preempt(lab, run)
    run.until_start(2)
    assert run.attempts("end", 5) == ["stopped"]
    assert run.attempts("start", 2)[1] == run.attempts("end", 2)[0], "not a step lost"
    run.finish()


def test_preempted_without_one(lab, start):
    """Row 1: preempted as Slurm does it by default: TERM at once, and no other signal.

    Seen: submitit passes TERM over; killed, and restarted where it was minutes ago.
    Now: TERM is a request to stop as any other.
    """
    run = start("preempted unsignalled")
    run.until_it_holds()
    lab.configure("")
    try:
        preempt(lab, run)
        run.until_start(2)
    finally:
        lab.configure("preempt_send_user_signal")
    assert run.attempts("start", 2)[1] == run.attempts("end", 2)[0] != "5", "not a step lost"
    run.finish()


def test_preempted_while_the_accounting_is_away(lab, start):
    """Row 9: slurmdbd is being repaired while a run is preempted, comes back and ends.

    Seen: a batch shell that asks the accounting and finds nothing: saved, ended, and forgotten.
    Now: nothing in a job asks it.
    """
    run = start("accounting away")
    run.until_it_holds()
    lab.stop("slurmdbd")
    try:
        preempt(lab, run)
        run.until_start(2)
        run.finish()
    finally:
        lab.start_accounting()


def test_requeued_from_outside(lab, start):
    """Row 10: `scontrol requeue` by somebody else, who does not wait for the batch shell's last line.

    Seen: starts that nobody counts, and so a loop without end; or numbers after the checkpoint written twice.
    Now: saved, and written down, by the batch shell where it lives long enough, else by the next start.
    """
    run = start("requeued from outside")
    run.until_it_holds()
    lab.ask("scontrol", "requeue", run.train)
    run.until_start(2)
    began = int(run.attempts("start", 2)[1])
    run.train_further()
    lab.ask("scontrol", "requeue", run.train)
    run.until_start(3)
    assert int(run.attempts("start", 2)[2]) > began, "saved in order"
    run.finish()
    assert run.attempts("end", 5) == ["stopped", "stopped", "done"]
    lab.ask("scontrol", "requeue", run.train)  # or its node was lost just as it had finish
    run.until(lambda: "train: already done" in run.log())
    run.finish()


def test_asked_to_stop_by_a_signal(lab, start):
    """Row 1: `scancel --signal=USR2`.

    Seen: the job ends with Slurm's "failed", what waits for it is dropped, and nothing continues.
    Now: saved, and requeued by its own batch shell.
    """
    run = start("signalled")
    run.until_it_holds()
    lab.ask("scancel", "--signal=USR2", run.train)
    run.until_start(2)
    assert run.attempts("end", 5) == ["stopped"] and "stopped: requeued" in run.log()
    run.finish()


def test_signals_that_reach_the_batch_shell(lab, start):
    """Row 4: `scancel --batch`, and `scancel --full`, which reaches the job's shells and srun, too.

    Seen: the tasks save, the shell that would requeue the job dies, and what waits is dropped.
    Now: the shell lives, passes the request on, and requeues the job. srun kills its tasks when it gets a TERM: then what
    was not saved is done again.
    """
    run = start("batch shell signalled")
    run.until_it_holds()
    for number, how in enumerate((("--batch", "USR1"), ("--full", "USR2"), ("--full", "TERM")), 2):
        lab.ask("scancel", how[0], f"--signal={how[1]}", run.train)
        run.until_start(number)
        if number < 4:
            run.train_further()
    assert run.attempts("end", 5)[:2] == ["stopped", "stopped"] and run.attempts("end", 5)[2] in ("stopped", "killed")
    run.finish()


def test_where_requeueing_is_refused_a_successor_goes_on(lab, start):
    """Rows 9, 40: the site lets no job be requeued, and so one job submits another.

    Seen: saved and forgotten; what waits pends for ever ("DependencyNeverSatisfied") or evaluates half a training; the next job
    inherits this one's SLURM_ variables.
    Now: a successor goes on, and what waited for the first waits for it, and runs once.
    """
    run = start("not requeued")
    run.until_it_holds()
    first = run.train
    lab.ask("scancel", "--signal=USR2", first)
    run.until(lambda: run.attempts("successor"))
    (run.jobs["train"],) = run.attempts("successor", 1)
    run.until_start(2)
    assert len(run.attempts("launch")) == 1, "it counts on"
    run.until(lambda: f"afterok:{run.train}(" in lab.job(run.jobs["evaluate"])["Dependency"])
    run.finish()
    run.be_followed_once()
    assert lab.job(first)["JobState"] == "FAILED"


def test_crashes_with_progress_are_tried_again_and_not_for_ever(lab, start):
    """Rows 10, 14: a training that crashes again and again, further each time.

    Seen: one bad node ends a training of days; or a bug burns node hours until somebody looks.
    Now: restarted `--max-crash-restarts` times, then what waits for it is dropped; launched once more, it goes on.
    """
    run = start("crashing")
    run.until_end("FAILED")
    assert run.attempts("end", 5) == ["crash", "crash", "crash"] and "not restarted (3 crashes" in run.log()
    run.until_end("CANCELLED", "evaluate")  # not left to wait for ever
    assert not (run.run.path / "evaluated").exists()
    (run.run.path / "plan.json").unlink()
    assert run.queue().keys() == {"train", "evaluate", "page"}
    run.finish()


def test_starts_without_progress_come_to_an_end(lab, start):
    """Row 10: a training that stops before it has done a step, each time.

    Seen: requeued for ever.
    Now: the fourth start in a row from one place is refused.
    """
    run = start("stuck")
    run.until_end("FAILED")
    assert run.attempts("end", 5)[:3] == ["stopped"] * 3
    assert len(run.attempts("start")) == 4 and "without progress" in run.log()


def test_an_evaluation_of_which_one_task_fails(lab, start):
    """The training is done all the same, the failure is seen, and the launcher asked again queues what is missing.

    If it failed: a page over half of the evaluations that looks whole, or a training queued a second time.
    """
    run = start("evaluation failing")
    run.hold(10**9)
    run.until_end("COMPLETED")
    run.compare()
    run.until_end("FAILED", "evaluate")
    run.until_end("CANCELLED", "page")
    (run.run.path / "plan.json").unlink()
    assert run.queue().keys() == {"evaluate", "page"}
    for stage in ("evaluate", "page"):
        run.until_end("COMPLETED", stage)
    assert len((run.run.path / "paged").read_text().split()) == 1
    run.compare()


def test_an_evaluation_that_fails_beside_its_training(lab, start):
    """It ends before the training, which goes on to its end undisturbed.

    If it failed: a damaged sound file ends a training of days.
    """
    run = start("evaluation failing beside")
    run.until_end("FAILED", "evaluate")
    assert lab.job(run.train)["JobState"] == "RUNNING"
    run.until_it_holds()
    (run.run.path / "plan.json").unlink()
    run.hold(10**9)
    run.until_end("COMPLETED")
    assert run.queue().keys() == {"evaluate", "page"}, "trained, and not queued again"
    run.finish()
    run.be_followed_once()
    assert len(run.attempts("start")) == 1


def test_a_daemon_lost_leaves_processes_that_change_nothing(lab, start):
    """Row 12: slurmd is killed, its tasks live on, and Slurm starts the run elsewhere.

    Seen: two writers in one run directory, whose lines and checkpoints alternate.
    Now: the old ones see that a newer attempt owns the run, and leave without a trace.
    """
    run = start("slurmd lost")
    run.until_it_holds()
    node = lab.job(run.train)["BatchHost"]
    lab.kill_slurmd(node)
    try:
        run.until_start(2)
        assert lab.job(run.train)["BatchHost"] != node
        run.until(lambda: "was superseded by" in run.log())
        assert run.run.read_outcome() is None
        run.finish()
        assert run.attempts("end", 5) == ["killed", "done"]
    finally:
        lab.return_node(node)


def test_a_node_lost(lab, start):
    """Row 14: a node without power: all its processes at once.

    Seen: what Slurm restarts finds half a checkpoint, or takes the numbers after it for its own.
    Now: it continues elsewhere from the last whole checkpoint.
    """
    run = start("node lost")
    run.until_it_holds()
    node = lab.job(run.train)["BatchHost"]
    lab.lose(node)
    try:
        run.until_start(2)
        assert run.attempts("start", 2)[1] in ("5", "10"), "from what was saved"
        run.finish()
    finally:
        lab.return_node(node)


def test_the_time_limit_reached_twice(lab, start):
    """Row 11: a training that is longer than two jobs.

    Seen: TIMEOUT, and it never ends.
    Now: each job saves before its limit and is requeued.
    """
    run = start("out of time")
    run.finish()
    *before, last = run.attempts("end", 5)  # more often where a busy machine is slow to start
    assert len(before) >= 2 and set(before) == {"stopped"} and last == "done"


def test_a_time_limit_that_is_lowered(lab, start):
    """Row 11: an administrator lowers the time limit of a job below what it has used.

    Seen: the tasks save in time, and nobody requeues the job.
    Now: as at the end of any other job.
    """
    run = start("time limit lowered")
    run.until_it_holds()
    begun = int(run.attempts("start", 3)[0])
    run.until(lambda: time.time() - begun > 62)  # Slurm counts in minutes
    lab.ask("scontrol", "update", f"jobid={run.train}", "timelimit=1")
    run.until_start(2)
    assert run.attempts("end", 5) == ["stopped"]
    lab.ask("scontrol", "update", f"jobid={run.train}", "timelimit=10", check=False)
    run.finish()


def test_cancelled_while_it_is_suspended(lab, start):
    """It goes on for a moment, to save. If it failed: it dies where it stands, and the work since its last save is lost."""
    run = start("suspended")
    run.until_it_holds()
    lab.ask("scontrol", "suspend", run.train)
    run.until(lambda: lab.job(run.train)["JobState"] == "SUSPENDED")
    cancel.main([run.run.path.name])
    run.until_end("FAILED")
    assert run.run.read_outcome()["outcome"] == "stopped"
    assert max(step for step, _ in rundir.find_steps(run.run.checkpoints)) >= HOLD - 1
    assert run.queue().keys() == {"train", "evaluate", "page"}
    run.finish()


def test_cancelled_by_hand_it_does_not_come_back(lab, start):
    """Nor does the evaluation beside it wait for a training that never says that it ended. Launched again, it goes on.

    If it failed: a job that its owner has cancelled requeues itself, and is billed; or a node that waits for checkpoints
    is, until its time limit, and again after that.
    """
    run = start("cancelled")
    run.until_it_holds()
    run.until(lambda: lab.job(run.jobs["evaluate"])["JobState"] == "RUNNING")
    lab.ask("scancel", run.train)
    run.until_end("CANCELLED")
    run.until_end("COMPLETED", "evaluate")
    assert (run.run.slurm / "evaluate" / "no-training").is_file()
    time.sleep(3)
    assert lab.job(run.train)["JobState"] == "CANCELLED" and len(run.attempts("start")) == 1
    assert "train" not in squeue.queued_jobs(run.run)
    run.until_end("COMPLETED", "page")
    for name in ("evaluated", "paged"):
        (run.run.path / name).unlink()
    assert run.queue().keys() == {"train", "evaluate", "page"}
    run.finish()


def test_what_waited_for_a_training_ran_once_when_that_was_done(start):
    """After each of the above. If it failed: an evaluation dropped at the first harm, or made after each start."""
    finished = [run for run in start.running.values() if run.finished]
    assert finished
    for run in finished:
        run.be_followed_once()


def test_one_bit_or_one_batch_more_or_less_is_seen(twins, tmp_path):
    """The negative twin of every test above. If it failed: they would pass whatever came back."""
    good = twins[1].result()

    def copy(name):
        return rundir.RunDir(shutil.copytree(good.path, tmp_path / name))

    undisturbed.same(copy("as it was"), good)
    other = copy("one bit")
    step, state = checkpoint.load_newest(other.checkpoints)
    moment = next(iter(state["networks"]["discriminator_optimiser"].values()))["exp_avg"]
    moment.view(torch.int32).view(-1)[-1] ^= 1
    shutil.rmtree(other.checkpoints / rundir.step_name(step))
    checkpoint.save(other.checkpoints, step, state, {}, {})
    with pytest.raises(AssertionError, match="other weights at step 24"):
        undisturbed.same(other, good)
    rows = metrics_file.read(good)
    rows[3]["digests"], rows[4]["digests"] = rows[4]["digests"], rows[3]["digests"]
    for name, wrong in {"swapped": rows, "missing": rows[:3] + rows[4:], "twice": rows[:4] + rows[3:]}.items():
        other = copy(name)
        other.metrics.write_text("".join(json.dumps(row) + "\n" for row in wrong))
        with pytest.raises(AssertionError, match=r"other batches|every step once"):
            undisturbed.same(other, good)

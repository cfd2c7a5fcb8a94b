"""A sweep on a real Slurm: one array for each stage, in which each element is a run of its own. Its trainings are those of
test_restarts.py, which wait at a step (paced.py)."""

from harmed import Training
from test_restarts import preempt

from p2p_dist.cli import cancel
from p2p_dist.common import files
from p2p_dist.jobs import status
from p2p_dist.jobs.slurm import commands


def test_a_sweep_of_three_of_which_one_is_preempted_one_cancelled_and_one_not_evaluated(lab, start, twins, capfd):
    """Each element has its own starts, requeues, signals and dependents; what happens to one does not touch the others.

    If it failed: a preempted run of a sweep that starts as another one, or never again; all evaluations dropped with one
    training; runs trained twice by the launch command typed again.
    """
    runs = [Training(lab, f"sweep {n}", start.folder, twins, {"partition": "low"}, ("--train.seed", str(n))) for n in range(3)]
    preempted, cancelled, unmeasured = runs
    files.write_json(unmeasured.run.path / "plan.json", {"evaluation": "task 0 fails"})
    preempted.queue(cancelled, unmeasured)
    array = preempted.train.partition("_")[0]
    assert [one.train for one in runs] == [f"{array}_{n}" for n in range(3)]
    typed = dict(preempted.jobs), dict(cancelled.jobs), dict(unmeasured.jobs)
    for one in runs:
        one.until_it_holds()

    preempt(lab, preempted)
    cancel.main([cancelled.run.path.name])
    preempted.until_start(2)
    assert preempted.attempts("end", 5) == ["stopped"] and preempted.attempts("start", 2)[1] == preempted.attempts("end", 2)[0]
    assert "stopped: requeued" in preempted.log() and len(unmeasured.attempts("start")) == 1
    cancelled.until_end("FAILED")
    assert "was cancelled: run the same launch command again" in cancelled.log()
    assert status.gather(cancelled.run)["stages"]["train"].startswith("stopped"), "its evaluation and page were removed"
    assert status.gather(preempted.run)["stages"]["train"] == f"running, job {array}_0"

    capfd.readouterr()
    preempted.queue(cancelled, unmeasured)  # typed again
    assert capfd.readouterr().out.count("already queued, job ") == 6
    assert (dict(preempted.jobs), dict(unmeasured.jobs)) == (typed[0], typed[2]) and not typed[
        1
    ].items() & cancelled.jobs.items()
    preempted.finish()  # the batches and weights of the run to which nothing happened
    preempted.be_followed_once()
    for one in (cancelled, unmeasured):
        one.hold(10**9)
        one.until_end("COMPLETED")
    cancelled.be_followed_once()
    assert len(cancelled.attempts("launch")) == 2 and len(unmeasured.attempts("launch")) == 1
    unmeasured.until_end("FAILED", "evaluate")
    unmeasured.until_end("CANCELLED", "page")
    assert commands.ask("squeue", "--me", "--noheader", "--name=p2p-train,p2p-evaluate,p2p-page", f"--job={array}").stdout == ""

"""The cancel command: all jobs of a run and none of another."""

from p2p_dist.cli import cancel
from p2p_dist.common import console
from p2p_dist.jobs import status
from p2p_dist.run import rundir
from tests.jobs.slurm.fake_slurm import CHAIN, cluster, launch

__all__ = ["cluster", "launch"]


def test_cancel_reaches_all_that_there_is_of_a_run(cluster, launch, capsys):
    launch("--run", "a")
    run = rundir.find("a").path
    comments = {stage: f"p2p_dist {stage} {run}" for stage in CHAIN}
    (cluster.place / "queue").write_text("")
    cluster.add(f"7|RUNNING|None|{comments['train']}|p", f"9|PENDING|Dependency|{comments['train']}|p")
    cluster.add(f"12_[2-3]|PENDING|Resources|{comments['evaluate']}|p", f"12_1|RUNNING|None|{comments['evaluate']}|p")
    assert cancel.main(["a"]) == console.DONE
    assert (cluster.place / "cancelled").read_text().splitlines() == [
        "--state=PENDING 12",
        "--signal=USR2 --state=RUNNING 12",
        "--signal=USR2 7",
        "9",
    ]


def test_what_is_suspended_or_ending_is_not_killed(cluster, launch, capsys):
    """A training that is suspended hears no signal. If it failed: it dies of its cancellation without having saved."""
    launch("--run", "a")
    comments = {stage: f"p2p_dist {stage} {rundir.find('a').path}" for stage in CHAIN}
    queue = f"7|SUSPENDED|None|{comments['train']}|p\n5|COMPLETING|None|{comments['preprocess']}|p\n"
    (cluster.place / "queue").write_text(queue + f"9|STOPPED|None|{comments['evaluate']}|p\n")
    cancel.main(["a"])
    assert (cluster.place / "told").read_text() == "resume 7\n"
    assert (cluster.place / "cancelled").read_text().splitlines() == ["--signal=CONT 9", "--signal=USR2 9", "--signal=USR2 7"]
    assert "preprocess: job 5 is already completing" in capsys.readouterr().out
    (cluster.place / "refuses").touch()  # as for everybody who is no operator
    (cluster.place / "cancelled").unlink()
    (cluster.place / "queue").write_text(queue)
    cancel.main(["a"])
    assert "after an operator resumes it" in capsys.readouterr().out
    assert not (cluster.place / "cancelled").exists() and (rundir.find("a").slurm / "cancelled").exists()


def test_cancel_leaves_the_shards_that_others_wait_for(cluster, launch, capsys):
    launch("--run", "s", "--sweep", "train.seed=0,1")
    cancel.main(["s-seed-0"])
    assert "preprocess: job 100 is not cancelled: s-seed-1 with the same shards still needs it" in capsys.readouterr().out
    assert (cluster.place / "cancelled").read_text().split() == ["103_0", "102_0", "101_0"]
    assert status.gather(rundir.find("s-seed-1"))["stages"]["preprocess"].endswith("job 100 of the run s-seed-0")


def test_a_job_that_ends_meanwhile_and_one_that_slurm_refuses_keep_no_other_from_its_end(cluster, launch, capsys):
    """If it failed: an evaluation that ends in the same moment ends the command, and the training goes on."""
    launch("--run", "a")
    comments = {stage: f"p2p_dist {stage} {rundir.find('a').path}" for stage in CHAIN}
    queue = "".join(f"{number}|RUNNING|None|{comments[stage]}|p\n" for stage, number in (("train", 7), ("evaluate", 9)))
    (cluster.place / "queue").write_text(queue)
    answers = (cluster.place / "scancel").read_text()
    (cluster.place / "scancel").write_text(answers + 'case "$*" in *9) exit 1 ;; esac\n')  # what the real one does
    assert cancel.main(["a"]) == console.DONE
    told = "evaluate: job 9 has ended meanwhile\ntrain: job 7 asked to save and stop\n"
    assert told in capsys.readouterr().out
    (cluster.place / "queue").write_text(queue)
    (cluster.place / "scancel").write_text(answers + 'case "$*" in *9) echo "scancel: not yours" >&2; exit 1 ;; esac\n')
    assert cancel.main(["a"]) == console.FAILED
    said = capsys.readouterr()
    assert "job 7 asked to save and stop" in said.out
    assert "evaluate: job 9 could not be cancelled: scancel: not yours" in said.err


def test_what_cannot_be_asked_about_the_shards_keeps_no_other_job(cluster, launch, capsys, monkeypatch):
    """Slurm goes away in between. If it failed: a traceback's way out, and nothing is said of what was cancelled."""
    launch("--run", "a")

    def away(run):
        raise OSError(5, "Slurm does not answer", "squeue")

    monkeypatch.setattr(cancel.squeue, "waiting_for_shards", away)
    assert cancel.main(["a"]) == console.FAILED
    said = capsys.readouterr()
    assert "preprocess: job 100 could not be cancelled: Slurm does not answer" in said.err
    assert "train: job 101 removed from the queue" in said.out and "to resume, run the launch command again" in said.out

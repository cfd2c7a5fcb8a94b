"""Stands before a job's python where a test needs a training to wait for the harm that is done to it. The training is the real
one, with its networks, data, agreement, checkpoints and fences; what this adds waits in it between two steps, at the step
that the file `hold` in the run names, until the file names a later one. The file `plan.json` can let every start crash once
it has saved something (`crash`), stop before its first step (`stuck`), or wait in its first so many
starts only (`hold_starts`); and let the evaluation fail.

Evaluation and page only note that they ran: what they do is tested in test_chain.py.

    PYTHON paced.py -P -m p2p_dist.jobs.stage_process STAGE RUN
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, os.environ.get("PYTHONPATH", ""))
from p2p_dist.common import console, records
from p2p_dist.jobs import stage_process
from p2p_dist.run import rundir
from p2p_dist.train import stop

LONGEST = 20.0
"""Seconds that a step may take: a process that nobody asked to stop must not keep the others waiting for ever."""


class Paced(stop.StopFlag):
    """The product's own flag. The training asks it once after each step, on every rank: the place to wait in."""

    def __init__(self, run):
        super().__init__()
        self.run, self.plan = run, plan_of(run)
        self.began = self.step = newest(run)
        self.holds = int(os.environ.get("SLURM_RESTART_COUNT", "0")) < self.plan.get("hold_starts", 1000)

    def __bool__(self):
        self.step += 1
        end = time.monotonic() + LONGEST
        while not super().__bool__() and self.holds and self.step >= self.hold() and time.monotonic() < end:
            time.sleep(0.05)
            if self.plan.get("crash") and newest(self.run) > self.began:
                os.kill(os.getpid(), signal.SIGABRT)  # as torch does where it can not go on
        return super().__bool__()

    def hold(self):
        """The step to wait at: that which the test names, or the one after the first that is saved."""
        return self.began + 6 if self.plan.get("crash") else int((self.run.path / "hold").read_text())


def newest(run):
    """The newest step that is saved."""
    return max((step for step, _ in rundir.find_steps(run.checkpoints)), default=0)


def plan_of(run):
    """What is to go wrong."""
    path = run.path / "plan.json"
    return records.read(path) if path.is_file() else {}


def train(run, settings):
    """`stage_process.train` with the paced flag."""
    if plan_of(run).get("stuck"):
        os._exit(console.STOPPED)
    flag = Paced(run)
    from p2p_dist.train import loop

    return loop.train(run, settings, flag)


def note(name):
    """A stage that only writes down that it ran."""

    def stage(run, settings):
        if name == "evaluated" and plan_of(run).get("evaluation") == f"task {os.environ['RANK']} fails":
            raise ValueError("this task fails")
        while name == "evaluated" and os.environ.get("P2P_EVALUATE") == "during" and not run.has_trained():
            time.sleep(0.2)
        with (run.path / name).open("a") as file:
            file.write(f"{rundir.attempt()}\n")
        return console.DONE

    return stage


if __name__ == "__main__":
    stage_process.train, stage_process.evaluate, stage_process.page = train, note("evaluated"), note("paged")
    # Whatever a job needs of Slurm is done by its batch shell: a process of a run finds none of its commands.
    os.environ["PATH"] = str(Path("/nonexistent"))
    stage_process.run_stage(sys.argv[-2], sys.argv[-1])

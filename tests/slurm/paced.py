"""Stands in for a job's python where a test is about restarts and not about training: the real process of a stage, its
signals, outcome and fence, around a loop that only counts, a step in a tenth of a second, until the file `finish` is in
the run. The "weights" are a digest of the batches so far in their order, so that one missed, doubled or swapped changes them.
The file `plan.json` can let it crash (`crash_at`: {attempt's number: step}) or stop by itself (`stop_at`), and its evaluation
fail or wait.

    PYTHON paced.py -P -m p2p_dist.jobs.stages STAGE RUN
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, os.environ.get("PYTHONPATH", ""))
from p2p_dist import console, files, rundir
from p2p_dist.jobs import stages
from p2p_dist.train.stop import StopFlag


def train(run, settings):
    """Counts on from the newest step that was saved."""
    stop = StopFlag()
    plan = files.read_json(run.path / "plan.json") if (run.path / "plan.json").is_file() else {}
    number = os.environ.get("SLURM_RESTART_COUNT", "0")
    crash_at, stop_at = (plan.get(name, {}).get(number, 10**9) for name in ("crash_at", "stop_at"))
    saved = rundir.find_steps(run.checkpoints)
    step, weights = 0, ""
    if saved:
        step = saved[-1][0]
        weights = files.read_json(saved[-1][1] / "state.pt")["weights"]
    if os.environ["RANK"] == "0":
        rundir.cut_metrics(run, step)
    while True:
        if step >= stop_at or stop or (run.path / "finish").exists():
            break
        if step >= crash_at:
            os._exit(139)
        time.sleep(0.1)
        step += 1
        weights = learn(weights, step)
        if os.environ["RANK"] == "0":
            rundir.check_still_ours()
            rundir.append_metrics(run, {"step": step, "digests": f"batch {step}"})
            if step % 5 == 0:
                save(run, step, weights)
    if os.environ["RANK"] == "0":
        save(run, step, weights)
    return console.DONE if (run.path / "finish").exists() else console.STOPPED


def learn(weights, step):
    """The weights after one more batch."""
    return hashlib.sha256(f"{weights}, batch {step}".encode()).hexdigest()


def undisturbed(steps):
    """The weights after so many steps without any harm."""
    weights = ""
    for step in range(1, steps + 1):
        weights = learn(weights, step)
    return weights


def save(run, step, weights):
    """A checkpoint of nothing but its step and weights, committed as real ones are."""
    if not (run.checkpoints / rundir.step_name(step)).exists():
        with files.new_folder(run.checkpoints / rundir.step_name(step)) as folder:
            (folder / "state.pt").write_text(json.dumps({"step": step, "weights": weights}))


def note(name):
    """A stage that only writes down that it ran."""

    def stage(run, settings):
        plan = files.read_json(run.path / "plan.json") if (run.path / "plan.json").is_file() else {}
        if name == "evaluated" and plan.get("evaluation") == f"task {os.environ['RANK']} fails":
            raise ValueError("this task fails")
        while name == "evaluated" and os.environ.get("P2P_EVALUATE") == "during" and not run.has_trained():
            time.sleep(0.2)
        with (run.path / name).open("a") as file:
            file.write(f"{rundir.attempt()}\n")
        return console.DONE

    return stage


if __name__ == "__main__":
    stages.train, stages.evaluate, stages.page = train, note("evaluated"), note("paged")
    # Whatever a job needs of Slurm is done by its batch shell: a process of a run finds none of its commands.
    os.environ["PATH"] = str(Path("/nonexistent"))
    stages.run_stage(sys.argv[-2], sys.argv[-1])

"""Stands in for a job's python where a test is about restarts and not about training: the real process of a stage, its
signals, outcome and fence, around a loop that only counts, a step in a tenth of a second, until the file `finish` is in
the run. The file `plan.json` can let it crash (`crash_at`: {attempt's number: step}) or stop by itself (`stop_at`).

    PYTHON paced.py -P -m p2p_dist.jobs.stages STAGE RUN
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, os.environ["PYTHONPATH"])
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
    step = saved[-1][0] if saved else 0
    if os.environ["RANK"] == "0":
        rundir.cut_metrics(run, step)
    while True:
        if step >= stop_at or stop or (run.path / "finish").exists():
            break
        if step >= crash_at:
            os._exit(139)
        time.sleep(0.1)
        step += 1
        if os.environ["RANK"] == "0":
            rundir.check_still_ours()
            rundir.append_metrics(run, {"step": step, "digests": f"batch {step}"})
            if step % 5 == 0:
                save(run, step)
    if os.environ["RANK"] == "0":
        save(run, step)
    return console.DONE if (run.path / "finish").exists() else console.STOPPED


def save(run, step):
    """A checkpoint of nothing but its step, committed as real ones are."""
    if not (run.checkpoints / rundir.step_name(step)).exists():
        with files.new_folder(run.checkpoints / rundir.step_name(step)) as folder:
            (folder / "state.pt").write_text(json.dumps(step))


def note(name):
    """A stage that only writes down that it ran."""

    def stage(run, settings):
        if name == "evaluated" and os.environ["RANK"] == "1" and (run.path / "plan.json").is_file():
            raise ValueError("this task fails")
        with (run.path / name).open("a") as file:
            file.write(f"{rundir.attempt()}\n")
        return console.DONE

    return stage


stages.train, stages.evaluate, stages.page = train, note("evaluated"), note("paged")
# Whatever a job needs of Slurm is done by its batch shell: a process of a run finds none of its commands.
os.environ["PATH"] = str(Path("/nonexistent"))
stages.run_stage(sys.argv[-2], sys.argv[-1])

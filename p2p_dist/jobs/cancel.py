"""Stop a run's jobs in order: what waits is dropped, the training saves, and nothing queues itself again."""

from __future__ import annotations

import argparse

from p2p_dist import console, rundir
from p2p_dist.jobs import site, slurm, stages


def main(arguments: list[str]) -> int:
    """What `launch/cancel.py` does; its exit code."""
    parser = argparse.ArgumentParser(prog="launch/cancel.py", description="Stop a run's Slurm jobs in order.")
    parser.add_argument("run", help="name of the run")
    run = rundir.find(parser.parse_args(arguments).run)
    rundir.resolve(run)
    if site.resolve("auto") == "local":
        raise ValueError(f"no Slurm here: a run on this machine is stopped with Ctrl-C where it was started ({run.path})")
    queued = slurm.queued_jobs(run)
    if not queued:
        console.say(f"nothing of the run {run.path.name} is queued")
        return console.DONE
    slurm.forget(run)  # first: a job that stops just now must not come back
    for stage in reversed(stages.STAGES):
        if (job := queued.get(stage)) is None:
            continue
        # A signal reaches the processes of the job alone; its batch shell lives to write down how they ended.
        how = ["--signal=USR2"] if job.state == "RUNNING" else []
        asked = slurm.ask("scancel", *how, job.number)
        if asked.returncode:
            raise OSError(5, asked.stderr.strip(), "scancel")
        console.say(f"{stage}: job {job.number} " + ("asked to save and stop" if how else "dropped"))
    console.say("what was saved is good; to go on, type the launch command again")
    return console.DONE

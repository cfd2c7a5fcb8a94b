"""Queue the chain of jobs of each run: every stage depends on the one before it. A sweep is one array for each stage."""

from __future__ import annotations

from pathlib import Path

from p2p_dist.common import console
from p2p_dist.jobs import site, stages
from p2p_dist.jobs.slurm import commands, launch, sbatch, squeue, sweeps
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config


def queue(launches: list[tuple[RunDir, Config, site.Site]], shown: str) -> int:
    """Queue the stages that are neither done nor queued, each waiting for the previous one, and print their job ids.

    Args:
        shown: the command that shows the state of the runs, for messages.

    Raises:
        OSError: Slurm does not answer, or refused after all.
    """
    runs = [run for run, _, _ in launches]
    plans: list[dict[str, launch.Step]] = []
    for run, settings, place in launches:
        plans.append({step.job.stage: step for step in launch.plan(run, settings, place, squeue.settled_jobs(run))})
        (run.slurm / "cancelled").unlink(missing_ok=True)
        (run.path.parent.parent / "shards").mkdir(exist_ok=True)  # a container is shown it before there are any
    waits = [sweeps.Wait() for _ in runs]  # what the next stage of each run waits for
    renewed: set[int] = set()  # runs of which a stage was queued again, so that their queued jobs depend on a removed job
    makers: dict[Path, tuple[str, RunDir]] = {}
    for stage in stages.STAGES:
        new: list[sweeps.Member] = []
        for number, (run, steps) in enumerate(zip(runs, plans, strict=True)):
            if (step := steps.get(stage)) is None:
                continue
            name, queued = f"{run.name}: " if len(runs) > 1 else "", step.queued
            member = sweeps.Member(number, run, step.job, waits[number])
            stale = queued is not None and queued.state == "PENDING" and (number in renewed or queued.reason == squeue.NEVER)
            if queued is not None and not (stale and _is_gone(stage, queued, member.dependency())):
                whose = f" of the run {queued.other}, with the same shards" if queued.other else ""
                console.say(f"{name}{stage}: already queued, job {queued.number}{whose}")
                waits[number] = sweeps.Wait.of(queued.number)
            elif step.done is not None:
                console.say(f"{name}{stage}: already done ({step.done})")
            elif stage == "preprocess" and run.shards in makers:
                job, maker = makers[run.shards]
                console.say(f"{name}{stage}: already queued, job {job} of the run {maker.path.name}, with the same shards")
                waits[number] = sweeps.Wait(job)
            else:
                for old in run.outcomes(stage):
                    old.unlink()
                renewed.add(number)
                if stage == "preprocess":  # at once, because other runs may need the same shards
                    job = sbatch.submit(step.job)
                    waits[number], makers[run.shards] = sweeps.Wait(job), (job, run)
                else:
                    new.append(member)
        for members in sweeps.arrays(new, launches[0][2]):
            if len(members) == 1:
                (member,) = members
                waits[member.number] = sweeps.Wait(sbatch.submit(member.job.after(member.dependency())))
                continue
            sweeps.record(runs)
            array = sbatch.submit(sweeps.job_of(members, runs), runs)
            for member in members:
                waits[member.number] = sweeps.Wait(array, member.number)
    if not all(step.done for steps in plans for step in steps.values()):
        console.say(f"to follow them: {shown}")
    return console.DONE


def _is_gone(stage: str, waiting: squeue.Queued, dependency: str | None) -> bool:
    """Replace the dependency of a pending job. Returns True if Slurm no longer has the job.

    Raises:
        OSError: the job still waits, and Slurm does not change it, so that another one in its place would be a second one.
    """
    asked = commands.ask("scontrol", "update", f"jobid={waiting.number}", f"dependency={dependency or ''}")
    if asked.returncode == 0:
        return False
    states = {job.number: job.state for job, _ in squeue.everything()}
    if states.get(waiting.number) == "PENDING":
        said = (asked.stderr.strip() or "no reason given").splitlines()[-1]
        text = f"Slurm does not let the {stage} job {waiting.number} wait for another job ({said}); run the same command again"
        raise OSError(5, text, "scontrol")
    return waiting.number not in states

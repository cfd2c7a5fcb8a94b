"""Print what a launch would do: stages, job scripts, settings, largest possible bill. Starts nothing."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from pathlib import Path

from p2p_dist.common import console
from p2p_dist.jobs import begin_run, estimate, fits, site, stages
from p2p_dist.jobs.slurm import bill, elsewhere, launch, specs, squeue, sweeps
from p2p_dist.run import checkpoints, metrics_file, snapshot
from p2p_dist.run.rundir import RunDir
from p2p_dist.run.starts import list_starts
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config, Resources


def dry_run(launches: list[tuple[RunDir, Config, str | None]], where: str) -> None:
    """Print what launches would do, without writing anything. Works without Slurm; with it, shows jobs already queued.

    Args:
        launches: run, settings, and the name of its shards where that is known.

    Raises:
        ValueError: the songs or the saved settings do not fit, or it is more than the site takes.
    """
    has_slurm = where != "local" and site.has_slurm()
    numbers = squeue.jobs_by_tier() if has_slurm else Counter[str]()
    makers: dict[str | None, str] = {}
    together = 0.0
    asked: list[tuple[RunDir, dict[str, specs.Job | sweeps.Wait]]] = []
    for run, wanted, dataset in launches:
        settings = begin_run.check_begin(run, wanted, dataset)
        console.say(f"# run: {run.path}")
        if dataset is not None:
            source = f"songs: {settings.data.root}" if settings.data.shards is None else f"dataset: {settings.data.shards}"
            console.say(f"# {source}\n# shards: {dataset}")
        place = site.load_site("slurm" if where == "local" else where, settings.resources.site)
        if where != "local":
            bill.check_max_gpu_hours(settings.resources, place)
            launch.check_range(run, settings.resources)
            if len(settings.resources.sizes) > 1:
                least, most = settings.resources.sizes
                console.say(
                    f"# nodes: each start of the training gets {least} to {most}, as many as are free; GPU-hours: for {most}"
                )
            _check_images(place, settings.resources, has_slurm)
            _say_site(place, settings.resources, where, run)
        here = site.load_site(where, settings.resources.site)
        for note in fits.check(run, settings, here, where, dataset):
            console.say(f"# note: {note}")
        shards = _shards(run, dataset)
        counts = fits.windows(settings.data, shards)
        if counts.get("train"):
            console.say(f"# {fits.space(run, fits.to_write(run, settings, shards, counts))}")
        steps = launch.plan(run, settings, place, _queued(run) if has_slurm else {}, dataset)
        new = [step for step in steps if step.is_new]
        maker = makers.get(dataset)  # the first run of a sweep makes the shards
        makes_shards = bool(new) and new[0].job.stage == "preprocess"
        other = elsewhere.advice(settings, place) if makes_shards else None
        if other is not None:
            console.say("\n".join(f"# {line}" for line in f"note: {other}".splitlines()))
            new = new[1:]
        elif makes_shards and dataset is not None:
            makers.setdefault(dataset, run.name)
            new = new[1:] if maker else new
        specs.check_limits([step.job for step in new], place, numbers)
        to_queue: dict[str, specs.Job | sweeps.Wait] = {}
        for step in steps:
            stage, word = step.job.stage, "to do"
            if step.done is not None:
                word = f"already done ({step.done})"
            elif step.queued is not None:
                to_queue[stage] = sweeps.Wait.of(step.queued.number)
                word = f"already queued, job {step.queued.number}"
            elif other is not None and stage == "preprocess":
                word = "not by a job of this cluster, see the note"
            elif step not in new:
                to_queue[stage] = sweeps.Wait(f"the preprocess job of {maker}")
                word = f"depends on the preprocess job of {maker}, which makes the same shards"
            else:
                to_queue[stage] = step.job
                word += _where(step.job, place)
            console.say(f"# {stage}: {word}")
        if where == "local":
            console.say(
                "# no Slurm here: these stages would run on this machine; with --cluster slurm these scripts would be queued:"
            )
        asked.append((run, to_queue))
        if len(launches) == 1:
            _say_scripts(asked, place)
        console.say(f"\n##### config.yaml\n{presets.to_yaml(settings)}")
        to_come = [step.job for step in steps if step in new or step.queued is not None]
        together += _say_bill(to_come, settings.resources, place)
        if any(job.stage == "train" for job in to_come):
            say_likely(run, settings, place, counts.get("train"))
    if len(launches) > 1:
        _say_scripts(asked, place)
        console.say(f"# all {len(launches)} runs together: at most {together:.1f} GPU-hours")


def _say_scripts(asked: list[tuple[RunDir, dict[str, specs.Job | sweeps.Wait]]], place: site.Site) -> None:
    """Print the script of each job that `chains.queue` would queue.

    Args:
        asked: run, and for each stage its job to queue, or the job that is queued already.
    """
    runs = [run for run, _ in asked]
    waits = [sweeps.Wait() for _ in runs]
    for stage in stages.STAGES:
        new = []
        for number, (run, to_queue) in enumerate(asked):
            step = to_queue.get(stage)
            if isinstance(step, sweeps.Wait):
                waits[number] = step
            elif step is not None:
                new.append(sweeps.Member(number, run, step, waits[number]))
        for members in sweeps.arrays(new, place):
            first, is_array = members[0], len(members) > 1
            whose = "" if len(runs) == 1 else f" of {len(members)} runs" if is_array else f" of {first.run.name}"
            job = sweeps.job_of(members, runs) if is_array else first.job.after(first.dependency())
            console.say(f"\n##### {stage}.sh{whose}\n{job.script()}")
            for member in members:
                waits[member.number] = sweeps.Wait(f"the {stage} job{whose}", member.number if is_array else None)


def _where(job: specs.Job, place: site.Site) -> str:
    """Describe the tier of a job, and why it is that, where the site's file lists tiers."""
    if not place.tiers or not job.tier.name:
        return ""
    limits = job.tier.limits()
    text = f", in {job.tier.name}{f' ({limits})' if limits else ''}"
    return f"{text}, which is the first that takes it; not in {job.why}" if job.why else text


def _say_site(place: site.Site, resources: Resources, where: str, run: RunDir) -> None:
    """Print what the site's file says for people: where runs belong, and whether anybody has tried it yet."""
    if place.scratch is not None:
        kept = f", where files that are not used for {place.scratch_days} days are removed" if place.scratch_days else ""
        console.say(f"# runs and shards belong on {place.scratch}{kept}; these lie in {run.path.parent}")
    if place.source is None or place.checked is not None:
        return
    file = resources.site or snapshot.where_is(f"hpc/sites/{where}.yaml")
    options = ["--cluster", where, *(["--site", resources.site] if resources.site else [])]
    options += ["--account", resources.account or "PROJECT"] if place.needs_account or resources.account else []
    console.say(
        f"# note: nobody has tried {file} on its cluster yet; its figures are from {place.source}. To try it there:\n"
        f"#   {console.command('check')} preflight {shlex.join(options)}\n"
        "#   sbatch --test-only train.sh     (the script train.sh below, in a file)"
    )


def _shards(run: RunDir, dataset: str | None) -> Path | None:
    return run.path.parent.parent / "shards" / dataset if dataset else None


def say_likely(run: RunDir, settings: Config, place: site.Site, trained: int | None) -> None:
    """Print the likely bill of the training and the speed that it is based on, and suggest a limit.

    Args:
        trained: number of training windows; None if not known.
    """
    rate, resources = bill.gpu_hours_an_hour(settings.resources, place), settings.resources
    if not rate or (trained is None and settings.train.steps is None):
        return
    processes = resources.nodes * place.processes_per_node(resources)
    speed, source = estimate.images_per_second(settings, processes), "estimated for an MI250X die, not measured"
    if run.config.is_file() and (measured := (metrics_file.last(run) or {}).get("images_per_second")):
        before = presets.from_saved(run.config).resources
        last = list_starts(run.slurm / "train" / "attempts")[-1:] if before.least_nodes is not None else []
        nodes = last[0].nodes if last else before.nodes
        speed = measured * processes / (nodes * place.processes_per_node(before))
        source = "measured at the last step of this run"
    steps = settings.train.total_steps(trained or 0) - checkpoints.newest_step(run.checkpoints)
    hours = max(steps, 0) * settings.train.global_batch_size / speed / 3600
    likely = hours * rate
    console.say(
        f"# likely about {likely:.2g} GPU-hours for the training: {steps} steps in {hours:.2g} hours at {speed:.0f} images/s "
        f"({source})"
    )
    if resources.max_gpu_hours is None:
        console.say(f"# to limit what the training can be billed: --max-gpu-hours {max(1, math.ceil(1.5 * likely))}")


def _check_images(place: site.Site, resources: Resources, has_slurm: bool) -> None:
    """Check the images as for a launch, but only print a note if this machine does not belong to the cluster."""
    try:
        place.check_images(resources)
    except ValueError as error:
        if has_slurm or resources.container or resources.overlay:
            raise
        console.say(f"# note: {error}")


def _queued(run: RunDir) -> dict[str, squeue.Queued]:
    try:
        return squeue.queued_jobs(run)
    except OSError as error:
        console.complain(f"note: it is unknown which jobs are already queued: {console.describe(error)}")
        return {}


def _say_bill(asked: list[specs.Job], resources: Resources, place: site.Site) -> float:
    """Print the largest bill of the jobs, stage by stage; return the sum."""
    billed = bill.of_jobs(asked, resources, place)
    total = sum(most for most, _ in billed.values())
    units = f", which is {total * place.billing_per_gpu_hour:.1f} {place.billing_unit}" if place.billing_unit and total else ""
    items = "".join(f"\n#   {stage}: {most:.1f} ({words})" for stage, (most, words) in billed.items())
    nothing = " (none according to the site's file)" if asked and not billed else ""
    console.say(f"# at most {total:.1f} GPU-hours{units}{nothing}{':' if items else ''}{items}")
    return total

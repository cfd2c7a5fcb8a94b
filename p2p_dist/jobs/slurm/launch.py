"""Launch runs as Slurm jobs, on the submit host: decide which stages to queue, check the jobs, queue them, wait for them."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.jobs import begin_run, fits, site, stages
from p2p_dist.jobs.slurm import bill, commands, elsewhere, sbatch, specs, squeue
from p2p_dist.run import rundir, snapshot
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config, Data, Resources


@dataclass(frozen=True)
class Step:
    """One stage of a launch: already done, already queued in Slurm, or a job to queue."""

    job: specs.Job
    done: str | None = None
    queued: squeue.Queued | None = None

    @property
    def is_new(self) -> bool:
        return self.done is None and self.queued is None


def plan(
    run: RunDir, settings: Config, place: site.Site, queued: dict[str, squeue.Queued], dataset: str | None = None
) -> list[Step]:
    """Plan what a launch of a run would do, stage by stage, without asking Slurm or writing.

    Args:
        queued: its jobs in Slurm. dataset: name of its shards, if the run is new or will use other shards.
    """
    begun = run.config.is_file() and run.dataset.is_file()
    as_before = begun and dataset in (None, run.shards.name)
    found: list[Step] = []
    for job in specs.jobs(run, settings, place):
        done = None
        if job.stage == "train" and begun:  # `begin_run.check_begin` compares the training songs
            done = stages.is_done("train", run)
        elif all(step.done for step in found):  # stages after a new one are repeated
            if job.stage == "preprocess" and not queued and stages.asks_address(run, settings.data):
                pass  # in the job
            elif as_before:
                done = stages.is_done(job.stage, run)
            elif job.stage == "preprocess" and dataset is not None:
                done = stages.is_preprocessed(run.path.parent.parent / "shards" / dataset, False, settings.data)
        found.append(Step(job, None if job.stage in queued else done, queued.get(job.stage)))
    return found


def check_launches(launches: list[tuple[RunDir, Config, str | None]], where: str) -> None:
    """Check all jobs of the launches with the site's file and with Slurm, before anything is written or queued.

    Args:
        launches: run, settings, and the name of its shards where that is known.

    Raises:
        ValueError: one would be refused, or all together are too many.
        OSError: Slurm does not answer.
    """
    numbers: Counter[str] | None = None
    looked_at, making = set(), set()
    for run, wanted, dataset in launches:
        place = site.load_site(where, wanted.resources.site)
        check_account(place, place.account_of(("all", "gpu", "train"), site.account(wanted.resources)))
        place.check_images(wanted.resources)
        elsewhere.check_architecture(wanted.resources, place, place.architecture)
        bill.check_max_gpu_hours(wanted.resources, place)
        check_range(run, wanted.resources)
        settings = begin_run.check_begin(run, wanted, dataset)
        queued = squeue.settled_jobs(run)
        check_not_queued(run, dataset, queued)
        for note in fits.check(run, settings, place, where, dataset):
            console.say(f"note: {note}")
        new = [step.job for step in plan(run, settings, place, queued, dataset) if step.is_new]
        if dataset in making:  # a job of an earlier run in this list makes it
            new = [job for job in new if job.stage != "preprocess"]
        making.add(dataset)
        if any(job.stage == "preprocess" for job in new) and (said := elsewhere.advice(settings, place)):
            raise ValueError(f"{said}; nothing was queued")
        if numbers is None:
            numbers = squeue.jobs_by_tier() if place.limits_jobs else Counter()
        specs.check_limits(new, place, numbers)
        for job in new:
            like = (job.stage, job.array, *(str(job.options.get(name)) for name in SHAPE))
            if like not in looked_at:
                sbatch.check(job)
            looked_at.add(like)


def check_range(run: RunDir, resources: Resources) -> None:
    """Check that the run's copy of the code knows jobs whose number of nodes changes.

    Raises:
        ValueError: it is of an earlier version.
    """
    if len(resources.sizes) > 1 and not knows_ranges(run):
        raise ValueError(
            f"the copy of the code in {run.name} is of an earlier version, which trains on a fixed number of nodes: "
            "name one number with --nodes; nothing was queued"
        )


def knows_ranges(run: RunDir) -> bool:
    """Whether the run's copy of the code, if there is one, knows jobs whose number of nodes changes."""
    job = run.code / "hpc" / "job.sh"
    return not job.is_file() or "P2P_NODES" in job.read_text(encoding="utf-8", errors="replace")


def check_not_queued(run: RunDir, dataset: str | None, queued: dict[str, squeue.Queued]) -> None:
    """Check that jobs which are queued or running still find their shards.

    Raises:
        ValueError: the songs have changed since.
    """
    ours = [f"{stage}: job {job.number}" for stage, job in queued.items() if job.other is None]
    if ours and dataset is not None and run.dataset.is_file() and run.read_dataset() != dataset:
        raise ValueError(
            f"the songs changed, and jobs of the run {run.name} are queued for the earlier songs "
            f"({', '.join(ours)}): wait until they end, or cancel them with {console.command('cancel')} {run.name}; "
            "then run this command again; nothing was queued"
        )


SHAPE = ("account", "partition", "time", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "exclusive")
"""Settings for which Slurm accepts or rejects a job; the others follow from the site."""


def check_account(place: site.Site, account: str | None) -> None:
    """Check that a project is named if the site requires one.

    Raises:
        ValueError: none is; names those of this user.
    """
    if place.needs_account and account is None:
        raise ValueError(f"this cluster requires a project: name one with --account ({squeue.your_accounts()})")


def check_gpus(resources: Resources, place: site.Site) -> None:
    """Check that a site without GPUs is intended if the cluster has GPUs.

    Raises:
        ValueError: it may not be; says what to name.
    """
    if place.gpus_per_node or shutil.which("sinfo") is None:
        return
    partition = place.tier("train", resources)[0].partition
    asked = commands.ask("sinfo", "--noheader", "--format=%R %G", *(["--partition", partition] if partition else []))
    with_gpus = sorted({line.split()[0] for line in asked.stdout.splitlines() if re.search(r"\bgpu\b", line)})
    if with_gpus:
        file = resources.site or snapshot.where_is("hpc/sites/slurm.yaml")
        raise ValueError(
            f"this cluster has GPUs (partition {', '.join(with_gpus)}), and {file} asks for none: training would run on "
            f"{place.cores_per_process} cores of a node. Copy that file, set gpus_per_node and partition, and name "
            "it with --site; or name a cluster with a file in hpc/sites, as --cluster lumi. To train without GPUs: "
            "--yes"
        )


def queue_check(job: specs.Job, place: site.Site, dependency: str | None = None) -> str:
    """Queue one job of a check that starts once `dependency` holds; return its id.

    Raises:
        ValueError: no account where one is needed, or Slurm would refuse it.
        OSError: Slurm does not answer, or refused after all.
    """
    check_account(place, job.options.get("account"))
    specs.check_limits([job], place, Counter())
    sbatch.check(job)
    return sbatch.submit(job.after(dependency))


def preprocessing(datasets: list[tuple[str, Data]], preset: str, resources: Resources) -> list[tuple[RunDir, Config]]:
    """Return name and settings of the runs that launch/preprocess.py queues, one for each dataset."""
    found = []
    for name, data in datasets:
        run = rundir.find(stages.PREPROCESS_RUN + name)
        base = presets.from_saved(run.config) if run.config.is_file() else presets.for_data(preset, asdict(data))
        # Songs that are both held out and training songs are only recorded here; the evaluation refuses them.
        evaluate = replace(base.evaluate, allow_overlap=True)
        found.append((run, replace(base, data=data, evaluate=evaluate, resources=replace(resources, evaluate="never"))))
    return found


def queue_preprocessing(runs: list[tuple[RunDir, Config]], place: site.Site, *, dry_run: bool) -> None:
    """Queue the preprocessing of each run that is neither done nor queued. Print the job ids. Queue all jobs or none.

    Args:
        dry_run: print the scripts instead; Slurm is not asked.

    Raises:
        ValueError: one would be refused, or a run of this name has other settings; before anything is written or queued.
        OSError: Slurm does not answer, or refused after all.
    """
    new: list[tuple[RunDir, Config, str, specs.Job]] = []
    listed = None if dry_run else squeue.everything()
    for run, wanted in runs:
        name = run.name.removeprefix(stages.PREPROCESS_RUN)
        settings, shards = begin_run.check_begin(run, wanted, name), run.path.parent.parent / "shards" / name
        (job,) = specs.jobs(run, settings, place, ("preprocess",))
        if (done := stages.is_preprocessed(shards, False, settings.data)) is not None:
            console.say(f"{shards}: already done ({done})")
        elif makers := [] if listed is None else squeue.makers(shards, listed):
            maker, queued = makers[0]
            console.say(f"{shards}: already queued, job {queued.number} of the run {maker.path.name}")
        elif dry_run:
            console.say(f"# shards: {shards}\n{job.script()}")
        else:
            new.append((run, settings, name, job))
    if new:
        account, resources = new[0][3].options.get("account"), new[0][1].resources
        elsewhere.check_architecture(resources, place, place.cpu_architecture or place.architecture)
        if place.cpu_cluster is not None:
            raise ValueError(f"{elsewhere.advice(new[0][1], place)}; nothing was queued")
        check_account(place, account)
        place.check_images(resources)
        specs.check_limits([job for *_, job in new], place, squeue.jobs_by_tier() if place.limits_jobs else Counter())
        for *_, job in new:
            sbatch.check(job)
    for run, wanted, name, job in new:
        with closing(rundir.lock_run(run)):
            begin_run.begin(run, wanted, name)
            (run.slurm / "cancelled").unlink(missing_ok=True)
            (run.path.parent.parent / "shards").mkdir(exist_ok=True)  # a container is shown it before there are any
            for old in run.outcomes("preprocess"):
                old.unlink()
            sbatch.submit(job)
        console.say(f"to follow it: {console.command('status')} {run.name}; its shards: {run.shards}")


def queue_generation(
    run: RunDir, wanted: Config, asked: dict[str, Any], reached: Sequence[Path], place: site.Site, *, dry_run: bool
) -> None:
    """Queue the jobs that generate stems for songs, unless they are queued already, and print the job id.

    Args:
        asked: see `schemas.SONGS`. reached: folders that the jobs read and write. dry_run: print the script instead.

    Raises:
        ValueError: Slurm would refuse it; before anything is written or queued.
        OSError: Slurm does not answer, or refused after all.
    """
    settings = begin_run.check_begin(run, wanted, stages.GENERATE)
    (job,) = specs.jobs(run, settings, place, (stages.GENERATE,), reached)
    if dry_run:
        console.say(job.script())
        return
    if (queued := squeue.settled_jobs(run).get(stages.GENERATE)) is not None:
        console.say(f"already queued, job {queued.number}; to follow it: {console.command('status')} {run.name}")
        return
    check_account(place, job.options.get("account"))
    place.check_images(settings.resources)
    specs.check_limits([job], place, squeue.jobs_by_tier() if place.limits_jobs else Counter())
    sbatch.check(job)
    with closing(rundir.lock_run(run)):
        begin_run.begin(run, wanted, stages.GENERATE)
        files.remove_tree(run.made)
        records.write(run.songs, schemas.SONGS, asked)
        run.made.mkdir()
        (run.slurm / "cancelled").unlink(missing_ok=True)
        (run.path.parent.parent / "shards").mkdir(exist_ok=True)  # a container is shown it before there are any
        for old in run.outcomes(stages.GENERATE):
            old.unlink()
        sbatch.submit(job)
    console.say(f"to follow it: {console.command('status')} {run.name}")


def wait(run: RunDir, every: float = 5.0) -> int:
    """Print changes of the queued jobs until none is left.

    Returns:
        the exit code: 0 all stages are done, 75 one stopped cleanly, 1 one failed or was cancelled.
    """
    before: dict[str, str] = {}
    away = False
    while True:
        try:
            queued = squeue.queued_jobs(run)
        except OSError as error:
            if not away:
                console.complain(f"{console.describe(error)}; asking again")
            away = True
        else:
            away = False
            now = {stage: f"{stage}: {job.state.lower()}, job {job.number}" for stage, job in queued.items()}
            for stage, text in now.items():
                if before.get(stage) != text:
                    console.say(text)
            before = now
            if not queued:
                break
        time.sleep(every)
    left = [stage for stage in stages.STAGES if stages.is_done(stage, run) is None]
    if not left:
        console.say(stages.last_lines(run))
        return console.DONE
    outcome = run.read_outcome(left[0])
    if outcome is not None and outcome["outcome"] == "stopped":
        console.say(f"{left[0]} stopped cleanly; to resume, run the same command again")
        return console.STOPPED
    because = outcome["message"] if outcome is not None else ""
    console.complain(f"error: {left[0]} did not finish{': ' + because if because else ''}; its logs: {run.slurm / left[0]}")
    return console.FAILED

"""Start the preflight and report its results: one short job, started like a training, that checks everything it needs.

What each process of that job checks is in ranks.py.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

from p2p_dist.checks.folder import check_folder
from p2p_dist.checks.report import FAILED, NONE, OK, Finding, report
from p2p_dist.common import console, files, records
from p2p_dist.jobs import begin_run, child, packages, site
from p2p_dist.jobs.slurm import commands, launch, specs, squeue
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config, Resources


def preflight(resources: Resources, songs: Path | None) -> int:
    """Run the check where a training of these resources would run, and print what it found.

    Returns:
        exit code: 0 nothing failed, 1 something did.

    Raises:
        ValueError: Slurm would refuse the job, an account is missing, or another preflight is queued or running.
        OSError: Slurm does not answer.
    """
    where = site.resolve_cluster(resources.cluster)
    place = site.load_site(where, resources.site)
    resources = dataclasses.replace(resources, max_requeues=0, max_crash_restarts=0)
    tiny = presets.preset("tiny")
    data = dataclasses.replace(tiny.data, root=str(songs) if songs else None)
    settings = dataclasses.replace(tiny, resources=resources, data=data)
    if where == "local":
        packages.check_packages()
        if songs is not None and not songs.is_dir():
            raise ValueError(f"no folder {songs}: --data must name the folder of songs to train on")
    else:
        try:
            place.check_images(resources)
        except ValueError as error:
            return report([Finding("image", FAILED, str(error), "nothing was queued: the job needs it")])
    with check_folder("preflight") as root:
        run = RunDir(root / "runs" / "preflight")
        begin_run.begin(run, settings, "none")
        run.results.mkdir()
        files.write_json(run.results / "plan.json", {"gpus": 0 if where == "local" else place.gpus_per_node})
        return report(on_this_machine(run) if where == "local" else _on_slurm(run, settings, place))


def on_this_machine(run: RunDir) -> list[Finding]:
    """Run the check on this machine, without Slurm."""
    resources = rundir.read_settings(run).resources
    size = resources.nodes * site.load_site("local", resources.site).processes_per_node(resources)
    log = run.logs / "preflight.log"
    process = child.start("preflight", run, f"preflight.{os.getpid()}", log)
    asked = False
    while process.poll() is None:
        if not asked and len(list(run.results.glob("listening-*"))) == size:
            asked = True
            process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
    found = merge(run, size, log.read_text(errors="replace"))
    return [
        *found,
        Finding("image", NONE, "no container is used on this machine"),
        Finding("requeue", NONE, "Slurm was not found"),
    ]


def _on_slurm(run: RunDir, settings: Config, place: site.Site) -> list[Finding]:
    """Queue the job, wait for its end, and send it a signal when its processes are ready."""
    resources = settings.resources
    (job,) = specs.jobs(run, settings, place, ("preflight",))
    size = resources.nodes * place.processes_per_node(resources)
    number = launch.queue_check(job, place)
    about = commands.ask("scontrol", "--oneliner", "show", "job", number).stdout
    asked, before, begun = False, "", time.monotonic()
    while number in (states := squeue.job_states()):
        if states[number] != before:
            before = states[number]
            console.say(f"preflight: {before}, job {number}")
        if not asked and len(list(run.results.glob("listening-*"))) == size:
            asked = True
            commands.ask("scancel", "--signal=USR2", number)
        time.sleep(squeue.patience([before], begun))
    logs = [*run.slurm.glob("preflight/*_log.out"), *run.slurm.glob("preflight/*.out")]
    found = merge(run, size, "\n".join(path.read_text(errors="replace") for path in sorted(set(logs))))
    image = place.image(resources)
    if image is None:
        found.insert(0, Finding("image", NONE, "no container is requested"))
    elif not any(one.check in ("image", "binds", "runtime", "overlay") for one in found):
        found.insert(0, Finding("image", OK, f"{image}, {len(place.container_binds)} further binds of the site"))
    if not place.requeue:
        requeue = Finding("requeue", NONE, "the site does not requeue jobs: a new job continues in place of the old one")
    elif "Requeue=1" in about:
        requeue = Finding("requeue", OK, "Slurm may requeue the job")
    else:
        todo = "write requeue: false into the site's file: a new job then continues in place of the old one"
        requeue = Finding("requeue", FAILED, "Slurm does not requeue the job (Requeue=0)", todo)
    return [*found, requeue]


def merge(run: RunDir, size: int, log: str) -> list[Finding]:
    """Merge the findings of all processes: for each check the first failure. A process without findings is a failure."""
    finding = dict.fromkeys(("check", "state", "found", "todo?"), str)
    left = [records.read(path, [finding]) for path in sorted(run.results.glob("rank-*.json"))]
    everyone = [[Finding(one["check"], one["state"], one["found"], one.get("todo", "")) for one in own] for own in left]
    found: list[Finding] = []
    if len(everyone) < size:
        found.append(_not_started(size - len(everyone), size, log, run))
    checks = dict.fromkeys(one.check for own in everyone for one in own)
    for check in checks:
        own = [one for findings in everyone for one in findings if one.check == check]
        bad = [one for one in own if one.state == FAILED]
        if bad and len(bad) < size:
            found.append(dataclasses.replace(bad[0], found=f"{bad[0].found} ({len(bad)} of {size} processes)"))
        else:
            found.append(bad[0] if bad else own[0])
    return found


IMAGE_WORDS = ("image format not recognized", "bad superblock", "squashfs", "while opening image", "image driver", "SIF")
"""Singularity's messages for an unusable image."""


def _not_started(missing: int, size: int, log: str, run: RunDir) -> Finding:
    """Find in the logs why processes left no findings."""
    who = f"{missing} of {size} processes: "
    if refused := re.search(r"^error: (\S+): (runtime|image|overlay|bind): (.*)$", log, re.MULTILINE):
        host, what, why = refused.groups()
        return Finding("binds" if what == "bind" else what, FAILED, f"{who}{host}: {why}", "then run this check again")
    fatal = [line for line in log.splitlines() if line.startswith(("FATAL", "ERROR"))]
    if any(word in line for line in fatal for word in IMAGE_WORDS):
        return Finding("image", FAILED, f"{who}{fatal[0]}", "the image is incomplete: copy it or build it again")
    told = [line for line in log.splitlines() if line.strip() and not line.startswith("preflight ")]  # hpc/decide_next.sh's
    last = fatal or told or ["nothing in their logs"]
    return Finding("start", FAILED, f"{who}{last[-1]}", f"its logs: {run.slurm if run.slurm.is_dir() else run.logs}")

"""The state of a run: stages, attempts, progress and cost, read from its files and from Slurm."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2p_dist.common import console
from p2p_dist.data import manifest
from p2p_dist.jobs import site, stage_state, stages
from p2p_dist.jobs.slurm import bill, commands, reasons, squeue
from p2p_dist.run import checkpoints, energy, metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.run.starts import Start, list_starts
from p2p_dist.settings import config
from p2p_dist.settings.resources import sizes_in_words


def attempts(run: RunDir) -> list[Start]:
    """List all starts of the training on Slurm, oldest first."""
    return list_starts(run.slurm / "train" / "attempts")


def killed(one: Start, run: RunDir) -> Start:
    """Complete a start without a recorded end. It is assumed to have run until the training last reported its progress."""
    trained = checkpoints.find(run.checkpoints)
    saved = trained[-1].saved if trained else 0.0
    path = run.metrics
    with contextlib.suppress(OSError, ValueError):
        if (told := run.read_status()) is not None and told["what"] == "train":  # other stages write it, too
            path = run.status
    seen = path.stat().st_mtime if path.is_file() else 0.0
    return one._replace(ended=max(one.begun, seen), saved=saved, why="killed")


class Around:
    """State that several runs share, queried once for all of them.

    jobs: all that Slurm has of this user; None: there is no Slurm here, or it does not answer, and `unknown` says why.
    """

    def __init__(self) -> None:
        self.jobs: list[tuple[squeue.Queued, str]] | None = None
        self.unknown: str | None = None
        self.site = functools.cache(site.load_site)
        self.look = functools.cache(stages.look)
        self.starts = functools.cache(reasons.expected_starts)
        if shutil.which("squeue") is not None and site.has_slurm():
            try:
                self.jobs = squeue.everything()
            except OSError as error:
                self.unknown = console.describe(error)


def gather(run: RunDir, around: Around | None = None) -> dict[str, Any]:
    """Collect the content of `--json`.

    Args:
        around: state that several runs share, if several are gathered.

    Raises:
        ValueError: there is no such run.
    """
    settings = rundir.read_settings(run)
    alone, around = around is None, Around() if around is None else around
    queued = None if around.jobs is None else squeue.queued_jobs(run, around.jobs)
    shards = around.look(run.shards)
    last = metrics_file.last(run) or {}
    total = _total(shards, settings.train)
    step, rate = last.get("step", 0), last.get("images_per_second")
    left = (total - step) * settings.train.global_batch_size / rate if total is not None and rate and rate > 1e-9 else None
    trained = rundir.find_steps(run.checkpoints)
    tried, now = attempts(run), time.time()
    begun = sorted([*tried, *list_starts(run.attempts("train"))], key=lambda one: one.begun)
    running = queued is None or ("train" in queued and queued["train"].state == "RUNNING")  # assume so if it is not known
    if tried and tried[-1].ended is None and not running:
        tried[-1] = killed(tried[-1], run)
    where, wrong = settings.resources.cluster, around.unknown and f"Slurm does not answer: {around.unknown}"
    place = site.Site()
    try:
        place = around.site("slurm" if where in ("auto", "local") else where, settings.resources.site)
    except ValueError as error:  # the site's file was moved: only the bill is unknown
        wrong = str(error)

    def hours(seconds: float, nodes: int, rate: float = 0.0) -> float:
        return seconds / 3600 * (nodes * rate or bill.gpu_hours_an_hour(settings.resources, place, nodes))

    used = sum(hours(one.seconds(now), one.nodes, one.rate) for one in tried)
    by_gpus = energy.told_by_gpus(run)
    asks_sacct = alone and place.takes_whole_nodes("train", settings.resources)
    joules, told_by = (_ask_sacct(tried), "Slurm's accounting") if asks_sacct else (None, "")
    if joules is None and by_gpus:
        joules, told_by = by_gpus[-1][1], "the GPUs"
    # The speed was measured on the nodes of the last start.
    on_nodes = tried[-1].nodes if tried and settings.resources.least_nodes is not None else settings.resources.nodes
    stage_states = {stage: stage_state.state(stage, run, queued, settings.resources, shards) for stage in stages.of(run)}
    most = settings.resources.max_gpu_hours
    if stage_states.get("train") == "stopped" and most is not None and used >= most:
        stage_states["train"] = f"stopped: its GPU-hours are used up (--max-gpu-hours {most:g})"
    return {
        "run": run.name,
        "path": str(run.path),
        "slurm": around.unknown,
        "wrong": wrong,
        "stages": stage_states,
        "waiting": _waiting(queued or {}, around),
        "attempt": begun[-1].name if begun else None,
        "attempts": len(begun),
        "nodes": {
            "wanted": sizes_in_words(settings.resources.sizes),
            "starts": [{"attempt": one.name, "nodes": one.nodes, "seconds": one.seconds(now)} for one in tried],
        },
        "step": step,
        "total": total,
        "images_per_second": rate,
        "l1": last.get("l1"),
        "memory": last.get("memory"),
        "checkpoint": checkpoints.newest_step(run.checkpoints) or None,
        "evaluated": len(rundir.find_steps(run.evaluations)),
        "to_evaluate": sum((path / "generator.safetensors").is_file() for _, path in trained),
        "seconds_left": left,
        "gpu_hours": {
            "used": used,
            "lost": sum(hours(one.lost(), one.nodes, one.rate) for one in tried),
            "predicted": used + hours(left, on_nodes) if left is not None else None,
            "estimated": sum(one.why == "killed" for one in tried),
        },
        "energy": {"kwh": None if joules is None else joules / 3.6e6, "told_by": told_by if joules is not None else None},
        "costs": _costs(trained, tried, now, hours, by_gpus),
        "best": run.read_best(),
    }


def _costs(
    trained: list[tuple[int, Path]],
    tried: list[Start],
    now: float,
    hours: Callable[[float, int, float], float],
    by_gpus: list[tuple[int, float]],
) -> list[dict[str, Any]]:
    """List what the training had cost when each checkpoint was saved.

    Args:
        trained: steps, each with its checkpoint. hours: converts seconds, nodes and `Start.rate` to
            GPU-hours.
        by_gpus: steps, each with the energy up to it (J).
    """
    costs = []
    for at, path in trained:
        until = checkpoints.Checkpoint(path, at).saved
        spent = sum(hours(min(one.seconds(now), until - one.begun), one.nodes, one.rate) for one in tried if one.begun < until)
        kwh = max((total for step, total in by_gpus if step == at), default=None)
        costs.append({"step": at, "gpu_hours": spent, "kwh": None if kwh is None else kwh / 3.6e6})
    return costs


def _waiting(queued: dict[str, squeue.Queued], around: Around) -> dict[str, dict[str, Any]]:
    """Map stage -> why its job waits, and when Slurm expects it to start (seconds since 1970; None: not known)."""
    found: dict[str, dict[str, Any]] = {}
    for stage, job in queued.items():
        if job.state == "PENDING":
            start = around.starts().get(job.number)
            found[stage] = {"reason": job.reason, "why": reasons.why(job.reason, start), "start": start}
    return found


def _ask_sacct(tried: list[Start]) -> float | None:
    """Ask Slurm's accounting for the energy of all starts of a training (J); None if it does not tell it."""
    numbers = sorted({found[0] for one in tried if (found := re.match("[0-9]{1,18}", one.name)) is not None})
    if not numbers or shutil.which("sacct") is None:
        return None
    words = (
        "--duplicates",
        "--noheader",
        "--parsable2",
        "--format=JobIDRaw,State,ConsumedEnergyRaw",
        f"--jobs={','.join(numbers)}",
    )
    try:
        asked = commands.ask("sacct", *words)
    except OSError:
        return None
    return energy.told_by_sacct(asked.stdout, numbers) if asked.returncode == 0 else None


def _total(shards: stages.Shards | None, train: config.Train) -> int | None:
    if train.steps is not None:
        return train.steps
    part = shards.content["splits"].get("train") if shards is not None else None
    return train.total_steps(manifest.windows(part)) if part else None


def gather_each(asked: list[RunDir], around: Around | None = None) -> list[dict[str, Any]]:
    """Call `gather` for several runs; for one that cannot be read, return its name and the error in `wrong`."""
    found, around = [], Around() if around is None else around
    for run in asked:
        try:
            found.append(gather(run, around))
        except (ValueError, OSError) as error:
            wrong = console.describe(error) if isinstance(error, OSError) else str(error)
            found.append({"run": run.name, "path": str(run.path), "wrong": wrong})
    return found

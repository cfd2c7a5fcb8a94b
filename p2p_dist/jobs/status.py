"""The state of a run: stages, attempts, progress and cost, read from its files and from Slurm."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2p_dist.common import console
from p2p_dist.data import manifest
from p2p_dist.jobs import site, stages
from p2p_dist.jobs.slurm import bill, commands, reasons, squeue
from p2p_dist.run import checkpoints, energy, metrics_file, rundir
from p2p_dist.run.lock import owner_of
from p2p_dist.run.rundir import RunDir
from p2p_dist.run.starts import SAME_PLACE, Start, count, list_starts
from p2p_dist.settings import config
from p2p_dist.settings.resources import sizes_in_words

if TYPE_CHECKING:
    from rich.table import Table


LISTED = 8
"""Checkpoints whose cost the table of one run shows."""


def attempts(run: RunDir) -> list[Start]:
    """List all starts of the training on Slurm, oldest first."""
    return list_starts(run.slurm / "train" / "attempts")


def killed(one: Start, run: RunDir) -> Start:
    """Complete a start without a recorded end. It is assumed to have run until the last update of status.json."""
    trained = rundir.find_steps(run.checkpoints)
    saved = trained[-1][1].stat().st_mtime if trained else 0.0
    seen = run.status.stat().st_mtime if run.status.is_file() else 0.0
    return one._replace(ended=max(one.begun, seen), saved=saved, why="killed")


def state(
    stage: str,
    run: RunDir,
    queued: dict[str, squeue.Queued] | None,
    resources: config.Resources,
    shards: stages.Shards | None = None,
) -> str:
    """Return the state of a stage in words: done, running, pending (why), stopped (why), failed, to do.

    Args:
        queued: the run's jobs in Slurm; None if not known. resources: how often it may be restarted.
        shards: those of the run, where they have been looked at.
    """
    if stage != "preprocess" and stages.is_shards_only(run):
        return stages.SHARDS_ONLY
    if (found := stages.is_done(stage, run, shards, content=False)) is not None:
        return found if found == stages.NOT_ASKED else "done"
    if queued is not None and stage in queued:
        job = queued[stage]
        waits = f" ({job.reason})" if job.state == "PENDING" and job.reason != "None" else ""
        never = ": a job that it depends on failed; run the launch command again" if job.reason == squeue.NEVER else ""
        return f"{job.state.lower()}{waits}, job {job.number}" + (f" of the run {job.other}" if job.other else "") + never
    here = list_starts(run.attempts(stage))[-1:]
    owner = owner_of(run.path)
    if owner is not None and (running := _running_here(stage, run, here, owner)) is not None:
        return running
    outcome = run.read_outcome(stage)
    when = ""
    if outcome is not None and here and outcome["attempt"] == here[0].name and here[0].ended is not None:
        when = f" {_clock(here[0].ended)}" + (f" at step {outcome['step']}" if stage == "train" and outcome["step"] else "")
    if outcome is not None and outcome["outcome"] == "failed":
        return f"failed{when}: {outcome['message']}" if outcome["message"] else f"failed{when}"
    if queued is not None and outcome is None and (number := _dropped(stage, run)):
        failed = "a job that it depended on failed; run the launch command again"
        return (
            f"removed from the queue before it started, job {number}: "
            f"{'cancelled' if (run.slurm / 'cancelled').exists() else failed}"
        )
    # Each task of an array has its own counts (hpc/job.sh).
    logs = [*sorted((run.slurm / stage).glob("attempts*")), run.attempts(stage)]
    if why := next((why for log in logs if (why := _held_back(log, resources.max_requeues))), None):
        return f"stopped: {why}; see {run.slurm / stage if (run.slurm / stage).is_dir() else run.logs}"
    last = [tried[-1] for log in logs[:-1] if (tried := list_starts(log))]
    ended_well = outcome is None or outcome["outcome"] == "done"  # as far as the attempts recorded it
    if ended_well and (bad := [one for one in last if one.why in ("crash", "failed")]):
        code = max(bad, key=lambda one: one.begun).code
        what = {"255": "the container did not start", "1": "failed"}.get(str(code), "crashed")  # 255 is Singularity's own
        return f"{what} (exit code {code}), see {run.slurm / stage}"
    if (outcome is not None and outcome["outcome"] == "stopped") or any(one.why == "stopped" for one in last):
        said = outcome["message"] if outcome is not None else ""
        why = said or ("cancelled" if (run.slurm / "cancelled").exists() else "")
        return f"stopped{when}: {why}" if why else f"stopped{when}"
    if queued is not None and (left := [one for one in last if one.ended is None]):
        return f"killed or cancelled (attempt {left[-1].name})"
    if here and (outcome is None or not last):
        return _ended_here(here[0], run)
    return "to do"


def _dropped(stage: str, run: RunDir) -> str | None:
    """Return the newest job of a stage if it left the queue without starting, as jobs that depend on a failed job do."""
    found = (
        (re.fullmatch(r"([0-9]{1,18}(?:_[0-9]{1,9})?)_submission\.sh", path.name), path)
        for path in (run.slurm / stage).glob("*.sh")
    )
    submitted = [(int(name[1].partition("_")[0]), name[1], path) for name, path in found if name is not None]
    if not submitted:
        return None
    _, number, script = max(submitted)
    for log in (run.slurm / stage).glob("attempts*"):
        lines = log.read_text(encoding="utf-8", errors="replace")
        # Parts of an array have numbers of their own.
        is_part = log.name != "attempts" and log.stat().st_mtime >= script.stat().st_mtime
        if is_part or re.search(rf"^(launch|start) {number}\b", lines, re.MULTILINE):
            return None
    return number


def _running_here(stage: str, run: RunDir, here: list[Start], owner: dict[str, Any]) -> str | None:
    """Describe a stage that runs on one machine: host and progress; None if it does not run."""
    now = run.read_status()
    mine = now is not None and now["what"] in _TOLD.get(stage, (stage,))
    if here and here[0].ended is None:
        since = f" since {_clock(here[0].begun)}"
        # The status of an earlier start is not the progress of this one.
        told = now if mine and run.status.stat().st_mtime >= here[0].begun else None
    elif mine and not any(one.ended is None for other in stages.STAGES for one in list_starts(run.attempts(other))[-1:]):
        since, told = "", now  # started by launch/evaluate.py, which does not record its starts
    else:
        return None
    elsewhere = owner.get("host", socket.gethostname()) != socket.gethostname()
    where = f"running on {owner['host']}" if elsewhere else "running on this machine"
    far = f", {told['what']} {told['done']} of {told['total']}" if told is not None and told.get("total") else ""
    return f"{where}{since}{far}"


_TOLD = {"evaluate": ("evaluate", "baselines")}
"""Further names of a stage in status.json."""


def _ended_here(last: Start, run: RunDir) -> str:
    """Describe how the last start of a stage on this machine ended."""
    if last.ended is None:
        return f"killed: started {_clock(last.begun)}, its end was not recorded; see {run.logs}"
    when = _clock(last.ended)
    if last.why == "stopped":
        return f"stopped{' at once' if last.code == str(console.INTERRUPTED) else ''} {when}"
    if last.why == "done":
        return "to do"  # it was done, but one of its files is missing
    return f"{'failed' if last.why == 'failed' else 'crashed'} (exit code {last.code}) {when}; see {run.logs}"


def _clock(seconds: float) -> str:
    """Format a time for messages, without the date if it is today."""
    then = time.localtime(seconds)
    return time.strftime("%H:%M" if then[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", then)


def _held_back(log: Path, max_requeues: int) -> str | None:
    """Return why an unfinished stage was not restarted, by the rules of jobs/slurm/batch.py; None if it may start."""
    counts, all_starts = count(log), list_starts(log)
    why = all_starts[-1].why if all_starts else None
    if counts.same >= SAME_PLACE and why in (None, "failed"):
        return f"started {counts.same + (counts.open is not None)} times from the same place ({counts.began}) without progress"
    again = counts.starts - 1
    if again > max_requeues or (again == max_requeues and why == "stopped"):
        return f"restarted {min(again, max_requeues)} times (--max-requeues): run the launch command again to resume"
    return None


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
        if shutil.which("squeue") is not None and site.resolve_cluster("auto") != "local":
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
    left = (total - step) * settings.train.global_batch_size / rate if total is not None and rate else None
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

    def hours(seconds: float, nodes: int) -> float:
        return seconds / 3600 * bill.gpu_hours_an_hour(settings.resources, place, nodes)

    used = sum(hours(one.seconds(now), one.nodes) for one in tried)
    by_gpus = energy.told_by_gpus(run)
    asks_sacct = alone and place.takes_whole_nodes("train", settings.resources)
    joules, told_by = (_ask_sacct(tried), "Slurm's accounting") if asks_sacct else (None, "")
    if joules is None and by_gpus:
        joules, told_by = by_gpus[-1][1], "the GPUs"
    costs = []
    for at, path in trained:
        until = path.stat().st_mtime
        spent = sum(hours(min(one.seconds(now), until - one.begun), one.nodes) for one in tried if one.begun < until)
        kwh = max((total for step_, total in by_gpus if step_ == at), default=None)
        costs.append({"step": at, "gpu_hours": spent, "kwh": None if kwh is None else kwh / 3.6e6})
    # The speed was measured on the nodes of the last start.
    on_nodes = tried[-1].nodes if tried and settings.resources.least_nodes is not None else settings.resources.nodes
    stage_states = {stage: state(stage, run, queued, settings.resources, shards) for stage in stages.of(run)}
    most = settings.resources.max_gpu_hours
    if stage_states.get("train") == "stopped" and most is not None and used >= most:
        stage_states["train"] = f"stopped: its GPU-hours are used up (--max-gpu-hours {most:g})"
    return {
        "run": run.path.name,
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
            "lost": sum(hours(one.lost(), one.nodes) for one in tried),
            "predicted": used + hours(left, on_nodes) if left is not None else None,
            "estimated": sum(one.why == "killed" for one in tried),
        },
        "energy": {"kwh": None if joules is None else joules / 3.6e6, "told_by": told_by if joules is not None else None},
        "costs": costs,
        "best": run.read_best(),
    }


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


def show(found: dict[str, Any]) -> None:
    """Print one run as a table."""
    _print(*table_of_one(found))


def show_all(found: list[dict[str, Any]]) -> None:
    """Print several runs as one table, a row each."""
    _print(*table_of_all(found))


def _print(table: Table, lines: list[str]) -> None:
    from rich.console import Console

    Console().print(table)
    for line in lines:
        console.say(line)


def table_of_one(found: dict[str, Any]) -> tuple[Table, list[str]]:
    """Return one run as a table, and lines below it."""
    from rich.table import Table

    table = Table(title=console.cell(f"run {found['run']}"), show_header=False, title_justify="left")
    for stage, text in found["stages"].items():
        table.add_row(stage, console.cell(_in_short(text)))

    def number(value: float | None, form: str = ".3g") -> str:
        return "unknown" if value is None else f"{value:{form}}"

    hours = found["gpu_hours"]
    table.add_section()
    table.add_row("attempt", console.cell(f"{found['attempt'] or '-'} ({found['attempts']} in all)"))
    starts = found["nodes"]["starts"]
    if starts and {str(one["nodes"]) for one in starts} != {found["nodes"]["wanted"]}:
        table.add_row(f"nodes ({found['nodes']['wanted']} wanted)", _nodes_in_words(starts))
    table.add_row("step", f"{found['step']} of {number(found['total'], 'd')}")
    table.add_row("images/s, l1", f"{number(found['images_per_second'])}, {number(found['l1'])}")
    if found["memory"] is not None:
        table.add_row("memory of rank 0", f"{found['memory'] / 1e9:.3g} GB")
    table.add_row("last checkpoint", "none" if found["checkpoint"] is None else f"step {found['checkpoint']}")
    table.add_row("evaluations", f"{found['evaluated']} of {found['to_evaluate']}")
    if found["best"]:
        table.add_row("best", console.cell(rundir.in_words(found["best"])))
    table.add_row("time left", "unknown" if found["seconds_left"] is None else console.duration(found["seconds_left"]))
    told = f"{hours['used']:.2f} used, {hours['lost']:.2f} lost to restarts, {number(hours['predicted'])} predicted"
    if hours["estimated"]:
        several = hours["estimated"] > 1
        told += (
            f"\n{hours['estimated']} of the starts {'were' if several else 'was'} killed: counted until "
            f"{'their' if several else 'its'} last status update, Slurm may bill more"
        )
    table.add_row("GPU-hours of training", told)
    kwh = found["energy"]["kwh"]
    table.add_row("energy of training", "not told" if kwh is None else f"{kwh:.3g} kWh, told by {found['energy']['told_by']}")
    if len(found["costs"]) > LISTED:
        table.add_row("", f"the cost of {len(found['costs']) - LISTED} earlier checkpoints: --json")
    for cost in found["costs"][-LISTED:]:
        energy_of_it = "energy not told" if cost["kwh"] is None else f"{cost['kwh']:.3g} kWh"
        table.add_row(f"up to step {cost['step']}", f"{cost['gpu_hours']:.2f} GPU-hours, {energy_of_it}")
    lines = [f"{stage}: {text}" for stage, text in found["stages"].items() if _in_short(text) != text]
    if (waits := found["waiting"].get(stage := current_stage(found))) is not None:
        lines.append(f"{stage} waits: {waits['why']}")
    return table, [*lines, *([f"wrong: {found['wrong']}"] if found["wrong"] else [])]


def _nodes_in_words(starts: list[dict[str, Any]]) -> str:
    """Return the numbers of nodes that a training had one after the other, and for how long."""
    parts = []
    for nodes, of in itertools.groupby(starts, lambda one: one["nodes"]):
        parts.append(f"{nodes} for {console.duration(sum(one['seconds'] for one in of))}")
    return ", then ".join(parts)


def gather_each(asked: list[RunDir], around: Around | None = None) -> list[dict[str, Any]]:
    """Call `gather` for several runs; for one that cannot be read, return its name and the error in `wrong`."""
    found, around = [], Around() if around is None else around
    for run in asked:
        try:
            found.append(gather(run, around))
        except (ValueError, OSError) as error:
            wrong = console.describe(error) if isinstance(error, OSError) else str(error)
            found.append({"run": run.path.name, "path": str(run.path), "wrong": wrong})
    return found


_NOTHING_TO_DO = ("done", stages.NOT_ASKED, stages.SHARDS_ONLY)


def current_stage(found: dict[str, Any]) -> str:
    """Return the first stage of a run that is not done; the last one if all are done."""
    stage = next((name for name, text in found["stages"].items() if text not in _NOTHING_TO_DO), None)
    if stage is None:
        stage = "preprocess" if found["stages"].get("train") == stages.SHARDS_ONLY else list(found["stages"])[-1]
    return stage


def table_of_all(found: list[dict[str, Any]]) -> tuple[Table, list[str]]:
    """Return several runs as one table, a row each, and lines below it."""
    from rich.table import Table

    table = Table("run", "stage", "state", "step", "l1", "evaluated", "GPU-hours")
    reasons = []
    for one in found:
        name = console.cell(one["run"])
        if "stages" not in one:
            table.add_row(name, "?", "can't be read", "?", "", "", "")
            reasons.append(f"{one['run']}: {one['wrong']}")
            continue
        stage = current_stage(one)
        state = one["stages"][stage]
        reasons += [f"{one['run']}: {stage}: {state}"] if _in_short(state) != state else []
        reasons += [f"{one['run']}: {one['wrong']}"] if one["wrong"] else []
        step = f"{one['step']} of {'?' if one['total'] is None else one['total']}"
        l1 = "" if one["l1"] is None else f"{one['l1']:.4f}"
        evaluated = f"{one['evaluated']} of {one['to_evaluate']}"
        table.add_row(name, stage, console.cell(_in_short(state)), step, l1, evaluated, f"{one['gpu_hours']['used']:.2f}")
    return table, reasons


def _in_short(state: str) -> str:
    """Return a state without its reason, which is printed below the table."""
    return re.split(r": |; |, see ", state, maxsplit=1)[0]

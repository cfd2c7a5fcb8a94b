"""How a run is: its stages, attempts, progress and what it has cost; from Slurm where there is one, and the run's own files."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from p2p_dist import config, console, files, rundir
from p2p_dist.jobs import site, slurm, stages
from p2p_dist.rundir import RunDir


@dataclass(frozen=True)
class Attempt:
    """One start of a training on Slurm, as hpc/begin.sh and hpc/requeue.sh noted it. Times in seconds since 1970."""

    name: str
    nodes: int
    begun: float
    ended: float | None
    saved: float
    why: str | None
    code: str = "-"

    def seconds(self, now: float) -> float:
        """How long it has taken so far."""
        return (self.ended if self.ended is not None else now) - self.begun

    def lost(self) -> float:
        """Seconds of work after its last checkpoint, where it was killed or crashed."""
        if self.ended is None or self.why not in ("killed", "crash"):
            return 0.0
        return max(0.0, self.ended - max(self.begun, self.saved))


def attempts(run: RunDir, stage: str = "train") -> list[Attempt]:
    """All starts of a stage on Slurm, oldest first."""
    return _read(run.slurm / stage / "attempts")


def _read(path: Path) -> list[Attempt]:
    found: dict[str, Attempt] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        kind, name, *rest = line.split()
        if kind == "start":
            found[name] = Attempt(name, int(rest[2]), float(rest[1]), None, 0.0, None)
        elif kind == "end" and name in found:
            begun = found[name]
            found[name] = Attempt(name, begun.nodes, begun.begun, float(rest[1]), float(rest[4]), rest[3], rest[2])
    return list(found.values())


def killed(one: Attempt, run: RunDir) -> Attempt:
    """A start whose end nobody wrote down, as the next start would: it lived until the run's last sign of life."""
    trained = rundir.find_steps(run.checkpoints)
    saved = trained[-1][1].stat().st_mtime if trained else 0.0
    seen = run.status.stat().st_mtime if run.status.is_file() else 0.0
    return replace(one, ended=max(one.begun, seen), saved=saved, why="killed")


def state(stage: str, run: RunDir, queued: dict[str, slurm.Queued] | None) -> str:
    """One word or a few on a stage: done, running, pending (why), stopped, failed, to do."""
    if stages.is_done(stage, run) is not None:
        return "done"
    if queued is not None and stage in queued:
        job = queued[stage]
        waits = f" ({job.reason})" if job.state == "PENDING" and job.reason != "None" else ""
        return f"{job.state.lower()}{waits}, job {job.number}"
    if is_owned(run) and run.status.is_file() and files.read_json(run.status)["what"] == stage:
        return "running on this machine"
    outcome = run.read_outcome(stage)
    if outcome is not None and outcome["outcome"] != "done":
        return f"{outcome['outcome']}: {outcome['message']}" if outcome["message"] else str(outcome["outcome"])
    # Each member of an array counts for itself (hpc/job.sh).
    last = [tried[-1] for path in sorted((run.slurm / stage).glob("attempts*")) if (tried := _read(path))]
    if crashed := [one for one in last if one.why == "crash"]:
        code = max(crashed, key=lambda one: one.begun).code
        what = "the container did not start" if code == "255" else "crashed"  # 255 is Singularity's own
        return f"{what} (exit code {code}), see {run.slurm / stage}"
    return "to do"


def is_owned(run: RunDir) -> bool:
    """Whether a launcher of this machine runs it just now; looks without touching the lock."""
    path = run.path / ".owner"
    text = path.read_text() if path.is_file() else ""
    owner = json.loads(text) if text.strip() else {}
    return owner.get("host") == socket.gethostname() and Path(f"/proc/{owner['process']}").is_dir()


def gather(run: RunDir) -> dict[str, Any]:
    """All that `--json` prints.

    Raises:
        ValueError: there is no such run.
    """
    settings = rundir.resolve(run)
    queued: dict[str, slurm.Queued] | None = None
    unknown = None
    if shutil.which("squeue") and site.resolve("auto") != "local":
        try:
            queued = slurm.queued_jobs(run)
        except OSError as error:
            unknown = console.describe(error)
    rows = rundir.read_metrics(run)
    last = rows[-1] if rows else {}
    total = _total(run, settings)
    step, rate = last.get("step", 0), last.get("images_per_second")
    left = (total - step) * settings.train.global_batch_size / rate if total is not None and rate else None
    trained = rundir.find_steps(run.checkpoints)
    tried, now = attempts(run), time.time()
    running = queued is None or ("train" in queued and queued["train"].state == "RUNNING")  # where it is not known: perhaps
    if tried and tried[-1].ended is None and not running:
        tried[-1] = killed(tried[-1], run)
    where = settings.resources.cluster
    place = site.load("slurm" if where in ("auto", "local") else where, settings.resources.site)
    partition = settings.resources.partition or place.partition

    def hours(seconds: float, nodes: int) -> float:
        return place.gpu_hours(seconds / 3600, nodes, partition)

    used = sum(hours(one.seconds(now), one.nodes) for one in tried)
    return {
        "run": run.path.name,
        "path": str(run.path),
        "slurm": unknown,
        "stages": {stage: state(stage, run, queued) for stage in stages.STAGES},
        "attempt": tried[-1].name if tried else None,
        "attempts": len(tried),
        "step": step,
        "total": total,
        "images_per_second": rate,
        "l1": last.get("l1"),
        "checkpoint": trained[-1][0] if trained else None,
        "evaluated": len(rundir.find_steps(run.evaluations)),
        "to_evaluate": sum((path / "generator.safetensors").is_file() for _, path in trained),
        "seconds_left": left,
        "gpu_hours": {
            "used": used,
            "lost": sum(hours(one.lost(), one.nodes) for one in tried),
            "predicted": used + hours(left, settings.resources.nodes) if left is not None else None,
            "estimated": sum(one.why == "killed" for one in tried),
        },
        "best": run.read_best(),
    }


def _total(run: RunDir, settings: config.Config) -> int | None:
    if settings.train.steps is not None:
        return settings.train.steps
    try:
        manifest = files.read_json(run.shards / "manifest.json")
    except FileNotFoundError:
        return None
    part = manifest["splits"].get("train")
    return settings.train.total_steps(len(part["samples"])) if part else None


def show(found: dict[str, Any]) -> None:
    """Print one run as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"run {found['run']}", show_header=False, title_justify="left")
    for stage, text in found["stages"].items():
        table.add_row(stage, text)

    def number(value: float | None, form: str = ".3g") -> str:
        return "unknown" if value is None else f"{value:{form}}"

    hours = found["gpu_hours"]
    table.add_section()
    table.add_row("attempt", f"{found['attempt'] or '-'} ({found['attempts']} in all)")
    table.add_row("step", f"{found['step']} of {number(found['total'], 'd')}")
    table.add_row("images/s, l1", f"{number(found['images_per_second'])}, {number(found['l1'])}")
    table.add_row("last checkpoint", "none" if found["checkpoint"] is None else f"step {found['checkpoint']}")
    table.add_row("evaluations", f"{found['evaluated']} of {found['to_evaluate']}")
    if found["best"]:
        table.add_row("best", rundir.in_words(found["best"]))
    table.add_row("time left", "unknown" if found["seconds_left"] is None else console.duration(found["seconds_left"]))
    told = f"{hours['used']:.2f} used, {hours['lost']:.2f} lost to restarts, {number(hours['predicted'])} predicted"
    if hours["estimated"]:
        told += f"\n{hours['estimated']} of the starts was killed: counted up to its last sign of life, Slurm may bill more"
    table.add_row("GPU-hours of training", told)
    if found["slurm"]:
        table.add_row("Slurm", f"does not answer: {found['slurm']}")
    Console().print(table)


def show_all(runs: list[dict[str, Any]]) -> None:
    """Print several runs as one table, a line each."""
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "stage", "state", "step", "l1", "evaluated", "GPU-hours")
    for one in runs:
        stage = next((name for name, text in one["stages"].items() if text != "done"), "page")
        step = f"{one['step']} of {'?' if one['total'] is None else one['total']}"
        l1 = "" if one["l1"] is None else f"{one['l1']:.4f}"
        evaluated = f"{one['evaluated']} of {one['to_evaluate']}"
        table.add_row(one["run"], stage, one["stages"][stage], step, l1, evaluated, f"{one['gpu_hours']['used']:.2f}")
    Console().print(table)


def runs(names: list[str]) -> list[RunDir]:
    """The runs of these names, or all there are.

    Raises:
        ValueError: there is none.
    """
    if names:
        return [rundir.find(Path(name).name if Path(name).is_dir() else name) for name in names]
    root = rundir.runs_root()
    found = sorted(path.parent for path in root.glob("*/config.yaml"))
    if not found:
        raise ValueError(f"no run in {root}: start one with launch/submit.py, or name the folder of runs with $P2P_RUNS")
    return [RunDir(path) for path in found]


def verify(asked: list[RunDir]) -> int:
    """Check the checkpoints and the recorded batches of runs; exit code 1 where one is not what it should be."""
    from p2p_dist.train.verify import verify as check

    findings = {run.path.name: check(run) for run in asked}
    for name, found in findings.items():
        for finding in found:
            console.complain(f"{name}: {finding}")
        if not found:
            console.say(f"{name}: every checkpoint and every recorded batch is what it should be")
    return console.FAILED if any(findings.values()) else console.DONE


def main(arguments: list[str]) -> int:
    """What `launch/status.py` does; its exit code."""
    parser = argparse.ArgumentParser(prog="launch/status.py", description="How runs are: stages, progress, cost.")
    parser.add_argument("run", nargs="*", help="names of runs (default: all)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--verify", action="store_true", help="read every checkpoint and check the sequence of the batches")
    given = parser.parse_args(arguments)
    if given.verify:
        return verify(runs(given.run))
    found = [gather(run) for run in runs(given.run)]
    if given.json:
        console.say(json.dumps(found[0] if len(given.run) == 1 else found, indent=1))
    elif len(given.run) == 1:
        show(found[0])
    else:
        show_all(found)
    return console.DONE

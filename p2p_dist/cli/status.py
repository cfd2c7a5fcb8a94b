"""The status command: show the state of runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console
from p2p_dist.jobs import stages, status, status_tables, watch
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir


@dataclass(frozen=True)
class Command:
    """Show the state of runs: stages, progress, cost.

    Exit code 0: done; 1: --verify found something wrong, or a named run can't be read; 2: wrong usage, such as a name without
    a run, which is reported after the state of the other runs.
    """

    run: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = ()
    """names of runs (default: all)"""
    json: bool = False
    """print it as JSON"""
    watch: bool = False
    """update the table until q or Ctrl-C; without a terminal, print a line for each change until nothing runs or waits"""
    advise: bool = False
    """on Slurm: ask when trainings that wait would start on fewer nodes, and print what to type if that is sooner"""
    verify: bool = False
    """read every checkpoint and shard, and check the order of the batches"""


def runs(names: tuple[str, ...]) -> tuple[list[RunDir], list[str]]:
    """Find the runs of these names, or all; also return a line for each name that cannot be shown."""
    if not names:
        return list(dict.fromkeys(map(rundir.find, rundir.names()))), []
    found, wrong = [], []
    for name in names:
        try:
            run = rundir.find(name)
            rundir.read_settings(run)
        except ValueError as error:
            wrong.append(str(error))
        else:
            found.append(run)
    return found, wrong


def verify_runs(asked: list[RunDir]) -> int:
    """Verify the checkpoints and the recorded batches of runs; return exit code 1 if one is wrong."""
    from p2p_dist.train.verify import verify_run

    findings = {run.name: verify_run(run) for run in asked}
    for name, found in findings.items():
        for finding in found:
            console.complain(f"{name}: {finding}")
        if not found:
            console.say(f"{name}: every checkpoint, shard and recorded batch is correct")
    return console.FAILED if any(findings.values()) else console.DONE


def advise_runs(asked: list[RunDir]) -> bool:
    """Print when pending trainings would start on fewer nodes. Return whether every run could be read."""
    from p2p_dist.jobs.slurm import advise

    around = status.Around()
    if around.jobs is None:
        raise ValueError(f"--advise asks Slurm, {'which does not answer' if around.unknown else 'and there is none here'}")
    every = status.gather_each(asked, around)
    for run, found in zip(asked, every, strict=True):
        if "stages" not in found:
            console.complain(f"{run.name}: {found['wrong']}")
            continue
        state, job = found["stages"].get("train", stages.SHARDS_ONLY), squeue.queued_jobs(run, around.jobs).get("train")
        if state in ("done", stages.SHARDS_ONLY) or (job is not None and job.state != "PENDING"):
            console.say(f"{run.name}: train does not wait: {state}")
            continue
        waits = found["waiting"].get("train", {"start": None})
        if job is not None:
            console.say(f"{run.name}: train waits, job {job.number}: {waits['why']}")
        try:
            lines = advise.advise(run, queued=job is not None, start=waits["start"])
        except ValueError as error:
            lines = [f"{run.name}: {error}"]
        for line in lines:
            console.say(line)
    return all("stages" in found for found in every)


def main(arguments: list[str]) -> int:
    """Show the state of runs; return the exit code."""
    given = command_line.parse(Command, "status", arguments)
    if given.watch and (given.json or given.verify):
        raise ValueError("--watch shows a table: omit --json and --verify, or omit --watch")
    if given.advise and (given.json or given.verify or given.watch):
        raise ValueError("--advise prints lines of its own: omit --json, --verify and --watch, or omit --advise")
    asked, wrong = runs(given.run)
    code = _show(asked, given) if asked or not given.run else console.DONE
    for text in wrong:
        console.complain(f"error: {text}")
    return console.USAGE if wrong else code


def _show(asked: list[RunDir], given: Command) -> int:
    """Print the state of runs, or what --verify finds; return the exit code."""
    if not asked and not given.json:
        start = console.command("submit")
        raise ValueError(f"no run in {rundir.runs_root()}: start one with {start}, or name the folder of runs with $P2P_RUNS")
    if given.verify:
        return verify_runs(asked)
    if given.advise:
        return console.DONE if advise_runs(asked) or not given.run else console.FAILED
    if given.watch:
        return watch.watch(asked, alone=len(given.run) == 1)
    found = [status.gather(asked[0])] if len(given.run) == 1 else status.gather_each(asked)
    if given.json:
        console.say(json.dumps(found[0] if len(given.run) == 1 else found, indent=1).replace("\x7f", "\\u007f"))
    elif len(given.run) == 1:
        status_tables.show(found[0])
    else:
        status_tables.show_all(found)
    return console.FAILED if given.run and any("stages" not in one for one in found) else console.DONE

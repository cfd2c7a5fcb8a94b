"""The status command: show the state of runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console
from p2p_dist.jobs import status
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir


@dataclass(frozen=True)
class Command:
    """Show how runs are: stages, progress, cost.

    Exit code 0: done; 1: --verify found something wrong; 2: wrong usage.
    """

    run: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """names of runs (default: all)"""
    json: bool = False
    """print it as JSON"""
    verify: bool = False
    """read every checkpoint and shard, check the order of the batches"""


def runs(names: tuple[str, ...]) -> list[RunDir]:
    """The runs of these names, or all there are."""
    if names:
        return [rundir.find(name) for name in names]
    return [RunDir(path.parent.resolve()) for path in sorted(rundir.runs_root().glob("*/config.yaml"))]


def verify(asked: list[RunDir]) -> int:
    """Check the checkpoints and the recorded batches of runs; exit code 1 where one is not what it should be."""
    from p2p_dist.train.verify import verify as check

    findings = {run.path.name: check(run) for run in asked}
    for name, found in findings.items():
        for finding in found:
            console.complain(f"{name}: {finding}")
        if not found:
            console.say(f"{name}: every checkpoint, shard and recorded batch is what it should be")
    return console.FAILED if any(findings.values()) else console.DONE


def main(arguments: list[str]) -> int:
    """Show how runs are; the exit code."""
    given = command_line.parse(Command, "status", arguments)
    asked = runs(given.run)
    if not asked and not given.json:
        start = console.command("submit")
        raise ValueError(f"no run in {rundir.runs_root()}: start one with {start}, or name the folder of runs with $P2P_RUNS")
    if given.verify:
        return verify(asked)
    found = [status.gather(asked[0])] if len(given.run) == 1 else status.gather_each(asked)
    if given.json:
        console.say(json.dumps(found[0] if len(given.run) == 1 else found, indent=1).replace("\x7f", "\\u007f"))
    elif len(given.run) == 1:
        status.show(found[0])
    else:
        status.show_all(found)
    return console.DONE

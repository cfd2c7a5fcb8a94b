"""The track command: send the metrics of a run to an experiment tracker."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console
from p2p_dist.jobs import packages
from p2p_dist.run import rundir


@dataclass(frozen=True)
class Command:
    """Send the metrics of a run to MLflow, Weights & Biases or Trackio, without those already sent.

    Exit code 0: done; 1: failed; 2: wrong usage.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """name of the run"""
    to: Literal["mlflow", "wandb", "trackio"]
    """the tracker; unless its own environment variables are set, it keeps the metrics in the run's folder"""


def main(arguments: list[str]) -> int:
    """Send the metrics; return the exit code."""
    command = command_line.parse(Command, "track", arguments)
    run = rundir.find(command.run)
    rundir.read_settings(run)
    if not packages.is_installed(command.to):
        raise ValueError(f"--to {command.to} needs the package {command.to}: python -m pip install 'p2p_dist[{command.to}]'")
    from p2p_dist.train.tracker import Tracker

    try:
        with contextlib.closing(Tracker(run, command.to)) as tracker:
            sent = tracker.catch_up()
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a package of others raises
        why = console.one_line((str(error).splitlines() or [type(error).__name__])[0])
        again = f"to send everything again, as a new run there, remove {run.path / 'trackers' / command.to}"
        console.complain(f"error: {command.to}: {why}; check that its server answers; {again}")
        return console.FAILED
    console.say(f"{run.name}: {sent} lines sent to {command.to}, run {tracker.id}, up to step {tracker.step}")
    return console.DONE

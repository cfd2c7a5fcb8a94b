"""The check command: check a machine or a cluster before a long training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import files
from p2p_dist.settings.config import Resources, Where
from p2p_dist.settings.fields import SAYS_DEFAULT
from p2p_dist.settings.resources import Time
from p2p_dist.settings.values import Positive, PositiveNumber, check


@dataclass(frozen=True)
class Preflight:
    """Run one short job like a training to check everything that a training needs, and say what to do."""

    data: str | None = None
    """folder of songs that the job must be able to read"""
    resources: Annotated[Resources, tyro.conf.arg(name="")] = field(default_factory=lambda: Resources(time="0:10:00"))


@dataclass(frozen=True)
class Scaling:
    """Run the same short training on several numbers of nodes, and compare its speed with the predicted speed."""

    nodes: str = "1,2"
    """numbers of nodes, such as 1,2,4,8"""
    steps: Positive = 30
    """number of steps to measure with each number of nodes"""
    preset: str = "default"
    """settings of the training: tiny or small on a laptop, default or thesis on GPUs"""
    data: Annotated[str | None, SAYS_DEFAULT] = None
    """folder of songs (default: a 6-second example)"""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=Where)
    processes_per_node: Positive | None = None
    """training processes on a node"""
    time: Time = "0:20:00"
    """time limit of each job"""


@dataclass(frozen=True)
class Drill:
    """Stop small trainings in every supported way, and check that each resumes exactly."""

    processes: int = 2
    """on this machine: number of training processes"""
    data: Annotated[str | None, SAYS_DEFAULT] = None
    """folder of songs (default: a 6-second example)"""
    steps: Annotated[Positive | None, SAYS_DEFAULT] = None
    """steps of each training (default: 60, on a cluster 400)"""
    nodes: Positive = 2
    """on a cluster: number of nodes of each training"""
    where: Annotated[Where, tyro.conf.arg(name="")] = field(default_factory=lambda: Where(cluster="local"))
    patience: PositiveNumber = 24.0
    """on a cluster: hours to wait for the jobs"""


Check = (
    Annotated[Preflight, tyro.conf.subcommand("preflight")]
    | Annotated[Scaling, tyro.conf.subcommand("scaling")]
    | Annotated[Drill, tyro.conf.subcommand("drill")]
)


@dataclass(frozen=True)
class Command:
    """Check a machine or a cluster before a long training."""

    check: Annotated[Check, tyro.conf.arg(name="")]


def main(arguments: list[str]) -> int:
    """Run a check; return the exit code."""
    asked = command_line.parse(Command, "check", arguments).check
    check(asked, "--")
    songs = files.expanded(asked.data).absolute() if asked.data else None
    if isinstance(asked, Preflight):
        if asked.resources.least_nodes is not None:
            raise ValueError("a check runs on a fixed number of nodes: omit --least-nodes")
        from p2p_dist.checks.preflight.preflight import preflight

        return preflight(asked.resources, songs)
    if isinstance(asked, Scaling):
        from p2p_dist.checks.scaling.scaling import scaling

        resources = Resources(**asdict(asked.where), processes_per_node=asked.processes_per_node, time=asked.time)
        return scaling(asked.nodes, asked.steps, asked.preset, resources, songs)
    from p2p_dist.checks.drill.drill import drill

    resources = Resources(**asdict(asked.where), nodes=asked.nodes, time="30")
    return drill(resources, asked.processes, asked.steps, songs, asked.patience * 3600)

"""Tiers: the queues of a cluster that a job can go to, with their limits, and which of them takes a job."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from p2p_dist.settings.resources import Time, seconds_of
from p2p_dist.settings.values import Positive, Text, check

Size = tuple[int, int]
"""Number of nodes of a job, and of GPUs on all of them together; 0 GPUs for a job without."""


@dataclass(frozen=True)
class Tier:
    """A partition or a QoS (a class of jobs with limits of its own) and the jobs that it takes. None: no limit is known."""

    kind: Literal["gpu", "test", "cpu"] = "gpu"
    """gpu: training, evaluation and songs; test: short checks of the cluster; cpu: preprocessing and the page"""
    partition: Text | None = None
    qos: Text | None = None
    time: Time | None = None
    """of one job"""
    default_time: Time | None = None
    """that Slurm gives to a job that names none"""
    least_nodes: Positive = 1
    nodes: Positive | None = None
    """most of one job"""
    least_gpus: Positive = 1
    gpus: Positive | None = None
    """most of one job"""
    jobs: Positive | None = None
    """of one user, at once"""
    running: Positive | None = None
    """of these, at most so many run; the others wait"""

    def __post_init__(self) -> None:
        check(self, spelled=str)
        for name, least, most in (("nodes", self.least_nodes, self.nodes), ("gpus", self.least_gpus, self.gpus)):
            if most is not None and least > most:
                raise ValueError(f"least_{name} {least} is more than {name} {most}")

    @property
    def name(self) -> str:
        """Return what it is called: its QoS, else its partition."""
        return self.qos or self.partition or ""

    def limits(self) -> str:
        """Describe what one job may have."""
        most = "" if self.nodes is None else f"-{self.nodes}"
        nodes = f"{self.least_nodes}{most} nodes" if most else f"at least {self.least_nodes} nodes"
        parts = [
            nodes if most or self.least_nodes > 1 else "",
            f"at least {self.least_gpus} GPUs" if self.least_gpus > 1 else "",
            f"at most {self.gpus} GPUs" if self.gpus else "",
            f"at most {self.time}" if self.time else "",
        ]
        return ", ".join(filter(None, parts))

    def misses(self, sizes: Iterable[Size], minutes: int) -> list[tuple[float, str]]:
        """List the limits that a job exceeds: how many times over, and in words.

        Args:
            sizes: that it may have. minutes: 0 for a job that takes what time it gets.
        """
        found = []
        if self.time and minutes > minutes_of(self.time):
            found.append(
                (
                    minutes / minutes_of(self.time),
                    f"--time asks for {minutes / 60:.3g} hours, {self.name} allows at most {self.time}: "
                    f"add --time {self.time} or less, a longer training continues in the next job",
                )
            )
        limits = [
            limit
            for nodes, gpus in sizes
            for limit in (
                (f"--nodes {nodes}", nodes, self.least_nodes, self.nodes or math.inf),
                (
                    f"{gpus} GPUs (--nodes, --processes-per-node)",
                    gpus or self.least_gpus,
                    self.least_gpus,
                    self.gpus or math.inf,
                ),
            )
        ]
        for option, asked, least, most in limits:
            if asked > most:
                found.append((asked / most, f"{option}: a job in {self.name} has at most {most}"))
            elif asked < least:
                found.append((least / asked, f"{option}: a job in {self.name} has at least {least}"))
        return found


def choose(tiers: Sequence[Tier], sizes: Sequence[Size], minutes: int) -> tuple[Tier, str]:
    """Choose the first tier that takes a job, else the one that comes nearest. Return it, and why not an earlier one.

    Args:
        tiers: one or more, in the order in which they are to be tried. The others: see `Tier.misses`.
    """
    misses = {number: tier.misses(sizes, minutes) for number, tier in enumerate(tiers)}
    # The fewest limits exceeded, then the least; of equals the first.
    best = min(misses, key=lambda number: (len(misses[number]), math.prod(times for times, _ in misses[number])))
    passed = [f"{tiers[number].name}: {tiers[number].limits()}" for number in range(best)]
    return tiers[best], "; ".join(passed)


def shortened(time: str, tier: Tier) -> int:
    """Return the time limit of a job that can be continued, minutes: as requested, at most that of the tier."""
    return min(minutes_of(time), minutes_of(tier.time or time))


def minutes_of(time: str) -> int:
    """Convert a time limit to whole minutes, rounded up: Slurm's unit."""
    return math.ceil(seconds_of(time) / 60)

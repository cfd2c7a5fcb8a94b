"""Settings of resources, which may change from one start of a run to the next."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from p2p_dist.common import files
from p2p_dist.settings.fields import SAYS_DEFAULT
from p2p_dist.settings.values import NotNegative, Positive, PositiveNumber, Rule, check

_TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,6})(?::([0-9]{1,6}))?(?::([0-9]{1,6}))?")


def seconds_of(time: str) -> int:
    """Convert a time limit in one of Slurm's formats to seconds: `90` (minutes), `90:00`, `1:30:00`, `2-0`, `2-00:00:00`.

    Returns 0 for any other text.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        return 0
    days, *parts = (None if part is None else int(part) for part in match.groups())
    given = [part for part in parts if part is not None]
    if days is None and len(given) < 3:  # minutes[:seconds]
        given = [0, *given]
    hours, minutes, seconds = [*given, 0, 0][:3]
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


Time = Annotated[str, Rule(seconds_of, "greater than zero, and written as 90 (minutes), 1:30:00 or 2-00:00:00")]


# fmt: off
Cluster = Literal[
    "auto", "local", "slurm", "lumi", "frontier", "leonardo", "roihu", "marenostrum5", "juwels_booster", "jupiter",
    "perlmutter", "karolina", "snellius", "daint", "jean_zay",
]
# fmt: on
"""this machine, any Slurm cluster, or one with a file in hpc/sites"""


@dataclass(frozen=True)
class Where:
    """The machine or cluster that jobs run on."""

    cluster: Cluster = "auto"
    """local (this machine), slurm, auto (slurm where it is installed, else local), or a cluster with a file in hpc/sites"""
    site: Annotated[str | None, SAYS_DEFAULT] = None
    """file that describes your cluster, a copy of hpc/sites/slurm.yaml (default: that of --cluster)"""
    container: Annotated[str | None, SAYS_DEFAULT] = None
    """image that jobs run in (default: the site's); containers/README.md in the source code says how to build one"""
    overlay: str | None = None
    """overlay with packages that the image does not have; containers/build_overlay.sh in the source code builds it"""
    account: str | None = None
    """Slurm account (project) that jobs are billed to"""
    partition: Annotated[str | None, SAYS_DEFAULT] = None
    """partition (or QoS that the site's file lists) of the training, or of the jobs of preprocess (default: the site's)"""

    def from_any_folder(self) -> Self:
        """Return the same with the paths of its files absolute."""

        def absolute(path: str | None) -> str | None:
            return str(files.expanded(path).absolute()) if path else path

        return replace(self, site=absolute(self.site), container=absolute(self.container), overlay=absolute(self.overlay))


@dataclass(frozen=True)
class Resources(Where):
    """The cluster, jobs and limits of a run. These settings may change at every launch."""

    nodes: Positive = 1
    """number of nodes, for a training also a range such as 1-4 (without Slurm: of processes, or groups of one per GPU); each
    start on Slurm then gets as many nodes as are free"""
    least_nodes: Annotated[Positive | None, SAYS_DEFAULT] = None
    """minimum number of nodes for a start of the training, --nodes is the maximum; --nodes 1-4 sets both (default: --nodes)"""
    processes_per_node: Annotated[Positive | None, SAYS_DEFAULT] = None
    """training processes per node (default: the GPUs of the site's nodes, else 1)"""
    workers: Annotated[Positive | None, SAYS_DEFAULT] = None
    """preprocessing processes (default: one per core, at least one per node)"""
    preprocess_array: Annotated[Positive | None, SAYS_DEFAULT] = None
    """on Slurm: number of jobs in the preprocessing array, which share the songs (default: one job)"""
    time: Time = "24:00:00"
    """time limit of one training job, days-hours:minutes:seconds as in Slurm; a longer training continues in the next job"""
    evaluate: Literal["after", "during", "never"] = "after"
    """when to evaluate checkpoints: after the training, during it (in a separate Slurm job), or never"""
    evaluate_array: Annotated[Positive | None, SAYS_DEFAULT] = None
    """number of jobs in the evaluation array, which share the checkpoints (default: one job)"""
    max_requeues: NotNegative = 10
    """largest number of automatic requeues of a training that stops at its time limit or is preempted"""
    max_crash_restarts: NotNegative = 3
    """largest number of automatic restarts of a training that crashed, each only if it made progress since the last start"""
    max_gpu_hours: Annotated[PositiveNumber | None, SAYS_DEFAULT] = None
    """do not start the training again once it has used this many GPU-hours in all launches (default: no further limit)"""

    def __post_init__(self) -> None:
        check(self)
        if self.least_nodes is not None and self.least_nodes > self.nodes:
            raise ValueError(
                f"least-nodes {self.least_nodes} is more than nodes {self.nodes}: give both ends as nodes, such as 1-4"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of nodes of the training; of a range the fewest and the most."""
        return tuple(sorted({self.least_nodes or self.nodes, self.nodes}))


def sizes_of(text: str) -> tuple[int, int | None]:
    """Convert a range of nodes, such as `1-4`, to the settings `nodes` and `least_nodes`: (4, 1); `4-4` is (4, None).

    Raises:
        ValueError: it is no range.
    """
    found = re.fullmatch("([0-9]{1,9})-([0-9]{1,9})", text)
    least, most = map(int, found.groups()) if found else (0, 0)
    if not 0 < least <= most:
        raise ValueError(f"nodes must be a number, or the fewest and the most, as 1-4, not {text[:40]!r}")
    return most, least if least < most else None


def sizes_in_words(sizes: tuple[int, ...]) -> str:
    """Return a number or a range of nodes as a user types it."""
    return "-".join(map(str, sizes))

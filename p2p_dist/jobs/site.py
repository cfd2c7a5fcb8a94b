"""Sites: what a cluster offers, described by a YAML file in hpc/sites or by a user's own file."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from p2p_dist.jobs.slurm import commands
from p2p_dist.run import snapshot
from p2p_dist.settings import values
from p2p_dist.settings.config import Resources, seconds_of
from p2p_dist.settings.resources import Time
from p2p_dist.settings.values import NotNegative, NotNegativeNumber, Positive, Rule, Text

HPC = snapshot.batch_scripts()


_MEMORY = r"([1-9][0-9]*)([KMGTkmgt])?"
"""Format of memory in Slurm; without a unit it is megabytes."""

Memory = Annotated[str, Rule(re.compile(_MEMORY).fullmatch, "written as 480G or 500000M")]
Mask = Annotated[str, Rule(re.compile(r"0[xX](?=.*[1-9a-fA-F])[0-9a-fA-F]+").fullmatch, "the cores of a process, as 0xfe00")]
Bind = Annotated[str, Rule(re.compile(r"/[^:,]*(:/[^:,]*)?").fullmatch, "an absolute path, or /here:/in/the/container")]


@dataclass(frozen=True)
class Limit:
    """The limits of a partition. None: no limit is known."""

    time: Time | None = None
    """of one job"""
    nodes: Positive | None = None
    """of one job"""
    jobs: Positive | None = None
    """of one user, at once"""


@dataclass(frozen=True)
class Site:
    """A site. The entries are explained in hpc/sites/slurm.yaml; an entry that a file omits has the default given here."""

    partition: Text | None = None
    cpu_partition: Text | None = None
    limits: dict[str, Limit] = field(default_factory=dict)
    needs_account: bool = False
    requeue: bool = True
    gpus_per_node: NotNegative = 0
    cores_per_process: Positive = 2
    cores_per_node: Positive | None = None
    memory_per_node: Memory | None = None
    whole_nodes: list[Text] = field(default_factory=list)
    cpu_masks: list[Mask] | None = None
    environment: Text | None = None
    container: Text | None = None
    container_binds: list[Bind] = field(default_factory=list)
    preprocess_cores: Positive = 8
    preprocess_memory: Memory | None = None
    preprocess_time: Time = "2:00:00"
    evaluate_processes: Positive = 1
    evaluate_time: Time = "4:00:00"
    gpu_hours_per_node_hour: NotNegativeNumber = 0
    gpu_hours_per_gpu_hour: NotNegativeNumber = 1

    def __post_init__(self) -> None:
        values.check(self, spelled=str)
        if self.cpu_masks is not None and len(self.cpu_masks) < max(1, self.gpus_per_node):
            raise ValueError(
                f"{len(self.cpu_masks)} cpu_masks for {self.gpus_per_node} GPUs: each process needs one (null: bind no cores)"
            )

    def limit(self, partition: str | None) -> Limit:
        """Return the known limits of a partition."""
        return self.limits.get(partition or "", Limit())

    def processes_per_node(self, resources: Resources) -> int:
        """Return the training processes per node: as requested, else one per GPU, else one."""
        return resources.processes_per_node or self.gpus_per_node or 1

    def image(self, resources: Resources) -> Path | None:
        """Return the image of the jobs: as requested, else the site's; None: no container."""
        if resources.container:
            return Path(resources.container).expanduser().absolute()
        return HPC.parent / self.container if self.container else None

    def check_images(self, resources: Resources) -> None:
        """Check that the files of the container exist, as far as this machine can see.

        Raises:
            ValueError: one is not; names the option and how to build it.
        """
        overlay = Path(resources.overlay).expanduser() if resources.overlay else None
        for option, path in (("container", self.image(resources)), ("overlay", overlay)):
            if path is not None and not path.is_file():
                how = snapshot.where_is("containers/README.md")
                raise ValueError(f"the image {path} does not exist: build it (see {how}), or name another with --{option}")
        if overlay and self.image(resources) is None:
            raise ValueError(f"--overlay {overlay} needs an image: name one with --container")

    def minutes(self, time: str, partition: str | None) -> int:
        """Return the time limit of a resumable job, minutes: as requested, at most the partition's limit."""
        return min(minutes_of(time), minutes_of(self.limit(partition).time or time))

    def gpus(self, processes: int, partition: str | None) -> int:
        """Return the GPUs to request per node: all on whole nodes, else one per process."""
        return self.gpus_per_node if partition in self.whole_nodes else min(processes, self.gpus_per_node)

    def memory(self, processes: int, partition: str | None) -> str | None:
        """Return the memory to request per node: all of it, or the share of the requested GPUs."""
        share = self.gpus(processes, partition)
        if self.memory_per_node is None or share == self.gpus_per_node:
            return self.memory_per_node
        megabytes = bytes_of(self.memory_per_node) // 1024**2 * share // self.gpus_per_node
        return f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M"

    def gpu_hours(self, hours: float, nodes: int, partition: str | None, gpus: int) -> float:
        """Return the GPU-hours billed for a number of hours, nodes and GPUs per node."""
        if partition in self.whole_nodes:
            return hours * nodes * self.gpu_hours_per_node_hour
        return hours * nodes * gpus * self.gpu_hours_per_gpu_hour


def bytes_of(memory: str) -> int:
    """Convert memory in Slurm's format to bytes; the format was checked before."""
    number, unit = re.fullmatch(_MEMORY, memory).groups("M")  # type: ignore[union-attr]
    return int(number) * 1024 ** (1 + "KMGT".index(unit.upper()))


def load_site(name: str, file: str | None = None) -> Site:
    """Load the site called `name`, or the one in the user's own `file`.

    Raises:
        ValueError: no such file, an unknown name in it, or a value that can't be.
    """
    path = Path(file) if file else HPC / "sites" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no file {path}: --site names a YAML file" if file else f"no site {name}: {path} does not exist")
    site = values.from_file(path, lambda _: Site())
    if site.environment and not (HPC / site.environment).is_file():
        environment = path.absolute().parent / site.environment  # independent of the current folder
        if not environment.is_file():
            raise ValueError(
                f"{path}: environment {site.environment}: there is no such file in {environment.parent} or in {HPC}"
            )
        site = dataclasses.replace(site, environment=str(environment))
    return site


def account(resources: Resources) -> str | None:
    """Return the project to bill: as requested, else from the environment as sbatch does."""
    return resources.account or os.environ.get("SBATCH_ACCOUNT") or None


def resolve_cluster(cluster: Literal["auto", "local", "slurm", "lumi"]) -> Literal["local", "slurm", "lumi"]:
    """Resolve `auto` for this machine: lumi on LUMI, slurm on another configured cluster, else local."""
    if cluster != "auto":
        return cluster
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return "local"
    # Slurm may be installed without being configured. If only its controller does not answer, it is still a cluster.
    asked = commands.ask("sinfo", "--version")
    if asked.returncode:
        return "local"
    return "lumi" if os.environ.get("SLURM_CLUSTER_NAME") == "lumi" else "slurm"


def minutes_of(time: str) -> int:
    """Convert a time limit to whole minutes, rounded up: Slurm's unit."""
    return math.ceil(seconds_of(time) / 60)
